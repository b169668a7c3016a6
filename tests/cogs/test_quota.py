"""`/quota …` and `/credits`: what moderators set and members see."""

from pathlib import Path
from typing import Any

import discord
import pytest
import simcord

from tests.discord.simulator import World, open_world, said, texts


async def _quota(world: World, command: str, who: simcord.MemberActor | None = None, **options: Any) -> str:
    answer = await (who or world.moderator).slash(world.channel, f"quota {command}", **options)
    assert answer.ephemeral
    return str(said(answer).content)


async def test_a_moderator_sees_what_a_member_has(tmp_path: Path) -> None:
    """Allowance, balance and the time it is full again, in private."""
    async with open_world(tmp_path) as world:
        text = await _quota(world, "show", member=world.alice)
        assert "**40** of a daily 40" in text
        assert "<t:" in text


async def test_an_allowance_of_nothing_refuses_the_next_picture(tmp_path: Path) -> None:
    """A moderator sets a member's allowance to 0, and the next /img2img is refused with a sentence."""
    async with open_world(tmp_path) as world:
        assert "was 40 and is now **0**" in await _quota(world, "set", member=world.bob, allowance=0)
        refused = await world.img2img(world.bob)
        assert refused.ephemeral
        assert "That costs 4 credits and you have 0. Please ask a moderator" in said(refused).content
        assert said(await world.img2img(world.alice)).attachments


async def test_granting_and_taking_show_before_and_after(tmp_path: Path) -> None:
    """A moderator sees what changed, and the member can spend it."""
    async with open_world(tmp_path) as world:
        assert "was 0 and is now **100**" in await _quota(world, "grant", member=world.alice, amount=100)
        assert await world.available() == 140
        assert "was 100 and is now **70**" in await _quota(world, "take", member=world.alice, amount=30)
        assert await world.available() == 110


async def test_a_default_counts_for_the_whole_server(tmp_path: Path) -> None:
    """One command changes the allowance of everyone without one of their own."""
    async with open_world(tmp_path) as world:
        assert "was 40 and is now **7**" in await _quota(world, "default", allowance=7)
        assert await world.available(world.bob) == 7


COMMANDS: dict[str, dict[str, Any]] = {
    "show": {"member": "bob"},
    "set": {"member": "bob", "allowance": 1},
    "default": {"allowance": 1},
    "grant": {"member": "bob", "amount": 1},
    "take": {"member": "bob", "amount": 1},
}


@pytest.mark.parametrize("command", list(COMMANDS))
async def test_a_member_let_in_by_an_override_is_still_refused(tmp_path: Path, command: str) -> None:
    """Where a server opened /quota to everyone, only those who manage the server may use it all the same."""
    async with open_world(tmp_path) as world:
        root = next(c for c in await world.bot.tree.fetch_commands() if c.name == "quota")
        world.guild.set_command_permissions(root.id, {world.alice: True})
        options = {k: world.bob if v == "bob" else v for k, v in COMMANDS[command].items()}
        text = await _quota(world, command, who=world.alice, **options)
        assert "Only moderators who may manage this server" in text
        assert await world.available(world.bob) == 40


async def test_quota_is_hidden_from_members(tmp_path: Path) -> None:
    """Members are not even offered the moderators' commands."""
    async with open_world(tmp_path) as world:
        assert not [name for name in world.alice.available_commands(world.channel) if "quota" in name]


async def test_members_see_their_credits(tmp_path: Path) -> None:
    """Allowance left, when it returns, the balance, and what a typical picture costs."""
    async with open_world(tmp_path) as world:
        await world.img2img()
        answer = await world.alice.slash(world.channel, "credits")
        text = texts(said(answer))
        assert answer.ephemeral
        assert "You can spend 38 credits" in text
        assert "**38** of 40 left" in text
        assert "typical picture costs 4 credits" in text


async def test_history_shows_a_picture_again(tmp_path: Path) -> None:
    """A member finds his pictures again, to himself; nobody else can open them."""
    async with open_world(tmp_path) as world:
        await world.img2img(prompt="a lighthouse")
        answer = await world.alice.slash(world.channel, "history")
        assert "a lighthouse" in texts(said(answer))
        shown = await world.alice.click(said(answer).message, label="Show")
        assert shown.ephemeral
        assert len(said(shown).attachments) == 1
        theirs = await world.bob.slash(world.channel, "history")
        assert "Nothing here yet" in texts(said(theirs))


async def test_nothing_works_in_direct_messages(tmp_path: Path) -> None:
    """Credits belong to servers: in a direct message the commands are not there."""
    async with open_world(tmp_path) as world:
        assert not world.alice.user.available_commands()


async def test_commands_fit_into_discords_limits(tmp_path: Path) -> None:
    """All commands together are accepted: names, descriptions and options within their bounds."""
    async with open_world(tmp_path) as world:
        for command in world.bot.tree.get_commands(type=discord.AppCommandType.chat_input):
            assert len(str(command.to_dict(world.bot.tree))) < 8000
