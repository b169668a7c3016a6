"""Moderation: actions are done once, previewed where they are wide, recorded, and only for moderators."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from bot.actors import Actor, Permission, Person
from bot.errors import InvalidOption, JobGone, NotAllowed
from bot.moderation.actions import (
    BlockMember,
    BlockText,
    ModerationAction,
    SetChannel,
    SetLimits,
    SetOptions,
    SetRole,
    StopServer,
    UnblockText,
)
from bot.moderation.changes import Change, from_json
from bot.moderation.credit_actions import FreezeMember, Give, Grant, ResetAllowance, SetAllowance, Take
from bot.moderation.service import AnyAction
from db import audit_records, guilds
from db.opening import open_database
from tests.support.bank import Bank

ACTIONS: dict[str, ModerationAction] = {
    "block": BlockMember(user_id=7, blocked=True),
    "text": BlockText(text="gory"),
    "untext": UnblockText(text="gory"),
    "freeze": FreezeMember(user_id=7, frozen=True),
    "give": Give(user_id=7, amount=1),
    "grant": Grant(user_id=7, amount=1),
    "take": Take(user_id=7, amount=1),
    "reset": ResetAllowance(user_id=None),
    "set": SetAllowance(user_id=7, allowance=1, roles=frozenset({11})),
    "channel": SetChannel(channel_id=5, allowed=None),
    "server": SetLimits(settings={"steps_max": 10, "slow_s": None}),
    "option": SetOptions(settings={"private": 1}),
    "role": SetRole(role_id=11, allowance=5),
    "stop": StopServer(stopped=True),
}


@pytest.fixture
async def bank(tmp_path: Path) -> AsyncIterator[Bank]:
    """Yield a new bank."""
    async with open_database(tmp_path) as db:
        yield Bank(db)


@pytest.mark.parametrize("kind", list(ACTIONS))
def test_a_stored_action_is_the_same_when_it_is_read(kind: str) -> None:
    """What a moderator proposed is what is done once they confirm it, whatever it is."""
    action = ACTIONS[kind]
    assert action.kind == kind
    adapter: TypeAdapter[ModerationAction] = TypeAdapter(AnyAction)
    assert adapter.validate_json(action.model_dump_json()) == action


@pytest.mark.parametrize("kind", sorted(ACTIONS.keys() - {"give"}))
async def test_only_moderators_may(bank: Bank, kind: str) -> None:
    """Whoever may not manage the server changes nothing, whichever front end the request came through."""
    member = Actor(1, Person(1, 8, permissions=frozenset({Permission.MANAGE_MESSAGES})))
    with pytest.raises(NotAllowed, match="Manage Server"):
        await bank.moderation.perform(member, ACTIONS[kind])
    assert await bank.db.read(lambda tx: audit_records.latest(tx, guild_id=1, limit=9)) == []


async def test_lookups_are_for_moderators_too(bank: Bank) -> None:
    """Neither settings nor records nor credits of others are shown to members."""
    member = Person(1, 8)
    for lookup in (
        bank.moderation.settings(member),
        bank.moderation.list_records(member, limit=1),
        bank.moderation.leaderboard(member, within_s=1, limit=1),
        bank.moderation.member_accounts(member),
        bank.credits.explain(member, Person(1, 7)),
    ):
        with pytest.raises(NotAllowed):
            await lookup


async def test_a_repeated_interaction_answers_what_it_changed(bank: Bank) -> None:
    """Discord may deliver a command twice: it counts once, and both answers say the same."""
    actor = bank.actor()
    first = await bank.grant(10, actor=actor)
    again = await bank.grant(10, actor=actor)
    assert first.changes == again.changes == (Change("balance", 0, 10, 7),)
    assert (await bank.wallet()).balance == 10


async def test_a_confirmation_pressed_twice_answers_the_same(bank: Bank) -> None:
    """An impatient moderator sees twice what was changed, though it was changed once."""
    actor = bank.actor()
    proposed = await bank.moderation.perform(actor, Grant(user_id=7, amount=5000))
    assert proposed.needs_confirmation
    presses = [bank.moderation.confirm(actor.interaction_id, actor.person) for _ in range(3)]
    outcomes = await asyncio.gather(*presses)
    assert {outcome.changes for outcome in outcomes} == {proposed.changes}
    assert (await bank.wallet()).balance == 5000


async def test_a_preview_changes_nothing(bank: Bank) -> None:
    """Until it is confirmed, a wide action leaves no trace but its proposal; withdrawn, not even that."""
    actor = bank.actor()
    outcome = await bank.moderation.perform(actor, SetLimits(settings={"steps_max": 10}))
    assert outcome.changes == (Change("steps_max", None, 10),)
    settings, _ = await bank.moderation.settings(actor.person)
    assert settings.steps_max is None
    await bank.moderation.withdraw(actor.interaction_id, actor.person)
    with pytest.raises(JobGone):
        await bank.moderation.confirm(actor.interaction_id, actor.person)
    assert await bank.moderation.list_records(actor.person, limit=9) == []


async def test_what_is_so_already_is_no_change(bank: Bank) -> None:
    """Setting what is set changes nothing, asks nothing, and is on record as that."""
    await bank.set_allowance(100)
    assert (await bank.set_allowance(100)).changes == ()
    await bank.perform(SetLimits(settings={"steps_max": 10}))
    outcome = await bank.moderation.perform(bank.actor(), SetLimits(settings={"steps_max": 10}))
    assert (outcome.changes, outcome.needs_confirmation) == ((), False)


async def test_a_members_own_allowance_of_the_same_size_is_shown_as_that(bank: Bank) -> None:
    """A moderator who pins a member to today's default sees that the rule changed, not "40 → 40"."""
    assert (await bank.set_allowance(40)).changes == (Change("own_allowance", None, 40, 7),)
    assert (await bank.set_allowance(None)).changes == (Change("own_allowance", 40, None, 7),)


async def test_records_keep_changes_as_data(bank: Bank) -> None:
    """Whoever reads the record later gets what was changed, not a sentence."""
    await bank.perform(SetLimits(settings={"steps_max": 10, "slow_s": 60}))
    (record,) = await bank.moderation.list_records(bank.actor().person, limit=9)
    assert from_json(record.changes_json) == (Change("steps_max", None, 10), Change("slow_s", None, 60))


async def test_a_role_that_is_not_mentioned_stays_as_it_is(bank: Bank) -> None:
    """Setting one thing of a role leaves the other; forgetting removes both."""
    await bank.perform(SetRole(role_id=11, opens_bot=True))
    await bank.perform(SetRole(role_id=11, allowance=50))
    (rule,) = await bank.db.read(lambda tx: guilds.role_rules(tx, 1))
    assert (rule.allowance, rule.may_use) == (50, True)
    await bank.perform(SetRole(role_id=11, forget=True))
    assert await bank.db.read(lambda tx: guilds.role_rules(tx, 1)) == []


@pytest.mark.parametrize(
    "action",
    [SetLimits(settings={}), SetOptions(settings={}), SetRole(role_id=11), UnblockText(text="not there")],
)
async def test_a_command_without_an_effect_says_so(bank: Bank, action: ModerationAction) -> None:
    """A moderator who chose nothing to change is told, and nothing is proposed."""
    with pytest.raises(InvalidOption):
        await bank.moderation.perform(bank.actor(), action)


async def test_a_blocked_text_changes_its_strictness(bank: Bank) -> None:
    """Blocking it again for fewer channels is a change, unblocking lets it through."""
    assert (await bank.perform(BlockText(text="Gory"))).changes[0].after == "blocked"
    looser = (await bank.perform(BlockText(text="gory", adult_ok=True))).changes
    assert looser == (Change("blocked_text", "blocked", "blocked except in age-restricted channels", "gory"),)
    assert (await bank.perform(UnblockText(text="GORY"))).changes[0].after is None
