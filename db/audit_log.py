"""The trail of a server: acts, jobs and presses in the order they happened, and how far it was mirrored.

Functions take the connection of a running unit (see `Database.write`). Acts and the lives of
jobs come onto the trail by triggers, in the transaction that made them.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Literal

Kind = Literal["act", "asked", "rendered", "failed", "cancelled", "pressed", "reported", "deleted"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that happened: an act (`audit_id`), or something about a job."""

    id: int
    guild_id: int
    kind: Kind
    user_id: int
    job_id: int | None
    audit_id: int | None
    note: str
    at: float


@dataclass(frozen=True, slots=True)
class Behind:
    """A server whose log channel has not seen all of its trail; `mirrored` is the last entry it saw."""

    guild_id: int
    channel_id: int
    mirrored: int


def add(
    tx: sqlite3.Connection, *, guild_id: int, kind: Kind, user_id: int, job_id: int, note: str, now: float
) -> bool:
    """Put something about a job of this server on the trail; False if it has no such job."""
    added = tx.execute(
        "INSERT INTO trail (guild_id, kind, user_id, job_id, note, at)"
        " SELECT guild_id, ?, ?, id, ?, ? FROM job WHERE (id, guild_id) = (?, ?)",
        (kind, user_id, note, now, job_id, guild_id),
    )
    return added.rowcount == 1


def has(tx: sqlite3.Connection, *, guild_id: int, kind: Kind, user_id: int, job_id: int) -> bool:
    """Tell whether the member did this to the job before."""
    row = tx.execute(
        "SELECT 1 FROM trail WHERE (guild_id, kind, user_id, job_id) = (?, ?, ?, ?)",
        (guild_id, kind, user_id, job_id),
    ).fetchone()
    return row is not None


def logged_guilds(tx: sqlite3.Connection) -> set[int]:
    """Return the servers that have a log channel."""
    return {row[0] for row in tx.execute("SELECT id FROM guild WHERE log_channel_id IS NOT NULL")}


def behind(tx: sqlite3.Connection) -> list[Behind]:
    """Return the servers whose log channel has something to catch up on."""
    rows = tx.execute(
        "SELECT id, log_channel_id, mirrored FROM guild WHERE log_channel_id IS NOT NULL"
        " AND EXISTS (SELECT 1 FROM trail WHERE guild_id = guild.id AND trail.id > guild.mirrored)"
    )
    return [Behind(*row) for row in rows]


def after(tx: sqlite3.Connection, *, guild_id: int, entry_id: int, limit: int) -> list[Entry]:
    """Return the server's entries after this one, oldest first."""
    rows = tx.execute(
        "SELECT * FROM trail WHERE guild_id = ? AND id > ? ORDER BY id LIMIT ?", (guild_id, entry_id, limit)
    )
    return [Entry(**dict(row)) for row in rows]


def set_mirrored(tx: sqlite3.Connection, *, guild_id: int, entry_id: int) -> None:
    """Remember how far the log channel has seen the trail."""
    tx.execute("UPDATE guild SET mirrored = max(mirrored, ?) WHERE id = ?", (entry_id, guild_id))


def start_mirror(tx: sqlite3.Connection, guild_id: int) -> None:
    """Let a new log channel begin with what happens from now on."""
    tx.execute(
        "UPDATE guild SET mirrored = coalesce((SELECT max(id) FROM trail WHERE guild_id = guild.id), 0)"
        " WHERE id = ?",
        (guild_id,),
    )
