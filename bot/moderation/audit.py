"""Who did what to whom, when and why: on record, never altered, and ready for a server's log channel."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Final

from bot.clock import Clock
from bot.errors import JobGone, NotAllowed
from bot.events import Events, TrailGrew
from db import audit_log as trail
from db import guilds as rules
from db import jobs
from db import members as guilds
from db.audit_log import Behind, Entry
from db.database import Database
from db.jobs import ID_END, Job, Result

ENTRIES_AT_ONCE_MAX: Final = 20


@dataclass(frozen=True, slots=True)
class Moderator:
    """Who acts, where, in which interaction (an interaction counts once), and why."""

    interaction_id: int
    guild_id: int
    actor_id: int
    reason: str


@dataclass(frozen=True, slots=True)
class Change:
    """What an act of a moderator changed: an amount before and after."""

    before: int
    after: int


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that an act changed, in words: what, from what, to what."""

    what: str
    before: str
    after: str


def record(
    tx: sqlite3.Connection,
    by: Moderator,
    *,
    action: str,
    now: float,
    target_id: int | None = None,
    change: Change | None = None,
    detail: str = "",
) -> bool:
    """Put the act on record; False if this interaction's act is there already, so that it counts once."""
    act = guilds.Act(
        interaction_id=by.interaction_id,
        guild_id=by.guild_id,
        actor_id=by.actor_id,
        target_id=target_id,
        action=action,
        before=change.before if change else None,
        after=change.after if change else None,
        reason=by.reason,
        at=now,
        detail=detail,
    )
    return guilds.record(tx, act)


def detail_of(differences: tuple[Difference, ...]) -> str:
    """Return the differences on one line, for the record."""
    return "; ".join(f"{d.what}: {d.before} → {d.after}" for d in differences)


@dataclass(frozen=True, slots=True)
class Told:
    """An entry of the trail with what it is about: the act, or the job and its pictures."""

    entry: Entry
    act: guilds.Act | None
    job: Job | None
    results: tuple[Result, ...]


class Trail:
    """What happened in each server, for whoever has to follow up abuse."""

    def __init__(self, *, db: Database, clock: Clock, events: Events) -> None:
        self._db = db
        self._clock = clock
        self._events = events

    async def pressed(self, operation: str, *, guild_id: int, user_id: int, job_id: int) -> None:
        """Put the press of a job's button on the trail, whether or not it is let through.

        An id that no job can have was forged: there is nothing to follow up.
        """
        if job_id >= ID_END:
            return
        await self._add("pressed", operation, guild_id=guild_id, user_id=user_id, job_id=job_id)

    async def deleted(self, *, guild_id: int, user_id: int, job_id: int) -> None:
        """Put on the trail that a job's pictures were taken away."""
        await self._add("deleted", "", guild_id=guild_id, user_id=user_id, job_id=job_id)

    async def report(self, why: str, *, guild_id: int, user_id: int, job_id: int) -> None:
        """Put a member's report of a picture on the trail, once a member.

        Raises `JobGone` for no picture of this server, `NotAllowed` for a second report, or where
        the server has no log channel that it could reach.
        """

        def unit(tx: sqlite3.Connection) -> None:
            key = {"guild_id": guild_id, "user_id": user_id, "job_id": job_id}
            if rules.of_guild(tx, guild_id).log_channel_id is None:
                raise NotAllowed("This server has no log channel for reports; please tell a moderator.")
            if trail.has(tx, kind="reported", **key):
                raise NotAllowed("You have reported this picture already; the moderators can see it.")
            if not trail.add(tx, kind="reported", note=why, now=self._clock.now(), **key):
                raise JobGone

        await self._db.write(unit)
        self._events.emit(TrailGrew(guild_id))

    async def _add(self, kind: trail.Kind, note: str, *, guild_id: int, user_id: int, job_id: int) -> None:
        now = self._clock.now()
        key = {"guild_id": guild_id, "user_id": user_id, "job_id": job_id}
        if await self._db.write(lambda tx: trail.add(tx, kind=kind, note=note, now=now, **key)):
            self._events.emit(TrailGrew(guild_id))

    # -------------------------------------------------------------- for the log channels

    async def logged_guilds(self) -> set[int]:
        """Return the servers that have a log channel."""
        return await self._db.read(trail.logged_guilds)

    async def behind(self) -> list[Behind]:
        """Return the servers whose log channel has something to catch up on."""
        return await self._db.read(trail.behind)

    async def next_for(self, server: Behind) -> list[Told]:
        """Return what a log channel is to be told next, oldest first, at most `ENTRIES_AT_ONCE_MAX`."""

        def unit(tx: sqlite3.Connection) -> list[Told]:
            entries = trail.after(
                tx, guild_id=server.guild_id, entry_id=server.mirrored, limit=ENTRIES_AT_ONCE_MAX
            )
            return [_told(tx, entry) for entry in entries]

        return await self._db.read(unit)

    async def mirrored(self, guild_id: int, entry_id: int) -> None:
        """Remember that the log channel has seen the trail up to this entry."""
        await self._db.write(lambda tx: trail.set_mirrored(tx, guild_id=guild_id, entry_id=entry_id))


def _told(tx: sqlite3.Connection, entry: Entry) -> Told:
    act = guilds.act(tx, entry.audit_id) if entry.audit_id is not None else None
    job = jobs.get(tx, entry.job_id) if entry.job_id is not None else None
    return Told(entry, act, job, jobs.results(tx, job.id) if job else ())
