"""Checks the ledger in a file of keys from outside, as an auditor would."""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from pathlib import Path

from db import ledger
from db.database import connect


def faults(keys_path: Path) -> list[str]:
    """Return a sentence for each inconsistency of the ledger."""
    with closing(connect(keys_path, read_only=True)) as tx:
        return ledger.reconcile(tx)


def states(keys_path: Path) -> Counter[str]:
    """Return how many requests are pending, posted and voided."""
    with closing(connect(keys_path, read_only=True)) as tx:
        rows = tx.execute("SELECT state FROM transfer WHERE reason = 'request'").fetchall()
    return Counter(row["state"] for row in rows)
