"""The daily allowance, step by step within one transaction.

What members see of it is in `test_service.py`.
"""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from bot.actors import Person
from bot.clock import DAY_S, utc_day
from bot.credits.allowance import DailyAllowance
from bot.credits.limits import Ceilings, Limits
from db import guilds, ledger, members
from db.guilds import RoleRule
from db.ledger import NewTransfer
from tests.support.bank import ALICE, DAILY_ALLOWANCE
from tests.support.clock import HandClock
from tests.support.ledgers import open_ledger

CLOCK_START = 20_000 * DAY_S + 12 * 3_600


@pytest.fixture
def clock() -> HandClock:
    """Return a clock at noon."""
    return HandClock(CLOCK_START)


@pytest.fixture
def allowance(clock: HandClock) -> DailyAllowance:
    """Return the bot's default allowance."""
    limits = Limits(clock=clock, daily_allowance=DAILY_ALLOWANCE, ceilings=Ceilings(allowance_max=500))
    return DailyAllowance(clock=clock, limits=limits)


@pytest.fixture
def tx(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """Yield a new ledger, which must be consistent whatever the test did."""
    with open_ledger(tmp_path) as connection:
        yield connection
        assert ledger.reconcile(connection) == []


def _available(tx: sqlite3.Connection, allowance: DailyAllowance, who: Person = ALICE) -> int:
    """Bring the member's allowance to today; return what is left of it."""
    return allowance.refresh(tx, who, day=allowance.advance_to_today(tx)).available


def _transfer(tx: sqlite3.Connection, amount: int, name: str) -> NewTransfer:
    account = ledger.get_or_create_account(tx, kind="allowance", guild_id=1, user_id=7)
    provider = ledger.get_or_create_account(tx, kind="provider")
    return NewTransfer(name, account.id, provider.id, amount, 7, "test", 0)


def _spend(tx: sqlite3.Connection, amount: int, name: str = "spent") -> None:
    ledger.move(tx, _transfer(tx, amount, name))


def _set_default(tx: sqlite3.Connection, amount: int) -> None:
    guilds.change_setting(tx, guild_id=1, name="allowance", value=amount)


def _transfers(tx: sqlite3.Connection) -> int:
    return int(tx.execute("SELECT count(*) FROM transfer").fetchone()[0])


def test_the_day_that_counts_is_stored_and_never_goes_back(
    tx: sqlite3.Connection, allowance: DailyAllowance, clock: HandClock
) -> None:
    """A clock that was set back gives no second allowance for a day that was given already."""
    days = []
    for shift_days in (0, 1, -3, 2):
        clock.time = CLOCK_START + shift_days * DAY_S
        days.append(allowance.advance_to_today(tx))
    today = utc_day(CLOCK_START)
    assert days == [today, today + 1, today + 1, today + 2]


def test_refreshing_again_moves_nothing(tx: sqlite3.Connection, allowance: DailyAllowance) -> None:
    """Looking at a wallet ten times leaves one transfer from the mint."""
    assert {_available(tx, allowance) for _ in range(10)} == {DAILY_ALLOWANCE}
    assert _transfers(tx) == 1
    mint = ledger.get_or_create_account(tx, kind="mint")
    assert (mint.posted, mint.held) == (-DAILY_ALLOWANCE, 0)


@pytest.mark.parametrize("spent", [0, 15, DAILY_ALLOWANCE])
def test_a_new_day_replaces_what_was_left(
    tx: sqlite3.Connection, allowance: DailyAllowance, clock: HandClock, spent: int
) -> None:
    """Whatever was spent, the next day begins with the day's credits, neither more nor less."""
    _available(tx, allowance)
    if spent:
        _spend(tx, spent)
    clock.time += DAY_S
    assert _available(tx, allowance) == DAILY_ALLOWANCE


def test_a_day_without_an_allowance_takes_back_what_was_left(
    tx: sqlite3.Connection, allowance: DailyAllowance, clock: HandClock
) -> None:
    """Where moderators have set 0, nothing of yesterday can be spent today."""
    _available(tx, allowance)
    _set_default(tx, 0)
    clock.time += DAY_S
    assert _available(tx, allowance) == 0


def test_within_a_day_only_the_change_of_the_limit_counts(
    tx: sqlite3.Connection, allowance: DailyAllowance
) -> None:
    """A limit that rises gives the difference; one that falls takes what is unspent of it, and no more."""
    _available(tx, allowance)
    _spend(tx, 30)
    left = []
    for amount in (50, 40, 20, 50, 0, 500):
        _set_default(tx, amount)
        left.append(_available(tx, allowance))
    assert left == [20, 10, 0, 20, 0, 470]


def test_the_best_role_that_a_member_has_now_decides(
    tx: sqlite3.Connection, allowance: DailyAllowance
) -> None:
    """The amount follows the roles that the member comes with, under the operator's ceiling."""
    for role_id, amount in ((11, 100), (12, 900)):
        guilds.set_role_rule(tx, guild_id=1, rule=RoleRule(role_id, amount, may_use=False))
    amounts = [allowance.amount(tx, Person(1, 7, frozenset(roles))) for roles in ((), (11,), (11, 12))]
    assert amounts == [DAILY_ALLOWANCE, 100, 500]


def test_what_is_on_hold_is_left_alone_at_midnight(
    tx: sqlite3.Connection, allowance: DailyAllowance, clock: HandClock
) -> None:
    """A job that waits over midnight keeps its hold, and the new day is full beside it."""
    _available(tx, allowance)
    ledger.hold(tx, _transfer(tx, 10, "held"))
    clock.time += DAY_S
    account = allowance.refresh(tx, ALICE, day=allowance.advance_to_today(tx))
    assert (account.available, account.held) == (DAILY_ALLOWANCE, 10)


def test_a_frozen_allowance_stays_as_it_is(
    tx: sqlite3.Connection, allowance: DailyAllowance, clock: HandClock
) -> None:
    """Neither a new day nor a changed limit nor a reset moves frozen credits; unfrozen, today's are there."""
    _available(tx, allowance)
    _spend(tx, 30)
    account = ledger.get_or_create_account(tx, kind="allowance", guild_id=1, user_id=7)
    ledger.set_frozen(tx, account_id=account.id, frozen=True)
    _set_default(tx, 100)
    clock.time += DAY_S
    assert _available(tx, allowance) == 10
    assert allowance.give_back(tx, ALICE) is None
    ledger.set_frozen(tx, account_id=account.id, frozen=False)
    assert _available(tx, allowance) == 100


def test_a_reset_returns_what_was_spent_today(tx: sqlite3.Connection, allowance: DailyAllowance) -> None:
    """What was spent comes back once; what is on hold is no spending yet and stays counted."""
    _available(tx, allowance)
    assert allowance.give_back(tx, ALICE) is None
    _spend(tx, 25)
    ledger.hold(tx, _transfer(tx, 5, "held"))
    assert allowance.give_back(tx, ALICE) == (10, 35)
    assert allowance.give_back(tx, ALICE) is None
    ledger.void(tx, transfer_id="held", now=1)
    assert _available(tx, allowance) == DAILY_ALLOWANCE


def test_a_reset_returns_nothing_of_yesterday(
    tx: sqlite3.Connection, allowance: DailyAllowance, clock: HandClock
) -> None:
    """A member who has not been here today gets today's allowance, not yesterday's on top of it."""
    _available(tx, allowance)
    _spend(tx, 25)
    clock.time += DAY_S
    assert allowance.give_back(tx, ALICE) is None
    assert _available(tx, allowance) == DAILY_ALLOWANCE


def test_a_reset_returns_no_more_than_was_given(tx: sqlite3.Connection, allowance: DailyAllowance) -> None:
    """After the limit was lowered, a reset fills up to what was given, not to what there once was."""
    _available(tx, allowance)
    _spend(tx, 10)
    _set_default(tx, 20)
    _available(tx, allowance)
    assert allowance.give_back(tx, ALICE) == (10, 20)


def test_each_transfer_has_an_id_of_its_own(
    tx: sqlite3.Connection, allowance: DailyAllowance, clock: HandClock
) -> None:
    """However often an allowance changes in a day, and on whatever day, no transfer is taken for another."""
    for day in range(3):
        clock.time = CLOCK_START + day * DAY_S
        for amount in (10, 20, 10, 20):
            _set_default(tx, amount)
            _available(tx, allowance)
    assert members.get_member(tx, guild_id=1, user_id=7).revision == _transfers(tx)
