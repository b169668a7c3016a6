"""Jobs as they are looked up: with their options, their pictures, and the job they were made from."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Final

from bot.actors import ChannelContext, Person
from bot.clock import Clock
from bot.errors import JobGone
from bot.jobs.permissions import require_age, require_owner
from bot.params import Img2ImgParams
from db import jobs
from db.database import Database
from db.jobs import ID_END, Job, Result

HISTORY_MAX: Final = 10  # each with its button: a card has room for 40 components


@dataclass(frozen=True, slots=True)
class JobView:
    """A job with its options, its pictures, and the job it was made from, if any."""

    job: Job
    params: Img2ImgParams
    results: tuple[Result, ...]
    parent: Job | None


def params_of(job: Job) -> Img2ImgParams:
    """Return the options that a job was stored with."""
    return Img2ImgParams.model_validate_json(job.params_json)


def load_view(tx: sqlite3.Connection, job: Job) -> JobView:
    """Return the job with all that belongs to it."""
    parent = jobs.get(tx, job.parent_id) if job.parent_id is not None else None
    return JobView(job, params_of(job), jobs.results(tx, job.id), parent)


class JobRecords:
    """Finds jobs, and stores where they are shown."""

    def __init__(self, *, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock

    async def find(self, job_id: int) -> JobView | None:
        """Return the job of this id, whoever asks; None if there is none."""

        def unit(tx: sqlite3.Connection) -> JobView | None:
            job = jobs.get(tx, job_id) if job_id < ID_END else None
            return load_view(tx, job) if job else None

        return await self._db.read(unit)

    async def view(self, job_id: int, *, guild_id: int) -> JobView:
        """Return the job. Raises `JobGone` for a deleted one, or another server's."""
        found = await self.find(job_id)
        if found is None or found.job.guild_id != guild_id or found.job.deleted_at is not None:
            raise JobGone
        return found

    async def open_for(self, person: Person, where: ChannelContext, job_id: int) -> JobView:
        """Return a member's own job, to be used or shown where they are.

        Raises `JobGone`, or `NotAllowed` for whom it does not belong to, or for an age-restricted
        picture elsewhere.
        """
        view = await self.view(job_id, guild_id=person.guild_id)
        require_owner(view.job, person)
        require_age(view.job, where)
        return view

    async def history(self, person: Person) -> list[JobView]:
        """Return a member's latest jobs that have pictures, newest first, at most `HISTORY_MAX`."""

        def unit(tx: sqlite3.Connection) -> list[JobView]:
            found = jobs.list_for_member(
                tx, guild_id=person.guild_id, user_id=person.user_id, limit=HISTORY_MAX
            )
            return [load_view(tx, job) for job in found]

        return await self._db.read(unit)

    async def id_of_message(self, message_id: int, *, guild_id: int) -> int | None:
        """Return the id of the job that this message of the server shows, None if it shows none."""
        return await self._db.read(
            lambda tx: jobs.id_of_message(tx, guild_id=guild_id, message_id=message_id)
        )

    async def record_message(self, job_id: int, *, message_id: int, channel_id: int) -> None:
        """Store which message shows the job."""
        await self._db.write(
            lambda tx: jobs.set_message(tx, job_id=job_id, message_id=message_id, channel_id=channel_id)
        )

    async def mark_delivered(self, job_id: int) -> None:
        """Store that the pictures were posted."""
        await self._db.write(lambda tx: jobs.mark_delivered(tx, job_id=job_id, now=self._clock.now()))

    async def mark_undeliverable(self, job_id: int) -> None:
        """Store that the pictures can be posted nowhere: they stay in the history."""
        await self._db.write(lambda tx: jobs.mark_undeliverable(tx, job_id=job_id, now=self._clock.now()))
