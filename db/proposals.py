"""Moderation actions that wait for their moderator to confirm them.

Functions take the connection of a running unit (see `Database.write`).
"""

from __future__ import annotations

import sqlite3
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class Proposal:
    """A proposed action: `action_json` describes it; `created_at` in seconds since 1970."""

    interaction_id: int
    guild_id: int
    actor_id: int
    reason: str
    action_json: str
    created_at: float


def insert(tx: sqlite3.Connection, proposal: Proposal) -> None:
    """Store a proposal; one of the same interaction stays as it is."""
    tx.execute(
        "INSERT INTO proposal (interaction_id, guild_id, actor_id, reason, action_json, created_at)"
        " VALUES (:interaction_id, :guild_id, :actor_id, :reason, :action_json, :created_at)"
        " ON CONFLICT DO NOTHING",
        asdict(proposal),
    )


def get(tx: sqlite3.Connection, interaction_id: int) -> Proposal | None:
    """Return what was proposed in this interaction."""
    row = tx.execute("SELECT * FROM proposal WHERE interaction_id = ?", (interaction_id,)).fetchone()
    return Proposal(**dict(row)) if row else None


def delete(tx: sqlite3.Connection, interaction_id: int) -> None:
    """Remove a proposal, confirmed or withdrawn."""
    tx.execute("DELETE FROM proposal WHERE interaction_id = ?", (interaction_id,))
