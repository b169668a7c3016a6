"""Audit records: who did what to whom, when and why. Written once, never changed.

Functions take the connection of a running unit (see `Database.write`).
"""

from __future__ import annotations

import sqlite3
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """One moderation action. `before` and `after` are amounts in credits, where it changed one amount.

    `changes_json` lists all that it changed; `detail` is what versions before 0.2 wrote instead, in words.
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
    changes_json: str | None = None


def insert(tx: sqlite3.Connection, record: AuditRecord) -> None:
    """Write a record. Raises `sqlite3.IntegrityError` if its interaction has one."""
    tx.execute(
        "INSERT INTO audit_record (interaction_id, guild_id, actor_id, target_id, action, before, after,"
        " reason, at, detail, changes_json) VALUES (:interaction_id, :guild_id, :actor_id, :target_id,"
        " :action, :before, :after, :reason, :at, :detail, :changes_json)",
        asdict(record),
    )


def of_interaction(tx: sqlite3.Connection, interaction_id: int) -> AuditRecord | None:
    """Return what was recorded in this interaction; Discord may deliver one twice."""
    row = tx.execute("SELECT * FROM audit_record WHERE interaction_id = ?", (interaction_id,)).fetchone()
    return _record(row) if row else None


def latest(
    tx: sqlite3.Connection, *, guild_id: int, member_id: int | None = None, limit: int
) -> list[AuditRecord]:
    """Return the server's latest records, or those by and on one member, newest first."""
    rows = tx.execute(
        "SELECT * FROM audit_record WHERE guild_id = ?1 AND (?2 IS NULL OR ?2 IN (actor_id, target_id))"
        " ORDER BY id DESC LIMIT ?3",
        (guild_id, member_id, limit),
    )
    return [_record(row) for row in rows]


def get(tx: sqlite3.Connection, record_id: int) -> AuditRecord:
    """Return the record of this id, which exists."""
    return _record(tx.execute("SELECT * FROM audit_record WHERE id = ?", (record_id,)).fetchone())


def _record(row: sqlite3.Row) -> AuditRecord:
    return AuditRecord(**{name: row[name] for name in AuditRecord.__slots__})
