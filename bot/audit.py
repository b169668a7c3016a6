"""Who did what to whom, when and why: every act of a moderator, on record and never altered."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from db import guilds


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
