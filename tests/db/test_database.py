"""Units of work: what a commit promises, and what of aiosqlite it stands on."""

import asyncio
import inspect
import re
import sqlite3
import threading
import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import aiosqlite
import pytest

from db.database import CommitFailed
from db.meta import get_value, set_value
from db.opening import open_database

ROOT = Path(__file__).parents[2]


async def test_what_was_written_is_there_after_a_restart(tmp_path: Path) -> None:
    """An operator who restarts the bot finds what was committed."""
    async with open_database(tmp_path) as db:
        await db.write(lambda tx: set_value(tx, key="greeting", value="hello"))
    async with open_database(tmp_path) as db:
        assert await db.read(lambda tx: get_value(tx, "greeting")) == "hello"


async def test_a_failing_unit_undoes_only_itself(tmp_path: Path) -> None:
    """Of many requests committed together, the one that fails takes no other with it."""

    def bad(tx: sqlite3.Connection) -> None:
        set_value(tx, key="bad", value="1")
        raise KeyError("no")

    async with open_database(tmp_path) as db:
        outcomes = await asyncio.gather(
            db.write(lambda tx: set_value(tx, key="one", value="1")),
            db.write(bad),
            db.write(lambda tx: set_value(tx, key="two", value="2")),
            return_exceptions=True,
        )
        assert [type(outcome) for outcome in outcomes] == [type(None), KeyError, type(None)]
        assert await db.read(lambda tx: [get_value(tx, key) for key in ("one", "bad", "two")]) == [
            "1",
            None,
            "2",
        ]


async def test_waiting_units_share_a_commit(tmp_path: Path) -> None:
    """A hundred requests at once cost a few commits, not a hundred."""
    async with open_database(tmp_path) as db:
        commits: list[int] = []
        await db.write(lambda tx: tx.set_trace_callback(lambda sql: commits.append(sql == "COMMIT")))
        await asyncio.gather(
            *(db.write(lambda tx, n=n: set_value(tx, key=f"k{n}", value="v")) for n in range(100))  # type: ignore[misc]  # a default binds n
        )
        assert 1 <= sum(commits) <= 3


async def test_a_commit_that_fails_is_reported_to_everyone_in_it(tmp_path: Path) -> None:
    """No change is reported as stored when the disk did not take it."""

    def breaks_the_transaction(tx: sqlite3.Connection) -> None:
        tx.execute("ROLLBACK")
        raise sqlite3.OperationalError("disk full")

    async with open_database(tmp_path) as db:
        outcomes = await asyncio.gather(
            db.write(lambda tx: set_value(tx, key="one", value="1")),
            db.write(breaks_the_transaction),
            return_exceptions=True,
        )
        assert all(isinstance(outcome, CommitFailed) for outcome in outcomes)
        assert await db.read(lambda tx: get_value(tx, "one")) is None
        await db.write(lambda tx: set_value(tx, key="after", value="1"))


async def test_the_reader_can_not_write(tmp_path: Path) -> None:
    """A slip in a query that only looks can change nothing."""
    async with open_database(tmp_path) as db:
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            await db.read(lambda tx: set_value(tx, key="one", value="1"))


async def test_commits_are_made_durable(tmp_path: Path) -> None:
    """Power may fail after an acknowledged change: WAL with full synchronisation and foreign keys."""
    async with open_database(tmp_path) as db:
        pragmas = await db.write(
            lambda tx: [
                tx.execute(f"PRAGMA {name}").fetchone()[0]
                for name in ("journal_mode", "synchronous", "foreign_keys")
            ]
        )
    assert pragmas == ["wal", 2, 1]


async def test_reads_see_what_is_committed_and_nothing_else(tmp_path: Path) -> None:
    """A reader waits for no writer, and is shown nothing that may still be undone."""
    seen: list[str | None] = []
    async with open_database(tmp_path) as db:
        loop = asyncio.get_running_loop()

        def unit(tx: sqlite3.Connection) -> None:
            set_value(tx, key="one", value="1")
            read = asyncio.run_coroutine_threadsafe(db.read(lambda other: get_value(other, "one")), loop)
            seen.append(read.result(timeout=10))

        await db.write(unit)
        seen.append(await db.read(lambda tx: get_value(tx, "one")))
    assert seen == [None, "1"]


async def test_closing_waits_for_what_was_handed_in(tmp_path: Path) -> None:
    """A change whose caller was cancelled is committed all the same before the file is closed."""
    async with open_database(tmp_path) as db:
        task = asyncio.create_task(db.write(lambda tx: set_value(tx, key="one", value="1")))
        await asyncio.sleep(0)
        task.cancel()
    async with open_database(tmp_path) as db:
        assert await db.read(lambda tx: get_value(tx, "one")) == "1"


async def test_a_broken_disk_is_reported_once_until_it_works(tmp_path: Path) -> None:
    """The operator gets one message for an outage of the disk, however many changes it refuses."""
    reports: list[str] = []
    async with open_database(tmp_path) as db:
        db.on_broken = reports.append
        for outage in range(2):
            for _ in range(3):
                with pytest.raises(CommitFailed, match="couldn't store a change"):
                    await db.write(_fails_on_disk)
            assert len(reports) == outage + 1
            await db.write(lambda tx: set_value(tx, key="one", value="1"))


def _fails_on_disk(tx: sqlite3.Connection) -> None:
    tx.execute("PRAGMA query_only = ON")
    try:
        set_value(tx, key="two", value="2")
    finally:
        tx.execute("PRAGMA query_only = OFF")


async def test_a_unit_is_one_hop_to_aiosqlites_thread(tmp_path: Path) -> None:
    """`Database` runs a whole unit through two private members of aiosqlite, for want of a public way.

    With its public methods each statement would be a hop to the connection's thread and back, which
    makes a unit several times slower. Another minor version may rename or change both members, so
    that the installed one must be the one that pyproject.toml names.
    """
    pinned = _requirement("aiosqlite")
    low, high = re.findall(r"\d+\.\d+", pinned)
    assert version("aiosqlite").split(".")[:2] == low.split("."), f"{pinned} has to be installed"
    assert [int(part) for part in high.split(".")] == [0, int(low.split(".")[1]) + 1]
    async with open_database(tmp_path) as db:
        connection = db._writer
        assert inspect.iscoroutinefunction(aiosqlite.Connection._execute)
        assert isinstance(connection._conn, sqlite3.Connection)
        hops = _count_hops(connection)
        threads = await connection.run(lambda tx: {_thread_of_a_statement(tx) for _ in range(100)})
        assert len(hops) == 1
    assert len(threads) == 1
    assert threads != {threading.get_ident()}


def _requirement(name: str) -> str:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    (found,) = [line for line in project["dependencies"] if re.match(rf"{name}\b", line)]
    return str(found)


def _count_hops(connection: aiosqlite.Connection) -> list[object]:
    """Collect what is handed to the connection's thread from now on."""
    hops: list[object] = []
    inner = connection._tx

    class Counted:
        def put_nowait(self, item: Any) -> None:
            hops.append(item)
            inner.put_nowait(item)

    connection._tx = Counted()  # type: ignore[assignment]  # all that `_execute` uses of a queue
    return hops


def _thread_of_a_statement(tx: sqlite3.Connection) -> int:
    tx.execute("SELECT 1").fetchone()
    return threading.get_ident()
