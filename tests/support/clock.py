"""A clock that a test moves by hand."""

from __future__ import annotations

import asyncio


class HandClock:
    """Time stands still until it is moved; sleeping moves it."""

    def __init__(self, now: float = 1_790_000_000.0) -> None:
        self.time = now

    def now(self) -> float:
        """Return seconds since 1970."""
        return self.time

    async def sleep(self, delay_s: float) -> None:
        """Let the time pass at once."""
        self.time += delay_s


class SteppedClock:
    """Time stands still until `advance` moves it; a sleep ends when its time has come."""

    def __init__(self, now: float = 1_790_000_000.0) -> None:
        self._now = now
        self._sleeps: list[tuple[float, asyncio.Future[None]]] = []

    def now(self) -> float:
        """Return seconds since 1970."""
        return self._now

    async def sleep(self, delay_s: float) -> None:
        """Wait until the test has moved time so far."""
        if delay_s > 0:
            done = asyncio.get_running_loop().create_future()
            self._sleeps.append((self._now + delay_s, done))
            await done

    @property
    def sleeping(self) -> int:
        """How many sleeps have not ended."""
        return sum(not done.done() for _, done in self._sleeps)

    async def advance(self, delay_s: float) -> None:
        """Move time, stopping at the end of each sleep for what follows it."""
        end = self._now + delay_s
        await settle()
        while due := sorted(at for at, done in self._sleeps if at <= end and not done.done()):
            self._now = due[0]
            for at, done in self._sleeps:
                if at <= self._now and not done.done():
                    done.set_result(None)
            await settle()
        self._now = end


async def settle() -> None:
    """Let everything run that can run without waiting for time or the network."""
    for _ in range(50):
        await asyncio.sleep(0)
