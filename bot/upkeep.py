"""The hourly clean-up: the ledger is checked, and pictures past their retention are removed from disk."""

from __future__ import annotations

import logging
import sqlite3
from typing import Final

from bot.clock import DAY_S, Clock
from bot.events import Events, OperatorAlert
from bot.jobs.service import JobService, PauseReason
from bot.pictures.store import PictureStore
from bot.runtime.background import BackgroundTasks
from bot.text import counted
from db import jobs, ledger
from db.database import Database

#: Often enough that a fault is found the same day; the check reads the whole ledger.
INTERVAL_S: Final = 3_600.0

log = logging.getLogger(__name__)


class Upkeep:
    """What has to be done now and then, whether or not anybody asks for pictures."""

    def __init__(
        self,
        *,
        db: Database,
        clock: Clock,
        store: PictureStore,
        job_service: JobService,
        events: Events,
        retention_days: int,
    ) -> None:
        self._db = db
        self._clock = clock
        self._store = store
        self._jobs = job_service
        self._events = events
        self._retention_s = retention_days * DAY_S
        self._tasks = BackgroundTasks()

    def start(self) -> None:
        """Do all of it every hour from now on. Started already, it goes on as it is."""
        if not self._tasks:
            self._tasks.spawn(self._run_hourly(), name="hourly clean-up")

    async def aclose(self) -> None:
        """Stop."""
        await self._tasks.cancel()

    async def _run_hourly(self) -> None:
        # The ledger was checked when the app was opened.
        await self._clean_up()
        while True:
            await self._clock.sleep(INTERVAL_S)
            await self.check_ledger()
            await self._clean_up()

    async def _clean_up(self) -> None:
        try:
            removed = await self.remove_old_pictures()
        except Exception:
            log.exception("Removing old pictures failed; it will be retried in an hour")
        else:
            log.info("Removed %s", counted(removed, "old picture"))

    async def check_ledger(self) -> list[str]:
        """Verify the ledger and return its faults; with any, stop spending and alert the operator."""
        try:
            faults = await self._db.read(ledger.reconcile)
        except sqlite3.DatabaseError as error:
            faults = [f"The database can't be read ({error}); restore it from a backup."]
        if not faults:
            self._jobs.resume(PauseReason.LEDGER_INCONSISTENT)
            log.info("The ledger is consistent")
            return []
        self._jobs.pause(PauseReason.LEDGER_INCONSISTENT)
        sentence = f"{PauseReason.LEDGER_INCONSISTENT.value} {faults[0]}"
        if more := len(faults) - 1:
            sentence += f" There {'is' if more == 1 else 'are'} {counted(more, 'more fault')}."
        log.error(sentence)
        self._events.emit(OperatorAlert(sentence))
        return faults

    async def remove_old_pictures(self) -> int:
        """Remove pictures past their retention from disk; return how many."""
        now = self._clock.now()
        since = now - self._retention_s
        keep = await self._db.read(lambda tx: jobs.hashes_to_keep(tx, since=since))
        # A day's respite: a picture may be stored a moment before the job that names it.
        return await self._store.sweep(keep=keep, older_than_s=DAY_S, now=now)
