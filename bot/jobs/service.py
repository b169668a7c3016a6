"""What members do with jobs: submit, reroll, vary, cancel, look up, and where one stands in line."""

from __future__ import annotations

import asyncio
import sqlite3
from dataclasses import dataclass, field, replace
from typing import Final

from bot.clock import Clock
from bot.credits.limits import Person, Place
from bot.credits.service import Credits
from bot.errors import AlreadyAsked, JobGone, NotAllowed, Paused
from bot.jobs.dispatcher import Dispatcher
from bot.jobs.fair_queue import FairQueue
from bot.jobs.inputs import Source, check_size, is_normal_size, normal_pixels
from bot.moderation.blocklist import find_blocked
from bot.params import Img2ImgParams, random_seed
from bot.pictures.sizes import MEGAPIXEL
from db import guilds as rules
from db import jobs as rows
from db.database import Database
from db.jobs import ID_END, Job, Result
from db.operations import Operation

SUBTLE_STRENGTH: Final = 0.35
STRONG_STRENGTH: Final = 0.75
HISTORY_MAX: Final = 10


@dataclass(frozen=True, slots=True)
class Request:
    """Where a request came from: one interaction of one member in one channel of one server.

    `token` lets us edit the answer until `token_expires_at` (seconds since 1970). `roles` are
    those that the member has now, `place` is what the server's rules are held against, and
    `private` None leaves it to the server.
    """

    id: int
    guild_id: int
    user_id: int
    channel_id: int
    token: str
    token_expires_at: float
    private: bool | None = False
    roles: frozenset[int] = frozenset()
    place: Place = field(default_factory=Place)

    @property
    def person(self) -> Person:
        """Who asks."""
        return Person(self.guild_id, self.user_id, self.roles)


@dataclass(frozen=True, slots=True)
class JobView:
    """A job with its options, its pictures, and the job it was made from, if any."""

    job: Job
    params: Img2ImgParams
    results: tuple[Result, ...]
    parent: Job | None


class Jobs:
    """The service behind every command and button that makes, stops or shows a picture."""

    def __init__(
        self, *, db: Database, clock: Clock, wallet: Credits, queue: FairQueue, dispatcher: Dispatcher
    ) -> None:
        self._db = db
        self._clock = clock
        self._credits = wallet
        self._queue = queue
        self._dispatcher = dispatcher
        self.paused: str | None = None

    # ------------------------------------------------------------------ making

    async def submit(self, request: Request, params: Img2ImgParams, source: Source) -> Job:
        """Accept a job: its credits held and its row durable when this returns.

        Raises `UserError`: nothing was stored and nothing is owed.
        """
        check_size(source.size_bytes)
        job = self._job(request, params, operation=Operation.IMG2IMG)
        pixels = normal_pixels(source.width, source.height)
        is_known = bool(source.width and source.height)
        job = replace(job, source_url=source.url, input_pixels=pixels)
        return await self._accept(request, job, params, is_known_size=is_known)

    async def reroll(self, request: Request, parent_id: int) -> Job:
        """Accept the same input and options once more, with a new seed."""
        parent = await self.view(parent_id, guild_id=request.guild_id)
        check_age(parent.job, request.place)
        if parent.job.input_hash is None:
            raise JobGone
        params = parent.params.with_seed(random_seed())
        job = self._job(request, params, operation=Operation.REROLL, parent=parent.job)
        job = replace(job, input_hash=parent.job.input_hash, input_pixels=parent.job.input_pixels)
        return await self._accept(request, job, params)

    async def vary(self, request: Request, parent_id: int, *, sample: int, strong: bool) -> Job:
        """Accept a variation: picture `sample` of a job becomes the input, with a new seed."""
        parent = await self.view(parent_id, guild_id=request.guild_id)
        check_age(parent.job, request.place)
        result = next((r for r in parent.results if r.sample == sample), None)
        if result is None:
            raise JobGone
        params = parent.params.model_copy(
            update={
                "seed": random_seed(),
                "samples": 1,
                "strength": STRONG_STRENGTH if strong else SUBTLE_STRENGTH,
            }
        )
        operation = Operation.VARY_STRONG if strong else Operation.VARY_SUBTLE
        job = self._job(request, params, operation=operation, parent=parent.job)
        job = replace(
            job,
            parent_sample=sample,
            source_hash=result.hash,
            input_hash=result.hash if is_normal_size(result.width, result.height) else None,
            input_pixels=normal_pixels(result.width, result.height),
        )
        return await self._accept(request, job, params)

    def _job(
        self, request: Request, params: Img2ImgParams, *, operation: Operation, parent: Job | None = None
    ) -> Job:
        return Job(
            id=request.id,
            guild_id=request.guild_id,
            user_id=request.user_id,
            channel_id=request.channel_id,
            token=request.token,
            token_expires_at=request.token_expires_at,
            private=bool(request.private) or (parent is not None and parent.private),
            age_restricted=request.place.age_restricted or (parent is not None and parent.age_restricted),
            operation=operation,
            parent_id=parent.id if parent else None,
            request=params.model_dump_json(),
            created_at=self._clock.now(),
        )

    async def _accept(
        self, request: Request, job: Job, params: Img2ImgParams, *, is_known_size: bool = True
    ) -> Job:
        if self.paused:
            raise Paused(self.paused)
        await self._check_prompt(request, params)
        pixels = job.input_pixels or MEGAPIXEL
        price = self._credits.price(params, pixels, backend=self._dispatcher.next_backend())
        job = replace(job, price=price)

        def unit(tx: sqlite3.Connection) -> tuple[Job, int]:
            if is_known_size:
                self._credits.limits.check_pixels(tx, job.guild_id, pixels)
            return self._store(tx, request, job, params)

        # The place in line is reserved before the disk is waited for, so that the
        # bounds hold for requests that come at the same moment.
        with self._queue.reserve(guild_id=job.guild_id, member_id=job.user_id):
            stored, running_max = await self._db.write(unit)
            self._dispatcher.enqueue(stored, is_new=True, running_max=running_max)
        return stored

    async def _check_prompt(self, request: Request, params: Img2ImgParams) -> None:
        """Raise `NotAllowed` for a prompt with what the server does not want where it is asked for."""
        texts = await self._db.read(lambda tx: rules.blocked_texts(tx, request.guild_id))
        if not texts:
            return
        adult = request.place.age_restricted
        # Bounded, but in the worst case not instant: nobody else waits for it.
        found = await asyncio.to_thread(find_blocked, params.prompt, texts, age_restricted=adult)
        if found is not None:
            what = f"“{found.text}” in prompts" if found.kind == "word" else "prompts like this one"
            raise NotAllowed(f"The moderators of this server don't want {what}; please change yours.")

    def _store(
        self, tx: sqlite3.Connection, request: Request, job: Job, params: Img2ImgParams
    ) -> tuple[Job, int]:
        """Hold the job against every limit, hold its credits and store it: all of it or nothing."""
        if rows.get(tx, job.id) is not None:
            # Discord sends an interaction again when its gateway is resumed.
            raise AlreadyAsked
        limits = self._credits.limits
        limits.check_person(tx, request.person)
        limits.check_place(tx, job.guild_id, request.place)
        job = self._as_server_wants(tx, request, replace(job, day=self._credits.today(tx)))
        limits.check_job(tx, job, params, day=job.day)
        rows.insert(tx, job)
        self._credits.hold(
            tx,
            job_id=job.id,
            guild_id=job.guild_id,
            user_id=job.user_id,
            amount=job.price,
            roles=request.roles,
        )
        return job, limits.running_max(tx, job.guild_id)

    def _as_server_wants(self, tx: sqlite3.Connection, request: Request, job: Job) -> Job:
        mine = rules.of_guild(tx, job.guild_id)
        if request.private is None and mine.private:
            job = replace(job, private=True)
        elsewhere = mine.results_channel_id not in (None, job.channel_id)
        if elsewhere and not job.private and not job.age_restricted:
            job = replace(job, results_channel_id=mine.results_channel_id)
        return job

    # ----------------------------------------------------------------- looking

    async def view(self, job_id: int, *, guild_id: int) -> JobView:
        """Return the job with its options and pictures. Raises `JobGone` for another server's, too."""
        found = await self.find(job_id)
        if found is None or found.job.guild_id != guild_id or found.job.deleted_at is not None:
            raise JobGone
        return found

    async def find(self, job_id: int) -> JobView | None:
        """Return the job of this id, whoever asks; None if there is none."""

        def unit(tx: sqlite3.Connection) -> JobView | None:
            job = rows.get(tx, job_id) if job_id < ID_END else None
            return _view(tx, job) if job else None

        return await self._db.read(unit)

    async def history(self, *, guild_id: int, user_id: int) -> list[JobView]:
        """Return a member's latest jobs that have pictures, newest first, at most `HISTORY_MAX`."""

        def unit(tx: sqlite3.Connection) -> list[JobView]:
            found = rows.of_member(tx, guild_id=guild_id, user_id=user_id, limit=HISTORY_MAX)
            return [_view(tx, job) for job in found]

        return await self._db.read(unit)

    async def shown_at(self, job_id: int, *, message_id: int, channel_id: int) -> None:
        """Remember the message that shows the job."""
        await self._db.write(
            lambda tx: rows.set_message(tx, job_id=job_id, message_id=message_id, channel_id=channel_id)
        )

    async def delivered(self, job_id: int) -> None:
        """Remember that the pictures were posted."""
        await self._db.write(lambda tx: rows.deliver(tx, job_id=job_id, now=self._clock.now()))

    async def undeliverable(self, job_id: int) -> None:
        """Remember that the pictures can be posted nowhere: they stay in the history."""
        await self._db.write(lambda tx: rows.keep_undelivered(tx, job_id=job_id, now=self._clock.now()))

    async def shown_in(self, message_id: int, *, guild_id: int) -> int | None:
        """Return the id of the job that this message of the server shows, None if it shows none."""
        return await self._db.read(lambda tx: rows.by_message(tx, guild_id=guild_id, message_id=message_id))

    # ---------------------------------------------------------------- stopping

    async def cancel(self, job_id: int, *, guild_id: int, user_id: int, is_moderator: bool) -> None:
        """Stop a job at no cost, while it waits or where its backend can be stopped.

        Raises `JobGone`, or `NotAllowed` for whom it does not belong to and where it is too late.
        """
        job = (await self.view(job_id, guild_id=guild_id)).job
        _check_owner(job, user_id, is_moderator=is_moderator, act="cancel")
        if not await self._dispatcher.cancel(job):
            raise NotAllowed("It is too late to cancel: your picture is being made.")

    async def delete(self, job_id: int, *, guild_id: int, user_id: int, is_moderator: bool) -> Job:
        """Take a finished job out of history, its pictures to be removed; return it."""
        job = (await self.view(job_id, guild_id=guild_id)).job
        _check_owner(job, user_id, is_moderator=is_moderator, act="delete")
        await self._db.write(lambda tx: rows.set_deleted(tx, job_id=job_id, now=self._clock.now()))
        return job


def _view(tx: sqlite3.Connection, job: Job) -> JobView:
    parent = rows.get(tx, job.parent_id) if job.parent_id is not None else None
    params = Img2ImgParams.model_validate_json(job.request)
    return JobView(job, params, rows.results(tx, job.id), parent)


def check_owner(job: Job, user_id: int) -> None:
    """Raise `NotAllowed` unless the job is this member's."""
    _check_owner(job, user_id, is_moderator=False, act="use")


def check_age(job: Job, place: Place) -> None:
    """Raise `NotAllowed` where a picture of an age-restricted channel would be shown elsewhere."""
    if job.age_restricted and not place.age_restricted:
        raise NotAllowed("That was made in an age-restricted channel; please go on in such a channel.")


def _check_owner(job: Job, user_id: int, *, is_moderator: bool, act: str) -> None:
    if job.user_id != user_id and not is_moderator:
        raise NotAllowed(
            f"Only the member who asked for this picture can {act} it; make your own with /img2img."
        )
