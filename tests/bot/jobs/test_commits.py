"""Commits that wait for the disk."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest

from bot.jobs.commits import DISK_WAIT_S_MAX, commit
from db import meta
from db.opening import open_database
from tests.support.clock import HandClock, SteppedClock
from tests.support.live_bot import eventually
from tests.support.workshop import FullDisk


def _store(tx: sqlite3.Connection) -> str:
    meta.set_value(tx, key="greeting", value="hello")
    return "stored"


@pytest.mark.parametrize(("refusals", "waited_s"), [(0, 0), (1, 1), (3, 7), (8, 183)])
async def test_a_refused_commit_is_repeated_after_growing_waits(
    tmp_path: Path, refusals: int, waited_s: float
) -> None:
    """However often the disk refuses, the change is made in the end, and no wait is over a minute."""
    clock = HandClock(0.0)
    async with open_database(tmp_path) as db:
        disk = FullDisk(db)
        disk.refusals = refusals
        assert await commit(disk, clock, _store) == "stored"
        assert clock.time == waited_s
        assert await db.read(lambda tx: meta.get_value(tx, "greeting")) == "hello"


async def test_an_error_of_the_change_itself_is_raised_at_once(tmp_path: Path) -> None:
    """What no wait would help is not repeated."""
    clock = HandClock(0.0)

    def fails(tx: sqlite3.Connection) -> None:
        _store(tx)
        raise LookupError

    async with open_database(tmp_path) as db:
        with pytest.raises(LookupError):
            await commit(db, clock, fails)
        assert clock.time == 0
        assert await db.read(lambda tx: meta.get_value(tx, "greeting")) is None


async def test_a_stop_ends_the_wait(tmp_path: Path) -> None:
    """A bot that is stopped while its disk is full does not hang; what was not recorded is resumed."""
    clock = SteppedClock()
    async with open_database(tmp_path) as db:
        disk = FullDisk(db)
        disk.refusals = 1_000
        task = asyncio.create_task(commit(disk, clock, _store))
        await eventually(lambda: clock.sleeping)
        await clock.advance(3 * DISK_WAIT_S_MAX)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
