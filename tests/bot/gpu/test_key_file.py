"""The file of keys: made once, opened by many, refused when it is something else."""

from __future__ import annotations

import asyncio
from contextlib import closing
from pathlib import Path

import pytest

from bot.errors import OperatorError
from bot.gpu.key_file import open_keys
from db.database import connect
from db.opening import open_database
from tests.bot.gpu.key_ledger import faults


async def test_many_may_open_a_new_file_at_once(tmp_path: Path) -> None:
    """Servers that start together on a new file all start, and see the same keys."""

    async def spend(name: str) -> None:
        async with open_keys(tmp_path / "new.sqlite") as opened:
            await opened.add(name, credits_given=1)

    await asyncio.gather(*(spend(str(i)) for i in range(8)))
    async with open_keys(tmp_path / "new.sqlite") as opened:
        assert len(await opened.list_all()) == 8


async def test_file_that_is_something_else_is_refused(tmp_path: Path) -> None:
    """A text file, the bot's own database and a folder are each refused in one sentence."""
    (tmp_path / "notes.txt").write_text("not a database, though quite long " * 40)
    async with open_database(tmp_path / "data"):
        pass
    for path in (tmp_path / "notes.txt", tmp_path / "data" / "bot.sqlite3", tmp_path):
        with pytest.raises(OperatorError):
            async with open_keys(path):
                pass


async def test_file_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    """A file written by a newer version is left alone, and the sentence says what to do."""
    path = tmp_path / "keys.sqlite"
    async with open_keys(path):
        pass
    with closing(connect(path)) as database:
        database.execute("PRAGMA user_version = 9999")
    with pytest.raises(OperatorError, match="newer version"):
        async with open_keys(path):
            pass
    assert faults(path) == []
