"""`/credits …`: what a member can spend, and gifts."""

from pathlib import Path
from typing import Any

import pytest
import simcord
from discord import ui

from bot.credits.service import WalletSummary
from bot.gateway.sentences import NOT_A_MEMBER
from cogs.credits import statement_lines, wallet_card
from db.ledger import LedgerEntry
from tests.support.hostile_texts import HOSTILE_TEXTS, acting_in
from tests.support.moderators import confirmed, quota
from tests.support.simulated_server import open_world, said, texts


async def test_members_see_their_credits(tmp_path: Path) -> None:
    """Allowance left, when it returns, the balance, and what a typical picture costs."""
    async with open_world(tmp_path) as world:
        await world.img2img()
        answer = await world.alice.slash(world.channel, "credits show")
        text = texts(said(answer))
        assert answer.ephemeral
        assert "You can spend 38 credits" in text
        assert "**38** of 40 left" in text
        assert "typical picture costs 4 credits" in text
        assert "**-2** · a picture" in text


async def test_members_give_where_moderators_allow_it(tmp_path: Path) -> None:
    """A gift moves from balance to balance, is on record, and is refused with a reason otherwise."""
    async with open_world(tmp_path) as world:
        await quota(world, "grant", member=world.alice, amount=10)

        async def give(amount: int, member: simcord.MemberActor) -> str:
            options: dict[str, Any] = {"member": member, "amount": amount}
            return str(said(await world.alice.slash(world.channel, "credits give", **options)).content)

        assert "Giving credits is turned off" in await give(4, world.bob)
        await confirmed(world, "server", giving=True)
        assert "10 → **6**" in await give(4, world.bob)
        assert (await world.available(), await world.available(world.bob)) == (46, 44)
        assert "your balance is 6 (the daily allowance can't be given)" in await give(7, world.bob)
        assert "give credits to yourself" in await give(1, world.alice)
        assert "give" in await quota(world, "history", member=world.bob)
        assert await world.ledger_faults() == []


async def test_nothing_is_given_to_somebody_who_has_left(tmp_path: Path) -> None:
    """The answer is one clear sentence, and the credits stay."""
    async with open_world(tmp_path) as world:
        await quota(world, "grant", member=world.alice, amount=10)
        await confirmed(world, "server", giving=True)
        world.guild.remove_member(world.bob)
        options: dict[str, Any] = {"member": world.bob.user, "amount": 4}
        answer = await world.alice.slash(world.channel, "credits give", **options)
        assert answer.ephemeral
        assert said(answer).content == NOT_A_MEMBER
        assert await world.available() == 50


async def test_a_bot_gets_no_credits(tmp_path: Path) -> None:
    """Bots make no pictures: choosing one is answered with a sentence."""
    async with open_world(tmp_path) as world:
        await confirmed(world, "server", giving=True)
        robot = world.guild.add_member(world.env.create_user("robot", bot=True))
        options: dict[str, Any] = {"member": robot, "amount": 4}
        answer = await world.alice.slash(world.channel, "credits give", **options)
        assert said(answer).content == "Bots can't use credits; please choose a member."


async def test_a_public_gift_is_seen_by_all_without_the_givers_balance(tmp_path: Path) -> None:
    """Whoever wants others to see a gift shows the gift, not what they have left."""
    async with open_world(tmp_path) as world:
        await quota(world, "grant", member=world.alice, amount=10)
        await confirmed(world, "server", giving=True)
        options: dict[str, Any] = {"member": world.bob, "amount": 1, "public": True}
        answer = await world.alice.slash(world.channel, "credits give", **options)
        assert not answer.ephemeral
        assert said(answer).content == f"{world.alice.mention} gave {world.bob.mention} **1 credit**."


def _entry(**changes: Any) -> LedgerEntry:
    given = {"kind": "user", "actor_id": 1, "at": 0.0, "amount": 5, "reason": "a prize", "state": "posted"}
    return LedgerEntry(**{**given, **changes})


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({}, "<t:0:R> **+5** · a prize"),
        ({"amount": -4, "state": "pending"}, "<t:0:R> **-4** · a prize · on hold"),
        ({"reason": "grant"}, "<t:0:R> **+5** · granted by a moderator"),
        ({"reason": "take", "amount": -5}, "<t:0:R> **-5** · taken by a moderator"),
    ],
)
def test_a_statement_says_what_each_transfer_was_for(changes: dict[str, Any], line: str) -> None:
    """When, how much, what for; without a moderator's reason it says who did it."""
    assert statement_lines([_entry(**changes)]) == [line]


def test_a_moderators_reason_is_only_text() -> None:
    """Members read reasons in their statement; nothing of them acts."""
    for line in statement_lines(_entry(reason=text) for text in HOSTILE_TEXTS):
        assert acting_in(line) == []
        assert "\n" not in line


@pytest.mark.parametrize(
    ("allowance", "on_hold", "words"),
    [(0, 0, "Daily allowance: **none**"), (40, 0, "**30** of 40 left"), (40, 3, "in progress: **3**")],
)
def test_the_card_shows_only_what_there_is(allowance: int, on_hold: int, words: str) -> None:
    """No allowance is called none; what is on hold is shown while there is any."""
    wallet = WalletSummary(allowance=allowance, allowance_left=30, renews_at=9, balance=2, on_hold=on_hold)
    items = wallet_card(wallet, 4, []).walk_children()
    text = "\n".join(item.content for item in items if isinstance(item, ui.TextDisplay))
    assert words in text
    assert ("On hold" in text) is bool(on_hold)
