"""Steps between threads, and work that ends when its client disconnects."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

pytest.importorskip("torch", reason="needs the extra [gpu]")
pytest.importorskip("starlette", reason="needs the extra [gpu]")
from starlette.requests import ClientDisconnect

from bot.gpu.streaming import StepFeed, cancel_on_disconnect
from bot.gpu.tickets import Step


def step(number: int) -> Step:
    """Return a step without a preview."""
    return Step(number, 9, None)


def client(*, disconnects: bool) -> Callable[[], Awaitable[dict[str, Any]]]:
    """Return what a server receives from a client that sent its body and then waits or disconnects."""
    messages = [{"type": "http.request"}, *([{"type": "http.disconnect"}] if disconnects else [])]

    async def receive() -> dict[str, Any]:
        if messages:
            return messages.pop(0)
        await asyncio.Event().wait()
        raise AssertionError

    return receive


async def test_newest_step_replaces_older_ones() -> None:
    """A reader that was slow gets only the newest step, and each step once."""
    feed = StepFeed()
    for number in (1, 2, 3):
        feed.publish(step(number))
    assert await feed.next() == step(3)
    assert await feed.next(within_s=0.01) is None


async def test_steps_cross_threads() -> None:
    """A step published on another thread wakes the reader."""
    feed = StepFeed()
    threading.Timer(0.01, feed.publish, [step(1)]).start()
    assert await feed.next(within_s=10) == step(1)


async def test_closing_wakes_the_reader() -> None:
    """At the end a waiting reader gets None instead of waiting forever."""
    feed = StepFeed()
    asyncio.get_running_loop().call_soon(feed.close)
    assert await feed.next() is None


async def test_work_of_a_client_that_stays_is_returned() -> None:
    """A client that waits gets the result, or the error of the work."""

    async def work() -> str:
        return "picture"

    async def broken() -> str:
        raise ZeroDivisionError

    assert await cancel_on_disconnect(client(disconnects=False), work()) == "picture"
    with pytest.raises(ZeroDivisionError):
        await cancel_on_disconnect(client(disconnects=False), broken())


async def test_work_of_a_client_that_disconnects_is_cancelled() -> None:
    """A disconnect cancels the work, and waits until it has ended."""
    ended: list[str] = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("work")

    with pytest.raises(ClientDisconnect):
        await cancel_on_disconnect(client(disconnects=True), work())
    assert ended == ["work"]
