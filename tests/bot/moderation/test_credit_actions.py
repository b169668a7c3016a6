"""Actions on members' credits: what they move, report and refuse."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bot.actors import Actor, Person
from bot.credits.limits import AMOUNT_MAX, Ceilings
from bot.errors import InvalidOption, NotAllowed, NotEnoughCredits
from bot.moderation.actions import BlockMember, ModerationAction, SetOptions
from bot.moderation.changes import Change
from bot.moderation.credit_actions import (
    LARGE_AMOUNT,
    FreezeMember,
    Give,
    Grant,
    ResetAllowance,
    SetAllowance,
    Take,
)
from db import guilds, ledger
from db.guilds import RoleRule
from db.opening import open_database
from tests.support.bank import Bank

BOB_ID = 8


@pytest.fixture
async def bank(tmp_path: Path) -> AsyncIterator[Bank]:
    """Yield a new bank; at the end its ledger is consistent, but for jobs that never began."""
    async with open_database(tmp_path) as db:
        yield Bank(db, ceilings=Ceilings(grant_max=10_000))
        faults = await db.read(ledger.reconcile)
        assert [fault for fault in faults if "Job" not in fault] == []


async def _spend(bank: Bank, job_id: int, amount: int) -> None:
    await bank.hold(job_id, amount)
    await bank.settle(job_id, amount)


async def _allow_giving(bank: Bank, *, balance: int = 10) -> None:
    await bank.perform(SetOptions(settings={"giving": 1}))
    await bank.grant(balance)


async def _give(bank: Bank, amount: int, *, to: int = BOB_ID) -> None:
    """Let member 7 give credits."""
    actor = Actor(bank.actor().interaction_id, Person(1, 7))
    await bank.moderation.perform(actor, Give(user_id=to, amount=amount))


@pytest.mark.parametrize(
    ("action", "target_id", "is_wide"),
    [
        (Grant(user_id=7, amount=LARGE_AMOUNT - 1), 7, False),
        (Grant(user_id=7, amount=LARGE_AMOUNT), 7, True),
        (Take(user_id=7, amount=LARGE_AMOUNT - 1), 7, False),
        (Take(user_id=7, amount=LARGE_AMOUNT), 7, True),
        (Give(user_id=7, amount=LARGE_AMOUNT), 7, False),
        (SetAllowance(user_id=7, allowance=AMOUNT_MAX), 7, False),
        (FreezeMember(user_id=7, frozen=True), 7, False),
        (ResetAllowance(user_id=7), 7, False),
        (ResetAllowance(user_id=None), None, True),
    ],
)
def test_large_amounts_and_everyone_at_once_are_confirmed(
    action: ModerationAction, target_id: int | None, is_wide: bool
) -> None:
    """A zero too many in a moderator's action is caught before it is done; a gift is the giver's own."""
    assert (action.target_id, action.is_wide) == (target_id, is_wide)


async def test_grants_and_takings_report_the_balance(bank: Bank) -> None:
    """What a moderator adds or takes is shown before and after; the daily allowance is left alone."""
    assert (await bank.grant(10)).changes == (Change("balance", 0, 10, 7),)
    assert (await bank.take(4)).changes == (Change("balance", 10, 6, 7),)
    assert (await bank.take(4)).changes == (Change("balance", 6, 2, 7),)
    assert (await bank.wallet()).allowance_left == 40


async def test_taking_from_nothing_changes_nothing(bank: Bank) -> None:
    """A member without a balance has none taken, and what is on hold is not taken either."""
    assert (await bank.take(5)).changes == ()
    await bank.grant(10)
    await bank.hold(1, 45)
    assert (await bank.take(99)).changes == (Change("balance", 5, 0, 7),)
    await bank.release(1)
    assert (await bank.wallet()).balance == 5


@pytest.mark.parametrize("action", [Grant, Take])
async def test_amounts_go_up_to_the_operators_ceiling(bank: Bank, action: type[Grant | Take]) -> None:
    """The largest amount is accepted, one more is refused with the range."""
    await bank.perform(action(user_id=7, amount=10_000))
    with pytest.raises(InvalidOption, match="from 1 to 10,000"):
        await bank.perform(action(user_id=7, amount=10_001))


async def test_a_members_own_allowance_of_the_same_size_is_shown_as_that(bank: Bank) -> None:
    """A moderator who pins a member to today's default sees that the rule changed, not "40 → 40"."""
    assert (await bank.set_allowance(40)).changes == (Change("own_allowance", None, 40, 7),)
    assert (await bank.set_allowance(None)).changes == (Change("own_allowance", 40, None, 7),)


async def test_removing_an_allowance_of_ones_own_shows_what_holds_instead(bank: Bank) -> None:
    """Once their own allowance is removed, a member has that of their best role again."""
    await bank.db.write(lambda tx: guilds.set_role_rule(tx, guild_id=1, rule=RoleRule(11, 60, may_use=False)))
    roles = frozenset({11})
    set_to = await bank.perform(SetAllowance(user_id=7, allowance=5, roles=roles))
    removed = await bank.perform(SetAllowance(user_id=7, allowance=None, roles=roles))
    assert set_to.changes == (Change("member_allowance", 60, 5, 7),)
    assert removed.changes == (Change("member_allowance", 5, 60, 7),)


async def test_frozen_credits_neither_come_nor_go(bank: Bank) -> None:
    """A frozen member can't be granted, taken from, nor take part in a gift, until they are unfrozen."""
    await _allow_giving(bank)
    assert (await bank.perform(FreezeMember(user_id=7, frozen=True))).changes == (
        Change("member_frozen", 0, 1, 7),
    )
    assert (await bank.perform(FreezeMember(user_id=7, frozen=True))).changes == ()
    for refused in (bank.grant(1), bank.take(1), _give(bank, 1)):
        with pytest.raises(NotAllowed, match="frozen; a moderator has to unfreeze them"):
            await refused
    assert (await bank.perform(ResetAllowance(user_id=7))).changes == ()
    assert (await bank.perform(FreezeMember(user_id=7, frozen=False))).changes == (
        Change("member_frozen", 1, 0, 7),
    )
    await _give(bank, 1)
    assert (await bank.wallet()).balance == 9


async def test_a_gift_is_from_the_balance_alone(bank: Bank) -> None:
    """The daily allowance is free and would multiply: it can't be given."""
    await _allow_giving(bank, balance=3)
    with pytest.raises(NotEnoughCredits, match="your balance is 3"):
        await _give(bank, 4)
    await _give(bank, 3)
    assert ((await bank.wallet()).balance, (await bank.wallet(BOB_ID)).balance) == (0, 3)


async def test_a_gift_needs_the_servers_permission_and_another_member(bank: Bank) -> None:
    """Without the option nobody gives anything; with it nobody gives to themselves."""
    await bank.grant(10)
    with pytest.raises(NotAllowed, match="turned off"):
        await _give(bank, 1)
    await _allow_giving(bank)
    with pytest.raises(InvalidOption, match="yourself"):
        await _give(bank, 1, to=7)


@pytest.mark.parametrize("amount", [-5, 0, AMOUNT_MAX + 1, 2**70])
async def test_absurd_gifts_are_refused(bank: Bank, amount: int) -> None:
    """A gift of less than nothing would take from the other."""
    await _allow_giving(bank)
    with pytest.raises(InvalidOption, match="from 1 to"):
        await _give(bank, amount)
    assert (await bank.wallet(BOB_ID)).balance == 0


@pytest.mark.parametrize("blocked_id", [7, BOB_ID])
async def test_blocked_members_neither_give_nor_receive(bank: Bank, blocked_id: int) -> None:
    """A block can't be evaded by passing credits on."""
    await _allow_giving(bank)
    await bank.perform(BlockMember(user_id=blocked_id, blocked=True))
    with pytest.raises(NotAllowed, match="Blocked members"):
        await _give(bank, 1)


async def test_a_reset_returns_what_was_spent_of_today(bank: Bank) -> None:
    """The member's allowance is full again; where nothing was spent, nothing changes."""
    assert (await bank.perform(ResetAllowance(user_id=7))).changes == ()
    await _spend(bank, 1, 30)
    assert (await bank.perform(ResetAllowance(user_id=7))).changes == (Change("allowance_left", 10, 40, 7),)
    assert (await bank.perform(ResetAllowance(user_id=7))).changes == ()


async def test_a_reset_for_everyone_reaches_those_who_spent_today(bank: Bank) -> None:
    """Each member who spent something gets it back, in this server alone."""
    await _spend(bank, 1, 30)
    await bank.wallet(BOB_ID)
    await bank.wallet(guild_id=2)
    assert (await bank.perform(ResetAllowance(user_id=None))).changes == (
        Change("allowance_left", 10, 40, 7),
    )
    bank.clock.time += 86_400
    assert (await bank.perform(ResetAllowance(user_id=None))).changes == ()
