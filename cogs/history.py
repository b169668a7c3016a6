"""`/history`: a member's recent pictures, to be shown again."""

from __future__ import annotations

from typing import Any, Final

import discord
from discord import app_commands, ui
from discord.ext import commands

from bot.gateway.buttons import JobButton
from bot.gateway.client import Img2ImgBot
from bot.gateway.escaping import plain
from bot.gateway.interactions import NO_MENTIONS, reply_card
from bot.jobs.records import JobView
from bot.text import credits_text
from cogs.actors import channel_context_of, person_of
from cogs.card_messages import files_of
from cogs.cards import BUTTON_LABELS
from cogs.delivery import pictures_of, result_layout
from db.operations import Operation

HISTORY_COLOUR: Final = 0x5865F2
PROMPT_CHARS_LISTED: Final = 80  # one or two lines beside the button


class History(commands.Cog):
    """What members made, answered in private."""

    def __init__(self, bot: Img2ImgBot) -> None:
        self._records = bot.app.job_records
        self._router = bot.app.router
        self._store = bot.app.store
        bot.on_press(Operation.SHOW, self._show)

    @app_commands.command(name="history", description="Your recent pictures in this server.")
    async def history(self, interaction: discord.Interaction[Any]) -> None:
        """List the member's latest pictures, each with a button that shows it."""
        views = await self._records.history(person_of(interaction))
        await reply_card(interaction, history_card(views))

    async def _show(self, interaction: discord.Interaction[Any], button: JobButton) -> None:
        view = await self._records.open_for(
            person_of(interaction), channel_context_of(interaction), button.job_id
        )
        pictures = await pictures_of(view, self._store)
        await interaction.response.send_message(
            view=result_layout(view, self._router),
            files=files_of(view, pictures),
            ephemeral=True,
            allowed_mentions=NO_MENTIONS,
        )


def history_card(views: list[JobView]) -> ui.LayoutView:
    """Return the list of a member's latest jobs."""
    empty = "### 🖼️ Nothing here yet\nMake your first picture with `/img2img`."
    title = "### 🖼️ Your recent pictures" if views else empty
    layout = ui.LayoutView(timeout=None)
    lines = map(_history_line, views)
    layout.add_item(ui.Container(ui.TextDisplay[Any](title), *lines, accent_colour=HISTORY_COLOUR))
    return layout


def _history_line(view: JobView) -> ui.Section[Any]:
    show = JobButton.make(Operation.SHOW, view.job.id, label=BUTTON_LABELS[Operation.SHOW])
    count = f" · {len(view.results)} pictures" if len(view.results) > 1 else ""
    text = (
        f"{plain(view.params.prompt, PROMPT_CHARS_LISTED)}\n"
        f"-# <t:{int(view.job.created_at)}:R> · {credits_text(view.job.charged or 0)}{count}"
    )
    return ui.Section(text, accessory=show)


async def setup(bot: Img2ImgBot) -> None:
    """Add the cog."""
    await bot.add_cog(History(bot))
