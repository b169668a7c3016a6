"""The composition root: opens everything once, in order, and hands it in."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from bot.backends.base import Backend
from bot.backends.gpu_process import GpuProcess, free_port
from bot.backends.gpu_server import GpuServerBackend
from bot.backends.painter import Painter
from bot.backends.router import Router
from bot.backends.segmind import SegmindBackend
from bot.clock import Clock, SystemClock, utc_day
from bot.credits.allowance import DailyAllowance
from bot.credits.limits import Limits
from bot.credits.service import CreditService
from bot.errors import OperatorError
from bot.events import Events, OperatorAlert
from bot.jobs.dispatcher import Dispatcher
from bot.jobs.fair_queue import FairQueue
from bot.jobs.inputs import Fetch, Inputs
from bot.jobs.providers import ProviderWatch
from bot.jobs.records import JobRecords
from bot.jobs.runner import JobRunner
from bot.jobs.service import JobService, PauseReason
from bot.moderation.audit_log import AuditLog
from bot.moderation.service import ModerationService
from bot.pictures.pool import PicturePool
from bot.pictures.store import PictureStore
from bot.settings import BackendName, Settings
from bot.upkeep import Upkeep
from db import meta, providers, spending
from db.database import Database, DatabaseUnusable
from db.opening import open_database
from db.providers import Balance


@dataclass(frozen=True, slots=True)
class Health:
    """What only the operator needs to know: the queue, today's spending of all servers, balances, pause."""

    waiting: int
    spent_today: int
    balances: list[Balance]
    pause_reason: PauseReason | None


@dataclass(frozen=True, slots=True)
class App:
    """Everything that runs, opened."""

    settings: Settings
    clock: Clock
    db: Database
    store: PictureStore
    events: Events
    router: Router
    credits: CreditService
    dispatcher: Dispatcher
    jobs: JobService
    job_records: JobRecords
    moderation: ModerationService
    audit_log: AuditLog
    upkeep: Upkeep

    async def health(self) -> Health:
        """Return the state of the bot now."""
        day = utc_day(self.clock.now())
        spent, balances = await self.db.read(lambda tx: (spending.spent(tx, day=day), providers.balances(tx)))
        return Health(len(self.dispatcher.waiting_jobs()), spent, balances, self.jobs.pause_reason)

    async def command_stamp(self) -> str | None:
        """Return the stamp of the commands that Discord has; None before the first sync."""
        return await self.db.read(lambda tx: meta.get_value(tx, "commands"))

    async def set_command_stamp(self, stamp: str) -> None:
        """Store the stamp of the commands that Discord has now."""
        await self.db.write(lambda tx: meta.set_value(tx, key="commands", value=stamp))


@asynccontextmanager
async def open_app(
    settings: Settings,
    *,
    fetch: Fetch,
    clock: Clock | None = None,
    backends: Sequence[Backend] = (),
    wrap_db: Callable[[Database], Database] = lambda db: db,
    wrap_store: Callable[[PictureStore], PictureStore] = lambda store: store,
) -> AsyncIterator[App]:
    """Open the app; close all of it, running jobs given their grace, on leaving.

    `fetch` gets an attachment's bytes from its address. `backends` replace those that the settings
    name; `wrap_db` and `wrap_store` may put something between the app and its disk. Raises
    `OperatorError` with a sentence that says what to do.
    """
    clock = clock or SystemClock()
    async with AsyncExitStack() as stack:
        db = wrap_db(await _open_database(stack, settings))
        made = backends or [make_backend(name, settings, clock) for name in settings.backends_in_use]
        for backend in made:
            stack.push_async_callback(backend.aclose)
        pool = PicturePool(children=settings.decoder_children)
        stack.push_async_callback(pool.aclose)
        store = wrap_store(PictureStore(settings.data_dir / "pictures"))
        app = _wire(settings, clock, db, store, made, pool, fetch, stack)
        await app.upkeep.check_ledger()
        yield app


async def _open_database(stack: AsyncExitStack, settings: Settings) -> Database:
    try:
        return await stack.enter_async_context(open_database(settings.data_dir))
    except DatabaseUnusable as error:
        raise OperatorError(str(error)) from error


def make_backend(name: BackendName, settings: Settings, clock: Clock) -> Backend:
    """Return the backend of this name, as the settings want it."""
    if name == "painter":
        return Painter(concurrency_max=settings.painter_concurrency_max)
    if name == "gpu":
        return _make_gpu(settings, clock)
    assert settings.segmind_api_key is not None  # noqa: S101 - load_settings saw to it
    return SegmindBackend(
        api_key=settings.segmind_api_key,
        base_url=settings.segmind_base_url,
        clock=clock,
        concurrency_max=settings.segmind_concurrency_max,
    )


def _make_gpu(settings: Settings, clock: Clock) -> GpuServerBackend:
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
    return GpuServerBackend(
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
    db.on_broken = lambda sentence: events.emit(OperatorAlert(f"{sentence}. Jobs wait until it can."))
    router = Router(backends, spill_wait_s=settings.spill_wait_s)
    queue = FairQueue(settings.queue_limits)
    limits = Limits(clock=clock, daily_allowance=settings.daily_allowance, ceilings=settings.ceilings)
    allowance = DailyAllowance(clock=clock, limits=limits)
    credit_service = CreditService(
        db=db,
        clock=clock,
        limits=limits,
        allowance=allowance,
        prices=settings.default_prices,
        prices_by_backend=settings.prices_by_backend,
    )
    inputs = Inputs(db=db, clock=clock, pool=pool, store=store, fetch=fetch, limits=limits)
    stack.push_async_callback(inputs.aclose)
    watch = ProviderWatch(
        db=db, clock=clock, router=router, events=events, low_credits=settings.provider_low_credits
    )
    runner = JobRunner(
        db=db,
        clock=clock,
        credit_service=credit_service,
        inputs=inputs,
        pool=pool,
        store=store,
        events=events,
        watch=watch,
    )
    dispatcher = Dispatcher(
        db=db,
        clock=clock,
        limits=limits,
        queue=queue,
        router=router,
        inputs=inputs,
        runner=runner,
        watch=watch,
        events=events,
    )
    stack.push_async_callback(dispatcher.drain, settings.shutdown_grace_s)
    records = JobRecords(db=db, clock=clock)
    job_service = JobService(
        db=db,
        clock=clock,
        records=records,
        credit_service=credit_service,
        limits=limits,
        allowance=allowance,
        queue=queue,
        dispatcher=dispatcher,
    )
    upkeep = Upkeep(
        db=db,
        clock=clock,
        store=store,
        job_service=job_service,
        events=events,
        retention_days=settings.retention_days,
    )
    stack.push_async_callback(upkeep.aclose)
    return App(
        settings=settings,
        clock=clock,
        db=db,
        store=store,
        events=events,
        router=router,
        credits=credit_service,
        dispatcher=dispatcher,
        jobs=job_service,
        job_records=records,
        moderation=ModerationService(db=db, clock=clock, limits=limits, allowance=allowance, events=events),
        audit_log=AuditLog(db=db, clock=clock, events=events),
        upkeep=upkeep,
    )
