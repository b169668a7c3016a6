"""API keys with budgets: one SQLite file, secrets as salted hashes, money as an append-only list.

A balance is the sum of a key's transfers, in units of a thousandth of a credit. A request is
charged before it starts and refunded if it makes no picture; its id makes both happen once.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import aiosqlite

from bot.clock import Clock, SystemClock
from bot.errors import NotAllowed, NotEnoughCredits, OperatorError

UNITS_A_CREDIT: Final = 1000
#: A charge this old that was neither kept nor given back belongs to a server that died.
ORPHANED_AFTER_S: Final = 3600.0
_CREDITS_MAX: Final = 10**9
_PRAGMAS: Final = ("busy_timeout = 10000", "journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON")
_LOCKED_TRIES: Final = 100
_LOCKED_WAIT_S: Final = 0.05

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS keys (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE CHECK (length(name) BETWEEN 1 AND 64),
    handle TEXT NOT NULL UNIQUE,
    salt BLOB NOT NULL CHECK (length(salt) = 16),
    hash BLOB NOT NULL CHECK (length(hash) = 32),
    created_at REAL NOT NULL,
    revoked_at REAL
) STRICT;
CREATE TABLE IF NOT EXISTS transfers (
    id INTEGER PRIMARY KEY,
    key_id INTEGER NOT NULL REFERENCES keys (id),
    request_id TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('grant', 'charge', 'keep', 'refund')),
    units INTEGER NOT NULL,
    at REAL NOT NULL,
    CHECK (CASE kind WHEN 'charge' THEN units < 0 WHEN 'keep' THEN units = 0 ELSE units > 0 END)
) STRICT;
CREATE UNIQUE INDEX IF NOT EXISTS transfers_once
    ON transfers (request_id, CASE kind WHEN 'keep' THEN 'end' WHEN 'refund' THEN 'end' ELSE kind END);
CREATE INDEX IF NOT EXISTS transfers_of_key ON transfers (key_id, units);
CREATE TRIGGER IF NOT EXISTS transfers_stay BEFORE UPDATE ON transfers
    BEGIN SELECT RAISE(ABORT, 'transfers are only added'); END;
CREATE TRIGGER IF NOT EXISTS transfers_remain BEFORE DELETE ON transfers
    BEGIN SELECT RAISE(ABORT, 'transfers are only added'); END;
CREATE TRIGGER IF NOT EXISTS transfers_covered BEFORE INSERT ON transfers WHEN NEW.kind = 'charge'
    AND (SELECT coalesce(sum(units), 0) FROM transfers WHERE key_id = NEW.key_id) + NEW.units < 0
    BEGIN SELECT RAISE(ABORT, 'not enough credits'); END;
"""


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

    def __init__(self, database: aiosqlite.Connection, clock: Clock) -> None:
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
        # The command line alone adds keys, on a connection that nothing else uses meanwhile.
        await self._database.execute("BEGIN IMMEDIATE")
        try:
            cursor = await self._database.execute(
                "INSERT INTO keys (name, handle, salt, hash, created_at) VALUES (?, ?, ?, ?, ?)", row
            )
            units = round(credits_given * UNITS_A_CREDIT)
            await self._transfer(cursor.lastrowid or 0, uuid.uuid4().hex, "grant", units)
            await self._database.execute("COMMIT")
        except aiosqlite.IntegrityError as error:
            await self._database.execute("ROLLBACK")
            raise OperatorError(
                f"{name!r} can't be a new key's name: it is taken, empty or too long."
            ) from error
        return f"{handle}.{secret}"

    async def revoke(self, name: str) -> None:
        """End a key for good. Raises `OperatorError` if no live key has that name."""
        cursor = await self._database.execute(
            "UPDATE keys SET revoked_at = ? WHERE name = ? AND revoked_at IS NULL", (self._clock.now(), name)
        )
        if cursor.rowcount != 1:
            raise OperatorError(f"No live key is called {name!r}; `gpu keys list` shows them.")

    async def all(self) -> Sequence[Key]:
        """Return all keys, the revoked ones too, by name."""
        rows = await self._database.execute_fetchall(
            "SELECT keys.id, name, coalesce(sum(units), 0), revoked_at IS NOT NULL FROM keys"
            " LEFT JOIN transfers ON key_id = keys.id GROUP BY keys.id ORDER BY name"
        )
        return [Key(row[0], row[1], row[2], bool(row[3])) for row in rows]

    async def any_live(self) -> bool:
        """Return whether any key works."""
        query = "SELECT EXISTS (SELECT 1 FROM keys WHERE revoked_at IS NULL)"
        return bool(next(iter(await self._database.execute_fetchall(query)))[0])

    async def find(self, presented: str) -> int:
        """Return the id of the key that a client `presented`. Raises `NotAllowed` if it does not work."""
        handle, _, secret = presented.partition(".")
        query = "SELECT id, salt, hash FROM keys WHERE handle = ? AND revoked_at IS NULL"
        rows = list(await self._database.execute_fetchall(query, (handle,)))
        key_id, salt, expected = rows[0] if rows else (0, b"", b"")
        if not hmac.compare_digest(_hash(salt, secret), expected):
            raise NotAllowed("The API key is missing, wrong or revoked.")
        return int(key_id)

    async def units(self, key_id: int) -> int:
        """Return a key's balance in units."""
        query = "SELECT coalesce(sum(units), 0) FROM transfers WHERE key_id = ?"
        return int(next(iter(await self._database.execute_fetchall(query, (key_id,))))[0])

    async def charge(self, *, key_id: int, request_id: str, units: int) -> Charge:
        """Take `units` (at least 1) for a request. Raises `NotEnoughCredits`, and takes nothing then."""
        try:
            await self._transfer(key_id, request_id, "charge", -units)
        except aiosqlite.IntegrityError as error:
            left = await self.units(key_id) / UNITS_A_CREDIT
            sentence = (
                f"Not enough credits: this takes {units / UNITS_A_CREDIT:g}, the key has {left:g} left."
            )
            raise NotEnoughCredits(sentence) from error
        return Charge(key_id, request_id, units, await self.units(key_id))

    async def keep(self, charge: Charge) -> None:
        """Mark a charge as earned, for good."""
        await self._end(charge.key_id, charge.request_id, "keep", 0)

    async def refund(self, charge: Charge) -> None:
        """Give a charge back, once, unless it was earned."""
        await self._end(charge.key_id, charge.request_id, "refund", charge.units)

    async def refund_orphans(self) -> int:
        """Give back the charges of servers that died at work, and return how many there were."""
        rows = await self._database.execute_fetchall(
            "SELECT key_id, request_id, -units FROM transfers AS charge WHERE kind = 'charge' AND at < ?"
            " AND NOT EXISTS (SELECT 1 FROM transfers WHERE request_id = charge.request_id"
            " AND kind IN ('keep', 'refund'))",
            (self._clock.now() - ORPHANED_AFTER_S,),
        )
        orphans = [Charge(row[0], row[1], row[2], 0) for row in rows]
        for orphan in orphans:
            await self.refund(orphan)
        return len(orphans)

    async def _end(self, key_id: int, request_id: str, kind: str, units: int) -> None:
        await self._database.execute(
            "INSERT INTO transfers (key_id, request_id, kind, units, at) VALUES (?, ?, ?, ?, ?)"
            " ON CONFLICT DO NOTHING",
            (key_id, request_id, kind, units, self._clock.now()),
        )

    async def _transfer(self, key_id: int, request_id: str, kind: str, units: int) -> None:
        await self._database.execute(
            "INSERT INTO transfers (key_id, request_id, kind, units, at) VALUES (?, ?, ?, ?, ?)",
            (key_id, request_id, kind, units, self._clock.now()),
        )


def _hash(salt: bytes, secret: str) -> bytes:
    # The secret is 256 random bits, so that a fast hash gives nothing away.
    return hashlib.sha256(salt + secret.encode()).digest()


@asynccontextmanager
async def open_keys(path: Path, clock: Clock | None = None) -> AsyncIterator[Keys]:
    """Open the file of keys at `path`, made if need be and readable by its owner alone.

    Several processes may have it open. Raises `OperatorError` if it can't be opened.
    """
    try:
        _touch(path)
        database = await aiosqlite.connect(path, isolation_level=None)
    except (OSError, aiosqlite.Error) as error:
        raise OperatorError(f"The file of keys {path} can't be opened.", detail=str(error)) from error
    try:
        await _prepare(database, path)
        yield Keys(database, clock or SystemClock())
    finally:
        await database.close()


def _touch(path: Path) -> None:
    """Make the file, and raise what opening it raises: an `OSError` here, not in the database's thread."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    with path.open("ab"):
        pass


async def _prepare(database: aiosqlite.Connection, path: Path) -> None:
    """Set the connection up and make the tables.

    Turning to write-ahead logging fails at once, without the busy timeout, while another process does
    the same to a new file: so a locked file is tried again for a while.
    """
    for left in range(_LOCKED_TRIES, -1, -1):
        try:
            for pragma in _PRAGMAS:
                await database.execute(f"PRAGMA {pragma}")
            await database.executescript(_SCHEMA)
        except aiosqlite.DatabaseError as error:
            if "locked" not in str(error):
                raise OperatorError(f"{path} is not a file of keys.", detail=str(error)) from error
            if not left:
                raise OperatorError(f"{path} is locked by another program.", detail=str(error)) from error
            await asyncio.sleep(_LOCKED_WAIT_S)
        else:
            return
