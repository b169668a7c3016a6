"""Where the bot may work: pure checks of a place, each with the sentence that says what is missing."""

from __future__ import annotations

from typing import Any, Final

import discord

from bot.errors import NotAllowed

_NEEDED: Final = {
    "view_channel": "View Channel",
    "attach_files": "Attach Files",
    "embed_links": "Embed Links",
}


def check_place(interaction: discord.Interaction[Any]) -> None:
    """Raise `NotAllowed` unless the bot may show pictures where it was asked to."""
    if interaction.guild_id is None or interaction.channel_id is None:
        raise NotAllowed("That works only in a server, not in a direct message.")
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


def check_manager(interaction: discord.Interaction[Any]) -> None:
    """Raise `NotAllowed` unless whoever acts manages this server.

    Checked in every command: default permissions are a default that a server may override.
    """
    if interaction.guild_id is None or not interaction.permissions.manage_guild:
        raise NotAllowed("Only moderators who may manage this server can do that.")
