"""How long a start takes over a long history, and how fast a rush of clicks is answered."""

from __future__ import annotations

import asyncio
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from db import jobs, ledger
from db.database import connect, run_batch
from db.jobs import Result
from db.opening import open_database
from tests.support.discord_wire import ALICE_ID, open_wire
from tests.support.ledgers import a_job, funded, hold
from tests.support.live_bot import Brush, living
from tests.support.simulated_server import a_picture

pytestmark = pytest.mark.benchmark

JOBS = 100_000
JOBS_A_COMMIT = 5_000
CLICKS = 500
CLICKS_A_SECOND = 100


async def _with_history(folder: Path) -> None:
    async with open_database(folder):
        pass
    with closing(connect(folder / "bot.sqlite3")) as connection:
        run_batch(connection, [lambda tx: funded(tx, 3 * JOBS)])
        for start in range(1, JOBS + 1, JOBS_A_COMMIT):
            connection.execute("BEGIN")
            for job_id in range(start, start + JOBS_A_COMMIT):
                a_job(connection, job_id)
                hold(connection, 2, transfer_id=f"job:{job_id}", job_id=job_id)
                jobs.mark_sending(connection, job_id=job_id, backend="brush", now=1)
                ledger.post(connection, transfer_id=f"job:{job_id}", charged=2, now=2)
                picture = Result(job_id, 0, 1, "b" * 64, 8, 8)
                jobs.mark_rendered(connection, job_id=job_id, pictures=(picture,), charged=2, now=2)
                jobs.mark_delivered(connection, job_id=job_id, now=3)
            connection.execute("COMMIT")


@pytest.mark.nightly
@pytest.mark.timeout(600)
async def test_starting_with_a_long_history(tmp_path: Path) -> None:
    """Print how long a start takes with 100,000 jobs stored: pages checked, ledger verified, on Discord."""
    await _with_history(tmp_path)
    async with open_wire() as wire:
        began = time.perf_counter()
        async with living(tmp_path, wire, backends=[Brush()]) as life:
            await wire.until(lambda: wire.online, timeout_s=60)
            ready_s = time.perf_counter() - began
            assert await life.ledger_faults() == []
    print(f"\nready in {ready_s:.2f} s with {JOBS:,} jobs stored")


async def test_answering_a_rush_of_clicks(tmp_path: Path) -> None:
    """Print how soon each of 100 commands a second is answered with its card."""
    picture = a_picture((64, 64))
    asked: dict[str, float] = {}
    waits: dict[str, float] = {}

    async def note(label: str) -> None:
        token = wire.requests[-1].path.split("/")[3] if label.endswith("/callback") else ""
        if token in asked:
            waits.setdefault(token, time.perf_counter() - asked[token])

    limits: dict[str, Any] = {"waiting_max": 2_000, "guild_waiting_max": 2_000, "member_waiting_max": 2_000}
    async with open_wire() as wire, living(tmp_path, wire, backends=[Brush()], **limits) as life:
        await wire.until(lambda: wire.online)
        wire.before = note
        began = time.perf_counter()
        for number in range(CLICKS):
            await asyncio.sleep(max(0.0, began + number / CLICKS_A_SECOND - time.perf_counter()))
            event = await wire.slash(image=picture, prompt="x", steps=1, user_id=ALICE_ID + number)
            asked[event["token"]] = time.perf_counter()
        await wire.until(lambda: len(wire.answered) == CLICKS, timeout_s=60)
        await life.app.dispatcher.drain(0)
    in_order = sorted(waits.values())
    median_ms, p99_ms = (in_order[int(len(in_order) * part)] * 1000 for part in (0.5, 0.99))
    print(
        f"\n{CLICKS} clicks at {CLICKS_A_SECOND} a second: answered after {median_ms:.0f} ms (median),"
        f" {p99_ms:.0f} ms (p99), the stand-in's own work in the same process included"
    )
    assert len(waits) >= CLICKS * 0.99
