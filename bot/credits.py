"""Who may spend what: prices, allowance, quota, hold, settle, refund.

The policy over `db/ledger.py`. Functions that take a `tx` are steps of a caller's
transaction, so that quota, hold and job are decided and stored together.
"""

from __future__ import annotations

import math
import sqlite3
from dataclasses import dataclass
from typing import Final

from bot.clock import Clock, next_utc_midnight, utc_day
from bot.errors import InvalidOption, NotEnoughCredits
from bot.params import Img2ImgParams
from bot.words import credits_text
from db import guilds, ledger
from db.database import Database

MEGAPIXEL: Final = 1024 * 1024
AMOUNT_MAX: Final = 1_000_000
#: Who acts when the bot itself does.
THE_BOT: Final = 0


@dataclass(frozen=True, slots=True)
class Prices:
    """What pictures cost, in credits."""

    per_sample: int
    per_megapixel_step: float

    def of(self, params: Img2ImgParams, pixels: int) -> int:
        """Return the price: samples × (per_sample + steps × megapixels × per_megapixel_step, rounded up)."""
        work = params.num_inference_steps * pixels / MEGAPIXEL * self.per_megapixel_step
        # 20 × 0.15 may come out a hair above 3: that hair is not a credit.
        return params.samples * (self.per_sample + math.ceil(work - 1e-9))


@dataclass(frozen=True, slots=True)
class Wallet:
    """What one member can spend in one server; `resets_at` in seconds since 1970."""

    allowance: int
    allowance_left: int
    resets_at: int
    balance: int
    on_hold: int

    @property
    def available(self) -> int:
        """What can be spent now, in all."""
        return self.allowance_left + self.balance


@dataclass(frozen=True, slots=True)
class Change:
    """What an act of a moderator changed: an amount before and after."""

    before: int
    after: int


@dataclass(frozen=True, slots=True)
class Moderator:
    """Who acts, where, in which interaction (an interaction counts once), and why."""

    interaction_id: int
    guild_id: int
    actor_id: int
    reason: str


class Credits:
    """Every rule about credits, for members and for moderators."""

    def __init__(self, *, db: Database, clock: Clock, prices: Prices, daily_allowance: int) -> None:
        self._db = db
        self._clock = clock
        self._daily_allowance = daily_allowance
        self.prices = prices

    def today(self, tx: sqlite3.Connection) -> int:
        """Return the UTC day that counts, as days since 1970: it never goes back."""
        return guilds.advance_day(tx, utc_day(self._clock.now()))

    # ------------------------------------------------------------- for a job

    def hold(self, tx: sqlite3.Connection, *, job_id: int, guild_id: int, user_id: int, amount: int) -> None:
        """Set `amount` aside, allowance first.

        Raises `NotEnoughCredits`, saying what is missing and when enough is back.
        """
        now = self._clock.now()
        day = self.today(tx)
        allowance = self._refresh_allowance(tx, guild_id=guild_id, user_id=user_id, day=day, now=now)
        balance = ledger.account(tx, kind="user", guild_id=guild_id, user_id=user_id)
        if allowance.available + balance.available < amount:
            raise self._missing(tx, amount, allowance, balance)
        parts = {allowance: min(allowance.available, amount)}
        parts[balance] = amount - parts[allowance]
        spent = ledger.account(tx, kind="provider").id
        for source, part in parts.items():
            if part:
                ledger.hold(
                    tx,
                    transfer_id=f"job:{job_id}:{source.kind}",
                    src=source.id,
                    dst=spent,
                    amount=part,
                    actor_id=user_id,
                    reason="a picture",
                    now=now,
                    job_id=job_id,
                )

    def settle(self, tx: sqlite3.Connection, *, job_id: int, charged: int) -> None:
        """Post `charged` of the job's hold, allowance first, and let go of the rest."""
        now = self._clock.now()
        for transfer in ledger.transfers_of_job(tx, job_id):
            part = min(transfer.amount, charged)
            charged -= part
            if part:
                ledger.post(tx, transfer_id=transfer.id, charged=part, now=now)
            else:
                ledger.void(tx, transfer_id=transfer.id, now=now)

    def release(self, tx: sqlite3.Connection, *, job_id: int) -> None:
        """Let go of the job's whole hold: it cost nothing."""
        for transfer in ledger.transfers_of_job(tx, job_id):
            ledger.void(tx, transfer_id=transfer.id, now=self._clock.now())

    def _missing(
        self, tx: sqlite3.Connection, amount: int, allowance: ledger.Account, balance: ledger.Account
    ) -> NotEnoughCredits:
        daily = self._allowance_of(tx, guild_id=allowance.guild_id, user_id=allowance.user_id)
        have = allowance.available + balance.available
        sentence = f"That costs {credits_text(amount)} and you have {have}."
        if daily + balance.available >= amount:
            return NotEnoughCredits(
                f"{sentence} Your daily allowance of {daily} comes back",
                until=next_utc_midnight(self._clock.now()),
            )
        return NotEnoughCredits(
            f"{sentence} Please ask a moderator for more, or choose fewer samples or steps."
        )

    # ----------------------------------------------------------- the allowance

    def _allowance_of(self, tx: sqlite3.Connection, *, guild_id: int, user_id: int) -> int:
        own = guilds.member(tx, guild_id=guild_id, user_id=user_id).allowance
        if own is not None:
            return own
        server = guilds.guild_allowance(tx, guild_id)
        return self._daily_allowance if server is None else server

    def _refresh_allowance(
        self, tx: sqlite3.Connection, *, guild_id: int, user_id: int, day: int, now: float
    ) -> ledger.Account:
        """Bring the member's allowance account to today and to the limits in force."""
        member = guilds.member(tx, guild_id=guild_id, user_id=user_id)
        due = self._allowance_of(tx, guild_id=guild_id, user_id=user_id)
        found = ledger.account(tx, kind="allowance", guild_id=guild_id, user_id=user_id)
        if member.day == day and member.given == due:
            return found
        # Within a day only the limit's change counts; a new day replaces what was left.
        same_day = member.day == day
        change = max(due - member.given, -found.available) if same_day else due - found.available
        revision = guilds.save_given(tx, guild_id=guild_id, user_id=user_id, day=day, given=due)
        mint = ledger.account(tx, kind="mint")
        if change:
            src, dst = (mint, found) if change > 0 else (found, mint)
            ledger.move(
                tx,
                transfer_id=f"allowance:{guild_id}:{user_id}:{day}:{revision}",
                src=src.id,
                dst=dst.id,
                amount=abs(change),
                actor_id=THE_BOT,
                reason="daily allowance",
                now=now,
            )
        return ledger.account(tx, kind="allowance", guild_id=guild_id, user_id=user_id)

    # ------------------------------------------------------------ for members

    async def wallet(self, *, guild_id: int, user_id: int) -> Wallet:
        """Return what the member can spend in this server."""
        return await self._db.write(lambda tx: self._wallet(tx, guild_id=guild_id, user_id=user_id))

    def _wallet(self, tx: sqlite3.Connection, *, guild_id: int, user_id: int) -> Wallet:
        now = self._clock.now()
        day = self.today(tx)
        allowance = self._refresh_allowance(tx, guild_id=guild_id, user_id=user_id, day=day, now=now)
        balance = ledger.account(tx, kind="user", guild_id=guild_id, user_id=user_id)
        return Wallet(
            allowance=self._allowance_of(tx, guild_id=guild_id, user_id=user_id),
            allowance_left=allowance.available,
            resets_at=(day + 1) * 86_400,
            balance=balance.available,
            on_hold=allowance.held + balance.held,
        )

    # --------------------------------------------------------- for moderators

    async def set_allowance(self, by: Moderator, *, user_id: int, allowance: int) -> Change:
        """Set a member's own daily allowance, from now on and for what is left of today."""
        _check_amount(allowance, least=0)

        def unit(tx: sqlite3.Connection) -> Change:
            before = self._allowance_of(tx, guild_id=by.guild_id, user_id=user_id)
            if self._record(tx, by, user_id, "set", before, allowance):
                guilds.set_member_allowance(tx, guild_id=by.guild_id, user_id=user_id, allowance=allowance)
            self._wallet(tx, guild_id=by.guild_id, user_id=user_id)
            return Change(before, allowance)

        return await self._db.write(unit)

    async def set_default(self, by: Moderator, *, allowance: int) -> Change:
        """Set the server's daily allowance, for every member without his own."""
        _check_amount(allowance, least=0)

        def unit(tx: sqlite3.Connection) -> Change:
            stored = guilds.guild_allowance(tx, by.guild_id)
            before = self._daily_allowance if stored is None else stored
            if self._record(tx, by, None, "default", before, allowance):
                guilds.set_guild_allowance(tx, guild_id=by.guild_id, allowance=allowance)
            return Change(before, allowance)

        return await self._db.write(unit)

    async def grant(self, by: Moderator, *, user_id: int, amount: int) -> Change:
        """Add `amount` to a member's balance."""
        return await self._adjust(by, user_id=user_id, amount=amount, action="grant")

    async def take(self, by: Moderator, *, user_id: int, amount: int) -> Change:
        """Take `amount` from a member's balance, or what is there if it is less."""
        return await self._adjust(by, user_id=user_id, amount=amount, action="take")

    async def _adjust(self, by: Moderator, *, user_id: int, amount: int, action: str) -> Change:
        _check_amount(amount, least=1)

        def unit(tx: sqlite3.Connection) -> Change:
            member = ledger.account(tx, kind="user", guild_id=by.guild_id, user_id=user_id)
            mint = ledger.account(tx, kind="mint")
            moved = amount if action == "grant" else min(amount, member.available)
            after = member.available + (moved if action == "grant" else -moved)
            src, dst = (mint, member) if action == "grant" else (member, mint)
            if not self._record(tx, by, user_id, action, member.available, after):
                return Change(member.available, member.available)
            if moved:
                ledger.move(
                    tx,
                    transfer_id=f"{action}:{by.interaction_id}",
                    src=src.id,
                    dst=dst.id,
                    amount=moved,
                    actor_id=by.actor_id,
                    reason=by.reason or action,
                    now=self._clock.now(),
                )
            return Change(member.available, after)

        return await self._db.write(unit)

    def _record(
        self,
        tx: sqlite3.Connection,
        by: Moderator,
        target_id: int | None,
        action: str,
        before: int,
        after: int,
    ) -> bool:
        act = guilds.Act(
            interaction_id=by.interaction_id,
            guild_id=by.guild_id,
            actor_id=by.actor_id,
            target_id=target_id,
            action=action,
            before=before,
            after=after,
            reason=by.reason,
            at=self._clock.now(),
        )
        return guilds.record(tx, act)


def _check_amount(amount: int, *, least: int) -> None:
    if not least <= amount <= AMOUNT_MAX:
        raise InvalidOption(f"Please give an amount from {least} to {AMOUNT_MAX:,}.")
