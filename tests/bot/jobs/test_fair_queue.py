"""The fair queue: who is served when, what is refused, and a slow model that it must agree with."""

from __future__ import annotations

import copy
import heapq
import itertools
import math
import pickle
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from bot.errors import QueueFull
from bot.jobs.fair_queue import FairQueue, QueueLimits, Ticket

FREE = QueueLimits(
    guild_running_max=10**6,
    member_running_max=10**6,
    waiting_max=10**6,
    guild_waiting_max=10**6,
    member_waiting_max=10**6,
)


def queue_of(tickets: Iterable[Ticket], limits: QueueLimits = FREE) -> FairQueue:
    """Return a queue with the tickets pushed in their order."""
    queue = FairQueue(limits)
    for ticket in tickets:
        queue.push(ticket)
    return queue


def pops(queue: FairQueue) -> list[int]:
    """Pop all that may run, with nothing ending in between."""
    return [ticket.job_id for ticket in iter(queue.pop, None)]


def flood(count: int, *, guild_id: int, member_id: int, first_id: int = 1, cost: int = 20) -> list[Ticket]:
    """Return tickets of one member with ids from `first_id`."""
    return [Ticket(first_id + k, guild_id, member_id, cost) for k in range(count)]


# -- Order of service


def test_nine_guilds_that_ask_once_pass_a_flood_of_a_hundred() -> None:
    """A guild that floods with 100 jobs delays nine that ask once by one job, not by a hundred."""
    queue = queue_of(flood(100, guild_id=1, member_id=1))
    asked_once = [Ticket(1000 + guild_id, guild_id, guild_id, 20) for guild_id in range(2, 11)]
    for ticket in asked_once:
        queue.push(ticket)
    assert [queue.place(ticket.job_id) for ticket in asked_once] == list(range(2, 11))
    assert pops(queue)[:11] == [1, *(ticket.job_id for ticket in asked_once), 2]


def test_a_flood_that_already_runs_gives_way_to_newcomers() -> None:
    """Guilds that come while a flood is being served go before the rest of it."""
    queue = queue_of(flood(100, guild_id=1, member_id=1))
    served = [queue.pop() for _ in range(4)]
    newcomers = [Ticket(1000 + guild_id, guild_id, guild_id, 20) for guild_id in range(2, 11)]
    for ticket in newcomers:
        queue.push(ticket)
    assert None not in served
    assert [queue.place(ticket.job_id) for ticket in newcomers] == list(range(1, 10))


def test_a_polite_member_passes_the_spammer_of_the_same_guild() -> None:
    """Inside one guild a member's only job goes before a spammer's second one."""
    queue = queue_of(flood(50, guild_id=1, member_id=1))
    queue.push(Ticket(1000, 1, 2, 20))
    assert queue.place(1000) == 2
    queue.pop()
    queue.push(Ticket(1001, 1, 3, 20))
    assert [queue.place(1000), queue.place(1001)] == [1, 2]


def test_a_members_jobs_stay_in_their_order() -> None:
    """One member's own jobs come out in the order they were asked for, whatever they cost."""
    queue = queue_of(Ticket(k, 1, 1, cost) for k, cost in enumerate([9, 1, 5, 0, 7]))
    assert pops(queue) == [0, 1, 2, 3, 4]


def test_dear_jobs_take_turns_less_often() -> None:
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


def test_an_hour_alone_is_not_held_against_a_guild() -> None:
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
    """Serve a flood beside someone who asks again only when his last job has ended."""
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
    """Who asks one at a time, each after the last ended, gets his half beside a flood, not more."""
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
    """Members whose jobs fail get the turn again that the failure cost them, and nobody else's."""
    queue = queue_of([*flood(3, guild_id=1, member_id=1), *flood(3, guild_id=2, member_id=2, first_id=11)])
    first = queue.pop()
    assert first is not None
    queue.done(first.job_id)
    queue.push(first, front=True)
    assert pops(queue) == [1, 11, 2, 12, 3, 13]


def test_a_job_taken_up_after_a_restart_pays_back_no_other_jobs_debt() -> None:
    """Putting a recovered job in front of its member's others gives the member no extra turn."""
    queue = queue_of([*flood(1, guild_id=1, member_id=1), *flood(2, guild_id=2, member_id=2, first_id=11)])
    queue.pop()
    queue.push(Ticket(2, 1, 1, 20), front=True, recovered=True)
    assert queue.order() == (11, 2, 12)


# -- Cancelling


def test_cancelling_costs_nothing() -> None:
    """A member who cancels waiting jobs keeps the place that the next one would have had."""
    queue = queue_of([*flood(5, guild_id=1, member_id=1), *flood(5, guild_id=2, member_id=2, first_id=11)])
    assert all(queue.remove(job_id) for job_id in (1, 2, 3))
    assert queue.order() == (4, 11, 5, 12, 13, 14, 15)
    assert pops(queue) == [4, 11, 5, 12, 13, 14, 15]


def test_cancelled_jobs_leave_the_line_at_once() -> None:
    """Those behind a cancelled job move up, and the cancelled one has no place."""
    queue = queue_of(flood(3, guild_id=1, member_id=1))
    assert queue.remove(1)
    assert [queue.place(job_id) for job_id in (1, 2, 3)] == [None, 1, 2]
    assert not queue.remove(1)


def test_running_jobs_are_not_removed() -> None:
    """Removing works on waiting jobs only; a running one says no and keeps running."""
    queue = queue_of(flood(1, guild_id=1, member_id=1))
    queue.pop()
    assert not queue.remove(1)
    assert (queue.place(1), queue.running) == (None, 1)


def test_asking_and_cancelling_for_ever_takes_no_memory() -> None:
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


# -- Running caps


def running_by(queue: FairQueue, who: Callable[[Ticket], int]) -> Counter[int]:
    """Pop all that may run and count it by guild or member."""
    return Counter(who(ticket) for ticket in iter(queue.pop, None))


def test_caps_bound_what_runs_at_once() -> None:
    """No guild and no member has more running than the caps allow, and nobody else is held up."""
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


def test_a_capped_guild_continues_when_one_of_its_jobs_ends() -> None:
    """A job held back by a cap starts as soon as one before it has ended."""
    queue = queue_of(flood(3, guild_id=1, member_id=1), QueueLimits(member_running_max=1))
    assert pops(queue) == [1]
    queue.done(1)
    assert pops(queue) == [2]


def test_time_spent_at_a_cap_is_not_saved_up() -> None:
    """A guild that stood at its cap while others worked gets turns, not arrears, afterwards."""
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


def test_a_capped_guild_is_shown_where_it_will_rejoin() -> None:
    """The place shown to someone held back by a cap gives way as the others' turns go by."""
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


@pytest.mark.parametrize("name", QueueLimits.__slots__)
def test_a_limit_below_one_is_refused(name: str) -> None:
    """A limit that would let nobody in for ever is named at start, not met by members."""
    with pytest.raises(ValueError, match=f"{name} must be at least 1"):
        QueueLimits(**{name: 0})


# -- Bounds


SMALL = QueueLimits(waiting_max=3, guild_waiting_max=2, member_waiting_max=1)


def test_a_member_meets_the_own_bound_first() -> None:
    """A member with enough waiting is told so, in words that say what to do."""
    queue = queue_of([Ticket(1, 1, 1, 20), Ticket(2, 1, 2, 20), Ticket(3, 2, 3, 20)], SMALL)
    with pytest.raises(QueueFull) as refused:
        queue.push(Ticket(4, 1, 1, 20))
    assert str(refused.value) == (
        "You already have 1 picture waiting; please wait until one is done, or cancel one."
    )


def test_a_members_bound_counts_all_guilds() -> None:
    """A member with five jobs waiting in one guild can't add a sixth in another."""
    queue = queue_of(flood(5, guild_id=1, member_id=1), QueueLimits())
    with pytest.raises(QueueFull, match=r"^You already have 5 pictures waiting; "):
        queue.admit(guild_id=2, member_id=1)


def test_a_full_guild_says_so() -> None:
    """A member of a guild with enough waiting learns that it is the server's bound."""
    queue = queue_of([Ticket(1, 1, 1, 20), Ticket(2, 1, 2, 20)], SMALL)
    with pytest.raises(QueueFull) as refused:
        queue.admit(guild_id=1, member_id=3)
    assert str(refused.value) == (
        "This server already has 2 pictures waiting; please try again in a few minutes."
    )


def test_a_full_bot_says_so() -> None:
    """When the bot as a whole has enough waiting, a newcomer learns that it is nobody's fault."""
    queue = queue_of(
        (Ticket(k, k, k, 20) for k in range(2000)), QueueLimits(waiting_max=2000, guild_running_max=1)
    )
    with pytest.raises(QueueFull) as refused:
        queue.admit(guild_id=5000, member_id=5000)
    assert str(refused.value) == (
        "The bot already has 2,000 pictures waiting; please try again in a few minutes."
    )


def test_a_refusal_changes_nothing() -> None:
    """After a refusal the queue is as before, and there is room again once something starts."""
    queue = queue_of([Ticket(1, 1, 1, 20)], SMALL)
    before = pickle.dumps(queue)
    with pytest.raises(QueueFull):
        queue.push(Ticket(2, 1, 1, 20))
    assert pickle.dumps(queue) == before
    queue.pop()
    queue.push(Ticket(2, 1, 1, 20))
    assert queue.order() == (2,)


def test_reserved_places_count_against_every_bound() -> None:
    """Of several requests at the same moment no more get in than the bounds allow."""
    queue = FairQueue(SMALL)
    with queue.reserve(guild_id=1, member_id=1):
        with pytest.raises(QueueFull, match="You already have 1 picture waiting"):
            queue.admit(guild_id=2, member_id=1)
        with queue.reserve(guild_id=1, member_id=2):
            with pytest.raises(QueueFull, match="This server already has 2 pictures waiting"):
                queue.push(Ticket(3, 1, 3, 20))
            with (
                queue.reserve(guild_id=2, member_id=3),
                pytest.raises(QueueFull, match="The bot already has 3 pictures waiting"),
            ):
                queue.admit(guild_id=3, member_id=4)


def test_a_reserved_place_is_not_lost_to_others() -> None:
    """Who was let in gets in, even if a retried job has filled the line meanwhile."""
    queue = FairQueue(SMALL)
    with queue.reserve(guild_id=1, member_id=1):
        queue.push(Ticket(1, 1, 1, 20), front=True)
        queue.push(Ticket(2, 1, 1, 20))
    assert queue.order() == (1, 2)


def test_a_reserved_place_is_given_back() -> None:
    """A request that fails after it was let in leaves its place to the next."""
    queue = FairQueue(SMALL)
    before = pickle.dumps(queue)
    with pytest.raises(OSError, match="disk full"), queue.reserve(guild_id=1, member_id=1):
        raise OSError("disk full")
    assert pickle.dumps(queue) == before
    queue.admit(guild_id=1, member_id=1)


def test_jobs_taken_up_after_a_restart_are_never_refused() -> None:
    """Whatever waited before a restart waits again, even where the bounds were lowered."""
    queue = FairQueue(SMALL)
    for ticket in flood(10, guild_id=1, member_id=1):
        queue.push(ticket, recovered=True)
    assert queue.waiting == len(queue) == 10


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


def test_done_wants_a_running_job() -> None:
    """Ending a job that does not run is a mistake that shows."""
    queue = queue_of(flood(1, guild_id=1, member_id=1))
    with pytest.raises(KeyError):
        queue.done(1)


def test_counters_tell_what_waits_and_what_runs() -> None:
    """The numbers shown to members are those of the jobs in the queue."""
    queue = queue_of([*flood(3, guild_id=1, member_id=1), Ticket(9, 2, 1, 20)])
    queue.pop()
    assert (queue.waiting, queue.running) == (3, 1)
    assert [queue.waiting_of_guild(guild_id) for guild_id in (1, 2, 3)] == [2, 1, 0]
    assert [queue.waiting_of_member(member_id) for member_id in (1, 2)] == [3, 0]


# -- An hour with four servers


HOUR_S = 3600.0


@dataclass
class Asker:
    """Someone in a simulated hour: asks every `gap_s` on average, or keeps `backlog` jobs waiting."""

    guild_id: int
    member_id: int
    gap_s: float = math.inf
    backlog: int = 0


@dataclass
class Hour:
    """A discrete-event simulation of servers behind the queue, in its own time."""

    askers: list[Asker]
    servers: int = 4
    limits: QueueLimits = field(default_factory=QueueLimits)
    now_s: float = 0.0
    waits_s: dict[int, list[float]] = field(default_factory=lambda: defaultdict(list))  # by member
    worked: Counter[int] = field(default_factory=Counter)  # cost taken, by guild

    def run(self) -> Hour:
        """Serve everyone for an hour; a job of cost 1 takes one second."""
        self.queue = FairQueue(self.limits)
        self.ids = itertools.count(1)
        self.asked: dict[int, float] = {}
        self.ends: list[tuple[float, int, Ticket]] = []
        arrivals = sorted(self._arrivals(), key=lambda arrival: arrival[0])
        for at_s, asker in [*arrivals, (HOUR_S, None)]:
            self._serve_until(at_s)
            if asker:
                self._ask(asker, cost=random.Random(at_s).randint(5, 20))
        return self

    def _arrivals(self) -> Iterator[tuple[float, Asker]]:
        for asker in self.askers:
            draw = random.Random(asker.member_id)
            at_s = draw.expovariate(1 / asker.gap_s) if asker.gap_s < math.inf else math.inf
            while at_s < HOUR_S:
                yield at_s, asker
                at_s += draw.expovariate(1 / asker.gap_s)

    def _ask(self, asker: Asker, *, cost: int) -> None:
        job_id = next(self.ids)
        self.queue.push(Ticket(job_id, asker.guild_id, asker.member_id, cost))
        self.asked[job_id] = self.now_s
        self._start()

    def _start(self) -> None:
        for asker in self.askers:
            while self.queue.waiting_of_member(asker.member_id) < asker.backlog:
                job_id = next(self.ids)
                self.queue.push(Ticket(job_id, asker.guild_id, asker.member_id, 5 + job_id * 7 % 16))
                self.asked[job_id] = self.now_s
        while self.queue.running < self.servers and (ticket := self.queue.pop()):
            self.worked[ticket.guild_id] += ticket.cost
            heapq.heappush(self.ends, (self.now_s + ticket.cost, ticket.job_id, ticket))

    def _serve_until(self, until_s: float) -> None:
        self._start()
        while self.ends and self.ends[0][0] <= until_s:
            self.now_s, job_id, ticket = heapq.heappop(self.ends)
            self.queue.done(job_id)
            self.waits_s[ticket.member_id].append(self.now_s - self.asked.pop(job_id))
            self._start()
        self.now_s = until_s


def jain(shares_: Iterable[float]) -> float:
    """Jain's index: 1 where all get the same, 1/n where one gets everything."""
    values = list(shares_)
    return sum(values) ** 2 / (len(values) * sum(value**2 for value in values))


def p95(values: Iterable[float]) -> float:
    """Return the 95th percentile by nearest rank."""
    ordered = sorted(values)
    return ordered[math.ceil(0.95 * len(ordered)) - 1]


QUIET = [Asker(guild_id, 100 * guild_id, gap_s=240) for guild_id in range(11, 19)]
FLOOD = [Asker(1, member_id, backlog=5) for member_id in range(1, 21)]


def test_quiet_guilds_wait_at_most_twice_as_long_beside_a_flood() -> None:
    """In an hour with one flooding guild a quiet guild's p95 is at most twice what it is without."""
    alone, beside = Hour(QUIET).run(), Hour([*QUIET, *FLOOD]).run()
    for asker in QUIET:
        assert len(beside.waits_s[asker.member_id]) >= 8
    unloaded_s = p95(wait for asker in QUIET for wait in alone.waits_s[asker.member_id])
    loaded_s = p95(wait for asker in QUIET for wait in beside.waits_s[asker.member_id])
    assert loaded_s <= 2 * unloaded_s
    for asker in QUIET:
        assert p95(beside.waits_s[asker.member_id]) <= 2 * p95(alone.waits_s[asker.member_id])
    # The flood still gets all that the quiet ones leave: no server idles.
    assert sum(beside.worked.values()) >= 4 * HOUR_S


def test_backlogged_guilds_get_equal_shares() -> None:
    """Guilds that always have something waiting share an hour evenly, however many members flood."""
    busy = [
        Asker(guild_id, 1000 * guild_id + k, backlog=3) for guild_id in range(2, 7) for k in range(guild_id)
    ]
    hour = Hour([*FLOOD, *busy, *QUIET]).run()
    assert jain(hour.worked[guild_id] for guild_id in range(1, 7)) >= 0.95


def test_members_of_one_guild_get_equal_shares() -> None:
    """Inside a guild, members who always have something waiting share what the guild gets."""
    members = [Asker(1, member_id, backlog=1 + member_id % 5) for member_id in range(1, 11)]
    hour = Hour(members).run()
    assert jain(len(hour.waits_s[asker.member_id]) for asker in members) >= 0.95


def test_a_polite_member_in_the_flooding_guild_is_served() -> None:
    """Who asks now and then in the guild that floods waits a round of its members, never for ever."""
    polite = Asker(1, 99, gap_s=400)
    hour = Hour([*FLOOD, *QUIET, polite]).run()
    assert len(hour.waits_s[polite.member_id]) >= 5
    assert max(hour.waits_s[polite.member_id]) <= 120


# -- The fairness bound


@st.composite
def backlogs(draw: st.DrawFn) -> list[list[int]]:
    """Two flows with 25 costs each, and up to three more with a few."""
    sizes = [25, 25, *draw(st.lists(st.integers(0, 8), max_size=3))]
    return [draw(st.lists(st.integers(1, 50), min_size=size, max_size=size)) for size in sizes]


@settings(max_examples=100, deadline=None)
@given(costs=backlogs(), late=st.integers(0, 10), inside=st.booleans())
def test_backlogged_flows_never_drift_apart(costs: list[list[int]], late: int, inside: bool) -> None:
    """Between two flows that always wait, work differs by at most one largest job of each, at any time."""
    queue = FairQueue(FREE)
    flows: dict[int, int] = {}
    for flow, jobs in reversed([*enumerate(costs)]):
        for k, cost in enumerate(jobs):
            flows[100 * flow + k] = flow
            queue.push(Ticket(100 * flow + k, 0 if inside else flow, flow, cost))
        if flow == 2:
            for _ in range(late):  # the two come when service is under way
                queue.pop()
    left, lead, leads = Counter({0: 25, 1: 25}), 0, [0]
    while left[0] and left[1] and (ticket := queue.pop()):
        flow = flows[ticket.job_id]
        left[flow] -= 1
        lead += {0: ticket.cost, 1: -ticket.cost}.get(flow, 0)
        leads.append(lead)
    assert max(leads) - min(leads) <= max(costs[0]) + max(costs[1])


# -- A slow model


@dataclass
class Level:
    """The paper's tags, word for word: nothing is cached and nobody is forgotten."""

    now: int = 0
    finish: dict[int, int] = field(default_factory=dict)

    def start(self, flow: int) -> int:
        """Return S = max(V, F)."""
        return max(self.now, self.finish.get(flow, 0))

    def serve(self, flow: int, cost: int) -> None:
        """Set V to the start tag and F to `cost` after it."""
        self.now = self.start(flow)
        self.finish[flow] = self.now + cost

    def refund(self, flow: int, cost: int) -> None:
        """Take a charge back; `start` sees to it that V is the earliest."""
        self.finish[flow] = self.finish.get(flow, 0) - cost


@dataclass
class Model:
    """What the queue should do, by looking at every waiting job every time."""

    limits: QueueLimits
    lanes: dict[tuple[int, int], list[tuple[int, Ticket]]] = field(default_factory=dict)
    running: dict[int, Ticket] = field(default_factory=dict)
    guilds: Level = field(default_factory=Level)
    members: dict[int, Level] = field(default_factory=lambda: defaultdict(Level))
    arrivals: int = 0

    def waiting(self) -> list[Ticket]:
        """Return what waits, in no order."""
        return [ticket for lane in self.lanes.values() for _, ticket in lane]

    def push(self, ticket: Ticket, *, front: bool = False, refund: bool = False) -> None:
        """Put the ticket at one end of its lane."""
        self.arrivals += 1
        lane = self.lanes.setdefault((ticket.guild_id, ticket.member_id), [])
        if front:
            lane.insert(0, (-self.arrivals, ticket))
        else:
            lane.append((self.arrivals, ticket))
        if refund:
            self.guilds.refund(ticket.guild_id, max(1, ticket.cost))
            self.members[ticket.guild_id].refund(ticket.member_id, max(1, ticket.cost))

    def eligible(self) -> list[tuple[int, Ticket]]:
        """Return each lane's head whose guild and member are under their caps."""
        by_guild = Counter(ticket.guild_id for ticket in self.running.values())
        by_member = Counter(ticket.member_id for ticket in self.running.values())
        return [
            lane[0]
            for (guild_id, member_id), lane in self.lanes.items()
            if lane
            and by_guild[guild_id] < self.limits.guild_running_max
            and by_member[member_id] < self.limits.member_running_max
        ]

    def head_of(self, guild_id: int, heads: list[tuple[int, Ticket]]) -> tuple[int, Ticket]:
        """Return the guild's next by its members' start tags."""
        level = self.members[guild_id]
        own = [head for head in heads if head[1].guild_id == guild_id]
        return min(own, key=lambda head: (level.start(head[1].member_id), head[0]))

    def pop(self) -> Ticket | None:
        """Take the next by the guilds' start tags, of those eligible."""
        heads = self.eligible()
        if not heads:
            return None
        firsts = [self.head_of(guild_id, heads) for guild_id in {head[1].guild_id for head in heads}]
        _, ticket = min(firsts, key=lambda first: (self.guilds.start(first[1].guild_id), first[0]))
        self.lanes[ticket.guild_id, ticket.member_id].pop(0)
        self.guilds.serve(ticket.guild_id, max(1, ticket.cost))
        self.members[ticket.guild_id].serve(ticket.member_id, max(1, ticket.cost))
        self.running[ticket.job_id] = ticket
        return ticket

    def done(self, job_id: int) -> None:
        """End a running job."""
        del self.running[job_id]
        self.end_busy_periods()

    def remove(self, job_id: int) -> None:
        """Take a waiting job out."""
        for lane in self.lanes.values():
            lane[:] = [(arrival, ticket) for arrival, ticket in lane if ticket.job_id != job_id]
        self.end_busy_periods()

    def end_busy_periods(self) -> None:
        """Where nothing waits or runs, V becomes the largest F."""
        present = {ticket.guild_id for ticket in [*self.waiting(), *self.running.values()]}
        idle = [level for guild_id, level in self.members.items() if guild_id not in present]
        for level in [*idle, *([] if present else [self.guilds])]:
            level.now = max([level.now, *level.finish.values()])

    def order(self) -> list[int]:
        """Return what pops would give with no caps, trying it out on a copy."""
        trial = copy.deepcopy(self)
        trial.limits = FREE
        return [ticket.job_id for ticket in iter(trial.pop, None)]


guild_ids = st.integers(1, 4)
member_ids = st.integers(1, 5)
costs_ = st.integers(0, 12)


class QueueMachine(RuleBasedStateMachine):
    """Does the same to the queue and to the model, and compares what can be seen."""

    @initialize(guild_cap=st.sampled_from([1, 2, 3, 100]), member_cap=st.sampled_from([1, 2, 100]))
    def begin(self, guild_cap: int, member_cap: int) -> None:
        """Start with small bounds and caps that bind now and then."""
        self.limits = QueueLimits(
            guild_running_max=guild_cap,
            member_running_max=member_cap,
            waiting_max=25,
            guild_waiting_max=12,
            member_waiting_max=6,
        )
        self.queue, self.model = FairQueue(self.limits), Model(self.limits)
        self.ids = itertools.count(1)
        self.fate: dict[int, str] = {}

    @rule(guild_id=guild_ids, member_id=member_ids, cost=costs_)
    def push(self, guild_id: int, member_id: int, cost: int) -> None:
        """Ask; refused exactly where a bound is reached; the place foretold is the place got."""
        ticket = Ticket(next(self.ids), guild_id, member_id, cost)
        waiting = self.model.waiting()
        full = (
            sum(other.member_id == member_id for other in waiting) >= 6
            or sum(other.guild_id == guild_id for other in waiting) >= 12
            or len(waiting) >= 25
        )
        if full:
            with pytest.raises(QueueFull):
                self.queue.push(ticket)
            return
        expected = self.queue.next_place(guild_id=guild_id, member_id=member_id)
        self.queue.push(ticket)
        self.model.push(ticket)
        self.fate[ticket.job_id] = "waiting"
        assert self.queue.place(ticket.job_id) == expected

    @rule(guild_id=guild_ids, member_id=member_ids, cost=costs_, front=st.booleans())
    def recover(self, guild_id: int, member_id: int, cost: int, front: bool) -> None:
        """Take up a job after a restart, beyond any bound."""
        ticket = Ticket(next(self.ids), guild_id, member_id, cost)
        self.queue.push(ticket, front=front, recovered=True)
        self.model.push(ticket, front=front)
        self.fate[ticket.job_id] = "waiting"

    @rule(times=st.integers(1, 4))
    def pop(self, times: int) -> None:
        """Take the same job as the model, or none exactly where none is eligible."""
        for _ in range(times):
            eligible = {ticket.job_id for _, ticket in self.model.eligible()}
            ticket, expected = self.queue.pop(), self.model.pop()
            assert ticket == expected
            assert (ticket is None) == (not eligible)
            if ticket:
                assert self.fate[ticket.job_id] == "waiting"
                self.fate[ticket.job_id] = "running"

    @precondition(lambda self: self.model.running)
    @rule(data=st.data(), again=st.booleans())
    def done(self, data: st.DataObject, again: bool) -> None:
        """End a running job, for good or to be tried again."""
        job_id = data.draw(st.sampled_from(sorted(self.model.running)))
        ticket = self.model.running[job_id]
        self.queue.done(job_id)
        self.model.done(job_id)
        self.fate[job_id] = "gone"
        if again:
            self.queue.push(ticket, front=True)
            self.model.push(ticket, front=True, refund=True)
            self.fate[job_id] = "waiting"

    @precondition(lambda self: self.model.waiting())
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        """Cancel a waiting job."""
        job_id = data.draw(st.sampled_from(sorted(ticket.job_id for ticket in self.model.waiting())))
        assert self.queue.remove(job_id)
        self.model.remove(job_id)
        self.fate[job_id] = "gone"

    @rule()
    def look(self) -> None:
        """Compare places only now and then, so that the line has something to catch up with."""
        order = self.model.order()
        assert list(self.queue.order()) == order
        assert [self.queue.place(job_id) for job_id in order] == list(range(1, len(order) + 1))

    @invariant()
    def nothing_is_lost(self) -> None:
        """Every job is waiting, running or gone."""
        states = Counter(self.fate.values())
        assert (self.queue.waiting, self.queue.running) == (states["waiting"], states["running"])

    @invariant()
    def caps_hold(self) -> None:
        """Neither a guild nor a member has more running than its cap."""
        running = self.model.running.values()
        assert all(n <= self.limits.guild_running_max for n in Counter(t.guild_id for t in running).values())
        assert all(
            n <= self.limits.member_running_max for n in Counter(t.member_id for t in running).values()
        )

    def teardown(self) -> None:
        """End everything: each job comes out once, and the empty queue is as small as a new one."""
        while self.model.running or self.model.waiting():
            self.pop(times=3)
            for job_id in [*self.model.running]:
                self.queue.done(job_id)
                self.model.done(job_id)
                self.fate[job_id] = "gone"
        assert set(self.fate.values()) <= {"gone"}
        assert len(pickle.dumps(self.queue)) <= len(pickle.dumps(FairQueue(self.limits))) + 8


def test_the_queue_does_what_a_plain_model_does() -> None:
    """Whatever is asked, cancelled, retried and ended, in any order, each job is served once, in its turn."""
    run_state_machine_as_test(
        QueueMachine, settings=settings(max_examples=150, stateful_step_count=40, deadline=None)
    )
