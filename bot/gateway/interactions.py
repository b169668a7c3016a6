"""Answering people: the one place where an error becomes words.

The command tree, every button and every modal hand their errors to `explain`, so
that whoever acts always gets one private sentence, and a traceback only the log.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from typing import Any, Final, Self

import aiohttp
import discord
from discord import app_commands, ui

from bot.errors import BotError, NotAllowed
from db.database import DatabaseBrokenError

log = logging.getLogger(__name__)

#: Unknown interaction, already acknowledged, invalid webhook token: nobody is there to be told.
GONE_CODES: Final = frozenset({10062, 40060, 50027, 10015})
#: What a request to Discord raises: an answer of its own, or trouble on the way there and back.
TROUBLE: Final = (discord.HTTPException, aiohttp.ClientError, OSError)
NO_MENTIONS: Final = discord.AllowedMentions.none()
NO_DISK: Final = (
    "The bot can't store anything just now, so nothing was charged."
    " Its operator has been told; please try again in a few minutes."
)
NOT_IN_A_SERVER: Final = "That works only in a server, not in a direct message."
BROKEN: Final = "Something broke on our side and nothing was charged. Please try again in a minute."


def sentence_of(error: BaseException) -> str | None:
    """Return what to tell a person of `error`; None if it is not of a kind that explains itself."""
    if isinstance(error, BotError):
        when = f" <t:{int(error.until)}:R>." if error.until is not None else ""
        return f"{error}{when}"
    if isinstance(error, DatabaseBrokenError):
        return NO_DISK
    if isinstance(error, app_commands.NoPrivateMessage):
        return NOT_IN_A_SERVER
    if isinstance(error, (app_commands.MissingPermissions, app_commands.CheckFailure)):
        return str(NotAllowed())
    if isinstance(error, app_commands.TransformerError):
        return f"{error.value!r} won't do there; please choose one of the values offered."
    return None


async def explain(interaction: discord.Interaction, error: BaseException) -> None:
    """Tell whoever acted, in private, what went wrong; log what nobody foresaw."""
    if isinstance(error, app_commands.CommandInvokeError):
        error = error.original
    if is_gone(error):
        log.info("An interaction was gone before it could be answered: %s", error)
        return
    sentence = sentence_of(error)
    if sentence is None:
        log.error("Unforeseen in an interaction", exc_info=error)
    await reply(interaction, sentence or BROKEN)


def is_gone(error: BaseException) -> bool:
    """Tell whether Discord says that the interaction can't be answered any more."""
    return isinstance(error, discord.HTTPException) and error.code in GONE_CODES


async def reply(
    interaction: discord.Interaction,
    text: str,
    *,
    buttons: Sequence[JobButton] = (),
    files: Sequence[discord.File] = (),
    private: bool = True,
) -> None:
    """Answer, in private unless asked otherwise, whether or not the interaction was answered before."""
    more: dict[str, Any] = {"ephemeral": private, "allowed_mentions": NO_MENTIONS}
    if buttons:
        more["view"] = _row_of(buttons)
    if files:
        more["files"] = list(files)
    try:
        if interaction.response.is_done():
            await interaction.followup.send(text, **more)
        else:
            await interaction.response.send_message(text, **more)
    except TROUBLE as error:
        if not is_gone(error):
            log.warning("A private answer could not be sent: %s", error)


async def reply_card(interaction: discord.Interaction, view: ui.LayoutView, *, private: bool = True) -> None:
    """Answer with a layout, in private unless asked otherwise."""
    await interaction.response.send_message(view=view, ephemeral=private, allowed_mentions=NO_MENTIONS)


def _row_of(buttons: Sequence[JobButton]) -> ui.View:
    view = ui.View(timeout=None)
    for button in buttons:
        view.add_item(button)
    return view


class Tree(app_commands.CommandTree[Any]):
    """The command tree: its errors become words."""

    async def on_error(
        self, interaction: discord.Interaction[Any], error: app_commands.AppCommandError, /
    ) -> None:
        """Tell whoever typed the command."""
        await explain(interaction, error)


class JobButton(
    ui.DynamicItem[ui.Button[Any]],
    template=r"i2i:(?P<operation>[a-z_]{1,20}):(?P<job_id>[0-9]{1,20})(?::(?P<sample>[0-3]))?",
):
    """A button under a card: an operation and a job's id, nothing else; it lives on after a restart.

    What it does and for whom is read from the database at each press, since a custom
    id can be forged. Presses go to the client's `pressed`.
    """

    def __init__(self, button: ui.Button[Any], *, operation: str, job_id: int, sample: int | None) -> None:
        super().__init__(button)
        self.operation = operation
        self.job_id = job_id
        self.sample = sample

    @classmethod
    def make(
        cls,
        operation: str,
        job_id: int,
        *,
        label: str,
        sample: int | None = None,
        emoji: str | None = None,
        style: discord.ButtonStyle = discord.ButtonStyle.secondary,
    ) -> Self:
        """Return a button that asks for `operation` on the job."""
        suffix = "" if sample is None else f":{sample}"
        custom_id = f"i2i:{operation}:{job_id}{suffix}"
        button: ui.Button[Any] = ui.Button(label=label, emoji=emoji, style=style, custom_id=custom_id)
        return cls(button, operation=operation, job_id=job_id, sample=sample)

    @classmethod
    async def from_custom_id(
        cls, _interaction: discord.Interaction, item: ui.Item[Any], match: re.Match[str], /
    ) -> Self:
        """Rebuild the button from what was pressed; unknown parts are found out in `callback`."""
        assert isinstance(item, ui.Button)  # noqa: S101 - the library matched a button's id
        sample = match["sample"]
        return cls(
            item,
            operation=match["operation"],
            job_id=int(match["job_id"]),
            sample=None if sample is None else int(sample),
        )

    async def callback(self, interaction: discord.Interaction[Any]) -> None:
        """Hand the press to the client; whatever goes wrong becomes words."""
        try:
            await interaction.client.pressed(interaction, self)
        except Exception as error:  # noqa: BLE001 - the library would only log it
            await explain(interaction, error)


class GuardedModal(ui.Modal):
    """A modal whose errors become words. Subclasses do their work in `submit`."""

    async def on_submit(self, interaction: discord.Interaction[Any], /) -> None:
        """Do the work, guarded."""
        try:
            await self.submit(interaction)
        except Exception as error:  # noqa: BLE001 - the library would answer nothing
            await explain(interaction, error)

    async def submit(self, interaction: discord.Interaction[Any]) -> None:
        """Do what the modal is for."""
        raise NotImplementedError
