from __future__ import annotations

import asyncio
import gc
import logging

import pytest

from bot.runtime.background import BackgroundTasks


async def test_a_task_is_kept_until_it_is_done() -> None:
    """A task that nobody awaits survives the garbage collector, and is forgotten once it is done."""
    tasks, done = BackgroundTasks(), asyncio.Event()

    async def work() -> None:
        await asyncio.sleep(0.01)
        done.set()

    tasks.spawn(work(), name="work")
    gc.collect()
    assert len(tasks) == 1
    await done.wait()
    await tasks.wait()
    assert len(tasks) == 0


async def test_its_result_can_be_awaited() -> None:
    """Whoever spawns a task may still wait for what it returns."""
    tasks = BackgroundTasks()

    async def work() -> int:
        return 7

    assert await tasks.spawn(work(), name="work") == 7


async def test_an_error_is_logged_under_the_tasks_name(caplog: pytest.LogCaptureFixture) -> None:
    """A task that fails is not lost in silence, and does not disturb the others."""
    tasks = BackgroundTasks()

    async def fail() -> None:
        raise LookupError("no such card")

    with caplog.at_level(logging.ERROR):
        tasks.spawn(fail(), name="edit of card 3")
        await tasks.wait()
    assert "edit of card 3" in caplog.text
    assert "no such card" in caplog.text


async def test_waiting_counts_tasks_started_meanwhile() -> None:
    """A task that starts another is not done before that one is."""
    tasks, order = BackgroundTasks(), list[str]()

    async def second() -> None:
        await asyncio.sleep(0.01)
        order.append("second")

    async def first() -> None:
        tasks.spawn(second(), name="second")
        order.append("first")

    tasks.spawn(first(), name="first")
    await tasks.wait()
    assert order == ["first", "second"]


async def test_waiting_ends_in_time_without_cancelling() -> None:
    """A wait that takes too long ends; the tasks go on."""
    tasks, release = BackgroundTasks(), asyncio.Event()
    task = tasks.spawn(release.wait(), name="slow")
    await tasks.wait(timeout_s=0.01)
    assert not task.done()
    release.set()
    await tasks.wait()
    assert task.result() is True


async def test_cancelling_waits_for_every_end(caplog: pytest.LogCaptureFixture) -> None:
    """After cancelling, all tasks have cleaned up, and being cancelled is no error."""
    tasks, cleaned = BackgroundTasks(), list[int]()

    async def work(number: int) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0)
            cleaned.append(number)

    for number in range(3):
        tasks.spawn(work(number), name=f"work {number}")
    await asyncio.sleep(0)
    await tasks.cancel()
    assert sorted(cleaned) == [0, 1, 2]
    assert len(tasks) == 0
    assert caplog.text == ""
