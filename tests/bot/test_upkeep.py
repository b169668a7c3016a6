"""The hourly upkeep: the ledger is checked, old pictures are removed, and nothing ends the round."""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import AsyncIterator, Container
from pathlib import Path

import pytest

from bot.clock import DAY_S
from bot.errors import OperatorError
from bot.jobs.service import PauseReason
from bot.pictures.store import PictureStore
from bot.upkeep import INTERVAL_S
from db.database import Database, T, Unit
from db.jobs import Job
from tests.support.clock import HandClock, SteppedClock
from tests.support.live_bot import eventually
from tests.support.workshop import ALICE, Workshop, open_workshop

CONSISTENT = "The ledger is consistent"
PROBLEM = PauseReason.LEDGER_INCONSISTENT.value


@pytest.fixture
async def shop(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Workshop]:
    """Yield a workshop in which a picture was made, and log everything."""
    caplog.set_level(logging.INFO)
    async with open_workshop(tmp_path) as opened:
        await opened.made()
        caplog.clear()
        yield opened


async def _spend(shop: Workshop, amount: int, *guild_ids: int) -> None:
    """Falsify the day's spending of as many servers, one fault each."""

    def unit(tx: sqlite3.Connection) -> None:
        for guild_id in guild_ids:
            tx.execute("UPDATE spending SET amount = ? WHERE guild_id = ?", (amount, guild_id))

    await shop.app.db.write(unit)


async def test_a_consistent_ledger_is_logged_and_changes_nothing(
    shop: Workshop, caplog: pytest.LogCaptureFixture
) -> None:
    """An operator who reads the log sees that the check ran and found nothing."""
    assert await shop.app.upkeep.check_ledger() == []
    assert CONSISTENT in caplog.text
    assert (shop.app.jobs.pause_reason, shop.alerts) == (None, [])


@pytest.mark.parametrize(
    ("faults", "more"),
    [(1, ""), (2, " There is 1 more fault."), (4, " There are 3 more faults.")],
)
async def test_an_inconsistent_ledger_stops_spending_and_is_reported(
    shop: Workshop, caplog: pytest.LogCaptureFixture, faults: int, more: str
) -> None:
    """The operator reads the first fault and how many more there are, as an error, and jobs are paused."""
    await _spend(shop, 99, *range(min(faults, 2)))
    if faults > 2:
        # Two faults: the account's, and that of the sum of all.
        await shop.app.db.write(
            lambda tx: tx.execute("UPDATE account SET posted = 99 WHERE kind = 'provider'")
        )
    found = await shop.app.upkeep.check_ledger()
    assert len(found) == faults
    assert shop.alerts == [f"{PROBLEM} {found[0]}{more}"]
    assert [(r.levelname, r.message) for r in caplog.records] == [("ERROR", shop.alerts[0])]
    assert shop.app.jobs.pause_reason is PauseReason.LEDGER_INCONSISTENT


async def test_a_database_that_can_not_be_read_is_a_fault(
    shop: Workshop, caplog: pytest.LogCaptureFixture
) -> None:
    """A damaged page found by the check stops spending like an inconsistent ledger."""

    class Damaged(Database):
        def __init__(self) -> None: ...

        async def read(self, unit: Unit[T]) -> T:
            del unit
            raise sqlite3.DatabaseError("database disk image is malformed")

    shop.app.upkeep._db = Damaged()
    (fault,) = await shop.app.upkeep.check_ledger()
    assert fault == (
        "The database can't be read (database disk image is malformed); restore it from a backup."
    )
    assert shop.alerts == [f"{PROBLEM} {fault}"]
    assert CONSISTENT not in caplog.text


async def test_a_ledger_that_is_consistent_again_lets_jobs_go_on(shop: Workshop) -> None:
    """Once the operator has fixed the ledger, jobs are accepted again without a restart."""
    await _spend(shop, 99, 1)
    await shop.app.upkeep.check_ledger()
    shop.app.jobs.pause(PauseReason.RESTARTING)
    await _spend(shop, 2, 1)
    assert await shop.app.upkeep.check_ledger() == []
    assert shop.app.jobs.pause_reason is PauseReason.RESTARTING
    shop.app.jobs.resume(PauseReason.RESTARTING)
    assert (await shop.made()).state == "rendered"


async def _delivered(shop: Workshop) -> Job:
    job = await shop.made()
    await shop.app.job_records.mark_delivered(job.id)
    return job


async def test_pictures_past_their_retention_are_removed(tmp_path: Path) -> None:
    """Old and deleted pictures go; those of recent jobs, and what was stored within a day, stay."""
    clock = HandClock(time.time())
    async with open_workshop(tmp_path, clock=clock, retention_days=30) as shop:
        job = await _delivered(shop)
        view = await shop.app.job_records.view(job.id, guild_id=1)
        (result,) = view.results
        unused = await shop.app.store.put(b"stored a moment before its job")
        assert await shop.app.upkeep.remove_old_pictures() == 0
        clock.time += DAY_S + 60
        assert await shop.app.upkeep.remove_old_pictures() == 1
        assert await shop.app.store.delete(unused) is False
        clock.time += 29 * DAY_S
        pictures = {job.input_hash, result.hash}
        assert await shop.app.upkeep.remove_old_pictures() == len(pictures)


async def test_deleted_pictures_are_removed_with_the_next_clean_up(tmp_path: Path) -> None:
    """A member who deletes a picture does not have it on the bot's disk for another month."""
    clock = HandClock(time.time())
    async with open_workshop(tmp_path, clock=clock) as shop:
        job = await _delivered(shop)
        await shop.app.jobs.delete(ALICE, job.id)
        clock.time += DAY_S + 60
        assert await shop.app.upkeep.remove_old_pictures() > 0


class CountedStore(PictureStore):
    """A store whose first sweep fails."""

    sweeps = 0

    async def sweep(self, *, keep: Container[str], older_than_s: float, now: float) -> int:
        """Fail once, then sweep."""
        self.sweeps += 1
        if self.sweeps == 1:
            raise OperatorError("The disk can't be read.")
        return await super().sweep(keep=keep, older_than_s=older_than_s, now=now)


async def test_every_hour_everything_is_done_whatever_fails(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A sweep that fails is logged and tried again an hour later, and the ledger is checked meanwhile."""
    caplog.set_level(logging.INFO)
    clock, stores = SteppedClock(), list[CountedStore]()

    def wrap(store: PictureStore) -> PictureStore:
        stores.append(CountedStore(store._root))
        return stores[0]

    async with open_workshop(tmp_path, clock=clock, wrap_store=wrap) as shop:
        await shop.made()
        shop.app.upkeep.start()
        await eventually(lambda: clock.sleeping)
        assert "Removing old pictures failed; it will be retried in an hour" in caplog.text
        await _spend(shop, 99, 1)
        await clock.advance(INTERVAL_S)
        await eventually(lambda: stores[0].sweeps == 2 and clock.sleeping)
        assert {shop.app.jobs.pause_reason} == {PauseReason.LEDGER_INCONSISTENT}
        assert len(shop.alerts) == 1
        assert "Removed 0 old pictures" in caplog.text
        await _spend(shop, 2, 1)
        await clock.advance(INTERVAL_S)
        await eventually(lambda: stores[0].sweeps == 3 and clock.sleeping)
        assert {shop.app.jobs.pause_reason} == {None}
        assert len(shop.alerts) == 1


async def test_starting_again_starts_nothing_twice(tmp_path: Path) -> None:
    """A client that reconnects starts no second round; a stop ends the one there is."""
    clock, stores = SteppedClock(), list[CountedStore]()

    def wrap(store: PictureStore) -> PictureStore:
        stores.append(CountedStore(store._root))
        return stores[0]

    async with open_workshop(tmp_path, clock=clock, wrap_store=wrap) as shop:
        for _ in range(3):
            shop.app.upkeep.start()
        await eventually(lambda: clock.sleeping)
        assert (stores[0].sweeps, clock.sleeping) == (1, 1)
        await clock.advance(INTERVAL_S)
        await eventually(lambda: stores[0].sweeps == 2 and clock.sleeping)
        await shop.app.upkeep.aclose()
        await clock.advance(3 * INTERVAL_S)
        assert stores[0].sweeps == 2
