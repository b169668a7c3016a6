"""The door that every picture passes: a few child processes that decode, and a bound on everything.

No picture is decoded in the bot's own process. A child that dies, overruns or
answers nonsense is killed and replaced, and only the picture it had is lost.
Between pictures nothing runs: children sit and wait for their stdin.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from bot.errors import BackendUnsure, BotError, UnusablePicture
from bot.pictures import child as picture_child
from bot.pictures.child import PIXELS_MAX, RESULT_PIXELS_MAX, Refused

__all__ = ["INPUT_BYTES_MAX", "PIXELS_MAX", "RESULT_PIXELS_MAX", "NormalPicture", "PicturePool"]

INPUT_BYTES_MAX: Final = 25 << 20

_CHUNK_BYTES: Final = 64 << 10
_NOTE_BYTES_MAX: Final = 4 << 10
_PICTURE_BYTES_MAX: Final = 64 << 20
#: From starting a child to its word that it is ready: 0.1 s on an idle machine.
_START_S_MAX: Final = 30.0
#: What a child gets to end by itself once its stdin is closed.
_END_S_MAX: Final = 2.0
#: What Python itself needs; tokens and keys stay here.
_ENVIRONMENT: Final = ("PATH", "LD_LIBRARY_PATH")

_EMPTY: Final = "That file is empty; please attach a PNG, JPEG, GIF or WebP picture."
_TOO_HEAVY: Final = (
    "That picture takes too much memory or time to open; please attach a smaller or simpler one."
)
_RUBBISH: Final = "The picture service sent no usable picture. It cost you nothing; please try again."
_CLOSED: Final = "the pool for pictures is closed"
_NO_CHILD: Final = "Pictures can't be opened just now. Please try again in a minute."

#: What a child that died, overran or answers nonsense looks like from here.
_LOST: Final = (TimeoutError, EOFError, ConnectionError, ValueError, TypeError, RecursionError)


@dataclass(frozen=True, slots=True)
class NormalPicture:
    """An encoded picture that is safe to hand on: an RGB JPEG without metadata, its sides in pixels."""

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
        cpu_s_max: int = 10,
        memory_bytes_max: int = 1 << 30,
        timeout_s: float = 15.0,
    ) -> None:
        self._limits = (str(cpu_s_max), str(memory_bytes_max))
        self._timeout_s = timeout_s
        self._children_max = children
        self._free = asyncio.Semaphore(children)
        self._idle: list[_Child] = []
        self._busy: set[_Child] = set()
        self._ending: set[asyncio.Task[None]] = set()
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
            return await self._ask(picture_child.TO_FIT, data)
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
            return await self._ask(picture_child.TO_KEEP, data)
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
        await asyncio.gather(*self._ending)

    async def _ask(self, wanted: bytes, data: bytes) -> NormalPicture:
        async with self._free:
            try:
                answer = await self._exchange(wanted, data)
            except _LOST as error:
                if self._closed:
                    raise BotError(detail=_CLOSED) from error
                raise Refused(_TOO_HEAVY, detail=f"the child was lost: {error!r}") from error
        if isinstance(answer, Refused):
            raise answer
        return answer

    async def _exchange(self, wanted: bytes, data: bytes) -> NormalPicture | Refused:
        child = await self._child()
        self._busy.add(child)
        try:
            async with asyncio.timeout(self._timeout_s):
                answer = await child.ask(wanted, data)
        except BaseException:
            # Cancelled or not: this child may be in the middle of an answer.
            self._lose(child)
            raise
        finally:
            self._busy.discard(child)
        self._idle.append(child)
        return answer

    async def _child(self) -> _Child:
        if self._closed:
            raise BotError(detail=_CLOSED)
        while self._idle:
            child = self._idle.pop()
            if child.is_alive():
                return child
            self._end(child)
        return await self._started()

    async def _started(self) -> _Child:
        try:
            child = await _Child.start(self._limits)
        except OSError as error:
            raise BotError(_NO_CHILD, detail=f"no child process: {error!r}") from error
        try:
            async with asyncio.timeout(_START_S_MAX):
                await child.ready()
        except _LOST as error:
            self._lose(child)
            raise BotError(_NO_CHILD, detail=f"the child did not start: {error!r}") from error
        except BaseException:
            self._lose(child)
            raise
        return child

    def _lose(self, child: _Child) -> None:
        child.kill()
        self._end(child)

    def _end(self, child: _Child) -> None:
        task = asyncio.create_task(child.end())
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)


class _Child:
    """One child process and its pipes."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        if process.stdin is None or process.stdout is None:
            raise ValueError("a child needs both pipes")
        self._process = process
        self._stdin = process.stdin
        self._stdout = process.stdout

    @classmethod
    async def start(cls, limits: tuple[str, str]) -> Self:
        """Start a child, in a session of its own so that Ctrl-C leaves it to finish its picture."""
        return cls(
            await asyncio.create_subprocess_exec(
                sys.executable,
                *("-B", "-P", "-s", "-m", picture_child.__name__, *limits),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                env=_environment(),
                cwd="/",
                start_new_session=True,
            )
        )

    def is_alive(self) -> bool:
        """Tell whether the process still waits for a picture."""
        return self._process.returncode is None and not self._stdout.at_eof()

    async def ready(self) -> None:
        """Wait for the child's first word; raises one of `_LOST` where there is none."""
        note, _ = await self._answer()
        if "ready" not in note:
            raise ValueError(f"an odd first word: {note!r}")

    async def ask(self, wanted: bytes, data: bytes) -> NormalPicture | Refused:
        """Have a picture opened; raises one of `_LOST` where the child dies or answers nonsense."""
        await self._send(picture_child.REQUEST.pack(wanted, len(data)))
        for start in range(0, len(data), _CHUNK_BYTES):
            await self._send(data[start : start + _CHUNK_BYTES])
            # A child that keeps up never makes drain wait, and the loop has others to serve.
            await asyncio.sleep(0)
        note, picture = await self._answer()
        return _read(note, picture)

    async def _send(self, data: bytes) -> None:
        self._stdin.write(data)
        await self._stdin.drain()

    async def _answer(self) -> tuple[dict[str, Any], bytes]:
        header = await self._stdout.readexactly(picture_child.ANSWER.size)
        note_bytes, picture_bytes = picture_child.ANSWER.unpack(header)
        # The child may have been taken over by what it opened: nothing it says is taken on trust.
        if note_bytes > _NOTE_BYTES_MAX or picture_bytes > _PICTURE_BYTES_MAX:
            raise ValueError(f"an answer of {note_bytes} and {picture_bytes} bytes")
        note = dict(json.loads(await self._stdout.readexactly(note_bytes)))
        return note, await self._stdout.readexactly(picture_bytes)

    def kill(self) -> None:
        """End the process at once; one that has gone by itself is left to be reaped."""
        if self.is_alive():
            with suppress(ProcessLookupError):
                self._process.kill()

    async def end(self) -> None:
        """Close the pipes, wait for the process to go, and kill it if it does not."""
        self._stdin.close()
        try:
            async with asyncio.timeout(_END_S_MAX):
                await self._process.communicate()
        except TimeoutError:
            with suppress(ProcessLookupError):
                self._process.kill()
            await self._process.communicate()


def _environment() -> dict[str, str]:
    """Return what a child may know: where Python, this package and Pillow are."""
    folders = [str(Path(__file__).resolve().parents[2]), *(str(Path(entry).resolve()) for entry in sys.path)]
    kept = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    return {**kept, "PYTHONPATH": os.pathsep.join(dict.fromkeys(folders))}


def _check_bytes(data: bytes) -> None:
    if not data:
        raise Refused(_EMPTY)
    if len(data) > INPUT_BYTES_MAX:
        size_mb = math.ceil(len(data) / (1 << 20) * 10) / 10
        raise Refused(
            f"That file is {size_mb:g} MB; please attach a picture of at most {INPUT_BYTES_MAX >> 20} MB."
        )
    if picture_child.kind_of(data) is None:
        raise Refused(picture_child.NOT_A_PICTURE, detail=f"begins with {data[:16]!r}")


def _read(note: dict[str, Any], picture: bytes) -> NormalPicture | Refused:
    match note:
        case {"refused": str(sentence), "detail": str(detail)}:
            return Refused(sentence, detail=detail)
        case {"width": int(width), "height": int(height)} if picture.startswith(b"\xff\xd8"):
            return NormalPicture(picture, width, height)
    raise ValueError(f"an odd answer: {note!r}")
