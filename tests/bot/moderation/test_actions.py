"""What moderators do to a server and its members: what each action changes, and what it reports of that."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bot.credits.limits import AMOUNT_MAX, SLOW_S_MAX, Ceilings
from bot.errors import InvalidOption
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
from bot.moderation.changes import Change, Changes
from bot.pictures.sizes import MEGAPIXEL
from db import audit_log, guilds, members
from db.guilds import BlockedText
from db.opening import open_database
from tests.support.bank import Bank


@pytest.fixture
async def bank(tmp_path: Path) -> AsyncIterator[Bank]:
    """Yield a new bank."""
    async with open_database(tmp_path) as db:
        yield Bank(db, ceilings=Ceilings(allowance_max=500, guild_daily_max=1_000))


@pytest.mark.parametrize(
    ("action", "changes"),
    [
        (BlockMember(user_id=7, blocked=True), (Change("member_blocked", 0, 1, 7),)),
        (SetChannel(channel_id=5, allowed=True), (Change("channel_rule", None, 1, 5),)),
        (SetChannel(channel_id=5, allowed=False), (Change("channel_rule", None, 0, 5),)),
        (SetRole(role_id=11, allowance=50), (Change("role_allowance", None, 50, 11),)),
        (SetRole(role_id=11, opens_bot=True), (Change("role_opens_bot", 0, 1, 11),)),
        (SetLimits(settings={"steps_max": 10}), (Change("steps_max", None, 10),)),
        (
            SetOptions(settings={"private": 1, "results_channel_id": 50}),
            (Change("private", 0, 1), Change("results_channel_id", None, 50)),
        ),
        (StopServer(stopped=True), (Change("frozen", 0, 1),)),
        (BlockText(text="Gory"), (Change("blocked_text", None, "blocked", "gory"),)),
        (
            BlockText(text="go+ry", text_kind="pattern", adult_ok=True),
            (Change("blocked_text", None, "blocked except in age-restricted channels", "go+ry"),),
        ),
    ],
    ids=lambda value: value.kind if isinstance(value, ModerationAction) else "",
)
async def test_an_action_reports_what_it_changed_and_does_so_once(
    bank: Bank, action: ModerationAction, changes: Changes
) -> None:
    """Each change is reported with its values before and after; the same action again changes nothing."""
    assert (await bank.perform(action)).changes == changes
    assert (await bank.perform(action)).changes == ()


@pytest.mark.parametrize(
    ("action", "target_id", "is_wide"),
    [
        (BlockMember(user_id=7, blocked=True), 7, False),
        (SetRole(role_id=11, allowance=5), 11, True),
        (SetChannel(channel_id=5, allowed=None), 5, False),
        (SetLimits(settings={"steps_max": 10}), None, True),
        (SetOptions(settings={"private": 1}), None, False),
        (StopServer(stopped=True), None, True),
        (StopServer(stopped=False), None, True),
        (BlockText(text="gory"), None, False),
        (UnblockText(text="gory"), None, False),
    ],
    ids=lambda value: value.kind if isinstance(value, ModerationAction) else "",
)
def test_what_concerns_everyone_is_confirmed(
    action: ModerationAction, target_id: int | None, is_wide: bool
) -> None:
    """An action on many members at once is wide; the record names whom or what the others are about."""
    assert (action.target_id, action.is_wide) == (target_id, is_wide)


async def test_a_block_reaches_the_member_and_is_lifted(bank: Bank) -> None:
    """Blocking and unblocking changes one member of one server."""
    for blocked in (True, False):
        await bank.perform(BlockMember(user_id=7, blocked=blocked))
        flags = await bank.db.read(
            lambda tx: [
                members.get_member(tx, guild_id=g, user_id=u).blocked for g, u in ((1, 7), (1, 8), (2, 7))
            ]
        )
        assert flags == [blocked, False, False]


async def test_a_channels_rule_is_replaced_and_removed(bank: Bank) -> None:
    """Each change of a channel's rule shows the rule before, and None removes it."""
    for allowed, before in ((True, None), (False, 1), (None, 0)):
        outcome = await bank.perform(SetChannel(channel_id=5, allowed=allowed))
        assert outcome.changes == (Change("channel_rule", before, allowed, 5),)
    assert await bank.db.read(lambda tx: guilds.channel_rules(tx, 1)) == {}


async def test_a_role_that_is_not_mentioned_stays_as_it_is(bank: Bank) -> None:
    """Setting one thing of a role leaves the other; forgetting removes both."""
    await bank.perform(SetRole(role_id=11, opens_bot=True))
    await bank.perform(SetRole(role_id=11, allowance=50))
    (rule,) = await bank.db.read(lambda tx: guilds.role_rules(tx, 1))
    assert (rule.allowance, rule.may_use) == (50, True)
    await bank.perform(SetRole(role_id=11, forget=True))
    assert await bank.db.read(lambda tx: guilds.role_rules(tx, 1)) == []


async def test_forgetting_a_role_without_a_rule_changes_nothing(bank: Bank) -> None:
    """There is nothing to confirm where there is nothing to forget."""
    outcome = await bank.moderation.perform(bank.actor(), SetRole(role_id=11, forget=True))
    assert (outcome.changes, outcome.needs_confirmation) == ((), False)


@pytest.mark.parametrize(
    ("name", "largest"),
    [
        ("allowance", 500),
        ("daily_cap", 1_000),
        ("running_max", 2),
        ("waiting_max", 5),
        ("steps_max", 100),
        ("samples_max", 4),
        ("pixels_max", MEGAPIXEL),
        ("slow_s", SLOW_S_MAX),
    ],
)
async def test_limits_go_up_to_the_operators_ceiling(bank: Bank, name: str, largest: int) -> None:
    """The largest value is accepted, one more or a negative one is refused with the range."""
    await bank.perform(SetLimits(settings={name: largest}))
    for value in (largest + 1, -1):
        with pytest.raises(InvalidOption, match=f"to {largest:,}"):
            await bank.perform(SetLimits(settings={name: value}))
    assert (await bank.perform(SetLimits(settings={name: None}))).changes == (Change(name, largest, None),)


@pytest.mark.parametrize("name", ["running_max", "waiting_max", "steps_max", "samples_max", "pixels_max"])
async def test_no_limit_stops_everyone_by_the_way(bank: Bank, name: str) -> None:
    """Zero is a limit only where it has a meaning: stopping the bot has an action of its own."""
    with pytest.raises(InvalidOption, match="from 1 to"):
        await bank.perform(SetLimits(settings={name: 0}))


async def test_one_wrong_value_changes_none(bank: Bank) -> None:
    """An action with a value out of range leaves the others of it undone."""
    with pytest.raises(InvalidOption):
        await bank.perform(SetLimits(settings={"steps_max": 10, "samples_max": 9}))
    assert (await bank.db.read(lambda tx: guilds.get_settings(tx, 1))).steps_max is None


@pytest.mark.parametrize("allowance", [-1, 501, AMOUNT_MAX + 1])
async def test_a_roles_allowance_has_the_same_ceiling(bank: Bank, allowance: int) -> None:
    """What no member may be given, no role may give."""
    with pytest.raises(InvalidOption, match="from 0 to 500"):
        await bank.moderation.perform(bank.actor(), SetRole(role_id=11, allowance=allowance))


async def test_a_new_log_channel_starts_at_the_end_of_the_log(bank: Bank) -> None:
    """A log channel shows what happens from then on, beginning with the action that set it."""
    await bank.perform(BlockText(text="gory"))
    await bank.perform(SetOptions(settings={"log_channel_id": 50}))
    (cursor,) = await bank.db.read(audit_log.pending_cursors)
    entries = await bank.db.read(
        lambda tx: audit_log.entries_after(tx, guild_id=1, entry_id=cursor.last_mirrored_id, limit=9)
    )
    assert [(entry.kind, entry.id) for entry in entries] == [("action", 2)]


async def test_a_blocked_text_changes_its_strictness(bank: Bank) -> None:
    """Blocking it again for fewer channels is a change, unblocking lets it through."""
    assert (await bank.perform(BlockText(text="Gory"))).changes[0].after == "blocked"
    looser = (await bank.perform(BlockText(text="gory", adult_ok=True))).changes
    assert looser == (Change("blocked_text", "blocked", "blocked except in age-restricted channels", "gory"),)
    assert (await bank.perform(UnblockText(text="GORY"))).changes[0].after is None


async def test_a_text_is_unblocked_in_whatever_form_it_was_blocked(bank: Bank) -> None:
    """A word is found in any spelling, a pattern as it was typed, and other texts stay blocked."""
    await bank.perform(BlockText(text="Gory  Scene"))
    await bank.perform(BlockText(text="Go+RY", text_kind="pattern"))
    await bank.perform(UnblockText(text=" GORY scene "))
    assert await bank.db.read(lambda tx: guilds.blocked_texts(tx, 1)) == [
        BlockedText("pattern", "Go+RY", adult_ok=False)
    ]
    await bank.perform(UnblockText(text="Go+RY"))
    with pytest.raises(InvalidOption, match="isn't blocked here"):
        await bank.perform(UnblockText(text="Go+RY"))
