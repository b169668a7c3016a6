"""Schema migrations: numbered SQL files, applied in order, each in a transaction with its version."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

from db.database import DatabaseUnusable


def migrations() -> list[tuple[int, str]]:
    """Return the migrations as (version, SQL), in order, versions counting from 1."""
    folder = resources.files("db") / "migrations"
    files = sorted((f for f in folder.iterdir() if f.name.endswith(".sql")), key=lambda f: f.name)
    return [(int(f.name[:4]), f.read_text("utf-8")) for f in files]


def migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Apply the migrations that the file lacks; several processes may do so at once.

    Raises `DatabaseUnusable` if the file is newer than this program.
    """
    known = migrations()
    version = _version(connection)
    if version > known[-1][0]:
        raise DatabaseUnusable(f"{path} was written by a newer version of the bot; update this one.")
    for number, sql in known:
        if number > version:
            apply_migration(connection, number, sql)


def apply_migration(connection: sqlite3.Connection, number: int, sql: str) -> None:
    """Apply one migration and record its version, both in one transaction.

    Does nothing if another process has applied it meanwhile.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        if _version(connection) < number:
            for statement in _statements(sql):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {number}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _version(connection: sqlite3.Connection) -> int:
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return version


def _statements(sql: str) -> Iterator[str]:
    """Yield a script's statements one by one: `executescript` would commit before it begins."""
    statement = ""
    for piece in sql.split(";"):
        statement += f"{piece};"
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
    yield statement
