"""`/calm …`: a server's options and blocklist, and "Delete picture" for moderators."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Final, Literal

import discord
from discord import app_commands
from discord.ext import commands

from bot.errors import InvalidOption, JobGone
from bot.gateway.client import Img2ImgBot
from bot.gateway.escaping import one_line, plain
from bot.gateway.interactions import reply
from bot.moderation.actions import BlockText, SetOptions, UnblockText
from bot.moderation.blocklist import TEXT_CHARS_MAX
from bot.text import listed
from cogs.actors import guild_id_of, person_of
from cogs.bot_permissions import missing_permissions
from cogs.changes import setting_label, setting_value, within
from cogs.outcomes import Reason, perform
from db.guilds import BlockedText, GuildSettings

OPTIONS: Final = ("private", "results_channel_id", "log_channel_id")
SHOWN_CHARS_MAX: Final = 1_500  # of the 2,000 that Discord allows, beside the options
CHOICES_MAX: Final = 25  # Discord shows no more suggestions


@app_commands.default_permissions(manage_guild=True)
class ServerSettings(
    commands.GroupCog, group_name="calm", group_description="Server settings, for moderators."
):
    """Options of a server, answered in private."""

    def __init__(self, bot: Img2ImgBot) -> None:
        self._bot = bot
        self._app = bot.app
        self._moderation = bot.app.moderation
        self._menu = app_commands.ContextMenu(name="Delete picture", callback=self.delete_picture)
        self._menu.allowed_contexts = app_commands.AppCommandContext(guild=True)
        self._menu.default_permissions = discord.Permissions(manage_messages=True)

    async def cog_load(self) -> None:
        """Register the message command."""
        self._bot.tree.add_command(self._menu)

    async def cog_unload(self) -> None:
        """Remove the message command."""
        self._bot.tree.remove_command(self._menu.name, type=self._menu.type)

    @app_commands.command(name="show", description="This server's options and blocked words.")
    async def show(self, interaction: discord.Interaction[Any]) -> None:
        """Show what is set."""
        settings, blocked = await self._moderation.settings(person_of(interaction))
        await reply(interaction, options_text(settings, blocked))

    @app_commands.command(name="options", description="Where pictures go and who sees them.")
    @app_commands.describe(
        private="Pictures are visible only to whoever requests them, unless they choose otherwise.",
        results="Channel where finished pictures are posted, wherever they were requested.",
        log="Channel where moderation actions, jobs, button presses and reports are logged.",
        clear="Stop using this channel.",
        reason="Why; shown in the audit log.",
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
        settings: dict[str, int | None] = {}
        if private is not None:
            settings["private"] = int(private)
        for name, channel in (("results", results), ("log", log)):
            if channel is not None:
                _check_can_post(channel)
                settings[f"{name}_channel_id"] = channel.id
        if clear is not None:
            settings[f"{clear}_channel_id"] = None
        await perform(self._moderation, interaction, SetOptions(settings=settings), reason)

    @app_commands.command(name="block", description="Block a word or pattern in prompts.")
    @app_commands.describe(
        text="One or more words; or a pattern: . [a-z] \\d \\w \\s x* x+ x? (ab|cd)",
        kind="Words match whole words; patterns match anywhere.",
        adult_ok="Allow it in age-restricted channels.",
        reason="Why; shown in the audit log.",
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
        action = BlockText(text=text, text_kind=kind, adult_ok=adult_ok)
        await perform(self._moderation, interaction, action, reason)

    @app_commands.command(name="unblock", description="Allow a word or pattern in prompts again.")
    @app_commands.describe(
        text="The word or pattern, as /calm show lists it.", reason="Why; shown in the audit log."
    )
    async def unblock(
        self,
        interaction: discord.Interaction[Any],
        text: app_commands.Range[str, 1, TEXT_CHARS_MAX],
        reason: Reason | None = None,
    ) -> None:
        """Remove from the blocklist."""
        await perform(self._moderation, interaction, UnblockText(text=text), reason)

    @unblock.autocomplete("text")
    async def _blocked(
        self, interaction: discord.Interaction[Any], typed: str
    ) -> list[app_commands.Choice[str]]:
        _, blocked = await self._moderation.settings(person_of(interaction))
        found = [entry.text for entry in blocked if typed.lower() in entry.text.lower()]
        return [
            app_commands.Choice(name=one_line(text, TEXT_CHARS_MAX), value=text)
            for text in found[:CHOICES_MAX]
        ]

    async def delete_picture(self, interaction: discord.Interaction[Any], message: discord.Message) -> None:
        """Delete a picture: its message, and the picture from its member's history."""
        job_id = await self._app.job_records.id_of_message(message.id, guild_id=guild_id_of(interaction))
        if job_id is None:
            raise JobGone("That message doesn't show one of the bot's pictures; please choose one that does.")
        person = person_of(interaction)
        await self._app.jobs.delete(person, job_id)
        await self._app.audit_log.record_deletion(person, job_id=job_id)
        with suppress(discord.NotFound):  # somebody else was faster
            await message.delete()
        await reply(interaction, "Picture deleted here and from the member's history.")


def _check_can_post(channel: discord.TextChannel) -> None:
    missing = missing_permissions(channel.permissions_for(channel.guild.me))
    if missing:
        raise InvalidOption(f"The bot can't post in {channel.mention}; it needs {listed(missing)} there.")


def options_text(settings: GuildSettings, blocked: list[BlockedText]) -> str:
    """Return a server's options and blocklist."""
    lines = [
        f"- {setting_label(name)}: **{setting_value(name, getattr(settings, name))}**" for name in OPTIONS
    ]
    shown = within(map(_blocked_text, blocked), separator=", ", chars_max=SHOWN_CHARS_MAX)
    return "\n".join([*lines, f"- Blocked in prompts: {shown or 'nothing'}"])


def _blocked_text(entry: BlockedText) -> str:
    notes = ["pattern"] if entry.kind == "pattern" else []
    notes += ["allowed in age-restricted channels"] if entry.adult_ok else []
    suffix = f" ({', '.join(notes)})" if notes else ""
    return f"“{plain(entry.text, TEXT_CHARS_MAX)}”{suffix}"


async def setup(bot: Img2ImgBot) -> None:
    """Add the cog."""
    await bot.add_cog(ServerSettings(bot))
