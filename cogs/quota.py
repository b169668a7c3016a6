"""`/quota …`: what moderators set. Each command checks who acts, and each act is on record."""

from __future__ import annotations

from typing import Any, Final, Literal

import discord
from discord import app_commands
from discord.ext import commands

from bot.clock import DAY_S
from bot.credits.limits import AMOUNT_MAX, RULE_NAMES, SLOW_S_MAX, Explanation, Person
from bot.credits.service import Wallet
from bot.gateway.client import Img2ImgBot
from bot.gateway.interactions import JobButton, reply
from bot.moderation.audit import Difference, Moderator
from bot.moderation.service import Act, Outcome, check_some, rule_text
from bot.pictures.sizes import MEGAPIXEL
from bot.text import credits_text
from cogs.listings import acts_csv, acts_text, board_text, holdings_csv
from cogs.permissions import check_manager, person_of, roles_of
from db import ledger
from db import members as guilds

REASON_CHARS_MAX: Final = 200
ACTS_LISTED: Final = 12
ACTS_EXPORTED: Final = 20_000
BOARD_DAYS: Final = 30
BOARD_LINES: Final = 10
REPEATED: Final = "There was nothing to change: it is so already."

Amount = app_commands.Range[int, 1, AMOUNT_MAX]
Allowance = app_commands.Range[int, 0, AMOUNT_MAX]
Reason = app_commands.Range[str, 1, REASON_CHARS_MAX]
Clearable = Literal["allowance", "daily_cap", "running", "waiting", "steps", "samples", "size", "slow_mode"]

#: The fields of `db.rules.Rules` behind the options of `/quota server`.
RULE_OF: Final = {
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
        bot.on_press("confirm", self._confirm)
        bot.on_press("withdraw", self._withdraw)

    # -------------------------------------------------------------------- looking

    @app_commands.command(name="show", description="What a member can spend here, and which rule says so.")
    @app_commands.describe(member="Whose credits; yours if left out.", public="Show it to everyone.")
    async def show(
        self,
        interaction: discord.Interaction[Any],
        member: discord.Member | None = None,
        public: bool = False,
    ) -> None:
        """Show a member's credits and every limit that holds for him, with its rule."""
        check_manager(interaction)
        who = _person(interaction, member)
        wallet, explanation = await self._app.credits.explain(who)
        await reply(interaction, show_text(who, wallet, explanation), private=not public)

    @app_commands.command(name="history", description="The latest acts of moderators here.")
    @app_commands.describe(member="Only those by or on this member.", public="Show it to everyone.")
    async def history(
        self,
        interaction: discord.Interaction[Any],
        member: discord.Member | None = None,
        public: bool = False,
    ) -> None:
        """List who did what to whom, when and why."""
        check_manager(interaction)
        guild_id, member_id = person_of(interaction).guild_id, member.id if member else None
        acts = await self._app.db.read(
            lambda tx: guilds.acts(tx, guild_id=guild_id, member_id=member_id, limit=ACTS_LISTED)
        )
        await reply(interaction, acts_text(acts), private=not public)

    @app_commands.command(name="leaderboard", description="Who spent most on pictures in the last 30 days.")
    @app_commands.describe(public="Show it to everyone.")
    async def leaderboard(self, interaction: discord.Interaction[Any], public: bool = False) -> None:
        """List those who spent most."""
        check_manager(interaction)
        guild_id = person_of(interaction).guild_id
        since = self._app.clock.now() - BOARD_DAYS * DAY_S
        board = await self._app.db.read(
            lambda tx: ledger.spenders(tx, guild_id=guild_id, since=since, limit=BOARD_LINES)
        )
        await reply(interaction, board_text(board, BOARD_DAYS), private=not public)

    @app_commands.command(name="export", description="A table (CSV) for your spreadsheet.")
    @app_commands.describe(what="Members' credits, or the acts on record.")
    async def export(
        self, interaction: discord.Interaction[Any], what: Literal["credits", "acts"] = "credits"
    ) -> None:
        """Hand out a table that no spreadsheet takes for formulas."""
        check_manager(interaction)
        guild_id = person_of(interaction).guild_id
        if what == "acts":
            acts = await self._app.db.read(lambda tx: guilds.acts(tx, guild_id=guild_id, limit=ACTS_EXPORTED))
            file = acts_csv(acts)
        else:
            file = holdings_csv(await self._app.db.read(lambda tx: ledger.holdings(tx, guild_id)))
        await reply(interaction, "Here is the table.", files=[file])

    # ------------------------------------------------------------ a member's credits

    @app_commands.command(name="set", description="Set a member's daily allowance.")
    @app_commands.describe(
        member="Whose allowance.",
        allowance="Credits a day; 0 gives none; left out, roles and server decide again.",
        reason="Kept on record.",
    )
    async def set(
        self,
        interaction: discord.Interaction[Any],
        member: discord.Member,
        allowance: Allowance | None = None,
        reason: Reason | None = None,
    ) -> None:
        """Set a member's own daily allowance."""
        act = Act(do="set", user_id=member.id, roles=roles_of(member), amount=allowance)
        await self._perform(interaction, act, reason)

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
        await self._perform(interaction, Act(do="grant", user_id=member.id, amount=amount), reason)

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
        await self._perform(interaction, Act(do="take", user_id=member.id, amount=amount), reason)

    @app_commands.command(name="reset", description="Give back what was used of today's allowance.")
    @app_commands.describe(member="Whose; everyone's if left out.", reason="Kept on record.")
    async def reset(
        self,
        interaction: discord.Interaction[Any],
        member: discord.Member | None = None,
        reason: Reason | None = None,
    ) -> None:
        """Fill up today's allowance again."""
        await self._perform(interaction, Act(do="reset", user_id=member.id if member else None), reason)

    @app_commands.command(name="freeze", description="Freeze a member's credits, or stop the whole server.")
    @app_commands.describe(
        member="Whose credits; the whole server if left out.",
        on="False frees again.",
        reason="Kept on record.",
    )
    async def freeze(
        self,
        interaction: discord.Interaction[Any],
        member: discord.Member | None = None,
        on: bool = True,
        reason: Reason | None = None,
    ) -> None:
        """Let credits stay where they are."""
        act = Act(do="freeze", user_id=member.id if member else None, on=on)
        await self._perform(interaction, act, reason)

    @app_commands.command(name="block", description="Keep a member from using the bot here.")
    @app_commands.describe(member="Whom.", reason="Kept on record.")
    async def block(
        self, interaction: discord.Interaction[Any], member: discord.Member, reason: Reason | None = None
    ) -> None:
        """Keep a member out."""
        await self._perform(interaction, Act(do="block", user_id=member.id, on=True), reason)

    @app_commands.command(name="unblock", description="Let a member use the bot again.")
    @app_commands.describe(member="Whom.", reason="Kept on record.")
    async def unblock(
        self, interaction: discord.Interaction[Any], member: discord.Member, reason: Reason | None = None
    ) -> None:
        """Let a member in again."""
        await self._perform(interaction, Act(do="block", user_id=member.id, on=False), reason)

    # ---------------------------------------------------------- the server's own rules

    @app_commands.command(name="role", description="Set what a role gives; a member's best role wins.")
    @app_commands.describe(
        role="Which role.",
        allowance="Credits a day.",
        opens_bot="Once a role opens the bot, only such roles may use it.",
        forget="Take back all that was set for this role.",
        reason="Kept on record.",
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
        """Set a role's allowance and whether it opens the bot."""
        act = Act(do="role", role_id=role.id, amount=allowance, on=opens_bot, forget=forget)
        await self._perform(interaction, act, reason)

    @app_commands.command(name="server", description="Set this server's limits, for every member.")
    @app_commands.describe(
        allowance="Credits a day where nothing else is set.",
        daily_cap="Credits a day, all members together.",
        running="A member's running pictures.",
        waiting="A member's waiting pictures.",
        steps="The most steps.",
        samples="The most samples.",
        size="The largest size in megapixels.",
        slow_mode="Seconds between two pictures of a member; 0: none.",
        giving="Members may give credits to each other.",
        clear="A limit to give back to the bot's own.",
        reason="Kept on record.",
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
        """Set what holds for everyone here."""
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
        chosen: dict[str, int | None] = {
            RULE_OF[name]: value for name, value in given.items() if value is not None
        }
        if clear is not None:
            chosen[RULE_OF[clear]] = None
        act = Act(do="server", rules=chosen)
        check_manager(interaction)
        check_some(act)
        await self._perform(interaction, act, reason)

    @app_commands.command(name="channels", description="Allow or forbid pictures in a channel.")
    @app_commands.describe(
        channel="Which channel.",
        rule="Once a channel is allowed, only allowed ones are left; forget: as everywhere.",
        reason="Kept on record.",
    )
    async def channels(
        self,
        interaction: discord.Interaction[Any],
        channel: discord.TextChannel | discord.VoiceChannel | discord.ForumChannel,
        rule: Literal["allow", "forbid", "forget"],
        reason: Reason | None = None,
    ) -> None:
        """Set a channel's rule."""
        on = {"allow": True, "forbid": False, "forget": None}[rule]
        await self._perform(interaction, Act(do="channel", channel_id=channel.id, on=on), reason)

    # ------------------------------------------------------------------- doing it

    async def _perform(self, interaction: discord.Interaction[Any], act: Act, reason: str | None) -> None:
        by = moderator_of(interaction, reason)
        outcome = await self._moderation.perform(by, act)
        await reply_outcome(interaction, outcome)

    async def _confirm(self, interaction: discord.Interaction[Any], button: JobButton) -> None:
        check_manager(interaction)
        guild_id = person_of(interaction).guild_id
        outcome = await self._moderation.confirm(
            button.job_id, guild_id=guild_id, actor_id=interaction.user.id
        )
        await interaction.response.edit_message(content=outcome_text(outcome), view=None)

    async def _withdraw(self, interaction: discord.Interaction[Any], button: JobButton) -> None:
        check_manager(interaction)
        guild_id = person_of(interaction).guild_id
        await self._moderation.withdraw(button.job_id, guild_id=guild_id, actor_id=interaction.user.id)
        await interaction.response.edit_message(content="Nothing was changed.", view=None)


def moderator_of(interaction: discord.Interaction[Any], reason: str | None) -> Moderator:
    """Return who acts and why. Raises `NotAllowed` for whoever does not manage this server."""
    check_manager(interaction)
    return Moderator(interaction.id, person_of(interaction).guild_id, interaction.user.id, reason or "")


async def reply_outcome(interaction: discord.Interaction[Any], outcome: Outcome) -> None:
    """Tell what an act changed, or ask whether it is to be done."""
    if not outcome.needs_confirming:
        await reply(interaction, outcome_text(outcome))
        return
    buttons = [
        JobButton.make("confirm", interaction.id, label="Do it", style=discord.ButtonStyle.danger),
        JobButton.make("withdraw", interaction.id, label="Leave it"),
    ]
    foreseen = "\n".join(map(_foreseen, outcome.differences[:LINES_MAX])) or "Nothing would change."
    await reply(interaction, f"{foreseen}\nShall I do that?", buttons=buttons)


LINES_MAX: Final = 15


def outcome_text(outcome: Outcome) -> str:
    """Return each thing that was changed, before and after."""
    if not outcome.differences:
        return REPEATED
    lines = [f"{_capital(d.what)} was {d.before} and is now **{d.after}**." for d in outcome.differences]
    left = len(lines) - LINES_MAX
    return "\n".join(lines[:LINES_MAX]) + (f"\n… and {left:,} more." if left > 0 else "")


def _foreseen(difference: Difference) -> str:
    return f"{_capital(difference.what)} is {difference.before} and would be **{difference.after}**."


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _person(interaction: discord.Interaction[Any], member: discord.Member | None) -> Person:
    if member is None:
        return person_of(interaction)
    return Person(person_of(interaction).guild_id, member.id, roles_of(member))


def show_text(who: Person, wallet: Wallet, explanation: Explanation) -> str:
    """Return what a member has, and why: the rule that won for each limit."""
    held = f" {credits_text(wallet.on_hold)} on hold." if wallet.on_hold else ""
    lines = [
        f"<@{who.user_id}> has **{wallet.allowance_left:,}** of a daily {wallet.allowance:,} left"
        f" (full again <t:{wallet.resets_at}:R>) and a balance of **{wallet.balance:,}**.{held}",
        f"Why {wallet.allowance:,} a day: {explanation.allowance.rule}.",
        *(f"⛔ Refused with: “{sentence}”" for sentence in explanation.kept_out),
        "Limits:",
    ]
    for name, ruling in explanation.limits.items():
        spent = f", {explanation.spent_by_server:,} spent today" if name == "daily_cap" else ""
        amount = rule_text(name, ruling.amount)
        lines.append(f"- {RULE_NAMES[name]}: **{amount}**{spent} ({ruling.rule})")
    return "\n".join(lines)


async def setup(bot: Img2ImgBot) -> None:
    """Add the cog."""
    await bot.add_cog(Quota(bot))
