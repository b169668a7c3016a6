"""Who may spend what: prices, allowance, quota, hold, settle, refund.

The policy over `db/ledger.py`. Functions that take a `tx` are steps of a caller's
transaction, so that quota, hold and job are decided and stored together.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from bot.clock import DAY_S, Clock, utc_day
from bot.credits.limits import AMOUNT_MAX, Ceilings, Explanation, Limits, Person
from bot.errors import InvalidOption, NotAllowed, NotEnoughCredits
from bot.moderation.audit import Change, Difference, Moderator, record
from bot.params import Img2ImgParams
from bot.pictures.sizes import MEGAPIXEL
from bot.text import credits_text
from db import guilds as rules
from db import ledger
from db import members as guilds
from db.database import Database

#: Who acts when the bot itself does.
THE_BOT: Final = 0


@dataclass(frozen=True, slots=True)
class Prices:
    """What one backend's pictures cost, in credits."""

    per_sample: int
    per_megapixel_step: float
    per_step: float = 0.0
    per_megapixel: float = 0.0

    def of(self, params: Img2ImgParams, pixels: int) -> int:
        """Return the price of `params.samples` pictures of `pixels` each.

        Each costs per_sample + (steps × per_step + megapixels × (per_megapixel + steps ×
        per_megapixel_step)), what is in brackets rounded up.
        """
        steps, megapixels = params.num_inference_steps, pixels / MEGAPIXEL
        work = steps * self.per_step + megapixels * (self.per_megapixel + steps * self.per_megapixel_step)
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


class Credits:
    """Every rule about credits, for members and for moderators."""

    def __init__(
        self,
        *,
        db: Database,
        clock: Clock,
        prices: Prices,
        daily_allowance: int,
        ceilings: Ceilings | None = None,
        prices_of: Mapping[str, Prices] | None = None,
    ) -> None:
        """Set the policy: `prices`, or those of a backend in `prices_of`, by its name."""
        self._db = db
        self._clock = clock
        self.prices = prices
        self._prices_of = dict(prices_of or {})
        self.limits = Limits(clock=clock, daily_allowance=daily_allowance, ceilings=ceilings or Ceilings())

    def price(self, params: Img2ImgParams, pixels: int, *, backend: str) -> int:
        """Return what the pictures cost on the backend of this name."""
        return self._prices_of.get(backend, self.prices).of(params, pixels)

    def today(self, tx: sqlite3.Connection) -> int:
        """Return the UTC day that counts, as days since 1970: it never goes back."""
        return guilds.advance_day(tx, utc_day(self._clock.now()))

    # ------------------------------------------------------------- for a job

    def hold(
        self,
        tx: sqlite3.Connection,
        *,
        job_id: int,
        guild_id: int,
        user_id: int,
        amount: int,
        roles: frozenset[int] = frozenset(),
    ) -> None:
        """Set `amount` aside, allowance first, for a member who has these roles.

        Raises `NotEnoughCredits`, saying what is missing and when enough is back.
        """
        now = self._clock.now()
        who = Person(guild_id, user_id, roles)
        allowance = self._refresh_allowance(tx, who, day=self.today(tx), now=now)
        balance = ledger.account(tx, kind="user", guild_id=guild_id, user_id=user_id)
        if allowance.available + balance.available < amount:
            raise self._missing(tx, who, amount, allowance.available, balance.available)
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
        self, tx: sqlite3.Connection, who: Person, amount: int, allowance_left: int, balance: int
    ) -> NotEnoughCredits:
        daily = self.limits.allowance(tx, who).amount or 0
        have = allowance_left + balance
        sentence = f"That costs {credits_text(amount)} and you have {have:,}: {amount - have:,} are missing."
        if daily + balance >= amount:
            return NotEnoughCredits(
                f"{sentence} Your daily allowance of {daily:,} comes back",
                until=(self.today(tx) + 1) * DAY_S,
            )
        return NotEnoughCredits(
            f"{sentence} Please ask a moderator for more, or choose fewer samples or steps."
        )

    # ----------------------------------------------------------- the allowance

    def _refresh_allowance(
        self, tx: sqlite3.Connection, who: Person, *, day: int, now: float
    ) -> ledger.Account:
        """Bring the member's allowance account to today and to the limits in force."""
        member = guilds.member(tx, guild_id=who.guild_id, user_id=who.user_id)
        found = ledger.account(tx, kind="allowance", guild_id=who.guild_id, user_id=who.user_id)
        due = self.limits.allowance(tx, who).amount or 0
        if found.frozen or (member.day == day and member.given == due):
            return found
        if member.day != day:
            # A new day replaces what was left.
            return self._give(tx, who, change=due - found.available, given=due, day=day, now=now)
        # Within a day only the limit's change counts. What was spent already can't be taken
        # back: it stays given, so that a limit that falls and rises again gives nothing twice.
        change = max(due - member.given, -found.available)
        return self._give(tx, who, change=change, given=member.given + change, day=day, now=now)

    def _give(
        self, tx: sqlite3.Connection, who: Person, *, change: int, given: int, day: int, now: float
    ) -> ledger.Account:
        """Move `change` between the mint and the member's allowance; `given` is what he had today."""
        key = {"guild_id": who.guild_id, "user_id": who.user_id}
        revision = guilds.save_given(tx, **key, day=day, given=given)
        allowance = ledger.account(tx, kind="allowance", **key)
        mint = ledger.account(tx, kind="mint")
        if change:
            src, dst = (mint, allowance) if change > 0 else (allowance, mint)
            ledger.move(
                tx,
                transfer_id=f"allowance:{who.guild_id}:{who.user_id}:{day}:{revision}",
                src=src.id,
                dst=dst.id,
                amount=abs(change),
                actor_id=THE_BOT,
                reason="daily allowance",
                now=now,
            )
        return ledger.account(tx, kind="allowance", **key)

    # ------------------------------------------------------------ for members

    async def wallet(self, *, guild_id: int, user_id: int, roles: frozenset[int] = frozenset()) -> Wallet:
        """Return what a member with these roles can spend in this server."""
        return await self._db.write(lambda tx: self.wallet_of(tx, Person(guild_id, user_id, roles)))

    def wallet_of(self, tx: sqlite3.Connection, who: Person) -> Wallet:
        """Return what the member can spend, his allowance brought to today."""
        now = self._clock.now()
        day = self.today(tx)
        allowance = self._refresh_allowance(tx, who, day=day, now=now)
        balance = ledger.account(tx, kind="user", guild_id=who.guild_id, user_id=who.user_id)
        return Wallet(
            allowance=self.limits.allowance(tx, who).amount or 0,
            allowance_left=allowance.available,
            resets_at=(day + 1) * DAY_S,
            balance=balance.available,
            on_hold=allowance.held + balance.held,
        )

    async def explain(self, who: Person) -> tuple[Wallet, Explanation]:
        """Return what the member can spend, and every limit that holds for him with its rule."""

        def unit(tx: sqlite3.Connection) -> tuple[Wallet, Explanation]:
            wallet = self.wallet_of(tx, who)
            return wallet, self.limits.explain(tx, who, day=self.today(tx))

        return await self._db.write(unit)

    async def statement(self, *, guild_id: int, user_id: int, limit: int) -> list[ledger.Entry]:
        """Return the member's latest transfers in this server, newest first."""
        return await self._db.read(
            lambda tx: ledger.entries(tx, guild_id=guild_id, user_id=user_id, limit=limit)
        )

    async def give(self, by: Moderator, *, to_user_id: int, amount: int) -> Change:
        """Move `amount` of the member `by.actor_id`'s balance to another; return the giver's balance.

        Raises `NotAllowed` where moderators don't allow it, `NotEnoughCredits` for more than he has.
        """

        def unit(tx: sqlite3.Connection) -> Change:
            giver, taker = (
                ledger.account(tx, kind="user", guild_id=by.guild_id, user_id=user_id)
                for user_id in (by.actor_id, to_user_id)
            )
            change = Change(giver.available, giver.available - amount)
            if not record(tx, by, action="give", target_id=to_user_id, change=change, now=self._clock.now()):
                return Change(giver.available, giver.available)
            self._check_giving(tx, by, to_user_id=to_user_id, amount=amount, has=giver.available)
            self._move(tx, by, "give", src=giver, dst=taker, amount=amount)
            return change

        if by.actor_id == to_user_id:
            raise InvalidOption("Those are yours already; please choose another member.")
        return await self._db.write(unit)

    def _check_giving(
        self, tx: sqlite3.Connection, by: Moderator, *, to_user_id: int, amount: int, has: int
    ) -> None:
        if not rules.of_guild(tx, by.guild_id).giving:
            raise NotAllowed("The moderators of this server don't allow giving credits to each other.")
        for user_id in (by.actor_id, to_user_id):
            if guilds.member(tx, guild_id=by.guild_id, user_id=user_id).blocked:
                raise NotAllowed("A member who is kept from using the bot can neither give nor get credits.")
        if not 1 <= amount <= AMOUNT_MAX:
            raise InvalidOption(f"Please give an amount from 1 to {AMOUNT_MAX:,}.")
        if amount > has:
            raise NotEnoughCredits(
                f"You want to give {credits_text(amount)} and your balance is {has:,};"
                " the daily allowance can't be given."
            )

    # --------------------------------------------------------- for moderators

    async def set_allowance(self, by: Moderator, *, user_id: int, allowance: int | None) -> Change:
        """Set a member's own daily allowance, from now on and for what is left of today."""
        who = Person(by.guild_id, user_id)
        return await self._db.write(lambda tx: self.allowance_set(tx, by, who, allowance=allowance))

    def allowance_set(
        self, tx: sqlite3.Connection, by: Moderator, who: Person, *, allowance: int | None
    ) -> Change:
        """Set a member's own daily allowance; None gives back what his roles or the server give."""
        self.limits.check_allowance(allowance)
        before = self.limits.allowance(tx, who).amount or 0
        key = {"guild_id": who.guild_id, "user_id": who.user_id}
        old = guilds.member(tx, **key).allowance
        guilds.set_member_allowance(tx, **key, allowance=allowance)
        change = Change(before, self.limits.allowance(tx, who).amount or 0)
        now = self._clock.now()
        if not record(tx, by, action="set", target_id=who.user_id, change=change, now=now):
            guilds.set_member_allowance(tx, **key, allowance=old)
            return Change(before, before)
        self.wallet_of(tx, who)
        return change

    async def set_default(self, by: Moderator, *, allowance: int) -> Change:
        """Set the server's daily allowance, for every member without his own."""

        def unit(tx: sqlite3.Connection) -> Change:
            self.limits.check_allowance(allowance)
            before = self.limits.server_allowance(tx, by.guild_id).amount or 0
            change = Change(before, allowance)
            if record(tx, by, action="default", change=change, now=self._clock.now()):
                guilds.set_guild_allowance(tx, guild_id=by.guild_id, allowance=allowance)
            return change

        return await self._db.write(unit)

    async def grant(self, by: Moderator, *, user_id: int, amount: int) -> Change:
        """Add `amount` to a member's balance."""
        return await self._db.write(
            lambda tx: self.adjusted(tx, by, user_id=user_id, amount=amount, action="grant")
        )

    async def take(self, by: Moderator, *, user_id: int, amount: int) -> Change:
        """Take `amount` from a member's balance, or what is there if it is less."""
        return await self._db.write(
            lambda tx: self.adjusted(tx, by, user_id=user_id, amount=amount, action="take")
        )

    def adjusted(
        self, tx: sqlite3.Connection, by: Moderator, *, user_id: int, amount: int, action: str
    ) -> Change:
        """Grant or take, as `action` says; an interaction counts once."""
        self.limits.check_amount(amount)
        member = ledger.account(tx, kind="user", guild_id=by.guild_id, user_id=user_id)
        mint = ledger.account(tx, kind="mint")
        moved = amount if action == "grant" else min(amount, member.available)
        change = Change(member.available, member.available + (moved if action == "grant" else -moved))
        if not record(tx, by, action=action, target_id=user_id, change=change, now=self._clock.now()):
            return Change(member.available, member.available)
        src, dst = (mint, member) if action == "grant" else (member, mint)
        if moved:
            self._move(tx, by, action, src=src, dst=dst, amount=moved)
        return change

    def _move(
        self,
        tx: sqlite3.Connection,
        by: Moderator,
        action: str,
        *,
        src: ledger.Account,
        dst: ledger.Account,
        amount: int,
    ) -> None:
        try:
            ledger.move(
                tx,
                transfer_id=f"{action}:{by.interaction_id}",
                src=src.id,
                dst=dst.id,
                amount=amount,
                actor_id=by.actor_id,
                reason=by.reason or action,
                now=self._clock.now(),
            )
        except ledger.FrozenAccountError as error:
            raise NotAllowed(_FROZEN) from error

    def reset(self, tx: sqlite3.Connection, by: Moderator, *, user_id: int) -> Difference | None:
        """Give a member back what he spent of today's allowance; None if there is nothing to give.

        What is on hold stays counted: it comes back by itself, or was spent after all.
        """
        day = self.today(tx)
        key = {"guild_id": by.guild_id, "user_id": user_id}
        member = guilds.member(tx, **key)
        account = ledger.account(tx, kind="allowance", **key)
        change = member.given - account.posted
        if member.day != day or change <= 0 or account.frozen:
            return None
        who = Person(by.guild_id, user_id)
        after = self._give(tx, who, change=change, given=member.given, day=day, now=self._clock.now())
        what = f"what is left of <@{user_id}>'s allowance today"
        return Difference(what, f"{account.available:,}", f"{after.available:,}")

    def freeze(self, tx: sqlite3.Connection, by: Moderator, *, user_id: int, frozen: bool) -> bool:
        """Freeze or free a member's two accounts; return whether they were frozen before."""
        accounts = [
            ledger.account(tx, kind=kind, guild_id=by.guild_id, user_id=user_id) for kind in _MEMBERS_KINDS
        ]
        for account in accounts:
            ledger.set_frozen(tx, account_id=account.id, frozen=frozen)
        return any(account.frozen for account in accounts)


_FROZEN: Final = "These credits are frozen; a moderator can free them with /quota freeze."
_MEMBERS_KINDS: Final[tuple[ledger.Kind, ...]] = ("user", "allowance")
