"""What members pay: the price of a job, its hold, what it is charged in the end, and what is left.

The policy over `db/ledger.py`. Functions that take a `tx` are steps of a caller's transaction, so
that limits, hold and job are decided and stored together.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass

from bot.actors import Permission, Person
from bot.clock import DAY_S, Clock
from bot.credits.allowance import DailyAllowance
from bot.credits.limits import Explanation, Limits
from bot.credits.prices import Prices
from bot.errors import NotEnoughCredits
from bot.params import Img2ImgParams
from bot.text import credits_text
from db import ledger
from db.database import Database
from db.ledger import LedgerEntry, NewTransfer


@dataclass(frozen=True, slots=True)
class WalletSummary:
    """What one member can spend in one server; `renews_at` in seconds since 1970."""

    allowance: int
    allowance_left: int
    renews_at: int
    balance: int
    on_hold: int

    @property
    def available(self) -> int:
        """What can be spent now, in all."""
        return self.allowance_left + self.balance


class CreditService:
    """Prices, holds and wallets."""

    def __init__(
        self,
        *,
        db: Database,
        clock: Clock,
        limits: Limits,
        allowance: DailyAllowance,
        prices: Prices,
        prices_by_backend: Mapping[str, Prices] | None = None,
    ) -> None:
        """`prices` apply to every backend without its own in `prices_by_backend`, by its name."""
        self._db = db
        self._clock = clock
        self._limits = limits
        self._allowance = allowance
        self._prices = prices
        self._prices_by_backend = dict(prices_by_backend or {})

    def price(self, params: Img2ImgParams, pixels: int, *, backend: str) -> int:
        """Return what the pictures cost on the backend of this name."""
        return self._prices_by_backend.get(backend, self._prices).of(params, pixels)

    def hold(self, tx: sqlite3.Connection, who: Person, *, job_id: int, amount: int) -> None:
        """Reserve `amount` for a job, from the allowance first.

        Raises `NotEnoughCredits`, saying what it costs, what there is and when enough is back.
        """
        allowance = self._allowance.refresh(tx, who, day=self._allowance.advance_to_today(tx))
        balance = _balance_account(tx, who)
        if allowance.available + balance.available < amount:
            raise self._not_enough(tx, who, amount, have=allowance.available, balance=balance.available)
        parts = {allowance: min(allowance.available, amount)}
        parts[balance] = amount - parts[allowance]
        provider = ledger.get_or_create_account(tx, kind="provider")
        for source, part in parts.items():
            if part:
                transfer = NewTransfer(
                    id=f"job:{job_id}:{source.kind}",
                    src=source.id,
                    dst=provider.id,
                    amount=part,
                    actor_id=who.user_id,
                    reason="a picture",
                    now=self._clock.now(),
                    job_id=job_id,
                )
                ledger.hold(tx, transfer)

    def settle_hold(self, tx: sqlite3.Connection, *, job_id: int, charged: int) -> None:
        """Post `charged` of the job's hold, allowance first, and release the rest."""
        now = self._clock.now()
        for transfer in ledger.transfers_of_job(tx, job_id):
            part = min(transfer.amount, charged)
            charged -= part
            if part:
                ledger.post(tx, transfer_id=transfer.id, charged=part, now=now)
            else:
                ledger.void(tx, transfer_id=transfer.id, now=now)

    def release_hold(self, tx: sqlite3.Connection, *, job_id: int) -> None:
        """Release the job's whole hold: it cost nothing."""
        for transfer in ledger.transfers_of_job(tx, job_id):
            ledger.void(tx, transfer_id=transfer.id, now=self._clock.now())

    def _not_enough(
        self, tx: sqlite3.Connection, who: Person, amount: int, *, have: int, balance: int
    ) -> NotEnoughCredits:
        daily = self._allowance.amount(tx, who)
        sentence = f"That costs {credits_text(amount)}, but you have {have + balance:,}."
        if daily + balance >= amount:
            return NotEnoughCredits(
                f"{sentence} Your daily allowance of {daily:,} renews",
                until=(self._allowance.advance_to_today(tx) + 1) * DAY_S,
            )
        return NotEnoughCredits(
            f"{sentence} Please ask a moderator for more, or choose fewer samples or steps."
        )

    async def wallet(self, who: Person) -> WalletSummary:
        """Return what a member can spend in their server."""
        return await self._db.write(lambda tx: self.refreshed_wallet(tx, who))

    def refreshed_wallet(self, tx: sqlite3.Connection, who: Person) -> WalletSummary:
        """Bring the member's allowance to today; return what they can spend."""
        day = self._allowance.advance_to_today(tx)
        allowance = self._allowance.refresh(tx, who, day=day)
        balance = _balance_account(tx, who)
        return WalletSummary(
            allowance=self._allowance.amount(tx, who),
            allowance_left=allowance.available,
            renews_at=(day + 1) * DAY_S,
            balance=balance.available,
            on_hold=allowance.held + balance.held,
        )

    async def explain(self, moderator: Person, who: Person) -> tuple[WalletSummary, Explanation]:
        """Return what a member can spend, and every limit that applies to them with its rule.

        Raises `NotAllowed` unless `moderator` may manage the server.
        """
        moderator.require(Permission.MANAGE_SERVER)

        def unit(tx: sqlite3.Connection) -> tuple[WalletSummary, Explanation]:
            wallet = self.refreshed_wallet(tx, who)
            return wallet, self._limits.explain(tx, who, day=self._allowance.advance_to_today(tx))

        return await self._db.write(unit)

    async def statement(self, who: Person, *, limit: int) -> list[LedgerEntry]:
        """Return the member's latest transfers in their server, newest first."""
        return await self._db.read(
            lambda tx: ledger.member_entries(tx, guild_id=who.guild_id, user_id=who.user_id, limit=limit)
        )


def _balance_account(tx: sqlite3.Connection, who: Person) -> ledger.Account:
    return ledger.get_or_create_account(tx, kind="user", guild_id=who.guild_id, user_id=who.user_id)
