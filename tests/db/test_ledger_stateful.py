"""The ledger under any order of operations: it always equals a model of twenty lines."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, multiple, rule

from db import ledger
from db.database import connect
from db.ledger import InsufficientCredits, NewTransfer
from db.migrate import apply_migration, migrations

MEMBERS = st.integers(1, 3)
AMOUNTS = st.integers(1, 50)


class LedgerMachine(RuleBasedStateMachine):
    """Grants, holds, settles, and every way to do one of them twice or wrongly."""

    transfers: Any = Bundle("transfers")

    def __init__(self) -> None:
        super().__init__()
        self.tx = connect(Path(":memory:"))
        for number, sql in migrations():
            apply_migration(self.tx, number, sql)
        self.posted = dict.fromkeys((1, 2, 3), 0)
        self.pending: dict[str, tuple[int, int]] = {}
        self.spent = 0
        self.made = 0

    def teardown(self) -> None:
        """Close the database."""
        self.tx.close()

    def _account(self, member: int) -> ledger.Account:
        return ledger.get_or_create_account(self.tx, kind="user", guild_id=1, user_id=member)

    def _held(self, member: int) -> int:
        return sum(amount for who, amount in self.pending.values() if who == member)

    def _hold(self, transfer_id: str, src: int, dst: int, amount: int) -> None:
        ledger.hold(
            self.tx,
            NewTransfer(id=transfer_id, src=src, dst=dst, amount=amount, actor_id=0, reason="t", now=0),
        )

    @rule(member=MEMBERS, amount=AMOUNTS)
    def grant(self, member: int, amount: int) -> None:
        """Give credits."""
        self.made += 1
        mint, account = ledger.get_or_create_account(self.tx, kind="mint"), self._account(member)
        self._hold(f"grant:{self.made}", mint.id, account.id, amount)
        ledger.post(self.tx, transfer_id=f"grant:{self.made}", charged=amount, now=1)
        self.posted[member] += amount

    @rule(target=transfers, member=MEMBERS, amount=AMOUNTS)
    def hold(self, member: int, amount: int) -> Any:
        """Hold credits, where there are enough."""
        self.made += 1
        transfer_id = f"job:{self.made}"
        provider = ledger.get_or_create_account(self.tx, kind="provider")
        if self.posted[member] - self._held(member) < amount:
            with pytest.raises(InsufficientCredits):
                self._hold(transfer_id, self._account(member).id, provider.id, amount)
            return multiple()
        self._hold(transfer_id, self._account(member).id, provider.id, amount)
        self.pending[transfer_id] = (member, amount)
        return transfer_id

    @rule(transfer_id=transfers, share=st.floats(0, 1))
    def post(self, transfer_id: str, share: float) -> None:
        """Take a part of a hold, once."""
        member, amount = self.pending.get(transfer_id, (0, 1))
        charged = max(1, round(amount * share))
        if not member:
            with pytest.raises(sqlite3.IntegrityError, match="final"):
                ledger.post(self.tx, transfer_id=transfer_id, charged=1, now=2)
            return
        ledger.post(self.tx, transfer_id=transfer_id, charged=charged, now=2)
        del self.pending[transfer_id]
        self.posted[member] -= charged
        self.spent += charged

    @rule(transfer_id=transfers)
    def void(self, transfer_id: str) -> None:
        """Let go of a hold, once."""
        if self.pending.pop(transfer_id, None) is None:
            with pytest.raises(sqlite3.IntegrityError, match="final"):
                ledger.void(self.tx, transfer_id=transfer_id, now=2)
        else:
            ledger.void(self.tx, transfer_id=transfer_id, now=2)

    @rule(transfer_id=transfers)
    def take_more_than_was_held(self, transfer_id: str) -> None:
        """More than the hold is never taken."""
        if transfer_id in self.pending:
            with pytest.raises(sqlite3.IntegrityError):
                ledger.post(self.tx, transfer_id=transfer_id, charged=1_000, now=2)

    @rule(transfer_id=transfers, member=MEMBERS)
    def rewrite_history(self, transfer_id: str, member: int) -> None:
        """Nothing is made twice, replaced or deleted."""
        provider = ledger.get_or_create_account(self.tx, kind="provider")
        with pytest.raises((sqlite3.IntegrityError, InsufficientCredits)):
            self._hold(transfer_id, self._account(member).id, provider.id, 1)
        for sql in ("DELETE FROM transfer WHERE id = ?", "UPDATE transfer SET amount = 0 WHERE id = ?"):
            with pytest.raises(sqlite3.IntegrityError):
                self.tx.execute(sql, (transfer_id,))

    @invariant()
    def equals_the_model(self) -> None:
        """Every balance and hold is what the model says, and the ledger is consistent."""
        for member, posted in self.posted.items():
            account = self._account(member)
            assert (account.posted, account.held) == (posted, self._held(member))
        assert ledger.get_or_create_account(self.tx, kind="provider").posted == self.spent
        assert ledger.reconcile(self.tx) == []


LedgerMachine.TestCase.settings = settings(max_examples=200, stateful_step_count=25, deadline=None)
TestLedger = LedgerMachine.TestCase
