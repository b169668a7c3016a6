"""A ledger to try things on: the real schema in a real file, one connection."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from db import jobs, ledger
from db.database import connect
from db.jobs import Job
from db.ledger import NewTransfer
from db.migrate import apply_migration, migrations
from db.operations import Operation


@contextmanager
def open_ledger(folder: Path) -> Iterator[sqlite3.Connection]:
    """Yield a connection to a new database with the schema in it."""
    connection = connect(folder / "ledger.sqlite3")
    for number, sql in migrations():
        apply_migration(connection, number, sql)
    try:
        yield connection
    finally:
        connection.close()


def funded(tx: sqlite3.Connection, amount: int, *, user_id: int = 7) -> ledger.Account:
    """Return a member's account with `amount` credits in it."""
    mint = ledger.get_or_create_account(tx, kind="mint")
    member = ledger.get_or_create_account(tx, kind="user", guild_id=1, user_id=user_id)
    if amount:
        ledger.move(
            tx,
            NewTransfer(
                id=f"grant:{user_id}:{amount}",
                src=mint.id,
                dst=member.id,
                amount=amount,
                actor_id=0,
                reason="test",
                now=0,
            ),
        )
    return ledger.get_or_create_account(tx, kind="user", guild_id=1, user_id=user_id)


def hold(
    tx: sqlite3.Connection,
    amount: int,
    *,
    transfer_id: str = "job:1",
    job_id: int | None = None,
    user_id: int = 7,
) -> None:
    """Hold `amount` of a member's credits for the provider."""
    ledger.hold(
        tx,
        NewTransfer(
            id=transfer_id,
            src=ledger.get_or_create_account(tx, kind="user", guild_id=1, user_id=user_id).id,
            dst=ledger.get_or_create_account(tx, kind="provider").id,
            amount=amount,
            actor_id=user_id,
            reason="test",
            now=0,
            job_id=job_id,
        ),
    )


def a_job(tx: sqlite3.Connection, job_id: int = 1, price: int = 4) -> Job:
    """Store a queued job with its input."""
    job = Job(
        id=job_id,
        guild_id=1,
        user_id=7,
        channel_id=3,
        operation=Operation.IMG2IMG,
        params_json="{}",
        created_at=0,
        input_hash="a" * 64,
        price=price,
    )
    jobs.insert(tx, job)
    return job
