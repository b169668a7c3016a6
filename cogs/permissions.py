"""What the bot and the people who use it may do where they are: pure checks, each with its sentence."""

from __future__ import annotations

from typing import Any, Final

import discord

from bot.credits.limits import Person, Place
from bot.errors import NotAllowed
from bot.gateway.interactions import NOT_IN_A_SERVER
from cogs.text import listed

#: What the bot needs to show a picture, besides sending messages: its name in discord.py and on Discord.
NEEDED: Final = {
    "view_channel": "View Channel",
    "attach_files": "Attach Files",
    "embed_links": "Embed Links",
}


def missing_permissions(has: discord.Permissions, *, in_thread: bool = False) -> list[str]:
    """Return the names, as Discord shows them, of the permissions that the bot lacks to show pictures."""
    sending = (
        {"send_messages_in_threads": "Send Messages in Threads"}
        if in_thread
        else {"send_messages": "Send Messages"}
    )
    return [label for name, label in {**NEEDED, **sending}.items() if not getattr(has, name)]


def check_place(interaction: discord.Interaction[Any]) -> None:
    """Raise `NotAllowed` unless the bot may show pictures in the interaction's channel."""
    if interaction.guild_id is None or interaction.channel_id is None:
        raise NotAllowed(NOT_IN_A_SERVER)
    in_thread = isinstance(interaction.channel, discord.Thread)
    if missing := missing_permissions(interaction.app_permissions, in_thread=in_thread):
        raise NotAllowed(
            "I can't show pictures here; please ask a moderator to give me these permissions"
            f" in this channel: {listed(missing)}."
        )


def is_moderator(interaction: discord.Interaction[Any]) -> bool:
    """Return whether whoever acts may manage the messages of others here."""
    return interaction.guild_id is not None and interaction.permissions.manage_messages


def roles_of(user: discord.abc.User) -> frozenset[int]:
    """Return the ids of a member's roles; none for somebody who is no member of the server."""
    return frozenset(role.id for role in user.roles) if isinstance(user, discord.Member) else frozenset()


def person_of(interaction: discord.Interaction[Any]) -> Person:
    """Return who acts, to check the server's limits for them. Raises `NotAllowed` outside a server."""
    return Person(server_of(interaction), interaction.user.id, roles_of(interaction.user))


def server_of(interaction: discord.Interaction[Any]) -> int:
    """Return the server's id. Raises `NotAllowed` outside a server."""
    if interaction.guild_id is None:
        raise NotAllowed(NOT_IN_A_SERVER)
    return interaction.guild_id


def place_of(interaction: discord.Interaction[Any]) -> Place:
    """Return the channel to check the server's rules for; a rule on a thread's parent holds for it too."""
    channel = interaction.channel
    ids = [interaction.channel_id, getattr(channel, "parent_id", None)]
    is_nsfw = getattr(channel, "is_nsfw", None)
    return Place(tuple(id_ for id_ in ids if id_ is not None), bool(is_nsfw and is_nsfw()))


def check_manager(interaction: discord.Interaction[Any]) -> None:
    """Raise `NotAllowed` unless whoever acts manages this server.

    Checked in every command: default permissions are a default that a server may override.
    """
    if interaction.guild_id is None or not interaction.permissions.manage_guild:
        raise NotAllowed("Only moderators who may manage this server can do that.")
