"""Replies to interactions: what was asked for, or the sentence that explains why not.

The command tree, every button and every modal hand their errors to `explain`, so
that whoever acts gets one private sentence, and the traceback goes only to the log.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Final

import aiohttp
import discord
from discord import app_commands, ui

from bot.gateway.sentences import sentence_of

log = logging.getLogger(__name__)

#: Unknown interaction, already acknowledged, invalid webhook token, unknown webhook: nobody can be answered.
GONE_CODES: Final = frozenset({10062, 40060, 50027, 10015})
#: What a request to Discord raises: an error response, or a failed connection.
TROUBLE: Final = (discord.HTTPException, aiohttp.ClientError, OSError)
NO_MENTIONS: Final = discord.AllowedMentions.none()
BROKEN: Final = "Something went wrong on our side. You weren't charged; please try again in a minute."


async def explain(interaction: discord.Interaction, error: BaseException) -> None:
    """Answer in private what went wrong; log an error that nobody expected."""
    if isinstance(error, app_commands.CommandInvokeError):
        error = error.original
    if is_gone(error):
        log.info("An interaction expired before it could be answered: %s", error)
        return
    sentence = sentence_of(error)
    if sentence is None:
        log.error("Unhandled error in an interaction", exc_info=error)
    await reply(interaction, sentence or BROKEN)


def is_gone(error: BaseException) -> bool:
    """Return whether Discord says that the interaction can't be answered any more."""
    return isinstance(error, discord.HTTPException) and error.code in GONE_CODES


async def reply(
    interaction: discord.Interaction,
    text: str,
    *,
    buttons: Sequence[ui.Item[Any]] = (),
    files: Sequence[discord.File] = (),
    private: bool = True,
) -> None:
    """Answer, in private unless asked otherwise, whether or not the interaction was answered before."""
    more: dict[str, Any] = {"ephemeral": private, "allowed_mentions": NO_MENTIONS}
    if buttons:
        more["view"] = _view_of(buttons)
    if files:
        more["files"] = list(files)
    try:
        if interaction.response.is_done():
            await interaction.followup.send(text, **more)
        else:
            await interaction.response.send_message(text, **more)
    except TROUBLE as error:
        if not is_gone(error):
            log.warning("A reply could not be sent: %s", error)


async def reply_card(interaction: discord.Interaction, view: ui.LayoutView, *, private: bool = True) -> None:
    """Answer with a layout, in private unless asked otherwise."""
    await interaction.response.send_message(view=view, ephemeral=private, allowed_mentions=NO_MENTIONS)


def _view_of(buttons: Sequence[ui.Item[Any]]) -> ui.View:
    view = ui.View(timeout=None)
    for button in buttons:
        view.add_item(button)
    return view


class Tree(app_commands.CommandTree[Any]):
    """The command tree: its errors are explained."""

    async def on_error(
        self, interaction: discord.Interaction[Any], error: app_commands.AppCommandError, /
    ) -> None:
        """Answer whoever used the command."""
        await explain(interaction, error)
