"""Which backend takes the next job: preference, health and waiting time.

The operator's order is the order of preference, and so of price. A backend that is out of
use is passed over. One that is only busy is waited for, unless the wait grows long: then the
next one that also uses a model (or also uses none) takes what it can.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from bot.backends.base import Backend

PAUSE_S_MIN: Final = 15.0
PAUSE_S_MAX: Final = 600.0
#: So many calls in a row that got no answer are an outage and no accident.
STUMBLES_MAX: Final = 3
#: Weight of the newest job in the running mean of seconds a job.
_NEWEST: Final = 0.2


class Lane:
    """One backend with its breaker: closed (in use), or open until a time, then one job may try."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.running = 0
        self.job_s_mean = backend.capabilities.typical_s
        self.open_until: float | None = None
        #: Since when the operator's credits there are used up.
        self.dry_since: float | None = None
        self._pause_s = PAUSE_S_MIN
        self._stumbles = 0

    def has_room(self, now: float) -> bool:
        """Tell whether a job may start here: one at a time while the breaker tries again."""
        if self.open_until is None:
            return self.running < self.backend.capabilities.concurrency_max
        return now >= self.open_until and self.running == 0

    def is_paused(self, now: float) -> bool:
        """Tell whether the breaker keeps everyone out."""
        return self.open_until is not None and now < self.open_until

    def trip(self, now: float) -> bool:
        """Open the breaker, for longer each time in a row; True if it was closed before.

        Jobs that fail while it is open were under way when it opened: they count once.
        """
        if self.is_paused(now):
            return False
        was_closed = self.open_until is None
        self.open_until = now + self._pause_s
        self._pause_s = min(self._pause_s * 2, PAUSE_S_MAX)
        return was_closed

    def stumble(self, now: float) -> bool:
        """Count a call without any answer; `STUMBLES_MAX` in a row open the breaker. True as `trip`'s."""
        self._stumbles += 1
        tries_again = self.open_until is not None
        return (tries_again or self._stumbles >= STUMBLES_MAX) and self.trip(now)

    def succeeded(self, job_s: float) -> None:
        """Close the breaker and learn how long a job takes."""
        self.open_until = None
        self.dry_since = None
        self._pause_s = PAUSE_S_MIN
        self._stumbles = 0
        self.job_s_mean += _NEWEST * (job_s - self.job_s_mean)


class Router:
    """Several backends in order of preference; `spill_wait_s` is how long a busy one is waited for."""

    def __init__(self, backends: Sequence[Backend], *, spill_wait_s: float = 30.0) -> None:
        self.lanes = tuple(Lane(backend) for backend in backends)
        self._spill_wait_s = spill_wait_s

    def preferred(self, now: float) -> Lane | None:
        """Return the lane that jobs go to now: the first that is not paused; None if all are."""
        return next((lane for lane in self.lanes if not lane.is_paused(now)), None)

    def free_lane(self, now: float, *, waiting: int = 0) -> Lane | None:
        """Return the lane for the next job; None if the `waiting` jobs had better wait."""
        lane = self.preferred(now)
        if lane is None or lane.has_room(now):
            return lane
        at_once = lane.backend.capabilities.concurrency_max
        if waiting * lane.job_s_mean / at_once <= self._spill_wait_s:
            return None
        return next((other for other in self.lanes if self._can_help(other, lane, now)), None)

    def _can_help(self, lane: Lane, busy: Lane, now: float) -> bool:
        kind, wanted = lane.backend.capabilities.uses_model, busy.backend.capabilities.uses_model
        return kind == wanted and not lane.is_paused(now) and lane.has_room(now)

    def is_dry(self, now: float) -> bool:
        """Tell whether jobs wait because the operator's credits are used up."""
        return self.preferred(now) is None and any(lane.dry_since is not None for lane in self.lanes)

    def next_try_at(self) -> float | None:
        """Return when the first breaker lets a job try again; None if none is open."""
        return min((lane.open_until for lane in self.lanes if lane.open_until is not None), default=None)

    def expected_wait_s(self, place: int, now: float) -> float:
        """Return the seconds until the job at `place` (1 is next) has its picture."""
        lane = self.preferred(now) or self.lanes[0]
        at_once = lane.backend.capabilities.concurrency_max
        rounds = -(-(place + lane.running) // at_once)
        pause_s = max(0.0, (lane.open_until or now) - now)
        return rounds * lane.job_s_mean + pause_s
