"""The operator's balances at providers, in SQL."""

from pathlib import Path

from db import providers
from db.providers import Balance
from tests.support.ledgers import open_ledger


def test_a_low_balance_is_new_once_until_it_was_filled_up(tmp_path: Path) -> None:
    """The operator is alerted when a balance falls below the mark, and again only after it was above it."""
    with open_ledger(tmp_path) as tx:
        lefts = (6.0, 5.0, 4.9, 3.0, 5.0, 4.0, 4.0)
        found = [
            providers.record_balance(tx, backend="segmind", remaining=left, low=5, now=1) for left in lefts
        ]
    assert found == [False, False, True, False, False, True, False]


def test_each_provider_has_its_own_balance(tmp_path: Path) -> None:
    """The newest report of each provider is kept, with its time."""
    with open_ledger(tmp_path) as tx:
        assert providers.balances(tx) == []
        for backend, left, now in (("segmind", 4.5, 1), ("gpu", 80, 2), ("segmind", 3.5, 3)):
            providers.record_balance(tx, backend=backend, remaining=left, low=5, now=now)
        assert providers.balances(tx) == [
            Balance("gpu", 80, 2, alerted=False),
            Balance("segmind", 3.5, 3, alerted=True),
        ]
