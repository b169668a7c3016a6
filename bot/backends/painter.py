"""The embedded default backend: a procedural painter, without model, key or network.

It paints over the member's picture with brush strokes that follow its edges, in
layers from coarse to fine. A few words of the prompt choose the medium and the
palette (`bot.backends.painting.words`); the rest of it means nothing here, and
neither do the sampler and the scheduler, which are ignored.

Each call has a child process of its own, so that the event loop never waits for
a brush and cancelling stops the work at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final, Self, cast

from PIL import Image

from bot.backends.base import Capabilities, Generation, OnProgress, Picture, Progress
from bot.backends.painting import wire
from bot.errors import BackendDown, BackendFailed
from bot.params import Img2ImgParams

_ROOT: Final = Path(__file__).resolve().parents[2]
#: What a child may know of the bot's environment: nothing secret.
_ENVIRONMENT: Final = ("PATH", "LD_LIBRARY_PATH", "SYSTEMROOT")
#: Four samples of 100 steps take a minute on one free core, so this is a painter that hangs.
_DEADLINE_S: Final = 300.0
_STDERR_CHARS_MAX: Final = 2000
_CHECK_SIDE: Final = 32


class Child:
    """A running child and its pipes."""

    def __init__(self, process: Process) -> None:
        self._process = process
        # all three were asked for, so none of them is None
        self._stdin = cast("asyncio.StreamWriter", process.stdin)
        self._stdout = cast("asyncio.StreamReader", process.stdout)
        self._stderr = cast("asyncio.StreamReader", process.stderr)

    @classmethod
    async def start(cls) -> Self:
        """Start a child that waits for its request. Raises `BackendFailed` where the system has no room."""
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "bot.backends.painting",
                stdin=PIPE,
                stdout=PIPE,
                stderr=PIPE,
                limit=wire.FRAME_BYTES_MAX,
                cwd=_ROOT,
                env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
            )
        except OSError as error:
            raise BackendFailed(detail=f"the painter's child did not start: {error}") from error
        return cls(process)

    async def ask(self, options: bytes, image: bytes) -> None:
        """Send the request. stdin stays open: its end would end the child."""
        self._stdin.write(wire.framed(wire.OPTIONS, options) + wire.framed(wire.IMAGE, image))
        await self._stdin.drain()

    async def frame(self) -> tuple[bytes, bytes]:
        """Return the kind and the payload of the child's next frame."""
        header = await self._stdout.readexactly(wire.HEADER.size)
        kind, length = wire.opened(header, wire.PROGRESS + wire.RESULT)
        return kind, await self._stdout.readexactly(length)

    async def last_words(self) -> str:
        """End the child and return how it ended and the last of what it wrote to stderr."""
        self.kill()
        said = (await self._stderr.read()).decode(errors="replace")
        return f"the painter's child ended with {await self._process.wait()}: {said[-_STDERR_CHARS_MAX:]}"

    def kill(self) -> None:
        """Kill the child where it still runs."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    async def gone(self) -> None:
        """Wait until the child is no more."""
        await self._process.wait()

    async def end(self) -> None:
        """Kill the child and read its pipes to their ends, which is what closes them."""
        self.kill()
        self._stdin.close()
        await self._process.communicate()


class Painter:
    """The backend that paints. Satisfies `bot.backends.base.Backend`."""

    name = "painter"

    def __init__(
        self, *, concurrency_max: int = 2, pace_s: float = 0.0, deadline_s: float = _DEADLINE_S
    ) -> None:
        """Paint at most `concurrency_max` calls at once, each step at least `pace_s` seconds long.

        A call may take `deadline_s` seconds beyond that.
        """
        self.capabilities = Capabilities(
            label="Painter",
            uses_model=False,
            can_cancel=True,
            concurrency_max=concurrency_max,
            typical_s=4.0,
        )
        self._pace_s, self._deadline_s = pace_s, deadline_s
        self._slots = asyncio.Semaphore(concurrency_max)
        self._children: set[Child] = set()
        self._closed = False

    async def generate(self, params: Img2ImgParams, image: bytes, on_progress: OnProgress) -> Generation:
        """Paint `params.samples` pictures of the size of `image`, side by side.

        `on_progress` is called after each layer, from step 1 to `num_inference_steps`;
        every few steps it gets a preview of at most 256 pixels a side.

        Raises:
            BackendFailed: the child died, or took longer than any picture should.
            BackendDown: the painter is closed.
        """
        async with self._slots:
            return await self._painted(params, image, on_progress)

    async def check(self) -> str:
        """Paint a tiny picture for real and say so. Raises `BackendError` where that fails."""
        buffer = io.BytesIO()
        Image.linear_gradient("L").resize((_CHECK_SIDE, _CHECK_SIDE)).convert("RGB").save(buffer, "JPEG")
        params = Img2ImgParams(prompt="check", seed=0, num_inference_steps=2)
        await self._painted(params, buffer.getvalue(), lambda _: None)
        return "The painter is well: it painted a small picture just now."

    async def aclose(self) -> None:
        """End all children; their calls fail, and so does every later one."""
        self._closed = True
        for child in self._children:
            child.kill()
        await asyncio.gather(*(child.gone() for child in self._children))

    async def _painted(self, params: Img2ImgParams, image: bytes, on_progress: OnProgress) -> Generation:
        """Let a child paint, within the deadline."""
        deadline_s = self._deadline_s + params.num_inference_steps * self._pace_s
        try:
            async with asyncio.timeout(deadline_s), self._child() as child:
                return await self._served(child, params, image, on_progress)
        except TimeoutError as error:
            raise BackendFailed(detail=f"the painter took longer than {deadline_s:.0f} s") from error

    @contextlib.asynccontextmanager
    async def _child(self) -> AsyncIterator[Child]:
        """Give a painting child; it is gone, and its pipes are closed, when the block ends."""
        self._refuse_if_closed()
        child = await Child.start()
        self._children.add(child)
        try:
            self._refuse_if_closed()  # it may have been closed while the child started
            yield child
        finally:
            await asyncio.shield(asyncio.ensure_future(self._ended(child)))

    def _refuse_if_closed(self) -> None:
        """Raise `BackendDown` where the painter is closed."""
        if self._closed:
            raise BackendDown(detail="the painter is closed")

    async def _ended(self, child: Child) -> None:
        """End `child` and forget it."""
        await child.end()
        self._children.discard(child)

    async def _served(
        self, child: Child, params: Img2ImgParams, image: bytes, on_progress: OnProgress
    ) -> Generation:
        """Hand the request to `child`, pass its progress on and return its pictures."""
        seeds = [params.sample(index).seed for index in range(params.samples)]
        options = {**params.model_dump(), "seeds": seeds, "pace_s": self._pace_s}
        pictures: list[Picture] = []
        try:
            await child.ask(json.dumps(options).encode(), image)
            while len(pictures) < len(seeds):
                kind, payload = await child.frame()
                if kind == wire.RESULT:
                    pictures.append(Picture(len(pictures), seeds[len(pictures)], payload))
                else:
                    on_progress(_progress(payload, params.num_inference_steps))
        except (asyncio.IncompleteReadError, ConnectionError, wire.BrokenFrame) as error:
            raise BackendFailed(detail=await child.last_words()) from error
        return Generation(tuple(pictures))


def _progress(payload: bytes, steps: int) -> Progress:
    """Return what a progress frame says."""
    (step,) = wire.STEP.unpack_from(payload)
    return Progress(step, steps, payload[wire.STEP.size :] or None)
