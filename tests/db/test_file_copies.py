"""Copies of a database in use: complete in one file, recognised, and checked for faults."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from db import meta
from db.database import connect
from db.file_copies import copy_database, faults_of, is_ours, move_log_into_file, open_existing
from db.opening import open_database
from tests.support.ledgers import funded


async def _database(folder: Path) -> Path:
    async with open_database(folder):
        pass
    return folder / "bot.sqlite3"


def test_nothing_is_created_by_looking(tmp_path: Path) -> None:
    """A mistyped path stays an error, not an empty database."""
    with pytest.raises(sqlite3.OperationalError):
        open_existing(tmp_path / "nothing.sqlite3")
    with pytest.raises(sqlite3.OperationalError):
        is_ours(tmp_path / "nothing.sqlite3")
    assert list(tmp_path.iterdir()) == []


async def test_only_the_bots_own_files_are_ours(tmp_path: Path) -> None:
    """Another program's database, and a file that is none, are told apart from the bot's."""
    other = tmp_path / "other.sqlite3"
    with closing(sqlite3.connect(other)) as connection:
        connection.execute("CREATE TABLE theirs (x)")
    assert is_ours(await _database(tmp_path))
    assert not is_ours(other)
    other.write_bytes(b"not a database, " * 1000)
    with pytest.raises(sqlite3.DatabaseError):
        is_ours(other)


async def test_a_copy_is_complete_without_its_log(tmp_path: Path) -> None:
    """What is only in the write-ahead log of a database in use is in the copy, which is one file."""
    path, copy = await _database(tmp_path), tmp_path / "copy.sqlite3"
    with closing(connect(path)) as connection:
        meta.set_value(connection, key="greeting", value="hello")
        copy_database(path, copy)
        assert path.with_name("bot.sqlite3-wal").stat().st_size > 0
    assert not copy.with_name("copy.sqlite3-wal").exists()
    with closing(connect(copy, read_only=True)) as copied:
        assert meta.get_value(copied, "greeting") == "hello"
        assert faults_of(copied) == []


async def test_a_log_is_moved_into_its_file(tmp_path: Path) -> None:
    """A file that a crash left with a log can be renamed alone afterwards."""
    path = await _database(tmp_path)
    with closing(connect(path)) as connection:
        meta.set_value(connection, key="greeting", value="hello")
        move_log_into_file(path)
        assert path.with_name("bot.sqlite3-wal").stat().st_size == 0


async def test_faults_of_every_kind_are_named(tmp_path: Path) -> None:
    """Missing rows come before an inconsistent ledger: that check could not trust what is not there."""
    path = await _database(tmp_path)
    with closing(connect(path)) as connection:
        funded(connection, 10)
        connection.execute("UPDATE account SET posted = 11 WHERE user_id = 7")
        assert any("member 7" in fault for fault in faults_of(connection))
        connection.execute("PRAGMA foreign_keys = OFF")
        connection.execute("INSERT INTO result VALUES (5, 0, 5, 'b', 64, 64)")
        assert faults_of(connection) == ["row 1 of result refers to a missing row"]
