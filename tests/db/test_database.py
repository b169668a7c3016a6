"""The database file: who may open it, what a commit promises."""

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from db.database import CommitFailed, DatabaseUnusable, connect
from db.meta import get_value, set_value
from db.migrate import apply_migration, migrations
from db.opening import open_database


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


async def test_a_commit_that_fails_tells_everyone_in_it(tmp_path: Path) -> None:
    """Nobody is told that a change is stored when the disk did not take it."""

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


async def test_a_second_bot_is_kept_out(tmp_path: Path) -> None:
    """An operator who starts the bot twice is told, and the books stay one process's."""
    async with open_database(tmp_path):
        with pytest.raises(DatabaseUnusable, match="Another bot is running"):
            async with open_database(tmp_path):
                pass
    async with open_database(tmp_path):
        pass


def _foreign(path: Path) -> None:
    path.unlink()
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE theirs (x)")
    other.commit()
    other.close()


def _newer(path: Path) -> None:
    ours = connect(path)
    ours.execute("PRAGMA user_version = 9999")
    ours.close()


def _other_identity(path: Path) -> None:
    ours = connect(path)
    ours.execute("UPDATE meta SET value = 'another' WHERE key = 'identity'")
    ours.close()


@pytest.mark.parametrize(
    ("harm", "sentence"),
    [
        (lambda path: path.unlink(), "missing or empty"),
        (lambda path: path.write_bytes(b""), "missing or empty"),
        (lambda path: path.write_bytes(b"not a database, " * 1000), "can't be read"),
        (_foreign, "not this bot's"),
        (_newer, "newer version"),
        (_other_identity, "belongs to this folder"),
    ],
    ids=["missing", "empty", "not sqlite", "foreign", "newer", "swapped"],
)
async def test_a_surprising_file_is_refused(
    tmp_path: Path, harm: Callable[[Path], object], sentence: str
) -> None:
    """The bot does not start on a file that is not its own, and says what to do."""
    async with open_database(tmp_path):
        pass
    harm(tmp_path / "bot.sqlite3")
    with pytest.raises(DatabaseUnusable, match=sentence):
        async with open_database(tmp_path):
            pass


def test_a_migration_and_its_version_stand_or_fall_together(tmp_path: Path) -> None:
    """An update cut off in the middle leaves the database as it was."""
    ours = connect(tmp_path / "db")
    with pytest.raises(sqlite3.OperationalError):
        apply_migration(ours, 1, "CREATE TABLE one (x); CREATE TABLE one (x);")
    assert ours.execute("PRAGMA user_version").fetchone()[0] == 0
    assert ours.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0] == 0
    ours.close()


def test_migrations_count_from_one() -> None:
    """No update is skipped or applied twice."""
    versions = [version for version, _ in migrations()]
    assert versions == list(range(1, len(versions) + 1))
