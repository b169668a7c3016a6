"""Members in SQL: their own allowance, what a day has given them, and whether they are blocked."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from db import members
from db.members import Member
from tests.support.ledgers import open_ledger


@pytest.fixture
def tx(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """Yield a new database."""
    with open_ledger(tmp_path) as connection:
        yield connection


def _member(tx: sqlite3.Connection, guild_id: int = 1) -> Member:
    return members.get_member(tx, guild_id=guild_id, user_id=7)


def test_a_member_never_seen_has_nothing_of_their_own(tx: sqlite3.Connection) -> None:
    """Looking at somebody stores nothing about them."""
    assert _member(tx) == Member(1, 7, allowance=None, day=0, given=0, revision=0, blocked=False)
    assert tx.execute("SELECT count(*) FROM member").fetchone()[0] == 0


def test_each_fact_is_set_without_the_others(tx: sqlite3.Connection) -> None:
    """In whatever order a member is blocked, given an allowance and given credits, none undoes another."""
    members.set_blocked(tx, guild_id=1, user_id=7, blocked=True)
    members.set_given(tx, guild_id=1, user_id=7, day=20_000, given=40)
    members.set_allowance(tx, guild_id=1, user_id=7, allowance=0)
    assert _member(tx) == Member(1, 7, allowance=0, day=20_000, given=40, revision=1, blocked=True)
    members.set_allowance(tx, guild_id=1, user_id=7, allowance=None)
    members.set_blocked(tx, guild_id=1, user_id=7, blocked=False)
    assert _member(tx) == Member(1, 7, allowance=None, day=20_000, given=40, revision=1, blocked=False)
    assert _member(tx, guild_id=2) == Member(2, 7, allowance=None, day=0, given=0, revision=0)


def test_revisions_are_never_used_twice(tx: sqlite3.Connection) -> None:
    """Each change of what a member was given has a number of its own, on whatever day it comes."""
    days = (5, 5, 6, 5)
    assert [members.set_given(tx, guild_id=1, user_id=7, day=day, given=40) for day in days] == [1, 2, 3, 4]


def test_those_given_an_allowance_on_a_day_are_found(tx: sqlite3.Connection) -> None:
    """Resetting everyone's allowance reaches those who had one today, in this server alone."""
    for guild_id, user_id, day in ((1, 7, 5), (1, 8, 4), (1, 9, 5), (2, 10, 5)):
        members.set_given(tx, guild_id=guild_id, user_id=user_id, day=day, given=40)
    assert sorted(members.members_given_on(tx, guild_id=1, day=5)) == [7, 9]
