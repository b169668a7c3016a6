"""Whose job is next: start-time fair queueing in two levels, guild then member.

Goyal, Vin and Cheng, "Start-time Fair Queueing" (SIGCOMM 1996). At each level every flow
(a guild; inside it, a member) has the finish tag F of its job that was taken last. Its next
job has the start tag S = max(V, F) and, once taken, the finish tag F = S + cost. The
smallest start tag goes next and becomes the level's virtual time V; ties go by arrival.

    FairQueue           running limits; which jobs may be taken
    ├── Admission           bounds on what waits, reservations
    ├── FairLevel           V and F of the guilds
    ├── GuildQueue          each guild's jobs, first in, first out by member
    │   └── FairLevel           V and F of its members
    └── QueueOrder          the order shown to members

What the rest of the bot relies on:

- A job is charged when it is taken, so one that is cancelled while it waits has cost nothing.
- Between two flows that always have a job to take, the work taken never differs by
  more than one largest job of each (the paper's fairness theorem, at weight 1).
- V only rises, and a flow is remembered only while F > V. So idle time earns no extra
  turns, and leaving and coming back doesn't reset a finish tag.
- A flow at its running limit is left out, and comes back with S = max(V, F) as an idle one does.

Costs are integers, so tags are integers and rounding errors can't add up.
"""

from __future__ import annotations

from contextlib import AbstractContextManager

from bot.jobs.admission import Admission, QueueLimits
from bot.jobs.fair_levels import FairLevel, GuildQueue, Ticket, WaitingJob
from bot.jobs.queue_order import QueueOrder

__all__ = ["FairQueue", "QueueLimits", "Ticket"]


class _Member:
    """One member in all guilds."""

    __slots__ = ("guilds", "running")

    def __init__(self) -> None:
        self.guilds: set[GuildQueue] = set()  # where jobs of theirs wait
        self.running = 0


class FairQueue:
    """Jobs that wait and jobs that run; `pop` returns the one to start next.

    Holds data only: no clock, no I/O, not thread-safe. `push`, `pop`, `done` and
    `remove` take O(log n) steps, n being the guilds and the guild's members that wait.
    """

    def __init__(self, limits: QueueLimits) -> None:
        self._limits = limits
        self.admission = Admission(limits)
        self._level = FairLevel()
        self._order = QueueOrder(self._level)
        self._guilds: dict[int, GuildQueue] = {}
        self._members: dict[int, _Member] = {}
        self._waiting: dict[int, WaitingJob] = {}
        self._running: dict[int, Ticket] = {}
        self._held_back: set[GuildQueue] = set()  # jobs wait there, and running limits let none start
        self._arrivals = 0

    @property
    def waiting(self) -> int:
        """How many jobs wait."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """How many jobs were popped and are not done."""
        return len(self._running)

    def running_jobs(self) -> tuple[int, ...]:
        """Return the ids of the jobs that were popped and are not done."""
        return tuple(self._running)

    def reserve(self, *, guild_id: int, member_id: int) -> AbstractContextManager[None]:
        """Reserve room for one more job of the member until the block ends.

        A job is written to disk between being admitted and being pushed. The member's pushes
        inside the block are not refused, and requests that arrive meanwhile find less room.

        Raises:
            QueueFull: One of the bounds is reached: the member's, the guild's or the bot's.
        """
        return self.admission.reserve(guild_id, member_id)

    def push(self, ticket: Ticket, *, front: bool = False, recovered: bool = False) -> None:
        """Let a job wait, behind the member's others.

        Args:
            ticket: The job.
            front: It is tried again after `done`: it goes ahead of the member's others, and what
                its first try was charged is refunded, since the member got nothing for it.
            recovered: It waited before a restart; nothing was charged for it yet.

        Raises:
            QueueFull: As `reserve`, unless room is reserved; never for `front` or `recovered`,
                which were admitted before.
            ValueError: The job is already waiting or running.
        """
        if ticket.job_id in self._waiting or ticket.job_id in self._running:
            raise ValueError(f"job {ticket.job_id} is already in the queue")
        if not (front or recovered or self.admission.is_reserved(ticket.guild_id, ticket.member_id)):
            self.admission.check(ticket.guild_id, ticket.member_id)
        self._arrivals += 1
        # A negative arrival wins ties: the job had its turn once before.
        job = WaitingJob(ticket, arrival=-self._arrivals if front else self._arrivals)
        guild = self._add(job, front=front)
        if front and not recovered:
            self._level.refund(ticket.guild_id, job.cost)
            guild.level.refund(ticket.member_id, job.cost)
        self._update_offers(guild, ticket.member_id)

    def pop(self) -> Ticket | None:
        """Take the next job whose guild and member may run one more; it then counts as running.

        Returns None if there is no such job.
        """
        job = self._level.first()
        if job is None:
            return None
        ticket = job.ticket
        guild = self._remove(job)
        self._level.charge(ticket.guild_id, job.cost)
        guild.level.charge(ticket.member_id, job.cost)
        self._running[ticket.job_id] = ticket
        guild.running += 1
        self._members[ticket.member_id].running += 1
        self._order.mark_changed(self._held_back)  # the start tag max(V, F) may rise with V
        self._update_offers(guild, ticket.member_id)
        return ticket

    def done(self, job_id: int) -> None:
        """Forget a running job, however it ended.

        Raises:
            KeyError: No such job is running.
        """
        ticket = self._running.pop(job_id)
        guild = self._guilds[ticket.guild_id]
        guild.running -= 1
        self._members[ticket.member_id].running -= 1
        self._update_offers(guild, ticket.member_id)

    def remove(self, job_id: int) -> bool:
        """Take a waiting job out of the queue; return False if it does not wait.

        Nothing is refunded, since only jobs that are taken are charged.
        """
        job = self._waiting.get(job_id)
        if job is None:
            return False
        self._update_offers(self._remove(job), job.ticket.member_id)
        return True

    def position(self, job_id: int) -> int | None:
        """Return a waiting job's position in `order`, from 1; None if it does not wait."""
        return self._order.position(job_id) if job_id in self._waiting else None

    def order(self) -> tuple[int, ...]:
        """Return the ids of all waiting jobs in the order of service.

        `pop` follows this order if nothing else arrives and no running limit is reached.
        """
        return self._order.job_ids()

    def _add(self, job: WaitingJob, *, front: bool) -> GuildQueue:
        guild_id, member_id = job.ticket.guild_id, job.ticket.member_id
        guild = self._guilds.get(guild_id) or self._guilds.setdefault(guild_id, GuildQueue(guild_id))
        guild.add(job, front=front)
        member = self._members.get(member_id) or self._members.setdefault(member_id, _Member())
        member.guilds.add(guild)
        self._waiting[job.ticket.job_id] = job
        self.admission.add(guild_id, member_id)
        return guild

    def _remove(self, job: WaitingJob) -> GuildQueue:
        guild_id, member_id = job.ticket.guild_id, job.ticket.member_id
        guild = self._guilds[guild_id]
        guild.remove(job)
        if member_id not in guild.jobs_of:
            self._members[member_id].guilds.discard(guild)
        del self._waiting[job.ticket.job_id]
        self.admission.remove(guild_id, member_id)
        return guild

    def _update_offers(self, guild: GuildQueue, member_id: int) -> None:
        """Offer what may be taken now, after a change to the member's jobs in `guild`."""
        member = self._members[member_id]
        changed = {guild, *member.guilds}  # a member's running limit counts in every guild
        for each in changed:
            self._offer_member(each, member_id, member)
            self._offer_guild(each)
        self._order.mark_changed(changed)
        if not (guild.jobs_of or guild.running):
            self._order.forget(guild)
            del self._guilds[guild.id]
        if not (member.guilds or member.running):
            del self._members[member_id]
        if not (self._waiting or self._running):
            self._level.reset()

    def _offer_member(self, guild: GuildQueue, member_id: int, member: _Member) -> None:
        jobs = guild.jobs_of.get(member_id)
        if jobs and member.running < self._running_max(jobs[0].ticket):
            guild.level.offer(member_id, jobs[0])
        else:
            guild.level.withdraw(member_id)

    def _running_max(self, ticket: Ticket) -> int:
        most = self._limits.member_running_max
        return most if ticket.running_max is None else min(most, ticket.running_max)

    def _offer_guild(self, guild: GuildQueue) -> None:
        first = guild.level.first() if guild.running < self._limits.guild_running_max else None
        if first:
            self._level.offer(guild.id, first)
        else:
            self._level.withdraw(guild.id)
        if guild.jobs_of and not first:
            self._held_back.add(guild)
        else:
            self._held_back.discard(guild)
