"""The bot as a process of its own: killed at random moments, and stopped in good order."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from bot.pictures.store import PictureStore
from db import jobs
from db.database import connect
from db.opening import open_database
from tests.support.discord_wire import TOKEN, Wire, open_wire
from tests.support.live_bot import eventually
from tests.support.promises import check_promises
from tests.support.provider import API_KEY, Connection, Provider, picture, running_provider
from tests.support.simulated_server import a_picture

ROOT = Path(__file__).parents[2]
PICTURE = a_picture((64, 64))
START_S_MAX = 30
JOBS_A_LIFE = 3


@dataclass(slots=True)
class Yard:
    """A folder, a Discord and a provider, and one bot at a time in a process of its own."""

    folder: Path
    wire: Wire
    provider: Provider
    settings: dict[str, str] = field(default_factory=dict)
    _child: asyncio.subprocess.Process | None = None
    lines: list[str] = field(default_factory=list)
    _reading: asyncio.Task[None] | None = None

    @property
    def child(self) -> asyncio.subprocess.Process:
        """The bot's process."""
        assert self._child is not None
        return self._child

    async def start(self) -> None:
        """Start the bot."""
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "IMG2IMG_DISCORD_TOKEN": TOKEN,
            "IMG2IMG_SEGMIND_API_KEY": API_KEY,
            "IMG2IMG_SEGMIND_BASE_URL": self.provider.url,
            "IMG2IMG_DATA_DIR": str(self.folder),
            "IMG2IMG_DECODER_CHILDREN": "1",
            "IMG2IMG_DAILY_ALLOWANCE": "1000000",
            "IMG2IMG_LOG_LEVEL": "DEBUG",
            "IMG2IMG_MEMBER_WAITING_MAX": "50",
            **self.settings,
        }
        command = (sys.executable, "-m", "tests.support.launcher", self.wire.url, self.wire.gateway)
        self._child = await asyncio.create_subprocess_exec(
            *command, env=environment, cwd=ROOT, stderr=asyncio.subprocess.PIPE
        )
        self._reading = asyncio.create_task(self._read(self._child))

    async def _read(self, child: asyncio.subprocess.Process) -> None:
        assert child.stderr is not None
        while line := await child.stderr.readline():
            self.lines.append(line.decode())

    async def online(self) -> None:
        """Wait until the bot is on Discord."""
        await self.wire.until(lambda: self.wire.online, timeout_s=START_S_MAX)

    async def end(self, number: signal.Signals) -> int:
        """Send a signal and wait for the end; return the exit status."""
        self.child.send_signal(number)
        return await self.ended()

    async def ended(self) -> int:
        """Wait for the end; return the exit status."""
        status = await asyncio.wait_for(self.child.wait(), START_S_MAX)
        assert self._reading is not None
        await self._reading
        for session in self.wire._sessions.values():
            session.socket = None
        return status

    def calls(self) -> Counter[str]:
        """Return how many calls the provider got for each prompt."""
        return Counter(request.json["prompt"] for request in self.provider.received)

    async def check(self) -> None:
        """Check every promise on what the dead process left."""
        async with open_database(self.folder) as db:
            await check_promises(db, PictureStore(self.folder / "pictures"), self.wire)
        assert all(calls <= 2 for calls in self.calls().values())

    def _unfinished(self) -> int:
        """Return how many jobs have not ended, as the file says while the bot has it open."""
        with closing(connect(self.folder / "bot.sqlite3", read_only=True)) as connection:
            return len(jobs.list_unfinished(connection))

    async def drained(self) -> None:
        """Wait until every job has ended, those without a card too, and no card waits any more."""

        def waiting() -> list[int]:
            return [
                m.id for m in self.wire.messages.values() if not m.files and "i2i:reroll" not in str(m.body)
            ]

        await eventually(lambda: not self._unfinished() and not waiting(), timeout_s=60)


@asynccontextmanager
async def _yard(folder: Path, **settings: str) -> AsyncIterator[Yard]:
    async with open_wire() as wire, running_provider() as provider:
        yard = Yard(folder, wire, provider, settings)
        try:
            yield yard
        finally:
            if yard._child is not None and yard._child.returncode is None:
                await yard.end(signal.SIGKILL)


def _slow(rng: random.Random) -> object:
    async def behaviour(connection: Connection) -> None:
        await asyncio.sleep(rng.uniform(0, 0.3))
        await picture()(connection)

    return behaviour


async def _kill_often(yard: Yard, *, kills: int, seed: int) -> None:
    rng = random.Random(seed)
    yard.provider.will(_slow(rng))  # type: ignore[arg-type]  # an behaviour
    began = time.perf_counter()
    for kill in range(kills):
        await yard.start()
        if rng.random() < 0.1:
            await asyncio.sleep(rng.uniform(0, 1.5))
        else:
            await yard.online()
            for number in range(JOBS_A_LIFE):
                await yard.wire.slash(image=PICTURE, prompt=f"{kill}-{number}", steps=1)
            await asyncio.sleep(rng.uniform(0, 1.0))
        await yard.end(signal.SIGKILL)
    await yard.start()
    await yard.online()
    await yard.drained()
    assert await yard.end(signal.SIGTERM) == 0
    await yard.check()
    took_s = time.perf_counter() - began
    print(f"\n{kills} kills, seed {seed}, {len(yard.calls())} jobs called for, {took_s:.0f} s")


async def test_a_few_kills_lose_nothing(tmp_path: Path) -> None:
    """Killed with SIGKILL at random moments, the bot keeps every promise; no secret is in its log."""
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    async with _yard(tmp_path) as yard:
        await _kill_often(yard, kills=4, seed=seed)
        text = "".join(yard.lines)
        assert "Ready as" in text
        for secret in (TOKEN, API_KEY, "aW50ZXJhY3Rpb246planted"):
            assert secret not in text


@pytest.mark.nightly
@pytest.mark.timeout(3600)
async def test_a_hundred_kills_lose_nothing(tmp_path: Path) -> None:
    """The same, a hundred times."""
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    async with _yard(tmp_path) as yard:
        await _kill_often(yard, kills=100, seed=seed)


async def test_sigterm_lets_running_jobs_finish_and_announces_those_that_wait(tmp_path: Path) -> None:
    """Stopped, the bot finishes what runs, says on waiting cards that they go on later, and they do."""
    async with _yard(tmp_path, IMG2IMG_SEGMIND_CONCURRENCY_MAX="1") as yard:
        gate = asyncio.Event()

        async def wait(connection: Connection) -> None:
            await gate.wait()
            await picture()(connection)

        yard.provider.will(wait)
        await yard.start()
        await yard.online()
        for number in range(3):
            await yard.wire.slash(image=PICTURE, prompt=f"number {number}")
        await eventually(lambda: yard.provider.connections == 1 and len(yard.wire.messages) == 3)
        yard.child.send_signal(signal.SIGTERM)
        await eventually(
            lambda: sum("is restarting" in str(m.body) for m in yard.wire.messages.values()) == 2
        )
        await yard.wire.slash(image=PICTURE, prompt="too late")
        await eventually(lambda: any(m.private for m in yard.wire.messages.values()))
        gate.set()
        assert await yard.ended() == 0
        assert sum(bool(m.files) for m in yard.wire.messages.values()) == 1
        await yard.start()
        await yard.online()
        await eventually(lambda: sum(bool(m.files) for m in yard.wire.messages.values()) == 3)
        assert await yard.end(signal.SIGTERM) == 0
        await yard.check()
        assert set(yard.calls().values()) == {1}


async def test_ctrl_c_stops_the_bot_cleanly(tmp_path: Path) -> None:
    """Ctrl-C in a terminal stops the bot as SIGTERM does: exit status 0, and no traceback."""
    async with _yard(tmp_path) as yard:
        await yard.start()
        await yard.online()
        assert await yard.end(signal.SIGINT) == 0
        assert "Traceback" not in "".join(yard.lines)


async def test_a_second_signal_hurries(tmp_path: Path) -> None:
    """Stopped twice, the bot waits for nobody; what it was making is made after the restart."""
    async with _yard(tmp_path) as yard:
        gate = asyncio.Event()

        async def wait(connection: Connection) -> None:
            await connection.receive()
            await gate.wait()

        yard.provider.will(wait, picture())
        await yard.start()
        await yard.online()
        await yard.wire.slash(image=PICTURE, prompt="a harbour")
        await eventually(lambda: yard.provider.posts == 1)
        yard.child.send_signal(signal.SIGTERM)
        await asyncio.sleep(0.3)
        assert yard.child.returncode is None
        assert await yard.end(signal.SIGTERM) == 0
        gate.set()
        await yard.start()
        await yard.online()
        await yard.drained()
        assert await yard.end(signal.SIGTERM) == 0
        await yard.check()
