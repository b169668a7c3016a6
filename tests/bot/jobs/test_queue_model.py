"""A slow model of the fair queue that the real one must agree with, whatever is done to both."""

from __future__ import annotations

import copy
import itertools
import pickle
from collections import Counter, defaultdict
from dataclasses import dataclass, field

import pytest
from hypothesis import settings
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
from tests.support.queues import FREE


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
        """Refund a charge; `start` never returns less than V."""
        self.finish[flow] = self.finish.get(flow, 0) - cost


@dataclass
class Model:
    """What the queue should do, by looking at every waiting job every time."""

    limits: QueueLimits
    jobs_of: dict[tuple[int, int], list[tuple[int, Ticket]]] = field(default_factory=dict)
    running: dict[int, Ticket] = field(default_factory=dict)
    guilds: Level = field(default_factory=Level)
    members: dict[int, Level] = field(default_factory=lambda: defaultdict(Level))
    arrivals: int = 0

    def waiting(self) -> list[Ticket]:
        """Return what waits, in no order."""
        return [ticket for jobs in self.jobs_of.values() for _, ticket in jobs]

    def push(self, ticket: Ticket, *, front: bool = False, refund: bool = False) -> None:
        """Put the ticket at one end of its member's jobs."""
        self.arrivals += 1
        jobs = self.jobs_of.setdefault((ticket.guild_id, ticket.member_id), [])
        if front:
            jobs.insert(0, (-self.arrivals, ticket))
        else:
            jobs.append((self.arrivals, ticket))
        if refund:
            self.guilds.refund(ticket.guild_id, max(1, ticket.cost))
            self.members[ticket.guild_id].refund(ticket.member_id, max(1, ticket.cost))

    def eligible(self) -> list[tuple[int, Ticket]]:
        """Return each member's first job where guild and member are below their limits."""
        by_guild = Counter(ticket.guild_id for ticket in self.running.values())
        by_member = Counter(ticket.member_id for ticket in self.running.values())
        return [
            jobs[0]
            for (guild_id, member_id), jobs in self.jobs_of.items()
            if jobs
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
        self.jobs_of[ticket.guild_id, ticket.member_id].pop(0)
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
        for jobs in self.jobs_of.values():
            jobs[:] = [(arrival, ticket) for arrival, ticket in jobs if ticket.job_id != job_id]
        self.end_busy_periods()

    def end_busy_periods(self) -> None:
        """Where nothing waits or runs, V becomes the largest F."""
        present = {ticket.guild_id for ticket in [*self.waiting(), *self.running.values()]}
        idle = [level for guild_id, level in self.members.items() if guild_id not in present]
        for level in [*idle, *([] if present else [self.guilds])]:
            level.now = max([level.now, *level.finish.values()])

    def order(self) -> list[int]:
        """Return what pops would give with no limits, trying it out on a copy."""
        trial = copy.deepcopy(self)
        trial.limits = FREE
        return [ticket.job_id for ticket in iter(trial.pop, None)]


guild_ids = st.integers(1, 4)
member_ids = st.integers(1, 5)
costs_ = st.integers(0, 12)


class QueueMachine(RuleBasedStateMachine):
    """Does the same to the queue and to the model, and compares what can be seen."""

    @initialize(guild_max=st.sampled_from([1, 2, 3, 100]), member_max=st.sampled_from([1, 2, 100]))
    def begin(self, guild_max: int, member_max: int) -> None:
        """Start with small bounds and with limits that are reached now and then."""
        self.limits = QueueLimits(
            guild_running_max=guild_max,
            member_running_max=member_max,
            waiting_max=25,
            guild_waiting_max=12,
            member_waiting_max=6,
        )
        self.queue, self.model = FairQueue(self.limits), Model(self.limits)
        self.ids = itertools.count(1)
        self.fate: dict[int, str] = {}

    @rule(guild_id=guild_ids, member_id=member_ids, cost=costs_)
    def push(self, guild_id: int, member_id: int, cost: int) -> None:
        """Push; it is refused exactly where a bound is reached."""
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
        self.queue.push(ticket)
        self.model.push(ticket)
        self.fate[ticket.job_id] = "waiting"
        assert self.queue.position(ticket.job_id) == self.model.order().index(ticket.job_id) + 1

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
        """Compare positions only now and then, so that several changes have piled up."""
        order = self.model.order()
        assert list(self.queue.order()) == order
        assert [self.queue.position(job_id) for job_id in order] == list(range(1, len(order) + 1))

    @invariant()
    def nothing_is_lost(self) -> None:
        """Every job is waiting, running or gone."""
        states = Counter(self.fate.values())
        assert (self.queue.waiting, self.queue.running) == (states["waiting"], states["running"])

    @invariant()
    def limits_hold(self) -> None:
        """Neither a guild nor a member has more running than its limit."""
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
