"""The real bot on the simulated Discord: one world a test, with a clock that the test moves."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import discord
import simcord
from PIL import Image, ImageColor

from bot.actors import Person
from bot.app import App, open_app
from bot.backends.base import Backend, Capabilities, Generation, OnProgress, Picture, Progress
from bot.gateway.client import Img2ImgBot
from bot.gateway.sentences import sentence_of
from bot.params import Img2ImgParams
from bot.settings import bare_settings
from db import ledger

__all__ = ["Sketcher", "World", "a_picture", "open_world", "said", "texts"]


class WorldClock:
    """The simulator's own time; a sleep ends when the test has moved time far enough."""

    def __init__(self) -> None:
        self.env: simcord.Env | None = None

    def now(self) -> float:
        """Return the simulated seconds since 1970."""
        assert self.env is not None
        return self.env.now().timestamp()

    async def sleep(self, delay_s: float) -> None:
        """Wait simulated seconds."""
        assert self.env is not None
        await self.env.external_wait(asyncio.sleep(delay_s), reason="a pause")


SKETCHING = Capabilities(
    label="Sketcher",
    uses_model=False,
    can_cancel=True,
    concurrency_max=2,
    typical_s=20,
)


@dataclass
class Sketcher:
    """A backend that at once draws a plain picture in a colour that follows the seed.

    `errors` are raised by the next calls, one each; while `gate` is set, calls wait for it.
    """

    env: simcord.Env | None = None
    errors: list[Exception] = field(default_factory=list)
    gate: asyncio.Future[None] | None = None
    steps: int = 0
    preview: bytes | None = None
    calls: list[tuple[Img2ImgParams, bytes]] = field(default_factory=list)
    cancelled: int = 0
    name: str = "sketcher"
    capabilities: Capabilities = SKETCHING

    async def generate(self, params: Img2ImgParams, image: bytes, on_progress: OnProgress) -> Generation:
        """Draw, or fail as told."""
        self.calls.append((params, image))
        for step in range(1, self.steps + 1):
            on_progress(Progress(step, params.num_inference_steps, self.preview))
        await self._pass_gate()
        if self.errors:
            raise self.errors.pop(0)
        size = Image.open(io.BytesIO(image)).size
        return Generation(tuple(_drawn(params, index, size) for index in range(params.samples)))

    async def _pass_gate(self) -> None:
        if self.gate is None:
            return
        assert self.env is not None
        try:
            await self.env.external_wait(asyncio.shield(self.gate), reason="the test's gate")
        except asyncio.CancelledError:
            self.cancelled += 1
            raise

    async def check(self) -> str:
        """Say that all is well."""
        return "Sketcher can draw."

    async def aclose(self) -> None:
        """Have nothing to give back."""


def _drawn(params: Img2ImgParams, index: int, size: tuple[int, int]) -> Picture:
    seed = params.sample(index).seed
    picture = Image.new("RGB", size, ImageColor.getrgb(f"hsl({seed % 360}, 60%, 50%)"))
    encoded = io.BytesIO()
    picture.save(encoded, "JPEG")
    return Picture(index, seed, encoded.getvalue())


def a_picture(size: tuple[int, int] = (640, 480), kind: str = "PNG") -> bytes:
    """Return the bytes of a small real picture."""
    picture = Image.linear_gradient("L").resize(size).convert("RGB")
    encoded = io.BytesIO()
    picture.save(encoded, kind)
    return encoded.getvalue()


def _bot() -> Img2ImgBot:
    return Img2ImgBot(shard_count=1, cdn_hosts=frozenset({"cdn.simcord.invalid"}))


class BurstEnv(simcord.Env):
    """The simulator, able to let many people act before the bot has settled."""

    bursting = False

    async def _settle_internal(self, **options: Any) -> None:
        if not self.bursting:
            await super()._settle_internal(**options)


class World:
    """A server with a channel, two members, a moderator, and the bot in it."""

    def __init__(self, folder: Path, backends: Sequence[Backend], settings: dict[str, Any]) -> None:
        self.clock = WorldClock()
        self.backends = backends
        self._settings = bare_settings(data_dir=folder, decoder_children=1, shutdown_grace_s=0, **settings)
        self._open = AsyncExitStack()
        self.bot = _bot()
        self.env = BurstEnv(self.bot, shard_count=1, settle_timeout=20)
        self._join(self.env)
        self.app: App
        self.guild = self.env.create_guild("Server")
        self.channel = self.guild.create_text_channel("pictures")
        moderators = self.guild.create_role(
            "Moderators", permissions=discord.Permissions(manage_guild=True, manage_messages=True)
        )
        self.alice = self.guild.add_member(self.env.create_user("alice"))
        self.bob = self.guild.add_member(self.env.create_user("bob"))
        self.moderator = self.guild.add_member(self.env.create_user("moderator"), roles=[moderators])

    def _join(self, env: simcord.Env) -> None:
        self.clock.env = env
        for backend in self.backends:
            if isinstance(backend, Sketcher):
                backend.env = env

    async def start(self) -> None:
        """Open the app and connect the bot."""
        await self._open_app()
        await self.env.start()

    async def _open_app(self) -> None:
        self.app = await self._open.enter_async_context(
            open_app(self._settings, fetch=self.bot.fetch, clock=self.clock, backends=self.backends)
        )
        self.bot.app = self.app

    async def crash_and_restart(self) -> None:
        """Drop the bot where it is and start a new one on the same folder and Discord."""
        await self.kill()
        self.bot = _bot()
        await self._open_app()
        await self.env.restart_bot(self.bot)

    async def kill(self) -> None:
        """Cut the bot off: nothing runs to its end."""
        await self.app.dispatcher.drain(0)
        await self.bot.close()
        await self._open.aclose()

    async def close(self) -> None:
        """End everything, then raise what the bot swallowed."""
        await self.env.settle()
        await self.bot.close()
        await self._open.aclose()
        await self.env.shutdown()
        unforeseen = [
            error
            for error in self.env.errors
            if isinstance(error, Exception) and sentence_of(_cause(error)) is None
        ]
        if unforeseen:
            raise ExceptionGroup("the bot swallowed", unforeseen)

    async def img2img(
        self, who: simcord.MemberActor | None = None, **options: Any
    ) -> simcord.InteractionResult:
        """Let a member type `/img2img` with a small picture unless told otherwise."""
        options.setdefault("image", ("in.png", a_picture()))
        options.setdefault("prompt", "a harbour at dawn")
        return await (who or self.alice).slash(self.channel, "img2img", **options)

    @contextmanager
    def burst(self) -> Iterator[None]:
        """Let all that people do in this block happen at the same moment."""
        self.env.bursting = True
        try:
            yield
        finally:
            self.env.bursting = False

    def calm(self) -> None:
        """End the faults that were injected."""
        self.env.backend.faults.clear()

    @property
    def card(self) -> discord.Message:
        """The last message in the channel, private ones included."""
        message = self.channel.last_message
        assert message is not None, "the channel is empty"
        return message

    def seen_by_all(self) -> discord.Message | None:
        """Return the last message that everyone in the channel sees."""
        seen = self.channel.history(viewer=self.bob)
        return seen[-1] if seen else None

    async def ledger_faults(self) -> list[str]:
        """Return what is inconsistent in the ledger."""
        return await self.app.db.read(ledger.reconcile)

    async def available(self, who: simcord.MemberActor | None = None) -> int:
        """Return what a member can spend."""
        wallet = await self.app.credits.wallet(Person(self.guild.id, (who or self.alice).id))
        return wallet.available


@asynccontextmanager
async def open_world(
    folder: Path, *, backends: Sequence[Backend] = (), **settings: Any
) -> AsyncIterator[World]:
    """Open a world; at the end everything is closed and swallowed errors are raised."""
    world = World(folder, backends or [Sketcher()], settings)
    await world.start()
    try:
        yield world
    finally:
        await world.close()


def _cause(error: Any) -> BaseException:
    cause: BaseException = getattr(error, "original", error)
    return cause


def said(result: simcord.InteractionResult) -> simcord.ResponseMessage:
    """Return the first answer to what somebody did."""
    assert result.response is not None, "nobody answered"
    return result.response


def texts(message: Any) -> str:
    """Return all words of a message: its content and its components' texts."""
    message = getattr(message, "message", message)
    found = [message.content or ""]
    pending = list(message.components)
    while pending:
        component = pending.pop(0)
        found.append(getattr(component, "content", None) or "")
        pending = [*getattr(component, "children", ()), *pending]
    return "\n".join(filter(None, found))
