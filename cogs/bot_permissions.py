"""What the bot may do in a channel: pure checks, each with its sentence."""

from __future__ import annotations

from typing import Any, Final

import discord

from bot.errors import NotAllowed
from bot.gateway.sentences import NOT_IN_A_SERVER
from bot.text import listed

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


def check_channel(interaction: discord.Interaction[Any]) -> None:
    """Raise `NotAllowed` unless the bot may show pictures in the interaction's channel."""
    if interaction.guild_id is None or interaction.channel_id is None:
        raise NotAllowed(NOT_IN_A_SERVER)
    in_thread = isinstance(interaction.channel, discord.Thread)
    if missing := missing_permissions(interaction.app_permissions, in_thread=in_thread):
        raise NotAllowed(
            "The bot can't post pictures here; please ask a moderator to give it these permissions"
            f" in this channel: {listed(missing)}."
        )
