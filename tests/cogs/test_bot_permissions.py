"""Where the bot works, and which permissions it asks for."""

from pathlib import Path

import discord
import pytest

from cogs.bot_permissions import missing_permissions
from tests.support.simulated_server import a_picture, open_world, said, texts


@pytest.mark.parametrize(
    ("given", "in_thread", "missing"),
    [
        ({"view_channel", "send_messages", "attach_files", "embed_links"}, False, []),
        ({"view_channel", "send_messages_in_threads", "attach_files", "embed_links"}, True, []),
        (
            {"view_channel", "send_messages", "attach_files", "embed_links"},
            True,
            ["Send Messages in Threads"],
        ),
        (set(), False, ["View Channel", "Attach Files", "Embed Links", "Send Messages"]),
    ],
)
def test_what_is_missing_is_named_as_discord_names_it(
    given: set[str], in_thread: bool, missing: list[str]
) -> None:
    """A moderator finds each name in Discord's settings; threads have a permission of their own."""
    has = discord.Permissions(**dict.fromkeys(given, True))
    assert missing_permissions(has, in_thread=in_thread) == missing


async def test_missing_permissions_are_listed(tmp_path: Path) -> None:
    """Where several permissions are missing, one sentence lists them."""
    async with open_world(tmp_path) as world:
        me = world.guild.me
        assert me is not None
        denied = discord.PermissionOverwrite(attach_files=False, embed_links=False, send_messages=False)
        silent = world.guild.create_text_channel("silent", overwrites={me: denied})
        refused = await world.alice.slash(silent, "img2img", image=("in.png", a_picture()), prompt="x")
        assert said(refused).content == (
            "The bot can't post pictures here; please ask a moderator to give it these permissions"
            " in this channel: Attach Files, Embed Links and Send Messages."
        )


async def test_a_thread_is_a_place_like_any_other(tmp_path: Path) -> None:
    """The command works in threads."""
    async with open_world(tmp_path) as world:
        parent = world.bot.get_channel(world.channel.id)
        assert isinstance(parent, discord.TextChannel)
        await parent.create_thread(name="thread", type=discord.ChannelType.public_thread)
        (thread,) = world.channel.threads
        await world.alice.slash(thread, "img2img", image=("in.png", a_picture()), prompt="x", seed=5)
        assert "seed `5`" in texts(thread.last_message)


async def test_the_chat_of_a_voice_channel_is_a_place_too(tmp_path: Path) -> None:
    """The command works where people talk."""
    async with open_world(tmp_path) as world:
        voice = world.guild.create_voice_channel("talk")
        await world.alice.slash(voice, "img2img", image=("in.png", a_picture()), prompt="x", seed=5)
        assert "seed `5`" in texts(voice.last_message)


async def test_a_place_without_permission_is_named(tmp_path: Path) -> None:
    """Where the bot may not attach files, it says which permission to ask for."""
    async with open_world(tmp_path) as world:
        me = world.guild.me
        assert me is not None
        silent = world.guild.create_text_channel(
            "silent", overwrites={me: discord.PermissionOverwrite(attach_files=False)}
        )
        refused = await world.alice.slash(silent, "img2img", image=("in.png", a_picture()), prompt="x")
        assert refused.ephemeral
        assert "Attach Files" in said(refused).content
        assert await world.available() == 40
