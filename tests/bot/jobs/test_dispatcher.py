"""Which jobs start when, and what becomes of them at a stop and a restart."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from bot.backends.router import PAUSE_S_MIN
from bot.errors import BackendDown, BackendOutOfCredits, BackendUnsure
from bot.events import BotStopping, JobCancelled, JobFailed, JobQueued, JobRendered, QueuePaused, QueueResumed
from bot.jobs.dispatcher import ANNOUNCED_AGAIN_S, RESTARTED
from bot.jobs.providers import OUT_OF_CREDITS_S_MAX
from tests.support.clock import HandClock, SteppedClock
from tests.support.live_bot import BRUSH, Brush, eventually
from tests.support.workshop import ALICE, BOB, PICTURE, SOURCE, PaidBrush, open_workshop

ONE_AT_ONCE = replace(BRUSH, concurrency_max=1)


def _gated(**fields: object) -> Brush:
    return Brush(gate=asyncio.Event(), **fields)  # type: ignore[arg-type]  # a brush's own fields


def _open_gate(brush: Brush) -> None:
    assert brush.gate is not None
    brush.gate.set()


async def test_as_many_run_as_the_backend_takes(tmp_path: Path) -> None:
    """Jobs start while there is room, the others wait in order, and each end starts the next."""
    brush = _gated(capabilities=ONE_AT_ONCE)
    async with open_workshop(tmp_path, backends=[brush]) as shop:
        jobs = [await shop.submit(who) for who in (ALICE, ALICE, BOB)]
        await shop.reaches(jobs[0].id, "sending")
        dispatcher = shop.app.dispatcher
        assert dispatcher.waiting_jobs() == (jobs[2].id, jobs[1].id)
        statuses = [dispatcher.queue_status(job.id) for job in jobs]
        assert [status.position for status in statuses] == [None, 2, 1]
        assert statuses[1].wait_s > statuses[2].wait_s > 0
        assert not any(status.is_paused for status in statuses)
        _open_gate(brush)
        await shop.idle()
        assert [event.job_id for event in shop.announced(JobRendered)] == [jobs[i].id for i in (0, 2, 1)]


async def test_jobs_are_priced_for_the_backend_that_is_next(tmp_path: Path) -> None:
    """The price is that of the first backend in service; while none is, that of the first."""
    async with open_workshop(tmp_path, backends=[Brush(name="one"), Brush(name="two")]) as shop:
        now, (first, second) = shop.app.clock.now(), shop.app.router.slots
        assert shop.app.dispatcher.next_backend() == "one"
        first.open_breaker(now)
        assert shop.app.dispatcher.next_backend() == "two"
        second.open_breaker(now)
        assert shop.app.dispatcher.next_backend() == "one"


async def test_jobs_wait_for_a_pause_to_end_and_one_tries_first(tmp_path: Path) -> None:
    """While the only backend is paused nothing runs; when the pause ends one job tries, then all go on."""
    clock, brush = SteppedClock(), Brush(errors=[BackendDown()])
    async with open_workshop(tmp_path, backends=[brush], clock=clock) as shop:
        assert (await shop.made()).state == "failed"
        brush.gate = asyncio.Event()
        jobs = [await shop.submit(who) for who in (ALICE, BOB)]
        await clock.advance(PAUSE_S_MIN - 1)
        assert brush.calls == 1
        await clock.advance(1)
        await eventually(lambda: brush.calls == 2)
        assert len(shop.app.dispatcher.waiting_jobs()) == 1
        _open_gate(brush)
        await shop.idle()
        assert [(await shop.job(job.id)).state for job in jobs] == ["rendered", "rendered"]


async def test_jobs_go_on_when_the_credits_are_back(tmp_path: Path) -> None:
    """A job that met an empty account waits, its card says so, and it is made once credits are there."""
    clock, brush = SteppedClock(), PaidBrush(errors=[BackendOutOfCredits()], credits_left=0)
    async with open_workshop(tmp_path, backends=[brush], clock=clock) as shop:
        job = await shop.submit()
        await eventually(lambda: shop.announced(QueuePaused) and shop.app.dispatcher.is_idle)
        assert shop.app.dispatcher.queue_status(job.id).is_paused
        await clock.advance(PAUSE_S_MIN)
        await eventually(lambda: shop.slot.is_paused(clock.now()))
        assert brush.calls == 1
        brush.credits_left = 20
        await eventually(lambda: clock.sleeping)
        await clock.advance(2 * PAUSE_S_MIN)
        await shop.idle()
        assert (await shop.job(job.id)).state == "rendered"
        assert len(shop.announced(QueueResumed)) == 1


async def test_jobs_do_not_wait_for_credits_for_ever(tmp_path: Path) -> None:
    """After hours without credits, waiting jobs end at no cost; later ones are accepted and tried again."""
    clock, brush = HandClock(), PaidBrush(errors=[BackendOutOfCredits()], credits_left=0)
    async with open_workshop(tmp_path, backends=[brush], clock=clock) as shop:
        began = clock.time
        accepted = await shop.submit()
        await shop.reaches(accepted.id, "failed")
        job = await shop.job(accepted.id)
        assert job.failure == str(BackendOutOfCredits())
        assert clock.time - began > OUT_OF_CREDITS_S_MAX
        assert brush.calls == 1
        assert await shop.available() == 40
        brush.credits_left = 20
        assert (await shop.made()).state == "rendered"


async def test_whatever_breaks_the_check_of_a_balance_jobs_are_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A bug or a broken disk in the check is logged, and the waiting jobs get their turn all the same."""
    brush = PaidBrush(errors=[BackendOutOfCredits()], balance_errors=[RuntimeError("a bug")], credits_left=0)
    async with open_workshop(tmp_path, backends=[brush]) as shop:
        await shop.reaches((await shop.submit()).id, "rendered")
    assert "Checking a provider's balance failed" in caplog.text


async def test_a_stop_starts_nothing_more_and_lets_running_jobs_finish(tmp_path: Path) -> None:
    """Jobs that run may use the grace; those that wait stay waiting, and their cards say so at once."""
    brush = _gated(capabilities=ONE_AT_ONCE)
    async with open_workshop(tmp_path, backends=[brush]) as shop:
        first, second = await shop.submit(), await shop.submit()
        await eventually(lambda: brush.calls == 1)
        stopping = asyncio.create_task(shop.app.dispatcher.drain(60))
        await eventually(lambda: shop.announced(BotStopping))
        assert shop.announced(BotStopping) == [BotStopping((second.id,))]
        _open_gate(brush)
        await stopping
        assert shop.announced(BotStopping)[1:] == [BotStopping(())]
        assert (await shop.job(first.id)).state == "rendered"
        assert (await shop.job(second.id)).state == "queued"
        assert brush.calls == 1


async def test_a_stop_announces_every_job_that_it_cuts_off(tmp_path: Path) -> None:
    """Whether a job was being made or its picture still being fetched, its card says that it continues."""
    brush, fetch_gate = _gated(), asyncio.Event()

    async def fetch(url: str) -> bytes:
        if url.endswith("slow"):
            await fetch_gate.wait()
        return PICTURE

    async with open_workshop(tmp_path, backends=[brush], fetch=fetch) as shop:
        made = await shop.submit()
        await eventually(lambda: brush.calls == 1)
        source = replace(SOURCE, url="https://cdn.example/slow")
        fetched = await shop.submit(source=source)
        await shop.app.dispatcher.drain(0)
        assert shop.announced(BotStopping) == [BotStopping(()), BotStopping((made.id, fetched.id))]
    async with open_workshop(tmp_path) as shop:
        await shop.app.dispatcher.recover()
        fetch_gate.set()
        await shop.idle()
        assert [(await shop.job(job.id)).state for job in (made, fetched)] == ["rendered", "rendered"]


async def test_a_stop_announces_a_job_that_was_put_back_meanwhile(tmp_path: Path) -> None:
    """A job that fails during the grace and may be tried again continues after the restart, and says so."""
    brush = _gated(errors=[BackendUnsure()])
    async with open_workshop(tmp_path, backends=[brush]) as shop:
        job = await shop.submit()
        await eventually(lambda: brush.calls == 1)
        stopping = asyncio.create_task(shop.app.dispatcher.drain(60))
        await eventually(lambda: shop.announced(BotStopping))
        _open_gate(brush)
        await stopping
        assert shop.announced(BotStopping) == [BotStopping(()), BotStopping((job.id,))]
        assert (await shop.job(job.id)).state == "queued"


async def test_a_restart_resumes_each_job_by_its_state(tmp_path: Path) -> None:
    """What waited waits, what ran is tried once more and then given up, what was made is posted."""
    brush = _gated(capabilities=replace(BRUSH, concurrency_max=3))
    async with open_workshop(tmp_path, backends=[brush], member_running_max=3) as shop:
        jobs = [await shop.submit() for _ in range(4)]
        for job in jobs[:3]:
            await shop.reaches(job.id, "sending")
        await shop.app.db.write(
            lambda tx: tx.execute("UPDATE job SET attempt = 2 WHERE id = ?", (jobs[0].id,))
        )
    async with open_workshop(tmp_path, member_running_max=3) as shop:
        await shop.app.dispatcher.recover()
        queued = [(event.job_id, event.is_new) for event in shop.announced(JobQueued)]
        assert sorted(queued) == [(job.id, False) for job in jobs[1:]]
        assert shop.announced(JobFailed) == [JobFailed(jobs[0].id)] * 2  # as an end, and as a recent one
        await shop.idle()
        stored = [await shop.job(job.id) for job in jobs]
        assert [(job.state, job.attempt) for job in stored] == [
            ("failed", 2),
            ("rendered", 2),
            ("rendered", 2),
            ("rendered", 1),
        ]
        assert stored[0].failure == RESTARTED
    async with open_workshop(tmp_path, member_running_max=3) as shop:
        await shop.app.dispatcher.recover()
        assert [event.job_id for event in shop.announced(JobRendered)] == [job.id for job in jobs[1:]]


async def test_a_restart_announces_recent_ends_again(tmp_path: Path) -> None:
    """A card that a crash kept from showing its job's end is edited after the restart; old ones are not."""
    clock, brush = HandClock(), Brush()
    async with open_workshop(tmp_path, backends=[brush], clock=clock) as shop:
        brush.errors = [RuntimeError("no"), RuntimeError("no")]
        await shop.made()
        clock.time += ANNOUNCED_AGAIN_S + 1
        failed = await shop.made()
        brush.gate = asyncio.Event()
        cancelled = await shop.submit()
        await eventually(lambda: brush.calls == 3)
        await shop.app.jobs.cancel(ALICE, cancelled.id)
        await shop.idle()
    async with open_workshop(tmp_path) as shop:
        await shop.app.dispatcher.recover()
        assert shop.events == [JobFailed(failed.id), JobCancelled(cancelled.id)]


async def test_recovering_again_only_announces(tmp_path: Path) -> None:
    """A new client is shown where each job stands; nothing is started or charged twice."""
    brush = _gated(capabilities=ONE_AT_ONCE)
    async with open_workshop(tmp_path, backends=[brush]) as shop:
        await shop.app.dispatcher.recover()
        _, second = await shop.submit(), await shop.submit()
        await eventually(lambda: brush.calls == 1)
        shop.events.clear()
        await shop.app.dispatcher.recover()
        assert shop.events == [JobQueued(second.id, is_new=False)]
        _open_gate(brush)
        await shop.idle()
        shop.events.clear()
        await shop.app.dispatcher.recover()
        assert len(shop.announced(JobRendered)) == 2
        assert brush.calls == 2
