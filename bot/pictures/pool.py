"""A few child processes that decode pictures, and a bound on everything.

No picture is decoded in the bot's own process. A child that dies, overruns or
answers nonsense is killed and replaced, and only the picture it had is lost.
Between pictures nothing runs: children sit and wait for their stdin.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from bot.errors import BackendUnsure, BotError, UnusablePicture
from bot.pictures import protocol
from bot.pictures.headers import kind_of
from bot.pictures.protocol import NOT_A_PICTURE, Refused
from bot.pictures.sizes import INPUT_BYTES_MAX
from bot.runtime.background import BackgroundTasks
from bot.runtime.child_process import CHILD_LOST, ChildProcess
from bot.runtime.frames import BrokenFrame

_CHILD_MODULE: Final = "bot.pictures.child"
#: From starting a child to its first frame: 0.1 s on an idle machine, much longer where it swaps.
_START_S_MAX: Final = 30.0

_EMPTY: Final = "That file is empty; please attach a PNG, JPEG, GIF or WebP picture."
_TOO_HEAVY: Final = (
    "That picture takes too much memory or time to open; please attach a smaller or simpler one."
)
_RUBBISH: Final = "The image service sent no usable picture. You weren't charged; please try again."
_CLOSED: Final = "the pool for pictures is closed"
_NO_CHILD: Final = "Pictures can't be opened right now. Please try again in a minute."

#: What a child that died, overran or answers nonsense looks like from here.
_LOST: Final = (TimeoutError, *CHILD_LOST)


@dataclass(frozen=True, slots=True)
class NormalPicture:
    """An encoded picture that is safe to pass on: an RGB JPEG without metadata, its sides in pixels."""

    data: bytes
    width: int
    height: int


class PicturePool:
    """Child processes that open pictures: at most `children`, started as pictures come.

    A picture may cost `cpu_s_max` seconds of CPU time and `timeout_s` seconds in all, and its
    child `memory_bytes_max` bytes of address space, Python's own 40 MB included. Use it on one
    event loop and end with `aclose`.
    """

    def __init__(
        self,
        *,
        children: int = 2,
        cpu_s_max: int = 10,  # the heaviest ordinary picture, a transparent WebP of 50 megapixels, takes 2 s
        memory_bytes_max: int = 1 << 30,  # and 820 MB
        timeout_s: float = 15.0,  # the CPU time, and some waiting for a busy CPU
    ) -> None:
        self._limits = (str(cpu_s_max), str(memory_bytes_max))
        self._timeout_s = timeout_s
        self._children_max = children
        self._free = asyncio.Semaphore(children)
        self._idle: list[ChildProcess] = []
        self._busy: set[ChildProcess] = set()
        self._ending = BackgroundTasks()
        self._closed = False

    async def normalise(self, data: bytes) -> NormalPicture:
        """Return a member's picture as backends get it; the same bytes always give the same bytes.

        It is upright, on white, sRGB, about a quarter to one megapixel, its sides multiples of 16
        and at most 2048. Of several frames the first counts.

        Raises:
            UnusablePicture: it is no picture, or beyond the bounds; the sentence says which.
            BotError: no child could be started.
        """
        try:
            _check_bytes(data)
            return await self._open(protocol.TO_FIT, data)
        except Refused as refused:
            raise UnusablePicture(str(refused), detail=refused.detail) from refused

    async def accept_result(self, data: bytes) -> NormalPicture:
        """Return a backend's picture as it is stored and shown: its own size, freshly encoded.

        Raises:
            BackendUnsure: it is no picture, or beyond the bounds; the detail says which.
            BotError: no child could be started.
        """
        try:
            _check_bytes(data)
            return await self._open(protocol.TO_KEEP, data)
        except Refused as refused:
            raise BackendUnsure(_RUBBISH, detail=f"{refused} {refused.detail}".strip()) from refused

    async def aclose(self) -> None:
        """End all children; pictures still waiting or being opened fail with a `BotError`."""
        if self._closed:
            return
        self._closed = True
        for child in self._busy:
            child.kill()
        for _ in range(self._children_max):
            await self._free.acquire()
        for _ in range(self._children_max):
            self._free.release()
        while self._idle:
            self._end(self._idle.pop())
        await self._ending.wait()

    async def _open(self, kind: bytes, data: bytes) -> NormalPicture:
        async with self._free:
            try:
                answer = await self._exchange(kind, data)
            except _LOST as error:
                if self._closed:
                    raise BotError(detail=_CLOSED) from error
                raise Refused(_TOO_HEAVY, detail=f"the child was lost: {error!r}") from error
        if isinstance(answer, Refused):
            raise answer
        return answer

    async def _exchange(self, kind: bytes, data: bytes) -> NormalPicture | Refused:
        child = await self._take_child()
        self._busy.add(child)
        try:
            with self._killed_on_error(child):
                async with asyncio.timeout(self._timeout_s):
                    await child.send(kind, data)
                    answer = _parse_answer(*await child.receive(protocol.ANSWER_BYTES_MAX))
        finally:
            self._busy.discard(child)
        self._idle.append(child)
        return answer

    async def _take_child(self) -> ChildProcess:
        if self._closed:
            raise BotError(detail=_CLOSED)
        while self._idle:
            child = self._idle.pop()
            if child.is_alive():
                return child
            self._end(child)
        return await self._start_child()

    async def _start_child(self) -> ChildProcess:
        try:
            child = await ChildProcess.start(_CHILD_MODULE, *self._limits)
            with self._killed_on_error(child):
                async with asyncio.timeout(_START_S_MAX):
                    await child.receive({protocol.READY: 0})
        except (OSError, *_LOST) as error:
            raise BotError(_NO_CHILD, detail=f"the child did not start: {error!r}") from error
        return child

    @contextmanager
    def _killed_on_error(self, child: ChildProcess) -> Iterator[None]:
        """End `child` where the block fails or is cancelled: it may be in the middle of an answer."""
        try:
            yield
        except BaseException:
            child.kill()
            self._end(child)
            raise

    def _end(self, child: ChildProcess) -> None:
        self._ending.spawn(child.end(), name="end of a decoder child")


def _check_bytes(data: bytes) -> None:
    if not data:
        raise Refused(_EMPTY)
    if len(data) > INPUT_BYTES_MAX:
        size_mb = math.ceil(len(data) / (1 << 20) * 10) / 10
        raise Refused(
            f"That file is {size_mb:g} MB; please attach a picture of at most {INPUT_BYTES_MAX >> 20} MB."
        )
    if kind_of(data) is None:
        raise Refused(NOT_A_PICTURE, detail=f"begins with {data[:16]!r}")


def _parse_answer(kind: bytes, payload: bytes) -> NormalPicture | Refused:
    """Return what a child answered. It may have been taken over by what it opened: nothing is trusted."""
    if kind == protocol.REFUSED:
        sentence, _, detail = payload.decode(errors="replace").partition("\n")
        return Refused(sentence, detail=detail)
    picture = payload[protocol.SIZE.size :]
    if not picture.startswith(b"\xff\xd8"):
        raise BrokenFrame(f"a picture that begins with {picture[:16]!r}")
    return NormalPicture(picture, *protocol.SIZE.unpack_from(payload))
