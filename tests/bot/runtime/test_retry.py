from __future__ import annotations

import pytest

from bot.runtime.retry import retry
from tests.support.clock import HandClock


class Attempts:
    """Something that works at the `works_at`-th attempt, and notes when each one was made."""

    def __init__(self, clock: HandClock, works_at: int) -> None:
        self.clock, self.works_at = clock, works_at
        self.times: list[float] = []

    async def __call__(self) -> bool:
        """Try once."""
        self.times.append(self.clock.now())
        return len(self.times) >= self.works_at


@pytest.mark.parametrize(
    ("works_at", "worked", "times"),
    [(1, True, [0]), (2, True, [0, 1]), (3, True, [0, 1, 6]), (4, False, [0, 1, 6])],
)
async def test_attempts_follow_the_waits(works_at: int, worked: bool, times: list[float]) -> None:
    """The first attempt is made at once, each further one after its wait, until one works."""
    clock = HandClock(0.0)
    attempts = Attempts(clock, works_at)
    assert await retry(clock, (1.0, 5.0), attempts) is worked
    assert attempts.times == times


async def test_no_waits_mean_one_attempt() -> None:
    """Without waits there is one attempt."""
    clock = HandClock(0.0)
    attempts = Attempts(clock, works_at=2)
    assert await retry(clock, (), attempts) is False
    assert attempts.times == [0.0]


async def test_an_error_ends_the_attempts() -> None:
    """An attempt that raises is not repeated: the caller decides what can be tried again."""
    clock = HandClock(0.0)

    async def fail() -> bool:
        raise LookupError

    with pytest.raises(LookupError):
        await retry(clock, (1.0, 5.0), fail)
    assert clock.now() == 0.0
