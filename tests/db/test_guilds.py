"""What moderators set for a server, in SQL."""

import sqlite3
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from db import guilds
from db.guilds import BlockedText, GuildSettings, RoleRule
from tests.support.ledgers import open_ledger

FLAGS = ("giving", "frozen", "private")


@pytest.fixture
def tx(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """Yield a new database."""
    with open_ledger(tmp_path) as connection:
        yield connection


@pytest.mark.parametrize("name", [field.name for field in fields(GuildSettings)])
def test_each_setting_is_set_and_given_back(tx: sqlite3.Connection, name: str) -> None:
    """A setting changes alone, in its own server, and None returns it to the bot's default."""
    value: Any = True if name in FLAGS else 2**53 + 1
    guilds.change_setting(tx, guild_id=1, name=name, value=value)
    assert guilds.get_settings(tx, 1) == replace(GuildSettings(), **{name: value})
    assert guilds.get_settings(tx, 2) == GuildSettings()
    guilds.change_setting(tx, guild_id=1, name=name, value=None)
    assert guilds.get_settings(tx, 1) == GuildSettings()


def test_flags_are_read_as_flags(tx: sqlite3.Connection) -> None:
    """Nothing but True and False comes back for what is on or off."""
    guilds.change_setting(tx, guild_id=1, name="private", value=1)
    settings = guilds.get_settings(tx, 1)
    assert (settings.private, settings.giving) == (True, False)
    assert all(isinstance(getattr(settings, name), bool) for name in FLAGS)


@pytest.mark.parametrize("name", ["id", "last_mirrored_id", "no_such", "giving = 1; --"])
def test_only_settings_can_be_set(tx: sqlite3.Connection, name: str) -> None:
    """A name that is no setting reaches no statement."""
    with pytest.raises(ValueError, match="no setting is called"):
        guilds.change_setting(tx, guild_id=1, name=name, value=1)


@pytest.mark.parametrize(("name", "value"), [("steps_max", 0), ("daily_cap", -1), ("running_max", 0)])
def test_values_that_would_stop_everything_are_refused(tx: sqlite3.Connection, name: str, value: int) -> None:
    """Whatever the checks above it let through, the schema takes no limit that makes no sense."""
    with pytest.raises(sqlite3.IntegrityError):
        guilds.change_setting(tx, guild_id=1, name=name, value=value)


def test_a_role_has_one_rule_or_none(tx: sqlite3.Connection) -> None:
    """The newest rule of a role counts, and one that gives nothing is removed."""
    guilds.set_role_rule(tx, guild_id=1, rule=RoleRule(12, 5, may_use=False))
    guilds.set_role_rule(tx, guild_id=1, rule=RoleRule(11, None, may_use=True))
    guilds.set_role_rule(tx, guild_id=1, rule=RoleRule(12, 0, may_use=False))
    assert guilds.role_rules(tx, 1) == [
        RoleRule(11, None, may_use=True),
        RoleRule(12, 0, may_use=False),
    ]
    assert guilds.role_rules(tx, 2) == []
    guilds.set_role_rule(tx, guild_id=1, rule=RoleRule(11, None, may_use=False))
    assert [rule.role_id for rule in guilds.role_rules(tx, 1)] == [12]


def test_a_channel_is_allowed_or_forbidden_or_has_no_rule(tx: sqlite3.Connection) -> None:
    """The newest rule of a channel counts, None removes it, and other servers' channels stay as they are."""
    for allowed in (True, False):
        guilds.set_channel_rule(tx, guild_id=1, channel_id=5, allowed=allowed)
        assert guilds.channel_rules(tx, 1) == {5: allowed}
    guilds.set_channel_rule(tx, guild_id=2, channel_id=5, allowed=True)
    guilds.set_channel_rule(tx, guild_id=1, channel_id=5, allowed=None)
    assert (guilds.channel_rules(tx, 1), guilds.channel_rules(tx, 2)) == ({}, {5: True})


def test_a_text_is_blocked_once_and_unblocked(tx: sqlite3.Connection) -> None:
    """Blocking a text again changes how strict it is; unblocking what is not there changes nothing."""
    for entry in (
        BlockedText("word", "gory", adult_ok=False),
        BlockedText("word", "gory", adult_ok=True),
        BlockedText("pattern", "go+ry", adult_ok=False),
    ):
        guilds.save_blocked_text(tx, guild_id=1, entry=entry)
    assert guilds.blocked_texts(tx, 1) == [
        BlockedText("pattern", "go+ry", adult_ok=False),
        BlockedText("word", "gory", adult_ok=True),
    ]
    assert not guilds.remove_blocked_text(tx, guild_id=2, text="gory")
    assert guilds.remove_blocked_text(tx, guild_id=1, text="gory")
    assert [entry.text for entry in guilds.blocked_texts(tx, 1)] == ["go+ry"]
