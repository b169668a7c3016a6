"""API keys with budgets: secrets as salted hashes, money in the bot's own kind of ledger (`db.ledger`).

A key's budget is an account, in units of a thousandth of a credit. A request's price is held before
the work, posted when the picture is made and voided when it is not; its id makes each happen once.

The file has the bot's whole schema, so that a migration of the ledger is one for both, and `reconcile`
finds what it looks at; the tables for Discord stay empty. Several servers may share one file.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bot.clock import Clock, SystemClock
from bot.errors import NotAllowed, NotEnoughCredits, OperatorError
from db import ledger
from db.database import Database, DatabaseUnfitError, connect, migrate, opened

UNITS_A_CREDIT: Final = 1000
#: A hold this old that was neither posted nor voided belongs to a server that died.
ORPHANED_AFTER_S: Final = 3600.0
#: "i2k" and a version, in SQLite's header: tells a file of keys from the bot's own database.
_APPLICATION_ID: Final = 0x69326B01
_CREDITS_MAX: Final = 10**9
_LOCKED_MAX_S: Final = 10.0
_LOCKED_WAIT_S: Final = 0.05
_OPERATOR: Final = 0

#: Each statement is harmless when another process has run it already.
_SCHEMA: Final = (
    """
    CREATE TABLE IF NOT EXISTS api_key (
        id         INTEGER PRIMARY KEY,
        name       TEXT NOT NULL UNIQUE CHECK (length(name) BETWEEN 1 AND 64),
        handle     TEXT NOT NULL UNIQUE,
        salt       BLOB NOT NULL CHECK (length(salt) = 16),
        hash       BLOB NOT NULL CHECK (length(hash) = 32),
        created_at REAL NOT NULL,
        revoked_at REAL
    ) STRICT
    """,
    "CREATE INDEX IF NOT EXISTS api_key_pending ON transfer (created_at) WHERE state = 'pending'",
)


@dataclass(frozen=True, slots=True)
class Key:
    """One key as the operator sees it: never its secret."""

    id: int
    name: str
    units: int
    revoked: bool


@dataclass(frozen=True, slots=True)
class Charge:
    """What a request was charged, and what its key has left; both in units."""

    key_id: int
    request_id: str
    units: int
    units_left: int


class Keys:
    """The keys of one file. Every change is one transaction, on disk before it is told."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def add(self, name: str, *, credits_given: float) -> str:
        """Make a key with a budget and return it: the one time that it can be read.

        Raises `OperatorError` if the name is taken or the budget is no amount.
        """
        if not 1 / UNITS_A_CREDIT <= credits_given <= _CREDITS_MAX:
            raise OperatorError(f"A budget is at least 0.001 and at most {_CREDITS_MAX} credits.")
        handle, secret, salt = secrets.token_hex(4), secrets.token_urlsafe(32), secrets.token_bytes(16)
        row = (name, handle, salt, _hash(salt, secret), self._clock.now())
        units = round(credits_given * UNITS_A_CREDIT)
        try:
            await self._database.write(lambda tx: _insert(tx, row, units=units, now=self._clock.now()))
        except sqlite3.IntegrityError as error:
            raise OperatorError(
                f"{name!r} can't be a new key's name: it is taken, empty or too long."
            ) from error
        return f"{handle}.{secret}"

    async def revoke(self, name: str) -> None:
        """End a key for good. Raises `OperatorError` if no live key has that name."""
        query = "UPDATE api_key SET revoked_at = ? WHERE name = ? AND revoked_at IS NULL"
        row = (self._clock.now(), name)
        if await self._database.write(lambda tx: tx.execute(query, row).rowcount) != 1:
            raise OperatorError(f"No live key is called {name!r}; `gpu keys list` shows them.")

    async def all(self) -> Sequence[Key]:
        """Return all keys, the revoked ones too, by name."""
        return await self._database.read(_all)

    async def any_live(self) -> bool:
        """Return whether any key works."""
        query = "SELECT EXISTS (SELECT 1 FROM api_key WHERE revoked_at IS NULL)"
        return bool(await self._database.read(lambda tx: tx.execute(query).fetchone()[0]))

    async def find(self, presented: str) -> int:
        """Return the id of the key that a client `presented`. Raises `NotAllowed` if it does not work."""
        handle, _, secret = presented.partition(".")
        query = "SELECT id, salt, hash FROM api_key WHERE handle = ? AND revoked_at IS NULL"
        row = await self._database.read(lambda tx: tx.execute(query, (handle,)).fetchone())
        key_id, salt, expected = row or (0, b"", b"")
        if not hmac.compare_digest(_hash(salt, secret), expected):
            raise NotAllowed("The API key is missing, wrong or revoked.")
        return int(key_id)

    async def units(self, key_id: int) -> int:
        """Return what a key can spend now, in units: what is held is not in it."""
        return await self._database.read(lambda tx: _left(tx, key_id))

    async def charge(self, *, key_id: int, request_id: str, units: int) -> Charge:
        """Hold `units` (at least 1) for a request. Raises `NotEnoughCredits`, and holds nothing then."""
        now = self._clock.now()
        return await self._database.write(
            lambda tx: _charge(tx, key_id=key_id, request_id=request_id, units=units, now=now)
        )

    async def keep(self, charge: Charge) -> None:
        """Post a charge, for good, unless it was given back."""
        now = self._clock.now()
        await self._database.write(lambda tx: _settle(tx, charge, earned=True, now=now))

    async def refund(self, charge: Charge) -> None:
        """Give a charge back, once, unless it was posted."""
        now = self._clock.now()
        await self._database.write(lambda tx: _settle(tx, charge, earned=False, now=now))

    async def refund_orphans(self) -> int:
        """Give back the charges of servers that died at work, and return how many there were."""
        now = self._clock.now()
        return await self._database.write(lambda tx: _void_orphans(tx, now))


def _insert(tx: sqlite3.Connection, row: tuple[object, ...], *, units: int, now: float) -> None:
    query = "INSERT INTO api_key (name, handle, salt, hash, created_at) VALUES (?, ?, ?, ?, ?)"
    key_id = tx.execute(query, row).lastrowid or 0
    ledger.move(
        tx,
        transfer_id=f"budget:{key_id}",
        src=ledger.account(tx, kind="mint").id,
        dst=ledger.account(tx, kind="user", user_id=key_id).id,
        amount=units,
        actor_id=_OPERATOR,
        reason="budget",
        now=now,
    )


def _all(tx: sqlite3.Connection) -> list[Key]:
    rows = tx.execute("SELECT id, name, revoked_at IS NOT NULL FROM api_key ORDER BY name").fetchall()
    return [Key(key_id, name, _left(tx, key_id), bool(revoked)) for key_id, name, revoked in rows]


def _left(tx: sqlite3.Connection, key_id: int) -> int:
    return ledger.peek_account(tx, kind="user", guild_id=0, user_id=key_id).available


def _charge(tx: sqlite3.Connection, *, key_id: int, request_id: str, units: int, now: float) -> Charge:
    try:
        ledger.hold(
            tx,
            transfer_id=_transfer_id(request_id),
            src=ledger.account(tx, kind="user", user_id=key_id).id,
            dst=ledger.account(tx, kind="provider").id,
            amount=units,
            actor_id=key_id,
            reason="request",
            now=now,
        )
    except ledger.InsufficientCreditsError as error:
        left = _left(tx, key_id) / UNITS_A_CREDIT
        sentence = f"Not enough credits: this takes {units / UNITS_A_CREDIT:g}, the key has {left:g} left."
        raise NotEnoughCredits(sentence) from error
    return Charge(key_id, request_id, units, _left(tx, key_id))


def _transfer_id(request_id: str) -> str:
    return f"request:{request_id}"


def _settle(tx: sqlite3.Connection, charge: Charge, *, earned: bool, now: float) -> None:
    transfer_id = _transfer_id(charge.request_id)
    query = "SELECT 1 FROM transfer WHERE id = ? AND state = 'pending'"
    if not tx.execute(query, (transfer_id,)).fetchone():
        return
    if earned:
        ledger.post(tx, transfer_id=transfer_id, charged=charge.units, now=now)
    else:
        ledger.void(tx, transfer_id=transfer_id, now=now)


def _void_orphans(tx: sqlite3.Connection, now: float) -> int:
    query = "SELECT id FROM transfer WHERE state = 'pending' AND created_at < ?"
    orphans = tx.execute(query, (now - ORPHANED_AFTER_S,)).fetchall()
    for orphan in orphans:
        ledger.void(tx, transfer_id=orphan["id"], now=now)
    return len(orphans)


def _hash(salt: bytes, secret: str) -> bytes:
    # The secret is 256 random bits, so that a fast hash gives nothing away.
    return hashlib.sha256(salt + secret.encode()).digest()


# --------------------------------------------------------------------- opening


@asynccontextmanager
async def open_keys(path: Path, clock: Clock | None = None) -> AsyncIterator[Keys]:
    """Open the file of keys at `path`, made if need be and readable by its owner alone.

    Several processes may have it open. Raises `OperatorError` if it can't be opened.
    """
    # The first connection stays: else another process that closes the file could lock out the next two.
    with closing(await _first(path)):
        async with opened(path) as database:
            yield Keys(database, clock or SystemClock())


async def _first(path: Path) -> sqlite3.Connection:
    """Return a connection to the file, its tables made.

    Turning to write-ahead logging fails at once, without the busy timeout, while another process does
    the same to a new file: so a locked file is tried again for a while.
    """
    time_s = asyncio.get_running_loop().time
    until_s = time_s() + _LOCKED_MAX_S
    while True:
        try:
            return await asyncio.to_thread(_prepared, path)
        except OSError as error:
            raise OperatorError(f"The file of keys {path} can't be opened.", detail=str(error)) from error
        except DatabaseUnfitError as error:
            raise OperatorError(str(error)) from error
        except sqlite3.DatabaseError as error:
            if "locked" not in str(error):
                raise OperatorError(f"{path} is not a file of keys.", detail=str(error)) from error
            if time_s() > until_s:
                raise OperatorError(f"{path} is locked by another program.", detail=str(error)) from error
        await asyncio.sleep(_LOCKED_WAIT_S)


def _prepared(path: Path) -> sqlite3.Connection:
    """Connect, and make the file and its tables. Raises `OSError` as well, which SQLite does not explain."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    with path.open("ab"):
        pass
    connection = connect(path)
    try:
        _claim(connection, path)
        migrate(connection, path)
        for statement in _SCHEMA:
            connection.execute(statement)
    except BaseException:
        connection.close()
        raise
    return connection


def _claim(connection: sqlite3.Connection, path: Path) -> None:
    """Mark an empty file as one of keys. Raises `DatabaseUnfitError` for one that is something else."""
    if not connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
        connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
    elif connection.execute("PRAGMA application_id").fetchone()[0] != _APPLICATION_ID:
        raise DatabaseUnfitError(f"{path} is not a file of keys.")
