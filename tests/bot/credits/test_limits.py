"""Which limit wins, and what members give each other, on a real database."""

from pathlib import Path
from typing import Any

import pytest

from bot.credits.limits import Ceilings, Limits, Person, Place
from bot.credits.service import Credits
from bot.errors import LimitReached, NotAllowed, NotEnoughCredits
from bot.params import Img2ImgParams
from db import guilds as rules
from db import jobs
from db.database import open_database
from db.guilds import RoleRule
from db.jobs import Job
from db.operations import Operation
from tests.bot.credits.test_service import PRICES, Bank
from tests.support.clock import HandClock
from tests.support.ledgers import open_books

PARAMS = Img2ImgParams(prompt="x", seed=0)
WHO = Person(1, 7, frozenset({11, 12}))


@pytest.mark.parametrize(
    ("roles", "own", "server", "ceiling", "amount", "words"),
    [
        ({}, None, None, 100, 40, "the bot's default"),
        ({}, None, 7, 100, 7, "this server's default"),
        ({11: 50}, None, 7, 100, 50, "the role <@&11>"),
        ({11: 50, 12: 60, 13: 90}, None, 7, 100, 60, "the role <@&12>, the best"),
        ({11: 5}, None, 7, 100, 5, "the role <@&11>"),
        ({11: 50}, 0, 7, 100, 0, "own allowance"),
        ({11: 50}, None, 7, 30, 30, "the operator's ceiling, below the role <@&11>"),
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
    """A member's own allowance beats his roles', those the server's, that the bot's; a ceiling all."""
    limits = Limits(clock=HandClock(), daily_allowance=40, ceilings=Ceilings(allowance_max=ceiling))
    with open_books(tmp_path) as tx:
        for role_id, allowance in roles.items():
            rules.set_role(tx, guild_id=1, rule=RoleRule(role_id, allowance, may_use=False))
        rules.change(tx, guild_id=1, name="allowance", value=server)
        tx.execute("INSERT INTO member (guild_id, user_id, allowance) VALUES (1, 7, ?)", (own,))
        ruling = limits.allowance(tx, WHO)
    assert ruling.amount == amount
    assert words in ruling.rule


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
    with open_books(tmp_path) as tx:
        for channel_id, allowed in known.items():
            rules.set_channel(tx, guild_id=1, channel_id=channel_id, allowed=allowed)
        try:
            limits.check_place(tx, 1, Place(place))
        except NotAllowed:
            assert not is_allowed
        else:
            assert is_allowed


def test_servers_share_what_the_operator_allows(tmp_path: Path) -> None:
    """What one server holds is missing in every other, and is there again when its job fails."""
    nothing: Any = None
    credit = Credits(
        db=nothing,
        clock=HandClock(),
        prices=PRICES,
        daily_allowance=40,
        ceilings=Ceilings(provider_daily_max=10),
    )
    with open_books(tmp_path) as tx:
        jobs.insert(tx, _job(1, guild_id=1, price=8))
        credit.hold(tx, job_id=1, guild_id=1, user_id=7, amount=8)
        with pytest.raises(LimitReached, match="today"):
            credit.limits.check_job(tx, _job(2, guild_id=2, price=3), PARAMS, day=5)
        credit.limits.check_job(tx, _job(2, guild_id=2, price=2), PARAMS, day=5)
        credit.release(tx, job_id=1)
        jobs.fail(tx, job_id=1, failure="", now=0)
        credit.limits.check_job(tx, _job(2, guild_id=2, price=10), PARAMS, day=5)


def test_a_servers_cap_is_spent_to_the_last_credit(tmp_path: Path) -> None:
    """A job that costs just what is left is accepted, one that costs a credit more is refused."""
    limits = Limits(clock=HandClock(), daily_allowance=40, ceilings=Ceilings())
    with open_books(tmp_path) as tx:
        rules.change(tx, guild_id=1, name="daily_cap", value=10)
        limits.check_job(tx, _job(1, guild_id=1, price=10), PARAMS, day=5)
        with pytest.raises(LimitReached, match="10 are left, but this costs 11"):
            limits.check_job(tx, _job(1, guild_id=1, price=11), PARAMS, day=5)


async def test_a_reset_does_not_give_back_what_is_on_hold(tmp_path: Path) -> None:
    """What was spent today is given back; what waits comes back by itself, and not twice."""
    async with open_database(tmp_path) as db:
        bank = Bank(db)
        await bank.hold(1, 10)
        await bank.settle(1, 10)
        await bank.hold(2, 5)
        await db.write(lambda tx: bank.credits.reset(tx, bank.moderator(), user_id=7))
        assert await bank.available() == 35
        await bank.release(2)
        assert await bank.available() == 40


def _job(job_id: int, *, guild_id: int, price: int) -> Job:
    return Job(job_id, guild_id, 7, 3, Operation.IMG2IMG, "{}", 0.0, price=price, day=5)


async def test_a_gift_moves_once_from_one_to_the_other(tmp_path: Path) -> None:
    """What one member gives another gets, from the balance alone, and a replayed gift counts once."""
    async with open_database(tmp_path) as db:
        bank = Bank(db)
        await db.write(lambda tx: rules.change(tx, guild_id=1, name="giving", value=True))
        await bank.credits.grant(bank.moderator(), user_id=99, amount=10)
        by = bank.moderator()  # member 99, in one interaction
        for _ in range(2):
            await bank.credits.give(by, to_user_id=7, amount=4)
        giver = await bank.credits.wallet(guild_id=1, user_id=99)
        taker = await bank.credits.wallet(guild_id=1, user_id=7)
        assert (giver.balance, taker.balance) == (6, 4)
        with pytest.raises(NotEnoughCredits):
            await bank.credits.give(bank.moderator(), to_user_id=7, amount=7)


async def test_roles_count_when_credits_are_held(tmp_path: Path) -> None:
    """A member with a role spends what it gives; losing the role and getting it back gives nothing twice."""
    async with open_database(tmp_path) as db:
        credit = Credits(db=db, clock=HandClock(), prices=PRICES, daily_allowance=40)
        await db.write(lambda tx: rules.set_role(tx, guild_id=1, rule=RoleRule(11, 100, may_use=False)))

        async def left(*roles: int) -> int:
            return (await credit.wallet(guild_id=1, user_id=7, roles=frozenset(roles))).allowance_left

        assert [await left(11), await left(), await left(11)] == [100, 40, 100]
