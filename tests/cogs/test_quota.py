"""`/quota …`: what moderators set, and what holds from then on."""

import asyncio
from pathlib import Path
from typing import Any

import discord
import pytest
import simcord

from cogs.quota import board_text
from tests.support.moderators import confirmed, quota
from tests.support.simulated_server import Sketcher, a_picture, open_world, said


async def test_a_moderator_sees_what_a_member_has(tmp_path: Path) -> None:
    """Allowance, balance and the time it is full again, in private."""
    async with open_world(tmp_path) as world:
        text = await quota(world, "show", member=world.alice)
        assert "Today: **40** of 40 left" in text
        assert "<t:" in text


async def test_an_allowance_of_nothing_refuses_the_next_picture(tmp_path: Path) -> None:
    """A moderator sets a member's allowance to 0, and the next /img2img is refused with a sentence."""
    async with open_world(tmp_path) as world:
        assert "40 → **0**" in await quota(world, "set", member=world.bob, allowance=0)
        refused = await world.img2img(world.bob)
        assert refused.ephemeral
        assert "That costs 4 credits, but you have 0. Please ask a moderator" in said(refused).content
        assert said(await world.img2img(world.alice)).attachments


async def test_a_default_counts_for_the_whole_server(tmp_path: Path) -> None:
    """One command changes the allowance of everyone without one of their own, once it is confirmed."""
    async with open_world(tmp_path) as world:
        answer = await world.moderator.slash(world.channel, "quota server", allowance=7)
        assert "**7**" in said(answer).content
        assert await world.available(world.bob) == 40
        await world.moderator.click(said(answer), label="Confirm")
        assert await world.available(world.bob) == 7
        assert "Daily allowance: **7** (this server's default)" in await quota(
            world, "show", member=world.bob
        )


async def test_the_best_of_a_members_roles_wins_and_is_named(tmp_path: Path) -> None:
    """Roles give an allowance, the best one counts, and /quota show says which."""
    async with open_world(tmp_path) as world:
        small, large = world.guild.create_role("Small"), world.guild.create_role("Large")
        carol = world.guild.add_member(world.env.create_user("carol"), roles=[small, large])
        await confirmed(world, "role", role=small, allowance=50)
        await confirmed(world, "role", role=large, allowance=90)
        text = await quota(world, "show", member=carol)
        assert "Today: **90** of 90 left" in text
        assert f"Daily allowance: **90** (the role <@&{large.id}>, the best of this member's roles)" in text
        await quota(world, "set", member=carol, allowance=60)
        assert "Daily allowance: **60** (this member's own allowance)" in await quota(
            world, "show", member=carol
        )
        await quota(world, "set", member=carol)
        assert "Daily allowance: **90** (the role" in await quota(world, "show", member=carol)
        assert "Today: **40** of 40 left" in await quota(world, "show", member=world.bob)


SERVER_LIMITS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "steps": ({"steps": 10}, {"steps": 11}, "You asked for 11 steps, but this server allows 10"),
    "samples": ({"samples": 2}, {"samples": 3}, "You asked for 3 samples, but this server allows 2"),
    "daily cap": (
        {"daily_cap": 3},
        {},
        "That costs 4 credits, but this server has 3 left of its 3 for today",
    ),
}


@pytest.mark.parametrize("name", list(SERVER_LIMITS))
async def test_a_servers_limit_refuses_with_its_rule(tmp_path: Path, name: str) -> None:
    """A job beyond a server's limit is refused with the limit in the sentence, and costs nothing."""
    limit, options, words = SERVER_LIMITS[name]
    async with open_world(tmp_path) as world:
        await confirmed(world, "server", **limit)
        refused = await world.img2img(world.bob, **options)
        assert refused.ephemeral
        assert words in said(refused).content
        assert await world.available(world.bob) == 40


async def test_slow_mode_makes_a_member_wait(tmp_path: Path) -> None:
    """In slow mode a member's next picture waits its time, other members don't."""
    async with open_world(tmp_path) as world:
        await confirmed(world, "server", slow_mode=60)
        await world.img2img()
        refused = await world.img2img()
        assert "Slow mode" in said(refused).content
        assert "<t:" in said(refused).content
        await world.img2img(world.bob)
        await world.env.advance_time(61)
        again = await world.img2img()
        assert said(again).attachments


async def test_the_largest_size_is_held_against_what_the_picture_turns_out_to_be(tmp_path: Path) -> None:
    """A picture that turns out larger than the server allows is refused in private, at no cost."""
    async with open_world(tmp_path) as world:
        await confirmed(world, "server", size=0.5)
        answer = await world.img2img(image=("in.png", a_picture((1000, 1000))))
        assert any("this server allows 0.5 megapixels" in note.content for note in answer.followups)
        assert await world.available() == 40
        assert said(await world.img2img(world.bob)).attachments


async def test_a_member_has_so_many_under_way(tmp_path: Path) -> None:
    """A server's limits on running and waiting pictures hold below the bot's own."""
    sketcher = Sketcher()
    async with open_world(tmp_path, backends=[sketcher]) as world:
        await confirmed(world, "server", running=1, waiting=1)
        sketcher.gate = asyncio.get_running_loop().create_future()
        with world.burst():
            answers = [await world.img2img() for _ in range(4)]
        await world.env.settle()
        assert sum("2 pictures in progress, the most this server allows" in _text(a) for a in answers) == 2
        assert len(sketcher.calls) == 1
        sketcher.gate.set_result(None)
        await world.env.settle()
        assert len(sketcher.calls) == 2


def _text(answer: simcord.InteractionResult) -> str:
    return (said(answer).content or "") if answer.response else ""


async def test_a_cleared_limit_is_the_bots_again(tmp_path: Path) -> None:
    """What a moderator set can be given back."""
    async with open_world(tmp_path) as world:
        await confirmed(world, "server", steps=10)
        assert "Maximum steps: **10** (set by this server)" in await quota(world, "show")
        await confirmed(world, "server", clear="steps")
        assert "Maximum steps: **100** (bot maximum)" in await quota(world, "show")


async def test_a_blocked_member_is_told_and_let_in_again(tmp_path: Path) -> None:
    """Who is blocked can make nothing, neither by command nor by button, until unblocked."""
    async with open_world(tmp_path) as world:
        await world.img2img(world.bob)
        card = world.card
        await quota(world, "block", member=world.bob)
        assert card is not None
        for refused in (await world.img2img(world.bob), await world.bob.click(card, label="Reroll")):
            assert "blocked you from using this bot" in said(refused).content
        await quota(world, "unblock", member=world.bob)
        assert said(await world.img2img(world.bob)).attachments


async def test_frozen_credits_stay_where_they_are(tmp_path: Path) -> None:
    """A frozen member neither spends nor gets credits, and finds them untouched when freed."""
    async with open_world(tmp_path) as world:
        await quota(world, "freeze", member=world.bob)
        assert "frozen" in said(await world.img2img(world.bob)).content
        assert "frozen" in await quota(world, "grant", member=world.bob, amount=5)
        await quota(world, "freeze", member=world.bob, on=False)
        assert await world.available(world.bob) == 40


async def test_a_stopped_server_makes_nothing(tmp_path: Path) -> None:
    """Moderators can stop the bot in their server with one command, and let it go on."""
    async with open_world(tmp_path) as world:
        await confirmed(world, "freeze")
        assert "stopped the bot" in said(await world.img2img()).content
        await confirmed(world, "freeze", on=False)
        assert said(await world.img2img()).attachments


async def test_pictures_only_where_moderators_want_them(tmp_path: Path) -> None:
    """Forbidden channels refuse; once channels are allowed, all others refuse and name them."""
    async with open_world(tmp_path) as world:
        await quota(world, "channels", channel=world.channel, rule="forbid")
        assert "isn't allowed in this channel" in said(await world.img2img()).content
        other = world.guild.create_text_channel("other")
        await quota(world, "channels", channel=world.channel, rule="forget")
        await quota(world, "channels", channel=other, rule="allow")
        assert f"<#{other.id}>" in said(await world.img2img()).content
        made = await world.alice.slash(other, "img2img", image=("in.png", a_picture()), prompt="x")
        assert said(made).attachments


async def test_a_role_that_opens_the_bot(tmp_path: Path) -> None:
    """Once a role opens the bot, members without one are told which role they need."""
    async with open_world(tmp_path) as world:
        role = world.guild.create_role("Painters")
        carol = world.guild.add_member(world.env.create_user("carol"), roles=[role])
        await confirmed(world, "role", role=role, opens_bot=True)
        assert f"<@&{role.id}>" in said(await world.img2img()).content
        assert said(await world.img2img(carol)).attachments
        await confirmed(world, "role", role=role, allowance=50)
        assert f"<@&{role.id}>" in said(await world.img2img()).content
        await confirmed(world, "role", role=role, forget=True)
        assert said(await world.img2img()).attachments


async def test_a_reset_gives_back_what_was_used_today(tmp_path: Path) -> None:
    """A member, or everyone at once, has the whole allowance again."""
    async with open_world(tmp_path) as world:
        await world.img2img()
        await world.img2img(world.bob)
        assert "38 → **40**" in await quota(world, "reset", member=world.alice)
        assert await world.available() == 40
        await confirmed(world, "reset")
        assert await world.available(world.bob) == 40
        assert await world.ledger_faults() == []


async def test_the_leaderboard_counts_what_was_paid(tmp_path: Path) -> None:
    """Who spent most comes first, for everyone to see where a moderator wants that."""
    async with open_world(tmp_path) as world:
        await world.img2img(world.bob, samples=3)
        await world.img2img()
        answer = await world.moderator.slash(world.channel, "quota leaderboard", public=True)
        assert not answer.ephemeral
        assert said(answer).content.index(world.bob.mention) < said(answer).content.index(world.alice.mention)


async def test_an_operators_ceiling_is_above_moderators(tmp_path: Path) -> None:
    """No moderator gives more than the operator allows, and a lowered ceiling holds at once."""
    async with open_world(tmp_path, allowance_max=30, grant_max=100, steps_max=50) as world:
        assert "from 0 to 30" in await quota(world, "set", member=world.bob, allowance=31)
        assert "from 1 to 100" in await quota(world, "grant", member=world.bob, amount=101)
        assert "from 1 to 50" in await quota(world, "server", steps=51)
        shown = await quota(world, "show", member=world.bob)
        assert "Daily allowance: **30** (the operator's maximum" in shown
        assert "the bot allows 50" in said(await world.img2img(steps=51)).content


async def test_servers_share_the_operators_daily_cap(tmp_path: Path) -> None:
    """However many servers race for it, no more is spent a day than the operator allows."""
    async with open_world(tmp_path, provider_daily_max=11) as world:
        other = world.env.create_guild("Other")
        channel = other.create_text_channel("pictures")
        member = other.add_member(world.env.create_user("carol"))
        picture = ("in.png", a_picture())
        with world.burst():
            for _ in range(3):
                await world.img2img()
                await member.slash(channel, "img2img", image=picture, prompt="x")
        await world.env.settle()
        made = await world.app.db.read(lambda tx: tx.execute("SELECT sum(price) FROM job").fetchone()[0])
        assert made == 8
        refused = await world.img2img(steps=100)
        assert "reached its daily limit" in said(refused).content


COMMANDS: dict[str, dict[str, Any]] = {
    "show": {"member": "bob"},
    "set": {"member": "bob", "allowance": 1},
    "server": {"allowance": 1},
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
        text = await quota(world, command, who=world.alice, **options)
        assert "You need the Manage Server permission" in text
        assert await world.available(world.bob) == 40


async def test_quota_is_hidden_from_members(tmp_path: Path) -> None:
    """Members are not even offered the moderators' commands."""
    async with open_world(tmp_path) as world:
        assert not [name for name in world.alice.available_commands(world.channel) if "quota" in name]


async def test_commands_fit_into_discords_limits(tmp_path: Path) -> None:
    """All commands together are accepted: names, descriptions and options within their bounds."""
    async with open_world(tmp_path) as world:
        for command in world.bot.tree.get_commands(type=discord.AppCommandType.chat_input):
            assert len(str(command.to_dict(world.bot.tree))) < 8000


@pytest.mark.parametrize(
    ("board", "lines"),
    [
        ([], ["Nobody has spent credits here in the last 30 days."]),
        ([(5, 1, 1)], ["Most credits spent in the last 30 days:", "1. <@5>: 1 credit, 1 job"]),
        ([(5, 2, 2), (6, 1, 0)], ["1. <@5>: 2 credits, 2 jobs", "2. <@6>: 1 credit, 0 jobs"]),
    ],
)
def test_the_leaderboard_is_a_numbered_list(board: list[tuple[int, int, int]], lines: list[str]) -> None:
    """Rank, member, credits, jobs; an empty one says so."""
    assert board_text(board).splitlines()[-len(lines) :] == lines


async def test_whoever_looks_sees_what_keeps_a_member_out(tmp_path: Path) -> None:
    """/quota show lists the refusals that the member would read, each once."""
    async with open_world(tmp_path) as world:
        role = world.guild.create_role("Artists")
        await confirmed(world, "role", role=role, opens_bot=True)
        await quota(world, "block", member=world.bob)
        await quota(world, "freeze", member=world.bob)
        text = await quota(world, "show", member=world.bob)
        assert text.count("⛔ Can't make pictures") == 3
        assert f"<@&{role.id}>" in text
