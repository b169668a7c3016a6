"""One job's way: claimed, made, stored, paid; or ended otherwise at no cost."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from bot.backends.base import Generation, OnProgress, Picture, Progress
from bot.errors import BackendRefused, BackendUnsure, OperatorError, UnusablePicture
from bot.events import InputRefused, JobCancelled, JobFailed, JobProgressed, JobRendered, JobStarted
from bot.jobs.commits import DISK_WAIT_S_MAX
from bot.jobs.runner import BROKEN
from bot.params import Img2ImgParams
from bot.pictures.store import PictureStore
from db import ledger
from tests.support import pictures
from tests.support.clock import HandClock, SteppedClock
from tests.support.live_bot import BRUSH, Brush, eventually
from tests.support.workshop import ALICE, PICTURE, PaidBrush, Workshop, open_workshop


@pytest.fixture
def brush() -> PaidBrush:
    """Return a backend that works at once."""
    return PaidBrush()


@pytest.fixture
async def shop(tmp_path: Path, brush: PaidBrush) -> AsyncIterator[Workshop]:
    """Yield a workshop; at the end its ledger must be consistent."""
    async with open_workshop(tmp_path, backends=[brush]) as opened:
        yield opened
        assert await opened.app.db.read(ledger.reconcile) == []


async def test_a_job_is_made_stored_and_paid(shop: Workshop) -> None:
    """A job that runs is announced, its pictures are on disk with their seeds, and its hold is charged."""
    job = await shop.made(samples=2)
    assert (job.state, job.charged, job.backend, job.attempt) == ("rendered", job.price, "brush", 1)
    view = await shop.app.job_records.view(job.id, guild_id=1)
    assert [(result.sample, result.seed) for result in view.results] == [(0, 5), (1, 5)]
    assert all([await shop.app.store.get(result.hash) for result in view.results])
    assert shop.announced(JobStarted) == [JobStarted(job.id, can_cancel=True, job_s=BRUSH.typical_s)]
    assert shop.announced(JobRendered) == [JobRendered(job.id)]
    wallet = await shop.app.credits.wallet(ALICE)
    assert (wallet.available, wallet.on_hold) == (40 - job.price, 0)


@pytest.mark.parametrize(("made", "charged"), [(3, 6), (2, 4), (1, 2)])
async def test_missing_pictures_are_not_charged(
    shop: Workshop, brush: PaidBrush, made: int, charged: int
) -> None:
    """A member who asked for three pictures pays for those that came."""
    brush.pictures_max = made
    job = await shop.made(samples=3)
    assert (job.price, job.charged) == (6, charged)
    assert len((await shop.app.job_records.view(job.id, guild_id=1)).results) == made
    assert await shop.available() == 40 - charged


async def test_a_larger_picture_costs_no_more_than_was_held(shop: Workshop, brush: PaidBrush) -> None:
    """Whatever size a backend answers with, a member pays at most the price that they were shown."""
    brush.answer = pictures.encoded(pictures.disc(1600, 1600))
    job = await shop.made()
    (result,) = (await shop.app.job_records.view(job.id, guild_id=1)).results
    assert (result.width, result.height) == (1600, 1600)
    assert job.charged == job.price == 2


async def test_progress_is_announced(tmp_path: Path) -> None:
    """Each step that the backend reports reaches whoever shows it."""

    class Stepping(Brush):
        async def generate(self, params: Img2ImgParams, image: bytes, on_progress: OnProgress) -> Generation:
            on_progress(Progress(1, 2))
            on_progress(Progress(2, 2))
            return await Brush.generate(self, params, image, on_progress)

    async with open_workshop(tmp_path, backends=[Stepping()]) as shop:
        job = await shop.made()
        assert shop.announced(JobProgressed) == [JobProgressed(job.id, Progress(n, 2)) for n in (1, 2)]


async def test_a_job_that_no_longer_waits_is_not_claimed(tmp_path: Path) -> None:
    """A job cancelled while its picture was fetched is not sent, and its slot is free for the next."""
    gate, brush = asyncio.Event(), Brush()

    async def fetch(_url: str) -> bytes:
        await gate.wait()
        return PICTURE

    async with open_workshop(tmp_path, backends=[brush], fetch=fetch) as shop:
        job = await shop.submit()
        await shop.app.jobs.cancel(ALICE, job.id)
        gate.set()
        await shop.idle()
        assert (brush.calls, shop.slot.running) == (0, 0)
        assert (await shop.job(job.id)).state == "cancelled"
        assert shop.announced(JobStarted) == []


@pytest.mark.parametrize("state", ["rendered", "failed", "cancelled"])
async def test_a_job_that_has_ended_is_neither_made_nor_ended_again(
    shop: Workshop, brush: PaidBrush, state: str
) -> None:
    """Whatever is asked of a job after its end changes nothing and announces nothing."""
    if state == "failed":
        brush.errors.append(BackendRefused())
    brush.gate = asyncio.Event()
    job = await shop.submit()
    await eventually(lambda: brush.calls)
    if state == "cancelled":
        await shop.app.jobs.cancel(ALICE, job.id)
    brush.gate.set()
    await shop.idle()
    before = await shop.job(job.id)
    assert before.state == state
    shop.events.clear()
    assert await shop.runner.run(job.id, shop.slot) is None
    await shop.runner.fail(job.id, "too late")
    await shop.runner.refuse_input(job.id, UnusablePicture())
    assert not await shop.runner.cancel_waiting(job.id)
    assert not shop.runner.cancel_running(job.id)
    assert await shop.runner.requeue(job.id) is None
    assert await shop.runner.run(12_345, shop.slot) is None
    assert (await shop.job(job.id), shop.events, brush.calls) == (before, [], 1)


async def test_a_call_that_ends_although_it_was_cancelled_is_paid(tmp_path: Path) -> None:
    """A picture that a backend gives in spite of a cancellation is shown and charged, not thrown away."""

    class Stubborn(Brush):
        async def generate(self, params: Img2ImgParams, image: bytes, on_progress: OnProgress) -> Generation:
            with suppress(asyncio.CancelledError):
                await Brush.generate(self, params, image, on_progress)
            return Generation((Picture(0, params.seed, image),))

    brush = Stubborn(gate=asyncio.Event())
    async with open_workshop(tmp_path, backends=[brush]) as shop:
        job = await shop.submit()
        await eventually(lambda: brush.calls)
        await shop.app.jobs.cancel(ALICE, job.id)
        await shop.idle()
        assert (await shop.job(job.id)).state == "rendered"
        assert (shop.announced(JobCancelled), await shop.available()) == ([], 38)


async def test_an_unsure_call_is_repeated_once(shop: Workshop, brush: PaidBrush) -> None:
    """A call that may have worked is made a second time at the operator's cost, and no third time."""
    brush.errors = [BackendUnsure()]
    job = await shop.made()
    assert (job.state, job.attempt, brush.calls) == ("rendered", 2, 2)
    assert await shop.available() == 38
    brush.errors = [BackendUnsure(), BackendUnsure(), BackendUnsure()]
    failed = await shop.made()
    assert (failed.state, failed.failure, brush.calls) == ("failed", str(BackendUnsure()), 4)
    assert await shop.available() == 38


@pytest.mark.parametrize("answer", [b"", b"rubbish", b"\xff\xd8 rubbish"])
async def test_an_answer_that_is_no_picture_is_not_paid(
    shop: Workshop, brush: PaidBrush, answer: bytes
) -> None:
    """Rubbish from a backend counts as an unsure call: tried once more, then failed at no cost."""
    brush.answer = answer or b"\x00"
    job = await shop.made()
    assert (job.state, brush.calls) == ("failed", 2)
    assert await shop.available() == 40


@pytest.mark.parametrize("error", [RuntimeError("a bug"), KeyError("x"), OSError("no")])
async def test_an_unforeseen_error_ends_the_job_at_no_cost(
    shop: Workshop, brush: PaidBrush, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    """A bug is logged with its trace; the member reads one sentence, pays nothing, and others go on."""
    brush.errors.append(error)
    job = await shop.made()
    assert (job.state, job.failure) == ("failed", BROKEN)
    assert shop.announced(JobFailed) == [JobFailed(job.id)]
    assert f"Job {job.id} failed unexpectedly" in caplog.text
    assert type(error).__name__ in caplog.text
    assert await shop.available() == 40
    assert (await shop.made()).state == "rendered"


async def test_a_backend_without_a_single_picture_ends_the_job(shop: Workshop, brush: PaidBrush) -> None:
    """A backend that breaks its promise of at least one picture costs the member nothing."""
    brush.pictures_max = 0
    job = await shop.made()
    assert (job.state, job.failure) == ("failed", BROKEN)
    assert await shop.available() == 40


async def test_a_full_picture_store_ends_the_job_and_alerts_the_operator(tmp_path: Path) -> None:
    """A picture that can't be stored is not paid, and the operator is alerted to the disk."""

    class FullStore(PictureStore):
        full = False

        async def put(self, data: bytes) -> str:
            if self.full:
                raise OperatorError("The bot's disk is full.", detail="No space left on device")
            return await super().put(data)

    stores: list[FullStore] = []

    def wrap(store: PictureStore) -> PictureStore:
        stores.append(FullStore(store._root))
        return stores[0]

    brush = Brush(gate=asyncio.Event())
    async with open_workshop(tmp_path, backends=[brush], wrap_store=wrap) as shop:
        job = await shop.submit()
        await eventually(lambda: brush.calls)
        stores[0].full = True
        assert brush.gate is not None
        brush.gate.set()
        await shop.idle()
        assert (await shop.job(job.id)).failure == "The bot's disk is full."
        assert shop.alerts == ["The bot's disk is full. (No space left on device)"]
        assert await shop.available() == 40


async def test_a_refused_input_ends_the_job_in_its_own_words(shop: Workshop, brush: PaidBrush) -> None:
    """A member whose picture can't be used is shown why, and pays nothing."""
    brush.gate = asyncio.Event()
    jobs = [await shop.submit() for _ in range(3)]
    await eventually(lambda: brush.calls == 2)
    await shop.runner.refuse_input(jobs[2].id, UnusablePicture("That is a song."))
    assert shop.announced(InputRefused) == [InputRefused(jobs[2].id, "That is a song.")]
    assert (await shop.job(jobs[2].id)).failure == "That is a song."
    assert await shop.available() == 36


async def test_a_disk_that_refuses_is_asked_again_after_growing_waits(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A finished picture is kept until it can be recorded, however long that takes, and is made once."""
    clock, brush = HandClock(), Brush(gate=asyncio.Event())
    async with open_workshop(tmp_path, backends=[brush], clock=clock) as shop:
        job = await shop.submit()
        await eventually(lambda: brush.calls)
        began, shop.disk.refusals = clock.time, 8
        assert brush.gate is not None
        brush.gate.set()
        await shop.idle()
        assert clock.time - began == 1 + 2 + 4 + 8 + 16 + 32 + 60 + 60
        assert ((await shop.job(job.id)).state, brush.calls) == ("rendered", 1)
        assert await shop.available() == 38
    assert caplog.text.count("Waiting for the disk to accept a write") == 8


async def test_nothing_new_is_started_while_the_disk_refuses(tmp_path: Path) -> None:
    """A job that can't be recorded keeps its slot: no call is made that could not be recorded either."""
    clock = SteppedClock()
    brush = Brush(gate=asyncio.Event(), capabilities=replace(BRUSH, concurrency_max=1))
    async with open_workshop(tmp_path, backends=[brush], clock=clock) as shop:
        jobs = [await shop.submit(), await shop.submit()]
        await eventually(lambda: brush.calls == 1)
        shop.disk.refusals = 1_000
        assert brush.gate is not None
        brush.gate.set()
        await eventually(lambda: clock.sleeping)
        await clock.advance(10 * DISK_WAIT_S_MAX)
        assert (brush.calls, shop.slot.running) == (1, 1)
        assert [(await shop.job(job.id)).state for job in jobs] == ["sending", "queued"]
        shop.disk.refusals = 0
        await clock.advance(DISK_WAIT_S_MAX)
        await shop.idle()
        assert [(await shop.job(job.id)).state for job in jobs] == ["rendered", "rendered"]


@pytest.mark.parametrize("what", ["claim", "failure", "cancellation"])
async def test_every_change_of_state_waits_for_the_disk(
    shop: Workshop, brush: PaidBrush, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Claims, failures and cancellations are recorded as patiently as pictures."""
    caplog.set_level(logging.INFO)
    brush.gate = asyncio.Event()
    if what == "failure":
        brush.errors += [BackendRefused()]
    jobs = [await shop.submit() for _ in range(3)]
    await eventually(lambda: brush.calls == 2)
    shop.disk.refusals = 3
    if what == "cancellation":
        await shop.app.jobs.cancel(ALICE, jobs[2].id)
    brush.gate.set()
    await shop.idle()
    states = [str((await shop.job(job.id)).state) for job in jobs]
    expected = {"claim": "rendered", "failure": "failed", "cancellation": "cancelled"}[what]
    assert states.count(expected) == (3 if what == "claim" else 1)
    assert caplog.text.count("Waiting for the disk") == 3
