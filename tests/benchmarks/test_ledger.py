"""Hold-and-settle with full durability, against bare sqlite3. Prints figures only."""

from __future__ import annotations

import asyncio
import sqlite3
import statistics
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import cast

import pytest

from bot.credits.service import CreditService
from db import jobs, ledger
from db.database import Database, connect
from db.jobs import Job, Result
from db.ledger import NewTransfer
from db.opening import open_database
from db.operations import Operation
from tests.support.bank import ALICE, Bank

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(300)]

UNITS = 1_000
CALLERS = (1, 50)
PRICE = 2


def _job(job_id: int) -> Job:
    return Job(job_id, 1, 7, 3, Operation.IMG2IMG, "{}", 0.0, price=PRICE, input_hash="a", day=1)


def _hold(tx: sqlite3.Connection, credit_service: CreditService, job_id: int) -> None:
    jobs.insert(tx, _job(job_id))
    credit_service.hold(tx, ALICE, job_id=job_id, amount=PRICE)


def _settle(tx: sqlite3.Connection, credit_service: CreditService, job_id: int) -> None:
    jobs.mark_sending(tx, job_id=job_id, backend="b", now=1)
    credit_service.settle_hold(tx, job_id=job_id, charged=PRICE)
    picture = Result(job_id, 0, 1, "b" * 64, 64, 64)
    jobs.mark_rendered(tx, job_id=job_id, pictures=(picture,), charged=PRICE, now=2)


def _fund(tx: sqlite3.Connection) -> None:
    mint, member = (
        ledger.get_or_create_account(tx, kind="mint"),
        ledger.get_or_create_account(tx, kind="user", guild_id=1, user_id=7),
    )
    ledger.move(
        tx,
        NewTransfer(
            id="fund",
            src=mint.id,
            dst=member.id,
            amount=10**9,
            actor_id=0,
            reason="benchmark",
            now=0,
        ),
    )


def _line(name: str, callers: int, seconds: float, waits_s: list[float]) -> str:
    p99_ms = statistics.quantiles(waits_s, n=100)[98] * 1e3
    rate = 2 * UNITS / seconds
    return f"\n{name:<28} {callers:>3} callers: {rate:>8,.0f} transactions/s, p99 {p99_ms:.2f} ms"


async def _crowd(callers: int, turn: Callable[[int], Awaitable[None]]) -> list[float]:
    """Let so many callers take turns until all units are done; return each transaction's wait in seconds."""
    numbers = iter(range(1, UNITS + 1))
    waits_s: list[float] = []

    async def caller() -> None:
        for number in numbers:
            began_s = time.perf_counter()
            await turn(number)
            waits_s.append((time.perf_counter() - began_s) / 2)

    await asyncio.gather(*(caller() for _ in range(callers)))
    return waits_s


async def _ours(db: Database, callers: int) -> tuple[float, list[float]]:
    credit_service = Bank(db).credits
    await db.write(_fund)

    async def turn(number: int) -> None:
        await db.write(lambda tx: _hold(tx, credit_service, number))
        await db.write(lambda tx: _settle(tx, credit_service, number))

    began_s = time.perf_counter()
    waits_s = await _crowd(callers, turn)
    return time.perf_counter() - began_s, waits_s


async def _bare(connection: sqlite3.Connection, callers: int) -> tuple[float, list[float]]:
    """Do the same statements on bare sqlite3, one transaction each, callers in turn on one connection."""
    credit_service = Bank(cast("Database", None)).credits
    _fund(connection)

    async def turn(number: int) -> None:
        for step in (_hold, _settle):
            connection.execute("BEGIN IMMEDIATE")
            step(connection, credit_service, number)
            connection.execute("COMMIT")
        await asyncio.sleep(0)

    began_s = time.perf_counter()
    waits_s = await _crowd(callers, turn)
    return time.perf_counter() - began_s, waits_s


@pytest.mark.parametrize("callers", CALLERS)
async def test_hold_and_settle(tmp_path: Path, callers: int, capsys: pytest.CaptureFixture[str]) -> None:
    """How many holds and settlements a second are durable, and how long the slowest of 100 waits."""
    async with open_database(tmp_path / "ours") as db:
        ours = await _ours(db, callers)
        assert await db.read(ledger.reconcile) == []
    async with open_database(tmp_path / "bare"):
        pass
    connection = connect(tmp_path / "bare" / "bot.sqlite3")
    try:
        bare = await _bare(connection, callers)
        assert ledger.reconcile(connection) == []
    finally:
        connection.close()
    with capsys.disabled():
        print(_line("group commit (ours)", callers, *ours), end="")
        print(_line("bare sqlite3, a commit each", callers, *bare))
