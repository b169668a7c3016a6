"""The breaker: when a backend is left alone, for how long, and when it is used again."""

from bot.backends.router import PAUSE_S_MAX, PAUSE_S_MIN, STUMBLES_MAX, Lane, Router
from tests.discord.wired import Brush

NOW = 1_000.0


def test_calls_that_fail_together_are_one_outage() -> None:
    """When four running calls fail at once, members wait for one pause, not for four in a row."""
    lane = Lane(Brush())
    assert [lane.trip(NOW) for _ in range(4)] == [True, False, False, False]
    assert lane.open_until == NOW + PAUSE_S_MIN
    assert not lane.has_room(NOW + PAUSE_S_MIN - 1)


def test_each_try_that_fails_waits_longer() -> None:
    """A backend that stays away is asked ever less often, up to a bound."""
    lane = Lane(Brush())
    now, pauses = NOW, []
    for _ in range(8):
        lane.trip(now)
        assert lane.open_until is not None
        pauses.append(lane.open_until - now)
        now = lane.open_until
    assert pauses[:3] == [PAUSE_S_MIN, 2 * PAUSE_S_MIN, 4 * PAUSE_S_MIN]
    assert pauses[-1] == PAUSE_S_MAX


def test_one_lost_call_is_an_accident_and_three_in_a_row_are_an_outage() -> None:
    """Single lost calls stop nobody; so many in a row open the breaker, once."""
    lane = Lane(Brush())
    for _ in range(10):
        assert not any(lane.stumble(NOW) for _ in range(STUMBLES_MAX - 1))
        lane.succeeded(5)
    assert [lane.stumble(NOW) for _ in range(STUMBLES_MAX + 1)] == [False, False, True, False]


def test_after_the_pause_one_job_tries() -> None:
    """While a backend is tried again, one job at a time goes there; a success opens it to all."""
    lane = Lane(Brush())
    lane.trip(NOW)
    assert Router([Brush()]).next_try_at() is None
    assert lane.has_room(NOW + PAUSE_S_MIN)
    lane.running = 1
    assert not lane.has_room(NOW + PAUSE_S_MIN)
    lane.succeeded(5)
    assert lane.has_room(NOW + PAUSE_S_MIN)
