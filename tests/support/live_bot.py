"""The real bot on the wire stand-in: the library unmodified, sockets and all, in this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import discord
import yarl

from bot.app import App, open_app
from bot.backends.base import Backend, Capabilities, Generation, OnProgress, Picture
from bot.gateway.client import Img2ImgBot
from bot.gateway.supervisor import Supervisor
from bot.params import Img2ImgParams
from bot.pictures.store import PictureStore
from bot.settings import Settings
from cogs.results import Results
from db import jobs, ledger
from db.database import Database
from tests.support.discord_wire import TOKEN, Wire

SERVERS_WAIT_S = 0.02


class WireBot(Img2ImgBot):
    """The bot, its attachments fetched from the stand-in where Discord's own addresses are meant."""

    def __init__(self, origin: str, *, shard_count: int | None = None) -> None:
        super().__init__(shard_count=shard_count, servers_wait_s=SERVERS_WAIT_S)
        self._origin = origin

    async def fetch(self, url: str) -> bytes:
        """Return an attachment's bytes."""
        return await self.http.get_from_cdn(f"{self._origin}/cdn/{url.rsplit('/', 1)[1]}")


@contextmanager
def pointed_at(wire_url: str, gateway: str) -> Iterator[None]:
    """Let discord.py talk to the stand-in instead of Discord."""
    api, hub = discord.http.Route.BASE, discord.gateway.DiscordWebSocket.DEFAULT_GATEWAY
    discord.http.Route.BASE = wire_url
    discord.gateway.DiscordWebSocket.DEFAULT_GATEWAY = yarl.URL(gateway)
    try:
        yield
    finally:
        discord.http.Route.BASE, discord.gateway.DiscordWebSocket.DEFAULT_GATEWAY = api, hub


async def eventually(ready: Callable[[], Any], *, timeout_s: float = 20) -> None:
    """Wait until `ready` says so."""
    async with asyncio.timeout(timeout_s):
        while not ready():  # noqa: ASYNC110 - nobody announces it
            await asyncio.sleep(0.005)


@dataclass(slots=True)
class Life:
    """One life of the bot, from its start to its end or death."""

    app: App
    supervisor: Supervisor
    running: asyncio.Task[None]
    killed: bool = False

    async def ledger_faults(self) -> list[str]:
        """Return what is inconsistent in the ledger."""
        return await self.app.db.read(ledger.reconcile)

    async def unfinished(self) -> list[int]:
        """Return the jobs that have not ended."""
        return [job.id for job in await self.app.db.read(jobs.list_unfinished)]

    async def drained(self, *, timeout_s: float = 20) -> None:
        """Wait until every job has ended."""
        async with asyncio.timeout(timeout_s):
            while await self.unfinished():  # noqa: ASYNC110 - what is waited for is on disk
                await asyncio.sleep(0.01)

    async def settled(self) -> None:
        """Wait until every job has ended and every card shows it."""
        await self.drained()
        assert self.supervisor._client is not None
        # The library loads extensions anew for each client: their classes are not those imported here.
        results = cast("Results", self.supervisor._client.get_cog("Results"))
        await eventually(lambda: self.app.dispatcher.is_idle and results.is_idle)

    async def spent(self) -> int:
        """Return what all pictures have cost."""
        return await self.app.db.read(
            lambda tx: ledger.peek_account(tx, kind="provider", guild_id=0, user_id=0).posted
        )


@asynccontextmanager
async def living(
    folder: Path,
    wire: Wire,
    *,
    backends: Sequence[Backend],
    wrap_db: Callable[[Database], Database] = lambda db: db,
    wrap_store: Callable[[PictureStore], PictureStore] = lambda store: store,
    token: str = TOKEN,
    **settings: Any,
) -> AsyncIterator[Life]:
    """Start the bot and wait until it is online and has resumed its jobs; stop it at once at the end."""
    options = {"decoder_children": 1, "shutdown_grace_s": 0, **settings}
    made = Settings(data_dir=folder, _env_file=None, **options)  # type: ignore[call-arg]  # the tests' own values
    supervisor = Supervisor(lambda: WireBot(wire.url.removesuffix("/api/v10")))
    with pointed_at(wire.url, wire.gateway):
        async with open_app(
            made, fetch=supervisor.fetch, backends=backends, wrap_db=wrap_db, wrap_store=wrap_store
        ) as app:
            running = asyncio.create_task(supervisor.run(app, token))
            try:
                life = Life(app, supervisor, running)
                yield life
            finally:
                supervisor.stop()
                supervisor.stop()
                await asyncio.wait([running])
                if not life.killed and not running.cancelled():
                    running.result()


BRUSH = Capabilities(
    label="Brush",
    uses_model=False,
    can_cancel=True,
    concurrency_max=2,
    typical_s=5,
)


@dataclass(slots=True)
class Brush:
    """A backend that draws at once, or as the test wants: an error a call, or waiting for the gate."""

    errors: list[Exception] = field(default_factory=list)
    gate: asyncio.Event | None = None
    calls: int = 0
    name: str = "brush"
    capabilities: Capabilities = BRUSH

    async def generate(self, params: Img2ImgParams, image: bytes, on_progress: OnProgress) -> Generation:
        """Give the input back in place of a new picture."""
        del on_progress
        self.calls += 1
        if self.gate is not None:
            await self.gate.wait()
        if self.errors:
            raise self.errors.pop(0)
        return Generation(tuple(Picture(n, params.seed, image) for n in range(params.samples)))

    async def check(self) -> str:
        """Say that all is well."""
        return "Brush can draw."

    async def aclose(self) -> None:
        """Have nothing to give back."""
