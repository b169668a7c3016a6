"""Streaming answers of JSON lines, and work that ends when its client disconnects."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Awaitable
from contextlib import aclosing, suppress
from typing import Any, Final, TypeVar

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from bot.gpu.tickets import Step

_log = logging.getLogger(__name__)

NDJSON: Final = "application/x-ndjson"

Value = TypeVar("Value")


class StepFeed:
    """The newest step of a picture, from the engine's thread to the event loop.

    A step that was not read in time is replaced by the next, so a slow client never holds up the engine.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._newest: Step | None = None

    def publish(self, step: Step) -> None:
        """Pass a step on, from any thread."""
        self._loop.call_soon_threadsafe(self._set, step)

    def close(self) -> None:
        """Wake the reader: nothing more will come."""
        self._changed.set()

    def _set(self, step: Step) -> None:
        self._newest = step
        self._changed.set()

    async def next(self, *, within_s: float | None = None) -> Step | None:
        """Wait for a step that was not returned yet; None at the end, or if none comes within `within_s`."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._changed.wait()
        self._changed.clear()
        step, self._newest = self._newest, None
        return step


class JsonLinesResponse(Response):
    """A streaming answer of JSON lines; `lines` is closed as soon as the client disconnects."""

    def __init__(self, lines: AsyncGenerator[dict[str, Any], None], headers: dict[str, str]) -> None:
        super().__init__(headers={**headers, "cache-control": "no-store"}, media_type=NDJSON)
        self._lines = lines
        # Starlette set it for an empty body; without it the answer is sent in chunks.
        del self.headers["content-length"]

    async def __call__(self, _: Scope, receive: Receive, send: Send) -> None:
        """Send the lines as they come."""
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        try:
            await cancel_on_disconnect(receive, self._send(send))
        except ClientDisconnect:
            _log.info("A client disconnected while its picture was being made")

    async def _send(self, send: Send) -> None:
        async with aclosing(self._lines) as lines:
            async for line in lines:
                await send(_chunk(json.dumps(line).encode() + b"\n", more=True))
        await send(_chunk(b"", more=False))


def _chunk(body: bytes, *, more: bool) -> Message:
    return {"type": "http.response.body", "body": body, "more_body": more}


async def cancel_on_disconnect(receive: Receive, work: Awaitable[Value]) -> Value:
    """Wait for `work`; if the client disconnects first, cancel it and raise `ClientDisconnect`."""
    working = asyncio.ensure_future(work)
    disconnected = asyncio.ensure_future(_wait_for_disconnect(receive))
    try:
        await asyncio.wait({working, disconnected}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return await working
    finally:
        for task in (working, disconnected):
            task.cancel()
        await asyncio.gather(working, disconnected, return_exceptions=True)


async def _wait_for_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
