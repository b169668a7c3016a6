"""Small facts about the database, and the day that counts."""

from pathlib import Path

from db import meta
from tests.support.ledgers import open_ledger


def test_the_last_value_counts(tmp_path: Path) -> None:
    """A fact is what was stored last; one never stored is None."""
    with open_ledger(tmp_path) as tx:
        assert meta.get_value(tx, "commands") is None
        meta.set_value(tx, key="commands", value="one")
        meta.set_value(tx, key="commands", value="two")
        assert meta.get_value(tx, "commands") == "two"


def test_the_day_never_goes_back(tmp_path: Path) -> None:
    """A clock that steps back renews no allowance twice, and days are compared as numbers, not as texts."""
    with open_ledger(tmp_path) as tx:
        assert [meta.advance_day(tx, day) for day in (9_999, 10_000, 9_999, 10_001)] == [
            9_999,
            10_000,
            10_000,
            10_001,
        ]
