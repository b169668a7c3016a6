"""Takes jobs from the queue while there is capacity, runs them, ends them, and takes them up after a restart.

Event-driven: a job's task begins when there is room and ends with the job; nothing
idles in a loop. Each change of a job's state is committed before what it announces.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from bot.backends.base import Generation, Picture, Progress, TellsBalance
from bot.backends.router import Lane, Router
from bot.clock import Clock
from bot.credits.service import Credits
from bot.errors import (
    BackendDown,
    BackendError,
    BackendOutOfCredits,
    BackendUnreachable,
    BackendUnsure,
    BotError,
    OperatorError,
    UserError,
)
from bot.events import (
    BotStopping,
    Event,
    Events,
    InputRefused,
    JobCancelled,
    JobFailed,
    JobProgressed,
    JobQueued,
    JobRendered,
    JobStarted,
    OperatorAlert,
    QueuePaused,
    QueueResumed,
)
from bot.jobs.fair_queue import FairQueue, Ticket
from bot.jobs.inputs import Inputs
from bot.params import Img2ImgParams
from bot.pictures.pool import PicturePool
from bot.pictures.store import PictureStore
from db import jobs as rows
from db import providers
from db.database import Database, DatabaseBrokenError, T, Unit
from db.jobs import Job, Result

log = logging.getLogger(__name__)

#: The last ends before a start are told again: a crash may have come between an end and its telling.
TOLD_AGAIN_S: Final = 60.0

DISK_WAIT_S_MIN: Final = 1.0
DISK_WAIT_S_MAX: Final = 60.0
#: How long jobs wait for the operator's credits to come back before they fail, at no cost.
DRY_S_MAX = 6 * 3_600.0

RESTARTED = "The bot was restarted while making this picture. It cost you nothing; please try again."
BROKE = "Something broke while making this picture. It cost you nothing; please try again."


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a job stands: its place (1 is next; None: not waiting) and the seconds until its picture.

    `is_paused` tells that nothing is made until the operator's credits are back.
    """

    place: int | None
    wait_s: float
    is_paused: bool = False


class Dispatcher:
    """The one who runs jobs."""

    def __init__(
        self,
        *,
        db: Database,
        clock: Clock,
        wallet: Credits,
        queue: FairQueue,
        router: Router,
        inputs: Inputs,
        pool: PicturePool,
        store: PictureStore,
        events: Events,
        low_credits: float = 0.0,
    ) -> None:
        """Get ready; below `low_credits` at a provider the operator is alerted."""
        self._low_credits = low_credits
        self._db = db
        self._clock = clock
        self._credits = wallet
        self._queue = queue
        self._router = router
        self._inputs = inputs
        self._pool = pool
        self._store = store
        self._events = events
        self._running: set[asyncio.Task[None]] = set()
        self._calls: dict[int, asyncio.Task[Generation]] = {}
        self._unwanted: set[int] = set()
        self._retry_later: asyncio.Task[None] | None = None
        self._draining = False
        self._recovered = False

    # ------------------------------------------------------------ life of the bot

    async def recover(self) -> None:
        """Take up every unfinished job by its state and tell the last ends again.

        Call it before any new job. Called again, it only says anew where each job stands.
        """
        take_up = self._announce if self._recovered else self._take_up
        self._recovered = True
        for job in await self._db.read(rows.unfinished):
            await take_up(job)
        for job in await self._db.read(lambda tx: rows.ended_last(tx, within_s=TOLD_AGAIN_S)):
            self._events.emit(JobFailed(job.id) if job.state == "failed" else JobCancelled(job.id))

    async def _take_up(self, job: Job) -> None:
        most = await self._db.read(lambda tx: self._credits.limits.running_max(tx, job.guild_id))
        if job.state == "rendered":
            self._events.emit(JobRendered(job.id))
        elif job.state == "queued":
            self.enqueue(job, recovered=True, running_max=most)
        elif again := await self._db.write(lambda tx: _requeue(tx, job.id)):
            self.enqueue(again, recovered=True, running_max=most)
        else:
            await self._fail(job.id, RESTARTED)

    async def _announce(self, job: Job) -> None:
        """Say again where a job of this life stands, to listeners that are new."""
        if job.state == "rendered":
            self._events.emit(JobRendered(job.id))
        elif job.state == "queued" and self._queue.position(job.id) is not None:
            self._events.emit(JobQueued(job.id, is_new=False))

    async def drain(self, grace_s: float) -> None:
        """Start nothing more, let running jobs finish for `grace_s`, then stop them where they are.

        Those stopped are taken up at the next start.
        """
        self._draining = True
        if self._retry_later:
            self._retry_later.cancel()
        self._events.emit(BotStopping(self.order()))
        if self._running:
            await asyncio.wait(self._running, timeout=grace_s)
        left = [*self._running, *self._calls.values()]
        for task in left:
            task.cancel()
        unfinished = tuple(self._calls)
        await asyncio.gather(*left, return_exceptions=True)
        self._events.emit(BotStopping(unfinished))

    # --------------------------------------------------------------------- queue

    def enqueue(
        self, job: Job, *, is_new: bool = False, recovered: bool = False, running_max: int | None = None
    ) -> None:
        """Put a stored job in line and start on its input.

        One that was sent before goes ahead of its owner's others. `running_max` is the server's
        cap on what the member may have running.
        """
        self._queue.push(
            Ticket(
                job_id=job.id,
                guild_id=job.guild_id,
                member_id=job.user_id,
                cost=job.price,
                running_max=running_max,
            ),
            front=job.attempt > 0,
            recovered=recovered,
        )
        if job.input_hash is None:
            self._inputs.begin(job, on_refused=self._input_refused)
        self._events.emit(JobQueued(job.id, is_new=is_new))
        self.poke()

    def standing(self, job_id: int) -> Standing:
        """Return the job's place and the wait that is expected."""
        place, now = self._queue.position(job_id), self._clock.now()
        wait_s = self._router.expected_wait_s(place or 1, now)
        return Standing(place, wait_s, is_paused=self._router.is_dry(now))

    def next_backend(self) -> str:
        """Return the name of the backend that a job accepted now is priced for."""
        lane = self._router.preferred(self._clock.now()) or self._router.lanes[0]
        return lane.backend.name

    def order(self) -> tuple[int, ...]:
        """Return the waiting jobs in the order they will be served."""
        return self._queue.order()

    def poke(self) -> None:
        """Start as many jobs as there is room for."""
        while not self._draining and (lane := self._free_lane()):
            ticket = self._queue.pop()
            if ticket is None:
                return
            lane.running += 1
            task = asyncio.create_task(self._run(ticket, lane), name=f"job {ticket.job_id}")
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        self._wait_for_breaker()

    def _free_lane(self) -> Lane | None:
        return self._router.free_lane(self._clock.now(), waiting=self._queue.waiting)

    def _wait_for_breaker(self) -> None:
        at = self._router.next_try_at()
        paused = self._router.preferred(self._clock.now()) is None
        if self._draining or at is None or not paused or self._retry_later or not self._queue.waiting:
            return

        async def wait() -> None:
            await self._clock.sleep(max(0.0, at - self._clock.now()))
            try:
                await self._look_at_dry_lanes()
            except Exception:
                # Whatever went wrong, the jobs that wait must be tried again.
                log.exception("The balance at a provider could not be looked at")
            self._retry_later = None
            self.poke()

        self._retry_later = asyncio.create_task(wait(), name="waiting for a backend")

    async def _look_at_dry_lanes(self) -> None:
        for lane in self._router.lanes:
            if lane.dry_since is not None and not lane.is_paused(self._clock.now()):
                await self._look_for_credits(lane, lane.dry_since)

    async def _look_for_credits(self, lane: Lane, dry_since: float) -> None:
        """Ask a backend that can tell whether the credits are back; where it can't, a job finds out."""
        if not isinstance(lane.backend, TellsBalance):
            return
        try:
            left = await lane.backend.balance()
        except BackendError as error:
            log.warning("%s does not tell its balance: %s %s", lane.backend.name, error, error.detail)
            left = 0.0
        else:
            await self._remember_balance(lane, left)
        if left > 0:
            lane.dry_since = None
            self._events.emit(QueueResumed())
            return
        lane.trip(self._clock.now())
        if self._clock.now() - dry_since > DRY_S_MAX:
            await self._give_up()

    async def _give_up(self) -> None:
        """End all that waits: nobody waits for ever."""
        for job_id in self._queue.order():
            self._queue.remove(job_id)
            await self._fail(job_id, str(BackendOutOfCredits()))

    async def _remember_balance(self, lane: Lane, left: float | None) -> None:
        if left is None:
            return
        name, low, now = lane.backend.name, self._low_credits, self._clock.now()
        is_new_low = await self._db.write(
            lambda tx: providers.told(tx, backend=name, remaining=left, low=low, now=now)
        )
        if is_new_low:
            label = lane.backend.capabilities.label
            self._events.emit(OperatorAlert(f"{label} has {left:g} credits left; please top them up."))

    # ------------------------------------------------------------------- one job

    async def _run(self, ticket: Ticket, lane: Lane) -> None:
        again: Job | None = None
        try:
            again = await self._attempt(ticket.job_id, lane)
        finally:
            lane.running -= 1
            self._unwanted.discard(ticket.job_id)
            self._queue.done(ticket.job_id)
            if again is not None:
                self.enqueue(again, running_max=ticket.running_max)
            self.poke()

    async def _attempt(self, job_id: int, lane: Lane) -> Job | None:
        """Try to make the job's pictures; return the job if it is to be tried once more."""
        try:
            await self._work(job_id, lane)
        except BotError as error:
            return await self._not_made(job_id, lane, error)
        except Exception:
            log.exception("Job %d broke", job_id)
            await self._fail(job_id, BROKE)
        return None

    async def _work(self, job_id: int, lane: Lane) -> None:
        await self._inputs.ready(job_id)
        job = await self._claim(job_id, lane)
        if job is None or job.input_hash is None:
            return
        can_cancel = lane.backend.capabilities.can_cancel
        self._events.emit(JobStarted(job_id, can_cancel=can_cancel, job_s=lane.job_s_mean))
        began = self._clock.now()
        image = await self._store.get(job.input_hash)
        generation = await self._call(job, lane, image)
        if generation is None:
            await self._end_cancelled(job_id, "sending")
            return
        lane.succeeded(self._clock.now() - began)
        results = await self._keep(job_id, generation.pictures)
        await self._render(job, results, backend=lane.backend.name)
        await self._remember_balance(lane, generation.remaining_credits)

    async def _claim(self, job_id: int, lane: Lane) -> Job | None:
        """Commit that the provider may be called now; None if the job is no longer waiting."""

        def unit(tx: sqlite3.Connection) -> Job | None:
            job = rows.get(tx, job_id)
            if job is None or job.state != "queued" or job.input_hash is None:
                return None
            claimed = rows.claim(tx, job_id=job_id, backend=lane.backend.name, now=self._clock.now())
            return job if claimed else None

        return await self._write(unit)

    async def _call(self, job: Job, lane: Lane, image: bytes) -> Generation | None:
        """Call the backend; None if its requester cancelled meanwhile."""

        def on_progress(progress: Progress) -> None:
            self._events.emit(JobProgressed(job.id, progress))

        params = Img2ImgParams.model_validate_json(job.request)
        call = asyncio.create_task(
            lane.backend.generate(params, image, on_progress), name=f"call of {job.id}"
        )
        self._calls[job.id] = call
        try:
            await asyncio.wait([call])
        finally:
            del self._calls[job.id]
        if job.id in self._unwanted and (call.cancelled() or call.exception()):
            return None
        return call.result()

    async def _keep(self, job_id: int, pictures: Iterable[Picture]) -> tuple[Result, ...]:
        """Pass what the backend gave through the door and onto the disk."""

        async def keep(picture: Picture) -> Result:
            normal = await self._pool.accept_result(picture.data)
            digest = await self._store.put(normal.data)
            return Result(job_id, picture.index, picture.seed, digest, normal.width, normal.height)

        return tuple(await asyncio.gather(*map(keep, pictures)))

    # -------------------------------------------------------------------- its end

    async def _render(self, job: Job, results: tuple[Result, ...], *, backend: str) -> None:
        params = Img2ImgParams.model_validate_json(job.request)
        made = params.model_copy(update={"samples": len(results)})
        pixels = max(result.width * result.height for result in results)

        def unit(tx: sqlite3.Connection) -> bool:
            charged = min(job.price, self._credits.price(made, pixels, backend=backend))
            self._credits.settle(tx, job_id=job.id, charged=charged)
            return rows.render(tx, job_id=job.id, pictures=results, charged=charged, now=self._clock.now())

        await self._write(unit)
        self._events.emit(JobRendered(job.id))

    async def _not_made(self, job_id: int, lane: Lane, error: BotError) -> Job | None:
        log.warning("Job %d on %s: %s %s", job_id, lane.backend.name, error, error.detail)
        self._judge(lane, error)
        if self._is_worth_another_try(lane, error):
            again = await self._write(lambda tx: _requeue(tx, job_id))
            if again is not None:
                return again
        await self._fail(job_id, str(error))
        return None

    def _judge(self, lane: Lane, error: BotError) -> None:
        """Open the backend's breaker where the error says that it is out of use."""
        now = self._clock.now()
        if isinstance(error, BackendOutOfCredits) and lane.dry_since is None:
            lane.dry_since = now
            self._events.emit(QueuePaused())
        if isinstance(error, OperatorError):
            self._events.emit(OperatorAlert(f"{error} ({error.detail})"))
        elif isinstance(error, BackendDown):
            self._alert(lane, error, opened=lane.trip(now))
        elif isinstance(error, (BackendUnreachable, BackendUnsure)):
            self._alert(lane, error, opened=lane.stumble(now))

    def _alert(self, lane: Lane, error: BotError, *, opened: bool) -> None:
        if opened:
            label = lane.backend.capabilities.label
            sentence = f"{label} is out of use: {error.detail or error} Jobs wait and are tried again."
            log.error(sentence)
            self._events.emit(OperatorAlert(sentence))

    def _is_worth_another_try(self, lane: Lane, error: BotError) -> bool:
        """Tell whether the job may go back in line: to another backend, or to wait for this one."""
        now = self._clock.now()
        if isinstance(error, BackendUnreachable):
            return lane.is_paused(now) or self._router.preferred(now) is not lane
        # Without credits nothing was made and nothing is wrong with the job: it waits for them.
        is_dry = isinstance(error, BackendOutOfCredits)
        elsewhere = isinstance(error, BackendDown) and self._router.preferred(now) is not None
        return isinstance(error, BackendUnsure) or is_dry or elsewhere

    async def _write(self, unit: Unit[T]) -> T:
        """Commit a change of a job's state, however long the disk won't have it.

        A job that waits here keeps its place at its backend, so that nothing new is
        started, and nothing spent, that could not be recorded either.
        """
        wait_s = DISK_WAIT_S_MIN
        while True:
            try:
                return await self._db.write(unit)
            except DatabaseBrokenError:
                log.exception("A change waits for the disk")
                await self._clock.sleep(wait_s)
                wait_s = min(wait_s * 2, DISK_WAIT_S_MAX)

    async def _fail(self, job_id: int, sentence: str) -> None:
        await self._end_failed(job_id, sentence, JobFailed(job_id))

    async def _end_failed(self, job_id: int, sentence: str, event: Event) -> None:
        def unit(tx: sqlite3.Connection) -> bool:
            job = rows.get(tx, job_id)
            if job is None or job.state not in ("queued", "sending"):
                return False
            self._credits.release(tx, job_id=job_id)
            return rows.fail(tx, job_id=job_id, failure=sentence, now=self._clock.now())

        if await self._write(unit):
            self._events.emit(event)

    def _input_refused(self, job_id: int, error: UserError) -> None:
        log.info("The input of job %d was refused: %s %s", job_id, error, error.detail)
        self._queue.remove(job_id)
        ending = self._end_failed(job_id, str(error), InputRefused(job_id, str(error)))
        task = asyncio.create_task(ending, name=f"refusal of {job_id}")
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def cancel(self, job: Job) -> bool:
        """Stop a job at no cost; False if it is too late."""
        self._queue.remove(job.id)
        if await self._end_cancelled(job.id, "queued"):
            return True
        call = self._calls.get(job.id)
        lane = next((lane for lane in self._router.lanes if lane.backend.name == job.backend), None)
        if call is None or lane is None or not lane.backend.capabilities.can_cancel:
            return False
        self._unwanted.add(job.id)
        call.cancel()
        return True

    async def _end_cancelled(self, job_id: int, from_state: rows.Cancellable) -> bool:
        def unit(tx: sqlite3.Connection) -> bool:
            job = rows.get(tx, job_id)
            if job is None or job.state != from_state:
                return False
            self._credits.release(tx, job_id=job_id)
            return rows.cancel(tx, job_id=job_id, from_state=from_state, now=self._clock.now())

        cancelled = await self._write(unit)
        if cancelled:
            self._events.emit(JobCancelled(job_id))
        return cancelled


def _requeue(tx: sqlite3.Connection, job_id: int) -> Job | None:
    """Put a job that was sent back in line, at the operator's cost; None if no attempt is left."""
    return rows.get(tx, job_id) if rows.requeue(tx, job_id=job_id) else None
