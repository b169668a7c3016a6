"""`img2img-bot demo`: the real bot against a simulated Discord, in a browser page.

Only the network is simulated: commands, queue, ledger, pictures and cards are the
bot's own. After each action the simulator waits until the bot has nothing left to do;
work that takes real time (painting, sleeping) is declared to it as an external wait.
"""

from __future__ import annotations

import asyncio
import contextvars
import shutil
import signal
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
from bot.backends.gpu_server import GpuServerBackend
from bot.backends.painter import Painter
from bot.clock import SystemClock
from bot.demo.proxy import open_proxy
from bot.gateway.client import Img2ImgBot
from bot.params import Img2ImgParams
from bot.settings import bare_settings

T = TypeVar("T")

#: Slow enough to watch a picture grow: 20 steps take 7 s.
STEP_S: Final = 0.35
#: Enough for 25 one-megapixel pictures with the default options; moderators can change it.
DAILY_ALLOWANCE: Final = 100
SIMULATED_CDN: Final = "cdn.simcord.invalid"
#: Generous, as a slow machine may take long to decode a large picture.
SETTLE_TIMEOUT_S: Final = 20.0
SAMPLE: Final = "sample.jpg"
TOPIC: Final = "Type /img2img, attach a picture and describe what you want. Only Discord is simulated here."
WELCOME: Final = """\
**Welcome! This is the real bot in a simulated Discord.**
1. Type `/img2img` below. Attach a picture: your own, or this one (save it with its download button).
2. Describe in `prompt` what you want and send it. Then try the buttons under the result.
3. Try `/credits show` and `/history`. Switch members with "Viewing as" at the top; as the moderator \
you can use `/quota`."""


class DemoClock:
    """The system clock, which the simulator's clock follows."""

    def __init__(self) -> None:
        self.env: simcord.Env | None = None

    def start(self, env: simcord.Env) -> None:
        """Keep the clock of `env` on system time from now on."""
        self.env = env
        self.catch_up()

    def catch_up(self) -> None:
        """Advance the simulator's clock to now."""
        if self.env is not None:
            behind_s = time.time() - self.env.now().timestamp()
            self.env.backend.advance_clock(max(0.0, behind_s))

    def now(self) -> float:
        """Return seconds since 1970."""
        self.catch_up()
        return time.time()

    async def sleep(self, delay_s: float) -> None:
        """Wait real seconds."""
        await external_wait(self.env, asyncio.sleep(delay_s), reason="a pause")


async def external_wait(env: simcord.Env | None, work: Coroutine[Any, Any, T], *, reason: str) -> T:
    """Await `work` that takes real time, without the simulator waiting for it to settle."""
    if env is None:
        return await work
    task: Awaitable[T] = contextvars.Context().run(asyncio.ensure_future, work)
    result: T = await env.external_wait(task, reason=reason)
    return result


class DemoBackend:
    """A backend that works in real time, outside the simulator."""

    def __init__(self, inner: Backend, clock: DemoClock) -> None:
        self.name = inner.name
        self.capabilities: Capabilities = inner.capabilities
        self._inner = inner
        self._clock = clock

    async def generate(self, params: Img2ImgParams, image: bytes, on_progress: OnProgress) -> Generation:
        """Make the pictures; progress is reported in the caller's context, which the simulator tracks."""
        context = contextvars.copy_context()

        def report(progress: Progress) -> None:
            context.copy().run(on_progress, progress)

        work = self._inner.generate(params, image, report)
        return await external_wait(self._clock.env, work, reason="painting")

    async def check(self) -> str:
        """Check the inner backend."""
        return await self._inner.check()

    async def aclose(self) -> None:
        """Close the inner backend."""
        await self._inner.aclose()


@dataclass(frozen=True, slots=True)
class Demo:
    """A running demo: its page's address, a sample picture, and its parts."""

    url: str
    sample: Path
    app: App
    env: simcord.Env
    preview: simcord.Preview


@asynccontextmanager
async def open_demo(
    *, port: int = 0, step_s: float = STEP_S, gpu_url: str | None = None
) -> AsyncIterator[Demo]:
    """Run the bot in a simulated server with two members and a moderator, shown on a page at `port`.

    Pictures are made by the GPU server at `gpu_url`, or else by the painter, which takes at least
    `step_s` seconds per step. Raises `OperatorError` if the port is in use.
    """
    folder = Path(tempfile.mkdtemp(prefix="img2img-demo-"))
    clock = DemoClock()
    bot = Img2ImgBot(shard_count=1, cdn_hosts=frozenset({SIMULATED_CDN}))
    settings = bare_settings(data_dir=folder, backends=("painter",), daily_allowance=DAILY_ALLOWANCE)
    inner = GpuServerBackend(url=gpu_url, clock=SystemClock()) if gpu_url else Painter(pace_s=step_s)
    backend = DemoBackend(inner, clock)
    try:
        async with open_app(settings, fetch=bot.fetch, clock=clock, backends=[backend]) as app:
            bot.app = app
            env = simcord.Env(bot, shard_count=1, settle_timeout=SETTLE_TIMEOUT_S)
            env.backend.edit_bot_profile("img2img")
            clock.start(env)
            await env.start()
            del bot.tree.on_error  # the simulator's handler, which reports the bot's refusals as failures
            try:
                picture = (resources.files("bot.demo") / "assets" / SAMPLE).read_bytes()
                sample = folder / SAMPLE
                sample.write_bytes(picture)
                async with _page(env, clock, picture, port) as (preview, url):
                    yield Demo(url, sample, app, env, preview)
            finally:
                await bot.close()
                await env.shutdown()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@asynccontextmanager
async def _page(
    env: simcord.Env, clock: DemoClock, picture: bytes, port: int
) -> AsyncIterator[tuple[simcord.Preview, str]]:
    guild = env.create_guild("Picture lovers")
    channel = guild.create_text_channel("pictures", topic=TOPIC)
    moderators = guild.create_role(
        "Moderators", permissions=discord.Permissions(manage_guild=True, manage_messages=True)
    )
    member = guild.add_member(env.create_user("member"))
    second = guild.add_member(env.create_user("second-member"))
    moderator = guild.add_member(env.create_user("moderator"), roles=[moderators])
    async with (
        env.preview(channel, viewers=[member, second, moderator], layout="channel") as preview,
        open_proxy(env, preview, port=port, catch_up=clock.catch_up) as url,
    ):
        await moderator.send(channel, WELCOME, attachments=[(SAMPLE, picture)])
        yield preview, url


async def run_demo(*, port: int, open_browser: bool, gpu_url: str | None = None) -> None:
    """Run the demo until a signal or the page ends it."""
    signalled = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, signalled.set)
    async with open_demo(port=port, gpu_url=gpu_url) as demo:
        typer.echo(f"\n  The bot is running in a simulated Discord at\n\n    {demo.url}\n")
        typer.echo(f"  Type /img2img there and attach a picture, for example\n\n    {demo.sample}\n")
        typer.echo(
            "  You can switch between two members and a moderator on the page. Press Ctrl-C to stop.\n"
        )
        if open_browser:
            await asyncio.to_thread(webbrowser.open, demo.url)
        await _first_of(signalled.wait(), demo.preview.wait_closed())


async def _first_of(*endings: Coroutine[Any, Any, Any]) -> None:
    waiting = [asyncio.create_task(ending) for ending in endings]
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    for task in waiting:
        task.cancel()
