"""What each day's jobs have cost: counted by triggers from the transfers, so that caps need no sum."""

from __future__ import annotations

import sqlite3


def spent(tx: sqlite3.Connection, *, day: int, guild_id: int = 0) -> int:
    """Return the credits that `day`'s jobs have cost or hold, in the server, or in all of them (0)."""
    row = tx.execute("SELECT amount FROM spending WHERE (day, guild_id) = (?, ?)", (day, guild_id)).fetchone()
    return int(row[0]) if row else 0
