"""Fairness over time: an hour with four servers, and the theorem's bound."""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from bot.jobs.fair_queue import FairQueue, QueueLimits, Ticket
from tests.support.queues import FREE

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
        self.waiting: Counter[int] = Counter()  # jobs, by member
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
        self._push(asker, next(self.ids), cost)
        self._start()

    def _push(self, asker: Asker, job_id: int, cost: int) -> None:
        self.queue.push(Ticket(job_id, asker.guild_id, asker.member_id, cost))
        self.asked[job_id] = self.now_s
        self.waiting[asker.member_id] += 1

    def _start(self) -> None:
        for asker in self.askers:
            while self.waiting[asker.member_id] < asker.backlog:
                job_id = next(self.ids)
                self._push(asker, job_id, cost=5 + job_id * 7 % 16)
        while self.queue.running < self.servers and (ticket := self.queue.pop()):
            self.waiting[ticket.member_id] -= 1
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
    """Someone who asks now and then in the flooding guild waits a round of its members at most."""
    polite = Asker(1, 99, gap_s=400)
    hour = Hour([*FLOOD, *QUIET, polite]).run()
    assert len(hour.waits_s[polite.member_id]) >= 5
    assert max(hour.waits_s[polite.member_id]) <= 120


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
