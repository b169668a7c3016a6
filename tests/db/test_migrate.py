"""Migrations: in order, each as a whole, and with all that older versions have stored."""

import gzip
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from db import ledger
from db.database import DatabaseUnusable, connect
from db.migrate import apply_migration, migrate, migrations

VERSION_0_1 = Path(__file__).parents[1] / "fixtures" / "version-0.1.0" / "bot.sqlite3.gz"
LATEST = migrations()[-1][0]

#: Rows for every table that a version of the schema has added, in that version's own names.
ROWS = {
    1: (
        "INSERT INTO meta VALUES ('day', '20000')",
        "INSERT INTO account (id, kind, guild_id, user_id) VALUES (1, 'mint', 0, 0), (2, 'user', 1, 7),"
        " (3, 'provider', 0, 0)",
        "INSERT INTO job (id, guild_id, user_id, channel_id, operation, request, price, day, created_at)"
        " VALUES (10, 1, 7, 3, 'img2img', '{\"prompt\": \"x\"}', 4, 20000, 1.5),"
        " (11, 1, 7, 3, 'reroll', '{}', 4, 20000, 2.5)",
        "UPDATE job SET input_hash = 'a'",
        "INSERT INTO transfer VALUES ('grant:1', 1, 2, 50, NULL, 'pending', NULL, 99, 'prize', 1, NULL)",
        "UPDATE transfer SET state = 'posted', charged = 50, settled_at = 1 WHERE id = 'grant:1'",
        "INSERT INTO transfer VALUES ('job:10', 2, 3, 4, NULL, 'pending', 10, 7, 'a picture', 2, NULL)",
        "UPDATE transfer SET state = 'posted', charged = 3, settled_at = 2 WHERE id = 'job:10'",
        "INSERT INTO transfer VALUES ('job:11', 2, 3, 4, NULL, 'pending', 11, 7, 'a picture', 3, NULL)",
        "UPDATE job SET state = 'sending', attempt = 1 WHERE id = 10",
        "INSERT INTO result VALUES (10, 0, 5, 'b', 64, 64)",
        "UPDATE job SET state = 'rendered', charged = 3, rendered_at = 2 WHERE id = 10",
        "INSERT INTO guild (id, allowance) VALUES (1, 60)",
        "INSERT INTO member (guild_id, user_id, allowance) VALUES (1, 7, 5)",
        "INSERT INTO audit VALUES (1, 100, 1, 99, 7, 'grant', 0, 50, 'prize', 1)",
    ),
    2: (
        "UPDATE guild SET log_channel_id = 50, mirrored = 1, giving = 1 WHERE id = 1",
        "INSERT INTO guild (id, log_channel_id) VALUES (2, 51) ON CONFLICT DO NOTHING",
        "INSERT INTO role_rule VALUES (1, 11, 50, 0)",
        "INSERT INTO channel_rule VALUES (1, 5, 1)",
        "INSERT INTO blocked_text VALUES (1, 'word', 'gory', 0)",
        "INSERT INTO proposal VALUES (101, 1, 99, '', '{}', 5)",
        "INSERT INTO provider_balance VALUES ('segmind', 4.5, 5, 1)",
        "INSERT INTO audit (interaction_id, guild_id, actor_id, action, reason, at, detail)"
        " VALUES (102, 1, 99, 'server', '', 5, 'steps: 50 to 40')",
        "INSERT INTO trail (guild_id, kind, user_id, job_id, note, at)"
        " VALUES (1, 'pressed', 8, 10, 'reroll', 6), (1, 'reported', 8, 10, 'odd', 7)",
    ),
    3: (),
}


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """Yield a connection to a file without a schema."""
    with closing(connect(tmp_path / "bot.sqlite3")) as opened:
        yield opened


def _schema(connection: sqlite3.Connection) -> set[tuple[str, str, str]]:
    """Return every table, index and trigger with its SQL, spaces and comments aside."""
    rows = connection.execute("SELECT type, name, sql FROM sqlite_schema WHERE sql IS NOT NULL")
    return {(kind, name, _normalised(sql)) for kind, name, sql in rows}


def _normalised(sql: str) -> str:
    lines = (line.split("--")[0] for line in sql.splitlines())
    return " ".join(" ".join(lines).split())


def _fresh_schema(folder: Path) -> set[tuple[str, str, str]]:
    with closing(connect(folder / "fresh.sqlite3")) as fresh:
        migrate(fresh, folder)
        return _schema(fresh)


def _tables(connection: sqlite3.Connection) -> dict[str, int]:
    """Return each table's number of rows."""
    names = [row[0] for row in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
    return {
        name: connection.execute(f"SELECT count(*) FROM {name}").fetchone()[0]  # noqa: S608 - our own names
        for name in names
        if not name.startswith("sqlite_")
    }


def _all(connection: sqlite3.Connection, sql: str) -> list[tuple[object, ...]]:
    return [tuple(row) for row in connection.execute(sql)]


def _at_version(connection: sqlite3.Connection, version: int) -> None:
    """Bring an empty file to a version, writing rows as each of the versions before did."""
    for number, sql in migrations()[:version]:
        apply_migration(connection, number, sql)
        for statement in ROWS[number]:
            connection.execute(statement)


@pytest.mark.parametrize("version", range(1, LATEST + 1))
def test_every_version_grows_into_the_same_schema(
    connection: sqlite3.Connection, tmp_path: Path, version: int
) -> None:
    """From whatever version with rows in every table, each update leads to a new installation's schema."""
    _at_version(connection, version)
    if version < LATEST:
        assert [name for name, count in _tables(connection).items() if not count] == []
    for number, sql in migrations()[version:]:
        apply_migration(connection, number, sql)
        assert _all(connection, "PRAGMA foreign_key_check") == []
        assert _all(connection, "PRAGMA integrity_check") == [("ok",)]
    assert _schema(connection) == _fresh_schema(tmp_path)
    assert ledger.reconcile(connection) == []


@pytest.mark.parametrize("version", range(1, LATEST))
def test_nothing_but_open_proposals_is_lost(connection: sqlite3.Connection, version: int) -> None:
    """Jobs, credits, settings and records of every version are there afterwards, under today's names."""
    _at_version(connection, version)
    before = _tables(connection)
    migrate(connection, Path("bot.sqlite3"))
    after = _tables(connection)
    renamed = {"audit": "audit_record", "trail": "audit_log"}
    lost = {name for name, count in before.items() if after[renamed.get(name, name)] != count}
    assert lost == ({"proposal"} if version == 2 else set())
    assert _all(connection, "SELECT id, params_json, state, charged FROM job ORDER BY id") == [
        (10, '{"prompt": "x"}', "rendered", 3),
        (11, "{}", "queued", None),
    ]
    assert _all(connection, "SELECT kind, posted, held FROM account ORDER BY id") == [
        ("mint", -50, 0),
        ("user", 47, 4),
        ("provider", 3, 0),
    ]
    assert _all(connection, "SELECT guild_id, amount FROM spending ORDER BY guild_id") == [(0, 7), (1, 7)]


def test_the_audit_log_keeps_its_entries_and_where_it_was(connection: sqlite3.Connection) -> None:
    """A log channel continues after the update with the entry that it lacked before."""
    _at_version(connection, 2)
    migrate(connection, Path("bot.sqlite3"))
    assert _all(connection, "SELECT id, kind, note, audit_record_id FROM audit_log ORDER BY id") == [
        (1, "action", "", 2),
        (2, "pressed", "reroll", None),
        (3, "reported", "odd", None),
    ]
    assert _all(connection, "SELECT last_mirrored_id FROM guild WHERE id = 1") == [(1,)]
    assert _all(connection, "SELECT action, detail, changes_json FROM audit_record ORDER BY id") == [
        ("grant", "", None),
        ("server", "steps: 50 to 40", None),
    ]


def test_a_database_of_version_0_1_grows_into_the_same_schema(tmp_path: Path) -> None:
    """The file that a released version wrote ends where a new installation begins."""
    path = tmp_path / "bot.sqlite3"
    path.write_bytes(gzip.decompress(VERSION_0_1.read_bytes()))
    with closing(connect(path)) as connection:
        migrate(connection, path)
        assert _schema(connection) == _fresh_schema(tmp_path)
        assert _all(connection, "PRAGMA foreign_key_check") == []
        assert ledger.reconcile(connection) == []


def test_updating_twice_is_updating_once(connection: sqlite3.Connection, tmp_path: Path) -> None:
    """A second start, or a second process that waited for the first, applies nothing again."""
    migrate(connection, tmp_path)
    connection.execute("INSERT INTO meta VALUES ('greeting', 'hello')")
    migrate(connection, tmp_path)
    apply_migration(connection, 1, "DROP TABLE meta")
    assert _all(connection, "SELECT value FROM meta") == [("hello",)]


def test_a_newer_file_is_refused_untouched(connection: sqlite3.Connection, tmp_path: Path) -> None:
    """An operator who goes back to an older version is asked to update, and nothing is written."""
    connection.execute(f"PRAGMA user_version = {LATEST + 1}")
    with pytest.raises(DatabaseUnusable, match="newer version of the bot; update this one"):
        migrate(connection, tmp_path)
    assert _tables(connection) == {}


def test_a_migration_and_its_version_stand_or_fall_together(tmp_path: Path) -> None:
    """An update cut off in the middle leaves the database as it was."""
    ours = connect(tmp_path / "db")
    with pytest.raises(sqlite3.OperationalError):
        apply_migration(ours, 1, "CREATE TABLE one (x); CREATE TABLE one (x);")
    assert ours.execute("PRAGMA user_version").fetchone()[0] == 0
    assert ours.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0] == 0
    ours.close()


def test_migrations_count_from_one() -> None:
    """No update is skipped or applied twice."""
    versions = [version for version, _ in migrations()]
    assert versions == list(range(1, len(versions) + 1))
