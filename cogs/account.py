"""`/credits` and `/history`: what a member has, and what he made."""

from __future__ import annotations

from typing import Any, Final

import discord
from discord import app_commands, ui
from discord.ext import commands

from bot.client import Img2ImgBot
from bot.credits import MEGAPIXEL, Wallet
from bot.errors import NotAllowed
from bot.interactions import NO_MENTIONS, JobButton, reply_card
from bot.jobs import JobView, check_owner
from bot.params import Img2ImgParams
from bot.words import credits_text
from cogs import cards
from cogs.mailbox import files_of
from cogs.results import Results

ACCOUNT_COLOUR: Final = 0x5865F2
PROMPT_CHARS_LISTED: Final = 80


class Account(commands.Cog):
    """Commands for every member, answered in private."""

    def __init__(self, bot: Img2ImgBot) -> None:
        self._app = bot.app
        results = bot.get_cog("Results")
        assert isinstance(results, Results)  # noqa: S101 - loaded before this one
        self._results = results
        bot.on_press("show", self._show)

    @app_commands.command(
        name="credits", description="What you can spend here, and when your allowance is back."
    )
    async def credits(self, interaction: discord.Interaction[Any]) -> None:
        """Show the member's credits in this server."""
        wallet = await self._app.credits.wallet(guild_id=_guild(interaction), user_id=interaction.user.id)
        typical = Img2ImgParams(prompt="typical", seed=0)
        price = self._app.credits.prices.of(typical, MEGAPIXEL)
        await reply_card(interaction, wallet_card(wallet, price))

    @app_commands.command(
        name="history", description="Your latest pictures in this server, to look at again."
    )
    async def history(self, interaction: discord.Interaction[Any]) -> None:
        """List the member's latest pictures, each with a button that shows it."""
        views = await self._app.jobs.history(guild_id=_guild(interaction), user_id=interaction.user.id)
        await reply_card(interaction, history_card(views))

    async def _show(self, interaction: discord.Interaction[Any], button: JobButton) -> None:
        view = await self._app.jobs.view(button.job_id, guild_id=_guild(interaction))
        check_owner(view.job, interaction.user.id)
        pictures = await self._results.files(view)
        await interaction.response.send_message(
            view=self._results.result_layout(view),
            files=files_of(view, pictures),
            ephemeral=True,
            allowed_mentions=NO_MENTIONS,
        )


def _guild(interaction: discord.Interaction[Any]) -> int:
    if interaction.guild_id is None:
        raise NotAllowed("That works only in a server, not in a direct message.")
    return interaction.guild_id


def wallet_card(wallet: Wallet, typical_price: int) -> ui.LayoutView:
    """Return the card of a member's credits."""
    held = f"\n🔒 On hold for pictures under way: **{wallet.on_hold:,}**" if wallet.on_hold else ""
    text = (
        f"### 🪙 You can spend {credits_text(wallet.available)}\n"
        f"☀️ Daily allowance: {_allowance(wallet)}\n"
        f"💰 Balance: **{wallet.balance:,}**, spent after the allowance{held}\n"
        f"-# A typical picture costs {credits_text(typical_price)}; failed and refused ones cost nothing."
    )
    return _card(ui.TextDisplay(text))


def _allowance(wallet: Wallet) -> str:
    if not wallet.allowance:
        return "**none**"
    return f"**{wallet.allowance_left:,}** of {wallet.allowance:,} left, full again <t:{wallet.resets_at}:R>"


def history_card(views: list[JobView]) -> ui.LayoutView:
    """Return the list of a member's latest jobs."""
    if not views:
        return _card(ui.TextDisplay("### 🖼️ Nothing here yet\nMake your first picture with `/img2img`."))
    return _card(ui.TextDisplay("### 🖼️ Your latest pictures"), *map(_history_line, views))


def _history_line(view: JobView) -> ui.Section[Any]:
    show = JobButton.make("show", view.job.id, label="Show")
    count = f" · {len(view.results)} pictures" if len(view.results) > 1 else ""
    text = (
        f"{cards.plain(view.params.prompt, PROMPT_CHARS_LISTED)}\n"
        f"-# <t:{int(view.job.created_at)}:R> · {credits_text(view.job.charged or 0)}{count}"
    )
    return ui.Section(text, accessory=show)


def _card(*items: ui.Item[Any]) -> ui.LayoutView:
    layout = ui.LayoutView(timeout=None)
    layout.add_item(ui.Container(*items, accent_colour=ACCOUNT_COLOUR))
    return layout


async def setup(bot: Img2ImgBot) -> None:
    """Add the cog."""
    await bot.add_cog(Account(bot))
