"""Moderation commands answered: what changed, or what would change and whether to do it."""

from pathlib import Path
from typing import Any

import pytest

from cogs.outcomes import NOTHING_CHANGED
from tests.support.moderators import confirmed, quota
from tests.support.simulated_server import open_world, said


async def test_granting_and_taking_show_before_and_after(tmp_path: Path) -> None:
    """A moderator sees what changed, and the member can spend it."""
    async with open_world(tmp_path) as world:
        assert "0 → **100**" in await quota(world, "grant", member=world.alice, amount=100)
        assert await world.available() == 140
        assert "100 → **70**" in await quota(world, "take", member=world.alice, amount=30)
        assert await world.available() == 110


async def test_what_is_left_alone_changes_nothing(tmp_path: Path) -> None:
    """A moderator who thinks again leaves everything as it was, and can't confirm afterwards."""
    async with open_world(tmp_path) as world:
        answer = await world.moderator.slash(world.channel, "quota grant", member=world.bob, amount=5000)
        message = said(answer)
        await world.moderator.click(message, label="Cancel")
        assert await world.available(world.bob) == 40


async def test_a_confirmation_counts_once_and_for_its_moderator(tmp_path: Path) -> None:
    """A large grant is made once however often it is confirmed, and only by whoever proposed it."""
    async with open_world(tmp_path) as world:
        foreseen, _ = await confirmed(world, "grant", member=world.bob, amount=5000)
        assert "0 → **5,000**" in foreseen
        assert await world.available(world.bob) == 5040
        records = await quota(world, "history", member=world.bob)
        assert "grant" in records
        assert "0 → 5,000" in records


async def test_the_same_number_by_another_rule_is_a_change(tmp_path: Path) -> None:
    """An own allowance of what a member has anyway is set; setting it once more changes nothing."""
    async with open_world(tmp_path) as world:
        assert f"Own daily allowance of <@{world.bob.id}>: none → **40**" in await quota(
            world, "set", member=world.bob, allowance=40
        )
        assert await quota(world, "set", member=world.bob, allowance=40) == NOTHING_CHANGED
        assert "(this member's own allowance)" in await quota(world, "show", member=world.bob)
        await confirmed(world, "server", allowance=9)
        assert "**40** of 40 left" in await quota(world, "show", member=world.bob)


REPEATED: dict[str, dict[str, Any]] = {
    "set": {"member": "bob", "allowance": 7},
    "block": {"member": "bob"},
    "freeze": {"member": "bob"},
    "server": {"steps": 10},
    "role": {"role": "role", "allowance": 5},
    "channels": {"channel": "channel", "rule": "forbid"},
}


@pytest.mark.parametrize("command", list(REPEATED))
async def test_what_is_set_already_is_neither_asked_nor_changed(tmp_path: Path, command: str) -> None:
    """Nobody has to confirm "10 → 10"; the answer says that nothing changed."""
    async with open_world(tmp_path) as world:
        own: dict[str, Any] = {
            "bob": world.bob,
            "channel": world.channel,
            "role": world.guild.create_role("Artists"),
        }
        options = {k: own.get(v, v) if isinstance(v, str) else v for k, v in REPEATED[command].items()}
        answer = await world.moderator.slash(world.channel, f"quota {command}", **options)
        if "Apply these changes?" in said(answer).content:
            await world.moderator.click(said(answer), label="Confirm")
        assert "→" in said(answer).content
        assert await quota(world, command, **options) == NOTHING_CHANGED


@pytest.mark.parametrize(
    ("command", "options", "words"),
    [
        ("take", {"amount": 5}, "Nothing changed: there is nothing to take."),
        ("take", {"amount": 5000}, "Nothing changed: there is nothing to take."),
        ("reset", {}, "Nothing changed: nothing of today's allowance was used."),
        ("unblock", {}, NOTHING_CHANGED),
    ],
)
async def test_what_moves_nothing_says_why(
    tmp_path: Path, command: str, options: dict[str, Any], words: str
) -> None:
    """Taking from nothing and refilling what is full are no settings, and ask for no confirmation."""
    async with open_world(tmp_path) as world:
        assert await quota(world, command, member=world.bob, **options) == words


CONFIRMED: dict[str, tuple[str, dict[str, Any], str]] = {
    "grant": ("grant", {"member": "bob", "amount": 5000}, "0 → **5,000**"),
    "server": ("server", {"steps": 10}, "Maximum steps: bot default → **10**"),
    "stop": ("freeze", {}, "Server stopped: no → **yes**"),
}


@pytest.mark.parametrize("name", list(CONFIRMED))
async def test_confirming_twice_answers_the_same_twice(tmp_path: Path, name: str) -> None:
    """Two presses at the same moment change it once, and both answers list that change."""
    command, options, words = CONFIRMED[name]
    async with open_world(tmp_path) as world:
        options = {k: world.bob if v == "bob" else v for k, v in options.items()}
        answer = await world.moderator.slash(world.channel, f"quota {command}", **options)
        assert "Apply these changes?" in said(answer).content
        with world.burst():
            presses = [await world.moderator.click(said(answer), label="Confirm") for _ in range(2)]
        await world.env.settle()
        assert words in said(answer).content
        assert "Apply" not in said(answer).content
        assert not any(press.followups for press in presses)
        records = await world.app.db.read(
            lambda tx: tx.execute("SELECT count(*) FROM audit_record").fetchone()[0]
        )
        assert records == 1
        assert await world.ledger_faults() == []


async def test_cancelling_twice_changes_nothing(tmp_path: Path) -> None:
    """A proposal that was cancelled is cancelled; the second press is answered in private."""
    async with open_world(tmp_path) as world:
        answer = await world.moderator.slash(world.channel, "quota server", steps=10)
        with world.burst():
            first, second = [await world.moderator.click(said(answer), label="Cancel") for _ in range(2)]
        await world.env.settle()
        assert said(answer).content == "Cancelled; nothing was changed."
        assert "Something went wrong" not in (said(first).content + said(second).content)
        assert "Maximum steps: **100**" in await quota(world, "show")
