"""Trying again after a wait."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator

from bot.clock import Clock


async def retry(clock: Clock, waits_s: Iterable[float], attempt: Callable[[], Awaitable[bool]]) -> bool:
    """Call `attempt` until it returns True, waiting `waits_s` (seconds) in between; True if it did.

    It is called once more than there are waits.
    """
    if await attempt():
        return True
    for wait_s in waits_s:
        await clock.sleep(wait_s)
        if await attempt():
            return True
    return False


def backoff_s(first_s: float, longest_s: float) -> Iterator[float]:
    """Yield waits in seconds without end, each twice as long as the one before, up to `longest_s`."""
    wait_s = first_s
    while True:
        yield wait_s
        wait_s = min(wait_s * 2, longest_s)
