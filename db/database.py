"""One SQLite file: opened safely, written by one writer, many units to a commit.

`write` takes a *unit*: a plain function over the connection. Units that wait at
the same time run in one transaction, each in a savepoint of its own, and are
made durable by one commit (group commit): an unfit unit undoes only itself, and
no unit's caller hears of success before the disk has it.
"""

from __future__ import annotations

import asyncio
import fcntl
import secrets
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import IO, Any, Final, TypeVar

import aiosqlite

T = TypeVar("T")
Unit = Callable[[sqlite3.Connection], T]

#: "i2i" and a version, in SQLite's header: tells our files from others'.
APPLICATION_ID: Final = 0x69326901
UNITS_PER_COMMIT_MAX: Final = 256
BUSY_TIMEOUT_MS: Final = 5_000
_PRAGMAS: Final = (f"busy_timeout = {BUSY_TIMEOUT_MS}", "foreign_keys = ON")
PRAGMAS_READING: Final = (*_PRAGMAS, "query_only = ON")
#: With `synchronous = NORMAL`, most simulated power cuts lose commits that were acknowledged; with FULL none.
PRAGMAS_WRITING: Final = (*_PRAGMAS, "journal_mode = WAL", "synchronous = FULL")
_OF_THE_FILE: Final = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_NOTADB,
    }
)


class DatabaseUnfitError(Exception):
    """The database can't be used; the message is one sentence that says what to do."""


class DatabaseBrokenError(Exception):
    """A commit failed: nothing of it is on disk; the message says why."""


class _Connection(aiosqlite.Connection):
    """aiosqlite's connection, which can also run a whole function in its thread."""

    async def run(self, unit: Unit[T]) -> T:
        result: T = await self._execute(lambda: unit(self._conn))  # type: ignore[no-untyped-call]  # aiosqlite's own
        return result


@dataclass(slots=True)
class _Waiting:
    unit: Unit[Any]
    done: asyncio.Future[Any]


class Database:
    """The open database. Make it with `open_database`."""

    def __init__(self, writer: _Connection, reader: _Connection) -> None:
        self._writer = writer
        self._reader = reader
        self._waiting: list[_Waiting] = []
        self._committer: asyncio.Task[None] | None = None
        self._is_broken = False
        #: Called with a sentence when commits begin to fail, once until one succeeds.
        self.on_broken: Callable[[str], None] = lambda _: None

    async def read(self, unit: Unit[T]) -> T:
        """Run `unit` on the read-only connection: it sees what is committed."""
        return await self._reader.run(unit)

    async def write(self, unit: Unit[T]) -> T:
        """Run `unit` in a transaction and return its result once that is durable.

        What `unit` raises is raised here, its changes undone. Raises
        `DatabaseBrokenError` when the commit itself failed. The unit is not stopped
        by cancelling the caller: it may still be committed.
        """
        waiting = _Waiting(unit, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        if self._committer is None:
            self._committer = asyncio.create_task(self._commit_all())
        result: T = await waiting.done
        return result

    async def _commit_all(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = (
                    self._waiting[:UNITS_PER_COMMIT_MAX],
                    self._waiting[UNITS_PER_COMMIT_MAX:],
                )
                await self._commit(batch)
        finally:
            self._committer = None

    async def _commit(self, batch: list[_Waiting]) -> None:
        units = [waiting.unit for waiting in batch]
        try:
            outcomes = await self._writer.run(lambda connection: run_batch(connection, units))
        except BaseException as error:
            broken = DatabaseBrokenError(f"The database could not store a change: {error}")
            for waiting in batch:
                _fail(waiting.done, broken)
            self._tell(str(broken))
            if not isinstance(error, Exception):
                raise
            return
        self._is_broken = False
        for waiting, outcome in zip(batch, outcomes, strict=True):
            if isinstance(outcome, _Raised):
                _fail(waiting.done, outcome.error)
            elif not waiting.done.done():
                waiting.done.set_result(outcome)

    def _tell(self, sentence: str) -> None:
        if not self._is_broken:
            self._is_broken = True
            self.on_broken(sentence)

    async def drain(self) -> None:
        """Wait until all that was handed to `write` is committed."""
        while self._committer is not None:
            await asyncio.wait([self._committer])


def _fail(done: asyncio.Future[Any], error: Exception) -> None:
    if not done.done():
        done.set_exception(error)


@dataclass(frozen=True, slots=True)
class _Raised:
    error: Exception


def run_batch(connection: sqlite3.Connection, units: list[Unit[Any]]) -> list[Any]:
    """Run the units in one transaction, each in a savepoint; return what each returned or raised."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        outcomes = [_run_unit(connection, unit) for unit in units]
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return outcomes


def _run_unit(connection: sqlite3.Connection, unit: Unit[Any]) -> Any:
    connection.execute("SAVEPOINT unit")
    try:
        outcome = unit(connection)
    except Exception as error:
        if not connection.in_transaction or _is_the_files(error):
            # A full disk or a broken page: none of the batch stands.
            raise
        connection.execute("ROLLBACK TO unit")
        outcome = _Raised(error)
    connection.execute("RELEASE unit")
    return outcome


def _is_the_files(error: Exception) -> bool:
    """Tell whether SQLite complains of the disk or the file, not of what it was asked to do."""
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF in _OF_THE_FILE


# --------------------------------------------------------------------- opening


@asynccontextmanager
async def open_database(folder: Path) -> AsyncIterator[Database]:
    """Open (or, in an unused folder, create) the database in `folder`.

    Holds a lock file against a second process. Raises `DatabaseUnfitError` with a
    sentence when the lock is taken or the file is missing, empty, foreign, newer
    than this program, or damaged.
    """
    await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True, mode=0o700)
    with locked(folder / "lock"):
        path = folder / "bot.sqlite3"
        marker = folder / "identity"
        await asyncio.to_thread(_prepare, path, marker)
        async with opened(path) as database:
            yield database


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[Database]:
    """Open a file that `migrate` has made ready, without a lock: several processes may have it open."""
    writer = _connect(path)
    reader = _connect(path, read_only=True)
    async with writer, reader:
        database = Database(writer, reader)
        try:
            yield database
        finally:
            await database.drain()


class locked:  # noqa: N801 - used as a function is
    """Holds a lock file, so that no second process uses the folder. Raises `DatabaseUnfitError`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[str] | None = None

    def __enter__(self) -> None:
        try:
            self._file = self._path.open("w")
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self.__exit__()
            raise DatabaseUnfitError(
                f"Another bot is running on {self._path.parent}; stop it first, or set IMG2IMG_DATA_DIR."
            ) from error
        except OSError as error:
            raise DatabaseUnfitError(
                f"{self._path.parent} can't be written ({error.strerror}); check its owner and the disk."
            ) from error

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()


def _connect(path: Path, *, read_only: bool = False) -> _Connection:
    return _Connection(lambda: connect(path, read_only=read_only), iter_chunk_size=64)


def connect(path: Path, *, read_only: bool = False) -> sqlite3.Connection:
    """Return a connection set as the ledger needs it: WAL, every commit fsynced, foreign keys on."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.row_factory = sqlite3.Row
    for pragma in PRAGMAS_READING if read_only else PRAGMAS_WRITING:
        connection.execute(f"PRAGMA {pragma}")
    return connection


def _prepare(path: Path, marker: Path) -> None:
    """Check who the file belongs to, create it where it is due, and migrate it."""
    missing = not path.exists() or path.stat().st_size == 0
    if missing and marker.exists():
        raise DatabaseUnfitError(
            f"The database {path} is missing or empty though the bot has run here;"
            f" restore it from a backup, or remove {marker.name} to start with empty books."
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
        raise DatabaseUnfitError(
            f"The database {path} can't be read ({error}); restore it from a backup."
        ) from error


def _check_owner(connection: sqlite3.Connection, path: Path, *, new: bool) -> None:
    if new:
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    elif connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
        raise DatabaseUnfitError(f"{path} is not this bot's database; move it away or set IMG2IMG_DATA_DIR.")


def _check_pages(connection: sqlite3.Connection, path: Path, *, new: bool) -> None:
    """Look for damage that shows without reading every index: what else is wrong, the reconcile finds."""
    fault = "ok" if new else connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if fault != "ok":
        raise DatabaseUnfitError(f"The database {path} is damaged ({fault}); restore it from a backup.")


def migrations() -> list[tuple[int, str]]:
    """Return the migrations as (version, SQL), in order, versions counting from 1."""
    folder = resources.files("db") / "migrations"
    files = sorted((f for f in folder.iterdir() if f.name.endswith(".sql")), key=lambda f: f.name)
    return [(int(f.name[:4]), f.read_text("utf-8")) for f in files]


def migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Apply the migrations that the file lacks; several processes may do so at once.

    Raises `DatabaseUnfitError` if the file is newer than this program.
    """
    known = migrations()
    version = _version(connection)
    if version > known[-1][0]:
        raise DatabaseUnfitError(f"{path} was written by a newer version of the bot; update this one.")
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


def _check_identity(connection: sqlite3.Connection, path: Path, marker: Path) -> None:
    """Tie file and folder together, so that a swapped or lost database is noticed."""
    row = connection.execute("SELECT value FROM meta WHERE key = 'identity'").fetchone()
    identity = row["value"] if row else secrets.token_hex(16)
    if not row:
        connection.execute("INSERT INTO meta (key, value) VALUES ('identity', ?)", (identity,))
    if not marker.exists():
        marker.write_text(identity)
    elif marker.read_text().strip() != identity:
        raise DatabaseUnfitError(
            f"{path} is not the database that belongs to this folder; put the right one back,"
            f" or remove {marker.name} to accept it."
        )
