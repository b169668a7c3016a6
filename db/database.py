"""One SQLite file with one writer and one reader, many units to a commit.

`write` takes a *unit*: a plain function over the connection. Units that wait at
the same time run in one transaction, each in a savepoint of its own, and are
made durable by one commit (group commit): a unit that raises undoes only itself, and
no caller is told of success before the disk has it.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import aiosqlite

T = TypeVar("T")
Unit = Callable[[sqlite3.Connection], T]

UNITS_PER_COMMIT_MAX: Final = 256  # bounds how long the first unit of a batch waits for the others
BUSY_TIMEOUT_MS: Final = 5_000  # a backup or checkpoint of another process may hold the file for a moment
_PRAGMAS: Final = (f"busy_timeout = {BUSY_TIMEOUT_MS}", "foreign_keys = ON")
PRAGMAS_READING: Final = (*_PRAGMAS, "query_only = ON")
#: With `synchronous = NORMAL`, most simulated power cuts lose commits that were acknowledged; with FULL none.
PRAGMAS_WRITING: Final = (*_PRAGMAS, "journal_mode = WAL", "synchronous = FULL")
_DISK_ERRORS: Final = frozenset(
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


class DatabaseUnusable(Exception):
    """The database can't be used; the message is one sentence that says what to do."""


class CommitFailed(Exception):
    """A commit failed: nothing of it is on disk; the message says why."""


class _UnitConnection(aiosqlite.Connection):
    """aiosqlite's connection, which can also run a whole function in its thread.

    aiosqlite offers no public way to do that, and a hop to the thread for each statement would
    make a unit several times slower. A test holds the two internals that this relies on, and
    `pyproject.toml` keeps to the minor version that has them.
    """

    async def run(self, unit: Unit[T]) -> T:
        result: T = await self._execute(lambda: unit(self._conn))  # type: ignore[no-untyped-call]
        return result


@dataclass(slots=True)
class _Waiting:
    unit: Unit[Any]
    done: asyncio.Future[Any]


class Database:
    """The open database. Make it with `open_database`."""

    def __init__(self, writer: _UnitConnection, reader: _UnitConnection) -> None:
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
        `CommitFailed` when the commit itself failed. The unit is not stopped
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
            broken = CommitFailed(f"The database couldn't store a change: {error}")
            for waiting in batch:
                _fail(waiting.done, broken)
            self._report(str(broken))
            if not isinstance(error, Exception):
                raise
            return
        self._is_broken = False
        for waiting, outcome in zip(batch, outcomes, strict=True):
            if isinstance(outcome, _Raised):
                _fail(waiting.done, outcome.error)
            elif not waiting.done.done():
                waiting.done.set_result(outcome)

    def _report(self, sentence: str) -> None:
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
        if not connection.in_transaction or _is_disk_error(error):
            # A full disk or a broken page fails the whole batch: SQLite may have rolled it back already.
            raise
        connection.execute("ROLLBACK TO unit")
        outcome = _Raised(error)
    connection.execute("RELEASE unit")
    return outcome


def _is_disk_error(error: Exception) -> bool:
    """Return whether the disk or the file is at fault, not the statement."""
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF in _DISK_ERRORS


def _connect(path: Path, *, read_only: bool = False) -> _UnitConnection:
    return _UnitConnection(lambda: connect(path, read_only=read_only), iter_chunk_size=64)


def connect(path: Path, *, read_only: bool = False) -> sqlite3.Connection:
    """Return a connection set as the ledger needs it: WAL, every commit fsynced, foreign keys on."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.row_factory = sqlite3.Row
    for pragma in PRAGMAS_READING if read_only else PRAGMAS_WRITING:
        connection.execute(f"PRAGMA {pragma}")
    return connection


@asynccontextmanager
async def open_file(path: Path) -> AsyncIterator[Database]:
    """Open a file that `migrate` has made ready, without a lock: several processes may have it open."""
    writer = _connect(path)
    reader = _connect(path, read_only=True)
    async with writer, reader:
        database = Database(writer, reader)
        try:
            yield database
        finally:
            await database.drain()
