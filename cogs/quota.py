"""`/quota …`: what moderators set. Each command checks who acts, and each act is on record."""

from __future__ import annotations

from typing import Any, Final

import discord
from discord import app_commands
from discord.ext import commands

from bot.client import Img2ImgBot
from bot.credits import AMOUNT_MAX, Moderator
from bot.interactions import reply
from bot.words import credits_text
from cogs.places import check_manager

REASON_CHARS_MAX: Final = 200

Amount = app_commands.Range[int, 1, AMOUNT_MAX]
Allowance = app_commands.Range[int, 0, AMOUNT_MAX]
Reason = app_commands.Range[str, 1, REASON_CHARS_MAX]


@app_commands.default_permissions(manage_guild=True)
class Quota(
    commands.GroupCog, group_name="quota", group_description="Members' credits and limits, for moderators."
):
    """Commands for moderators, answered in private."""

    def __init__(self, bot: Img2ImgBot) -> None:
        self._credits = bot.app.credits

    @app_commands.command(name="show", description="What a member can spend here.")
    @app_commands.describe(member="Whose credits to show.")
    async def show(self, interaction: discord.Interaction[Any], member: discord.Member) -> None:
        """Show a member's credits."""
        check_manager(interaction)
        wallet = await self._credits.wallet(guild_id=member.guild.id, user_id=member.id)
        held = f" {credits_text(wallet.on_hold)} on hold." if wallet.on_hold else ""
        await reply(
            interaction,
            f"{member.mention} has **{wallet.allowance_left:,}** of a daily {wallet.allowance:,} left"
            f" (full again <t:{wallet.resets_at}:R>) and a balance of **{wallet.balance:,}**.{held}",
        )

    @app_commands.command(name="set", description="Set a member's daily allowance.")
    @app_commands.describe(
        member="Whose allowance.", allowance="Credits a day; 0 stops this member.", reason="Kept on record."
    )
    async def set(
        self,
        interaction: discord.Interaction[Any],
        member: discord.Member,
        allowance: Allowance,
        reason: Reason | None = None,
    ) -> None:
        """Set a member's daily allowance."""
        by = _moderator(interaction, reason)
        change = await self._credits.set_allowance(by, user_id=member.id, allowance=allowance)
        await reply(
            interaction,
            f"{member.mention}'s daily allowance was {change.before:,} and is now **{change.after:,}**,"
            " from this moment on.",
        )

    @app_commands.command(
        name="default", description="Set the daily allowance of everyone without one of their own."
    )
    @app_commands.describe(allowance="Credits a day.", reason="Kept on record.")
    async def default(
        self, interaction: discord.Interaction[Any], allowance: Allowance, reason: Reason | None = None
    ) -> None:
        """Set the server's daily allowance."""
        change = await self._credits.set_default(_moderator(interaction, reason), allowance=allowance)
        await reply(
            interaction,
            f"The daily allowance here was {change.before:,} and is now **{change.after:,}**"
            " for every member without one of their own.",
        )

    @app_commands.command(name="grant", description="Add credits to a member's balance.")
    @app_commands.describe(member="Who gets them.", amount="How many credits.", reason="Kept on record.")
    async def grant(
        self,
        interaction: discord.Interaction[Any],
        member: discord.Member,
        amount: Amount,
        reason: Reason | None = None,
    ) -> None:
        """Add to a member's balance."""
        by = _moderator(interaction, reason)
        change = await self._credits.grant(by, user_id=member.id, amount=amount)
        await reply(
            interaction, f"{member.mention}'s balance was {change.before:,} and is now **{change.after:,}**."
        )

    @app_commands.command(name="take", description="Take credits from a member's balance.")
    @app_commands.describe(
        member="Whose balance.", amount="How many credits, at most what is there.", reason="Kept on record."
    )
    async def take(
        self,
        interaction: discord.Interaction[Any],
        member: discord.Member,
        amount: Amount,
        reason: Reason | None = None,
    ) -> None:
        """Take from a member's balance."""
        by = _moderator(interaction, reason)
        change = await self._credits.take(by, user_id=member.id, amount=amount)
        await reply(
            interaction, f"{member.mention}'s balance was {change.before:,} and is now **{change.after:,}**."
        )


def _moderator(interaction: discord.Interaction[Any], reason: str | None) -> Moderator:
    check_manager(interaction)
    assert interaction.guild_id is not None  # noqa: S101 - check_manager saw to it
    return Moderator(interaction.id, interaction.guild_id, interaction.user.id, reason or "")


async def setup(bot: Img2ImgBot) -> None:
    """Add the cog."""
    await bot.add_cog(Quota(bot))
