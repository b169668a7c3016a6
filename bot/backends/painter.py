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
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from typing import Final

from PIL import Image

from bot.backends.base import Capabilities, Generation, OnProgress, Picture, Progress
from bot.backends.painting import protocol
from bot.errors import BackendDown, BackendFailed
from bot.params import Img2ImgParams
from bot.runtime.background import BackgroundTasks
from bot.runtime.child_process import CHILD_LOST, ChildProcess

_CHILD_MODULE: Final = "bot.backends.painting"
#: Four samples of 100 steps take a minute on one free core, so this is a painter that hangs.
_DEADLINE_S: Final = 300.0
_CHECK_SIDE: Final = 32  # enough for every step of a painting to run, and done in a moment


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
        self._children: set[ChildProcess] = set()
        self._ending = BackgroundTasks()
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
            return await self._paint(params, image, on_progress)

    async def check(self) -> str:
        """Paint a tiny picture for real and say so. Raises `BackendError` where that fails."""
        buffer = io.BytesIO()
        Image.linear_gradient("L").resize((_CHECK_SIDE, _CHECK_SIDE)).convert("RGB").save(buffer, "JPEG")
        params = Img2ImgParams(prompt="check", seed=0, num_inference_steps=2)
        await self._paint(params, buffer.getvalue(), lambda _: None)
        return "Painter OK (test picture made)."

    async def aclose(self) -> None:
        """End all children; their calls fail, and so does every later one."""
        self._closed = True
        for child in self._children:
            child.kill()
        await asyncio.gather(*(child.wait() for child in self._children))
        await self._ending.wait()

    async def _paint(self, params: Img2ImgParams, image: bytes, on_progress: OnProgress) -> Generation:
        """Have a child paint, within the deadline."""
        deadline_s = self._deadline_s + params.num_inference_steps * self._pace_s
        try:
            async with asyncio.timeout(deadline_s), self._child() as child:
                return await self._exchange(child, params, image, on_progress)
        except TimeoutError as error:
            raise BackendFailed(detail=f"the painter took longer than {deadline_s:.0f} s") from error

    @contextlib.asynccontextmanager
    async def _child(self) -> AsyncIterator[ChildProcess]:
        """Give a painting child; it is gone, and its pipes are closed, when the block ends."""
        self._refuse_if_closed()
        try:
            child = await ChildProcess.start(_CHILD_MODULE, stderr=PIPE)
        except OSError as error:
            raise BackendFailed(detail=f"the painter's child did not start: {error}") from error
        self._children.add(child)
        try:
            self._refuse_if_closed()  # it may have been closed while the child started
            yield child
        finally:
            self._children.discard(child)
            child.kill()
            # A second cancellation must not leave the process unreaped.
            await asyncio.shield(self._ending.spawn(child.end(), name="end of a painting child"))

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise BackendDown(detail="the painter is closed")

    async def _exchange(
        self, child: ChildProcess, params: Img2ImgParams, image: bytes, on_progress: OnProgress
    ) -> Generation:
        """Hand the request to `child`, pass its progress on and return its pictures."""
        seeds = [params.sample(index).seed for index in range(params.samples)]
        options = {**params.model_dump(), "seeds": seeds, "pace_s": self._pace_s}
        pictures: list[Picture] = []
        try:
            await child.send(protocol.REQUEST, json.dumps(options).encode() + b"\n" + image)
            while len(pictures) < len(seeds):
                kind, payload = await child.receive(protocol.ANSWER_BYTES_MAX)
                if kind == protocol.RESULT:
                    pictures.append(Picture(len(pictures), seeds[len(pictures)], payload))
                else:
                    on_progress(_parse_progress(payload, params.num_inference_steps))
        except CHILD_LOST as error:
            child.kill()
            raise BackendFailed(detail=f"the painting child ended: {await child.end()}") from error
        return Generation(tuple(pictures))


def _parse_progress(payload: bytes, steps: int) -> Progress:
    (step,) = protocol.STEP.unpack_from(payload)
    return Progress(step, steps, payload[protocol.STEP.size :] or None)
