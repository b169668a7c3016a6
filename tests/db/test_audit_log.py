"""The audit log in SQL: what is logged automatically, never altered, and how far it was mirrored."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from db import audit_log, audit_records, guilds, jobs
from db.audit_log import LogCursor, LogKind
from db.audit_records import AuditRecord
from tests.support.ledgers import a_job, open_ledger

LOG_CHANNEL_ID = 50


@pytest.fixture
def tx(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """Yield a new database."""
    with open_ledger(tmp_path) as connection:
        yield connection


def _open_channel(tx: sqlite3.Connection, guild_id: int = 1) -> None:
    guilds.change_setting(tx, guild_id=guild_id, name="log_channel_id", value=LOG_CHANNEL_ID)


def _kinds(tx: sqlite3.Connection, guild_id: int = 1) -> list[str]:
    return [entry.kind for entry in audit_log.entries_after(tx, guild_id=guild_id, entry_id=0, limit=99)]


def _press(tx: sqlite3.Connection, note: str = "reroll", *, guild_id: int = 1, job_id: int = 1) -> bool:
    return audit_log.add(tx, guild_id=guild_id, kind="pressed", user_id=8, job_id=job_id, note=note, now=2.5)


def _act(tx: sqlite3.Connection, interaction_id: int = 1) -> None:
    record = AuditRecord(interaction_id, 1, 99, None, "stop", None, None, "", 3.0)
    audit_records.insert(tx, record)


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM audit_log",
        "UPDATE audit_log SET note = ''",
        "UPDATE audit_log SET user_id = 9",
        "INSERT OR REPLACE INTO audit_log SELECT * FROM audit_log",
    ],
)
def test_the_log_is_never_altered(tx: sqlite3.Connection, sql: str) -> None:
    """What happened in a server stays in its log as it was written."""
    a_job(tx)
    _press(tx)
    with pytest.raises(sqlite3.IntegrityError):
        tx.execute(sql)


def test_every_action_is_logged_with_its_record(tx: sqlite3.Connection) -> None:
    """A moderation action is in the log whether or not the server has a log channel."""
    _act(tx)
    (entry,) = audit_log.entries_after(tx, guild_id=1, entry_id=0, limit=9)
    assert (entry.kind, entry.user_id, entry.job_id, entry.at) == ("action", 99, None, 3.0)
    assert entry.audit_record_id is not None
    assert audit_records.get(tx, entry.audit_record_id).action == "stop"


@pytest.mark.parametrize("end", ["rendered", "failed", "cancelled"])
def test_jobs_are_logged_where_there_is_a_log_channel(tx: sqlite3.Connection, end: str) -> None:
    """With a log channel, the request and the end of each job are logged once; without one, neither is."""
    for job_id in (1, 2):
        if job_id == 2:
            _open_channel(tx)
        a_job(tx, job_id, price=0)
        jobs.mark_sending(tx, job_id=job_id, backend="brush", now=1)
        tx.execute("INSERT INTO result VALUES (?, 0, 5, 'b', 64, 64)", (job_id,))
        tx.execute("UPDATE job SET state = ?, charged = 0 WHERE id = ?", (end, job_id))
        jobs.mark_delivered(tx, job_id=job_id, now=2)
    entries = audit_log.entries_after(tx, guild_id=1, entry_id=0, limit=9)
    assert [(entry.kind, entry.job_id) for entry in entries] == [("asked", 2), (end, 2)]


def test_only_jobs_of_the_server_are_logged(tx: sqlite3.Connection) -> None:
    """A press with the id of another server's job, or of none, leaves no entry."""
    a_job(tx)
    assert [_press(tx), _press(tx, guild_id=2), _press(tx, job_id=9)] == [True, False, False]
    assert (_kinds(tx), _kinds(tx, 2)) == (["pressed"], [])


def test_a_members_report_is_found_again(tx: sqlite3.Connection) -> None:
    """Whether a member has reported a picture depends on server, member and kind alike."""
    a_job(tx)
    audit_log.add(tx, guild_id=1, kind="reported", user_id=8, job_id=1, note="gory", now=1)
    keys: list[tuple[int, LogKind, int]] = [
        (1, "reported", 8),
        (1, "pressed", 8),
        (1, "reported", 9),
        (2, "reported", 8),
    ]
    found = [
        audit_log.has_entry(tx, guild_id=guild_id, kind=kind, user_id=user_id, job_id=1)
        for guild_id, kind, user_id in keys
    ]
    assert found == [True, False, False, False]


def test_a_channel_lacks_what_came_after_its_cursor(tx: sqlite3.Connection) -> None:
    """A server is pending while its channel lacks entries; servers without a channel never are."""
    a_job(tx)
    for _ in range(3):
        _press(tx)
    assert audit_log.pending_cursors(tx) == []
    assert audit_log.guilds_with_log_channel(tx) == set()
    _open_channel(tx)
    _open_channel(tx, guild_id=2)
    assert audit_log.guilds_with_log_channel(tx) == {1, 2}
    assert audit_log.pending_cursors(tx) == [LogCursor(1, LOG_CHANNEL_ID, 0)]
    audit_log.advance_cursor(tx, guild_id=1, entry_id=2)
    assert audit_log.pending_cursors(tx) == [LogCursor(1, LOG_CHANNEL_ID, 2)]
    audit_log.advance_cursor(tx, guild_id=1, entry_id=3)
    assert audit_log.pending_cursors(tx) == []


def test_entries_come_oldest_first_a_few_at_a_time(tx: sqlite3.Connection) -> None:
    """A channel far behind catches up in order."""
    a_job(tx)
    for note in "abcd":
        _press(tx, note)
    found = audit_log.entries_after(tx, guild_id=1, entry_id=1, limit=2)
    assert [(entry.id, entry.note) for entry in found] == [(2, "b"), (3, "c")]


def test_a_cursor_never_goes_back(tx: sqlite3.Connection) -> None:
    """Whatever order posts are acknowledged in, nothing is posted again."""
    a_job(tx)
    _open_channel(tx)
    for _ in range(3):
        _press(tx)
    audit_log.advance_cursor(tx, guild_id=1, entry_id=3)
    audit_log.advance_cursor(tx, guild_id=1, entry_id=1)
    assert audit_log.pending_cursors(tx) == []


def test_a_new_channel_starts_at_the_end(tx: sqlite3.Connection) -> None:
    """A log channel that is set today does not get what happened before."""
    a_job(tx)
    _press(tx)
    _open_channel(tx)
    audit_log.skip_to_end(tx, 1)
    assert audit_log.pending_cursors(tx) == []
    _press(tx)
    assert audit_log.pending_cursors(tx) == [LogCursor(1, LOG_CHANNEL_ID, 1)]


def test_a_new_channel_of_a_server_without_a_log_starts_at_the_beginning(tx: sqlite3.Connection) -> None:
    """The first thing that ever happens in a server is shown."""
    _open_channel(tx)
    audit_log.skip_to_end(tx, 1)
    _act(tx)
    assert audit_log.pending_cursors(tx) == [LogCursor(1, LOG_CHANNEL_ID, 0)]
