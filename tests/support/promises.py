"""What the bot promises about every job and every credit, checked on what is left in the end."""

from __future__ import annotations

from bot.pictures.store import PictureStore
from db import jobs, ledger
from db.database import Database
from db.jobs import Job
from tests.support.discord_wire import Wire

ENDED = ("delivered", "undeliverable", "failed", "cancelled")


async def check_promises(db: Database, store: PictureStore, wire: Wire) -> list[Job]:
    """Assert every promise; return the jobs."""
    assert await db.read(ledger.reconcile) == []
    ids = await db.read(lambda tx: [int(row[0]) for row in tx.execute("SELECT id FROM job")])
    jobs = [await _check_job(db, store, wire, job_id) for job_id in ids]
    assert wire.complaints == []
    return jobs


async def _check_job(db: Database, store: PictureStore, wire: Wire, job_id: int) -> Job:
    job = await db.read(lambda tx: jobs.get(tx, job_id))
    assert job is not None
    assert job.state in ENDED
    assert job.attempt <= jobs.ATTEMPTS_MAX
    results = await db.read(lambda tx: jobs.results(tx, job_id))
    transfers = await db.read(lambda tx: ledger.transfers_of_job(tx, job_id))
    is_made = job.state in ("delivered", "undeliverable")
    assert [transfer.state for transfer in transfers] == (["posted"] if is_made else ["voided"])
    assert bool(results) == is_made
    for result in results:
        assert await store.get(result.hash)
    _check_cards(wire, job)
    return job


def _check_cards(wire: Wire, job: Job) -> None:
    """Assert that the picture is shown once, and that no card says that the job still waits."""
    shown = [m for m in wire.messages.values() if any(str(job.id) in name for name in m.files)]
    assert len(shown) == (job.state == "delivered")
    stale = [m for m in wire.messages.values() if f"i2i:cancel:{job.id}" in str(m.body)]
    assert not stale or job.token in wire.expired
