"""The operator's balance at each provider, as the provider last reported it.

Functions take the connection of a running unit (see `Database.write`).
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Balance:
    """What a provider reported, when (seconds since 1970), and whether the operator was alerted to it."""

    backend: str
    remaining: float
    at: float
    alerted: bool


def balances(tx: sqlite3.Connection) -> list[Balance]:
    """Return the balances known, by backend."""
    rows = tx.execute("SELECT * FROM provider_balance ORDER BY backend")
    return [Balance(**{**dict(row), "alerted": bool(row["alerted"])}) for row in rows]


def record_balance(tx: sqlite3.Connection, *, backend: str, remaining: float, low: float, now: float) -> bool:
    """Store a balance; True if it is the first below `low` since it was last at or above it."""
    before = tx.execute("SELECT alerted FROM provider_balance WHERE backend = ?", (backend,)).fetchone()
    is_low = remaining < low
    tx.execute(
        "INSERT INTO provider_balance (backend, remaining, at, alerted) VALUES (?, ?, ?, ?)"
        " ON CONFLICT DO UPDATE SET remaining = excluded.remaining, at = excluded.at,"
        " alerted = excluded.alerted",
        (backend, remaining, now, int(is_low)),
    )
    return is_low and not (before and before["alerted"])
