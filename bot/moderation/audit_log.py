"""The audit log: what happened in each server, for whoever follows up abuse, ready for its log channel."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Final

from bot.actors import Person
from bot.clock import Clock
from bot.errors import JobGone, NotAllowed
from bot.events import AuditLogGrew, Events
from db import audit_log, audit_records, guilds, jobs
from db.audit_log import LogCursor, LogEntry, LogKind
from db.audit_records import AuditRecord
from db.database import Database
from db.jobs import ID_END, Job, Result
from db.operations import Operation

ITEMS_AT_ONCE_MAX: Final = 20  # a few messages' worth: a channel far behind doesn't keep the others waiting


@dataclass(frozen=True, slots=True)
class LogItem:
    """A log entry with what it is about: the audit record, or the job and its pictures."""

    entry: LogEntry
    record: AuditRecord | None
    job: Job | None
    results: tuple[Result, ...]


class AuditLog:
    """Writes to the servers' logs, and hands their entries to whoever mirrors them."""

    def __init__(self, *, db: Database, clock: Clock, events: Events) -> None:
        self._db = db
        self._clock = clock
        self._events = events

    async def record_press(self, operation: Operation, person: Person, *, job_id: int) -> None:
        """Log the press of a job's button, whether or not it is allowed."""
        await self._add("pressed", operation, person, job_id=job_id)

    async def record_deletion(self, person: Person, *, job_id: int) -> None:
        """Log that a job's pictures were deleted."""
        await self._add("deleted", "", person, job_id=job_id)

    async def report(self, why: str, person: Person, *, job_id: int) -> None:
        """Log a member's report of a picture, once a member.

        Raises `JobGone` for no picture of this server, `NotAllowed` for a second report, or where
        the server has no log channel that would show it.
        """
        key = {"guild_id": person.guild_id, "user_id": person.user_id, "job_id": job_id}

        if job_id >= ID_END:
            raise JobGone

        def unit(tx: sqlite3.Connection) -> None:
            if guilds.get_settings(tx, person.guild_id).log_channel_id is None:
                raise NotAllowed("This server has no log channel for reports; please message a moderator.")
            if audit_log.has_entry(tx, kind="reported", **key):
                raise NotAllowed("You've already reported this picture; the moderators can see it.")
            if not audit_log.add(tx, kind="reported", note=why, now=self._clock.now(), **key):
                raise JobGone

        await self._db.write(unit)
        self._events.emit(AuditLogGrew(person.guild_id))

    async def _add(self, kind: LogKind, note: str, person: Person, *, job_id: int) -> None:
        if job_id >= ID_END:
            return  # forged: there is nothing to follow up
        now = self._clock.now()
        key = {"guild_id": person.guild_id, "user_id": person.user_id, "job_id": job_id}
        if await self._db.write(lambda tx: audit_log.add(tx, kind=kind, note=note, now=now, **key)):
            self._events.emit(AuditLogGrew(person.guild_id))

    async def guilds_with_log_channel(self) -> set[int]:
        """Return the ids of the servers that have a log channel."""
        return await self._db.read(audit_log.guilds_with_log_channel)

    async def pending_cursors(self) -> list[LogCursor]:
        """Return the servers whose log channel lacks entries."""
        return await self._db.read(audit_log.pending_cursors)

    async def items_after(self, cursor: LogCursor) -> list[LogItem]:
        """Return what a log channel lacks, oldest first, at most `ITEMS_AT_ONCE_MAX`."""

        def unit(tx: sqlite3.Connection) -> list[LogItem]:
            entries = audit_log.entries_after(
                tx, guild_id=cursor.guild_id, entry_id=cursor.last_mirrored_id, limit=ITEMS_AT_ONCE_MAX
            )
            return [_item(tx, entry) for entry in entries]

        return await self._db.read(unit)

    async def advance_cursor(self, guild_id: int, entry_id: int) -> None:
        """Store that the log channel has every entry up to this one."""
        await self._db.write(lambda tx: audit_log.advance_cursor(tx, guild_id=guild_id, entry_id=entry_id))


def _item(tx: sqlite3.Connection, entry: LogEntry) -> LogItem:
    record_id = entry.audit_record_id
    record = audit_records.get(tx, record_id) if record_id is not None else None
    job = jobs.get(tx, entry.job_id) if entry.job_id is not None else None
    return LogItem(entry, record, job, jobs.results(tx, job.id) if job else ())
