"""A job's input: the member's picture fetched, normalised and stored by hash.

This starts when a job is accepted, while it waits in the queue.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from bot.clock import Clock
from bot.credits.limits import Limits
from bot.errors import BotError, UnusablePicture, UserError
from bot.jobs.commits import commit
from bot.pictures.pool import PicturePool
from bot.pictures.sizes import AREA_MAX, INPUT_BYTES_MAX, SIDE_MAX, SIDE_MIN, SIDE_STEP, fitted_size
from bot.pictures.store import PictureStore
from db import jobs
from db.database import Database
from db.jobs import Job

Fetch = Callable[[str], Awaitable[bytes]]

FETCHES_AT_ONCE_MAX: Final = 8  # of up to 25 MiB each: bounds memory
FETCH_TIMEOUT_S: Final = 30  # Discord's CDN answers in well under a second


@dataclass(frozen=True, slots=True)
class PictureSource:
    """A picture on Discord: its address, and what Discord says of it (bytes and pixels, None: unknown)."""

    url: str
    size_bytes: int | None = None
    width: int | None = None
    height: int | None = None


def normal_pixels(width: int | None, height: int | None) -> int:
    """Return how many pixels a picture of this size will have as an input, or at most have if unknown."""
    if not width or not height or width < 0 or height < 0:
        return AREA_MAX
    fitted_width, fitted_height = fitted_size(width, height)
    return fitted_width * fitted_height


def is_normal_size(width: int, height: int) -> bool:
    """Tell whether a stored picture of this size can be an input as it is."""
    return all(side % SIDE_STEP == 0 and SIDE_MIN <= side <= SIDE_MAX for side in (width, height))


def check_size(size_bytes: int | None) -> None:
    """Raise `UnusablePicture` for a file that is empty or over `INPUT_BYTES_MAX`."""
    if size_bytes == 0:
        raise UnusablePicture("That file is empty; please attach a PNG, JPEG, GIF or WebP picture.")
    if size_bytes is not None and size_bytes > INPUT_BYTES_MAX:
        limit = INPUT_BYTES_MAX // (1024 * 1024)
        raise UnusablePicture(f"That file is larger than {limit} MB; please attach a smaller one.")


class Inputs:
    """Prepares the inputs of accepted jobs, side by side within bounds."""

    def __init__(
        self,
        *,
        db: Database,
        clock: Clock,
        pool: PicturePool,
        store: PictureStore,
        fetch: Fetch,
        limits: Limits,
    ) -> None:
        """`limits` are checked against a picture's size once it is known."""
        self._limits = limits
        self._db = db
        self._clock = clock
        self._pool = pool
        self._store = store
        self._fetch = fetch
        self._fetching = asyncio.Semaphore(FETCHES_AT_ONCE_MAX)
        self._preparing: dict[int, asyncio.Task[None]] = {}

    def begin(self, job: Job, *, on_refused: Callable[[int, UserError], None]) -> None:
        """Start preparing the job's input; `on_refused` is called as soon as it turns out unusable."""

        def ended(task: asyncio.Task[None]) -> None:
            self._preparing.pop(job.id, None)
            error = None if task.cancelled() else task.exception()
            if error is not None:
                on_refused(job.id, _as_user_error(error))

        task = asyncio.create_task(self._prepare(job), name=f"input of {job.id}")
        self._preparing[job.id] = task
        task.add_done_callback(ended)

    async def ready(self, job_id: int) -> None:
        """Wait until the job's input is stored or refused."""
        if task := self._preparing.get(job_id):
            await asyncio.wait([task])

    async def _prepare(self, job: Job) -> None:
        normal = await self._pool.normalise(await self._raw(job))
        digest = await self._store.put(normal.data)
        pixels = normal.width * normal.height

        def unit(tx: sqlite3.Connection) -> bool:
            self._limits.check_pixels(tx, job.guild_id, pixels)
            return jobs.set_input(tx, job_id=job.id, input_hash=digest, pixels=pixels)

        await commit(self._db, self._clock, unit)

    async def _raw(self, job: Job) -> bytes:
        if job.source_hash is not None:
            return await self._store.get(job.source_hash)
        assert job.source_url is not None  # noqa: S101 - a job has one source or the other
        async with self._fetching:
            try:
                data = await asyncio.wait_for(self._fetch(job.source_url), FETCH_TIMEOUT_S)
            except TimeoutError as error:
                raise UnusablePicture(
                    "Discord took too long to send that picture; please try again."
                ) from error
        check_size(len(data))
        return data

    async def aclose(self) -> None:
        """Stop what is in progress; the jobs are resumed at the next start."""
        tasks = list(self._preparing.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _as_user_error(error: BaseException) -> UserError:
    if isinstance(error, UserError):
        return error
    if isinstance(error, BotError):
        return UserError(str(error), detail=error.detail)
    return UnusablePicture(
        "That picture couldn't be downloaded; please attach it again.",
        detail=f"{type(error).__name__}: {error}",
    )
