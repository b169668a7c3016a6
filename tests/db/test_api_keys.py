"""The GPU server's keys, in SQL."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from db import api_keys
from db.api_keys import NewApiKey
from db.database import DatabaseUnusable
from tests.support.ledgers import open_ledger

KEY = NewApiKey(name="alice", handle="h1", salt=b"s" * 16, hash=b"h" * 32, created_at=1.0)


@pytest.fixture
def tx(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """Yield a new file of keys."""
    with open_ledger(tmp_path) as connection:
        api_keys.create_tables(connection)
        api_keys.create_tables(connection)  # another process may be as far already
        yield connection


def test_an_active_key_is_found_by_its_handle(tx: sqlite3.Connection) -> None:
    """What is needed to check a secret is found as long as the key is not revoked."""
    assert not api_keys.has_active(tx)
    key_id = api_keys.insert(tx, KEY)
    assert api_keys.has_active(tx)
    assert api_keys.find_active(tx, "h1") == (key_id, KEY.salt, KEY.hash)
    assert api_keys.find_active(tx, "h2") is None
    assert api_keys.revoke(tx, "alice", now=2.0)
    assert api_keys.find_active(tx, "h1") is None
    assert not api_keys.has_active(tx)


def test_a_key_is_revoked_once(tx: sqlite3.Connection) -> None:
    """Revoking a key again, or one that never was, reports that nothing was done."""
    api_keys.insert(tx, KEY)
    names = ("bob", "alice", "alice")
    assert [api_keys.revoke(tx, name, now=2.0) for name in names] == [False, True, False]


def test_keys_are_listed_by_name(tx: sqlite3.Connection) -> None:
    """An operator sees every key, revoked ones included."""
    second = api_keys.insert(tx, replace(KEY, name="bob", handle="h2"))
    first = api_keys.insert(tx, KEY)
    api_keys.revoke(tx, "bob", now=2.0)
    assert api_keys.list_all(tx) == [(first, "alice", False), (second, "bob", True)]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"name": "bob", "handle": "h1"},
        {"name": ""},
        {"name": "x" * 65},
        {"name": "bob", "salt": b"short"},
        {"name": "bob", "hash": b"short"},
    ],
)
def test_a_key_that_would_not_work_is_refused(tx: sqlite3.Connection, changes: dict[str, object]) -> None:
    """A name or handle that is taken, a name of odd length, or a damaged secret is not stored."""
    api_keys.insert(tx, KEY)
    with pytest.raises(sqlite3.IntegrityError):
        api_keys.insert(tx, replace(KEY, **{"handle": "h2", **changes}))  # type: ignore[arg-type]


def test_only_empty_files_and_files_of_keys_are_claimed(tmp_path: Path) -> None:
    """The GPU server writes no keys into another program's database, the bot's own included."""
    path = tmp_path / "keys.sqlite3"
    with closing(sqlite3.connect(path)) as connection:
        api_keys.claim_file(connection, path)
        connection.execute("CREATE TABLE one (x)")
        api_keys.claim_file(connection, path)
        connection.execute("PRAGMA application_id = 0")
        with pytest.raises(DatabaseUnusable, match="is not a file of keys"):
            api_keys.claim_file(connection, path)
