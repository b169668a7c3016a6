"""The bot dies at every commit and every outside effect, once and in pairs; nothing is lost or paid twice."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest

from bot.errors import BackendFailed, BackendUnsure
from tests.support.crash_points import Crash, WatchedBackend
from tests.support.discord_wire import Wire, open_wire
from tests.support.live_bot import Brush, Life, eventually, living
from tests.support.promises import check_promises
from tests.support.simulated_server import a_picture

PICTURE = a_picture((64, 64))
#: Fewer would mean that a commit or an effect is not watched any more.
POINTS_MIN = 55
PAIRS_MIN = 300
LIFE_S_MAX = 20


@dataclass(frozen=True, slots=True)
class Scene:
    """What a member does, and what the provider does to them."""

    name: str
    perform: Callable[[Stage], Awaitable[None]]
    errors: tuple[Exception, ...] = ()
    gated: bool = False


@dataclass(slots=True)
class Stage:
    """One folder, one Discord, one provider; the bot comes and goes."""

    folder: Path
    wire: Wire
    brush: Brush
    provider: WatchedBackend

    async def answered(self, asked: int = 1) -> None:
        """Wait until so many interactions have been answered here."""
        await self.wire.until(lambda: len(self.wire.answered) >= asked)

    def open_gate(self) -> None:
        """Let the provider go on."""
        assert self.brush.gate is not None
        self.brush.gate.set()

    async def running(self) -> None:
        """Wait until the provider is at work and the card is out."""
        await self.answered()
        await eventually(lambda: self.brush.calls)


async def _ask(stage: Stage) -> None:
    await stage.wire.slash(image=PICTURE, prompt="a harbour")
    await stage.answered()


async def _ask_badly(stage: Stage) -> None:
    await stage.wire.slash(image=b"this is not a picture", prompt="a harbour")
    await stage.answered()


async def _ask_and_cancel(stage: Stage) -> None:
    await stage.wire.slash(image=PICTURE, prompt="a harbour")
    await stage.running()
    (job_id,) = {
        int(r.path.split("/")[2]) for r in stage.wire.requests if r.path.startswith("/interactions/")
    }
    await stage.wire.press(f"i2i:cancel:{job_id}")
    await stage.answered(2)


async def _ask_and_outlive_the_token(stage: Stage) -> None:
    event = await stage.wire.slash(image=PICTURE, prompt="a harbour")
    await stage.running()
    stage.wire.expired.add(event["token"])
    stage.open_gate()


async def _ask_privately_and_outlive_the_token(stage: Stage) -> None:
    event = await stage.wire.slash(image=PICTURE, prompt="a harbour", private=True)
    await stage.running()
    stage.wire.expired.add(event["token"])
    stage.open_gate()


async def _ask_and_lose_the_card(stage: Stage) -> None:
    await stage.wire.slash(image=PICTURE, prompt="a harbour")
    await stage.running()
    stage.wire.messages.clear()
    stage.open_gate()


SCENES = (
    Scene("a picture comes", _ask),
    Scene("the provider fails", _ask, errors=(BackendFailed(),)),
    Scene("the provider does not answer once", _ask, errors=(BackendUnsure(),)),
    Scene("the picture can't be used", _ask_badly),
    Scene("it is cancelled", _ask_and_cancel, gated=True),
    Scene("it takes longer than a token lives", _ask_and_outlive_the_token, gated=True),
    Scene("so does a private one", _ask_privately_and_outlive_the_token, gated=True),
    Scene("its card is deleted", _ask_and_lose_the_card, gated=True),
)
_folders = count()


async def _play(folder: Path, scene: Scene, *kills: str) -> list[Crash]:
    """Play a scene, the bot killed at `kills`, one a life, and then left alone; check what is left."""
    async with open_wire() as wire:
        brush = Brush(errors=list(scene.errors), gate=asyncio.Event() if scene.gated else None)
        crashes = [Crash(at) for at in (*kills, None)]
        stage = Stage(folder / f"{next(_folders)}", wire, brush, WatchedBackend(brush, crashes[0]))
        for life, crash in enumerate(crashes):
            await _live(stage, crash, scene if life == 0 else None, last=life == len(crashes) - 1)
        return crashes


async def _live(stage: Stage, crash: Crash, scene: Scene | None, *, last: bool) -> None:
    stage.wire.dead, stage.provider.crash = False, crash
    crash.over(stage.wire)
    async with living(
        stage.folder,
        stage.wire,
        backends=[stage.provider],
        wrap_db=crash.wrap_db,
        wrap_store=crash.wrap_store,
    ) as life:
        acting = asyncio.create_task(_acting(stage, life, scene))
        dying = asyncio.create_task(crash.happened.wait())
        await asyncio.wait([acting, dying], timeout=LIFE_S_MAX, return_when=asyncio.FIRST_COMPLETED)
        dying.cancel()
        if crash.dead:
            life.killed = True
            acting.cancel()
            await asyncio.gather(acting, return_exceptions=True)
        else:
            assert acting.done(), f"stuck after {crash.passed[-3:]}"
            acting.result()
            if last:
                await check_promises(life.app.db, life.app.store, stage.wire)
                assert all(calls <= 2 for calls in stage.provider.calls.values())


async def _acting(stage: Stage, life: Life, scene: Scene | None) -> None:
    await stage.wire.until(lambda: stage.wire.online)
    if scene is not None:
        await scene.perform(stage)
    elif stage.brush.gate is not None:
        stage.open_gate()
    await life.settled()


async def _points(folder: Path) -> list[tuple[Scene, str]]:
    """Return every place where the bot can die, each with the first scene that passes it."""
    found: dict[str, Scene] = {}
    for scene in SCENES:
        (crash,) = await _play(folder, scene)
        for place in crash.passed:
            found.setdefault(place, scene)
    return [(scene, place) for place, scene in found.items()]


@pytest.mark.timeout(600)  # half a minute on two idle cores, and several under coverage on busy ones
async def test_no_death_loses_a_job_or_a_credit(tmp_path: Path) -> None:
    """Wherever the bot dies, after a restart each job ends, is paid once or not at all, and is shown once."""
    began = time.perf_counter()
    deaths = 0
    for scene, place in await _points(tmp_path):
        crash, _ = await _play(tmp_path, scene, place)
        # An edit that depends on the moment need not come about again: only real deaths count.
        deaths += crash.dead
    print(f"\n{deaths} crash points, 0 violations, {time.perf_counter() - began:.1f} s")
    assert deaths >= POINTS_MIN


@pytest.mark.nightly
@pytest.mark.timeout(3600)
async def test_no_two_deaths_lose_a_job_or_a_credit(tmp_path: Path) -> None:
    """Killed again anywhere in its recovery, the bot still keeps every promise."""
    began = time.perf_counter()
    pairs = 0
    for scene, first in await _points(tmp_path):
        _, recovery = await _play(tmp_path, scene, first)
        for second in dict.fromkeys(recovery.passed):
            # What depends on the moment need not come about again: only real deaths count.
            pairs += all(crash.dead for crash in (await _play(tmp_path, scene, first, second))[:2])
    print(f"\n{pairs} pairs of crash points, 0 violations, {time.perf_counter() - began:.1f} s")
    assert pairs >= PAIRS_MIN
