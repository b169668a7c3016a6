"""Audit records in SQL: written once, found by interaction, server and member."""

import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from db import audit_records
from db.audit_records import AuditRecord
from tests.support.ledgers import open_ledger

GRANT = AuditRecord(
    interaction_id=2**62,
    guild_id=1,
    actor_id=99,
    target_id=7,
    action="grant",
    before=0,
    after=10,
    reason="a prize",
    at=5.5,
    changes_json='[["balance", 0, 10, 7]]',
)


@pytest.fixture
def tx(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """Yield a new database."""
    with open_ledger(tmp_path) as connection:
        yield connection


def test_a_record_is_read_as_it_was_written(tx: sqlite3.Connection) -> None:
    """Who did what to whom, from what to what, when and why, can be looked up by its interaction."""
    audit_records.insert(tx, GRANT)
    assert audit_records.of_interaction(tx, GRANT.interaction_id) == GRANT
    assert audit_records.of_interaction(tx, 1) is None
    assert audit_records.get(tx, tx.execute("SELECT id FROM audit_record").fetchone()[0]) == GRANT


def test_one_interaction_is_recorded_once(tx: sqlite3.Connection) -> None:
    """A second record of the same interaction is refused, whatever it says."""
    audit_records.insert(tx, GRANT)
    with pytest.raises(sqlite3.IntegrityError, match="recorded already"):
        audit_records.insert(tx, replace(GRANT, action="take", reason="other"))


def test_changes_are_stored_as_json_or_not_at_all(tx: sqlite3.Connection) -> None:
    """A record whose changes could not be read back is not written."""
    with pytest.raises(sqlite3.IntegrityError):
        audit_records.insert(tx, replace(GRANT, changes_json="40 to 50"))
    audit_records.insert(tx, replace(GRANT, changes_json=None, detail="40 to 50"))


def test_records_are_listed_newest_first_by_server_and_member(tx: sqlite3.Connection) -> None:
    """A moderator sees their own server's records; of a member, those by them and those on them."""
    for interaction_id, guild_id, actor_id, target_id in (
        (1, 1, 99, 7), (2, 1, 99, 8), (3, 1, 7, 8), (4, 2, 99, 7), (5, 1, 99, None),
    ):  # fmt: skip
        record = replace(GRANT, interaction_id=interaction_id, guild_id=guild_id)
        audit_records.insert(tx, replace(record, actor_id=actor_id, target_id=target_id))
    listed = audit_records.latest(tx, guild_id=1, limit=9)
    assert [record.interaction_id for record in listed] == [5, 3, 2, 1]
    of_member = audit_records.latest(tx, guild_id=1, member_id=7, limit=9)
    assert [record.interaction_id for record in of_member] == [3, 1]
    assert len(audit_records.latest(tx, guild_id=1, limit=2)) == 2


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM audit_record",
        "UPDATE audit_record SET reason = ''",
        "INSERT OR REPLACE INTO audit_record SELECT * FROM audit_record",
    ],
)
def test_the_audit_is_never_altered(tx: sqlite3.Connection, sql: str) -> None:
    """What a moderator did stays on record as it was."""
    tx.execute(
        "INSERT INTO audit_record (interaction_id, guild_id, actor_id, action, reason, at)"
        " VALUES (1, 1, 1, 'set', 'x', 0)"
    )
    with pytest.raises(sqlite3.IntegrityError):
        tx.execute(sql)
