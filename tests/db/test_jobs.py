"""Jobs in SQL: their states, and who finds which of them."""

import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from db import jobs, ledger
from db.jobs import Job, Result
from db.operations import Operation
from tests.support.ledgers import a_job, funded, hold, open_ledger

#: For each state, the steps that lead a free job there.
STEPS = {
    "queued": (),
    "sending": ("sending",),
    "rendered": ("sending", "rendered"),
    "delivered": ("sending", "rendered", "delivered"),
    "undeliverable": ("sending", "rendered", "undeliverable"),
    "failed": ("failed",),
    "cancelled": ("cancelled",),
}


@pytest.fixture
def tx(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """Yield a new ledger, which must be consistent whatever the test did."""
    with open_ledger(tmp_path) as connection:
        yield connection
        assert ledger.reconcile(connection) == []


def a_job_in(tx: sqlite3.Connection, state: str, job_id: int = 1, **changes: object) -> Job:
    """Store a free job of member 7 in server 1 and bring it to `state`; its times are its id."""
    job = replace(_free_job(job_id), **changes)  # type: ignore[arg-type]  # the test's own fields
    jobs.insert(tx, job)
    for step in STEPS[state]:
        assert _step(tx, job_id, step)
    return job


def _free_job(job_id: int) -> Job:
    return Job(
        id=job_id,
        guild_id=1,
        user_id=7,
        channel_id=3,
        operation=Operation.IMG2IMG,
        params_json="{}",
        created_at=job_id,
        input_hash=f"input {job_id}",
    )


def _step(tx: sqlite3.Connection, job_id: int, state: str) -> bool:
    """Try to bring the job to `state`; return whether it went there."""
    steps = {
        "sending": lambda: jobs.mark_sending(tx, job_id=job_id, backend="brush", now=job_id),
        "queued": lambda: jobs.mark_queued_again(tx, job_id=job_id),
        "rendered": lambda: _render(tx, job_id),
        "delivered": lambda: jobs.mark_delivered(tx, job_id=job_id, now=job_id),
        "undeliverable": lambda: jobs.mark_undeliverable(tx, job_id=job_id, now=job_id),
        "failed": lambda: jobs.mark_failed(tx, job_id=job_id, failure="no", now=job_id),
        "cancelled": lambda: jobs.mark_cancelled(tx, job_id=job_id, from_state="queued", now=job_id),
    }
    return steps[state]()


def _render(tx: sqlite3.Connection, job_id: int) -> bool:
    tx.execute("DELETE FROM result WHERE job_id = ?", (job_id,))
    picture = Result(job_id, 0, 5, f"result {job_id}", 64, 64)
    return jobs.mark_rendered(tx, job_id=job_id, pictures=(picture,), charged=0, now=job_id)


def test_a_job_is_read_as_it_was_stored(tx: sqlite3.Connection) -> None:
    """Every field of a job survives the database, flags and operation in their own types."""
    a_job_in(tx, "delivered", 1)
    job = Job(
        id=2**63 - 1,
        guild_id=1,
        user_id=7,
        channel_id=3,
        operation=Operation.VARY_STRONG,
        params_json='{"prompt": "x"}',
        created_at=1.5,
        message_id=5,
        token="secret",
        token_expires_at=900.25,
        private=True,
        parent_id=1,
        parent_sample=2,
        source_url="https://example.com/a.png",
        source_hash="source",
        input_hash="input",
        input_pixels=64,
        price=4,
        day=20_000,
        age_restricted=True,
        results_channel_id=9,
    )
    jobs.insert(tx, job)
    assert jobs.get(tx, job.id) == job
    assert jobs.get(tx, 12_345) is None


def test_pictures_come_in_the_order_of_the_samples(tx: sqlite3.Connection) -> None:
    """The second picture of a card is the second sample, in whatever order they were stored."""
    a_job_in(tx, "sending")
    pictures = tuple(Result(1, sample, 5 + sample, f"hash {sample}", 64, 48) for sample in (2, 0, 1))
    assert jobs.mark_rendered(tx, job_id=1, pictures=pictures, charged=0, now=2)
    assert [result.sample for result in jobs.results(tx, 1)] == [0, 1, 2]
    assert jobs.results(tx, 2) == ()


@pytest.mark.parametrize(
    ("step", "allowed_from"),
    [
        ("sending", {"queued"}),
        ("queued", {"sending"}),
        ("rendered", {"sending"}),
        ("delivered", {"rendered", "undeliverable"}),
        ("undeliverable", {"rendered"}),
        ("failed", {"queued", "sending"}),
        ("cancelled", {"queued"}),
    ],
)
def test_a_step_from_the_wrong_state_changes_nothing(
    tx: sqlite3.Connection, step: str, allowed_from: set[str]
) -> None:
    """Whoever acts on a job that has moved on meanwhile gets False, and the job stays where it was."""
    for job_id, state in enumerate(STEPS, 1):
        a_job_in(tx, state, job_id)
        before = jobs.get(tx, job_id)
        assert _step(tx, job_id, step) is (state in allowed_from), state
        assert (jobs.get(tx, job_id) == before) is (state not in allowed_from), state


def test_a_running_job_is_cancelled_only_as_a_running_one(tx: sqlite3.Connection) -> None:
    """A cancellation meant for a waiting job does not end one that has started since."""
    a_job_in(tx, "sending")
    assert not jobs.mark_cancelled(tx, job_id=1, from_state="queued", now=2)
    assert jobs.mark_cancelled(tx, job_id=1, from_state="sending", now=2)


def test_an_input_is_stored_only_while_the_job_waits(tx: sqlite3.Connection) -> None:
    """A picture that was prepared too late changes no job that has started or ended."""
    for job_id, state in enumerate(STEPS, 1):
        a_job_in(tx, state, job_id)
        assert jobs.set_input(tx, job_id=job_id, input_hash="late", pixels=64) is (state == "queued")


def test_a_restart_finds_what_has_not_ended_oldest_first(tx: sqlite3.Connection) -> None:
    """After a restart, jobs continue in the order in which they were requested."""
    for job_id, state in enumerate(STEPS, 1):
        a_job_in(tx, state, 10 - job_id)
    found = [(job.id, job.state) for job in jobs.list_unfinished(tx)]
    assert found == [(7, "rendered"), (8, "sending"), (9, "queued")]


def test_recent_ends_count_from_the_newest_end(tx: sqlite3.Connection) -> None:
    """However long the bot was off, the ends of its last minute are found, and no older ones."""
    assert jobs.recently_ended(tx, within_s=60) == []
    for job_id, state in ((10, "failed"), (100, "cancelled"), (160, "failed"), (155, "delivered")):
        a_job_in(tx, state, job_id)
    assert [job.id for job in jobs.recently_ended(tx, within_s=60)] == [100, 160]


def test_a_members_history_is_their_own_with_pictures_newest_first(tx: sqlite3.Connection) -> None:
    """A member sees neither others' pictures, nor another server's, nor deleted ones, nor failures."""
    for job_id, state in enumerate(STEPS, 1):
        a_job_in(tx, state, job_id)
    a_job_in(tx, "delivered", 20, user_id=8)
    a_job_in(tx, "delivered", 21, guild_id=2)
    a_job_in(tx, "delivered", 22)
    jobs.mark_deleted(tx, job_id=22, now=23)
    a_job_in(tx, "delivered", 23)
    found = jobs.list_for_member(tx, guild_id=1, user_id=7, limit=10)
    assert [job.id for job in found] == [23, 5, 4, 3]
    assert [job.id for job in jobs.list_for_member(tx, guild_id=1, user_id=7, limit=2)] == [23, 5]


def test_pictures_are_kept_for_unfinished_and_for_recent_jobs(tx: sqlite3.Connection) -> None:
    """The clean-up keeps what somebody may still be shown: input, source and results."""
    a_job_in(tx, "queued", 1, source_hash="source 1")
    a_job_in(tx, "rendered", 2)
    a_job_in(tx, "delivered", 3)
    a_job_in(tx, "delivered", 50)
    a_job_in(tx, "delivered", 51)
    jobs.mark_deleted(tx, job_id=51, now=52)
    kept = jobs.hashes_to_keep(tx, since=50)
    assert kept == {"input 1", "source 1", "input 2", "result 2", "input 50", "result 50"}


def test_a_deleted_job_that_has_not_ended_keeps_its_pictures(tx: sqlite3.Connection) -> None:
    """Pictures of a job under way are not removed from under it."""
    a_job_in(tx, "sending", 1)
    jobs.mark_deleted(tx, job_id=1, now=1)
    assert jobs.hashes_to_keep(tx, since=100) == {"input 1"}


def test_a_message_leads_to_its_job_in_its_own_server(tx: sqlite3.Connection) -> None:
    """A message of another server, or one that shows no picture, leads nowhere."""
    a_job_in(tx, "delivered")
    jobs.set_message(tx, job_id=1, message_id=50, channel_id=4)
    found = [
        jobs.id_of_message(tx, guild_id=guild_id, message_id=message_id)
        for guild_id, message_id in ((1, 50), (2, 50), (1, 51))
    ]
    assert found == [1, None, None]
    job = jobs.get(tx, 1)
    assert job is not None
    assert job.channel_id == 4


def test_open_jobs_are_those_that_wait_or_run(tx: sqlite3.Connection) -> None:
    """A member's finished pictures do not count against what they may have in progress."""
    for job_id, state in enumerate(STEPS, 1):
        a_job_in(tx, state, job_id)
    a_job_in(tx, "queued", 20, user_id=8)
    assert jobs.count_open(tx, guild_id=1, user_id=7) == 2
    assert jobs.count_all(tx) == len(STEPS) + 1


def test_slow_mode_counts_from_the_last_picture_that_was_made(tx: sqlite3.Connection) -> None:
    """A request that failed or was cancelled does not make its member wait."""
    assert jobs.last_accepted_at(tx, guild_id=1, user_id=7) is None
    for job_id, state in ((1, "delivered"), (2, "queued"), (3, "failed"), (4, "cancelled")):
        a_job_in(tx, state, job_id)
    assert jobs.last_accepted_at(tx, guild_id=1, user_id=7) == 2


def test_the_leaderboard_counts_what_was_paid(tx: sqlite3.Connection) -> None:
    """Most credits first, equal amounts by member; old, free and other servers' jobs are left out."""
    for job_id, user_id, charged, created_at in (
        (1, 7, 4, 50), (2, 7, 3, 60), (3, 8, 9, 50), (4, 9, 9, 50), (5, 9, 100, 49), (6, 10, 0, 50),
    ):  # fmt: skip
        _paid_job(tx, job_id, user_id, charged, created_at)
    assert jobs.top_spenders(tx, guild_id=1, since=50, limit=3) == [(8, 9, 1), (9, 9, 1), (7, 7, 2)]
    assert jobs.top_spenders(tx, guild_id=1, since=50, limit=1) == [(8, 9, 1)]
    assert jobs.top_spenders(tx, guild_id=2, since=0, limit=3) == []


def _paid_job(tx: sqlite3.Connection, job_id: int, user_id: int, charged: int, created_at: float) -> None:
    jobs.insert(tx, replace(_free_job(job_id), user_id=user_id, price=charged, created_at=created_at))
    if charged:
        funded(tx, charged * 100 + job_id, user_id=user_id)
        hold(tx, charged, transfer_id=f"job:{job_id}", job_id=job_id, user_id=user_id)
        ledger.post(tx, transfer_id=f"job:{job_id}", charged=charged, now=1)
    assert _step(tx, job_id, "sending")
    picture = Result(job_id, 0, 5, "b", 64, 64)
    assert jobs.mark_rendered(tx, job_id=job_id, pictures=(picture,), charged=charged, now=1)


def test_a_job_is_rendered_only_when_paid_and_stored(tx: sqlite3.Connection) -> None:
    """No member pays without a stored picture, and no picture is given before it is paid."""
    funded(tx, 10)
    a_job(tx)
    hold(tx, 4, job_id=1)
    assert jobs.mark_sending(tx, job_id=1, backend="test", now=1)
    picture = Result(1, 0, 5, "b" * 64, 64, 64)
    with pytest.raises(sqlite3.IntegrityError, match="paid"):
        jobs.mark_rendered(tx, job_id=1, pictures=(picture,), charged=4, now=2)
    tx.execute("DELETE FROM result")
    ledger.post(tx, transfer_id="job:1", charged=4, now=2)
    with pytest.raises(sqlite3.IntegrityError, match="paid"):
        jobs.mark_rendered(tx, job_id=1, pictures=(), charged=4, now=2)
    with pytest.raises(sqlite3.IntegrityError, match="paid"):
        jobs.mark_rendered(tx, job_id=1, pictures=(picture,), charged=3, now=2)
    tx.execute("DELETE FROM result")
    assert jobs.mark_rendered(tx, job_id=1, pictures=(picture,), charged=4, now=2)


@pytest.mark.parametrize("end", ["fail", "cancel"])
def test_a_job_without_picture_ends_only_unpaid(tx: sqlite3.Connection, end: str) -> None:
    """A failed or cancelled job can't leave a hold or a payment behind."""
    funded(tx, 10)
    a_job(tx)
    hold(tx, 4, job_id=1)
    with pytest.raises(sqlite3.IntegrityError, match="costs nothing"):
        _end(tx, end)
    ledger.void(tx, transfer_id="job:1", now=1)
    assert _end(tx, end)


def _end(tx: sqlite3.Connection, end: str) -> bool:
    if end == "fail":
        return jobs.mark_failed(tx, job_id=1, failure="no", now=1)
    return jobs.mark_cancelled(tx, job_id=1, from_state="queued", now=1)


@pytest.mark.parametrize(
    "path",
    [
        ["rendered"],
        ["delivered"],
        ["cancelled", "queued"],
        ["failed", "sending"],
        ["sending", "delivered"],
        ["sending", "undeliverable"],
    ],
)
def test_a_job_takes_no_illegal_step(tx: sqlite3.Connection, path: list[str]) -> None:
    """A job never comes back from its end and never skips being paid."""
    a_job(tx, price=0)
    *steps, last = path
    for step in steps:
        tx.execute("UPDATE job SET state = ? WHERE id = 1", (step,))
    with pytest.raises(sqlite3.IntegrityError):
        tx.execute("UPDATE job SET state = ? WHERE id = 1", (last,))


def test_a_provider_is_called_at_most_twice(tx: sqlite3.Connection) -> None:
    """However often a job is resumed, it is sent no third time."""
    a_job(tx, price=0)
    for _ in range(2):
        assert jobs.mark_sending(tx, job_id=1, backend="test", now=1)
        requeued = jobs.mark_queued_again(tx, job_id=1)
    assert not requeued
    assert not jobs.mark_sending(tx, job_id=1, backend="test", now=1)


def test_the_same_request_twice_is_one_job(tx: sqlite3.Connection) -> None:
    """Discord may hand over an interaction twice: it is stored and paid once."""
    a_job(tx)
    with pytest.raises(sqlite3.IntegrityError, match="exists"):
        a_job(tx)
