"""The composition root: what is opened, in what order it is closed, and what the operator reads of it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from bot.app import make_backend, open_app
from bot.backends.gpu_server import GpuServerBackend
from bot.backends.painter import Painter
from bot.backends.segmind import SegmindBackend
from bot.clock import SystemClock, utc_day
from bot.errors import OperatorError
from bot.events import Event, OperatorAlert
from bot.jobs.service import PauseReason
from bot.settings import BackendName, bare_settings
from db import providers
from db.database import CommitFailed
from tests.support.live_bot import Brush, eventually
from tests.support.workshop import PICTURE, open_workshop


async def _fetch(_url: str) -> bytes:
    return PICTURE


@pytest.mark.parametrize(
    ("name", "settings", "kind"),
    [
        ("painter", {}, Painter),
        ("segmind", {"segmind_api_key": "key"}, SegmindBackend),
        ("gpu", {"gpu_url": "http://127.0.0.1:9"}, GpuServerBackend),
        ("gpu", {"gpu_model": "tiny"}, GpuServerBackend),
    ],
)
async def test_each_backend_is_made_as_the_settings_want_it(
    tmp_path: Path, name: BackendName, settings: dict[str, Any], kind: type
) -> None:
    """Name and capacity are the settings'; making a backend starts no process and calls nobody."""
    capacity = {f"{name}_concurrency_max": 3}
    backend = make_backend(name, bare_settings(data_dir=tmp_path, **settings, **capacity), SystemClock())
    assert isinstance(backend, kind)
    assert (backend.name, backend.capabilities.concurrency_max) == (name, 3)
    await backend.aclose()


async def test_without_backends_of_its_own_the_app_uses_those_of_the_settings(tmp_path: Path) -> None:
    """An operator's order is the order of preference."""
    settings = bare_settings(data_dir=tmp_path, backends=("gpu", "painter"), gpu_url="http://127.0.0.1:9")
    async with open_app(settings, fetch=_fetch) as app:
        assert [slot.name for slot in app.router.slots] == ["gpu", "painter"]


async def test_a_database_that_can_not_be_used_is_the_operators_error(tmp_path: Path) -> None:
    """Whoever starts the bot reads one sentence on the command line, and nothing is left open."""
    (tmp_path / "bot.sqlite3").write_bytes(b"not a database, " * 1000)
    brush = Brush()
    for _ in range(2):
        with pytest.raises(OperatorError, match="restore it from a backup"):
            async with open_app(bare_settings(data_dir=tmp_path), fetch=_fetch, backends=[brush]):
                pass


async def test_an_app_opens_again_after_it_was_closed(tmp_path: Path) -> None:
    """Closing lets running jobs use their grace, then gives the folder back for the next start."""
    brush = Brush(gate=asyncio.Event())
    async with open_workshop(tmp_path, backends=[brush], shutdown_grace_s=60) as shop:
        job = await shop.submit()
        await eventually(lambda: brush.calls)
        assert brush.gate is not None
        asyncio.get_running_loop().call_soon(brush.gate.set)
    async with open_workshop(tmp_path) as shop:
        assert (await shop.job(job.id)).state == "rendered"


async def test_an_inconsistent_ledger_is_found_when_the_app_opens(tmp_path: Path) -> None:
    """A bot whose ledger is wrong starts, so that moderators can look, and accepts no jobs."""
    async with open_workshop(tmp_path) as shop:
        await shop.made()
        await shop.app.db.write(lambda tx: tx.execute("UPDATE spending SET amount = 9"))
    async with open_workshop(tmp_path) as shop:
        assert shop.app.jobs.pause_reason is PauseReason.LEDGER_INCONSISTENT


async def test_a_broken_disk_is_alerted_once(tmp_path: Path) -> None:
    """The operator gets one message when commits begin to fail, however many do."""
    events: list[Event] = []
    async with open_app(bare_settings(data_dir=tmp_path), fetch=_fetch, backends=[Brush()]) as app:
        app.events.subscribe(events.append)
        await app.db.write(lambda tx: tx.execute("PRAGMA query_only = ON").fetchone())
        for _ in range(3):
            with pytest.raises(CommitFailed):
                await app.set_command_stamp("x")
    (alert,) = [event for event in events if isinstance(event, OperatorAlert)]
    assert "couldn't store a change" in alert.sentence
    assert alert.sentence.endswith("Jobs wait until it can.")


async def test_health_is_what_the_operator_asks_for(tmp_path: Path) -> None:
    """Waiting jobs, today's spending of all servers, balances at providers and a pause, in one look."""
    brush = Brush(gate=asyncio.Event())
    async with open_workshop(tmp_path, backends=[brush], member_running_max=1) as shop:
        for _ in range(3):
            await shop.submit()
        await shop.app.db.write(
            lambda tx: providers.record_balance(tx, backend="segmind", remaining=4.5, low=5, now=1)
        )
        shop.app.jobs.pause(PauseReason.RESTARTING)
        health = await shop.app.health()
        assert (health.waiting, health.spent_today, health.pause_reason) == (2, 6, PauseReason.RESTARTING)
        assert [(balance.backend, balance.remaining) for balance in health.balances] == [("segmind", 4.5)]
        assert (await shop.job(1_000)).day == utc_day(shop.app.clock.now())


async def test_the_stamp_of_the_commands_survives_a_restart(tmp_path: Path) -> None:
    """Commands are sent to Discord again only when they have changed."""
    async with open_workshop(tmp_path) as shop:
        assert await shop.app.command_stamp() is None
        await shop.app.set_command_stamp("one")
        await shop.app.set_command_stamp("two")
    async with open_workshop(tmp_path) as shop:
        assert await shop.app.command_stamp() == "two"
