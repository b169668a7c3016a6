"""`/calm …`: a server's options that keep channels calm, and "Delete picture" for moderators."""

from __future__ import annotations

from typing import Any, Final, Literal

import discord
from discord import app_commands
from discord.ext import commands

from bot.credits.limits import RULE_NAMES
from bot.errors import InvalidOption, JobGone
from bot.gateway.client import Img2ImgBot
from bot.gateway.interactions import reply
from bot.moderation.blocklist import TEXT_CHARS_MAX
from bot.moderation.service import Act, check_some, rule_text
from cogs.permissions import check_manager, is_moderator, missing_permissions, server_of
from cogs.quota import Reason, moderator_of, reply_outcome
from cogs.text import listed, plain
from db import guilds as rules
from db.guilds import BlockedText, Rules

OPTIONS: Final = ("private", "results_channel_id", "log_channel_id")
SHOWN_CHARS_MAX: Final = 1_500


@app_commands.default_permissions(manage_guild=True)
class Calm(
    commands.GroupCog,
    group_name="calm",
    group_description="Calm channels, for moderators.",
):
    """Options of a server, answered in private."""

    def __init__(self, bot: Img2ImgBot) -> None:
        self._bot = bot
        self._app = bot.app
        self._menu = app_commands.ContextMenu(name="Delete picture", callback=self.delete_picture)
        self._menu.allowed_contexts = app_commands.AppCommandContext(guild=True)
        self._menu.default_permissions = discord.Permissions(manage_messages=True)

    async def cog_load(self) -> None:
        """Register the message command."""
        self._bot.tree.add_command(self._menu)

    async def cog_unload(self) -> None:
        """Take the message command off."""
        self._bot.tree.remove_command(self._menu.name, type=self._menu.type)

    @app_commands.command(name="show", description="This server's options and blocked words.")
    async def show(self, interaction: discord.Interaction[Any]) -> None:
        """Show what is set."""
        check_manager(interaction)
        guild_id = server_of(interaction)
        mine = await self._app.db.read(lambda tx: rules.of_guild(tx, guild_id))
        blocked = await self._app.db.read(lambda tx: rules.blocked_texts(tx, guild_id))
        await reply(interaction, options_text(mine, blocked))

    @app_commands.command(name="options", description="Where pictures go and who sees them.")
    @app_commands.describe(
        private="New pictures are seen by their requester alone, unless asked otherwise.",
        results="Finished pictures are posted there, wherever they were asked for.",
        log="Acts, jobs (private ones too), presses and reports are mirrored there.",
        clear="An option to take back.",
        reason="Kept on record.",
    )
    async def options(
        self,
        interaction: discord.Interaction[Any],
        private: bool | None = None,
        results: discord.TextChannel | None = None,
        log: discord.TextChannel | None = None,
        clear: Literal["results", "log"] | None = None,
        reason: Reason | None = None,
    ) -> None:
        """Set the server's options."""
        check_manager(interaction)
        chosen: dict[str, int | None] = {}
        if private is not None:
            chosen["private"] = int(private)
        for name, channel in (("results", results), ("log", log)):
            if channel is not None:
                _check_reach(channel)
                chosen[f"{name}_channel_id"] = channel.id
        if clear is not None:
            chosen[f"{clear}_channel_id"] = None
        act = Act(do="option", rules=chosen)
        check_some(act)
        outcome = await self._app.moderation.perform(moderator_of(interaction, reason), act)
        await reply_outcome(interaction, outcome)

    @app_commands.command(name="block", description="Keep a word or pattern out of prompts.")
    @app_commands.describe(
        text="A word or words; or a pattern: . [a-z] \\d \\w \\s x* x+ x? (ab|cd)",
        kind="Words stand alone; patterns are found anywhere.",
        adult_ok="Let it through in age-restricted channels.",
        reason="Kept on record.",
    )
    async def block(
        self,
        interaction: discord.Interaction[Any],
        text: app_commands.Range[str, 1, TEXT_CHARS_MAX],
        kind: Literal["word", "pattern"] = "word",
        adult_ok: bool = False,
        reason: Reason | None = None,
    ) -> None:
        """Add to the blocklist."""
        by = moderator_of(interaction, reason)
        act = Act(do="text", text=text, kind=kind, adult_ok=adult_ok, on=True)
        await reply_outcome(interaction, await self._app.moderation.perform(by, act))

    @app_commands.command(name="unblock", description="Let a word or pattern into prompts again.")
    @app_commands.describe(text="As it was blocked.", reason="Kept on record.")
    async def unblock(
        self,
        interaction: discord.Interaction[Any],
        text: app_commands.Range[str, 1, TEXT_CHARS_MAX],
        reason: Reason | None = None,
    ) -> None:
        """Take off the blocklist."""
        by = moderator_of(interaction, reason)
        act = Act(do="text", text=text, on=False)
        await reply_outcome(interaction, await self._app.moderation.perform(by, act))

    @unblock.autocomplete("text")
    async def _blocked(
        self, interaction: discord.Interaction[Any], typed: str
    ) -> list[app_commands.Choice[str]]:
        check_manager(interaction)
        guild_id = server_of(interaction)
        blocked = await self._app.db.read(lambda tx: rules.blocked_texts(tx, guild_id))
        found = [entry.text for entry in blocked if typed.lower() in entry.text.lower()]
        return [app_commands.Choice(name=text, value=text) for text in found[:25]]

    # ---------------------------------------------------------------- taking pictures away

    async def delete_picture(self, interaction: discord.Interaction[Any], message: discord.Message) -> None:
        """Take a picture away: its message, and the picture from its member's history."""
        guild_id = server_of(interaction)
        job_id = await self._app.jobs.shown_in(message.id, guild_id=guild_id)
        if job_id is None:
            raise JobGone("That message shows no picture of mine; please choose one of my cards.")
        await self._app.jobs.delete(
            job_id, guild_id=guild_id, user_id=interaction.user.id, is_moderator=is_moderator(interaction)
        )
        await self._app.trail.deleted(guild_id=guild_id, user_id=interaction.user.id, job_id=job_id)
        await message.delete()
        await reply(interaction, "The picture is gone from here and from its member's history.")


def _check_reach(channel: discord.TextChannel) -> None:
    if missing := missing_permissions(channel.permissions_for(channel.guild.me)):
        raise InvalidOption(
            f"I can't post in {channel.mention}; please give me these permissions there: {listed(missing)}."
        )


def options_text(mine: Rules, blocked: list[BlockedText]) -> str:
    """Return a server's options and blocklist."""
    lines = [f"- {RULE_NAMES[name]}: **{rule_text(name, getattr(mine, name))}**" for name in OPTIONS]
    texts = ", ".join(map(_blocked_text, blocked))
    shown = texts if len(texts) <= SHOWN_CHARS_MAX else f"{texts[:SHOWN_CHARS_MAX]}…"
    return "\n".join([*lines, f"- blocked in prompts: {shown or 'nothing'}"])


def _blocked_text(entry: BlockedText) -> str:
    notes = [*(["pattern"] if entry.kind == "pattern" else []), *(["18+ ok"] if entry.adult_ok else [])]
    suffix = f" ({', '.join(notes)})" if notes else ""
    return f"“{plain(entry.text, TEXT_CHARS_MAX)}”{suffix}"


async def setup(bot: Img2ImgBot) -> None:
    """Add the cog."""
    await bot.add_cog(Calm(bot))
