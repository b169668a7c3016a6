"""The power goes at any write: what was acknowledged is there afterwards, and the ledger is consistent."""

from __future__ import annotations

import random
import sqlite3
import time
from contextlib import closing, suppress
from pathlib import Path

import apsw
import pytest

from db import jobs, ledger
from db.database import PRAGMAS_WRITING, connect, run_batch
from db.jobs import Result
from db.migrate import apply_migration, migrations
from tests.support.ledgers import a_job, funded, hold
from tests.support.power_cut import Disk, DiskDatabase, PowerCut

CUTS = 300
JOBS = 12
WRITE_AHEAD_PAGES = (4, 30, 1000)


def _accept(tx: sqlite3.Connection, job_id: int) -> None:
    a_job(tx, job_id)
    hold(tx, 2, transfer_id=f"job:{job_id}", job_id=job_id)


def _finish(tx: sqlite3.Connection, job_id: int) -> None:
    jobs.mark_sending(tx, job_id=job_id, backend="brush", now=1)
    ledger.post(tx, transfer_id=f"job:{job_id}", charged=2, now=2)
    picture = Result(job_id, 0, 1, "b" * 64, 8, 8)
    assert jobs.mark_rendered(tx, job_id=job_id, pictures=(picture,), charged=2, now=2)


def _work(folder: Path, disk: Disk, pragmas: tuple[str, ...], *, pages: int) -> list[int]:
    """Do some members' business until the power goes; return the jobs whose end was acknowledged."""
    folder.mkdir()
    acknowledged: list[int] = []
    database: DiskDatabase | None = None
    # apsw hands on what its file system raises; some of it SQLite words itself.
    with suppress(PowerCut, apsw.Error):
        database = DiskDatabase(folder / "bot.sqlite3", disk, (*pragmas, f"wal_autocheckpoint = {pages}"))
        for number, sql in migrations():
            apply_migration(database.tx, number, sql)
        run_batch(database.tx, [lambda tx: funded(tx, 1_000)])
        for job_id in range(1, JOBS + 1):
            run_batch(database.tx, [lambda tx, n=job_id: _accept(tx, n)])  # type: ignore[misc]  # a default binds n
            run_batch(database.tx, [lambda tx, n=job_id: _finish(tx, n)])  # type: ignore[misc]  # likewise
            acknowledged.append(job_id)
    if database is not None:
        with suppress(PowerCut, apsw.Error):
            database.close()
    return acknowledged


def _survived(folder: Path, acknowledged: list[int]) -> bool:
    """Return whether what was acknowledged is there; the ledger must be consistent in any case."""
    if not acknowledged:
        return True
    with closing(connect(folder / "bot.sqlite3")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'account'").fetchone():
            return False
        assert ledger.reconcile(connection) == []
        rendered = {row[0] for row in connection.execute("SELECT id FROM job WHERE state = 'rendered'")}
    return rendered >= set(acknowledged)


def _cut(folder: Path, rng: random.Random, pragmas: tuple[str, ...]) -> bool:
    """Cut the power at a random write; return whether all that was acknowledged survived."""
    pages = rng.choice(WRITE_AHEAD_PAGES)
    whole = Disk()
    _work(folder / "whole", whole, pragmas, pages=pages)
    disk = Disk(cut_after=rng.randrange(whole.operations))
    acknowledged = _work(folder / "cut", disk, pragmas, pages=pages)
    disk.leave(folder / "after", rng)
    return _survived(folder / "after", acknowledged)


def _lost(folder: Path, pragmas: tuple[str, ...], *, cuts: int) -> int:
    seed = random.SystemRandom().randrange(1 << 32)
    rng = random.Random(seed)
    began = time.perf_counter()
    lost = 0
    for number in range(cuts):
        (folder / f"{number}").mkdir()
        lost += not _cut(folder / f"{number}", rng, pragmas)
    took_s = time.perf_counter() - began
    print(f"\n{lost} of {cuts} power cuts lost a commit ({pragmas[-1]}; seed {seed}); {took_s:.0f} s")
    return lost


@pytest.mark.timeout(300)
def test_no_power_cut_loses_what_was_acknowledged(tmp_path: Path) -> None:
    """Whenever the power goes, no picture that was paid for and no payment is lost."""
    assert _lost(tmp_path, PRAGMAS_WRITING, cuts=CUTS) == 0


def test_the_disk_does_lose_what_is_not_synced(tmp_path: Path) -> None:
    """The simulated disk is a bad one: without full synchronisation commits do get lost on it."""
    lax = tuple(p.replace("FULL", "NORMAL") for p in PRAGMAS_WRITING)
    assert _lost(tmp_path, lax, cuts=30) > 0
