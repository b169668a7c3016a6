"""What moderators set for a server: limits, roles, channels, words; and what each day has spent.

Functions take the connection of a running unit (see `Database.write`).
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, fields
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class Rules:
    """A server's own limits and options; None: the operator's holds.

    `daily_cap` is in credits for all members together; `running_max`, `waiting_max` and `slow_s`
    (seconds between two jobs) count for each member.
    """

    allowance: int | None = None
    daily_cap: int | None = None
    running_max: int | None = None
    waiting_max: int | None = None
    steps_max: int | None = None
    samples_max: int | None = None
    pixels_max: int | None = None
    slow_s: int | None = None
    giving: bool = False
    frozen: bool = False
    private: bool = False
    results_channel_id: int | None = None
    log_channel_id: int | None = None


@dataclass(frozen=True, slots=True)
class RoleRule:
    """What a role gives: an allowance (None: none of its own), and whether it opens the bot."""

    role_id: int
    allowance: int | None
    may_use: bool


@dataclass(frozen=True, slots=True)
class BlockedText:
    """A word or pattern that prompts may not contain; `adult_ok`: but in age-restricted channels they may."""

    kind: str
    text: str
    adult_ok: bool


_FLAGS: Final = frozenset({"giving", "frozen", "private"})
_NAMES: Final = tuple(field.name for field in fields(Rules))


def of_guild(tx: sqlite3.Connection, guild_id: int) -> Rules:
    """Return the server's rules; one never seen has none of its own."""
    row = tx.execute("SELECT * FROM guild WHERE id = ?", (guild_id,)).fetchone()
    if row is None:
        return Rules()
    return Rules(**{name: bool(row[name]) if name in _FLAGS else row[name] for name in _NAMES})


def change(tx: sqlite3.Connection, *, guild_id: int, name: str, value: int | bool | None) -> None:
    """Set one field of the server's `Rules`."""
    if name not in _NAMES:
        raise ValueError(f"no rule is called {name}")
    stored = int(value or 0) if name in _FLAGS else value
    tx.execute(
        f"INSERT INTO guild (id, {name}) VALUES (?, ?)"  # noqa: S608 - one of the names above
        f" ON CONFLICT DO UPDATE SET {name} = excluded.{name}",
        (guild_id, stored),
    )


# --------------------------------------------------------------------- roles, channels


def roles(tx: sqlite3.Connection, guild_id: int) -> list[RoleRule]:
    """Return the rules of the server's roles."""
    rows = tx.execute(
        "SELECT role_id, allowance, may_use FROM role_rule WHERE guild_id = ? ORDER BY role_id", (guild_id,)
    )
    return [RoleRule(row["role_id"], row["allowance"], bool(row["may_use"])) for row in rows]


def set_role(tx: sqlite3.Connection, *, guild_id: int, rule: RoleRule) -> None:
    """Set what a role gives; one that gives nothing is forgotten."""
    tx.execute("DELETE FROM role_rule WHERE (guild_id, role_id) = (?, ?)", (guild_id, rule.role_id))
    if rule.allowance is not None or rule.may_use:
        tx.execute(
            "INSERT INTO role_rule (guild_id, role_id, allowance, may_use) VALUES (?, ?, ?, ?)",
            (guild_id, rule.role_id, rule.allowance, int(rule.may_use)),
        )


def channels(tx: sqlite3.Connection, guild_id: int) -> dict[int, bool]:
    """Return the channels with a rule: True where the bot is allowed, False where it is forbidden."""
    rows = tx.execute("SELECT channel_id, allowed FROM channel_rule WHERE guild_id = ?", (guild_id,))
    return {row["channel_id"]: bool(row["allowed"]) for row in rows}


def set_channel(tx: sqlite3.Connection, *, guild_id: int, channel_id: int, allowed: bool | None) -> None:
    """Allow or forbid a channel; None forgets its rule."""
    tx.execute("DELETE FROM channel_rule WHERE (guild_id, channel_id) = (?, ?)", (guild_id, channel_id))
    if allowed is not None:
        tx.execute(
            "INSERT INTO channel_rule (guild_id, channel_id, allowed) VALUES (?, ?, ?)",
            (guild_id, channel_id, int(allowed)),
        )


# ------------------------------------------------------------------------------- words


def blocked_texts(tx: sqlite3.Connection, guild_id: int) -> list[BlockedText]:
    """Return the words and patterns that the server's prompts may not contain."""
    rows = tx.execute(
        "SELECT kind, text, adult_ok FROM blocked_text WHERE guild_id = ? ORDER BY kind, text", (guild_id,)
    )
    return [BlockedText(row["kind"], row["text"], bool(row["adult_ok"])) for row in rows]


def set_blocked_text(tx: sqlite3.Connection, *, guild_id: int, entry: BlockedText) -> None:
    """Add a word or pattern, or change whether age-restricted channels let it through."""
    tx.execute(
        "INSERT INTO blocked_text (guild_id, kind, text, adult_ok) VALUES (?, ?, ?, ?)"
        " ON CONFLICT DO UPDATE SET adult_ok = excluded.adult_ok",
        (guild_id, entry.kind, entry.text, int(entry.adult_ok)),
    )


def remove_blocked_text(tx: sqlite3.Connection, *, guild_id: int, text: str) -> bool:
    """Take a word or pattern off; False if it was not there."""
    deleted = tx.execute("DELETE FROM blocked_text WHERE (guild_id, text) = (?, ?)", (guild_id, text))
    return deleted.rowcount > 0


# ----------------------------------------------------------------------------- spending


def spent(tx: sqlite3.Connection, *, day: int, guild_id: int = 0) -> int:
    """Return the credits that `day`'s jobs have cost or hold, in the server, or in all of them (0)."""
    row = tx.execute("SELECT amount FROM spending WHERE (day, guild_id) = (?, ?)", (day, guild_id)).fetchone()
    return int(row[0]) if row else 0


def open_jobs(tx: sqlite3.Connection, *, guild_id: int, user_id: int) -> int:
    """Return how many of the member's jobs wait or run in the server."""
    row = tx.execute(
        "SELECT count(*) FROM job WHERE (guild_id, user_id) = (?, ?) AND state IN ('queued', 'sending')",
        (guild_id, user_id),
    ).fetchone()
    return int(row[0])


def last_job_at(tx: sqlite3.Connection, *, guild_id: int, user_id: int) -> float | None:
    """Return when the member's last job that was neither cancelled nor failed was accepted."""
    row = tx.execute(
        "SELECT max(created_at) FROM job WHERE (guild_id, user_id) = (?, ?)"
        " AND state NOT IN ('failed', 'cancelled')",
        (guild_id, user_id),
    ).fetchone()
    at: float | None = row[0]
    return at


# ---------------------------------------------------------------------------- proposals


@dataclass(frozen=True, slots=True)
class Proposal:
    """An act that waits to be confirmed: `act` is its JSON."""

    interaction_id: int
    guild_id: int
    actor_id: int
    reason: str
    act: str
    created_at: float


def propose(tx: sqlite3.Connection, proposal: Proposal) -> None:
    """Keep an act until it is confirmed."""
    values: dict[str, Any] = {field.name: getattr(proposal, field.name) for field in fields(Proposal)}
    tx.execute(
        "INSERT INTO proposal (interaction_id, guild_id, actor_id, reason, act, created_at)"
        " VALUES (:interaction_id, :guild_id, :actor_id, :reason, :act, :created_at) ON CONFLICT DO NOTHING",
        values,
    )


def proposal(tx: sqlite3.Connection, interaction_id: int) -> Proposal | None:
    """Return the act that was proposed in this interaction."""
    row = tx.execute("SELECT * FROM proposal WHERE interaction_id = ?", (interaction_id,)).fetchone()
    return Proposal(**dict(row)) if row else None


def withdraw(tx: sqlite3.Connection, interaction_id: int) -> None:
    """Forget a proposed act."""
    tx.execute("DELETE FROM proposal WHERE interaction_id = ?", (interaction_id,))
