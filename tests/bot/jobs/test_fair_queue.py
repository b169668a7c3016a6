"""The fair queue: who is served when, what cancelling costs, and what running limits hold back."""

from __future__ import annotations

import itertools
import pickle
from collections import Counter
from collections.abc import Callable

import pytest

from bot.jobs.fair_queue import FairQueue, QueueLimits, Ticket
from tests.support.queues import FREE, flood, pops, queue_of


def test_nine_guilds_that_ask_once_pass_a_flood_of_a_hundred() -> None:
    """A guild that floods with 100 jobs delays nine that ask once by one job, not by a hundred."""
    queue = queue_of(flood(100, guild_id=1, member_id=1))
    asked_once = [Ticket(1000 + guild_id, guild_id, guild_id, 20) for guild_id in range(2, 11)]
    for ticket in asked_once:
        queue.push(ticket)
    assert [queue.position(ticket.job_id) for ticket in asked_once] == list(range(2, 11))
    assert pops(queue)[:11] == [1, *(ticket.job_id for ticket in asked_once), 2]


def test_a_flood_that_already_runs_gives_way_to_newcomers() -> None:
    """Guilds that come while a flood is being served go before the rest of it."""
    queue = queue_of(flood(100, guild_id=1, member_id=1))
    served = [queue.pop() for _ in range(4)]
    newcomers = [Ticket(1000 + guild_id, guild_id, guild_id, 20) for guild_id in range(2, 11)]
    for ticket in newcomers:
        queue.push(ticket)
    assert None not in served
    assert [queue.position(ticket.job_id) for ticket in newcomers] == list(range(1, 10))


def test_a_polite_member_passes_the_spammer_of_the_same_guild() -> None:
    """Inside one guild a member's only job goes before a spammer's second one."""
    queue = queue_of(flood(50, guild_id=1, member_id=1))
    queue.push(Ticket(1000, 1, 2, 20))
    assert queue.position(1000) == 2
    queue.pop()
    queue.push(Ticket(1001, 1, 3, 20))
    assert [queue.position(1000), queue.position(1001)] == [1, 2]


def test_a_members_jobs_stay_in_their_order() -> None:
    """One member's own jobs come out in the order they were asked for, whatever they cost."""
    queue = queue_of(Ticket(k, 1, 1, cost) for k, cost in enumerate([9, 1, 5, 0, 7]))
    assert pops(queue) == [0, 1, 2, 3, 4]


def test_expensive_jobs_take_turns_less_often() -> None:
    """A guild whose jobs cost three times as much gets a third as many of them."""
    queue = queue_of(
        [
            *flood(40, guild_id=1, member_id=1, cost=30),
            *flood(40, guild_id=2, member_id=2, first_id=101, cost=10),
        ]
    )
    first_forty = pops(queue)[:40]
    assert sum(job_id <= 100 for job_id in first_forty) == 10


def test_a_free_job_counts_as_one() -> None:
    """Jobs that cost nothing still take turns with the others."""
    queue = queue_of(
        [*flood(3, guild_id=1, member_id=1, cost=0), *flood(3, guild_id=2, member_id=2, first_id=11, cost=0)]
    )
    assert pops(queue) == [1, 11, 2, 12, 3, 13]


def test_a_negative_cost_is_refused() -> None:
    """A price below 0 is a mistake and never gets into the queue."""
    with pytest.raises(ValueError, match="job 7: a cost of -1"):
        Ticket(7, 1, 1, -1)


def test_an_idle_guild_saves_up_no_turns() -> None:
    """A guild that was away for 50 jobs of another comes back to every second turn, no more."""
    queue = queue_of([Ticket(1, 1, 1, 10), *flood(100, guild_id=2, member_id=2, first_id=101, cost=10)])
    for _ in range(51):
        queue.pop()
    for ticket in flood(20, guild_id=1, member_id=1, first_id=2, cost=10):
        queue.push(ticket)
    turns = [1 if job_id <= 100 else 2 for job_id in pops(queue)[:20]]
    assert turns == [1, 2] * 10


def test_using_an_idle_bot_is_not_held_against_a_guild() -> None:
    """A guild that used the bot while nobody else did owes nothing when others come."""
    queue = FairQueue(FREE)
    for job_id in range(50):
        queue.push(Ticket(job_id, 1, 1, 10))
        queue.pop()
        queue.done(job_id)
    queue.push(Ticket(100, 1, 1, 10))
    queue.push(Ticket(101, 2, 2, 10))
    assert queue.order() == (100, 101)


def shares(newcomers: Callable[[int], tuple[int, int]]) -> Counter[str]:
    """Serve a flood beside someone who asks again only when their last job has ended."""
    queue = queue_of(flood(200, guild_id=1, member_id=1, cost=10))
    taken: Counter[str] = Counter()
    queue.push(Ticket(1000, *newcomers(0), 10))
    for turn in range(1, 101):
        ticket = queue.pop()
        assert ticket is not None
        queue.done(ticket.job_id)
        taken["flood" if ticket.job_id < 1000 else "one at a time"] += 1
        if ticket.job_id >= 1000:
            queue.push(Ticket(1000 + turn, *newcomers(turn), 10))
    return taken


@pytest.mark.parametrize("guild_id", [1, 2])
def test_coming_and_going_brings_no_extra_turns(guild_id: int) -> None:
    """Someone who asks again only after their last job ended gets half beside a flood, not more."""
    assert shares(lambda _: (guild_id, 2)) == {"flood": 50, "one at a time": 50}


def test_a_retried_job_goes_ahead_of_its_members_others() -> None:
    """A job that is tried again comes before the member's other jobs, without another admission."""
    queue = queue_of(flood(3, guild_id=1, member_id=1), QueueLimits(member_waiting_max=3))
    first = queue.pop()
    assert first is not None
    queue.push(Ticket(4, 1, 1, 20))
    queue.done(first.job_id)
    queue.push(first, front=True)
    assert queue.order() == (1, 2, 3, 4)


def test_a_retried_job_is_charged_once() -> None:
    """Members whose job is tried again get back the turn that the first try took, and nobody else's."""
    queue = queue_of([*flood(3, guild_id=1, member_id=1), *flood(3, guild_id=2, member_id=2, first_id=11)])
    first = queue.pop()
    assert first is not None
    queue.done(first.job_id)
    queue.push(first, front=True)
    assert pops(queue) == [1, 11, 2, 12, 3, 13]


def test_a_recovered_job_refunds_no_other_job() -> None:
    """Putting a recovered job in front of its member's others gives the member no extra turn."""
    queue = queue_of([*flood(1, guild_id=1, member_id=1), *flood(2, guild_id=2, member_id=2, first_id=11)])
    queue.pop()
    queue.push(Ticket(2, 1, 1, 20), front=True, recovered=True)
    assert queue.order() == (11, 2, 12)


def test_cancelling_costs_nothing() -> None:
    """A member who cancels waiting jobs keeps the turn for the next one."""
    queue = queue_of([*flood(5, guild_id=1, member_id=1), *flood(5, guild_id=2, member_id=2, first_id=11)])
    assert all(queue.remove(job_id) for job_id in (1, 2, 3))
    assert queue.order() == (4, 11, 5, 12, 13, 14, 15)
    assert pops(queue) == [4, 11, 5, 12, 13, 14, 15]


def test_running_jobs_are_not_removed() -> None:
    """Only waiting jobs are removed; for a running one `remove` returns False and it keeps running."""
    queue = queue_of(flood(1, guild_id=1, member_id=1))
    queue.pop()
    assert not queue.remove(1)
    assert (queue.position(1), queue.running) == (None, 1)


def test_asking_and_cancelling_forever_takes_no_memory() -> None:
    """A member who asks and cancels while everything is busy does not fill the memory."""
    queue = queue_of(flood(2, guild_id=1, member_id=1))
    sizes = []
    for round_ in range(3):
        for k in range(500):
            queue.push(Ticket(10 + 500 * round_ + k, 1, 2, 20))
            queue.remove(10 + 500 * round_ + k)
        sizes.append(len(pickle.dumps(queue)))
    assert max(sizes) < 2 * min(sizes)


def test_guilds_that_come_and_go_are_forgotten() -> None:
    """The queue keeps nothing about guilds that have nothing in it, even if it is never idle."""
    queue = FairQueue(FREE)
    ids = itertools.count(1)
    queue.push(Ticket(next(ids), 1, 1, 1))
    queue.pop()
    small = len(pickle.dumps(queue))
    for guild_id in [*range(2, 1002)] * 2:
        job_id = next(ids)
        queue.push(Ticket(job_id, guild_id, guild_id, 10))
        queue.pop()
        queue.done(job_id)
    for cost in (100, 1):  # someone known comes back: time moves past what the others owed
        queue.push(Ticket(next(ids), 1, 1, cost))
        queue.pop()
    assert queue.running == 3
    assert len(pickle.dumps(queue)) < small + 500


def running_by(queue: FairQueue, who: Callable[[Ticket], int]) -> Counter[int]:
    """Pop all that may run and count it by guild or member."""
    return Counter(who(ticket) for ticket in iter(queue.pop, None))


def test_limits_bound_what_runs_at_once() -> None:
    """No guild and no member has more running than the limits allow, and nobody else is delayed."""
    tickets = [
        Ticket(1000 * guild_id + 10 * member_id + k, guild_id, 10 * guild_id + member_id, 20)
        for guild_id in (1, 2)
        for member_id in (1, 2, 3)
        for k in range(5)
    ]
    limits = QueueLimits(guild_running_max=4, member_running_max=2)
    assert running_by(queue_of(tickets, limits), lambda ticket: ticket.guild_id) == {1: 4, 2: 4}
    assert max(running_by(queue_of(tickets, limits), lambda ticket: ticket.member_id).values()) == 2


def test_a_member_is_the_same_person_in_every_guild() -> None:
    """Asking in several guilds gets a member no more running jobs at once."""
    queue = queue_of((Ticket(k, k, 7, 20) for k in range(5)), QueueLimits(member_running_max=2))
    assert pops(queue) == [0, 1]
    queue.done(0)
    assert pops(queue) == [2]


def test_a_guild_at_its_limit_continues_when_one_of_its_jobs_ends() -> None:
    """A job held back by a limit starts as soon as one before it has ended."""
    queue = queue_of(flood(3, guild_id=1, member_id=1), QueueLimits(member_running_max=1))
    assert pops(queue) == [1]
    queue.done(1)
    assert pops(queue) == [2]


def test_time_spent_at_a_limit_is_not_saved_up() -> None:
    """A guild that was at its limit while others were served gets no extra turns afterwards."""
    queue = queue_of(
        flood(10, guild_id=1, member_id=1), QueueLimits(member_running_max=1, member_waiting_max=99)
    )
    assert pops(queue) == [1]
    for member_id in range(100, 150):
        queue.push(Ticket(member_id, 2, member_id, 20))
        queue.pop()
        queue.done(member_id)
    for member_id in range(200, 210):
        queue.push(Ticket(member_id, 2, member_id, 20))
        queue.push(Ticket(member_id + 100, 1, member_id + 100, 20))
    guilds = []
    for _ in range(10):
        ticket = queue.pop()
        assert ticket is not None
        guilds.append(ticket.guild_id)
        queue.done(ticket.job_id)
    assert Counter(guilds) == {1: 5, 2: 5}


def test_the_same_job_is_never_queued_twice() -> None:
    """A job that waits or runs can't be pushed again; once done it can."""
    queue = queue_of(flood(1, guild_id=1, member_id=1))
    for _ in range(2):
        with pytest.raises(ValueError, match="job 1 is already in the queue"):
            queue.push(Ticket(1, 1, 1, 20))
        queue.pop()
    queue.done(1)
    queue.push(Ticket(1, 1, 1, 20))
    assert queue.order() == (1,)


def test_done_needs_a_running_job() -> None:
    """Ending a job that does not run raises."""
    queue = queue_of(flood(1, guild_id=1, member_id=1))
    with pytest.raises(KeyError):
        queue.done(1)


def test_counters_show_what_waits_and_what_runs() -> None:
    """The counts are those of the jobs in the queue."""
    queue = queue_of([*flood(3, guild_id=1, member_id=1), Ticket(9, 2, 1, 20)])
    queue.pop()
    assert (queue.waiting, queue.running) == (3, 1)
