"""The ledger: what can't happen to credits, because the schema refuses it."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from db import ledger
from tests.support.ledgers import funded, hold, open_ledger


@pytest.fixture
def tx(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """Yield a new ledger, which must be consistent whatever the test did."""
    with open_ledger(tmp_path) as connection:
        yield connection
        assert ledger.reconcile(connection) == []


def member(tx: sqlite3.Connection) -> ledger.Account:
    """Return the member's account as it is now."""
    return ledger.get_or_create_account(tx, kind="user", guild_id=1, user_id=7)


def test_a_hold_sets_credits_aside(tx: sqlite3.Connection) -> None:
    """Credits on hold are still the member's, but can't be spent twice."""
    funded(tx, 10)
    hold(tx, 4)
    assert (member(tx).posted, member(tx).held, member(tx).available) == (10, 4, 6)


def test_posting_moves_what_was_charged(tx: sqlite3.Connection) -> None:
    """A job that came out cheaper costs only what it came to; the rest is free again."""
    funded(tx, 10)
    hold(tx, 4)
    ledger.post(tx, transfer_id="job:1", charged=3, now=1)
    assert (member(tx).posted, member(tx).held) == (7, 0)
    assert ledger.get_or_create_account(tx, kind="provider").posted == 3


def test_voiding_gives_everything_back(tx: sqlite3.Connection) -> None:
    """A job that failed costs nothing."""
    funded(tx, 10)
    hold(tx, 4)
    ledger.void(tx, transfer_id="job:1", now=1)
    assert (member(tx).posted, member(tx).held) == (10, 0)


def test_nobody_spends_credits_that_they_do_not_have(tx: sqlite3.Connection) -> None:
    """A hold beyond what is available is refused and changes nothing."""
    funded(tx, 10)
    hold(tx, 8)
    with pytest.raises(ledger.InsufficientCredits):
        hold(tx, 3, transfer_id="job:2")
    assert member(tx).available == 2


def test_a_frozen_account_neither_gives_nor_takes(tx: sqlite3.Connection) -> None:
    """A frozen member's credits stay where they are."""
    account = funded(tx, 10)
    tx.execute("UPDATE account SET frozen = 1 WHERE id = ?", (account.id,))
    with pytest.raises(ledger.AccountFrozen):
        hold(tx, 1)


@pytest.mark.parametrize("first", ["post", "void"])
@pytest.mark.parametrize("second", ["post", "void"])
def test_a_transfer_is_settled_once(tx: sqlite3.Connection, first: str, second: str) -> None:
    """Neither a refund after paying nor paying twice can happen."""
    funded(tx, 10)
    hold(tx, 4)
    _settle(tx, first)
    with pytest.raises(sqlite3.IntegrityError, match="final"):
        _settle(tx, second)


def _settle(tx: sqlite3.Connection, how: str) -> None:
    if how == "post":
        ledger.post(tx, transfer_id="job:1", charged=4, now=1)
    else:
        ledger.void(tx, transfer_id="job:1", now=1)


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM transfer",
        "DELETE FROM account",
        "UPDATE transfer SET amount = 1 WHERE id = 'job:1'",
        "UPDATE transfer SET src = dst, state = 'voided', settled_at = 1 WHERE id = 'job:1'",
        "UPDATE transfer SET job_id = 1, state = 'voided', settled_at = 1 WHERE id = 'job:1'",
        "UPDATE transfer SET state = 'posted', charged = 5, settled_at = 1 WHERE id = 'job:1'",
        "UPDATE transfer SET state = 'posted', charged = 0, settled_at = 1 WHERE id = 'job:1'",
        "UPDATE transfer SET state = 'posted', charged = 4 WHERE id = 'job:1'",
        "UPDATE transfer SET state = 'pending' WHERE id = 'job:1'",
        "INSERT OR REPLACE INTO transfer SELECT * FROM transfer WHERE id = 'job:1'",
        "INSERT OR REPLACE INTO account SELECT * FROM account",
        "INSERT INTO transfer SELECT 'new', src, dst, amount, 4, 'posted', NULL, 0, '', 0, 1 FROM transfer",
        "INSERT INTO transfer SELECT 'new', src, dst, 0, NULL, 'pending', NULL, 0, '', 0, NULL FROM transfer",
        "INSERT INTO transfer SELECT 'new', src, src, 1, NULL, 'pending', NULL, 0, '', 0, NULL FROM transfer",
        "INSERT INTO account (kind, guild_id, user_id, posted) VALUES ('user', 5, 5, 100)",
        "UPDATE account SET user_id = 8 WHERE user_id = 7",
        "UPDATE account SET held = held - 100 WHERE user_id = 7",
    ],
)
def test_the_schema_refuses_what_would_falsify_the_ledger(tx: sqlite3.Connection, sql: str) -> None:
    """Whatever bug the program has, money can't appear, vanish or change its past."""
    funded(tx, 10)
    hold(tx, 4)
    with pytest.raises(sqlite3.IntegrityError):
        tx.execute(sql)


def test_a_balance_changed_by_hand_is_found(tmp_path: Path) -> None:
    """An operator who edits a balance behind the ledger's back is shown which one is wrong."""
    with open_ledger(tmp_path) as tx:
        funded(tx, 10)
        tx.execute("UPDATE account SET posted = posted + 5 WHERE user_id = 7")
        faults = ledger.reconcile(tx)
    assert any("not to zero" in fault for fault in faults)
    assert any("member 7" in fault for fault in faults)
