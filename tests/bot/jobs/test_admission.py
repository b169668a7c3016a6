"""The bounds on waiting jobs: who is refused, in which words, and what a reservation keeps."""

from __future__ import annotations

import pickle

import pytest

from bot.errors import QueueFull
from bot.jobs.fair_queue import FairQueue, QueueLimits, Ticket
from tests.support.queues import flood, queue_of

SMALL = QueueLimits(waiting_max=3, guild_waiting_max=2, member_waiting_max=1)


def test_a_member_reaches_their_own_bound_first() -> None:
    """A member with enough waiting is refused in words that say what to do."""
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
        queue.admission.check(guild_id=2, member_id=1)


def test_a_full_guild_says_so() -> None:
    """A member of a guild with enough waiting is shown the server's bound."""
    queue = queue_of([Ticket(1, 1, 1, 20), Ticket(2, 1, 2, 20)], SMALL)
    with pytest.raises(QueueFull) as refused:
        queue.admission.check(guild_id=1, member_id=3)
    assert str(refused.value) == (
        "This server already has 2 pictures waiting; please try again in a few minutes."
    )


def test_a_full_bot_says_so() -> None:
    """When the bot as a whole has enough waiting, a newcomer is shown the bot's bound."""
    queue = queue_of(
        (Ticket(k, k, k, 20) for k in range(2000)), QueueLimits(waiting_max=2000, guild_running_max=1)
    )
    with pytest.raises(QueueFull) as refused:
        queue.admission.check(guild_id=5000, member_id=5000)
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


def test_reservations_count_against_every_bound() -> None:
    """Of several requests at the same moment, no more are admitted than the bounds allow."""
    queue = FairQueue(SMALL)
    with queue.reserve(guild_id=1, member_id=1):
        with pytest.raises(QueueFull, match="You already have 1 picture waiting"):
            queue.admission.check(guild_id=2, member_id=1)
        with queue.reserve(guild_id=1, member_id=2):
            with pytest.raises(QueueFull, match="This server already has 2 pictures waiting"):
                queue.push(Ticket(3, 1, 3, 20))
            with (
                queue.reserve(guild_id=2, member_id=3),
                pytest.raises(QueueFull, match="The bot already has 3 pictures waiting"),
            ):
                queue.admission.check(guild_id=3, member_id=4)


def test_a_reservation_is_not_lost_to_others() -> None:
    """A job with a reservation is admitted even if a retried job has filled the queue meanwhile."""
    queue = FairQueue(SMALL)
    with queue.reserve(guild_id=1, member_id=1):
        queue.push(Ticket(1, 1, 1, 20), front=True)
        queue.push(Ticket(2, 1, 1, 20))
    assert queue.order() == (1, 2)


def test_a_reservation_ends_with_its_block() -> None:
    """A request that fails after it was admitted leaves room for the next."""
    queue = FairQueue(SMALL)
    before = pickle.dumps(queue)
    with pytest.raises(OSError, match="disk full"), queue.reserve(guild_id=1, member_id=1):
        raise OSError("disk full")
    assert pickle.dumps(queue) == before
    queue.admission.check(guild_id=1, member_id=1)


def test_jobs_resumed_after_a_restart_are_never_refused() -> None:
    """Whatever waited before a restart waits again, even where the bounds were lowered."""
    queue = FairQueue(SMALL)
    for ticket in flood(10, guild_id=1, member_id=1):
        queue.push(ticket, recovered=True)
    assert queue.waiting == len(queue.order()) == 10


@pytest.mark.parametrize("name", QueueLimits.__slots__)
def test_a_limit_below_one_is_refused(name: str) -> None:
    """A limit that would never admit anybody is reported at start, not to members."""
    with pytest.raises(ValueError, match=f"{name} must be at least 1"):
        QueueLimits(**{name: 0})
