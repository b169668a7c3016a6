"""What moderators set for a server: its settings, roles, channels and blocked texts.

Functions take the connection of a running unit (see `Database.write`).
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, fields
from typing import Final


@dataclass(frozen=True, slots=True)
class GuildSettings:
    """A server's own limits and options; None: the operator's apply.

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
    """A word or pattern that prompts may not contain; `adult_ok`: except in age-restricted channels."""

    kind: str
    text: str
    adult_ok: bool


_FLAGS: Final = frozenset({"giving", "frozen", "private"})
_NAMES: Final = tuple(field.name for field in fields(GuildSettings))


def get_settings(tx: sqlite3.Connection, guild_id: int) -> GuildSettings:
    """Return the server's settings; one never seen has none of its own."""
    row = tx.execute("SELECT * FROM guild WHERE id = ?", (guild_id,)).fetchone()
    if row is None:
        return GuildSettings()
    return GuildSettings(**{name: bool(row[name]) if name in _FLAGS else row[name] for name in _NAMES})


def change_setting(tx: sqlite3.Connection, *, guild_id: int, name: str, value: int | bool | None) -> None:
    """Set one field of the server's `GuildSettings`."""
    if name not in _NAMES:
        raise ValueError(f"no setting is called {name}")
    stored = int(value or 0) if name in _FLAGS else value
    tx.execute(
        f"INSERT INTO guild (id, {name}) VALUES (?, ?)"  # noqa: S608 - one of the names above
        f" ON CONFLICT DO UPDATE SET {name} = excluded.{name}",
        (guild_id, stored),
    )


def role_rules(tx: sqlite3.Connection, guild_id: int) -> list[RoleRule]:
    """Return the rules of the server's roles."""
    rows = tx.execute(
        "SELECT role_id, allowance, may_use FROM role_rule WHERE guild_id = ? ORDER BY role_id", (guild_id,)
    )
    return [RoleRule(row["role_id"], row["allowance"], bool(row["may_use"])) for row in rows]


def set_role_rule(tx: sqlite3.Connection, *, guild_id: int, rule: RoleRule) -> None:
    """Set what a role gives; the rule of one that gives nothing is deleted."""
    tx.execute("DELETE FROM role_rule WHERE (guild_id, role_id) = (?, ?)", (guild_id, rule.role_id))
    if rule.allowance is not None or rule.may_use:
        tx.execute(
            "INSERT INTO role_rule (guild_id, role_id, allowance, may_use) VALUES (?, ?, ?, ?)",
            (guild_id, rule.role_id, rule.allowance, int(rule.may_use)),
        )


def channel_rules(tx: sqlite3.Connection, guild_id: int) -> dict[int, bool]:
    """Return the channels with a rule: True where the bot is allowed, False where it is not."""
    rows = tx.execute("SELECT channel_id, allowed FROM channel_rule WHERE guild_id = ?", (guild_id,))
    return {row["channel_id"]: bool(row["allowed"]) for row in rows}


def set_channel_rule(tx: sqlite3.Connection, *, guild_id: int, channel_id: int, allowed: bool | None) -> None:
    """Allow or forbid the bot in a channel; None deletes its rule."""
    tx.execute("DELETE FROM channel_rule WHERE (guild_id, channel_id) = (?, ?)", (guild_id, channel_id))
    if allowed is not None:
        tx.execute(
            "INSERT INTO channel_rule (guild_id, channel_id, allowed) VALUES (?, ?, ?)",
            (guild_id, channel_id, int(allowed)),
        )


def blocked_texts(tx: sqlite3.Connection, guild_id: int) -> list[BlockedText]:
    """Return the words and patterns that the server's prompts may not contain."""
    rows = tx.execute(
        "SELECT kind, text, adult_ok FROM blocked_text WHERE guild_id = ? ORDER BY kind, text", (guild_id,)
    )
    return [BlockedText(row["kind"], row["text"], bool(row["adult_ok"])) for row in rows]


def save_blocked_text(tx: sqlite3.Connection, *, guild_id: int, entry: BlockedText) -> None:
    """Add a word or pattern, or change whether age-restricted channels let it through."""
    tx.execute(
        "INSERT INTO blocked_text (guild_id, kind, text, adult_ok) VALUES (?, ?, ?, ?)"
        " ON CONFLICT DO UPDATE SET adult_ok = excluded.adult_ok",
        (guild_id, entry.kind, entry.text, int(entry.adult_ok)),
    )


def remove_blocked_text(tx: sqlite3.Connection, *, guild_id: int, text: str) -> bool:
    """Delete a word or pattern; False if there was none."""
    deleted = tx.execute("DELETE FROM blocked_text WHERE (guild_id, text) = (?, ?)", (guild_id, text))
    return deleted.rowcount > 0
