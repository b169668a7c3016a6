"""The order of service as members see it."""

from __future__ import annotations

from bot.jobs.fair_queue import QueueLimits, Ticket
from tests.support.queues import flood, pops, queue_of


def test_cancelled_jobs_leave_the_order_at_once() -> None:
    """Those behind a cancelled job move up, and the cancelled one has no position."""
    queue = queue_of(flood(3, guild_id=1, member_id=1))
    assert queue.remove(1)
    assert [queue.position(job_id) for job_id in (1, 2, 3)] == [None, 1, 2]
    assert not queue.remove(1)


def test_a_guild_at_its_limit_is_shown_where_it_will_continue() -> None:
    """The position of someone held back by a limit gets worse as the others take their turns."""
    queue = queue_of(
        [*flood(2, guild_id=3, member_id=3), *flood(2, guild_id=1, member_id=1, first_id=11, cost=10)],
        QueueLimits(member_running_max=1),
    )
    assert pops(queue) == [1, 11]
    assert queue.order() == (12, 2)
    for member_id in range(100, 104):
        queue.push(Ticket(member_id, 2, member_id, 10))
        queue.pop()
    assert queue.order() == (2, 12)
    queue.done(11)
    queue.done(1)
    assert pops(queue) == [2, 12]
