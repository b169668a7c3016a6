"""The supervisor: a broken connection is made again, a stop lets running jobs finish."""

import asyncio
import os
import signal
from types import SimpleNamespace
from typing import Any, cast

import pytest

from bot.errors import OperatorError, UnusablePicture
from bot.gateway.supervisor import BACKOFF_S_MAX, DELIVERY_RESERVE_S, STABLE_S, Supervisor
from bot.jobs.service import PauseReason
from tests.support.clock import SteppedClock, settle


class Client:
    """A client that lasts until the test ends it; `happened` is shared with the test."""

    def __init__(self, happened: list[str]) -> None:
        self.happened = happened
        self.app: Any = None
        self.ending: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.closable = asyncio.Event()
        self.closable.set()

    async def run_until_disconnected(self, token: str) -> None:
        """Stay connected."""
        assert token == "token"  # noqa: S105 - no real one
        self.happened.append("connected")
        await self.ending

    async def run_shutdown_hooks(self, timeout_s: float) -> None:
        """Take note."""
        self.happened.append(f"hooks for {timeout_s:g} s")

    async def fetch(self, url: str) -> bytes:
        """Return the address."""
        return url.encode()

    async def close(self) -> None:
        """Take note, once it may."""
        await self.closable.wait()
        self.happened.append("closed")


class Stage:
    """A supervisor with its clients, and an app that keeps what it is asked for."""

    def __init__(self, *, grace_s: float = 60.0) -> None:
        self.happened: list[str] = []
        self.clients: list[Client] = []
        self.clock = SteppedClock()
        self.pauses: list[PauseReason] = []
        self.draining: asyncio.Event | None = None
        self.supervisor = Supervisor(cast("Any", self._make_client))
        self.app: Any = SimpleNamespace(
            clock=self.clock,
            jobs=SimpleNamespace(pause=self.pauses.append),
            dispatcher=SimpleNamespace(drain=self._drain),
            settings=SimpleNamespace(shutdown_grace_s=grace_s),
        )

    def _make_client(self) -> Client:
        self.clients.append(Client(self.happened))
        return self.clients[-1]

    async def _drain(self, grace_s: float) -> None:
        self.happened.append(f"drained for {grace_s:g} s")
        if self.draining is not None and grace_s:
            await self.draining.wait()

    def run(self) -> asyncio.Task[None]:
        """Start the supervisor."""
        return asyncio.create_task(self.supervisor.run(self.app, "token"))


async def test_a_broken_connection_is_made_again_after_longer_waits(caplog: pytest.LogCaptureFixture) -> None:
    """Each failure in a row doubles the wait, up to a minute; a connection that held starts over."""
    caplog.set_level("INFO")
    stage = Stage()
    running = stage.run()
    await settle()
    for expected_s in (2, 4, 8, 16, 32, BACKOFF_S_MAX, BACKOFF_S_MAX):
        stage.clients[-1].ending.set_exception(ConnectionResetError())
        connections = len(stage.clients)
        await stage.clock.advance(expected_s - 0.5)
        assert len(stage.clients) == connections
        await stage.clock.advance(0.5)
        assert len(stage.clients) == connections + 1
    assert f"Reconnecting in {BACKOFF_S_MAX:.0f} s" in caplog.text
    await stage.clock.advance(STABLE_S + 1)
    stage.clients[-1].ending.set_result(None)
    connections = len(stage.clients)
    await stage.clock.advance(1)
    assert len(stage.clients) == connections + 1
    assert stage.happened.count("closed") == connections
    assert all(client.app is stage.app for client in stage.clients)
    stage.supervisor.stop()
    await running


async def test_an_operators_mistake_ends_it() -> None:
    """A token that Discord refuses is not tried again; the client is closed all the same."""
    stage = Stage()
    running = stage.run()
    await settle()
    stage.clients[0].ending.set_exception(OperatorError("Discord refuses the token."))
    with pytest.raises(OperatorError, match="refuses the token"):
        await running
    assert stage.happened == ["connected", "closed"]


@pytest.mark.parametrize(
    ("grace_s", "drain_s", "reserve_s"), [(60.0, 55.0, DELIVERY_RESERVE_S), (4.0, 2.0, 2.0), (0.0, 0.0, 0.0)]
)
async def test_a_stop_keeps_part_of_its_grace_for_delivery(
    grace_s: float, drain_s: float, reserve_s: float
) -> None:
    """Running jobs finish first, then what they made is delivered, then the client closes."""
    stage = Stage(grace_s=grace_s)
    running = stage.run()
    await settle()
    stage.supervisor.stop()
    await running
    assert stage.pauses == [PauseReason.RESTARTING]
    assert stage.happened == [
        "connected",
        f"drained for {drain_s:g} s",
        f"hooks for {reserve_s:g} s",
        "drained for 0 s",
        "closed",
    ]


async def test_a_second_stop_waits_for_nobody() -> None:
    """Asked twice, the bot neither waits for running jobs nor runs the hooks."""
    stage = Stage()
    stage.draining = asyncio.Event()
    running = stage.run()
    await settle()
    stage.supervisor.stop()
    await settle()
    assert not running.done()
    stage.supervisor.stop()
    await running
    assert stage.happened == ["connected", "drained for 55 s", "drained for 0 s", "closed"]


async def test_a_signal_stops_it() -> None:
    """SIGTERM is a stop; afterwards the signal is Python's own again."""
    stage = Stage()
    running = stage.run()
    await settle()
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait_for(running, 5)
    assert stage.happened[-1] == "closed"
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


async def test_a_client_is_closed_to_the_end_though_interrupted() -> None:
    """A second interruption while the client closes leaves no socket open."""
    stage = Stage()
    running = asyncio.create_task(stage.supervisor._connect(stage.app, "token"))
    await settle()
    stage.clients[0].closable.clear()
    running.cancel()
    await settle()
    running.cancel()
    await settle()
    assert not running.done()
    stage.clients[0].closable.set()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert stage.happened == ["connected", "closed"]


async def test_pictures_are_fetched_over_the_current_connection() -> None:
    """Before the first connection there is none to fetch over, which is said in a sentence."""
    stage = Stage()
    with pytest.raises(UnusablePicture, match="please attach it again"):
        await stage.supervisor.fetch("x")
    running = stage.run()
    await settle()
    assert await stage.supervisor.fetch("x") == b"x"
    stage.supervisor.stop()
    await running
