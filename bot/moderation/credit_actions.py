"""Actions that move or limit a member's credits."""

from __future__ import annotations

import sqlite3
from typing import ClassVar, Final, Literal

from bot.actors import Permission, Person
from bot.credits.limits import AMOUNT_MAX
from bot.errors import InvalidOption, NotAllowed, NotEnoughCredits
from bot.moderation.actions import ActionContext, MemberAction, ModerationAction
from bot.moderation.changes import Change, Changes
from bot.text import credits_text
from db import guilds, ledger, members
from db.ledger import Account, AccountKind, NewTransfer

#: From here on a grant is confirmed first: 25 days of the default allowance, easily a zero too many.
LARGE_AMOUNT: Final = 1_000
_MEMBER_ACCOUNTS: Final[tuple[AccountKind, ...]] = ("user", "allowance")


class SetAllowance(MemberAction):
    """Set a member's own daily allowance; None removes it, so that roles and server decide again.

    `roles` are those that the member has now.
    """

    kind: Literal["set"] = "set"
    allowance: int | None
    roles: frozenset[int] = frozenset()

    def apply(self, tx: sqlite3.Connection, context: ActionContext) -> Changes:
        """Set it, from now on and for what is left of today."""
        context.limits.check_allowance(self.allowance)
        who = Person(context.actor.guild_id, self.user_id, self.roles)
        before = context.allowance.amount(tx, who)
        own = members.get_member(tx, guild_id=who.guild_id, user_id=who.user_id).allowance
        members.set_allowance(tx, guild_id=who.guild_id, user_id=who.user_id, allowance=self.allowance)
        after = context.allowance.amount(tx, who)
        context.allowance.refresh(tx, who, day=context.allowance.advance_to_today(tx))
        if before == after and own != self.allowance:
            # The same number from another rule: it is the rule that changed.
            return (Change("own_allowance", own, self.allowance, self.user_id),)
        return (Change("member_allowance", before, after, self.user_id),)


class _Adjust(MemberAction):
    amount: int

    @property
    def is_wide(self) -> bool:
        """Large amounts are confirmed."""
        return self.amount >= LARGE_AMOUNT


class Grant(_Adjust):
    """Add credits to a member's balance."""

    kind: Literal["grant"] = "grant"

    def apply(self, tx: sqlite3.Connection, context: ActionContext) -> Changes:
        """Move them from the mint."""
        context.limits.check_amount(self.amount)
        member, mint = _balance(tx, context, self.user_id), ledger.get_or_create_account(tx, kind="mint")
        _move(tx, context, self.kind, mint, member, self.amount)
        return (Change("balance", member.available, member.available + self.amount, self.user_id),)


class Take(_Adjust):
    """Take credits from a member's balance, or what is there if it is less."""

    kind: Literal["take"] = "take"

    def apply(self, tx: sqlite3.Connection, context: ActionContext) -> Changes:
        """Move them to the mint."""
        context.limits.check_amount(self.amount)
        member, mint = _balance(tx, context, self.user_id), ledger.get_or_create_account(tx, kind="mint")
        taken = min(self.amount, member.available)
        if taken:
            _move(tx, context, self.kind, member, mint, taken)
        return (Change("balance", member.available, member.available - taken, self.user_id),)


class Give(MemberAction):
    """Give credits of one's own balance to another member, where moderators allow it."""

    needs: ClassVar[Permission | None] = None

    kind: Literal["give"] = "give"
    amount: int

    def apply(self, tx: sqlite3.Connection, context: ActionContext) -> Changes:
        """Move them. The allowance can't be given: it is free and would multiply."""
        giver_id = context.actor.user_id
        giver, receiver = _balance(tx, context, giver_id), _balance(tx, context, self.user_id)
        self._check(tx, context, has=giver.available)
        _move(tx, context, self.kind, giver, receiver, self.amount)
        return (
            Change("balance", giver.available, giver.available - self.amount, giver_id),
            Change("balance", receiver.available, receiver.available + self.amount, self.user_id),
        )

    def _check(self, tx: sqlite3.Connection, context: ActionContext, *, has: int) -> None:
        guild_id, giver_id = context.actor.guild_id, context.actor.user_id
        if giver_id == self.user_id:
            raise InvalidOption("You can't give credits to yourself; please choose another member.")
        if not guilds.get_settings(tx, guild_id).giving:
            raise NotAllowed("Giving credits is turned off in this server; moderators can turn it on.")
        for user_id in (giver_id, self.user_id):
            if members.get_member(tx, guild_id=guild_id, user_id=user_id).blocked:
                raise NotAllowed("Blocked members can't give or receive credits; please ask a moderator.")
        if not 1 <= self.amount <= AMOUNT_MAX:
            raise InvalidOption(f"Please choose a value from 1 to {AMOUNT_MAX:,} for the amount.")
        if self.amount > has:
            raise NotEnoughCredits(
                f"You can't give {credits_text(self.amount)}: your balance is {has:,}"
                " (the daily allowance can't be given). Please choose a smaller amount."
            )


class ResetAllowance(ModerationAction):
    """Return what was spent of today's allowance, to one member or, with None, to everyone."""

    kind: Literal["reset"] = "reset"
    user_id: int | None

    @property
    def target_id(self) -> int | None:
        """The member."""
        return self.user_id

    @property
    def is_wide(self) -> bool:
        """Everyone at once is confirmed."""
        return self.user_id is None

    def apply(self, tx: sqlite3.Connection, context: ActionContext) -> Changes:
        """Fill up the allowance accounts."""
        guild_id = context.actor.guild_id
        return tuple(
            Change("allowance_left", *left, user_id)
            for user_id in self._user_ids(tx, context)
            if (left := context.allowance.give_back(tx, Person(guild_id, user_id)))
        )

    def _user_ids(self, tx: sqlite3.Connection, context: ActionContext) -> list[int]:
        if self.user_id is not None:
            return [self.user_id]
        day = context.allowance.advance_to_today(tx)
        return members.members_given_on(tx, guild_id=context.actor.guild_id, day=day)


class FreezeMember(MemberAction):
    """Freeze a member's credits, so that nothing goes in or out, or unfreeze them."""

    kind: Literal["freeze"] = "freeze"
    frozen: bool

    def apply(self, tx: sqlite3.Connection, context: ActionContext) -> Changes:
        """Set the flag on the member's accounts."""
        key = {"guild_id": context.actor.guild_id, "user_id": self.user_id}
        accounts = [ledger.get_or_create_account(tx, kind=kind, **key) for kind in _MEMBER_ACCOUNTS]
        for account in accounts:
            ledger.set_frozen(tx, account_id=account.id, frozen=self.frozen)
        before = any(account.frozen for account in accounts)
        return (Change("member_frozen", before, self.frozen, self.user_id),)


def _balance(tx: sqlite3.Connection, context: ActionContext, user_id: int) -> Account:
    return ledger.get_or_create_account(tx, kind="user", guild_id=context.actor.guild_id, user_id=user_id)


def _move(
    tx: sqlite3.Connection, context: ActionContext, kind: str, src: Account, dst: Account, amount: int
) -> None:
    actor = context.actor
    transfer = NewTransfer(
        id=f"{kind}:{actor.interaction_id}",
        src=src.id,
        dst=dst.id,
        amount=amount,
        actor_id=actor.user_id,
        reason=actor.reason or kind,
        now=context.now,
    )
    try:
        ledger.move(tx, transfer)
    except ledger.AccountFrozen as error:
        raise NotAllowed("These credits are frozen; a moderator has to unfreeze them first.") from error
