"""The one clock that everything is given, so that a test can move time."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import Final, Protocol

DAY_S: Final = 86_400


class Clock(Protocol):
    """What tells the time and waits."""

    def now(self) -> float:
        """Return seconds since 1970 (UTC)."""
        ...

    async def sleep(self, delay_s: float) -> None:
        """Wait `delay_s` seconds."""
        ...


class SystemClock:
    """The machine's own clock."""

    def now(self) -> float:
        """Return seconds since 1970 (UTC)."""
        return time.time()

    async def sleep(self, delay_s: float) -> None:
        """Wait `delay_s` seconds on the event loop."""
        await asyncio.sleep(delay_s)


def utc_day(now_s: float) -> int:
    """Return the UTC day of `now_s` as days since 1970-01-01."""
    return (
        datetime.fromtimestamp(now_s, UTC).date().toordinal() - datetime(1970, 1, 1, tzinfo=UTC).toordinal()
    )
