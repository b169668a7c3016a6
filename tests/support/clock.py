"""A clock that a test moves by hand."""

from __future__ import annotations


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
