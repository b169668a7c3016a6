"""`/quota …`: moderators look at and set members' credits and the server's limits."""

from __future__ import annotations

from typing import Any, Final, Literal

import discord
from discord import app_commands
from discord.ext import commands

from bot.actors import Person
from bot.clock import DAY_S
from bot.credits.limits import AMOUNT_MAX, SLOW_S_MAX, Explanation
from bot.credits.service import WalletSummary
from bot.gateway.buttons import ProposalButton
from bot.gateway.client import Img2ImgBot
from bot.gateway.interactions import reply
from bot.gateway.sentences import sentence_of
from bot.moderation.actions import BlockMember, ModerationAction, SetChannel, SetLimits, SetRole, StopServer
from bot.moderation.credit_actions import FreezeMember, Grant, ResetAllowance, SetAllowance, Take
from bot.pictures.sizes import MEGAPIXEL
from bot.text import counted, credits_text
from cogs.actors import AnyUser, member_of, person_of, roles_of
from cogs.changes import allowance_source_text, limit_text, records_text, setting_label, within
from cogs.outcomes import Reason, outcome_text, perform
from cogs.tables import accounts_csv, records_csv
from db.operations import Operation

RECORDS_LISTED: Final = 12  # what fits into one message with reasons
RECORDS_EXPORTED: Final = 20_000  # about 3 MB, within Discord's limit for a file
BOARD_DAYS: Final = 30  # a month of activity; older members who left would fill the list
BOARD_LINES: Final = 10  # a top ten

Amount = app_commands.Range[int, 1, AMOUNT_MAX]
Allowance = app_commands.Range[int, 0, AMOUNT_MAX]
Clearable = Literal["allowance", "daily_cap", "running", "waiting", "steps", "samples", "size", "slow_mode"]

#: The fields of `db.guilds.GuildSettings` behind the options of `/quota server`.
SETTING_OF: Final = {
    "allowance": "allowance",
    "daily_cap": "daily_cap",
    "running": "running_max",
    "waiting": "waiting_max",
    "steps": "steps_max",
    "samples": "samples_max",
    "size": "pixels_max",
    "slow_mode": "slow_s",
    "giving": "giving",
}


@app_commands.default_permissions(manage_guild=True)
class Quota(
    commands.GroupCog, group_name="quota", group_description="Members' credits and limits, for moderators."
):
    """Commands for moderators, answered in private unless asked otherwise."""

    def __init__(self, bot: Img2ImgBot) -> None:
        self._app = bot.app
        self._moderation = bot.app.moderation
        bot.on_press(Operation.CONFIRM, self._confirm)
        bot.on_press(Operation.WITHDRAW, self._withdraw)

    @app_commands.command(name="show", description="What a member can spend here, and why.")
    @app_commands.describe(member="Whose credits (yours if empty).", public="Show it to everyone.")
    async def show(
        self,
        interaction: discord.Interaction[Any],
        member: AnyUser | None = None,
        public: bool = False,
    ) -> None:
        """Show a member's credits and every limit that applies to them, with its rule."""
        moderator = person_of(interaction)
        who = member_of(interaction, member) if member else moderator
        wallet, explanation = await self._app.credits.explain(moderator, who)
        await reply(interaction, show_text(who, wallet, explanation), private=not public)

    @app_commands.command(name="history", description="The latest moderation actions here.")
    @app_commands.describe(member="Only actions by or on this member.", public="Show it to everyone.")
    async def history(
        self,
        interaction: discord.Interaction[Any],
        member: AnyUser | None = None,
        public: bool = False,
    ) -> None:
        """List who did what to whom, when and why."""
        records = await self._moderation.list_records(
            person_of(interaction), member_id=member.id if member else None, limit=RECORDS_LISTED
        )
        await reply(interaction, records_text(records), private=not public)

    @app_commands.command(name="leaderboard", description="Who spent the most credits in the last 30 days.")
    @app_commands.describe(public="Show it to everyone.")
    async def leaderboard(self, interaction: discord.Interaction[Any], public: bool = False) -> None:
        """List those who spent most."""
        board = await self._moderation.leaderboard(
            person_of(interaction), within_s=BOARD_DAYS * DAY_S, limit=BOARD_LINES
        )
        await reply(interaction, board_text(board), private=not public)

    @app_commands.command(name="export", description="Get a table (CSV) for a spreadsheet.")
    @app_commands.describe(what="Members' credits, or all moderation actions.")
    async def export(
        self, interaction: discord.Interaction[Any], what: Literal["credits", "actions"] = "credits"
    ) -> None:
        """Send a table that no spreadsheet takes for formulas."""
        moderator = person_of(interaction)
        if what == "actions":
            file = records_csv(await self._moderation.list_records(moderator, limit=RECORDS_EXPORTED))
        else:
            file = accounts_csv(await self._moderation.member_accounts(moderator))
        await reply(interaction, "Here's your table.", files=[file])

    @app_commands.command(name="set", description="Set a member's daily allowance.")
    @app_commands.describe(
        member="Member to set it for.",
        allowance="Credits per day (if empty, their roles or the server decide).",
        reason="Why; shown in the audit log.",
    )
    async def set(
        self,
        interaction: discord.Interaction[Any],
        member: AnyUser,
        allowance: Allowance | None = None,
        reason: Reason | None = None,
    ) -> None:
        """Set a member's own daily allowance."""
        action = SetAllowance(user_id=member.id, roles=roles_of(member), allowance=allowance)
        await self._perform(interaction, action, reason)

    @app_commands.command(name="grant", description="Add credits to a member's balance.")
    @app_commands.describe(
        member="Member to give them to.", amount="How many credits.", reason="Why; shown in the audit log."
    )
    async def grant(
        self,
        interaction: discord.Interaction[Any],
        member: AnyUser,
        amount: Amount,
        reason: Reason | None = None,
    ) -> None:
        """Add to a member's balance."""
        await self._perform(interaction, Grant(user_id=member.id, amount=amount), reason)

    @app_commands.command(name="take", description="Take credits from a member's balance.")
    @app_commands.describe(
        member="Member to take them from.",
        amount="How many credits (at most the balance).",
        reason="Why; shown in the audit log.",
    )
    async def take(
        self,
        interaction: discord.Interaction[Any],
        member: AnyUser,
        amount: Amount,
        reason: Reason | None = None,
    ) -> None:
        """Take from a member's balance."""
        await self._perform(interaction, Take(user_id=member.id, amount=amount), reason)

    @app_commands.command(name="reset", description="Refill what was used of today's allowance.")
    @app_commands.describe(
        member="Member to reset (everyone if empty).", reason="Why; shown in the audit log."
    )
    async def reset(
        self,
        interaction: discord.Interaction[Any],
        member: AnyUser | None = None,
        reason: Reason | None = None,
    ) -> None:
        """Fill up today's allowance again."""
        await self._perform(interaction, ResetAllowance(user_id=member.id if member else None), reason)

    @app_commands.command(name="freeze", description="Freeze a member's credits, or stop the bot here.")
    @app_commands.describe(
        member="Member to freeze (if empty, the bot stops in the whole server).",
        on="False to unfreeze.",
        reason="Why; shown in the audit log.",
    )
    async def freeze(
        self,
        interaction: discord.Interaction[Any],
        member: AnyUser | None = None,
        on: bool = True,
        reason: Reason | None = None,
    ) -> None:
        """Freeze or unfreeze a member's credits, or stop or restart the bot here."""
        action: ModerationAction = (
            FreezeMember(user_id=member.id, frozen=on) if member else StopServer(stopped=on)
        )
        await self._perform(interaction, action, reason)

    @app_commands.command(name="block", description="Block a member from using the bot here.")
    @app_commands.describe(member="Member to block.", reason="Why; shown in the audit log.")
    async def block(
        self, interaction: discord.Interaction[Any], member: AnyUser, reason: Reason | None = None
    ) -> None:
        """Block a member."""
        await self._perform(interaction, BlockMember(user_id=member.id, blocked=True), reason)

    @app_commands.command(name="unblock", description="Unblock a member.")
    @app_commands.describe(member="Member to unblock.", reason="Why; shown in the audit log.")
    async def unblock(
        self, interaction: discord.Interaction[Any], member: AnyUser, reason: Reason | None = None
    ) -> None:
        """Unblock a member."""
        await self._perform(interaction, BlockMember(user_id=member.id, blocked=False), reason)

    @app_commands.command(name="role", description="Set what a role gives; a member's best role wins.")
    @app_commands.describe(
        role="Role to set.",
        allowance="Credits per day.",
        opens_bot="Only members with this role, or another set like this, can use the bot.",
        forget="Remove everything set for this role.",
        reason="Why; shown in the audit log.",
    )
    async def role(
        self,
        interaction: discord.Interaction[Any],
        role: discord.Role,
        allowance: Allowance | None = None,
        opens_bot: bool | None = None,
        forget: bool = False,
        reason: Reason | None = None,
    ) -> None:
        """Set a role's allowance and whether the bot is restricted to it."""
        action = SetRole(role_id=role.id, allowance=allowance, opens_bot=opens_bot, forget=forget)
        await self._perform(interaction, action, reason)

    @app_commands.command(name="server", description="Set this server's limits, for every member.")
    @app_commands.describe(
        allowance="Daily credits of members without their own.",
        daily_cap="Daily credits of all members together.",
        running="Running jobs per member.",
        waiting="Waiting jobs per member.",
        steps="Maximum steps per picture.",
        samples="Maximum samples per job.",
        size="Maximum size of a picture, in megapixels.",
        slow_mode="Seconds between two pictures of a member (0 = off).",
        giving="Let members give credits to each other.",
        clear="Reset this limit to the bot default.",
        reason="Why; shown in the audit log.",
    )
    async def server(
        self,
        interaction: discord.Interaction[Any],
        allowance: Allowance | None = None,
        daily_cap: app_commands.Range[int, 0, AMOUNT_MAX] | None = None,
        running: app_commands.Range[int, 1, 100] | None = None,
        waiting: app_commands.Range[int, 1, 100] | None = None,
        steps: app_commands.Range[int, 1, 100] | None = None,
        samples: app_commands.Range[int, 1, 4] | None = None,
        size: app_commands.Range[float, 0.25, 1.0] | None = None,
        slow_mode: app_commands.Range[int, 0, SLOW_S_MAX] | None = None,
        giving: bool | None = None,
        clear: Clearable | None = None,
        reason: Reason | None = None,
    ) -> None:
        """Set the limits of everyone here."""
        given = {
            "allowance": allowance,
            "daily_cap": daily_cap,
            "running": running,
            "waiting": waiting,
            "steps": steps,
            "samples": samples,
            "size": None if size is None else round(size * MEGAPIXEL),
            "slow_mode": slow_mode,
            "giving": None if giving is None else int(giving),
        }
        settings: dict[str, int | None] = {
            SETTING_OF[name]: value for name, value in given.items() if value is not None
        }
        if clear is not None:
            settings[SETTING_OF[clear]] = None
        await self._perform(interaction, SetLimits(settings=settings), reason)

    @app_commands.command(name="channels", description="Allow or forbid pictures in a channel.")
    @app_commands.describe(
        channel="Channel to set.",
        rule="Once any channel is allowed, all others are off (forget = no rule).",
        reason="Why; shown in the audit log.",
    )
    async def channels(
        self,
        interaction: discord.Interaction[Any],
        channel: discord.TextChannel | discord.VoiceChannel | discord.ForumChannel,
        rule: Literal["allow", "forbid", "forget"],
        reason: Reason | None = None,
    ) -> None:
        """Set a channel's rule."""
        allowed = {"allow": True, "forbid": False, "forget": None}[rule]
        await self._perform(interaction, SetChannel(channel_id=channel.id, allowed=allowed), reason)

    async def _perform(
        self, interaction: discord.Interaction[Any], action: ModerationAction, reason: str | None
    ) -> None:
        await perform(self._moderation, interaction, action, reason)

    async def _confirm(self, interaction: discord.Interaction[Any], button: ProposalButton) -> None:
        outcome = await self._moderation.confirm(button.proposal_id, person_of(interaction))
        await interaction.response.edit_message(content=outcome_text(outcome), view=None)

    async def _withdraw(self, interaction: discord.Interaction[Any], button: ProposalButton) -> None:
        await self._moderation.withdraw(button.proposal_id, person_of(interaction))
        await interaction.response.edit_message(content="Cancelled; nothing was changed.", view=None)


def show_text(who: Person, wallet: WalletSummary, explanation: Explanation) -> str:
    """Return what a member has, and why: the rule that won for each limit."""
    held = f", **{wallet.on_hold:,}** on hold" if wallet.on_hold else ""
    left = f"**{wallet.allowance_left:,}** of {wallet.allowance:,} left"
    lines = [
        f"### Credits of <@{who.user_id}>",
        *(f"⛔ Can't make pictures: “{sentence_of(refusal)}”" for refusal in explanation.refusals),
        f"- Today: {left}, renews <t:{wallet.renews_at}:R>",
        f"- Balance: **{wallet.balance:,}**{held}",
        "### Limits",
        f"- Daily allowance: **{wallet.allowance:,}** ({allowance_source_text(explanation.allowance)})",
    ]
    for name, ruling in explanation.limits.items():
        spent = f", {explanation.spent_by_server:,} spent today" if name == "daily_cap" else ""
        lines.append(f"- {setting_label(name)}: {limit_text(name, ruling)}{spent}")
    return "\n".join(lines)


def board_text(board: list[tuple[int, int, int]]) -> str:
    """Return who spent most, from (member, credits, jobs)."""
    if not board:
        return f"Nobody has spent credits here in the last {BOARD_DAYS} days."
    lines = [
        f"{rank}. <@{user_id}>: {credits_text(spent)}, {counted(jobs, 'job')}"
        for rank, (user_id, spent, jobs) in enumerate(board, start=1)
    ]
    return within([f"Most credits spent in the last {BOARD_DAYS} days:", *lines])


async def setup(bot: Img2ImgBot) -> None:
    """Add the cog."""
    await bot.add_cog(Quota(bot))
