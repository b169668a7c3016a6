"""Who acts on whom: members, people who have left, nobody outside a server."""

from pathlib import Path
from typing import Any

import discord
import pytest
import simcord

from bot.errors import NotAllowed
from cogs.actors import guild_id_of, roles_of
from tests.support.moderators import confirmed, quota
from tests.support.simulated_server import World, open_world

#: Commands on somebody who has left, and what the answer says.
ON_SOMEBODY: dict[str, tuple[dict[str, Any], str]] = {
    "show": ({}, "Today: **40** of 40 left"),
    "set": ({"allowance": 7}, "Daily allowance of {who}: 40 → **7**"),
    "grant": ({"amount": 5}, "Balance of {who}: 10 → **15**"),
    "take": ({"amount": 4}, "Balance of {who}: 10 → **6**"),
    "reset": ({}, "Daily credits left for {who}: 36 → **40**"),
    "freeze": ({}, "Credits of {who} frozen: no → **yes**"),
    "block": ({}, "{who} blocked: no → **yes**"),
    "unblock": ({}, "Nothing changed"),
    "history": ({}, "Balance of {who}: 0 → 10"),
}


def somebody_who_has_left(world: World, actor: simcord.MemberActor) -> simcord.UserHandle:
    """Let a member leave; Discord's clients still offer them, and send no roles or permissions along."""
    world.guild.remove_member(actor)
    return actor.user


@pytest.mark.parametrize("command", list(ON_SOMEBODY))
async def test_quota_works_on_somebody_who_has_left(tmp_path: Path, command: str) -> None:
    """Their credits and records are still there; no answer shows how Python writes a user."""
    options, words = ON_SOMEBODY[command]
    async with open_world(tmp_path) as world:
        await quota(world, "grant", member=world.bob, amount=10)
        if command == "reset":
            await world.img2img(world.bob)
            words = words.replace("36", "38")
        left = somebody_who_has_left(world, world.bob)
        text = await quota(world, command, member=left, **options)
        assert words.format(who=f"<@{left.id}>") in text
        for trace in ("<User", "<Member", "object at", "discriminator"):
            assert trace not in text
        assert await world.ledger_faults() == []


async def test_a_large_grant_to_somebody_who_has_left_is_confirmed_as_usual(tmp_path: Path) -> None:
    """What is stored to be confirmed needs no member either."""
    async with open_world(tmp_path) as world:
        left = somebody_who_has_left(world, world.bob)
        announced, done = await confirmed(world, "grant", member=left, amount=5000)
        assert announced == f"Apply these changes?\n{done}"
        assert f"Balance of <@{left.id}>: 0 → **5,000**" in done


async def test_whoever_comes_back_finds_what_was_set_meanwhile(tmp_path: Path) -> None:
    """A block and an allowance of somebody who left hold when they join again."""
    async with open_world(tmp_path) as world:
        left = somebody_who_has_left(world, world.bob)
        await quota(world, "set", member=left, allowance=7)
        await quota(world, "block", member=left)
        again = world.guild.add_member(left)
        answer = await world.img2img(again)
        assert answer.response is not None
        assert "blocked you from using this bot" in answer.response.content
        assert await world.available(again) == 7


async def test_a_role_counts_only_while_somebody_is_a_member(tmp_path: Path) -> None:
    """Somebody who has left has no roles, so that the server's allowance is shown for them."""
    async with open_world(tmp_path) as world:
        role = world.guild.create_role("Artists")
        carol = world.guild.add_member(world.env.create_user("carol"), roles=[role])
        await confirmed(world, "role", role=role, allowance=90)
        assert "**90** of 90" in await quota(world, "show", member=carol)
        assert "**40** of 40" in await quota(world, "show", member=somebody_who_has_left(world, carol))


async def test_nothing_works_in_direct_messages(tmp_path: Path) -> None:
    """Credits belong to servers: in a direct message the commands are not there."""
    async with open_world(tmp_path) as world:
        assert not world.alice.user.available_commands()


def test_an_interaction_outside_a_server_is_refused() -> None:
    """A client that sends a command from a direct message all the same gets a sentence."""
    interaction: Any = type("Interaction", (), {"guild_id": None})()
    with pytest.raises(NotAllowed, match="only in a server"):
        guild_id_of(interaction)


def test_a_user_has_no_roles() -> None:
    """Only members have roles."""
    user: Any = discord.Object(1)
    assert roles_of(user) == frozenset()
