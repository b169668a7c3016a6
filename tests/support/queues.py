"""Tickets and queues for the tests of the fair queue."""

from __future__ import annotations

from collections.abc import Iterable

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
