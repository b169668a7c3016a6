"""API keys with budgets: secrets as salted hashes, budgets in the bot's own kind of ledger (`db.ledger`).

A key's budget is an account, in units of a thousandth of a credit. A request's price is held before
the work, posted when the picture is made and voided when it is not; its id makes each happen once.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from bot.clock import Clock
from bot.errors import NotAllowed, NotEnoughCredits, OperatorError
from db import api_keys, ledger
from db.api_keys import NewApiKey
from db.database import Database
from db.ledger import NewTransfer

#: A picture of 16 x 16 pixels in one step still costs a whole unit.
UNITS_PER_CREDIT: Final = 1000
#: A hold this old that was neither posted nor voided belongs to a server that died: no request lasts so long.
ORPHANED_AFTER_S: Final = 3600.0

#: In units still far below the largest integer of SQLite.
_CREDITS_MAX: Final = 10**9
#: The ledger's `actor_id` for budgets; the ids of keys start at 1.
_OPERATOR: Final = 0


@dataclass(frozen=True, slots=True)
class ApiKey:
    """One key as the operator sees it, without its secret; `units` are what it can spend."""

    id: int
    name: str
    units: int
    revoked: bool


@dataclass(frozen=True, slots=True)
class Charge:
    """What a request was charged, and what its key had left then; both in units."""

    key_id: int
    request_id: str
    units: int
    units_left: int


class ApiKeys:
    """The keys of one file. Every change is one transaction, on disk before the method returns."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def add(self, name: str, *, credits_given: float) -> str:
        """Make a key with a budget and return it: the only time that it can be read.

        Raises `OperatorError` if the name is taken or the budget is out of range.
        """
        if not 1 / UNITS_PER_CREDIT <= credits_given <= _CREDITS_MAX:
            raise OperatorError(f"A budget is at least 0.001 and at most {_CREDITS_MAX} credits.")
        handle, secret, salt = secrets.token_hex(4), secrets.token_urlsafe(32), secrets.token_bytes(16)
        key = NewApiKey(name, handle, salt, _hash(salt, secret), self._clock.now())
        units = round(credits_given * UNITS_PER_CREDIT)
        try:
            await self._database.write(lambda tx: _insert_key(tx, key, units=units))
        except sqlite3.IntegrityError as error:
            raise OperatorError(
                f"{name!r} can't be the name of a new key: it is taken, empty or too long."
            ) from error
        return f"{handle}.{secret}"

    async def revoke(self, name: str) -> None:
        """Revoke a key for good. Raises `OperatorError` if no active key has that name."""
        now = self._clock.now()
        if not await self._database.write(lambda tx: api_keys.revoke(tx, name, now=now)):
            raise OperatorError(f"No active key is called {name!r}; `gpu keys list` shows all keys.")

    async def list_all(self) -> Sequence[ApiKey]:
        """Return all keys by name, revoked ones included."""
        return await self._database.read(_list_all)

    async def has_active_key(self) -> bool:
        """Return whether any key is active."""
        return await self._database.read(api_keys.has_active)

    async def authenticate(self, presented: str) -> int:
        """Return the id of the key that a client `presented`. Raises `NotAllowed` if it is not active."""
        handle, _, secret = presented.partition(".")
        found = await self._database.read(lambda tx: api_keys.find_active(tx, handle))
        key_id, salt, expected = found or (0, b"", b"")
        # An unknown key is hashed as well, so that the time taken does not tell it from a wrong secret.
        if not hmac.compare_digest(_hash(salt, secret), expected):
            raise NotAllowed("The API key is missing, wrong or revoked.")
        return key_id

    async def available_units(self, key_id: int) -> int:
        """Return what a key can spend now, in units, without what is held."""
        return await self._database.read(lambda tx: _available_units(tx, key_id))

    async def charge(self, *, key_id: int, request_id: str, units: int) -> Charge:
        """Hold `units` (at least 1) for a request. Raises `NotEnoughCredits` and then holds nothing."""
        now = self._clock.now()
        return await self._database.write(
            lambda tx: _hold_charge(tx, key_id=key_id, request_id=request_id, units=units, now=now)
        )

    async def post(self, charge: Charge) -> None:
        """Post a charge for good, unless it was refunded before."""
        now = self._clock.now()
        await self._database.write(lambda tx: _settle_hold(tx, charge, made=True, now=now))

    async def refund(self, charge: Charge) -> None:
        """Refund a charge, once, unless it was posted before."""
        now = self._clock.now()
        await self._database.write(lambda tx: _settle_hold(tx, charge, made=False, now=now))

    async def refund_orphans(self) -> int:
        """Refund the charges of servers that died while working, and return how many there were."""
        now = self._clock.now()
        return await self._database.write(lambda tx: _void_orphans(tx, now))


def _insert_key(tx: sqlite3.Connection, key: NewApiKey, *, units: int) -> None:
    key_id = api_keys.insert(tx, key)
    budget = NewTransfer(
        id=f"budget:{key_id}",
        src=ledger.get_or_create_account(tx, kind="mint").id,
        dst=ledger.get_or_create_account(tx, kind="user", user_id=key_id).id,
        amount=units,
        actor_id=_OPERATOR,
        reason="budget",
        now=key.created_at,
    )
    ledger.move(tx, budget)


def _list_all(tx: sqlite3.Connection) -> list[ApiKey]:
    return [
        ApiKey(key_id, name, _available_units(tx, key_id), revoked)
        for key_id, name, revoked in api_keys.list_all(tx)
    ]


def _available_units(tx: sqlite3.Connection, key_id: int) -> int:
    return ledger.peek_account(tx, kind="user", guild_id=0, user_id=key_id).available


def _hold_charge(tx: sqlite3.Connection, *, key_id: int, request_id: str, units: int, now: float) -> Charge:
    transfer = NewTransfer(
        id=_transfer_id(request_id),
        src=ledger.get_or_create_account(tx, kind="user", user_id=key_id).id,
        dst=ledger.get_or_create_account(tx, kind="provider").id,
        amount=units,
        actor_id=key_id,
        reason="request",
        now=now,
    )
    try:
        ledger.hold(tx, transfer)
    except ledger.InsufficientCredits as error:
        left = _available_units(tx, key_id) / UNITS_PER_CREDIT
        sentence = f"Not enough credits: this costs {units / UNITS_PER_CREDIT:g}, the key has {left:g} left."
        raise NotEnoughCredits(sentence) from error
    return Charge(key_id, request_id, units, _available_units(tx, key_id))


def _transfer_id(request_id: str) -> str:
    return f"request:{request_id}"


def _settle_hold(tx: sqlite3.Connection, charge: Charge, *, made: bool, now: float) -> None:
    transfer_id = _transfer_id(charge.request_id)
    if not ledger.is_pending(tx, transfer_id):
        return
    if made:
        ledger.post(tx, transfer_id=transfer_id, charged=charge.units, now=now)
    else:
        ledger.void(tx, transfer_id=transfer_id, now=now)


def _void_orphans(tx: sqlite3.Connection, now: float) -> int:
    orphans = ledger.pending_before(tx, now - ORPHANED_AFTER_S)
    for transfer_id in orphans:
        ledger.void(tx, transfer_id=transfer_id, now=now)
    return len(orphans)


def _hash(salt: bytes, secret: str) -> bytes:
    # The secret is 256 random bits, too many to guess, so it needs no slow hash as passwords do.
    return hashlib.sha256(salt + secret.encode()).digest()
