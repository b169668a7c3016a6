"""The GPU server's API keys, in a file of their own that has the bot's ledger for their budgets.

Functions take the connection of a running unit (see `Database.write`).
"""

from __future__ import annotations

import sqlite3
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from db.database import DatabaseUnusable

#: "i2k" and a version, in SQLite's header: tells a file of keys from the bot's own database.
APPLICATION_ID: Final = 0x69326B01

#: Each statement does nothing if another process has run it already.
_SCHEMA: Final = (
    """
    CREATE TABLE IF NOT EXISTS api_key (
        id         INTEGER PRIMARY KEY,
        name       TEXT NOT NULL UNIQUE CHECK (length(name) BETWEEN 1 AND 64),
        handle     TEXT NOT NULL UNIQUE,
        salt       BLOB NOT NULL CHECK (length(salt) = 16),
        hash       BLOB NOT NULL CHECK (length(hash) = 32),
        created_at REAL NOT NULL,
        revoked_at REAL
    ) STRICT
    """,
    "CREATE INDEX IF NOT EXISTS api_key_pending ON transfer (created_at) WHERE state = 'pending'",
)


@dataclass(frozen=True, slots=True)
class NewApiKey:
    """A key to be stored: `hash` is of `salt` and secret; `created_at` in seconds since 1970."""

    name: str
    handle: str
    salt: bytes
    hash: bytes
    created_at: float


def claim_file(connection: sqlite3.Connection, path: Path) -> None:
    """Mark an empty file as a file of keys. Raises `DatabaseUnusable` for one that is something else."""
    if not connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    elif connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
        raise DatabaseUnusable(f"{path} is not a file of keys.")


def create_tables(connection: sqlite3.Connection) -> None:
    """Create what a file of keys has beside the bot's schema."""
    for statement in _SCHEMA:
        connection.execute(statement)


def insert(tx: sqlite3.Connection, key: NewApiKey) -> int:
    """Store a key and return its id. Raises `sqlite3.IntegrityError` for a name that can't be."""
    inserted = tx.execute(
        "INSERT INTO api_key (name, handle, salt, hash, created_at)"
        " VALUES (:name, :handle, :salt, :hash, :created_at)",
        asdict(key),
    )
    return inserted.lastrowid or 0


def revoke(tx: sqlite3.Connection, name: str, *, now: float) -> bool:
    """Revoke a key; False if no active one has that name."""
    query = "UPDATE api_key SET revoked_at = ? WHERE name = ? AND revoked_at IS NULL"
    return tx.execute(query, (now, name)).rowcount == 1


def list_all(tx: sqlite3.Connection) -> list[tuple[int, str, bool]]:
    """Return id, name and whether it is revoked of every key, by name."""
    rows = tx.execute("SELECT id, name, revoked_at IS NOT NULL FROM api_key ORDER BY name")
    return [(key_id, name, bool(revoked)) for key_id, name, revoked in rows]


def has_active(tx: sqlite3.Connection) -> bool:
    """Return whether any key is active."""
    found = tx.execute("SELECT EXISTS (SELECT 1 FROM api_key WHERE revoked_at IS NULL)").fetchone()
    return bool(found[0])


def find_active(tx: sqlite3.Connection, handle: str) -> tuple[int, bytes, bytes] | None:
    """Return id, salt and hash of the active key with this handle."""
    query = "SELECT id, salt, hash FROM api_key WHERE handle = ? AND revoked_at IS NULL"
    row = tx.execute(query, (handle,)).fetchone()
    return tuple(row) if row else None
