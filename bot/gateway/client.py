"""The Discord client: intents, extensions, command sync, start and stop."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final
from urllib.parse import urlsplit

import discord
from discord.ext import commands

from bot.app import App
from bot.errors import JobGone, OperatorError, UnusablePicture
from bot.gateway.interactions import NO_MENTIONS, JobButton, Tree
from db import members as guilds

log = logging.getLogger(__name__)

EXTENSIONS: Final = (
    "cogs.results",
    "cogs.img2img",
    "cogs.credits",
    "cogs.quota",
    "cogs.settings",
    "cogs.audit_log",
    "cogs.owner",
)

#: Buttons that carry an interaction's id in place of a job's.
NOT_ABOUT_JOBS: Final = frozenset({"confirm", "withdraw"})

#: Where Discord keeps attachments and hands out the pictures of embeds.
DISCORD_HOSTS: Final = frozenset(
    {
        "cdn.discordapp.com",
        "media.discordapp.net",
        "images-ext-1.discordapp.net",
        "images-ext-2.discordapp.net",
    }
)

Farewell = Callable[[], Awaitable[None]]
Press = Callable[[discord.Interaction[Any], JobButton], Awaitable[None]]


class Img2ImgBot(commands.AutoShardedBot):
    """The client. It needs no privileged intent and caches no members or messages."""

    def __init__(
        self,
        *,
        shard_count: int | None = None,
        cdn_hosts: frozenset[str] = DISCORD_HOSTS,
        servers_wait_s: float = 2.0,
    ) -> None:
        """Get ready to connect; `servers_wait_s` after the last server is announced, it is ready."""
        super().__init__(
            command_prefix=commands.when_mentioned,
            help_command=None,
            tree_cls=Tree,
            intents=discord.Intents(guilds=True),
            allowed_mentions=NO_MENTIONS,
            max_messages=None,
            member_cache_flags=discord.MemberCacheFlags.none(),
            chunk_guilds_at_startup=False,
            allowed_contexts=discord.app_commands.AppCommandContext(guild=True),
            allowed_installs=discord.app_commands.AppInstallationType(guild=True),
            shard_count=shard_count,
            guild_ready_timeout=servers_wait_s,
        )
        self._cdn_hosts = cdn_hosts
        self._app: App | None = None
        self._presses: dict[str, Press] = {}
        self._farewells: list[Farewell] = []

    @property
    def app(self) -> App:
        """Everything behind the commands. Set before the client starts."""
        assert self._app is not None, "hand the client its app before it starts"  # noqa: S101
        return self._app

    @app.setter
    def app(self, app: App) -> None:
        self._app = app

    async def fetch(self, url: str) -> bytes:
        """Return the bytes behind one of Discord's own addresses; an embed may name any other.

        Raises `UnusablePicture` for those.
        """
        parts = urlsplit(url)
        if parts.scheme != "https" or parts.hostname not in self._cdn_hosts:
            raise UnusablePicture("That picture is not on Discord; please save it and attach it yourself.")
        return await self.http.get_from_cdn(url)

    async def stay(self, token: str) -> None:
        """Stay on Discord for as long as it lasts. Raises `OperatorError` for a token Discord refuses."""
        try:
            await self.start(token)
        except discord.LoginFailure as error:
            raise OperatorError(
                "Discord refuses the token; put the right one into IMG2IMG_DISCORD_TOKEN."
            ) from error

    async def setup_hook(self) -> None:
        """Load every extension, loudly; register buttons; sync commands; take up unfinished jobs.

        This is after the login, so that Discord can be told of them, and before the
        gateway, so that no new job can be taken for one that a crash left behind.
        """
        self.add_dynamic_items(JobButton)
        for extension in EXTENSIONS:
            await self.load_extension(extension)
        await self._sync_if_changed()
        await self.app.dispatcher.recover()

    async def _sync_if_changed(self) -> None:
        """Send the commands to Discord only when they differ: it allows few such calls a day."""
        payload = [command.to_dict(self.tree) for command in self.tree.walk_commands()]
        payload += [
            menu.to_dict(self.tree) for menu in self.tree.get_commands(type=discord.AppCommandType.message)
        ]
        stamp = f"{self.application_id}:{hashlib.sha256(json.dumps(payload).encode()).hexdigest()}"
        if await self.app.db.read(lambda tx: guilds.remembered(tx, "commands")) == stamp:
            return
        await self.tree.sync()
        await self.app.db.write(lambda tx: guilds.remember(tx, key="commands", value=stamp))

    async def on_ready(self) -> None:
        """Say so in the log; it happens again after a new session."""
        log.info("Ready as %s in %d servers", self.user, len(self.guilds))

    # --------------------------------------------------------------- the end

    def before_close(self, farewell: Farewell) -> None:
        """Let `farewell` run before the client is closed in good order."""
        self._farewells.append(farewell)

    async def say_farewell(self, timeout_s: float) -> None:
        """Let everything that is still to be shown be shown, for at most `timeout_s`."""
        tasks = [asyncio.ensure_future(farewell()) for farewell in self._farewells]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=timeout_s)
            for task in late:
                task.cancel()

    # ---------------------------------------------------------------- buttons

    def on_press(self, operation: str, press: Press) -> None:
        """Let `press` handle the buttons of `operation`."""
        self._presses[operation] = press

    async def pressed(self, interaction: discord.Interaction[Any], button: JobButton) -> None:
        """Hand a press to whoever handles its operation."""
        press = self._presses.get(button.operation)
        if press is None:
            raise JobGone
        if button.operation not in NOT_ABOUT_JOBS:
            await self.app.trail.pressed(
                button.operation,
                guild_id=interaction.guild_id or 0,
                user_id=interaction.user.id,
                job_id=button.job_id,
            )
        await press(interaction, button)
