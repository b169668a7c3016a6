"""What the fair queue costs at the size of a large bot. Prints figures, asserts no time."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import pytest

from bot.jobs.fair_queue import FairQueue, QueueLimits, Ticket

pytestmark = pytest.mark.benchmark

GUILDS = 10_000
ROUNDS = 20_000
WIDE = QueueLimits(waiting_max=10**6, guild_waiting_max=10**6, member_waiting_max=10**6)


def _ticket(job_id: int, draw: random.Random) -> Ticket:
    guild_id = draw.randrange(GUILDS)
    return Ticket(job_id, guild_id, 10 * guild_id + draw.randrange(10), draw.randint(5, 80))


def _per_call_us(call: Callable[[int], object], count: int) -> float:
    started_s = time.perf_counter()
    for k in range(count):
        call(k)
    return (time.perf_counter() - started_s) / count * 1e6


def _waiting(count: int, *, guilds: int) -> FairQueue:
    """Return a queue where `count` jobs wait, spread over `guilds`."""
    draw = random.Random(2)
    queue = FairQueue(WIDE)
    for job_id in range(count):
        guild_id = draw.randrange(guilds)
        queue.push(Ticket(job_id, guild_id, 10 * guild_id + draw.randrange(10), draw.randint(5, 80)))
    return queue


def test_push_pop_done_at_ten_thousand_guilds(capsys: pytest.CaptureFixture[str]) -> None:
    """A job goes in, another is taken and ended, while one job of each of 10,000 guilds waits."""
    draw = random.Random(1)
    queue = FairQueue(WIDE)
    for guild_id in range(GUILDS):
        queue.push(Ticket(guild_id, guild_id, 10 * guild_id, draw.randint(5, 80)))
    tickets = [_ticket(GUILDS + k, draw) for k in range(ROUNDS)]

    def turn(k: int) -> None:
        queue.push(tickets[k])
        ticket = queue.pop()
        assert ticket is not None
        queue.done(ticket.job_id)

    per_turn_us = _per_call_us(turn, ROUNDS)
    with capsys.disabled():
        print(f"\npush + pop + done, {GUILDS:,} guilds waiting: {per_turn_us:.1f} µs")
    assert (queue.waiting, queue.running) == (GUILDS, 0)


@pytest.mark.parametrize("guilds", [10, 1000])
def test_positions_with_two_thousand_waiting(guilds: int, capsys: pytest.CaptureFixture[str]) -> None:
    """With 2,000 jobs waiting: the position of a newcomer, and everyone's after one was taken."""
    queue = _waiting(2000, guilds=guilds)
    first_us = _per_call_us(lambda _: queue.order(), 1)
    again_us = _per_call_us(queue.position, 2000)

    def ask(k: int) -> None:
        queue.push(Ticket(10_000 + k, k % guilds, k % guilds * 10, 20))
        queue.position(10_000 + k)
        queue.remove(10_000 + k)

    def take(_: int) -> None:
        ticket = queue.pop()
        assert ticket is not None
        queue.done(ticket.job_id)
        queue.order()

    ask_us, take_us = _per_call_us(ask, 500), _per_call_us(take, 500)
    with capsys.disabled():
        print(f"\n2,000 waiting in {guilds:,} guilds: first order() {first_us:.0f} µs", end="")
        print(f", position() {again_us:.2f} µs", end="")
        print(f", push + position + remove {ask_us:.1f} µs, pop + done + order() {take_us:.1f} µs")
    assert queue.waiting == 1500
