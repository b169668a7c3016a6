"""The one place where an error becomes the sentence that a person on Discord reads."""

from __future__ import annotations

import re
from typing import Final

import discord
from discord import app_commands

from bot.errors import BotError, ChannelNotAllowed, NotAllowed, PromptBlocked, RoleRequired
from bot.gateway.escaping import plain
from bot.text import listed
from db.database import CommitFailed

NO_DISK: Final = (
    "The bot can't save anything right now, so nothing was charged."
    " Its operator has been notified; please try again in a few minutes."
)
NOT_IN_A_SERVER: Final = "That works only in a server, not in a direct message."
NOT_A_MEMBER: Final = "That person is no longer in this server; please pick a current member."
NAMES_LISTED: Final = 5  # roles or channels: more would hide what to do
WORD_CHARS_MAX: Final = 100  # as long as a blocked word can be
#: Repeated in a sentence as it is; anything else could be markup, or an object's repr.
_HARMLESS: Final = re.compile(r"[\w .+-]{1,50}")


def sentence_of(error: BaseException) -> str | None:
    """Return the sentence that explains `error` to a person; None for an unexpected error."""
    if isinstance(error, BotError):
        return _of_bot_error(error)
    if isinstance(error, CommitFailed):
        return NO_DISK
    if isinstance(error, app_commands.NoPrivateMessage):
        return NOT_IN_A_SERVER
    if isinstance(error, app_commands.CheckFailure):
        return str(NotAllowed())
    if isinstance(error, app_commands.TransformerError):
        return _not_an_option(error.value)
    return None


def _of_bot_error(error: BotError) -> str:
    """Return the error's own sentence, or one that names roles, channels or times as Discord shows them."""
    match error:
        case RoleRequired(role_ids=role_ids):
            roles = _any_of([f"<@&{role_id}>" for role_id in role_ids], "another such role")
            one = "that role" if len(role_ids) == 1 else "one of these roles"
            return f"Only members with {roles} can use the bot here; please ask a moderator for {one}."
        case ChannelNotAllowed(channel_ids=channel_ids):
            channels = _any_of([f"<#{channel_id}>" for channel_id in channel_ids], "another allowed channel")
            return f"The bot isn't allowed in this channel; please use {channels}."
        case PromptBlocked(word=str(word)):
            text = plain(word, WORD_CHARS_MAX)
            return f"Moderators have blocked “{text}” in prompts here; please change yours."
    return str(error) if error.until is None else f"{error} <t:{int(error.until)}:R>."


def _any_of(names: list[str], others: str) -> str:
    return listed(names if len(names) <= NAMES_LISTED else [*names[:NAMES_LISTED], others], "or")


def _not_an_option(value: object) -> str:
    if isinstance(value, discord.abc.User):
        return NOT_A_MEMBER
    text = str(value) if isinstance(value, (str, int, float)) else ""
    what = f"“{plain(text, len(text))}”" if _HARMLESS.fullmatch(text) else "That"
    return f"{what} isn't an option here; please pick one from the list."
