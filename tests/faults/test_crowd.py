"""Many members at once."""

import asyncio
from pathlib import Path

import pytest

from tests.support.simulated_server import Sketcher, a_picture, open_world

GUILDS = 50
MEMBERS_OF_EACH = 10


@pytest.mark.timeout(600)  # a minute on two idle cores, and several under coverage on busy ones
async def test_five_hundred_members_at_once_are_all_served(tmp_path: Path) -> None:
    """In a rush of 500 members in 50 servers everyone is served, and the ledger is consistent."""
    async with open_world(tmp_path, backends=[Sketcher()], waiting_max=1000) as world:
        channels = []
        crowd = []
        for g in range(GUILDS):
            guild = world.env.create_guild(f"Server {g}")
            channels.append(guild.create_text_channel("pictures"))
            members = (world.env.create_user(f"member-{g}-{m}") for m in range(MEMBERS_OF_EACH))
            crowd += [(guild.add_member(member), channels[-1]) for member in members]
        picture = ("in.png", a_picture((64, 64)))
        with world.burst():
            answers = [
                await member.slash(channel, "img2img", image=picture, prompt="x", seed=1)
                for member, channel in crowd
            ]
        await world.env.settle(timeout=100)
        assert all(answer.acknowledged for answer in answers)
        cards = [message for channel in channels for message in channel.history()]
        assert len(cards) == GUILDS * MEMBERS_OF_EACH
        assert all(len(card.attachments) == 1 for card in cards)
        assert await world.ledger_faults() == []


async def test_a_flood_in_one_server_keeps_no_other_waiting(tmp_path: Path) -> None:
    """While one server floods the bot, members of other servers are served as if it were not there."""
    sketcher = Sketcher()
    async with open_world(tmp_path, backends=[sketcher], member_waiting_max=100) as world:
        quiet = []
        for g in range(5):
            guild = world.env.create_guild(f"Quiet {g}")
            member = guild.add_member(world.env.create_user(f"quiet-{g}"))
            quiet.append((member, guild.create_text_channel("pictures")))
        gate = sketcher.gate = asyncio.get_running_loop().create_future()
        flood = [world.guild.add_member(world.env.create_user(f"flood-{n}")) for n in range(6)]
        for n in range(30):
            await world.img2img(flood[n % 6], prompt="flood")
        for member, channel in quiet:
            await member.slash(channel, "img2img", image=("in.png", a_picture()), prompt="quiet")
        sketcher.gate = None
        gate.set_result(None)
        await world.env.settle(timeout=60)
        order = [params.prompt for params, _ in sketcher.calls]
        # Two were running when the quiet ones came; after that at most one of the flood goes before each.
        assert max(position for position, prompt in enumerate(order) if prompt == "quiet") <= 2 + 2 * len(
            quiet
        )
        assert len(order) == 35
        assert await world.ledger_faults() == []
