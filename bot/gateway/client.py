"""The Discord client: intents, extensions, command sync, start and stop."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol, TypeVar
from urllib.parse import urlsplit

import discord
from discord.ext import commands

from bot.actors import Person
from bot.app import App
from bot.errors import JobGone, OperatorError, UnusablePicture
from bot.gateway.buttons import JobButton, PersistentButton, ProposalButton
from bot.gateway.interactions import NO_MENTIONS, Tree
from bot.text import counted
from db.jobs import Job
from db.operations import Operation

log = logging.getLogger(__name__)

EXTENSIONS: Final = (
    "cogs.results",  # first: it provides `job_cards`
    "cogs.img2img",
    "cogs.credits",
    "cogs.history",
    "cogs.quota",
    "cogs.settings",
    "cogs.audit_log",
    "cogs.owner",
)

#: Every operation that a button asks for; `img2img` is a command.
BUTTON_OPERATIONS: Final = frozenset(Operation) - {Operation.IMG2IMG}

#: Where Discord keeps attachments and hands out the pictures of embeds.
DISCORD_HOSTS: Final = frozenset(
    {
        "cdn.discordapp.com",
        "media.discordapp.net",
        "images-ext-1.discordapp.net",
        "images-ext-2.discordapp.net",
    }
)

ShutdownHook = Callable[[], Awaitable[None]]
PressHandler = Callable[[discord.Interaction[Any], Any], Awaitable[None]]
ButtonT = TypeVar("ButtonT", bound=PersistentButton)


class JobCards(Protocol):
    """The cards of jobs, for commands and buttons that start one."""

    async def post(self, interaction: discord.Interaction[Any], job: Job) -> None:
        """Answer the interaction with the new job's card, which is kept up to date from then on."""
        ...


class Img2ImgBot(commands.AutoShardedBot):
    """The client. It needs no privileged intent and caches no members or messages."""

    #: Set by the extension that shows jobs.
    job_cards: JobCards

    def __init__(
        self,
        *,
        shard_count: int | None = None,
        cdn_hosts: frozenset[str] = DISCORD_HOSTS,
        servers_wait_s: float = 2.0,
    ) -> None:
        """Prepare to connect; it counts as ready `servers_wait_s` after the last server is announced."""
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
        self._press_handlers: dict[Operation, PressHandler] = {}
        self._shutdown_hooks: list[ShutdownHook] = []

    @property
    def app(self) -> App:
        """Everything behind the commands. Set before the client starts."""
        assert self._app is not None, "set the client's app before it starts"  # noqa: S101
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
            raise UnusablePicture("That picture isn't on Discord; please save it and attach it yourself.")
        return await self.http.get_from_cdn(url)

    async def run_until_disconnected(self, token: str) -> None:
        """Connect and serve until the connection ends. Raises `OperatorError` for a token Discord refuses."""
        try:
            await self.start(token)
        except discord.LoginFailure as error:
            raise OperatorError(
                "Discord rejected the bot's token; please correct IMG2IMG_DISCORD_TOKEN."
            ) from error

    async def setup_hook(self) -> None:
        """Load every extension, register buttons, sync commands, resume unfinished jobs.

        This runs after the login, so that requests to Discord work, and before the
        gateway connects, so that no new job can be taken for one that a crash left behind.
        """
        self.add_dynamic_items(JobButton, ProposalButton)
        for extension in EXTENSIONS:
            await self.load_extension(extension)
        self._check_press_handlers()
        await self._sync_if_changed()
        await self.app.dispatcher.recover()
        self.app.upkeep.start()

    def _check_press_handlers(self) -> None:
        """Raise `OperatorError` if a button would do nothing: better at the start than at a press."""
        if missing := sorted(BUTTON_OPERATIONS - self._press_handlers.keys()):
            raise OperatorError(f"This build of the bot has no handler for the buttons {', '.join(missing)}.")

    async def _sync_if_changed(self) -> None:
        """Send the commands to Discord only when they differ: it allows few such calls a day."""
        payload = [command.to_dict(self.tree) for command in self.tree.walk_commands()]
        payload += [
            menu.to_dict(self.tree) for menu in self.tree.get_commands(type=discord.AppCommandType.message)
        ]
        stamp = f"{self.application_id}:{hashlib.sha256(json.dumps(payload).encode()).hexdigest()}"
        if await self.app.command_stamp() != stamp:
            await self.tree.sync()
            await self.app.set_command_stamp(stamp)

    async def on_ready(self) -> None:
        """Log it; it happens again after each new session."""
        log.info("Ready as %s in %s", self.user, counted(len(self.guilds), "server"))

    def add_shutdown_hook(self, hook: ShutdownHook) -> None:
        """Let `hook` run before an orderly shutdown closes the client."""
        self._shutdown_hooks.append(hook)

    async def run_shutdown_hooks(self, timeout_s: float) -> None:
        """Run every shutdown hook, for at most `timeout_s` seconds."""
        tasks = [asyncio.ensure_future(hook()) for hook in self._shutdown_hooks]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=timeout_s)
            for task in late:
                task.cancel()

    def on_press(
        self,
        operation: Operation,
        handler: Callable[[discord.Interaction[Any], ButtonT], Awaitable[None]],
    ) -> None:
        """Let `handler` handle the buttons of `operation`."""
        self._press_handlers[operation] = handler

    async def pressed(self, interaction: discord.Interaction[Any], button: PersistentButton) -> None:
        """Hand a press to its operation's handler. Raises `JobGone` for an operation that does not exist."""
        if button.operation is None or (handler := self._press_handlers.get(button.operation)) is None:
            raise JobGone
        if isinstance(button, JobButton):
            who = Person(interaction.guild_id or 0, interaction.user.id)
            await self.app.audit_log.record_press(button.operation, who, job_id=button.job_id)
        await handler(interaction, button)
