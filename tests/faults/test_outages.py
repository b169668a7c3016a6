"""Outages of the provider, the disk and the database: work waits, continues, and is paid once."""

from __future__ import annotations

import asyncio
from pathlib import Path

from bot.app import open_app
from bot.clock import SystemClock
from bot.errors import BackendOutOfCredits, BackendUnreachable, OperatorError
from bot.events import Event, OperatorAlert
from bot.settings import Settings
from tests.support.simulated_server import Sketcher, World, open_world, texts


def _alerts(world: World) -> list[str]:
    alerts: list[str] = []

    def listen(event: Event) -> None:
        if isinstance(event, OperatorAlert):
            alerts.append(event.sentence)

    world.app.events.subscribe(listen)
    return alerts


def _pictures(world: World) -> int:
    """Return how many messages show a picture."""
    return sum(bool(message.attachments) for message in world.channel.history())


async def _fill_disk(world: World) -> None:
    """Let the database grow no further, as a full disk does."""
    await world.app.db.write(lambda tx: tx.execute("PRAGMA max_page_count = 1").fetchone())


async def _make_room(world: World) -> None:
    await world.app.db.write(lambda tx: tx.execute("PRAGMA max_page_count = 1000000").fetchone())


async def test_an_unreachable_service_is_left_alone_and_tried_again(tmp_path: Path) -> None:
    """After three calls that reached nobody, jobs wait and the operator is alerted once; then all go on."""
    sketcher = Sketcher(errors=[BackendUnreachable(detail="refused") for _ in range(4)])
    async with open_world(tmp_path, backends=[sketcher], member_waiting_max=100) as world:
        alerts = _alerts(world)
        for _ in range(2):
            await world.img2img()
            assert "can't be reached" in texts(world.channel.last_message)
        for _ in range(20):
            await world.img2img(world.bob, steps=1)
        assert len(sketcher.calls) == 3
        await world.env.advance_time(20)
        assert len(sketcher.calls) == 4
        await world.env.advance_time(60)
        assert _pictures(world) >= 19
        assert len(alerts) == 1
        assert await world.ledger_faults() == []


async def test_fifty_jobs_meet_an_empty_account(tmp_path: Path) -> None:
    """With 50 in line when the provider's credits end, one alert goes out, and all wait for their return."""
    sketcher = Sketcher(errors=[BackendOutOfCredits() for _ in range(2)])
    async with open_world(
        tmp_path, backends=[sketcher], member_waiting_max=100, daily_allowance=1000
    ) as world:
        alerts = _alerts(world)
        gate = sketcher.gate = asyncio.get_running_loop().create_future()
        for _ in range(50):
            await world.img2img(steps=1)
        sketcher.gate = None
        gate.set_result(None)
        await world.env.settle()
        assert len(sketcher.calls) == 2
        assert len(alerts) == 1
        await world.env.advance_time(60)
        assert _pictures(world) == 50
        assert await world.ledger_faults() == []


async def test_a_full_disk_refuses_and_charges_nothing(tmp_path: Path) -> None:
    """While the disk is full a request is refused in one sentence; with room again it is served."""
    async with open_world(tmp_path) as world:
        alerts = _alerts(world)
        await world.img2img(steps=1)
        await _fill_disk(world)
        refusals = [await world.img2img(prompt="x" * 1000, steps=1) for _ in range(8)]
        refused = [r for r in refusals if "can't save anything" in texts(r.response)]
        assert refused
        assert len(alerts) == 1
        assert "full" in alerts[0]
        await _make_room(world)
        made = _pictures(world)
        await world.img2img(steps=1)
        assert _pictures(world) == made + 1
        assert await world.ledger_faults() == []


async def test_a_disk_that_fills_up_under_a_job_delays_it(tmp_path: Path) -> None:
    """A picture that is made while nothing can be stored is kept, paid once and posted when it can."""
    sketcher = Sketcher()
    async with open_world(tmp_path, backends=[sketcher]) as world:
        gate = sketcher.gate = asyncio.get_running_loop().create_future()
        await world.img2img(steps=1)
        await world.app.db.write(lambda tx: tx.execute("PRAGMA query_only = ON").fetchone())
        gate.set_result(None)
        await world.env.settle()
        assert not _pictures(world)
        await world.app.db._writer.run(lambda tx: tx.execute("PRAGMA query_only = OFF").fetchone())
        await world.env.advance_time(120)
        assert _pictures(world)
        assert len(sketcher.calls) == 1
        assert await world.available() == 38
        assert await world.ledger_faults() == []


def _settings(folder: Path) -> Settings:
    return Settings(data_dir=folder, _env_file=None)  # type: ignore[call-arg]  # pydantic-settings' own


async def _no_fetch(_url: str) -> bytes:
    return b""


async def test_a_damaged_page_is_found(tmp_path: Path) -> None:
    """Whatever page of the database rots, the bot starts with a consistent ledger, or says what to do."""
    async with open_world(tmp_path) as world:
        await world.img2img(steps=1)
        size = await world.app.db.read(lambda tx: tx.execute("PRAGMA page_size").fetchone()[0])
    path = tmp_path / "bot.sqlite3"
    whole = path.read_bytes()
    refused = 0
    for start in range(0, len(whole), size):
        spoiled = bytearray(whole)
        spoiled[start + 100 : start + size] = b"\xa5" * (size - 100)
        path.write_bytes(spoiled)
        refused += await _is_refused(tmp_path)
    print(f"\n{len(whole) // size} pages, {refused} found damaged")
    assert refused > len(whole) // size // 2


async def _is_refused(folder: Path) -> bool:
    try:
        async with open_app(_settings(folder), fetch=_no_fetch, clock=SystemClock()) as app:
            return app.jobs.pause_reason is not None or await app.upkeep.check_ledger() != []
    except OperatorError as refusal:
        return "restore it from a backup" in str(refusal)


async def test_an_inconsistent_ledger_stops_spending(tmp_path: Path) -> None:
    """Where the ledger is wrong, nothing is accepted or spent, and one alert goes out."""
    sketcher = Sketcher()
    async with open_world(tmp_path, backends=[sketcher]) as world:
        alerts = _alerts(world)
        await world.app.db.write(
            lambda tx: tx.execute("UPDATE account SET posted = 3 WHERE kind = 'provider'")
        )
        await world.img2img(steps=1)
        await world.app.db.write(
            lambda tx: tx.execute("UPDATE account SET posted = 7 WHERE kind = 'provider'")
        )
        await world.app.upkeep.check_ledger()
        assert len(alerts) == 1
        for _ in range(2):
            answer = await world.img2img(steps=1)
            assert "ledger check found a problem" in texts(answer.response)
            await world.crash_and_restart()
        assert len(sketcher.calls) == 1
