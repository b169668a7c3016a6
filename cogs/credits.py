"""`/credits …` and `/history`: what a member has, and what he made."""

from __future__ import annotations

from typing import Any, Final

import discord
from discord import app_commands, ui
from discord.ext import commands

from bot.credits.limits import AMOUNT_MAX
from bot.credits.service import Wallet
from bot.errors import InvalidOption
from bot.events import TrailGrew
from bot.gateway.client import Img2ImgBot
from bot.gateway.interactions import NO_MENTIONS, JobButton, reply, reply_card
from bot.jobs.service import JobView, check_age, check_owner
from bot.moderation.audit import Moderator
from bot.params import Img2ImgParams
from bot.pictures.sizes import MEGAPIXEL
from bot.text import credits_text
from cogs import cards
from cogs.card_messages import files_of
from cogs.listings import statement_lines
from cogs.permissions import person_of, place_of, server_of
from cogs.results import Results
from db.ledger import Entry

ACCOUNT_COLOUR: Final = 0x5865F2
PROMPT_CHARS_LISTED: Final = 80
ENTRIES_LISTED: Final = 5


class Account(commands.Cog):
    """Commands for every member, answered in private."""

    def __init__(self, bot: Img2ImgBot) -> None:
        self._app = bot.app
        results = bot.get_cog("Results")
        assert isinstance(results, Results)  # noqa: S101 - loaded before this one
        self._results = results
        bot.on_press("show", self._show)

    purse = app_commands.Group(name="credits", description="Your credits in this server.")

    @purse.command(name="show", description="What you can spend here, and when your allowance is back.")
    async def show_credits(self, interaction: discord.Interaction[Any]) -> None:
        """Show the member's credits in this server."""
        who = person_of(interaction)
        wallet = await self._app.credits.wallet(guild_id=who.guild_id, user_id=who.user_id, roles=who.roles)
        entries = await self._app.credits.statement(
            guild_id=who.guild_id, user_id=who.user_id, limit=ENTRIES_LISTED
        )
        typical = Img2ImgParams(prompt="typical", seed=0)
        price = self._app.credits.price(typical, MEGAPIXEL, backend=self._app.dispatcher.next_backend())
        await reply_card(interaction, wallet_card(wallet, price, entries))

    @purse.command(name="give", description="Give credits of your balance to another member.")
    @app_commands.describe(
        member="Who gets them.", amount="How many credits.", public="Let everyone here see it."
    )
    async def give(
        self,
        interaction: discord.Interaction[Any],
        member: discord.Member,
        amount: app_commands.Range[int, 1, AMOUNT_MAX],
        public: bool = False,
    ) -> None:
        """Give from one balance to another, where moderators allow it."""
        if member.bot:
            raise InvalidOption("Bots have no use for credits; please choose a member.")
        who = person_of(interaction)
        by = Moderator(interaction.id, who.guild_id, who.user_id, "a gift")
        change = await self._app.credits.give(by, to_user_id=member.id, amount=amount)
        self._app.events.emit(TrailGrew(who.guild_id))
        sentence = f"{interaction.user.mention} gave {member.mention} **{credits_text(amount)}**."
        if not public:
            sentence += f" Your balance was {change.before:,} and is now **{change.after:,}**."
        await reply(interaction, sentence, private=not public)

    @app_commands.command(
        name="history", description="Your latest pictures in this server, to look at again."
    )
    async def history(self, interaction: discord.Interaction[Any]) -> None:
        """List the member's latest pictures, each with a button that shows it."""
        who = person_of(interaction)
        views = await self._app.jobs.history(guild_id=who.guild_id, user_id=who.user_id)
        await reply_card(interaction, history_card(views))

    async def _show(self, interaction: discord.Interaction[Any], button: JobButton) -> None:
        view = await self._app.jobs.view(button.job_id, guild_id=server_of(interaction))
        check_owner(view.job, interaction.user.id)
        check_age(view.job, place_of(interaction))
        pictures = await self._results.files(view)
        await interaction.response.send_message(
            view=self._results.result_layout(view),
            files=files_of(view, pictures),
            ephemeral=True,
            allowed_mentions=NO_MENTIONS,
        )


def wallet_card(wallet: Wallet, typical_price: int, entries: list[Entry]) -> ui.LayoutView:
    """Return the card of a member's credits, with his last transfers."""
    latest = "\n".join(["**Latest**", *statement_lines(entries)]) if entries else ""
    held = f"\n🔒 On hold for pictures under way: **{wallet.on_hold:,}**" if wallet.on_hold else ""
    text = (
        f"### 🪙 You can spend {credits_text(wallet.available)}\n"
        f"☀️ Daily allowance: {_allowance(wallet)}\n"
        f"💰 Balance: **{wallet.balance:,}**, spent after the allowance{held}\n"
        f"-# A typical picture costs {credits_text(typical_price)}; failed and refused ones cost nothing."
    )
    return _card(ui.TextDisplay(text), *([ui.TextDisplay(latest)] if latest else []))


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
