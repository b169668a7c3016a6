"""A server's audit log: actions, jobs and presses in the order they happened, and how far it was mirrored.

Functions take the connection of a running unit (see `Database.write`). Actions and the ends of
jobs are logged by triggers, in the transaction that made them.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Literal

LogKind = Literal["action", "asked", "rendered", "failed", "cancelled", "pressed", "reported", "deleted"]


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One thing that happened: a moderation action (`audit_record_id`), or something about a job."""

    id: int
    guild_id: int
    kind: LogKind
    user_id: int
    job_id: int | None
    audit_record_id: int | None
    note: str
    at: float


@dataclass(frozen=True, slots=True)
class LogCursor:
    """How far a server's log channel has come: `last_mirrored_id` is the newest entry posted there."""

    guild_id: int
    channel_id: int
    last_mirrored_id: int


def add(
    tx: sqlite3.Connection, *, guild_id: int, kind: LogKind, user_id: int, job_id: int, note: str, now: float
) -> bool:
    """Log something about a job of this server; False if it has no such job."""
    added = tx.execute(
        "INSERT INTO audit_log (guild_id, kind, user_id, job_id, note, at)"
        " SELECT guild_id, ?, ?, id, ?, ? FROM job WHERE (id, guild_id) = (?, ?)",
        (kind, user_id, note, now, job_id, guild_id),
    )
    return added.rowcount == 1


def has_entry(tx: sqlite3.Connection, *, guild_id: int, kind: LogKind, user_id: int, job_id: int) -> bool:
    """Return whether the member did this to the job before."""
    row = tx.execute(
        "SELECT 1 FROM audit_log WHERE (guild_id, kind, user_id, job_id) = (?, ?, ?, ?)",
        (guild_id, kind, user_id, job_id),
    ).fetchone()
    return row is not None


def guilds_with_log_channel(tx: sqlite3.Connection) -> set[int]:
    """Return the ids of the servers that have a log channel."""
    return {row[0] for row in tx.execute("SELECT id FROM guild WHERE log_channel_id IS NOT NULL")}


def pending_cursors(tx: sqlite3.Connection) -> list[LogCursor]:
    """Return the servers whose log channel lacks entries."""
    rows = tx.execute(
        "SELECT id, log_channel_id, last_mirrored_id FROM guild WHERE log_channel_id IS NOT NULL"
        " AND EXISTS (SELECT 1 FROM audit_log WHERE guild_id = guild.id AND audit_log.id > last_mirrored_id)"
    )
    return [LogCursor(*row) for row in rows]


def entries_after(tx: sqlite3.Connection, *, guild_id: int, entry_id: int, limit: int) -> list[LogEntry]:
    """Return the server's entries after this one, oldest first."""
    rows = tx.execute(
        "SELECT * FROM audit_log WHERE guild_id = ? AND id > ? ORDER BY id LIMIT ?",
        (guild_id, entry_id, limit),
    )
    return [LogEntry(**dict(row)) for row in rows]


def advance_cursor(tx: sqlite3.Connection, *, guild_id: int, entry_id: int) -> None:
    """Store that the log channel has every entry up to this one."""
    tx.execute(
        "UPDATE guild SET last_mirrored_id = max(last_mirrored_id, ?) WHERE id = ?", (entry_id, guild_id)
    )


def skip_to_end(tx: sqlite3.Connection, guild_id: int) -> None:
    """Let a new log channel begin with what happens from now on."""
    tx.execute(
        "UPDATE guild SET last_mirrored_id ="
        " coalesce((SELECT max(id) FROM audit_log WHERE guild_id = guild.id), 0) WHERE id = ?",
        (guild_id,),
    )
