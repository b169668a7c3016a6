"""The composition root: opens everything once, in order, and hands it in."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Final

from bot.backends.base import Backend
from bot.backends.gpu_process import GpuProcess, free_port
from bot.backends.gpu_server import Gpu
from bot.backends.painter import Painter
from bot.backends.router import Router
from bot.backends.segmind import Segmind
from bot.clock import DAY_S, Clock, SystemClock
from bot.credits.limits import Ceilings
from bot.credits.service import Credits, Prices
from bot.errors import OperatorError
from bot.events import Events, OperatorAlert
from bot.jobs.dispatcher import Dispatcher
from bot.jobs.fair_queue import FairQueue, QueueLimits
from bot.jobs.inputs import Fetch, Inputs
from bot.jobs.service import Jobs
from bot.moderation.audit import Trail
from bot.moderation.service import Moderation
from bot.pictures.pool import PicturePool
from bot.pictures.store import PictureStore
from bot.settings import BackendName, Settings
from db import jobs as rows
from db import ledger
from db import members as meta
from db.database import Database, DatabaseUnfitError, open_database

BOOKS_WRONG: Final = "The credit books do not add up, so nothing is spent until the operator has looked."


@dataclass(frozen=True, slots=True)
class App:
    """Everything that runs, opened."""

    settings: Settings
    clock: Clock
    db: Database
    store: PictureStore
    credits: Credits
    events: Events
    router: Router
    dispatcher: Dispatcher
    jobs: Jobs
    moderation: Moderation
    trail: Trail

    async def reconcile(self) -> list[str]:
        """Prove the books; where they do not add up, stop spending and alert the operator."""
        try:
            faults = await self.db.read(ledger.reconcile)
        except sqlite3.DatabaseError as error:
            faults = [f"The database can't be read ({error}); restore it from a backup."]
        if self.jobs.paused in (None, BOOKS_WRONG):
            self.jobs.paused = BOOKS_WRONG if faults else None
        if faults:
            more = f" And {len(faults) - 1} more faults." if len(faults) > 1 else ""
            self.events.emit(OperatorAlert(f"{BOOKS_WRONG} {faults[0]}{more}"))
        return faults

    async def command_stamp(self) -> str | None:
        """Return the stamp of the commands that Discord has; None before the first sync."""
        return await self.db.read(lambda tx: meta.remembered(tx, "commands"))

    async def set_command_stamp(self, stamp: str) -> None:
        """Store the stamp of the commands that Discord has now."""
        await self.db.write(lambda tx: meta.remember(tx, key="commands", value=stamp))

    async def sweep(self) -> int:
        """Remove pictures past their retention from disk; return how many."""
        now = self.clock.now()
        since = now - self.settings.retention_days * DAY_S
        keep = await self.db.read(lambda tx: rows.kept_hashes(tx, since=since))
        return await self.store.sweep(keep=keep, older_than_s=DAY_S, now=now)


@asynccontextmanager
async def open_app(
    settings: Settings,
    *,
    fetch: Fetch,
    clock: Clock | None = None,
    backends: Sequence[Backend] = (),
    over_db: Callable[[Database], Database] = lambda db: db,
    over_store: Callable[[PictureStore], PictureStore] = lambda store: store,
) -> AsyncIterator[App]:
    """Open the app; close all of it, running jobs given their grace, on leaving.

    `fetch` gets an attachment's bytes from its address. `backends` stand in for those
    that the settings name; `over_db` and `over_store` may put something between the app
    and its disk. Raises `OperatorError` with a sentence that says what to do.
    """
    clock = clock or SystemClock()
    async with AsyncExitStack() as stack:
        db = over_db(await _open_database(stack, settings))
        made = backends or [make_backend(name, settings, clock) for name in settings.backends_in_use]
        for backend in made:
            stack.push_async_callback(backend.aclose)
        pool = PicturePool(children=settings.decoder_children)
        stack.push_async_callback(pool.aclose)
        store = over_store(PictureStore(settings.data_dir / "pictures"))
        app = _wire(settings, clock, db, store, made, pool, fetch, stack)
        await app.reconcile()
        yield app


async def _open_database(stack: AsyncExitStack, settings: Settings) -> Database:
    try:
        return await stack.enter_async_context(open_database(settings.data_dir))
    except DatabaseUnfitError as error:
        raise OperatorError(str(error)) from error


def make_backend(name: BackendName, settings: Settings, clock: Clock) -> Backend:
    """Return the backend of this name, as the settings want it."""
    if name == "painter":
        return Painter(concurrency_max=settings.painter_concurrency_max)
    if name == "gpu":
        return _make_gpu(settings, clock)
    assert settings.segmind_api_key is not None  # noqa: S101 - load_settings saw to it
    return Segmind(
        api_key=settings.segmind_api_key,
        base_url=settings.segmind_base_url,
        clock=clock,
        concurrency_max=settings.segmind_concurrency_max,
    )


def _make_gpu(settings: Settings, clock: Clock) -> Gpu:
    """Return the backend of the server that runs at `gpu_url`, or of one that is started for `gpu_model`."""
    url, process = settings.gpu_url, None
    if url is None:
        assert settings.gpu_model is not None  # noqa: S101 - load_settings saw to it
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        process = GpuProcess(
            model=settings.gpu_model,
            port=port,
            keys_path=settings.data_dir.absolute() / "gpu-keys.sqlite3",
            clock=clock,
            device=settings.gpu_device,
        )
    return Gpu(
        url=url,
        clock=clock,
        api_key=settings.gpu_api_key,
        process=process,
        concurrency_max=settings.gpu_concurrency_max,
    )


def _wire(
    settings: Settings,
    clock: Clock,
    db: Database,
    store: PictureStore,
    backends: Sequence[Backend],
    pool: PicturePool,
    fetch: Fetch,
    stack: AsyncExitStack,
) -> App:
    events = Events()
    db.on_broken = lambda sentence: events.emit(OperatorAlert(f"{sentence} Jobs wait until it can."))
    router = Router(backends, spill_wait_s=settings.spill_wait_s)
    queue = FairQueue(_limits(settings))
    wallet = Credits(
        db=db,
        clock=clock,
        prices=_prices(settings),
        prices_of={
            name: replace(_prices(settings), **price.model_dump(exclude_none=True))
            for name, price in settings.prices.items()
        },
        daily_allowance=settings.daily_allowance,
        ceilings=_ceilings(settings),
    )
    inputs = Inputs(db=db, pool=pool, store=store, fetch=fetch, limits=wallet.limits)
    stack.push_async_callback(inputs.aclose)
    dispatcher = Dispatcher(
        db=db,
        clock=clock,
        wallet=wallet,
        queue=queue,
        router=router,
        inputs=inputs,
        pool=pool,
        store=store,
        events=events,
        low_credits=settings.provider_low_credits,
    )
    stack.push_async_callback(dispatcher.drain, settings.shutdown_grace_s)
    jobs = Jobs(db=db, clock=clock, wallet=wallet, queue=queue, dispatcher=dispatcher)
    moderation = Moderation(db=db, clock=clock, wallet=wallet, events=events)
    trail = Trail(db=db, clock=clock, events=events)
    return App(settings, clock, db, store, wallet, events, router, dispatcher, jobs, moderation, trail)


def _prices(settings: Settings) -> Prices:
    return Prices(
        per_sample=settings.price_per_sample,
        per_step=settings.price_per_step,
        per_megapixel=settings.price_per_megapixel,
        per_megapixel_step=settings.price_per_megapixel_step,
    )


def _ceilings(settings: Settings) -> Ceilings:
    return Ceilings(
        allowance_max=settings.allowance_max,
        grant_max=settings.grant_max,
        guild_daily_max=settings.guild_daily_max,
        provider_daily_max=settings.provider_daily_max,
        running_max=settings.member_running_max,
        waiting_max=settings.member_waiting_max,
        steps_max=settings.steps_max,
        samples_max=settings.samples_max,
    )


def _limits(settings: Settings) -> QueueLimits:
    return QueueLimits(
        guild_running_max=settings.guild_running_max,
        member_running_max=settings.member_running_max,
        waiting_max=settings.waiting_max,
        guild_waiting_max=settings.guild_waiting_max,
        member_waiting_max=settings.member_waiting_max,
    )
