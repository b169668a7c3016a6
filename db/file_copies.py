"""Copies of the database file: taken while it is written to, and verified to the last row."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from db import ledger
from db.opening import APPLICATION_ID


def open_existing(path: Path) -> sqlite3.Connection:
    """Open an existing database; never create one. Raises `sqlite3.Error`."""
    return sqlite3.connect(f"{path.resolve().as_uri()}?mode=rw", uri=True)


def is_ours(path: Path) -> bool:
    """Return whether the file is one of the bot's databases. Raises `sqlite3.Error` if it can't be read."""
    with closing(open_existing(path)) as connection:
        return bool(connection.execute("PRAGMA application_id").fetchone()[0] == APPLICATION_ID)


def copy_database(source: Path, target: Path) -> None:
    """Copy a database that may be in use, as one consistent state, into a single complete file."""
    with closing(open_existing(source)) as original, closing(sqlite3.connect(target)) as copy:
        original.backup(copy)
        # Without a write-ahead log: the file alone is renamed, so it must be complete.
        copy.execute("PRAGMA journal_mode = DELETE")


def move_log_into_file(path: Path) -> None:
    """Write what is only in the write-ahead log into the database. Raises `sqlite3.Error`."""
    with closing(open_existing(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def faults_of(connection: sqlite3.Connection) -> list[str]:
    """Return what is wrong with a file: damage first, else what is inconsistent in its ledger."""
    faults = [row[0] for row in connection.execute("PRAGMA integrity_check(3)") if row[0] != "ok"]
    faults += [
        f"row {row[1]} of {row[0]} refers to a missing row"
        for row in connection.execute("PRAGMA foreign_key_check")
    ]
    return faults or ledger.reconcile(connection)
