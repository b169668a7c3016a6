"""Starts waiting jobs while there is capacity, resumes them after a restart, and stops in good order.

Event-driven: a job's task begins when there is room and ends with the job; nothing polls.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import Final

from bot.backends.router import BackendSlot, Router
from bot.clock import Clock
from bot.credits.limits import Limits
from bot.errors import BackendOutOfCredits, UserError
from bot.events import BotStopping, Events, JobCancelled, JobFailed, JobQueued, JobRendered
from bot.jobs.fair_queue import FairQueue, Ticket
from bot.jobs.inputs import Inputs
from bot.jobs.providers import ProviderWatch
from bot.jobs.runner import JobRunner
from bot.runtime.background import BackgroundTasks
from db import jobs
from db.database import Database
from db.jobs import Job

log = logging.getLogger(__name__)

#: A start announces again the jobs that ended within this time before the last end: a crash may
#: have come between an end's commit and the edit of its card.
ANNOUNCED_AGAIN_S: Final = 60.0

RESTARTED: Final = "The bot was restarted while making this picture. You weren't charged; please try again."


@dataclass(frozen=True, slots=True)
class QueueStatus:
    """Where a job stands: its position (1 is next; None: not waiting) and the seconds until its picture.

    `is_paused`: nothing is made until the operator's credits are topped up.
    """

    position: int | None
    wait_s: float
    is_paused: bool = False


class Dispatcher:
    """Hands jobs from the queue to the runner."""

    def __init__(
        self,
        *,
        db: Database,
        clock: Clock,
        limits: Limits,
        queue: FairQueue,
        router: Router,
        inputs: Inputs,
        runner: JobRunner,
        watch: ProviderWatch,
        events: Events,
    ) -> None:
        self._db = db
        self._clock = clock
        self._limits = limits
        self._queue = queue
        self._router = router
        self._inputs = inputs
        self._runner = runner
        self._watch = watch
        self._events = events
        self._running = BackgroundTasks()
        self._timers = BackgroundTasks()
        self._is_retry_scheduled = False
        self._draining = False
        self._recovered = False

    @property
    def is_idle(self) -> bool:
        """Whether no job runs and none is being ended."""
        return not self._running

    async def recover(self) -> None:
        """Resume every unfinished job by its state, and announce the last ends again.

        Call it before any new job. Called again, for a new client, it only announces where each
        job stands.
        """
        resume = self._announce if self._recovered else self._resume
        self._recovered = True
        for job in await self._db.read(jobs.list_unfinished):
            await resume(job)
        for job in await self._db.read(lambda tx: jobs.recently_ended(tx, within_s=ANNOUNCED_AGAIN_S)):
            self._events.emit(JobFailed(job.id) if job.state == "failed" else JobCancelled(job.id))

    async def _resume(self, job: Job) -> None:
        running_max = await self._db.read(lambda tx: self._limits.running_max(tx, job.guild_id))
        if job.state == "rendered":
            self._events.emit(JobRendered(job.id))
        elif job.state == "queued":
            self.enqueue(job, recovered=True, running_max=running_max)
        elif again := await self._runner.requeue(job.id):
            self.enqueue(again, recovered=True, running_max=running_max)
        else:
            await self._runner.fail(job.id, RESTARTED)

    async def _announce(self, job: Job) -> None:
        if job.state == "rendered":
            self._events.emit(JobRendered(job.id))
        elif job.state == "queued" and self._queue.position(job.id) is not None:
            self._events.emit(JobQueued(job.id, is_new=False))

    async def drain(self, grace_s: float) -> None:
        """Start nothing more, let running jobs finish for `grace_s`, then stop them where they are.

        Those stopped are resumed at the next start.
        """
        self._draining = True
        await self._timers.cancel()
        waiting = self.waiting_jobs()
        self._events.emit(BotStopping(waiting))
        await self._running.wait(grace_s)
        cut_off = self._queue.running_jobs()
        calls = self._runner.cancel_calls()
        await self._running.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        put_back = (job_id for job_id in self.waiting_jobs() if job_id not in waiting)
        self._events.emit(BotStopping((*cut_off, *put_back)))

    def enqueue(
        self, job: Job, *, is_new: bool = False, recovered: bool = False, running_max: int | None = None
    ) -> None:
        """Put a stored job in the queue and start on its input.

        One that was sent before goes ahead of its member's others. `running_max` is the server's
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
            self._inputs.begin(job, on_refused=self._refuse_input)
        self._events.emit(JobQueued(job.id, is_new=is_new))
        self.start_ready_jobs()

    def _refuse_input(self, job_id: int, error: UserError) -> None:
        self._queue.remove(job_id)
        self._running.spawn(self._runner.refuse_input(job_id, error), name=f"refusal of {job_id}")

    def queue_status(self, job_id: int) -> QueueStatus:
        """Return the job's position and the wait that is expected."""
        position, now = self._queue.position(job_id), self._clock.now()
        wait_s = self._router.expected_wait_s(position or 1, now)
        return QueueStatus(position, wait_s, is_paused=self._router.is_out_of_credits(now))

    def next_backend(self) -> str:
        """Return the name of the backend that a job accepted now is priced for."""
        return (self._router.preferred(self._clock.now()) or self._router.slots[0]).name

    def waiting_jobs(self) -> tuple[int, ...]:
        """Return the waiting jobs' ids in the order they will be served."""
        return self._queue.order()

    def start_ready_jobs(self) -> None:
        """Start as many jobs as there is room for."""
        while not self._draining and (slot := self._free_slot()):
            ticket = self._queue.pop()
            if ticket is None:
                return
            slot.running += 1
            self._running.spawn(self._run(ticket, slot), name=f"job {ticket.job_id}")
        self._schedule_retry()

    def _free_slot(self) -> BackendSlot | None:
        return self._router.free_slot(self._clock.now(), waiting=self._queue.waiting)

    async def _run(self, ticket: Ticket, slot: BackendSlot) -> None:
        again: Job | None = None
        try:
            again = await self._runner.run(ticket.job_id, slot)
        finally:
            slot.running -= 1
            self._queue.done(ticket.job_id)
            if again is not None:
                self.enqueue(again, running_max=ticket.running_max)
            self.start_ready_jobs()

    def _schedule_retry(self) -> None:
        """Where every backend is paused, try again when the first breaker allows it."""
        at = self._router.next_try_at()
        is_stuck = self._router.preferred(self._clock.now()) is None and self._queue.waiting
        if at is not None and is_stuck and not self._is_retry_scheduled and not self._draining:
            self._is_retry_scheduled = True
            self._timers.spawn(self._retry_at(at), name="waiting for a backend")

    async def _retry_at(self, at: float) -> None:
        await self._clock.sleep(max(0.0, at - self._clock.now()))
        try:
            if await self._watch.wait_is_over():
                await self._fail_waiting()
        except Exception:
            # Whatever went wrong, the jobs that wait must be tried again.
            log.exception("Checking a provider's balance failed")
        self._is_retry_scheduled = False
        self.start_ready_jobs()

    async def _fail_waiting(self) -> None:
        for job_id in self._queue.order():
            self._queue.remove(job_id)
            await self._runner.fail(job_id, str(BackendOutOfCredits()))

    async def cancel(self, job_id: int) -> bool:
        """Stop a job at no cost; False if it is too late, or was cancelled before."""
        self._queue.remove(job_id)
        return await self._runner.cancel_waiting(job_id) or self._runner.cancel_running(job_id)
