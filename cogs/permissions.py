"""Where the bot may work: pure checks of a place, each with the sentence that says what is missing."""

from __future__ import annotations

from typing import Any, Final

import discord

from bot.credits.limits import Person, Place
from bot.errors import NotAllowed
from bot.gateway.interactions import NOT_IN_A_SERVER

_NEEDED: Final = {
    "view_channel": "View Channel",
    "attach_files": "Attach Files",
    "embed_links": "Embed Links",
}


def check_place(interaction: discord.Interaction[Any]) -> None:
    """Raise `NotAllowed` unless the bot may show pictures where it was asked to."""
    if interaction.guild_id is None or interaction.channel_id is None:
        raise NotAllowed(NOT_IN_A_SERVER)
    has = interaction.app_permissions
    missing = [label for name, label in _NEEDED.items() if not getattr(has, name)]
    in_thread = isinstance(interaction.channel, discord.Thread)
    if not (has.send_messages_in_threads if in_thread else has.send_messages):
        missing.append("Send Messages in Threads" if in_thread else "Send Messages")
    if missing:
        wanted = " and ".join(missing)
        raise NotAllowed(
            f"I can't show pictures here; please ask a moderator to give me {wanted} in this channel."
        )


def is_moderator(interaction: discord.Interaction[Any]) -> bool:
    """Tell whether whoever acts may manage the messages of others here."""
    return interaction.guild_id is not None and interaction.permissions.manage_messages


def roles_of(user: discord.abc.User) -> frozenset[int]:
    """Return the ids of the roles that a member has; nobody's outside a server."""
    return frozenset(role.id for role in user.roles) if isinstance(user, discord.Member) else frozenset()


def person_of(interaction: discord.Interaction[Any]) -> Person:
    """Return who acts, for the server's rules. Raises `NotAllowed` outside a server."""
    return Person(server_of(interaction), interaction.user.id, roles_of(interaction.user))


def server_of(interaction: discord.Interaction[Any]) -> int:
    """Return the server's id. Raises `NotAllowed` outside a server."""
    if interaction.guild_id is None:
        raise NotAllowed(NOT_IN_A_SERVER)
    return interaction.guild_id


def place_of(interaction: discord.Interaction[Any]) -> Place:
    """Return where someone acts, for the server's rules: of a thread, its parent counts as well."""
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
