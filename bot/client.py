"""The Discord client: intents, extensions, command sync, start and stop."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import signal
from collections.abc import Awaitable, Callable
from typing import Any, Final
from urllib.parse import urlsplit

import discord
from discord.ext import commands

from bot.app import App
from bot.errors import JobGone, OperatorError, UnusablePicture
from bot.interactions import NO_MENTIONS, JobButton, Tree
from db import guilds

log = logging.getLogger(__name__)

EXTENSIONS: Final = (
    "cogs.results",
    "cogs.img2img",
    "cogs.account",
    "cogs.quota",
    "cogs.calm",
    "cogs.audit_log",
    "cogs.operator",
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

Press = Callable[[discord.Interaction[Any], JobButton], Awaitable[None]]


class Img2ImgBot(commands.AutoShardedBot):
    """The client. It needs no privileged intent and caches no members or messages."""

    def __init__(self, *, shard_count: int | None = None, cdn_hosts: frozenset[str] = DISCORD_HOSTS) -> None:
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
        )
        self._cdn_hosts = cdn_hosts
        self._app: App | None = None
        self._presses: dict[str, Press] = {}
        self._recovered = False

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

    async def setup_hook(self) -> None:
        """Load every extension, loudly; register buttons; sync commands if they changed."""
        self.add_dynamic_items(JobButton)
        for extension in EXTENSIONS:
            await self.load_extension(extension)
        await self._sync_if_changed()

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
        """Take up unfinished jobs, once, when Discord can be told of them."""
        if not self._recovered:
            self._recovered = True
            await self.app.dispatcher.recover()
            log.info("Ready as %s in %d servers", self.user, len(self.guilds))

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


async def run_until_stopped(client: Img2ImgBot, token: str) -> None:
    """Run the client until SIGTERM or SIGINT. Raises `OperatorError` for a token Discord refuses."""
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    async with client:
        running = asyncio.create_task(_start(client, token))
        stopping = asyncio.create_task(stopped.wait())
        await asyncio.wait([running, stopping], return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            stopping.cancel()
            running.result()
        else:
            log.info("Stopping: running jobs may finish")
            await client.app.dispatcher.drain(client.app.settings.shutdown_grace_s)
            await client.close()
            await asyncio.gather(running, return_exceptions=True)


async def _start(client: Img2ImgBot, token: str) -> None:
    try:
        await client.start(token)
    except discord.LoginFailure as error:
        raise OperatorError(
            "Discord refuses the token; put the right one into IMG2IMG_DISCORD_TOKEN."
        ) from error
