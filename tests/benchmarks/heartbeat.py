"""How long the event loop was kept from running."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

HEARTBEAT_S = 0.001


@asynccontextmanager
async def heartbeat() -> AsyncIterator[list[float]]:
    """Give a list that collects how late, in seconds, a task wakes that sleeps a millisecond at a time."""
    late: list[float] = []

    async def beat() -> None:
        while True:
            before = time.perf_counter()
            await asyncio.sleep(HEARTBEAT_S)
            late.append(time.perf_counter() - before - HEARTBEAT_S)

    task = asyncio.create_task(beat())
    try:
        yield late
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
