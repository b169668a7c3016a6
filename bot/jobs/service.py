"""What members do with jobs: submit, reroll, vary, cancel, delete."""

from __future__ import annotations

import asyncio
import sqlite3
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Final

from bot.actors import ChannelContext, Person
from bot.clock import Clock
from bot.credits.allowance import DailyAllowance
from bot.credits.limits import Limits
from bot.credits.service import CreditService
from bot.errors import AlreadyAsked, JobGone, NotAllowed, Paused, PromptBlocked
from bot.jobs.dispatcher import Dispatcher
from bot.jobs.fair_queue import FairQueue
from bot.jobs.inputs import PictureSource, check_size, is_normal_size, normal_pixels
from bot.jobs.permissions import require_owner_or_moderator
from bot.jobs.records import JobRecords
from bot.moderation.blocklist import find_blocked
from bot.params import Img2ImgParams, random_seed
from db import guilds, jobs
from db.database import Database
from db.jobs import Job
from db.operations import Operation

#: The strengths of variations: 0.35 keeps the composition, 0.75 keeps the layout only.
VARIATION_STRENGTHS: Final = {Operation.VARY_SUBTLE: 0.35, Operation.VARY_STRONG: 0.75}


class PauseReason(Enum):
    """Why no new job is accepted: the sentence for whoever asks."""

    LEDGER_INCONSISTENT = (
        "The ledger check found a problem, so no credits are spent until the operator has fixed it."
    )
    RESTARTING = "The bot is restarting. Please try again in a minute."


@dataclass(frozen=True, slots=True)
class RequestContext:
    """Where a request came from: one interaction of one member in one channel.

    `token` lets us edit the answer until `token_expires_at` (seconds since 1970). `private` None
    leaves it to the server's settings.
    """

    id: int
    person: Person
    channel_id: int
    token: str
    token_expires_at: float
    private: bool | None = False
    where: ChannelContext = field(default_factory=ChannelContext)


class JobService:
    """The service behind every command and button that makes, stops or deletes a picture."""

    def __init__(
        self,
        *,
        db: Database,
        clock: Clock,
        records: JobRecords,
        credit_service: CreditService,
        limits: Limits,
        allowance: DailyAllowance,
        queue: FairQueue,
        dispatcher: Dispatcher,
    ) -> None:
        self._db = db
        self._clock = clock
        self._records = records
        self._credits = credit_service
        self._limits = limits
        self._allowance = allowance
        self._queue = queue
        self._dispatcher = dispatcher
        self._pauses: set[PauseReason] = set()

    @property
    def pause_reason(self) -> PauseReason | None:
        """Why no new job is accepted; None if jobs are."""
        return next((reason for reason in PauseReason if reason in self._pauses), None)

    def pause(self, reason: PauseReason) -> None:
        """Accept no new jobs until this reason is gone."""
        self._pauses.add(reason)

    def resume(self, reason: PauseReason) -> None:
        """Let this reason no longer stand against new jobs."""
        self._pauses.discard(reason)

    async def submit(self, request: RequestContext, params: Img2ImgParams, source: PictureSource) -> Job:
        """Accept a job: its credits held and its row durable when this returns.

        Raises `UserError`: nothing was stored and nothing is owed.
        """
        check_size(source.size_bytes)
        job = replace(
            self._new_job(request, params, operation=Operation.IMG2IMG),
            source_url=source.url,
            input_pixels=normal_pixels(source.width, source.height),
        )
        is_size_known = bool(source.width and source.height)
        return await self._accept(request, job, params, is_size_known=is_size_known)

    async def reroll(self, request: RequestContext, parent_id: int) -> Job:
        """Accept a job with the same input and options and a new seed. Raises as `submit`."""
        parent = await self._records.open_for(request.person, request.where, parent_id)
        if parent.job.input_hash is None:
            raise JobGone
        params = parent.params.with_seed(random_seed())
        job = replace(
            self._new_job(request, params, operation=Operation.REROLL, parent=parent.job),
            input_hash=parent.job.input_hash,
            input_pixels=parent.job.input_pixels,
        )
        return await self._accept(request, job, params)

    async def vary(
        self, request: RequestContext, parent_id: int, *, sample: int, operation: Operation
    ) -> Job:
        """Accept a variation: picture `sample` of a job becomes the input, with a new seed.

        `operation` is one of `VARIATION_STRENGTHS`. Raises as `submit`.
        """
        parent = await self._records.open_for(request.person, request.where, parent_id)
        result = next((r for r in parent.results if r.sample == sample), None)
        if result is None:
            raise JobGone
        changed = {"seed": random_seed(), "samples": 1, "strength": VARIATION_STRENGTHS[operation]}
        params = parent.params.model_copy(update=changed)
        job = replace(
            self._new_job(request, params, operation=operation, parent=parent.job),
            parent_sample=sample,
            source_hash=result.hash,
            input_hash=result.hash if is_normal_size(result.width, result.height) else None,
            input_pixels=normal_pixels(result.width, result.height),
        )
        return await self._accept(request, job, params)

    def _new_job(
        self,
        request: RequestContext,
        params: Img2ImgParams,
        *,
        operation: Operation,
        parent: Job | None = None,
    ) -> Job:
        return Job(
            id=request.id,
            guild_id=request.person.guild_id,
            user_id=request.person.user_id,
            channel_id=request.channel_id,
            token=request.token,
            token_expires_at=request.token_expires_at,
            private=bool(request.private) or (parent is not None and parent.private),
            age_restricted=request.where.age_restricted or (parent is not None and parent.age_restricted),
            operation=operation,
            parent_id=parent.id if parent else None,
            params_json=params.model_dump_json(),
            created_at=self._clock.now(),
        )

    async def _accept(
        self, request: RequestContext, job: Job, params: Img2ImgParams, *, is_size_known: bool = True
    ) -> Job:
        if reason := self.pause_reason:
            raise Paused(reason.value)
        await self._check_prompt(request, params)
        # A size that is not known yet is priced as the largest; what it is less is not charged.
        pixels = job.input_pixels or normal_pixels(None, None)
        price = self._credits.price(params, pixels, backend=self._dispatcher.next_backend())
        job = replace(job, price=price)

        def unit(tx: sqlite3.Connection) -> tuple[Job, int]:
            if is_size_known:
                self._limits.check_pixels(tx, job.guild_id, pixels)
            return self._store(tx, request, job, params)

        # The queue's bounds are reserved before waiting for the disk, so that they hold for
        # requests that come at the same moment.
        with self._queue.reserve(guild_id=job.guild_id, member_id=job.user_id):
            stored, running_max = await self._db.write(unit)
            self._dispatcher.enqueue(stored, is_new=True, running_max=running_max)
        return stored

    async def _check_prompt(self, request: RequestContext, params: Img2ImgParams) -> None:
        """Raise `PromptBlocked` for a prompt with what the server has blocked."""
        entries = await self._db.read(lambda tx: guilds.blocked_texts(tx, request.person.guild_id))
        if not entries:
            return
        # Linear in the prompt, but compiling long patterns anew takes up to 0.2 s: nobody else waits for it.
        found = await asyncio.to_thread(
            find_blocked, params.prompt, entries, age_restricted=request.where.age_restricted
        )
        if found is not None:
            raise PromptBlocked(found.text if found.kind == "word" else None)

    def _store(
        self, tx: sqlite3.Connection, request: RequestContext, job: Job, params: Img2ImgParams
    ) -> tuple[Job, int]:
        """Check every limit, hold the credits and store the job: all of it or nothing."""
        if jobs.get(tx, job.id) is not None:
            # Discord sends an interaction again when its gateway is resumed.
            raise AlreadyAsked
        self._limits.check_person(tx, request.person)
        self._limits.check_channel(tx, job.guild_id, request.where)
        job = _with_server_settings(tx, request, replace(job, day=self._allowance.advance_to_today(tx)))
        self._limits.check_job(tx, job, params, day=job.day)
        jobs.insert(tx, job)
        self._credits.hold(tx, request.person, job_id=job.id, amount=job.price)
        return job, self._limits.running_max(tx, job.guild_id)

    async def cancel(self, person: Person, job_id: int) -> None:
        """Stop a job at no cost, while it waits or where its backend can be stopped; once is enough.

        Raises `JobGone`, or `NotAllowed` for whom it does not belong to and where it is too late.
        """
        view = await self._records.view(job_id, guild_id=person.guild_id)
        require_owner_or_moderator(view.job, person, what="cancel")
        if await self._dispatcher.cancel(job_id):
            return
        # Another press may have cancelled it, at this very moment too.
        view = await self._records.view(job_id, guild_id=person.guild_id)
        if view.job.state != "cancelled":
            raise NotAllowed("It's too late to cancel: the picture is already being made.")

    async def delete(self, person: Person, job_id: int) -> None:
        """Remove a job from the history, its pictures with the next clean-up. Raises as `cancel`."""
        job = (await self._records.view(job_id, guild_id=person.guild_id)).job
        require_owner_or_moderator(job, person, what="delete")
        await self._db.write(lambda tx: jobs.mark_deleted(tx, job_id=job_id, now=self._clock.now()))


def _with_server_settings(tx: sqlite3.Connection, request: RequestContext, job: Job) -> Job:
    settings = guilds.get_settings(tx, job.guild_id)
    if request.private is None and settings.private:
        job = replace(job, private=True)
    elsewhere = settings.results_channel_id not in (None, job.channel_id)
    if elsewhere and not job.private and not job.age_restricted:
        job = replace(job, results_channel_id=settings.results_channel_id)
    return job
