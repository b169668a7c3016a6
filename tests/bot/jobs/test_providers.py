"""What failures and balances of backends mean: breakers, retries, alerts, and waiting for credits."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from bot.backends.base import Backend
from bot.backends.router import PAUSE_S_MIN, UNANSWERED_MAX, BackendSlot, Router
from bot.errors import (
    BackendDown,
    BackendFailed,
    BackendOutOfCredits,
    BackendRefused,
    BackendThrottled,
    BackendUnreachable,
    BackendUnsure,
    BotError,
    OperatorError,
)
from bot.events import Event, Events, OperatorAlert, QueuePaused, QueueResumed
from bot.jobs.providers import OUT_OF_CREDITS_S_MAX, ProviderWatch
from db import providers
from db.database import Database
from db.opening import open_database
from tests.support.clock import HandClock
from tests.support.live_bot import Brush
from tests.support.workshop import PaidBrush

LOW = 5.0


@dataclass
class Watched:
    """A watch over backends, and what it announced."""

    watch: ProviderWatch
    router: Router
    clock: HandClock
    db: Database
    events: list[Event]

    @property
    def slot(self) -> BackendSlot:
        """The preferred backend."""
        return self.router.slots[0]

    @property
    def alerts(self) -> list[str]:
        """What the operator was alerted to."""
        return [event.sentence for event in self.events if isinstance(event, OperatorAlert)]

    def fail(self, error: BotError, *, times: int = 1) -> None:
        """Let jobs fail at the preferred backend."""
        for _ in range(times):
            self.watch.record_failure(self.slot, error)

    def pass_pause(self) -> None:
        """Let time pass until the breaker lets a job try."""
        assert self.slot.open_until is not None
        self.clock.time = self.slot.open_until


@pytest.fixture
async def db(tmp_path: Path) -> AsyncIterator[Database]:
    """Yield a new database."""
    async with open_database(tmp_path) as opened:
        yield opened


def _watch(db: Database, *backends: Backend) -> Watched:
    clock, events, announced = HandClock(), Events(), list[Event]()
    events.subscribe(announced.append)
    router = Router(backends or [PaidBrush(credits_left=0)])
    watch = ProviderWatch(db=db, clock=clock, router=router, events=events, low_credits=LOW)
    return Watched(watch, router, clock, db, announced)


@pytest.mark.parametrize(
    ("error", "alone", "with_another"),
    [
        (BackendRefused(), False, False),
        (BackendFailed(), False, False),
        (BackendThrottled(), False, False),
        (OperatorError(), False, False),
        (BotError(), False, False),
        (BackendUnsure(), True, True),
        (BackendOutOfCredits(), True, True),
        (BackendDown(), False, True),
        (BackendUnreachable(), False, False),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BotError) else str(value),
)
async def test_what_may_be_retried_depends_on_the_error(
    db: Database, error: BotError, alone: bool, with_another: bool
) -> None:
    """A job is tried again where that costs nothing or may help: here later, or at another backend."""
    for backends, expected in (((Brush(),), alone), ((Brush(), Brush(name="other")), with_another)):
        watched = _watch(db, *backends)
        watched.fail(error)
        assert watched.watch.may_retry(watched.slot, error) is expected


async def test_calls_that_reach_nobody_are_retried_once_the_breaker_is_open(db: Database) -> None:
    """The first lost calls may be the network's fault; after three in a row jobs wait for the service."""
    watched = _watch(db)
    error = BackendUnreachable()
    may_retry = []
    for _ in range(UNANSWERED_MAX):
        watched.fail(error)
        may_retry.append(watched.watch.may_retry(watched.slot, error))
    assert may_retry == [False, False, True]


@pytest.mark.parametrize("error", [BackendUnreachable(), BackendUnsure()])
async def test_three_unanswered_calls_are_one_outage(db: Database, error: BotError) -> None:
    """So many calls in a row without an answer alert once, and a success in between starts anew."""
    watched = _watch(db)
    watched.fail(error, times=UNANSWERED_MAX - 1)
    watched.slot.record_success(1)
    watched.fail(error, times=UNANSWERED_MAX - 1)
    assert (watched.alerts, watched.slot.open_until) == ([], None)
    watched.fail(error, times=3)
    assert watched.slot.open_until == watched.clock.time + PAUSE_S_MIN
    assert watched.alerts == [f"Brush is out of service: {error} Jobs wait and are retried automatically."]


@pytest.mark.parametrize("error", [BackendDown(detail="HTTP 403."), BackendOutOfCredits(detail="HTTP 406.")])
async def test_an_outage_is_alerted_once_until_it_is_over(db: Database, error: BotError) -> None:
    """The operator reads what is wrong once, however often it is tried; a new outage is a new alert."""
    watched = _watch(db)
    for _ in range(3):
        watched.fail(error, times=4)
        watched.pass_pause()
    assert watched.alerts == [
        f"Brush is out of service: {error.detail} Jobs wait and are retried automatically."
    ]
    watched.slot.record_success(1)
    watched.fail(error)
    assert len(watched.alerts) == 2


@pytest.mark.parametrize(
    "error",
    [BackendRefused(), BackendFailed(), BackendThrottled(), BotError()],
    ids=lambda e: type(e).__name__,
)
async def test_a_failure_of_one_job_concerns_no_other(db: Database, error: BotError) -> None:
    """A request that was refused, failed or throttled opens no breaker and alerts nobody."""
    watched = _watch(db)
    watched.fail(error, times=10)
    assert (watched.events, watched.slot.open_until) == ([], None)


async def test_what_the_operator_has_to_fix_is_always_alerted(db: Database) -> None:
    """A disk that can't be written is reported with its detail, and is no fault of the backend."""
    watched = _watch(db)
    watched.fail(OperatorError("The disk is full.", detail="No space left"), times=2)
    assert watched.alerts == ["The disk is full. (No space left)"] * 2
    assert watched.slot.open_until is None


async def test_used_up_credits_pause_the_queue_once(db: Database) -> None:
    """Waiting cards are refreshed once when the credits run out, however many jobs found out."""
    watched = _watch(db)
    watched.fail(BackendOutOfCredits(), times=4)
    assert [event for event in watched.events if isinstance(event, QueuePaused)] == [QueuePaused()]
    assert watched.router.is_out_of_credits(watched.clock.time)


async def test_a_low_balance_is_alerted_once_until_it_was_filled_up(db: Database) -> None:
    """The operator is asked to top up once; balances that are not reported change nothing."""
    watched = _watch(db)
    for left in (5.0, None, 4.5, 3.25, None, 20.0, 1.0):
        await watched.watch.record_balance(watched.slot, left)
    assert watched.alerts == [f"Credits left at Brush: {left}. Please top them up." for left in ("4.5", "1")]
    (balance,) = await db.read(providers.balances)
    assert (balance.backend, balance.remaining, balance.at) == ("brush", 1.0, watched.clock.time)


async def test_credits_are_looked_for_when_the_pause_is_over(db: Database) -> None:
    """While the breaker is open the provider is left alone; then one question decides."""
    backend = PaidBrush(credits_left=20)
    watched = _watch(db, backend)
    assert not await watched.watch.wait_is_over()
    watched.fail(BackendOutOfCredits())
    assert not await watched.watch.wait_is_over()
    assert watched.router.is_out_of_credits(watched.clock.time)
    watched.pass_pause()
    assert not await watched.watch.wait_is_over()
    assert not watched.router.is_out_of_credits(watched.clock.time)
    assert [event for event in watched.events if isinstance(event, QueueResumed)] == [QueueResumed()]


@pytest.mark.parametrize("errors", [[], [BackendDown(), BackendUnreachable(), BackendUnsure()]])
async def test_pauses_grow_while_there_are_no_credits(db: Database, errors: list[Exception]) -> None:
    """An empty account, or a provider that does not answer, is asked less and less often."""
    watched = _watch(db, PaidBrush(credits_left=0, balance_errors=errors))
    watched.fail(BackendOutOfCredits())
    pauses = []
    for _ in range(3):
        watched.pass_pause()
        assert not await watched.watch.wait_is_over()
        assert watched.slot.open_until is not None
        pauses.append(watched.slot.open_until - watched.clock.time)
    assert pauses == [2 * PAUSE_S_MIN, 4 * PAUSE_S_MIN, 8 * PAUSE_S_MIN]


async def test_waiting_for_credits_ends_after_hours(db: Database) -> None:
    """Jobs wait a night for the operator to top up, counted from the first time, not from the last try."""
    watched = _watch(db)
    began = watched.clock.time
    watched.fail(BackendOutOfCredits())
    watched.clock.time = began + OUT_OF_CREDITS_S_MAX
    assert not await watched.watch.wait_is_over()
    watched.pass_pause()
    watched.fail(BackendOutOfCredits())
    watched.pass_pause()
    assert await watched.watch.wait_is_over()


async def test_without_a_balance_to_ask_for_the_next_job_finds_out(db: Database) -> None:
    """A backend that reports no balance is tried with a job each time, and never ends the waiting ones."""
    watched = _watch(db, Brush())
    watched.fail(BackendOutOfCredits())
    watched.clock.time += 2 * OUT_OF_CREDITS_S_MAX
    assert not await watched.watch.wait_is_over()
    assert not watched.slot.is_paused(watched.clock.time)
