"""The bot without Discord: everything that `open_app` opens, with a clock, a backend and members at hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Final, TypeVar

from bot.actors import ChannelContext, Permission, Person
from bot.app import App, open_app
from bot.backends.base import Backend, Generation, OnProgress
from bot.backends.router import BackendSlot
from bot.clock import Clock
from bot.events import Event, OperatorAlert
from bot.jobs.inputs import PictureSource
from bot.jobs.runner import JobRunner
from bot.jobs.service import RequestContext
from bot.params import Img2ImgParams
from bot.pictures.store import PictureStore
from bot.settings import bare_settings
from db import jobs
from db.database import CommitFailed, Database, T, Unit
from db.jobs import Job
from tests.support import pictures
from tests.support.clock import HandClock
from tests.support.live_bot import Brush, eventually

E = TypeVar("E", bound=Event)

ALICE: Final = Person(1, 7)
BOB: Final = Person(1, 8)
MODERATOR: Final = Person(1, 99, permissions=frozenset({Permission.MANAGE_MESSAGES}))
PICTURE: Final = pictures.encoded(pictures.quarters())
SOURCE: Final = PictureSource("https://cdn.example/in.jpg", len(PICTURE), 96, 64)
TOKEN_S: Final = 900.0


@dataclass(slots=True)
class PaidBrush(Brush):
    """A brush that makes `pictures_max` at most, with `answer` in place of the input if that is given."""

    pictures_max: int = 4
    answer: bytes | None = None
    credits_left: float | None = None  # of the operator, reported with each call and when asked
    balance_errors: list[Exception] = field(default_factory=list)

    async def generate(self, params: Img2ImgParams, image: bytes, on_progress: OnProgress) -> Generation:
        """Give the input back in place of new pictures."""
        made = await Brush.generate(self, params, self.answer or image, on_progress)
        return Generation(made.pictures[: self.pictures_max], self.credits_left)

    async def balance(self) -> float:
        """Return the operator's credits, or raise the next of `balance_errors`."""
        if self.balance_errors:
            raise self.balance_errors.pop(0)
        return self.credits_left or 0.0


class FullDisk(Database):
    """A database whose next `refusals` commits fail, as on a full disk."""

    def __init__(self, inner: Database) -> None:
        self._inner = inner
        self.refusals = 0

    async def read(self, unit: Unit[T]) -> T:
        """Read what is committed."""
        return await self._inner.read(unit)

    async def write(self, unit: Unit[T]) -> T:
        """Commit, or refuse."""
        if self.refusals:
            self.refusals -= 1
            raise CommitFailed("The database couldn't store a change: database or disk is full")
        return await self._inner.write(unit)

    async def drain(self) -> None:
        """Wait for what is being committed."""
        await self._inner.drain()


class Workshop:
    """An open app, what it announced since, and requests to it."""

    def __init__(self, app: App, disk: FullDisk) -> None:
        self.app = app
        self.disk = disk
        self.events: list[Event] = []
        self._ids = count(1_000)
        app.events.subscribe(self.events.append)

    @property
    def runner(self) -> JobRunner:
        """What makes the pictures."""
        return self.app.dispatcher._runner

    @property
    def slot(self) -> BackendSlot:
        """The first backend with its breaker."""
        return self.app.router.slots[0]

    def request(
        self, who: Person = ALICE, where: ChannelContext | None = None, **changes: Any
    ) -> RequestContext:
        """Return a new interaction of a member."""
        expires_at = self.app.clock.now() + TOKEN_S
        context = {"id": next(self._ids), "channel_id": 3, "token": "token", "token_expires_at": expires_at}
        return RequestContext(person=who, where=where or ChannelContext(), **{**context, **changes})

    async def submit(self, who: Person = ALICE, source: PictureSource = SOURCE, **options: Any) -> Job:
        """Let a member type `/img2img`."""
        return await self.app.jobs.submit(self.request(who), some_params(**options), source)

    async def made(self, who: Person = ALICE, **options: Any) -> Job:
        """Let a member type `/img2img`, and wait for the picture."""
        job = await self.submit(who, **options)
        await self.idle()
        return await self.job(job.id)

    async def job(self, job_id: int) -> Job:
        """Return the job as it is stored now."""
        job = await self.app.db.read(lambda tx: jobs.get(tx, job_id))
        assert job is not None
        return job

    async def reaches(self, job_id: int, state: str) -> None:
        """Wait until the job is in this state."""
        async with asyncio.timeout(20):
            while (await self.job(job_id)).state != state:  # noqa: ASYNC110 - what is waited for is on disk
                await asyncio.sleep(0.005)

    async def idle(self) -> None:
        """Wait until no job runs or waits."""
        dispatcher = self.app.dispatcher
        await eventually(lambda: dispatcher.is_idle and not dispatcher.waiting_jobs())

    def announced(self, kind: type[E]) -> list[E]:
        """Return the events of one kind."""
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def alerts(self) -> list[str]:
        """What the operator was alerted to."""
        return [event.sentence for event in self.announced(OperatorAlert)]

    async def available(self, who: Person = ALICE) -> int:
        """Return what a member can spend."""
        return (await self.app.credits.wallet(who)).available


def some_params(**options: Any) -> Img2ImgParams:
    """Return a request's options."""
    return Img2ImgParams(**{"prompt": "a harbour", "seed": 5, **options})


async def _fetch_picture(_url: str) -> bytes:
    return PICTURE


@asynccontextmanager
async def open_workshop(
    folder: Path,
    *,
    backends: Sequence[Backend] = (),
    clock: Clock | None = None,
    fetch: Callable[[str], Awaitable[bytes]] = _fetch_picture,
    wrap_store: Callable[[PictureStore], PictureStore] = lambda store: store,
    **settings: Any,
) -> AsyncIterator[Workshop]:
    """Open a workshop with a brush, unless other backends are given; close it without waiting for jobs."""
    disks: list[FullDisk] = []

    def wrap_db(db: Database) -> Database:
        disks.append(FullDisk(db))
        return disks[0]

    options = {"decoder_children": 1, "shutdown_grace_s": 0, **settings}
    async with open_app(
        bare_settings(data_dir=folder, **options),
        fetch=fetch,
        clock=clock or HandClock(),
        backends=backends or [Brush()],
        wrap_db=wrap_db,
        wrap_store=wrap_store,
    ) as app:
        yield Workshop(app, disks[0])
