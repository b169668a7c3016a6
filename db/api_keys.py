"""SQL of a file of API keys: the keys themselves, and the pending charges of their budgets.

Such a file has the bot's whole schema, so that one migration of the ledger serves both and
`ledger.reconcile` finds the tables it looks at; those for Discord stay empty.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Final

from db.database import DatabaseUnusable
from db.migrate import migrate

#: "i2k" and a version, in SQLite's header: distinguishes a file of keys from the bot's own database.
_APPLICATION_ID: Final = 0x69326B01

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


def prepare(connection: sqlite3.Connection, path: Path) -> None:
    """Make the tables in an empty file, or bring a file of keys up to date.

    Raises `DatabaseUnusable` if the file is something else, or newer than this program.
    """
    if not connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
        connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
    elif connection.execute("PRAGMA application_id").fetchone()[0] != _APPLICATION_ID:
        raise DatabaseUnusable(f"{path} is not a file of keys.")
    migrate(connection, path)
    for statement in _SCHEMA:
        connection.execute(statement)


def insert(
    tx: sqlite3.Connection, *, name: str, handle: str, salt: bytes, secret_hash: bytes, now: float
) -> int:
    """Store a key and return its id. Raises `sqlite3.IntegrityError` for a name taken, empty or too long."""
    query = "INSERT INTO api_key (name, handle, salt, hash, created_at) VALUES (?, ?, ?, ?, ?) RETURNING id"
    key_id: int = tx.execute(query, (name, handle, salt, secret_hash, now)).fetchone()[0]
    return key_id


def revoke(tx: sqlite3.Connection, name: str, *, now: float) -> bool:
    """Revoke the active key called `name`; return whether there was one."""
    query = "UPDATE api_key SET revoked_at = ? WHERE name = ? AND revoked_at IS NULL"
    return tx.execute(query, (now, name)).rowcount == 1


def list_all(tx: sqlite3.Connection) -> list[tuple[int, str, bool]]:
    """Return (id, name, revoked) of every key, by name."""
    rows = tx.execute("SELECT id, name, revoked_at IS NOT NULL FROM api_key ORDER BY name")
    return [(key_id, name, bool(revoked)) for key_id, name, revoked in rows]


def has_active(tx: sqlite3.Connection) -> bool:
    """Return whether any key is active."""
    query = "SELECT EXISTS (SELECT 1 FROM api_key WHERE revoked_at IS NULL)"
    return bool(tx.execute(query).fetchone()[0])


def find_active(tx: sqlite3.Connection, handle: str) -> tuple[int, bytes, bytes] | None:
    """Return (id, salt, hash) of the active key with this handle, or None."""
    query = "SELECT id, salt, hash FROM api_key WHERE handle = ? AND revoked_at IS NULL"
    row = tx.execute(query, (handle,)).fetchone()
    return tuple(row) if row else None


def is_pending(tx: sqlite3.Connection, transfer_id: str) -> bool:
    """Return whether a transfer is held and not settled yet."""
    query = "SELECT 1 FROM transfer WHERE id = ? AND state = 'pending'"
    return tx.execute(query, (transfer_id,)).fetchone() is not None


def pending_before(tx: sqlite3.Connection, created_at: float) -> list[str]:
    """Return the ids of transfers that were held before `created_at` and are not settled."""
    query = "SELECT id FROM transfer WHERE state = 'pending' AND created_at < ?"
    return [row["id"] for row in tx.execute(query, (created_at,))]
