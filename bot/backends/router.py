"""Which backend takes the next job: preference, health and waiting time.

The operator's order is the order of preference, and so of price. A backend that is out of
service is skipped. One that is only busy is waited for, unless the wait grows long: then the
next one that also uses a model (or also uses none) takes what it can.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from bot.backends.base import Backend

PAUSE_S_MIN: Final = 15.0  # long enough for a restart of the service, short enough to go unnoticed
PAUSE_S_MAX: Final = 600.0  # how long an outage may outlast its end
UNANSWERED_MAX: Final = 3  # so many calls in a row without an answer are an outage, not an accident
#: Weight of the newest job in the running mean of seconds a job: about the last five count.
_NEWEST: Final = 0.2


class BackendSlot:
    """One backend with its breaker: closed (in service), or open until a time, then one job may try."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.running = 0
        self.job_s_mean = backend.capabilities.typical_s
        self.open_until: float | None = None
        #: Since when the operator's credits there are used up.
        self.out_of_credits_since: float | None = None
        self._pause_s = PAUSE_S_MIN
        self._unanswered = 0

    @property
    def name(self) -> str:
        """The backend's name."""
        return self.backend.name

    def has_room(self, now: float) -> bool:
        """Return whether a job may start here: one at a time while the breaker tries again."""
        if self.open_until is None:
            return self.running < self.backend.capabilities.concurrency_max
        return now >= self.open_until and self.running == 0

    def is_paused(self, now: float) -> bool:
        """Return whether the breaker stops every job."""
        return self.open_until is not None and now < self.open_until

    def open_breaker(self, now: float) -> bool:
        """Open the breaker, for longer each time in a row; True if it was closed before.

        Jobs that fail while it is open were running when it opened: they count once.
        """
        if self.is_paused(now):
            return False
        was_closed = self.open_until is None
        self.open_until = now + self._pause_s
        self._pause_s = min(self._pause_s * 2, PAUSE_S_MAX)
        return was_closed

    def record_unanswered_call(self, now: float) -> bool:
        """Count a call without any answer; `UNANSWERED_MAX` in a row open the breaker. Returns as it."""
        self._unanswered += 1
        tries_again = self.open_until is not None
        return (tries_again or self._unanswered >= UNANSWERED_MAX) and self.open_breaker(now)

    def record_success(self, job_s: float) -> None:
        """Close the breaker and learn how long a job takes."""
        self.open_until = None
        self.out_of_credits_since = None
        self._pause_s = PAUSE_S_MIN
        self._unanswered = 0
        self.job_s_mean += _NEWEST * (job_s - self.job_s_mean)


class Router:
    """Several backends in order of preference; `spill_wait_s` is how long a busy one is waited for."""

    def __init__(self, backends: Sequence[Backend], *, spill_wait_s: float = 30.0) -> None:
        self.slots = tuple(BackendSlot(backend) for backend in backends)
        self._spill_wait_s = spill_wait_s

    def find(self, name: str | None) -> BackendSlot | None:
        """Return the backend of this name, None if it is not in use (any more)."""
        return next((slot for slot in self.slots if slot.name == name), None)

    def preferred(self, now: float) -> BackendSlot | None:
        """Return the backend that jobs go to now: the first that is not paused; None if all are."""
        return next((slot for slot in self.slots if not slot.is_paused(now)), None)

    def free_slot(self, now: float, *, waiting: int = 0) -> BackendSlot | None:
        """Return the backend for the next job; None if the `waiting` jobs had better wait."""
        slot = self.preferred(now)
        if slot is None or slot.has_room(now):
            return slot
        if waiting * slot.job_s_mean / slot.backend.capabilities.concurrency_max <= self._spill_wait_s:
            return None
        return next((other for other in self.slots if self._can_help(other, slot, now)), None)

    def _can_help(self, slot: BackendSlot, busy: BackendSlot, now: float) -> bool:
        kind, wanted = slot.backend.capabilities.uses_model, busy.backend.capabilities.uses_model
        return kind == wanted and not slot.is_paused(now) and slot.has_room(now)

    def is_out_of_credits(self, now: float) -> bool:
        """Return whether jobs wait because the operator's credits are used up."""
        return self.preferred(now) is None and any(
            slot.out_of_credits_since is not None for slot in self.slots
        )

    def next_try_at(self) -> float | None:
        """Return when the first breaker lets a job try again; None if none is open."""
        return min((slot.open_until for slot in self.slots if slot.open_until is not None), default=None)

    def expected_wait_s(self, position: int, now: float) -> float:
        """Return the seconds until the job at `position` (1 is next) has its picture."""
        slot = self.preferred(now) or self.slots[0]
        at_once = slot.backend.capabilities.concurrency_max
        rounds = -(-(position + slot.running) // at_once)
        pause_s = max(0.0, (slot.open_until or now) - now)
        return rounds * slot.job_s_mean + pause_s
