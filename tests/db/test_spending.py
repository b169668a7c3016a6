"""What each day's jobs have cost, counted by the schema's triggers."""

import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from db import jobs, ledger, spending
from tests.support.bank import a_new_job
from tests.support.ledgers import funded, hold, open_ledger

TODAY = 20_000


@pytest.fixture
def tx(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """Yield a new database in which member 7 has credits in server 1."""
    with open_ledger(tmp_path) as connection:
        funded(connection, 100)
        yield connection
        assert not [fault for fault in ledger.reconcile(connection) if "Spending" in fault]


def _hold(tx: sqlite3.Connection, job_id: int, amount: int, *, guild_id: int = 1, day: int = TODAY) -> None:
    jobs.insert(tx, replace(a_new_job(job_id, price=amount, guild_id=guild_id), day=day))
    hold(tx, amount, transfer_id=f"job:{job_id}", job_id=job_id)


def _spent(tx: sqlite3.Connection, guild_id: int = 0, day: int = TODAY) -> int:
    return spending.spent(tx, day=day, guild_id=guild_id)


def test_a_hold_counts_from_the_start(tx: sqlite3.Connection) -> None:
    """Jobs that wait count against a day's cap, so that those that race for it never exceed it."""
    assert _spent(tx) == 0
    _hold(tx, 1, 8)
    assert (_spent(tx, 1), _spent(tx, 2), _spent(tx)) == (8, 0, 8)


@pytest.mark.parametrize(("charged", "left"), [(8, 8), (3, 3), (None, 0)])
def test_what_was_not_charged_is_free_again(tx: sqlite3.Connection, charged: int | None, left: int) -> None:
    """A cheaper job counts as what it cost, a failed one as nothing."""
    _hold(tx, 1, 8)
    if charged is None:
        ledger.void(tx, transfer_id="job:1", now=1)
    else:
        ledger.post(tx, transfer_id="job:1", charged=charged, now=1)
    assert (_spent(tx, 1), _spent(tx)) == (left, left)


def test_servers_count_apart_and_together(tx: sqlite3.Connection) -> None:
    """Each server has its own count, and all of them make up the bot's."""
    _hold(tx, 1, 8)
    _hold(tx, 2, 5, guild_id=2)
    assert (_spent(tx, 1), _spent(tx, 2), _spent(tx)) == (8, 5, 13)


def test_a_job_counts_on_the_day_that_it_was_accepted(tx: sqlite3.Connection) -> None:
    """A job that is settled after midnight changes the day before."""
    _hold(tx, 1, 8)
    _hold(tx, 2, 4, day=TODAY + 1)
    ledger.post(tx, transfer_id="job:1", charged=6, now=86_400 * (TODAY + 1))
    assert (_spent(tx), _spent(tx, day=TODAY + 1)) == (6, 4)


def test_what_moderators_move_is_not_spent(tx: sqlite3.Connection) -> None:
    """Grants and gifts make no pictures: they count on no day."""
    funded(tx, 50, user_id=8)
    assert tx.execute("SELECT count(*) FROM spending").fetchone()[0] == 0
