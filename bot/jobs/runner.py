"""Runs one job on one backend: claim it, call, store the pictures, settle the hold; or end it otherwise.

Each change of a job's state is committed before it is announced.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Iterable
from typing import Final, NamedTuple

from bot.backends.base import Generation, Picture, Progress
from bot.backends.router import BackendSlot
from bot.clock import Clock
from bot.credits.service import CreditService
from bot.errors import BotError, UserError
from bot.events import (
    Event,
    Events,
    InputRefused,
    JobCancelled,
    JobFailed,
    JobProgressed,
    JobRendered,
    JobStarted,
)
from bot.jobs.commits import commit
from bot.jobs.inputs import Inputs
from bot.jobs.providers import ProviderWatch
from bot.jobs.records import params_of
from bot.params import Img2ImgParams
from bot.pictures.pool import PicturePool
from bot.pictures.store import PictureStore
from db import jobs
from db.database import Database
from db.jobs import Cancellable, Job, Result

log = logging.getLogger(__name__)

BROKEN: Final = "Something went wrong while making this picture. You weren't charged; please try again."


class _Call(NamedTuple):
    task: asyncio.Task[Generation]
    can_cancel: bool


class JobRunner:
    """Makes jobs' pictures and ends jobs."""

    def __init__(
        self,
        *,
        db: Database,
        clock: Clock,
        credit_service: CreditService,
        inputs: Inputs,
        pool: PicturePool,
        store: PictureStore,
        events: Events,
        watch: ProviderWatch,
    ) -> None:
        self._db = db
        self._clock = clock
        self._credits = credit_service
        self._inputs = inputs
        self._pool = pool
        self._store = store
        self._events = events
        self._watch = watch
        self._calls: dict[int, _Call] = {}
        self._cancel_requested: set[int] = set()

    async def run(self, job_id: int, slot: BackendSlot) -> Job | None:
        """Make the job's pictures; return the job if it is to be tried once more."""
        try:
            await self._make(job_id, slot)
        except BotError as error:
            return await self._handle_failure(job_id, slot, error)
        except Exception:
            log.exception("Job %d failed unexpectedly", job_id)
            await self.fail(job_id, BROKEN)
        finally:
            self._cancel_requested.discard(job_id)
        return None

    async def _make(self, job_id: int, slot: BackendSlot) -> None:
        await self._inputs.ready(job_id)
        job = await self._claim(job_id, slot)
        if job is None or job.input_hash is None:
            return
        can_cancel = slot.backend.capabilities.can_cancel
        self._events.emit(JobStarted(job_id, can_cancel=can_cancel, job_s=slot.job_s_mean))
        began = self._clock.now()
        params, image = params_of(job), await self._store.get(job.input_hash)
        generation = await self._call(job_id, params, image, slot)
        if generation is None:
            await self._end_cancelled(job_id, "sending")
            return
        slot.record_success(self._clock.now() - began)
        results = await self._store_pictures(job_id, generation.pictures)
        await self._render(job, params, results)
        await self._watch.record_balance(slot, generation.remaining_credits)

    async def _claim(self, job_id: int, slot: BackendSlot) -> Job | None:
        """Commit that the provider may be called now; None if the job is no longer waiting."""

        def unit(tx: sqlite3.Connection) -> Job | None:
            job = jobs.get(tx, job_id)
            if job is None or job.state != "queued" or job.input_hash is None:
                return None
            jobs.mark_sending(tx, job_id=job_id, backend=slot.name, now=self._clock.now())
            job = jobs.get(tx, job_id)
            return job if job and job.state == "sending" else None

        return await commit(self._db, self._clock, unit)

    async def _call(
        self, job_id: int, params: Img2ImgParams, image: bytes, slot: BackendSlot
    ) -> Generation | None:
        """Call the backend; None if the job's requester cancelled meanwhile."""

        def on_progress(progress: Progress) -> None:
            self._events.emit(JobProgressed(job_id, progress))

        # A task of its own, so that it can be cancelled without cancelling the job's bookkeeping.
        call = asyncio.create_task(
            slot.backend.generate(params, image, on_progress), name=f"call of {job_id}"
        )
        self._calls[job_id] = _Call(call, slot.backend.capabilities.can_cancel)
        try:
            await asyncio.wait([call])
        finally:
            del self._calls[job_id]
        if job_id in self._cancel_requested and (call.cancelled() or call.exception()):
            return None
        return call.result()

    async def _store_pictures(self, job_id: int, pictures: Iterable[Picture]) -> tuple[Result, ...]:
        """Check and re-encode what the backend gave, and put it on disk."""

        async def store(picture: Picture) -> Result:
            normal = await self._pool.accept_result(picture.data)
            digest = await self._store.put(normal.data)
            return Result(job_id, picture.index, picture.seed, digest, normal.width, normal.height)

        return tuple(await asyncio.gather(*map(store, pictures)))

    async def _render(self, job: Job, params: Img2ImgParams, results: tuple[Result, ...]) -> None:
        """Charge for the pictures there are, at most what was held."""
        made = params.model_copy(update={"samples": len(results)})
        pixels = max(result.width * result.height for result in results)

        def unit(tx: sqlite3.Connection) -> bool:
            price = self._credits.price(made, pixels, backend=job.backend or "")
            charged = min(job.price, price)
            self._credits.settle_hold(tx, job_id=job.id, charged=charged)
            now = self._clock.now()
            return jobs.mark_rendered(tx, job_id=job.id, pictures=results, charged=charged, now=now)

        await commit(self._db, self._clock, unit)
        self._events.emit(JobRendered(job.id))

    async def _handle_failure(self, job_id: int, slot: BackendSlot, error: BotError) -> Job | None:
        log.warning("Job %d on %s: %s %s", job_id, slot.name, error, error.detail)
        self._watch.record_failure(slot, error)
        if self._watch.may_retry(slot, error) and (again := await self.requeue(job_id)):
            return again
        await self.fail(job_id, str(error))
        return None

    async def requeue(self, job_id: int) -> Job | None:
        """Set a job that was sent back to queued, at the operator's cost; None if no attempt is left."""

        def unit(tx: sqlite3.Connection) -> Job | None:
            return jobs.get(tx, job_id) if jobs.mark_queued_again(tx, job_id=job_id) else None

        return await commit(self._db, self._clock, unit)

    async def fail(self, job_id: int, sentence: str) -> None:
        """End a job without a picture, its hold released; its member is shown the sentence."""
        await self._end_failed(job_id, sentence, JobFailed(job_id))

    async def refuse_input(self, job_id: int, error: UserError) -> None:
        """End a job whose source can't be used."""
        log.info("The input of job %d was refused: %s %s", job_id, error, error.detail)
        await self._end_failed(job_id, str(error), InputRefused(job_id, str(error)))

    async def _end_failed(self, job_id: int, sentence: str, event: Event) -> None:
        def unit(tx: sqlite3.Connection) -> bool:
            job = jobs.get(tx, job_id)
            if job is None or job.state not in ("queued", "sending"):
                return False
            self._credits.release_hold(tx, job_id=job_id)
            return jobs.mark_failed(tx, job_id=job_id, failure=sentence, now=self._clock.now())

        if await commit(self._db, self._clock, unit):
            self._events.emit(event)

    async def cancel_waiting(self, job_id: int) -> bool:
        """End a job that is not sent yet; False if it was sent or has ended."""
        return await self._end_cancelled(job_id, "queued")

    def cancel_running(self, job_id: int) -> bool:
        """Stop the job's call; False if its backend can't be stopped, or if it has none just now."""
        call = self._calls.get(job_id)
        if call is not None and call.can_cancel and call.task.cancel():
            self._cancel_requested.add(job_id)
        # A call that was stopped before may still be ending.
        return job_id in self._cancel_requested

    async def _end_cancelled(self, job_id: int, from_state: Cancellable) -> bool:
        def unit(tx: sqlite3.Connection) -> bool:
            job = jobs.get(tx, job_id)
            if job is None or job.state != from_state:
                return False
            self._credits.release_hold(tx, job_id=job_id)
            return jobs.mark_cancelled(tx, job_id=job_id, from_state=from_state, now=self._clock.now())

        is_cancelled = await commit(self._db, self._clock, unit)
        if is_cancelled:
            self._events.emit(JobCancelled(job_id))
        return is_cancelled

    def cancel_calls(self) -> list[asyncio.Task[Generation]]:
        """Cancel every call that runs; return them, for whoever waits until they have ended."""
        calls = [call.task for call in self._calls.values()]
        for call in calls:
            call.cancel()
        return calls
