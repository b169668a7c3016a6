"""Opens a folder's database safely: one process at a time, and never a wrong or damaged file."""

from __future__ import annotations

import asyncio
import fcntl
import secrets
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO, Final

from db.database import Database, DatabaseUnusable, connect, open_file
from db.migrate import migrate

#: "i2i" and a version, in SQLite's header: tells our files from others'.
APPLICATION_ID: Final = 0x69326901


@asynccontextmanager
async def open_database(folder: Path) -> AsyncIterator[Database]:
    """Open (or, in an unused folder, create) the database in `folder`.

    Holds a lock file against a second process. Raises `DatabaseUnusable` with a
    sentence when the lock is taken or the file is missing, empty, foreign, newer
    than this program, or damaged.
    """
    await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True, mode=0o700)
    with FolderLock(folder / "lock"):
        path = folder / "bot.sqlite3"
        marker = folder / "identity"
        await asyncio.to_thread(_prepare, path, marker)
        async with open_file(path) as database:
            yield database


class FolderLock:
    """Holds a lock file, so that no second process uses the folder. Raises `DatabaseUnusable`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[str] | None = None

    def __enter__(self) -> None:
        try:
            self._file = self._path.open("w")
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self.__exit__()
            raise DatabaseUnusable(
                f"Another bot is running on {self._path.parent}; stop it first, or set IMG2IMG_DATA_DIR."
            ) from error
        except OSError as error:
            raise DatabaseUnusable(
                f"{self._path.parent} can't be written ({error.strerror}); check its owner and the disk."
            ) from error

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()


def _prepare(path: Path, marker: Path) -> None:
    """Check who the file belongs to, create it where it is due, and migrate it."""
    missing = not path.exists() or path.stat().st_size == 0
    if missing and marker.exists():
        raise DatabaseUnusable(
            f"The database {path} is missing or empty though the bot has run here;"
            f" restore it from a backup, or remove {marker.name} to start with an empty ledger."
        )
    try:
        connection = connect(path)
        try:
            _check_owner(connection, path, new=missing)
            _check_pages(connection, path, new=missing)
            migrate(connection, path)
            _check_identity(connection, path, marker)
        finally:
            connection.close()
    except sqlite3.DatabaseError as error:
        raise DatabaseUnusable(
            f"The database {path} can't be read ({error}); restore it from a backup."
        ) from error


def _check_owner(connection: sqlite3.Connection, path: Path, *, new: bool) -> None:
    if new:
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    elif connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
        raise DatabaseUnusable(f"{path} is not this bot's database; move it away or set IMG2IMG_DATA_DIR.")


def _check_pages(connection: sqlite3.Connection, path: Path, *, new: bool) -> None:
    """Look for damage that shows without reading every index: what else is wrong, the reconcile finds."""
    fault = "ok" if new else connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if fault != "ok":
        raise DatabaseUnusable(f"The database {path} is damaged ({fault}); restore it from a backup.")


def _check_identity(connection: sqlite3.Connection, path: Path, marker: Path) -> None:
    """Tie file and folder together, so that a swapped or lost database is noticed."""
    row = connection.execute("SELECT value FROM meta WHERE key = 'identity'").fetchone()
    identity = row["value"] if row else secrets.token_hex(16)
    if not row:
        connection.execute("INSERT INTO meta (key, value) VALUES ('identity', ?)", (identity,))
    if not marker.exists():
        marker.write_text(identity)
    elif marker.read_text().strip() != identity:
        raise DatabaseUnusable(
            f"{path} is not the database that belongs to this folder; put the right one back,"
            f" or remove {marker.name} to accept it."
        )
