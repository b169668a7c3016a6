"""Which backend takes the next job, and when one is left alone."""

from bot.backends.base import Backend, Capabilities
from bot.backends.router import PAUSE_S_MAX, PAUSE_S_MIN, UNANSWERED_MAX, BackendSlot, Router
from tests.support.simulated_server import SKETCHING, Sketcher


def _backend(name: str = "sketcher", *, concurrency_max: int = 2, uses_model: bool = True) -> Backend:
    capabilities = Capabilities(
        label=name,
        uses_model=uses_model,
        can_cancel=True,
        concurrency_max=concurrency_max,
        typical_s=SKETCHING.typical_s,
    )
    return Sketcher(name=name, capabilities=capabilities)


def test_a_slot_takes_as_many_as_its_backend_can() -> None:
    """A backend is never given more at once than it says it can do."""
    slot = BackendSlot(_backend(concurrency_max=2))
    slot.running = 1
    assert slot.has_room(0)
    slot.running = 2
    assert not slot.has_room(0)


def test_a_paused_backend_is_left_alone_and_then_tried_with_one_job() -> None:
    """A service that is out of use gets no calls, then one, and after a success all of them again."""
    slot = BackendSlot(_backend())
    assert slot.open_breaker(100)
    assert not slot.has_room(100 + PAUSE_S_MIN - 1)
    assert slot.has_room(100 + PAUSE_S_MIN)
    slot.running = 1
    assert not slot.has_room(100 + PAUSE_S_MIN)
    slot.record_success(5)
    assert slot.has_room(100 + PAUSE_S_MIN)


def test_pauses_grow_to_a_bound() -> None:
    """The longer a service is away, the more rarely it is asked, but always again."""
    slot = BackendSlot(_backend())
    now = 0.0
    pauses = []
    for _ in range(10):
        slot.open_breaker(now)
        assert slot.open_until is not None
        pauses.append(slot.open_until - now)
        now = slot.open_until
    assert pauses[:3] == [PAUSE_S_MIN, 2 * PAUSE_S_MIN, 4 * PAUSE_S_MIN]
    assert pauses[-1] == PAUSE_S_MAX


def test_failures_of_one_moment_count_once() -> None:
    """Four jobs that fail together neither alert four times nor pause for eight times as long."""
    slot = BackendSlot(_backend())
    assert [slot.open_breaker(10), slot.open_breaker(10), slot.open_breaker(11), slot.open_breaker(12)] == [
        True,
        False,
        False,
        False,
    ]
    assert slot.open_until == 10 + PAUSE_S_MIN


def test_the_next_backend_takes_over_while_the_first_is_paused() -> None:
    """With two backends, members go on getting pictures when the preferred one is out of use."""
    router = Router([_backend("first"), _backend("second")])
    router.slots[0].open_breaker(0)
    slot = router.free_slot(1)
    assert slot is router.slots[1]
    assert router.free_slot(PAUSE_S_MIN) is router.slots[0]


def test_a_busy_backend_is_waited_for() -> None:
    """A full preferred backend is no reason to make pictures with a lesser one."""
    router = Router([_backend("first", concurrency_max=1), _backend("second")])
    router.slots[0].running = 1
    assert router.free_slot(0) is None


def test_a_long_wait_spills_over_to_the_next_of_its_kind() -> None:
    """When a busy backend would keep members waiting for long, the next model helps out."""
    router = Router([_backend("first", concurrency_max=1), _backend("second")], spill_wait_s=30)
    router.slots[0].running = 1
    assert router.free_slot(0, waiting=1) is None
    assert router.free_slot(0, waiting=2) is router.slots[1]


def test_nobody_gets_a_painting_for_want_of_patience() -> None:
    """However long the wait for a model, a backend without one does not step in for it."""
    painter = _backend("painter", uses_model=False)
    router = Router([_backend("first", concurrency_max=1), painter], spill_wait_s=30)
    router.slots[0].running = 1
    assert router.free_slot(0, waiting=1000) is None
    router.slots[0].open_breaker(0)
    assert router.free_slot(1, waiting=1000) is router.slots[1]


def test_the_expected_wait_is_learnt() -> None:
    """The wait that members see follows how long jobs really take, and how many go at once."""
    router = Router([_backend(concurrency_max=2)])
    assert router.expected_wait_s(1, 0) == SKETCHING.typical_s
    assert router.expected_wait_s(3, 0) == 2 * SKETCHING.typical_s
    for _ in range(50):
        router.slots[0].record_success(4)
    assert round(router.expected_wait_s(1, 0)) == 4


def test_a_pause_is_part_of_the_wait() -> None:
    """While the service is out of use, members see the longer wait."""
    router = Router([_backend()])
    router.slots[0].open_breaker(0)
    assert router.expected_wait_s(1, 0) == SKETCHING.typical_s + PAUSE_S_MIN


def test_one_lost_call_is_an_accident_and_three_in_a_row_are_an_outage() -> None:
    """Single lost calls stop nobody; so many in a row open the breaker, once."""
    slot = BackendSlot(_backend())
    for _ in range(10):
        assert not any(slot.record_unanswered_call(0) for _ in range(UNANSWERED_MAX - 1))
        slot.record_success(5)
    assert [slot.record_unanswered_call(0) for _ in range(UNANSWERED_MAX + 1)] == [False, False, True, False]
