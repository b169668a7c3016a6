"""Whose job is next: start-time fair queueing in two levels, guild then member.

Goyal, Vin and Cheng, "Start-time Fair Queueing" (SIGCOMM 1996). At each level every flow
(a guild; inside it, a member) has the finish tag F of its job that was taken last. Its next
job has the start tag S = max(V, F) and, once taken, the finish tag F = S + cost. The
smallest start tag goes next and becomes the level's virtual time V; ties go by arrival.

    FairQueue      bounds, running caps, places
    └── _Level         V and F of the guilds
        └── _Guild         one first-in-first-out lane per member
            └── _Level         V and F of its members

What follows from it, and is relied upon:

- Work is charged when it is taken, so a job cancelled while it waits has cost nothing.
- Between two flows that always have something to take, the work taken never differs by
  more than one largest job of each (the paper's fairness theorem, at weight 1).
- V only rises, and F <= V means "owes nothing": a flow is remembered just while F > V. So
  nobody saves up turns while idle, and nobody sheds a debt by leaving and coming back.
- A flow at its running cap stands aside and rejoins at max(V, F), as an idle one does.

Costs are whole, so tags are whole and never drift.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from heapq import heapify, heappop, heappush
from operator import itemgetter

from bot.errors import QueueFull

_Seat = tuple[int | None, int | None]  # guild and member, None for any
_Spot = tuple[int, int, int]  # start tag between guilds, arrival, job id: sorts into the order of service


@dataclass(frozen=True, slots=True)
class Ticket:
    """One job in the queue. `cost` is its price in whole credits, at least 0; 0 counts as 1.

    `running_max` is a cap of its guild's on what the member may have running, below the queue's own.
    """

    job_id: int
    guild_id: int
    member_id: int
    cost: int
    running_max: int | None = None

    def __post_init__(self) -> None:
        if self.cost < 0:
            raise ValueError(f"job {self.job_id}: a cost of {self.cost} is below 0")


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """How many jobs may wait and run at once, each at least 1.

    A member is the same person in every guild: both of a member's bounds count all guilds.
    """

    guild_running_max: int = 4
    member_running_max: int = 2
    waiting_max: int = 2000
    guild_waiting_max: int = 200
    member_waiting_max: int = 5

    def __post_init__(self) -> None:
        for field in fields(self):
            if getattr(self, field.name) < 1:
                raise ValueError(f"{field.name} must be at least 1")


class _Job:
    """A waiting ticket: when it arrived and, once drawn, its spot in the line."""

    __slots__ = ("arrival", "cost", "spot", "ticket")

    def __init__(self, ticket: Ticket, *, arrival: int) -> None:
        self.ticket = ticket
        self.arrival = arrival
        self.cost = max(1, ticket.cost)
        self.spot: _Spot = (0, arrival, ticket.job_id)


class _Level:
    """One level's flows, by id: which are on offer with which job, and what each owes."""

    __slots__ = ("_debts", "_finish", "_heap", "_now", "_offers")

    def __init__(self) -> None:
        self._now = 0  # the paper's V
        self._finish: dict[int, int] = {}  # F, only where F > V
        self._debts: list[tuple[int, int]] = []  # heap of (F, flow)
        self._offers: dict[int, tuple[int, int, int, _Job]] = {}
        self._heap: list[tuple[int, int, int, _Job]] = []  # (S, arrival, flow, job), some outdated

    def start(self, flow: int) -> int:
        """Return the start tag of the flow's next job, S = max(V, F)."""
        return self._finish.get(flow, self._now)

    def offer(self, flow: int, job: _Job) -> None:
        """Let the flow take part with `job`, in place of what it offered before."""
        offer = (self.start(flow), job.arrival, flow, job)
        if self._offers.get(flow) != offer:
            self._offers[flow] = offer
            heappush(self._heap, offer)
            self._tidy()

    def withdraw(self, flow: int) -> None:
        """Leave the flow out until it offers again."""
        self._offers.pop(flow, None)

    def first(self) -> _Job | None:
        """Return the job on offer with the smallest start tag."""
        heap = self._heap
        while heap and self._offers.get(heap[0][2]) is not heap[0]:
            heappop(heap)
        return heap[0][3] if heap else None

    def charge(self, flow: int, cost: int) -> None:
        """Serve the flow that is first: V becomes its start tag, its finish tag lies `cost` later."""
        self._now = self.start(flow)
        self._owe(flow, self._now + cost)
        while self._debts[0][0] <= self._now:
            finish, paid_up = heappop(self._debts)
            if self._finish.get(paid_up) == finish:
                del self._finish[paid_up]

    def refund(self, flow: int, cost: int) -> None:
        """Take `cost` off what the flow owes, at most to nothing."""
        finish = self._finish.pop(flow, self._now) - cost
        if finish > self._now:
            self._owe(flow, finish)

    def _owe(self, flow: int, finish: int) -> None:
        self._finish[flow] = finish
        heappush(self._debts, (finish, flow))

    def _tidy(self) -> None:
        # Offers that come and go with nothing taken would pile up below the heap's top.
        if len(self._heap) > 2 * len(self._offers) + 16:
            self._heap = list(self._offers.values())
            heapify(self._heap)


class _Guild:
    """One guild's lanes, a lane being one member's waiting jobs, never empty."""

    __slots__ = ("id", "lanes", "level", "running", "spots", "waiting")

    def __init__(self, guild_id: int) -> None:
        self.id = guild_id
        self.lanes: dict[int, deque[_Job]] = {}
        self.level = _Level()
        self.waiting = 0
        self.running = 0
        self.spots: set[_Spot] = set()  # of its jobs, as the line shows them

    def starts(self) -> Iterator[tuple[int, int, _Job]]:
        """Yield start tag inside the guild, arrival and job for all that wait, unsorted."""
        for member_id, lane in self.lanes.items():
            start = self.level.start(member_id)
            for job in lane:
                yield start, job.arrival, job
                start += job.cost

    def costs_ahead_of_next(self, member_id: int) -> list[int]:
        """Return the costs of the guild's jobs that would go before a new one of the member."""
        last = self.level.start(member_id) + sum(job.cost for job in self.lanes.get(member_id, ()))
        return [job.cost for start, _, job in self.starts() if start <= last]


class _Person:
    """What one member has in the queue, over all guilds."""

    __slots__ = ("guilds", "running", "waiting")

    def __init__(self) -> None:
        self.guilds: set[_Guild] = set()  # those where something waits
        self.waiting = 0
        self.running = 0


class FairQueue:
    """Jobs that wait and jobs that run; `pop` tells which one to start next.

    Data only: no clock, no I/O, not for several threads. `push`, `pop`, `done` and
    `remove` take O(log n) steps, n being the guilds and the guild's members that wait.
    """

    def __init__(self, limits: QueueLimits) -> None:
        self._limits = limits
        self._level = _Level()
        self._guilds: dict[int, _Guild] = {}
        self._people: dict[int, _Person] = {}
        self._waiting: dict[int, _Job] = {}
        self._running: dict[int, Ticket] = {}
        self._seats: Counter[_Seat] = Counter()  # reserved, not taken yet
        self._arrivals = 0
        self._line: list[_Spot] = []  # sorted; true but for the guilds in `_stale`
        self._stale: set[_Guild] = set()
        self._parked: set[_Guild] = set()  # something waits, nothing may start

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def waiting(self) -> int:
        """How many jobs wait."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """How many jobs were popped and are not done."""
        return len(self._running)

    def waiting_of_guild(self, guild_id: int) -> int:
        """Return how many of the guild's jobs wait."""
        guild = self._guilds.get(guild_id)
        return guild.waiting if guild else 0

    def waiting_of_member(self, member_id: int) -> int:
        """Return how many of the member's jobs wait, in all guilds."""
        person = self._people.get(member_id)
        return person.waiting if person else 0

    def admit(self, *, guild_id: int, member_id: int) -> None:
        """Check that one more job of the member may wait; nothing is kept for it.

        Jobs that wait and places that are reserved count.

        Raises:
            QueueFull: One of the bounds is reached: the member's, the guild's or the bot's.
        """
        limits = self._limits
        seats = self._seats
        if self.waiting_of_member(member_id) + seats[None, member_id] >= limits.member_waiting_max:
            raise QueueFull(
                f"You already have {_pictures(limits.member_waiting_max)} waiting; "
                "please wait until one is done, or cancel one."
            )
        if self.waiting_of_guild(guild_id) + seats[guild_id, None] >= limits.guild_waiting_max:
            raise QueueFull(
                f"This server already has {_pictures(limits.guild_waiting_max)} waiting; "
                "please try again in a few minutes."
            )
        if len(self._waiting) + seats[None, None] >= limits.waiting_max:
            raise QueueFull(
                f"The bot already has {_pictures(limits.waiting_max)} waiting; "
                "please try again in a few minutes."
            )

    @contextmanager
    def reserve(self, *, guild_id: int, member_id: int) -> Iterator[None]:
        """Admit one job of the member and keep its place until the block ends.

        For what must be written down between the two: the member's pushes inside the
        block are not refused, and requests that come meanwhile find the place taken.

        Raises:
            QueueFull: As `admit`.
        """
        self.admit(guild_id=guild_id, member_id=member_id)
        seats: list[_Seat] = [(None, None), (guild_id, None), (None, member_id), (guild_id, member_id)]
        self._seats.update(seats)
        try:
            yield
        finally:
            for seat in seats:
                self._seats[seat] -= 1
                if not self._seats[seat]:
                    del self._seats[seat]

    def push(self, ticket: Ticket, *, front: bool = False, recovered: bool = False) -> None:
        """Let a job wait, behind the member's others; refused where `admit` would, unless reserved.

        `front` is for a job that is tried again after `done`: it goes ahead of the
        member's others, and what its first try was charged is given back, since that
        gave the member nothing. `recovered` is for one taken up after a restart; nothing
        was charged for it yet. Neither is refused: both were admitted before.

        Raises:
            QueueFull: As `admit`.
            ValueError: The job is already waiting or running.
        """
        if ticket.job_id in self._waiting or ticket.job_id in self._running:
            raise ValueError(f"job {ticket.job_id} is already in the queue")
        is_admitted = front or recovered or self._seats[ticket.guild_id, ticket.member_id] > 0
        if not is_admitted:
            self.admit(guild_id=ticket.guild_id, member_id=ticket.member_id)
        self._arrivals += 1
        # A negative arrival wins ties: the job had its turn once before.
        job = _Job(ticket, arrival=-self._arrivals if front else self._arrivals)
        guild = self._enter(job, front=front)
        if front and not recovered:
            self._level.refund(ticket.guild_id, job.cost)
            guild.level.refund(ticket.member_id, job.cost)
        self._settle(guild, ticket.member_id)

    def pop(self) -> Ticket | None:
        """Take the next job whose guild and member may run one more; it then counts as running.

        Returns None if there is no such job.
        """
        job = self._level.first()
        if job is None:
            return None
        ticket = job.ticket
        guild = self._leave(job)
        self._level.charge(ticket.guild_id, job.cost)
        guild.level.charge(ticket.member_id, job.cost)
        self._running[ticket.job_id] = ticket
        guild.running += 1
        self._people[ticket.member_id].running += 1
        self._stale |= self._parked  # they rejoin no earlier than V, which has risen
        self._settle(guild, ticket.member_id)
        return ticket

    def done(self, job_id: int) -> None:
        """Forget a running job, however it ended.

        Raises:
            KeyError: No such job is running.
        """
        ticket = self._running.pop(job_id)
        guild = self._guilds[ticket.guild_id]
        guild.running -= 1
        self._people[ticket.member_id].running -= 1
        self._settle(guild, ticket.member_id)

    def remove(self, job_id: int) -> bool:
        """Take a waiting job out of the queue; return False if none such waits.

        It was charged nothing yet, so there is nothing to give back.
        """
        job = self._waiting.get(job_id)
        if job is None:
            return False
        self._settle(self._leave(job), job.ticket.member_id)
        return True

    def place(self, job_id: int) -> int | None:
        """Return a waiting job's place in `order`, from 1; None if it does not wait."""
        job = self._waiting.get(job_id)
        if job is None:
            return None
        self._redraw()
        return bisect_left(self._line, job.spot) + 1

    def order(self) -> tuple[int, ...]:
        """Return the ids of all waiting jobs in the order of service.

        It is the order that `pop` follows if nothing else arrives and no running cap binds.
        """
        self._redraw()
        return tuple(job_id for _, _, job_id in self._line)

    def next_place(self, *, guild_id: int, member_id: int) -> int:
        """Return the place that a new job of the member would get; its own cost does not matter."""
        self._redraw()
        guild = self._guilds.get(guild_id) or _Guild(guild_id)
        ahead = guild.costs_ahead_of_next(member_id)
        start = self._level.start(guild_id) + sum(ahead)
        others = bisect_right(self._line, start, key=itemgetter(0))
        others -= sum(spot[0] <= start for spot in guild.spots)
        return others + len(ahead) + 1

    def _enter(self, job: _Job, *, front: bool) -> _Guild:
        guild_id, member_id = job.ticket.guild_id, job.ticket.member_id
        guild = self._guilds.get(guild_id) or self._guilds.setdefault(guild_id, _Guild(guild_id))
        person = self._people.get(member_id) or self._people.setdefault(member_id, _Person())
        lane = guild.lanes.get(member_id) or guild.lanes.setdefault(member_id, deque())
        lane.insert(0 if front else len(lane), job)
        self._waiting[job.ticket.job_id] = job
        person.guilds.add(guild)
        person.waiting += 1
        guild.waiting += 1
        return guild

    def _leave(self, job: _Job) -> _Guild:
        del self._waiting[job.ticket.job_id]
        guild, person = self._guilds[job.ticket.guild_id], self._people[job.ticket.member_id]
        lane = guild.lanes[job.ticket.member_id]
        lane.remove(job)
        if not lane:
            del guild.lanes[job.ticket.member_id]
            person.guilds.discard(guild)
        person.waiting -= 1
        guild.waiting -= 1
        return guild

    def _settle(self, guild: _Guild, member_id: int) -> None:
        """Put right what is on offer after a change to the member's jobs in `guild`."""
        person = self._people[member_id]
        for touched in {guild, *person.guilds}:  # the member's cap counts in every guild
            self._offer_member(touched, member_id, person)
            self._offer_guild(touched)
        if not (guild.waiting or guild.running):
            self._forget(guild)
        if not (person.waiting or person.running):
            del self._people[member_id]
        if not (self._waiting or self._running):
            # The busy period is over: the paper sets V to the largest F, so that nobody owes
            # anything, and neither does anyone on a fresh level.
            self._level = _Level()

    def _offer_member(self, guild: _Guild, member_id: int, person: _Person) -> None:
        lane = guild.lanes.get(member_id)
        if lane and person.running < self._cap(lane[0].ticket):
            guild.level.offer(member_id, lane[0])
        else:
            guild.level.withdraw(member_id)

    def _cap(self, ticket: Ticket) -> int:
        most = self._limits.member_running_max
        return most if ticket.running_max is None else min(most, ticket.running_max)

    def _offer_guild(self, guild: _Guild) -> None:
        head = guild.level.first() if guild.running < self._limits.guild_running_max else None
        if head:
            self._level.offer(guild.id, head)
        else:
            self._level.withdraw(guild.id)
        if guild.waiting and not head:
            self._parked.add(guild)
        else:
            self._parked.discard(guild)
        self._stale.add(guild)

    def _forget(self, guild: _Guild) -> None:
        self._redraw_guild(guild)
        self._stale.discard(guild)
        del self._guilds[guild.id]

    def _redraw(self) -> None:
        for guild in self._stale:
            self._redraw_guild(guild)
        self._stale.clear()

    def _redraw_guild(self, guild: _Guild) -> None:
        """Bring the guild's spots in the line up to date, touching only those that moved."""
        spots = self._spots(guild)
        for spot in guild.spots - spots:
            del self._line[bisect_left(self._line, spot)]
        for spot in spots - guild.spots:
            insort(self._line, spot)
        guild.spots = spots

    def _spots(self, guild: _Guild) -> set[_Spot]:
        """Return where the guild's jobs stand.

        Tags rise along a lane and, at the guilds' level, along a guild, so sorting by
        them gives what popping one by one would.
        """
        start = self._level.start(guild.id)
        for _, _, job in sorted(guild.starts()):
            job.spot = (start, job.arrival, job.ticket.job_id)
            start += job.cost
        return {job.spot for lane in guild.lanes.values() for job in lane}


def _pictures(count: int) -> str:
    return "1 picture" if count == 1 else f"{count:,} pictures"
