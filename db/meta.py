"""Small facts about the database itself, and the day that counts.

Functions take the connection of a running unit (see `Database.write`).
"""

from __future__ import annotations

import sqlite3


def get_value(tx: sqlite3.Connection, key: str) -> str | None:
    """Return what was last stored under `key`."""
    row = tx.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    return row["value"] if row else None


def set_value(tx: sqlite3.Connection, *, key: str, value: str) -> None:
    """Store `value` under `key`."""
    tx.execute(
        "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value",
        (key, value),
    )


def advance_day(tx: sqlite3.Connection, today: int) -> int:
    """Return max(stored day, `today`) and store it: a clock that steps back grants nothing twice."""
    row = tx.execute(
        "INSERT INTO meta (key, value) VALUES ('day', ?) ON CONFLICT DO UPDATE"
        " SET value = max(CAST(value AS INTEGER), CAST(excluded.value AS INTEGER)) RETURNING value",
        (str(today),),
    ).fetchone()
    return int(row[0])
