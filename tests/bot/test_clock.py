"""The clock that everything is given."""

import time

import pytest

from bot.clock import DAY_S, SystemClock, utc_day


@pytest.mark.parametrize(
    ("now_s", "day"),
    [
        (0, 0),
        (DAY_S - 0.001, 0),
        (DAY_S, 1),
        (20_000 * DAY_S, 20_000),
        (20_000 * DAY_S + DAY_S - 1, 20_000),
        (-1, -1),
    ],
)
def test_a_day_begins_at_midnight_utc(now_s: float, day: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Allowances renew at the same moment for everyone, wherever the bot runs."""
    monkeypatch.setenv("TZ", "Pacific/Auckland")
    time.tzset()
    try:
        assert utc_day(now_s) == day
    finally:
        monkeypatch.undo()
        time.tzset()


async def test_the_systems_clock_is_the_machines() -> None:
    """It reads the machine's time, and sleeping on it lets that pass."""
    clock = SystemClock()
    before = clock.now()
    assert abs(before - time.time()) < 60
    await clock.sleep(0.01)
    assert clock.now() - before >= 0.009
