"""Trying again after a wait."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable

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
