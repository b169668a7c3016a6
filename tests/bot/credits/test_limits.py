"""Which limit wins, and what members give each other, on a real database."""

from pathlib import Path

import pytest

from bot.actors import ChannelContext, Person
from bot.credits.limits import Ceilings, Limits
from bot.errors import LimitReached, NotAllowed, NotEnoughCredits
from bot.moderation.credit_actions import Give, ResetAllowance
from bot.params import Img2ImgParams
from cogs.changes import allowance_source_text
from db import guilds, jobs
from db.guilds import RoleRule
from db.opening import open_database
from tests.support.bank import Bank
from tests.support.bank import a_new_job as _job
from tests.support.clock import HandClock
from tests.support.ledgers import open_ledger

PARAMS = Img2ImgParams(prompt="x", seed=0)
WHO = Person(1, 7, frozenset({11, 12}))


@pytest.mark.parametrize(
    ("roles", "own", "server", "ceiling", "amount", "words"),
    [
        ({}, None, None, 100, 40, "bot default"),
        ({}, None, 7, 100, 7, "this server's default"),
        ({11: 50}, None, 7, 100, 50, "the role <@&11>"),
        ({11: 50, 12: 60, 13: 90}, None, 7, 100, 60, "the role <@&12>, the best"),
        ({11: 5}, None, 7, 100, 5, "the role <@&11>"),
        ({11: 50}, 0, 7, 100, 0, "own allowance"),
        ({11: 50}, None, 7, 30, 30, "the operator's maximum, instead of the role <@&11>"),
    ],
)
def test_the_rule_that_wins_is_named(
    tmp_path: Path,
    roles: dict[int, int],
    own: int | None,
    server: int | None,
    ceiling: int,
    amount: int,
    words: str,
) -> None:
    """A member's own allowance beats their roles', those the server's, that the bot's; a ceiling all."""
    limits = Limits(clock=HandClock(), daily_allowance=40, ceilings=Ceilings(allowance_max=ceiling))
    with open_ledger(tmp_path) as tx:
        for role_id, allowance in roles.items():
            guilds.set_role_rule(tx, guild_id=1, rule=RoleRule(role_id, allowance, may_use=False))
        guilds.change_setting(tx, guild_id=1, name="allowance", value=server)
        tx.execute("INSERT INTO member (guild_id, user_id, allowance) VALUES (1, 7, ?)", (own,))
        ruling = limits.allowance(tx, WHO)
    assert ruling.amount == amount
    assert words in allowance_source_text(ruling)


@pytest.mark.parametrize(
    ("known", "place", "is_allowed"),
    [
        ({}, (5,), True),
        ({5: False}, (5,), False),
        ({5: False}, (6,), True),
        ({5: True}, (5,), True),
        ({5: True}, (6,), False),
        ({5: True}, (9, 5), True),
        ({9: False, 5: True}, (9, 5), False),
    ],
)
def test_channels_and_their_threads(
    tmp_path: Path, known: dict[int, bool], place: tuple[int, ...], is_allowed: bool
) -> None:
    """A thread follows its own rule, else its parent's; once channels are allowed, others are not."""
    limits = Limits(clock=HandClock(), daily_allowance=40, ceilings=Ceilings())
    with open_ledger(tmp_path) as tx:
        for channel_id, allowed in known.items():
            guilds.set_channel_rule(tx, guild_id=1, channel_id=channel_id, allowed=allowed)
        try:
            limits.check_channel(tx, 1, ChannelContext(place))
        except NotAllowed:
            assert not is_allowed
        else:
            assert is_allowed


async def test_servers_share_what_the_operator_allows(tmp_path: Path) -> None:
    """What one server holds is missing in every other, and is available again when its job fails."""
    async with open_database(tmp_path) as db:
        bank = Bank(db, ceilings=Ceilings(provider_daily_max=10))

        async def check(price: int) -> None:
            await db.read(
                lambda tx: bank.limits.check_job(tx, _job(2, guild_id=2, price=price), PARAMS, day=0)
            )

        await bank.hold(1, 8)
        with pytest.raises(LimitReached, match="daily limit"):
            await check(3)
        await check(2)
        await bank.release(1)
        await db.write(lambda tx: jobs.mark_failed(tx, job_id=1, failure="", now=0))
        await check(10)


def test_a_servers_cap_is_spent_to_the_last_credit(tmp_path: Path) -> None:
    """A job that costs just what is left is accepted, one that costs a credit more is refused."""
    limits = Limits(clock=HandClock(), daily_allowance=40, ceilings=Ceilings())
    with open_ledger(tmp_path) as tx:
        guilds.change_setting(tx, guild_id=1, name="daily_cap", value=10)
        limits.check_job(tx, _job(1, guild_id=1, price=10), PARAMS, day=5)
        with pytest.raises(LimitReached, match="costs 11 credits, but this server has 10 left of its 10"):
            limits.check_job(tx, _job(1, guild_id=1, price=11), PARAMS, day=5)


async def test_a_reset_does_not_give_back_what_is_on_hold(tmp_path: Path) -> None:
    """What was spent today is given back; what waits comes back when its job ends, and not twice."""
    async with open_database(tmp_path) as db:
        bank = Bank(db)
        await bank.hold(1, 10)
        await bank.settle(1, 10)
        await bank.hold(2, 5)
        await bank.perform(ResetAllowance(user_id=7))
        assert await bank.available() == 35
        await bank.release(2)
        assert await bank.available() == 40


async def test_a_gift_moves_once_from_one_to_the_other(tmp_path: Path) -> None:
    """What one member gives another gets, from the balance alone, and a replayed gift counts once."""
    async with open_database(tmp_path) as db:
        bank = Bank(db)
        await db.write(lambda tx: guilds.change_setting(tx, guild_id=1, name="giving", value=True))
        await bank.grant(10, user_id=99)
        giver_once = bank.actor()  # member 99, in one interaction
        for _ in range(2):
            await bank.perform(Give(user_id=7, amount=4), giver_once)
        giver, taker = await bank.wallet(99), await bank.wallet(7)
        assert (giver.balance, taker.balance) == (6, 4)
        with pytest.raises(NotEnoughCredits):
            await bank.perform(Give(user_id=7, amount=7))


async def test_roles_count_when_credits_are_held(tmp_path: Path) -> None:
    """A member with a role spends what it gives; losing the role and getting it back gives nothing twice."""
    async with open_database(tmp_path) as db:
        bank = Bank(db)
        await db.write(lambda tx: guilds.set_role_rule(tx, guild_id=1, rule=RoleRule(11, 100, may_use=False)))

        async def left(*roles: int) -> int:
            return (await bank.wallet(roles=roles)).allowance_left

        assert [await left(11), await left(), await left(11)] == [100, 40, 100]
