"""Commits of what must not be lost: they wait for a disk that refuses."""

from __future__ import annotations

import logging
from typing import Final

from bot.clock import Clock
from bot.runtime.retry import backoff_s
from db.database import CommitFailed, Database, T, Unit

log = logging.getLogger(__name__)

#: Between tries to commit while the disk refuses: a full disk is not made worse by asking.
DISK_WAIT_S_MIN: Final = 1.0
DISK_WAIT_S_MAX: Final = 60.0


async def commit(db: Database, clock: Clock, unit: Unit[T]) -> T:
    """Commit a change of an accepted job, however long the disk refuses it.

    A job that waits here keeps its slot at its backend, so that nothing new is started, and
    nothing spent, that could not be recorded either.
    """
    waits_s = backoff_s(DISK_WAIT_S_MIN, DISK_WAIT_S_MAX)
    while True:
        try:
            return await db.write(unit)
        except CommitFailed:
            log.exception("Waiting for the disk to accept a write")
            await clock.sleep(next(waits_s))
