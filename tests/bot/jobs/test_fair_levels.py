"""One level of the fair queue: start and finish tags by the paper's formulas, and one guild's jobs.

Whether the whole is fair is shown in `test_fairness.py` and `test_queue_model.py`.
"""

from __future__ import annotations

import pytest

from bot.jobs.fair_levels import FairLevel, GuildQueue, Ticket, WaitingJob


def _job(job_id: int, *, member_id: int = 1, cost: int = 10) -> WaitingJob:
    return WaitingJob(Ticket(job_id, 1, member_id, cost), arrival=job_id)


def _first(level: FairLevel) -> int | None:
    job = level.first()
    return job.ticket.job_id if job else None


def test_a_free_job_counts_as_one_credit_and_none_as_less() -> None:
    """Free pictures take turns as well; a negative price is a mistake and is refused."""
    assert (_job(1, cost=0).cost, _job(1, cost=5).cost) == (1, 5)
    with pytest.raises(ValueError, match="below 0"):
        Ticket(1, 1, 1, -1)


def test_the_smallest_start_tag_goes_first_and_ties_by_arrival() -> None:
    """A flow that was just served waits for the others' turns."""
    level = FairLevel()
    level.offer(1, _job(1))
    level.offer(2, _job(2))
    assert _first(level) == 1
    level.charge(1, 10)
    level.offer(1, _job(3))
    assert [level.start(flow) for flow in (1, 2, 3)] == [10, 0, 0]
    assert _first(level) == 2


def test_idle_time_earns_no_turns() -> None:
    """A flow that comes later starts at the level's time, not at zero."""
    level = FairLevel()
    for _ in range(3):
        level.charge(1, 10)
    assert (level.start(1), level.start(2)) == (30, 20)


def test_coming_back_does_not_reset_a_finish_tag() -> None:
    """A flow that withdraws and offers again is as far as it was."""
    level = FairLevel()
    level.offer(1, _job(1))
    level.charge(1, 10)
    level.withdraw(1)
    assert _first(level) is None
    level.offer(1, _job(2))
    assert level.start(1) == 10


@pytest.mark.parametrize(("cost", "start"), [(4, 6), (10, 0), (25, 0)])
def test_a_refund_takes_a_charge_back_but_gives_no_lead(cost: int, start: int) -> None:
    """A flow whose job got nothing pays less, and at best is where the level is."""
    level = FairLevel()
    level.charge(1, 10)
    level.refund(1, cost)
    level.refund(2, cost)
    assert (level.start(1), level.start(2)) == (start, 0)


def test_flows_that_went_away_are_forgotten() -> None:
    """Memory holds the flows that are ahead of the level's time, however many came and went."""
    level = FairLevel()
    for flow in range(1_000):
        level.offer(flow, _job(flow))
        level.charge(flow, 1)
        level.withdraw(flow)
        level.charge(0, 2)
    assert len(level._finish) < 10
    for flow in range(1_000):
        level.offer(0, _job(flow))
    assert len(level._heap) < 100
    level.reset()
    assert (level.start(0), _first(level), len(level._heap)) == (0, None, 0)


def test_a_guild_serves_each_member_first_in_first_out() -> None:
    """Jobs wait behind their member's others, or in front when they are tried again."""
    guild = GuildQueue(1)
    jobs = [_job(1), _job(2), _job(3, member_id=2)]
    for job in jobs:
        guild.add(job, front=False)
    again = _job(0)
    guild.add(again, front=True)
    assert [job.ticket.job_id for job in guild.jobs_of[1]] == [0, 1, 2]
    tags = sorted((start, job.ticket.job_id) for start, _, job in guild.start_tags())
    assert tags == [(0, 0), (0, 3), (10, 1), (20, 2)]
    for job in (jobs[2], jobs[0]):
        guild.remove(job)
    assert {member: len(waiting) for member, waiting in guild.jobs_of.items()} == {1: 2}
