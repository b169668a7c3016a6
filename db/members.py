"""Members of servers: their own allowance, what they were given today, and whether they are blocked.

Functions take the connection of a running unit (see `Database.write`).
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Member:
    """A member's row: their own daily allowance (None: the server's), and what `day` has given so far."""

    guild_id: int
    user_id: int
    allowance: int | None
    day: int
    given: int
    revision: int
    blocked: bool = False


def get_member(tx: sqlite3.Connection, *, guild_id: int, user_id: int) -> Member:
    """Return the member's row; one never seen reads as the defaults."""
    row = tx.execute(
        "SELECT * FROM member WHERE (guild_id, user_id) = (?, ?)", (guild_id, user_id)
    ).fetchone()
    if row is None:
        return Member(guild_id, user_id, None, 0, 0, 0)
    return Member(**{**dict(row), "blocked": bool(row["blocked"])})


def set_given(tx: sqlite3.Connection, *, guild_id: int, user_id: int, day: int, given: int) -> int:
    """Store what the member was given on `day`; return the new revision, which was never used before."""
    row = tx.execute(
        "INSERT INTO member (guild_id, user_id, day, given, revision) VALUES (?, ?, ?, ?, 1)"
        " ON CONFLICT DO UPDATE SET day = excluded.day, given = excluded.given, revision = revision + 1"
        " RETURNING revision",
        (guild_id, user_id, day, given),
    ).fetchone()
    return int(row[0])


def set_allowance(tx: sqlite3.Connection, *, guild_id: int, user_id: int, allowance: int | None) -> None:
    """Set a member's own daily allowance; None removes it, so that roles and server decide."""
    tx.execute(
        "INSERT INTO member (guild_id, user_id, allowance) VALUES (?, ?, ?)"
        " ON CONFLICT DO UPDATE SET allowance = excluded.allowance",
        (guild_id, user_id, allowance),
    )


def set_blocked(tx: sqlite3.Connection, *, guild_id: int, user_id: int, blocked: bool) -> None:
    """Block a member from using the bot in this server, or unblock them."""
    tx.execute(
        "INSERT INTO member (guild_id, user_id, blocked) VALUES (?, ?, ?)"
        " ON CONFLICT DO UPDATE SET blocked = excluded.blocked",
        (guild_id, user_id, int(blocked)),
    )


def members_given_on(tx: sqlite3.Connection, *, guild_id: int, day: int) -> list[int]:
    """Return the ids of the members who were given an allowance on `day`."""
    rows = tx.execute("SELECT user_id FROM member WHERE guild_id = ? AND day = ?", (guild_id, day))
    return [row["user_id"] for row in rows]
