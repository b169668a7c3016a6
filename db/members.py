"""Servers' and members' limits, the day, and the audit of every act that changes them."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Member:
    """A member's allowance: his own a day (None: the server's), and what `day` has been given so far."""

    guild_id: int
    user_id: int
    allowance: int | None
    day: int
    given: int
    revision: int
    blocked: bool = False


@dataclass(frozen=True, slots=True)
class Act:
    """One act of a moderator: who, whom, what, from what to what, why. Amounts in credits.

    `detail` says in words what amounts can't, e.g. which limit of a server was changed.
    """

    interaction_id: int
    guild_id: int
    actor_id: int
    target_id: int | None
    action: str
    before: int | None
    after: int | None
    reason: str
    at: float
    detail: str = ""


def member(tx: sqlite3.Connection, *, guild_id: int, user_id: int) -> Member:
    """Return the member's row; one never seen reads as the defaults."""
    row = tx.execute(
        "SELECT * FROM member WHERE (guild_id, user_id) = (?, ?)", (guild_id, user_id)
    ).fetchone()
    if row is None:
        return Member(guild_id, user_id, None, 0, 0, 0)
    return Member(**{**dict(row), "blocked": bool(row["blocked"])})


def save_given(tx: sqlite3.Connection, *, guild_id: int, user_id: int, day: int, given: int) -> int:
    """Remember what the member was given on `day`; return the new revision, never seen before."""
    row = tx.execute(
        "INSERT INTO member (guild_id, user_id, day, given, revision) VALUES (?, ?, ?, ?, 1)"
        " ON CONFLICT DO UPDATE SET day = excluded.day, given = excluded.given, revision = revision + 1"
        " RETURNING revision",
        (guild_id, user_id, day, given),
    ).fetchone()
    return int(row[0])


def set_member_allowance(
    tx: sqlite3.Connection, *, guild_id: int, user_id: int, allowance: int | None
) -> None:
    """Set a member's own daily allowance; None gives back the server's."""
    tx.execute(
        "INSERT INTO member (guild_id, user_id, allowance) VALUES (?, ?, ?)"
        " ON CONFLICT DO UPDATE SET allowance = excluded.allowance",
        (guild_id, user_id, allowance),
    )


def set_blocked(tx: sqlite3.Connection, *, guild_id: int, user_id: int, blocked: bool) -> None:
    """Keep a member from using the bot in this server, or let him again."""
    tx.execute(
        "INSERT INTO member (guild_id, user_id, blocked) VALUES (?, ?, ?)"
        " ON CONFLICT DO UPDATE SET blocked = excluded.blocked",
        (guild_id, user_id, int(blocked)),
    )


def given_on(tx: sqlite3.Connection, *, guild_id: int, day: int) -> list[int]:
    """Return the members who were given an allowance on `day`."""
    rows = tx.execute("SELECT user_id FROM member WHERE guild_id = ? AND day = ?", (guild_id, day))
    return [row["user_id"] for row in rows]


def set_guild_allowance(tx: sqlite3.Connection, *, guild_id: int, allowance: int) -> None:
    """Set the server's daily allowance for every member without his own."""
    tx.execute(
        "INSERT INTO guild (id, allowance) VALUES (?, ?)"
        " ON CONFLICT DO UPDATE SET allowance = excluded.allowance",
        (guild_id, allowance),
    )


def advance_day(tx: sqlite3.Connection, today: int) -> int:
    """Return max(stored day, `today`) and store it: a clock that steps back gives nothing twice."""
    row = tx.execute(
        "INSERT INTO meta (key, value) VALUES ('day', ?) ON CONFLICT DO UPDATE"
        " SET value = max(CAST(value AS INTEGER), CAST(excluded.value AS INTEGER)) RETURNING value",
        (str(today),),
    ).fetchone()
    return int(row[0])


def record(tx: sqlite3.Connection, act: Act) -> bool:
    """Write an act into the audit; False if this interaction's act is on record already."""
    if tx.execute("SELECT 1 FROM audit WHERE interaction_id = ?", (act.interaction_id,)).fetchone():
        return False
    tx.execute(
        "INSERT INTO audit"
        " (interaction_id, guild_id, actor_id, target_id, action, before, after, reason, at, detail)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            act.interaction_id,
            act.guild_id,
            act.actor_id,
            act.target_id,
            act.action,
            act.before,
            act.after,
            act.reason,
            act.at,
            act.detail,
        ),
    )
    return True


def acts(tx: sqlite3.Connection, *, guild_id: int, member_id: int | None = None, limit: int) -> list[Act]:
    """Return the server's latest acts, or those by and on one member, newest first."""
    rows = tx.execute(
        "SELECT * FROM audit WHERE guild_id = ?1 AND (?2 IS NULL OR ?2 IN (actor_id, target_id))"
        " ORDER BY id DESC LIMIT ?3",
        (guild_id, member_id, limit),
    )
    return [_act(row) for row in rows]


def act(tx: sqlite3.Connection, audit_id: int) -> Act:
    """Return the act of this number in the audit."""
    return _act(tx.execute("SELECT * FROM audit WHERE id = ?", (audit_id,)).fetchone())


def _act(row: sqlite3.Row) -> Act:
    return Act(**{name: row[name] for name in row.keys() if name != "id"})  # noqa: SIM118 - a Row iterates values


def remembered(tx: sqlite3.Connection, key: str) -> str | None:
    """Return what was last stored under `key` with `remember`."""
    row = tx.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    return row["value"] if row else None


def remember(tx: sqlite3.Connection, *, key: str, value: str) -> None:
    """Store a small fact under `key`."""
    tx.execute(
        "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value",
        (key, value),
    )
