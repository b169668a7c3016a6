"""Answers that grow, and work that ends with its client."""

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

from bot.gpu.engine import Step

_log = logging.getLogger(__name__)

NDJSON: Final = "application/x-ndjson"

Value = TypeVar("Value")


class Follow:
    """The newest step of a picture, from the engine's thread to the event loop; older ones are let go."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()
        self.newest: Step | None = None

    def tell(self, step: Step) -> None:
        """Hand a step over, from any thread."""
        self._loop.call_soon_threadsafe(self._take, step)

    def end(self) -> None:
        """Wake whoever waits: nothing more will come."""
        self._news.set()

    def _take(self, step: Step) -> None:
        self.newest = step
        self._news.set()

    async def next(self, *, within_s: float | None = None) -> Step | None:
        """Wait for a step that was not returned yet; None at the end, or when none came `within_s`."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._news.wait()
        self._news.clear()
        step, self.newest = self.newest, None
        return step


class Lines(Response):
    """A streaming answer of JSON lines, that ends its work as soon as the client is gone."""

    def __init__(self, lines: AsyncGenerator[dict[str, Any], None], headers: dict[str, str]) -> None:
        super().__init__(headers={**headers, "cache-control": "no-store"}, media_type=NDJSON)
        self._lines = lines
        del self.headers["content-length"]

    async def __call__(self, _: Scope, receive: Receive, send: Send) -> None:
        """Send the lines as they come."""
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        try:
            await unless_gone(receive, self._send(send))
        except ClientDisconnect:
            _log.info("a client went away while its picture was made")

    async def _send(self, send: Send) -> None:
        async with aclosing(self._lines) as lines:
            async for line in lines:
                await send(_chunk(json.dumps(line).encode() + b"\n", more=True))
        await send(_chunk(b"", more=False))


def _chunk(body: bytes, *, more: bool) -> Message:
    return {"type": "http.response.body", "body": body, "more_body": more}


async def unless_gone(receive: Receive, work: Awaitable[Value]) -> Value:
    """Wait for `work`; if the client goes away first, cancel it and raise `ClientDisconnect`."""
    working = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return await working
    finally:
        for task in (working, gone):
            task.cancel()
        await asyncio.gather(working, gone, return_exceptions=True)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
