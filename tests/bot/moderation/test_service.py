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
from bot.moderation.service import CONFIRM_WITHIN_S, AnyAction
from db import audit_records
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


async def test_a_proposal_can_be_confirmed_and_withdrawn_only_by_who_made_it(bank: Bank) -> None:
    """Another moderator of the same server can do neither, and the proposal stays as it was."""
    actor = bank.actor()
    await bank.moderation.perform(actor, Grant(user_id=7, amount=5000))
    another = Person(1, 98, permissions=actor.person.permissions)
    with pytest.raises(NotAllowed, match="Only the moderator who ran this command"):
        await bank.moderation.confirm(actor.interaction_id, another)
    with pytest.raises(NotAllowed, match="Only the moderator who ran this command"):
        await bank.moderation.withdraw(actor.interaction_id, another)
    assert (await bank.wallet()).balance == 0
    await bank.moderation.confirm(actor.interaction_id, actor.person)
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


async def test_records_keep_changes_as_data(bank: Bank) -> None:
    """Whoever reads the record later gets what was changed, not a sentence."""
    await bank.perform(SetLimits(settings={"steps_max": 10, "slow_s": 60}))
    (record,) = await bank.moderation.list_records(bank.actor().person, limit=9)
    assert from_json(record.changes_json) == (Change("steps_max", None, 10), Change("slow_s", None, 60))


@pytest.mark.parametrize(
    "action",
    [SetLimits(settings={}), SetOptions(settings={}), SetRole(role_id=11), UnblockText(text="not there")],
)
async def test_a_command_without_an_effect_says_so(bank: Bank, action: ModerationAction) -> None:
    """A moderator who chose nothing to change gets an error, and nothing is proposed."""
    with pytest.raises(InvalidOption):
        await bank.moderation.perform(bank.actor(), action)


@pytest.mark.parametrize("forged_id", [0, 1, 2**63 - 1, 2**63, 10**20 - 1])
async def test_a_forged_proposal_is_refused(bank: Bank, forged_id: int) -> None:
    """A moderator who forges a button's id, even one beyond what SQLite can store, confirms nothing."""
    moderator = bank.actor().person
    for forged in (
        bank.moderation.confirm(forged_id, moderator),
        bank.moderation.withdraw(forged_id, moderator),
    ):
        with pytest.raises(JobGone, match="run the command again"):
            await forged


async def test_only_its_moderator_confirms_a_proposal_and_in_time(bank: Bank) -> None:
    """Neither another moderator, nor one of another server, nor anyone much later carries it out."""
    actor = bank.actor()
    await bank.moderation.perform(actor, Grant(user_id=7, amount=5000))
    rights = frozenset({Permission.MANAGE_SERVER})
    with pytest.raises(NotAllowed, match="Only the moderator who ran this command"):
        await bank.moderation.confirm(actor.interaction_id, Person(1, 98, permissions=rights))
    with pytest.raises(JobGone):
        await bank.moderation.confirm(actor.interaction_id, Person(2, actor.user_id, permissions=rights))
    bank.clock.time += CONFIRM_WITHIN_S + 1
    with pytest.raises(JobGone, match="too late to confirm"):
        await bank.moderation.confirm(actor.interaction_id, actor.person)
    assert (await bank.wallet()).balance == 0
