"""`/credits …`: what a member can spend, and gifts to others."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import discord
from discord import app_commands, ui
from discord.ext import commands

from bot.credits.limits import AMOUNT_MAX
from bot.credits.service import WalletSummary
from bot.errors import InvalidOption
from bot.gateway.client import Img2ImgBot
from bot.gateway.escaping import plain
from bot.gateway.interactions import reply, reply_card
from bot.moderation.credit_actions import Give
from bot.params import Img2ImgParams
from bot.pictures.sizes import MEGAPIXEL
from bot.text import credits_text
from cogs.actors import actor_of, person_of
from cogs.changes import REASON_CHARS_LISTED
from db.ledger import LedgerEntry

ACCOUNT_COLOUR: Final = 0x5865F2
ENTRIES_LISTED: Final = 5  # the last day of most members; more would push the balance off a phone

#: What members read instead of an action's name, which is stored where a moderator gave no reason.
REASONS: Final = {"grant": "granted by a moderator", "take": "taken by a moderator"}


class Credits(commands.Cog):
    """Commands for every member, answered in private unless asked otherwise."""

    def __init__(self, bot: Img2ImgBot) -> None:
        self._app = bot.app

    credits_group = app_commands.Group(name="credits", description="Your credits in this server.")

    @credits_group.command(name="show", description="What you can spend here, and when your credits renew.")
    async def show(self, interaction: discord.Interaction[Any]) -> None:
        """Show the member's credits in this server."""
        who = person_of(interaction)
        wallet = await self._app.credits.wallet(who)
        entries = await self._app.credits.statement(who, limit=ENTRIES_LISTED)
        typical = Img2ImgParams(prompt="typical", seed=0)
        price = self._app.credits.price(typical, MEGAPIXEL, backend=self._app.dispatcher.next_backend())
        await reply_card(interaction, wallet_card(wallet, price, entries))

    @credits_group.command(name="give", description="Give some of your balance to another member.")
    @app_commands.describe(
        member="Member to give them to.", amount="How many credits.", public="Let everyone here see it."
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
            raise InvalidOption("Bots can't use credits; please choose a member.")
        action = Give(user_id=member.id, amount=amount)
        outcome = await self._app.moderation.perform(actor_of(interaction, "a gift"), action)
        sentence = f"{interaction.user.mention} gave {member.mention} **{credits_text(amount)}**."
        if not public:
            own = outcome.changes[0]
            sentence += f" Your balance: {own.before:,} → **{own.after:,}**."
        await reply(interaction, sentence, private=not public)


def wallet_card(wallet: WalletSummary, typical_price: int, entries: Iterable[LedgerEntry]) -> ui.LayoutView:
    """Return the card of a member's credits, with their last transfers."""
    held = f"\n🔒 On hold for pictures in progress: **{wallet.on_hold:,}**" if wallet.on_hold else ""
    text = (
        f"### 🪙 You can spend {credits_text(wallet.available)}\n"
        f"☀️ Daily allowance: {_allowance(wallet)}\n"
        f"💰 Balance: **{wallet.balance:,}**, spent after the allowance{held}\n"
        f"-# A typical picture costs {credits_text(typical_price)}; failed and refused ones are free."
    )
    lines = statement_lines(entries)
    latest = [ui.TextDisplay[Any]("\n".join(["**Latest**", *lines]))] if lines else []
    layout = ui.LayoutView(timeout=None)
    layout.add_item(ui.Container(ui.TextDisplay[Any](text), *latest, accent_colour=ACCOUNT_COLOUR))
    return layout


def _allowance(wallet: WalletSummary) -> str:
    if not wallet.allowance:
        return "**none**"
    return f"**{wallet.allowance_left:,}** of {wallet.allowance:,} left, renews <t:{wallet.renews_at}:R>"


def statement_lines(entries: Iterable[LedgerEntry]) -> list[str]:
    """Return a member's transfers, one a line."""
    return [
        f"<t:{int(entry.at)}:R> **{entry.amount:+,}** ·"
        f" {plain(REASONS.get(entry.reason, entry.reason), REASON_CHARS_LISTED)}"
        f"{' · on hold' if entry.state == 'pending' else ''}"
        for entry in entries
    ]


async def setup(bot: Img2ImgBot) -> None:
    """Add the cog."""
    await bot.add_cog(Credits(bot))
