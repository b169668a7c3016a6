"""`img2img-bot demo`: the real bot against a simulated Discord, in a browser page.

Only the network is missing: commands, queue, ledger, pictures and cards are the
bot's own. The simulator waits until the bot has settled after each action; what
takes real time here (painting, pauses) is declared to it as waiting for the world.
"""

from __future__ import annotations

import asyncio
import contextvars
import shutil
import tempfile
import time
import webbrowser
from collections.abc import AsyncIterator, Awaitable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Final, TypeVar

import discord
import simcord
import typer

from bot.app import App, open_app
from bot.backends.base import Backend, Capabilities, Generation, OnProgress, Progress
from bot.backends.painter import Painter
from bot.client import Img2ImgBot
from bot.params import Img2ImgParams
from bot.settings import Settings

T = TypeVar("T")

STEP_S: Final = 0.35
REFRESH_S: Final = 0.5
SIMULATED_CDN: Final = "cdn.simcord.invalid"


class DemoClock:
    """The simulator's calendar, moved on by real seconds."""

    def __init__(self) -> None:
        self.env: simcord.Env | None = None
        self._began = time.monotonic()
        self._epoch = 0.0

    def start(self, env: simcord.Env) -> None:
        """Take the calendar over from `env`."""
        self.env = env
        self._epoch = env.now().timestamp()

    def now(self) -> float:
        """Return seconds since 1970 in the simulated world."""
        return self._epoch + _real_monotonic() - self._began

    async def sleep(self, delay_s: float) -> None:
        """Wait real seconds."""
        await outside(self.env, asyncio.sleep(delay_s), reason="a pause")


def _real_monotonic() -> float:
    return time.clock_gettime(time.CLOCK_MONOTONIC)


async def outside(env: simcord.Env | None, work: Coroutine[Any, Any, T], *, reason: str) -> T:
    """Await `work` outside the simulator's ownership: it takes real time and holds nobody up."""
    if env is None:
        return await work
    task: Awaitable[T] = contextvars.Context().run(asyncio.ensure_future, work)
    result: T = await env.external_wait(task, reason=reason)
    return result


class DemoBackend:
    """A backend that works in real time beside the simulator."""

    def __init__(self, inner: Backend, clock: DemoClock) -> None:
        self.name = inner.name
        self.capabilities: Capabilities = inner.capabilities
        self._inner = inner
        self._clock = clock

    async def generate(self, params: Img2ImgParams, image: bytes, on_progress: OnProgress) -> Generation:
        """Make the pictures; progress is told from within the simulator's world."""
        inside = contextvars.copy_context()

        def tell(progress: Progress) -> None:
            inside.copy().run(on_progress, progress)

        work = self._inner.generate(params, image, tell)
        return await outside(self._clock.env, work, reason="painting")

    async def check(self) -> str:
        """Return the inner backend's health."""
        return await self._inner.check()

    async def aclose(self) -> None:
        """Close the inner backend."""
        await self._inner.aclose()


@dataclass(frozen=True, slots=True)
class Demo:
    """A running demo."""

    url: str
    sample: Path
    app: App
    env: simcord.Env


@asynccontextmanager
async def open_demo(*, port: int = 0, step_s: float = STEP_S) -> AsyncIterator[Demo]:
    """Run the bot in a simulated server with two members and a moderator, shown on a page at `port`."""
    folder = Path(tempfile.mkdtemp(prefix="img2img-demo-"))
    clock = DemoClock()
    bot = Img2ImgBot(shard_count=1, cdn_hosts=frozenset({SIMULATED_CDN}))
    settings = Settings(data_dir=folder, backends=("painter",), _env_file=None)  # type: ignore[call-arg]  # pydantic-settings' own
    painter = DemoBackend(Painter(pace_s=step_s), clock)
    try:
        async with open_app(settings, fetch=bot.fetch, clock=clock, backends=[painter]) as app:
            bot.app = app
            env = simcord.Env(bot, shard_count=1)
            clock.start(env)
            await env.start()
            try:
                async with _page(env, port) as preview:
                    yield Demo(preview.url, _sample(folder), app, env)
            finally:
                await bot.close()
                await env.shutdown()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@asynccontextmanager
async def _page(env: simcord.Env, port: int) -> AsyncIterator[simcord.Preview]:
    guild = env.create_guild("Picture lovers")
    channel = guild.create_text_channel("pictures")
    moderators = guild.create_role(
        "Moderators", permissions=discord.Permissions(manage_guild=True, manage_messages=True)
    )
    viewers = [
        guild.add_member(env.create_user("member")),
        guild.add_member(env.create_user("second-member")),
        guild.add_member(env.create_user("moderator"), roles=[moderators]),
    ]
    async with env.preview(channel, viewers=viewers, layout="channel", port=port) as preview:
        keeper = asyncio.create_task(_keep_fresh(env, preview))
        try:
            yield preview
        finally:
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)


async def _keep_fresh(env: simcord.Env, preview: simcord.Preview) -> None:
    """Republish the page when the bot has sent something: a blind republish makes clicks stale."""
    seen = -1
    while True:
        await asyncio.sleep(REFRESH_S)
        sent = len(env.http_requests)
        if sent == seen:
            continue
        try:
            await preview.refresh()
            seen = sent
        except (simcord.SetupError, TimeoutError):
            continue  # an action of the person's is under way; the next round sees it


def _sample(folder: Path) -> Path:
    sample = folder / "sample.jpg"
    sample.write_bytes((resources.files("bot") / "assets" / "sample.jpg").read_bytes())
    return sample


async def run_demo(*, port: int, open_browser: bool) -> None:
    """Open the demo and keep it until Ctrl-C."""
    async with open_demo(port=port) as demo:
        typer.echo(f"\n  The bot is running in a simulated Discord at\n\n    {demo.url}\n")
        typer.echo(f"  Type /img2img there and attach a picture, for instance\n\n    {demo.sample}\n")
        typer.echo(
            "  Switch between the member, the second member and the moderator on the page. Ctrl-C ends it.\n"
        )
        if open_browser:
            await asyncio.to_thread(webbrowser.open, demo.url)
        await asyncio.Event().wait()
