"""Sudden death at a named place: every commit and every outside effect, just before it and just after.

A commit is named after the function that asked for it, a request to Discord after
its route. Whoever is dead does nothing more: all that passes here ends there.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field

from bot.backends.base import Backend, Generation, OnProgress
from bot.params import Img2ImgParams
from bot.pictures.store import PictureStore
from db.database import Database, T, Unit
from tests.support.discord_wire import Wire


class Killed(asyncio.CancelledError):
    """The process is gone; what was going on in it simply ends."""


@dataclass
class Crash:
    """Notes the places that are passed and kills at one of them, or at none."""

    at: str | None = None
    passed: list[str] = field(default_factory=list)
    dead: bool = False
    happened: asyncio.Event = field(default_factory=asyncio.Event)
    _times: Counter[str] = field(default_factory=Counter)

    def visit(self, place: str) -> None:
        """Pass a place. Raises `Killed` if it is the one, and ever after."""
        if self.dead:
            raise Killed
        self._times[place] += 1
        name = place if self._times[place] == 1 else f"{place} #{self._times[place]}"
        self.passed.append(name)
        if name == self.at:
            self.dead = True
            self.happened.set()
            raise Killed

    def over(self, wire: Wire) -> None:
        """Watch the requests that come to the stand-in."""

        async def visit(when: str, label: str) -> None:
            try:
                self.visit(f"{when} {label}")
            except Killed:
                wire.dead = True

        wire.before = lambda label: visit("before", label)
        wire.after = lambda label: visit("after", label)

    def wrap_db(self, db: Database) -> Database:
        """Return `db`, watched."""
        return _WatchedDatabase(db, self)

    def wrap_store(self, store: PictureStore) -> PictureStore:
        """Return `store`, watched."""
        return _WatchedStore(store, self)


class _WatchedDatabase(Database):
    def __init__(self, inner: Database, crash: Crash) -> None:
        self._inner = inner
        self._crash = crash

    async def read(self, unit: Unit[T]) -> T:
        if self._crash.dead:
            raise Killed
        return await self._inner.read(unit)

    async def write(self, unit: Unit[T]) -> T:
        name = f"commit of {unit.__qualname__.split('.<locals>')[0]}"
        self._crash.visit(f"before {name}")
        result = await self._inner.write(unit)
        self._crash.visit(f"after {name}")
        return result

    async def drain(self) -> None:
        await self._inner.drain()


class _WatchedStore(PictureStore):
    def __init__(self, inner: PictureStore, crash: Crash) -> None:
        super().__init__(inner._root)
        self._crash = crash

    async def put(self, data: bytes) -> str:
        self._crash.visit("before storing a picture")
        digest = await super().put(data)
        self._crash.visit("after storing a picture")
        return digest


class WatchedBackend:
    """A backend whose calls are watched and counted by prompt."""

    def __init__(self, inner: Backend, crash: Crash) -> None:
        self.name = inner.name
        self.capabilities = inner.capabilities
        self.calls: Counter[str] = Counter()
        self.crash = crash
        self._inner = inner

    async def generate(self, params: Img2ImgParams, image: bytes, on_progress: OnProgress) -> Generation:
        """Make the pictures."""
        self.crash.visit("before the provider's call")
        self.calls[params.prompt] += 1
        try:
            generation = await self._inner.generate(params, image, on_progress)
        finally:
            self.crash.visit("after the provider's call")
        return generation

    async def check(self) -> str:
        """Say what the inner one says."""
        return await self._inner.check()

    async def aclose(self) -> None:
        """Close the inner one."""
        await self._inner.aclose()
