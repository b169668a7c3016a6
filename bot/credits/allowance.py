"""The daily allowance: free credits that each member gets once a UTC day and that don't add up.

It is an account of its own in the ledger, filled from the mint and spent before the balance.
"""

from __future__ import annotations

import sqlite3
from typing import Final

from bot.actors import Person
from bot.clock import Clock, utc_day
from bot.credits.limits import Limits
from db import ledger, members, meta
from db.ledger import Account, NewTransfer

THE_BOT: Final = 0  # the ledger's actor where nobody acted


class DailyAllowance:
    """Keeps members' allowance accounts at what the day and the limits give them."""

    def __init__(self, *, clock: Clock, limits: Limits) -> None:
        self._clock = clock
        self._limits = limits

    def advance_to_today(self, tx: sqlite3.Connection) -> int:
        """Return the UTC day that counts, as days since 1970, and store it: it never goes back."""
        return meta.advance_day(tx, utc_day(self._clock.now()))

    def amount(self, tx: sqlite3.Connection, who: Person) -> int:
        """Return the member's credits a day."""
        return self._limits.allowance(tx, who).amount or 0

    def refresh(self, tx: sqlite3.Connection, who: Person, *, day: int) -> Account:
        """Bring the member's allowance account to this day and to the limits in force; return it."""
        member = members.get_member(tx, guild_id=who.guild_id, user_id=who.user_id)
        account = _account_of(tx, who)
        due = self.amount(tx, who)
        if account.frozen or (member.day == day and member.given == due):
            return account
        if member.day != day:
            # A new day replaces what was left.
            return self._give(tx, who, change=due - account.available, given=due, day=day)
        # Within a day only the limit's change counts. What was spent already can't be taken
        # back: it stays given, so that a limit that falls and rises again gives nothing twice.
        change = max(due - member.given, -account.available)
        return self._give(tx, who, change=change, given=member.given + change, day=day)

    def give_back(self, tx: sqlite3.Connection, who: Person) -> tuple[int, int] | None:
        """Return what the member spent of today's allowance to them; None if there is nothing to return.

        What is on hold stays counted: it is released, or was spent after all. Returns the
        credits left before and after.
        """
        day = self.advance_to_today(tx)
        member = members.get_member(tx, guild_id=who.guild_id, user_id=who.user_id)
        account = _account_of(tx, who)
        change = member.given - account.posted
        if member.day != day or change <= 0 or account.frozen:
            return None
        after = self._give(tx, who, change=change, given=member.given, day=day)
        return account.available, after.available

    def _give(self, tx: sqlite3.Connection, who: Person, *, change: int, given: int, day: int) -> Account:
        """Move `change` between the mint and the member's allowance; `given` is their total of the day."""
        revision = members.set_given(tx, guild_id=who.guild_id, user_id=who.user_id, day=day, given=given)
        account, mint = _account_of(tx, who), ledger.get_or_create_account(tx, kind="mint")
        if change:
            src, dst = (mint, account) if change > 0 else (account, mint)
            transfer = NewTransfer(
                id=f"allowance:{who.guild_id}:{who.user_id}:{day}:{revision}",
                src=src.id,
                dst=dst.id,
                amount=abs(change),
                actor_id=THE_BOT,
                reason="daily allowance",
                now=self._clock.now(),
            )
            ledger.move(tx, transfer)
        return _account_of(tx, who)


def _account_of(tx: sqlite3.Connection, who: Person) -> Account:
    return ledger.get_or_create_account(tx, kind="allowance", guild_id=who.guild_id, user_id=who.user_id)
