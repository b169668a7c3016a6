"""Allowances, holds and what moderators set, on a real database."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from bot.errors import InvalidOption, NotEnoughCredits
from bot.moderation.actions import SetLimits
from db import ledger
from db.opening import open_database
from tests.support.bank import Bank

DAY_S = 86_400


@asynccontextmanager
async def open_bank(folder: Path) -> AsyncIterator[Bank]:
    """Open a bank; at the end its ledger is consistent, but for jobs that never began."""
    async with open_database(folder) as db:
        bank = Bank(db)
        yield bank
        faults = await db.read(ledger.reconcile)
        assert [fault for fault in faults if "Job" not in fault] == []


@pytest.fixture
async def bank(tmp_path: Path) -> AsyncIterator[Bank]:
    """Yield a new bank."""
    async with open_bank(tmp_path) as opened:
        yield opened


async def test_the_allowance_is_spent_before_the_balance(bank: Bank) -> None:
    """A member's lasting credits are touched only when the day's free ones are used up."""
    await bank.grant(10)
    await bank.hold(1, 45)
    await bank.settle(1, 45)
    wallet = await bank.wallet()
    assert (wallet.allowance_left, wallet.balance, wallet.on_hold) == (0, 5, 0)


async def test_a_hold_is_shown_until_it_is_settled(bank: Bank) -> None:
    """A member sees what their waiting pictures hold."""
    await bank.hold(1, 12)
    wallet = await bank.wallet()
    assert (wallet.available, wallet.on_hold) == (28, 12)


async def test_a_cheaper_job_gives_back_the_balance_first(bank: Bank) -> None:
    """What a job did not cost comes back where it lasts longest."""
    await bank.grant(10)
    await bank.hold(1, 45)
    await bank.settle(1, 40)
    wallet = await bank.wallet()
    assert (wallet.allowance_left, wallet.balance) == (0, 10)


async def test_a_job_is_charged_what_it_came_to(bank: Bank) -> None:
    """Only the charge is taken of a larger hold, and the rest can be spent again at once."""
    await bank.hold(1, 12)
    await bank.settle(1, 8)
    wallet = await bank.wallet()
    assert (wallet.allowance_left, wallet.on_hold) == (32, 0)


async def test_a_failed_job_gives_back_all_that_it_held(bank: Bank) -> None:
    """A job held from allowance and balance gives both back, each to where it came from."""
    await bank.grant(10)
    await bank.hold(1, 45)
    await bank.release(1)
    wallet = await bank.wallet()
    assert (wallet.allowance_left, wallet.balance, wallet.on_hold) == (40, 10, 0)


async def test_the_allowance_returns_at_midnight_and_does_not_pile_up(bank: Bank) -> None:
    """Each UTC day begins with the allowance, neither less nor more."""
    await bank.hold(1, 30)
    await bank.settle(1, 30)
    bank.clock.time += DAY_S
    assert await bank.available() == 40
    bank.clock.time += 5 * DAY_S
    assert await bank.available() == 40


async def test_a_clock_that_steps_back_gives_nothing_twice(bank: Bank) -> None:
    """Neither a wrong clock nor its correction hands out a day's credits again."""
    bank.clock.time += DAY_S
    await bank.hold(1, 40)
    await bank.settle(1, 40)
    bank.clock.time -= DAY_S
    assert await bank.available() == 0
    bank.clock.time += DAY_S
    assert await bank.available() == 0


async def test_a_hold_over_midnight_comes_back_once(bank: Bank) -> None:
    """A job that fails after midnight gives back its hold, and the next midnight evens it out."""
    await bank.hold(1, 10)
    bank.clock.time += DAY_S
    assert await bank.available() == 40
    await bank.release(1)
    assert await bank.available() == 50
    bank.clock.time += DAY_S
    assert await bank.available() == 40


async def test_too_little_is_refused_with_what_is_missing(bank: Bank) -> None:
    """A member who can't pay reads the price, what they have, and when enough is back."""
    await bank.hold(1, 38)
    with pytest.raises(
        NotEnoughCredits, match=r"That costs 4 credits, but you have 2\. Your daily allowance of 40 renews"
    ) as caught:
        await bank.hold(2, 4)
    assert caught.value.until == (bank.clock.time // DAY_S + 1) * DAY_S
    assert await bank.available() == 2


async def test_what_waiting_would_not_bring_is_said(bank: Bank) -> None:
    """A member for whom no day's allowance is enough is sent to the moderators, not to tomorrow."""
    with pytest.raises(NotEnoughCredits, match="ask a moderator") as caught:
        await bank.hold(1, 41)
    assert caught.value.until is None


async def test_a_hundred_presses_on_ten_credits_serve_ten(bank: Bank) -> None:
    """However many requests come at once, no more are accepted than are paid for."""
    await bank.set_allowance(10)
    outcomes = await asyncio.gather(*(bank.hold(n, 1) for n in range(1, 101)), return_exceptions=True)
    assert sum(outcome is None for outcome in outcomes) == 10
    assert sum(isinstance(outcome, NotEnoughCredits) for outcome in outcomes) == 90
    assert await bank.available() == 0


async def test_an_allowance_of_nothing_stops_a_member_at_once(bank: Bank) -> None:
    """A moderator who sets 0 need not wait for midnight."""
    assert await bank.available() == 40
    outcome = await bank.set_allowance(0)
    assert [(c.before, c.after) for c in outcome.changes] == [(40, 0)]
    assert await bank.available() == 0


async def test_a_changed_allowance_counts_what_was_used_today(bank: Bank) -> None:
    """Raising or lowering a limit in the day moves what is left by the difference."""
    await bank.hold(1, 15)
    await bank.settle(1, 15)
    await bank.set_allowance(50)
    assert await bank.available() == 35
    await bank.set_allowance(20)
    assert await bank.available() == 5
    await bank.set_allowance(10)
    assert await bank.available() == 0


async def test_a_limit_that_falls_and_rises_again_gives_nothing_twice(bank: Bank) -> None:
    """A member who spent their allowance can't refill it by losing a role or limit and getting it back."""
    await bank.hold(1, 40)
    await bank.settle(1, 40)
    for allowance in (0, 40, 10, 40):
        await bank.set_allowance(allowance)
        assert await bank.available() == 0


async def test_the_servers_default_reaches_those_without_their_own(bank: Bank) -> None:
    """A server's allowance counts for everyone but members who were given their own."""
    await bank.set_allowance(5, user_id=8)
    await bank.perform(SetLimits(settings={"allowance": 100}))
    own = await bank.wallet(8)
    elsewhere = await bank.wallet(guild_id=2)
    assert (await bank.available(), own.available, elsewhere.available) == (100, 5, 40)


async def test_a_grant_replayed_counts_once(bank: Bank) -> None:
    """Discord may deliver a moderator's command twice: the credits move once."""
    for _ in range(2):
        await bank.grant(10, actor=bank.actor(interaction_id=5))
    assert await bank.available() == 50


async def test_taking_more_than_there_is_takes_what_there_is(bank: Bank) -> None:
    """A balance never goes below zero, whatever a moderator asks for."""
    await bank.grant(10)
    outcome = await bank.take(25)
    assert [(c.before, c.after) for c in outcome.changes] == [(10, 0)]


@pytest.mark.parametrize("amount", [-1, 0, 10**9])
async def test_absurd_amounts_are_refused(bank: Bank, amount: int) -> None:
    """A slip of the finger does not become a fortune."""
    with pytest.raises(InvalidOption):
        await bank.grant(amount)


async def test_each_action_is_recorded(bank: Bank) -> None:
    """Who changed what for whom, from what to what and why can be looked up."""
    await bank.grant(10)
    await bank.set_allowance(3)
    records = await bank.db.read(
        lambda tx: [
            tuple(row)
            for row in tx.execute(
                "SELECT actor_id, target_id, action, before, after, reason FROM audit_record"
            )
        ]
    )
    assert records == [(99, 7, "grant", 0, 10, "test"), (99, 7, "set", 40, 3, "test")]
