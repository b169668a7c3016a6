"""Start-time fair queueing at one level, and one guild's waiting jobs. See `bot.jobs.fair_queue`."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from heapq import heapify, heappop, heappush


@dataclass(frozen=True, slots=True)
class Ticket:
    """One job in the queue. `cost` is its price in whole credits, at least 0; 0 counts as 1.

    `running_max` is the guild's own limit on the member's running jobs, where it is below the queue's.
    """

    job_id: int
    guild_id: int
    member_id: int
    cost: int
    running_max: int | None = None

    def __post_init__(self) -> None:
        if self.cost < 0:
            raise ValueError(f"job {self.job_id}: a cost of {self.cost} is below 0")


class WaitingJob:
    """A ticket that waits. Arrivals are unique and break ties; the lower goes first."""

    __slots__ = ("arrival", "cost", "ticket")

    def __init__(self, ticket: Ticket, *, arrival: int) -> None:
        self.ticket = ticket
        self.arrival = arrival
        self.cost = max(1, ticket.cost)


class FairLevel:
    """The flows of one level by id: the job that each offers next, and its finish tag."""

    __slots__ = ("_by_finish", "_finish", "_heap", "_now", "_offers")

    def __init__(self) -> None:
        self._now = 0  # the paper's V
        self._finish: dict[int, int] = {}  # F, only where F > V
        self._by_finish: list[tuple[int, int]] = []  # heap of (F, flow), some outdated
        self._offers: dict[int, tuple[int, int, int, WaitingJob]] = {}
        self._heap: list[tuple[int, int, int, WaitingJob]] = []  # (S, arrival, flow, job), some outdated

    def start(self, flow: int) -> int:
        """Return the start tag of the flow's next job, S = max(V, F)."""
        return self._finish.get(flow, self._now)

    def offer(self, flow: int, job: WaitingJob) -> None:
        """Let the flow compete with `job`, which replaces the one it offered before."""
        offer = (self.start(flow), job.arrival, flow, job)
        if self._offers.get(flow) != offer:
            self._offers[flow] = offer
            heappush(self._heap, offer)
            self._drop_outdated()

    def withdraw(self, flow: int) -> None:
        """Leave the flow out until it offers again."""
        self._offers.pop(flow, None)

    def first(self) -> WaitingJob | None:
        """Return the offered job with the smallest start tag."""
        heap = self._heap
        while heap and self._offers.get(heap[0][2]) is not heap[0]:
            heappop(heap)
        return heap[0][3] if heap else None

    def charge(self, flow: int, cost: int) -> None:
        """Charge the flow whose job was taken: V becomes its start tag, F the start tag plus `cost`."""
        self._now = self.start(flow)
        self._set_finish(flow, self._now + cost)
        while self._by_finish[0][0] <= self._now:
            finish, past = heappop(self._by_finish)
            if self._finish.get(past) == finish:
                del self._finish[past]

    def refund(self, flow: int, cost: int) -> None:
        """Take `cost` off the flow's finish tag, at most down to V."""
        finish = self._finish.pop(flow, self._now) - cost
        if finish > self._now:
            self._set_finish(flow, finish)

    def reset(self) -> None:
        """Start anew, for when no job waits or runs.

        The paper then sets V to the largest F, so that no flow is behind another; so does zero for all.
        """
        self._now = 0
        self._finish.clear()
        self._by_finish.clear()
        self._offers.clear()
        self._heap.clear()

    def _set_finish(self, flow: int, finish: int) -> None:
        self._finish[flow] = finish
        heappush(self._by_finish, (finish, flow))

    def _drop_outdated(self) -> None:
        # Outdated offers below the heap's top would pile up while nothing is taken. At half
        # the heap, cleaning costs constant time per offer; 16 spares small heaps.
        if len(self._heap) > 2 * len(self._offers) + 16:
            self._heap = list(self._offers.values())
            heapify(self._heap)


class GuildQueue:
    """One guild's waiting jobs by member, first in, first out; a member without any is left out."""

    __slots__ = ("id", "jobs_of", "level", "running")

    def __init__(self, guild_id: int) -> None:
        self.id = guild_id
        self.level = FairLevel()
        self.jobs_of: dict[int, deque[WaitingJob]] = {}
        self.running = 0

    def add(self, job: WaitingJob, *, front: bool) -> None:
        """Put the job behind the member's others, or in front of them."""
        member_id = job.ticket.member_id
        jobs = self.jobs_of.get(member_id) or self.jobs_of.setdefault(member_id, deque())
        jobs.insert(0 if front else len(jobs), job)

    def remove(self, job: WaitingJob) -> None:
        """Take the job out."""
        jobs = self.jobs_of[job.ticket.member_id]
        jobs.remove(job)
        if not jobs:
            del self.jobs_of[job.ticket.member_id]

    def start_tags(self) -> Iterator[tuple[int, int, WaitingJob]]:
        """Yield start tag inside the guild, arrival and job for all that wait, unsorted."""
        for member_id, jobs in self.jobs_of.items():
            start = self.level.start(member_id)
            for job in jobs:
                yield start, job.arrival, job
                start += job.cost
