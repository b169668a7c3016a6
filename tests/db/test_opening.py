"""Opening a folder's database: who is kept out, and which files are refused."""

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from db import meta
from db.database import DatabaseUnusable, connect
from db.opening import APPLICATION_ID, FolderLock, open_database


async def test_a_new_folder_is_private_and_gets_a_database(tmp_path: Path) -> None:
    """The first start creates folder, database and identity, readable by the bot's own user alone."""
    folder = tmp_path / "deep" / "data"
    async with open_database(folder) as db:
        identity = await db.read(lambda tx: meta.get_value(tx, "identity"))
        application_id = await db.read(lambda tx: tx.execute("PRAGMA application_id").fetchone()[0])
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / "identity").read_text() == identity
    assert application_id == APPLICATION_ID


async def test_a_removed_marker_accepts_the_database_that_is_there(tmp_path: Path) -> None:
    """An operator who removes the marker, as the refusal says, goes on with the database in the folder."""
    async with open_database(tmp_path) as db:
        await db.write(lambda tx: meta.set_value(tx, key="greeting", value="hello"))
    (tmp_path / "identity").unlink()
    async with open_database(tmp_path) as db:
        assert await db.read(lambda tx: meta.get_value(tx, "greeting")) == "hello"
    assert (tmp_path / "identity").exists()


def test_a_lock_that_can_not_be_written_says_what_to_check(tmp_path: Path) -> None:
    """A folder of another user is refused in one sentence."""
    (tmp_path / "lock").mkdir()
    with (
        pytest.raises(DatabaseUnusable, match=r"can't be written .*; check its owner and the disk"),
        FolderLock(tmp_path / "lock"),
    ):
        pass


async def test_a_lock_ends_with_an_error(tmp_path: Path) -> None:
    """A start that fails leaves the folder to the next one."""
    (tmp_path / "bot.sqlite3").write_bytes(b"not a database, " * 1000)
    for _ in range(2):
        with pytest.raises(DatabaseUnusable, match="can't be read"):
            async with open_database(tmp_path):
                pass


async def test_a_second_bot_is_kept_out(tmp_path: Path) -> None:
    """An operator who starts the bot twice gets a clear error, and one process alone uses the ledger."""
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
