"""Backups: made while the bot runs, verified, restored, and refused if they would do harm."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from hashlib import sha256
from pathlib import Path

import pytest

from bot.errors import OperatorError
from bot.ops.backup import _set_aside, back_up, restore
from bot.pictures.store import PictureStore
from db import jobs, ledger
from db.database import connect
from db.opening import open_database
from tests.support.discord_wire import open_wire
from tests.support.ledgers import a_job
from tests.support.live_bot import Brush, living
from tests.support.promises import check_promises
from tests.support.simulated_server import a_picture

ROOT = Path(__file__).parents[3]
PICTURE = a_picture((64, 64))


async def _with_jobs(folder: Path, *, jobs: int = 3) -> None:
    """Let members make some pictures, then stop the bot."""
    async with open_wire() as wire, living(folder, wire, backends=[Brush()]) as life:
        await wire.until(lambda: wire.online)
        for number in range(jobs):
            await wire.slash(image=a_picture((64 + 16 * number, 64)), prompt=f"number {number}", steps=1)
        await wire.until(lambda: sum(bool(m.files) for m in wire.messages.values()) == jobs)
        await life.settled()


async def test_a_backup_of_a_running_bot_is_complete(tmp_path: Path) -> None:
    """Made repeatedly while members make pictures, each backup has a consistent ledger and all pictures."""
    async with open_wire() as wire, living(tmp_path / "data", wire, backends=[Brush()]) as life:
        await wire.until(lambda: wire.online)
        for number in range(8):
            await wire.slash(image=PICTURE, prompt=f"number {number}", steps=1)
            await asyncio.to_thread(back_up, tmp_path / "data", tmp_path / f"{number}", retention_days=30)
        await life.settled()
    for number in range(8):
        copied = restore(
            tmp_path / f"{number}", tmp_path / f"again-{number}", replace=False, retention_days=30
        )
        async with open_database(tmp_path / f"again-{number}") as db:
            assert await db.read(ledger.reconcile) == []
            count = await db.read(lambda tx: tx.execute("SELECT count(*) FROM job").fetchone()[0])
            assert count == copied.jobs
            wanted = await db.read(lambda tx: jobs.hashes_to_keep(tx, since=0))
        store = PictureStore(tmp_path / f"again-{number}" / "pictures")
        assert all([await store.get(digest) for digest in wanted])


async def test_a_restored_bot_continues_where_the_backup_was_made(tmp_path: Path) -> None:
    """Jobs that were waiting at the backup are finished after the restore, and the ledger is consistent."""
    async with open_wire() as wire:
        brush = Brush(gate=asyncio.Event())
        async with living(tmp_path / "data", wire, backends=[brush]) as life:
            await wire.until(lambda: wire.online)
            await wire.slash(image=PICTURE, prompt="a harbour", steps=1)
            await wire.until(lambda: brush.calls == 1)
            await asyncio.to_thread(back_up, tmp_path / "data", tmp_path / "backup", retention_days=30)
            del life
        restore(tmp_path / "backup", tmp_path / "new", replace=False, retention_days=30)
        async with living(tmp_path / "new", wire, backends=[Brush()]) as life:
            await wire.until(lambda: any(m.files for m in wire.messages.values()))
            await life.settled()
            await check_promises(life.app.db, life.app.store, wire)


async def test_a_second_backup_copies_only_what_is_new(tmp_path: Path) -> None:
    """A second backup to the same folder keeps its pictures and replaces a damaged one."""
    await _with_jobs(tmp_path / "data")
    back_up(tmp_path / "data", tmp_path / "backup", retention_days=30)
    pictures = sorted((tmp_path / "backup" / "pictures").glob("*/*"))
    before = {path: path.stat().st_ino for path in pictures}
    pictures[0].write_bytes(b"damaged")
    back_up(tmp_path / "data", tmp_path / "backup", retention_days=30)
    assert [before[path] == path.stat().st_ino for path in pictures].count(False) == 1
    assert all(sha256(path.read_bytes()).hexdigest() == path.name for path in pictures)


async def test_a_restore_keeps_the_old_database(tmp_path: Path) -> None:
    """Restoring over a database needs --replace, and sets the old one aside."""
    await _with_jobs(tmp_path / "data", jobs=1)
    back_up(tmp_path / "data", tmp_path / "backup", retention_days=30)
    with pytest.raises(OperatorError, match="--replace"):
        restore(tmp_path / "backup", tmp_path / "data", replace=False, retention_days=30)
    restore(tmp_path / "backup", tmp_path / "data", replace=True, retention_days=30)
    assert len(list((tmp_path / "data").glob("before-restore-*/bot.sqlite3"))) == 1
    async with open_database(tmp_path / "data") as db:
        assert await db.read(ledger.reconcile) == []


async def test_a_restore_that_fails_changes_nothing(tmp_path: Path) -> None:
    """If the backup turns out to be damaged, the existing database stays unchanged."""
    await _with_jobs(tmp_path / "data", jobs=1)
    back_up(tmp_path / "data", tmp_path / "backup", retention_days=30)
    for picture in [
        *(tmp_path / "data" / "pictures").glob("*/*"),
        *(tmp_path / "backup" / "pictures").glob("*/*"),
    ]:
        picture.write_bytes(b"damaged")
    before = (tmp_path / "data" / "bot.sqlite3").read_bytes()
    with pytest.raises(OperatorError, match="damaged"):
        restore(tmp_path / "backup", tmp_path / "data", replace=True, retention_days=30)
    assert (tmp_path / "data" / "bot.sqlite3").read_bytes() == before
    assert not list((tmp_path / "data").glob("before-restore-*"))


async def test_setting_aside_keeps_what_was_in_the_log(tmp_path: Path) -> None:
    """A restore that is interrupted before the database is replaced loses none of the old one's commits."""
    old, live = tmp_path / "old", tmp_path / "live"
    old.mkdir()
    async with open_database(live) as db:
        await db.write(a_job)
        for name in ("bot.sqlite3", "bot.sqlite3-wal"):
            (old / name).write_bytes((live / name).read_bytes())
    _set_aside(old)
    assert not (old / "bot.sqlite3-wal").exists()
    with closing(connect(old / "bot.sqlite3", read_only=True)) as connection:
        assert len(jobs.list_unfinished(connection)) == 1


async def test_nothing_is_restored_under_a_running_bot(tmp_path: Path) -> None:
    """An operator who forgot to stop the bot gets an error that says so."""
    await _with_jobs(tmp_path / "data", jobs=1)
    back_up(tmp_path / "data", tmp_path / "backup", retention_days=30)
    async with open_database(tmp_path / "data"):
        with pytest.raises(OperatorError, match="Another bot is running"):
            restore(tmp_path / "backup", tmp_path / "data", replace=True, retention_days=30)


def _falsify_ledger(folder: Path) -> None:
    connection = connect(folder / "bot.sqlite3")
    connection.execute("DROP TRIGGER account_keeps_owner")
    connection.execute("UPDATE account SET posted = posted + 1 WHERE kind = 'mint'")
    connection.close()


def _damage_picture(folder: Path) -> None:
    next((folder / "pictures").glob("*/*")).write_bytes(b"damaged")


def _remove_picture(folder: Path) -> None:
    next((folder / "pictures").glob("*/*")).unlink()


def _other_database(folder: Path) -> None:
    (folder / "bot.sqlite3").unlink()
    connection = sqlite3.connect(folder / "bot.sqlite3")
    connection.execute("CREATE TABLE other (id)")
    connection.close()


@pytest.mark.parametrize(
    ("harm", "sentence"),
    [
        (_falsify_ledger, "ledger is inconsistent"),
        (_damage_picture, "is damaged"),
        (_remove_picture, "is missing"),
        (_other_database, "not this bot's"),
        (lambda folder: (folder / "bot.sqlite3").write_bytes(b"garbage" * 1000), "can't be read"),
        (lambda folder: (folder / "bot.sqlite3").unlink(), "no database"),
    ],
    ids=["ledger", "damaged picture", "lost picture", "foreign", "garbage", "missing"],
)
async def test_a_bad_copy_never_replaces_a_good_one(
    tmp_path: Path, harm: Callable[[Path], None], sentence: str
) -> None:
    """If ledger or pictures turn out to be damaged, the previous backup stays unchanged."""
    await _with_jobs(tmp_path / "data", jobs=1)
    back_up(tmp_path / "data", tmp_path / "backup", retention_days=30)
    before = (tmp_path / "backup" / "bot.sqlite3").read_bytes()
    for picture in (tmp_path / "backup" / "pictures").glob("*/*"):
        picture.unlink()
    harm(tmp_path / "data")
    with pytest.raises(OperatorError, match=sentence):
        back_up(tmp_path / "data", tmp_path / "backup", retention_days=30)
    assert (tmp_path / "backup" / "bot.sqlite3").read_bytes() == before


async def _command(*arguments: str, data: Path) -> tuple[int, str]:
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bot", *arguments),
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "IMG2IMG_DATA_DIR": str(data)},
        cwd=data.parent,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await child.communicate()
    assert child.returncode is not None
    return child.returncode, out.decode()


async def test_backup_and_restore_are_commands(tmp_path: Path) -> None:
    """Both commands answer in one sentence, with exit status 2 for what can't be done."""
    data, backup, new = tmp_path / "data", tmp_path / "backup", tmp_path / "new"
    await _with_jobs(data, jobs=1)
    assert (await _command("backup", str(backup), data=data))[0] == 0
    status, output = await _command("restore", str(backup), data=new)
    assert (status, output.count("\n")) == (0, 1)
    assert "ledger verified: 1 job and 2 pictures" in output
    status, output = await _command("restore", str(backup), data=new)
    assert (status, output.count("\n")) == (2, 1)
    assert "--replace" in output
    status, output = await _command("backup", str(backup), data=tmp_path / "nothing")
    assert status == 2
    assert "There is no database" in output


async def test_a_backup_in_the_bots_own_folder_is_refused(tmp_path: Path) -> None:
    """A backup inside the data folder would be lost together with it."""
    await _with_jobs(tmp_path / "data", jobs=1)
    with pytest.raises(OperatorError, match="another disk"):
        back_up(tmp_path / "data", tmp_path / "data" / "backup", retention_days=30)
