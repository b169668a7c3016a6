"""Watches the backends: their breakers, the operator's balance there, and whether a failed job may retry."""

from __future__ import annotations

import logging
from typing import Final

from bot.backends.base import ReportsBalance
from bot.backends.router import BackendSlot, Router
from bot.clock import Clock
from bot.errors import (
    BackendDown,
    BackendError,
    BackendOutOfCredits,
    BackendUnreachable,
    BackendUnsure,
    BotError,
    OperatorError,
)
from bot.events import Events, OperatorAlert, QueuePaused, QueueResumed
from db import providers
from db.database import Database

log = logging.getLogger(__name__)

#: How long jobs wait for the operator's credits before they fail, at no cost: a night's sleep.
OUT_OF_CREDITS_S_MAX: Final = 6 * 3_600.0


class ProviderWatch:
    """What the failures and balances of backends mean for the jobs to come."""

    def __init__(
        self, *, db: Database, clock: Clock, router: Router, events: Events, low_credits: float = 0.0
    ) -> None:
        """Below `low_credits` at a provider, in its own credits, the operator is alerted."""
        self._db = db
        self._clock = clock
        self._router = router
        self._events = events
        self._low_credits = low_credits

    def record_failure(self, slot: BackendSlot, error: BotError) -> None:
        """Open the breaker and alert the operator where the error means that it is out of service."""
        now = self._clock.now()
        if isinstance(error, BackendOutOfCredits) and slot.out_of_credits_since is None:
            slot.out_of_credits_since = now
            self._events.emit(QueuePaused())
        if isinstance(error, OperatorError):
            self._events.emit(OperatorAlert(f"{error} ({error.detail})"))
        elif isinstance(error, BackendDown):
            self._alert(slot, error, has_opened=slot.open_breaker(now))
        elif isinstance(error, (BackendUnreachable, BackendUnsure)):
            self._alert(slot, error, has_opened=slot.record_unanswered_call(now))

    def _alert(self, slot: BackendSlot, error: BotError, *, has_opened: bool) -> None:
        if has_opened:
            label = slot.backend.capabilities.label
            why = (error.detail or str(error)).rstrip(".")
            sentence = f"{label} is out of service: {why}. Jobs wait and are retried automatically."
            log.error(sentence)
            self._events.emit(OperatorAlert(sentence))

    def may_retry(self, slot: BackendSlot, error: BotError) -> bool:
        """Return whether a job that failed so may go back to the queue: for another backend, or this one."""
        now = self._clock.now()
        if isinstance(error, BackendUnreachable):
            return slot.is_paused(now) or self._router.preferred(now) is not slot
        # Without credits nothing was made and nothing is wrong with the job: it waits for them.
        has_no_credits = isinstance(error, BackendOutOfCredits)
        elsewhere = isinstance(error, BackendDown) and self._router.preferred(now) is not None
        return isinstance(error, BackendUnsure) or has_no_credits or elsewhere

    async def record_balance(self, slot: BackendSlot, left: float | None) -> None:
        """Store the operator's balance (None: not reported); alert them once when it becomes low."""
        if left is None:
            return
        name, low, now = slot.name, self._low_credits, self._clock.now()
        is_newly_low = await self._db.write(
            lambda tx: providers.record_balance(tx, backend=name, remaining=left, low=low, now=now)
        )
        if is_newly_low:
            label = slot.backend.capabilities.label
            self._events.emit(OperatorAlert(f"Credits left at {label}: {left:g}. Please top them up."))

    async def wait_is_over(self) -> bool:
        """Look whether used-up credits are back; True if they have been missing for too long."""
        has_waited_enough = False
        for slot in self._router.slots:
            if slot.out_of_credits_since is not None and not slot.is_paused(self._clock.now()):
                has_waited_enough |= await self._check_credits(slot, slot.out_of_credits_since)
        return has_waited_enough

    async def _check_credits(self, slot: BackendSlot, since: float) -> bool:
        if not isinstance(slot.backend, ReportsBalance):
            return False  # the next job finds out
        try:
            left = await slot.backend.balance()
        except BackendError as error:
            log.warning("%s doesn't report its balance: %s %s", slot.name, error, error.detail)
            left = 0.0
        else:
            await self.record_balance(slot, left)
        now = self._clock.now()
        if left > 0:
            slot.out_of_credits_since = None
            self._events.emit(QueueResumed())
            return False
        slot.open_breaker(now)
        return now - since > OUT_OF_CREDITS_S_MAX
