"""People who send what no client offers: forged buttons, wild options, other servers' ids, mashing."""

from __future__ import annotations

import asyncio
import io
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from bot.gateway.interactions import BROKEN
from bot.logs import RedactingFormatter, Redactor
from tests.support.discord_wire import BOB_ID, GUILD_ID, TOKEN, Message, Wire, open_wire
from tests.support.live_bot import Brush, Life, eventually, living
from tests.support.promises import check_promises
from tests.support.simulated_server import a_picture

PICTURE = a_picture((64, 64))
OTHER_GUILD_ID = GUILD_ID + (1 << 22)
NASTY = (
    "@everyone <@900000000000000004> [click](https://evil.example) **bold**\n"
    "ERROR bot: forged line\r\n> quote \u202eoverride\u200b ||spoiler|| `code` ```block``` # head"
)


@asynccontextmanager
async def _online(folder: Path, **settings: Any) -> AsyncIterator[tuple[Wire, Life]]:
    async with open_wire() as wire, living(folder, wire, backends=[Brush()], **settings) as life:
        await wire.until(lambda: wire.online)
        yield wire, life
        await life.settled()
        await check_promises(life.app.db, life.app.store, wire)


async def _made(wire: Wire, life: Life) -> tuple[int, Message]:
    """Let a picture be made; return its job and its card."""
    event = await wire.slash(image=PICTURE, prompt="a harbour", steps=1)
    await wire.until(lambda: any(m.files for m in wire.messages.values()))
    await life.settled()
    return int(event["id"]), next(m for m in wire.messages.values() if m.files)


async def _answer_to(wire: Wire, event: dict[str, Any]) -> str:
    """Wait for the answer to an interaction; return its words. It must be private."""
    await eventually(lambda: event["token"] in wire.answered)
    message = wire.messages[wire.answered[event["token"]]]
    assert message.private
    return str(message.body["content"])


async def _jobs(life: Life) -> int:
    return await life.app.db.read(lambda tx: int(tx.execute("SELECT count(*) FROM job").fetchone()[0]))


@pytest.mark.parametrize(
    "custom_id",
    [
        "i2i:reroll:1",
        "i2i:reroll:0",
        "i2i:reroll:99999999999999999999",
        "i2i:reroll:9223372036854775808",
        "i2i:subtle:{job}:3",
        "i2i:strong:1:0",
        "i2i:explode:{job}",
        "i2i:confirm:{job}",
        "i2i:withdraw:99999999999999999999",
        "i2i:show:12345",
        "i2i:cancel:12345",
        "i2i:delete:12345",
    ],
)
async def test_a_forged_button_is_refused_in_one_sentence(tmp_path: Path, custom_id: str) -> None:
    """A press of a button that never was shown does nothing and is answered in private."""
    async with _online(tmp_path) as (wire, life):
        job_id, _ = await _made(wire, life)
        event = await wire.press(custom_id.format(job=job_id))
        answer = await _answer_to(wire, event)
        assert answer != BROKEN
        assert await _jobs(life) == 1


@pytest.mark.parametrize(
    "operation", ["reroll", "vary_subtle", "vary_strong", "subtle", "strong", "show", "cancel", "delete"]
)
async def test_somebody_elses_job_is_left_alone(tmp_path: Path, operation: str) -> None:
    """Forging the buttons of another's picture, or holding rights in another server, gains nothing."""
    async with _online(tmp_path) as (wire, life):
        job_id, card = await _made(wire, life)
        suffix = ":0" if operation.endswith(("subtle", "strong")) else ""
        custom_id = f"i2i:{operation}:{job_id}{suffix}"
        answer = await _answer_to(wire, await wire.press(custom_id, user_id=BOB_ID))
        assert answer != BROKEN
        elsewhere = await wire.press(custom_id, guild_id=OTHER_GUILD_ID)
        assert "no longer stored" in await _answer_to(wire, elsewhere)
        assert await _jobs(life) == 1
        assert card.id in wire.messages


@pytest.mark.parametrize(
    "options",
    [
        {"steps": 0},
        {"steps": 10**9},
        {"steps": -1},
        {"steps": 2**70},
        {"samples": 100},
        {"samples": 0},
        {"strength": 1e308},
        {"strength": float("nan")},
        {"strength": float("inf")},
        {"guidance": -1e308},
        {"seed": -(2**70)},
        {"sampler": "../../etc/passwd"},
        {"scheduler": "' OR 1=1 --"},
        {"prompt": ""},
        {"prompt": "x" * 100_000},
        {"prompt": "\0"},
        {"negative_prompt": "y" * 100_000},
        {"steps": "twenty"},
    ],
    ids=lambda options: "-".join(f"{k}={str(v)[:12]}" for k, v in options.items()),
)
async def test_an_option_out_of_range_is_refused(tmp_path: Path, options: dict[str, Any]) -> None:
    """Options that no client would send are refused in private; nothing is stored and nothing is held."""
    async with _online(tmp_path) as (wire, life):
        event = await wire.slash(**{"image": PICTURE, "prompt": "a harbour", **options})
        await _answer_to(wire, event)
        assert await _jobs(life) == 0


async def test_half_a_command_harms_nobody(tmp_path: Path) -> None:
    """A command without its options, or with an attachment that is not there, is dropped."""
    async with _online(tmp_path) as (wire, life):
        await wire.slash(prompt="a harbour")
        await wire.slash(image=PICTURE)
        ghost = {"name": "image", "type": 11, "value": "1"}
        data = {"id": "1", "name": "img2img", "type": 1, "options": [ghost], "resolved": {}}
        await wire.interact(2, data)
        await _made(wire, life)
        assert await _jobs(life) == 1


async def test_mashing_a_button_spends_what_is_there_and_no_more(tmp_path: Path) -> None:
    """A hundred presses at once with 8 credits left: four pictures for two each, and each press answered."""
    async with _online(tmp_path, daily_allowance=10, member_waiting_max=200) as (wire, life):
        job_id, card = await _made(wire, life)
        events = await asyncio.gather(*(wire.press(f"i2i:reroll:{job_id}", on=card) for _ in range(100)))
        await eventually(lambda: all(event["token"] in wire.answered for event in events))
        await life.settled()
        assert await _jobs(life) == 5
        assert await life.spent() == 10


async def test_a_replayed_press_is_one_job(tmp_path: Path) -> None:
    """The same press, delivered three times, makes one picture."""
    async with _online(tmp_path) as (wire, life):
        job_id, card = await _made(wire, life)
        event = await wire.press(f"i2i:reroll:{job_id}", on=card)
        await wire.replay(event)
        await wire.replay(event)
        await wire.until(lambda: sum(bool(m.files) for m in wire.messages.values()) == 2)
        await life.settled()
        assert await _jobs(life) == 2


@contextmanager
def _logged() -> Iterator[io.StringIO]:
    """Collect everything that is logged, as an operator would read it."""
    lines = io.StringIO()
    handler = logging.StreamHandler(lines)
    handler.setFormatter(RedactingFormatter(Redactor([TOKEN])))
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.DEBUG)
    root.addHandler(handler)
    try:
        yield lines
    finally:
        root.removeHandler(handler)
        root.setLevel(level)


def _texts(components: Any) -> Iterator[str]:
    """Yield the texts that Discord renders: all but the pictures' descriptions."""
    for component in components:
        yield component.get("content") or ""
        yield from _texts(component.get("components") or ())


async def test_a_prompt_is_only_ever_text(tmp_path: Path) -> None:
    """A prompt full of mentions, markup, links and line breaks changes no message, no log and no rule."""
    with _logged() as lines:
        async with _online(tmp_path) as (wire, life):
            await wire.slash(image=PICTURE, prompt=NASTY, negative_prompt=NASTY, steps=1)
            await wire.until(lambda: any(m.files for m in wire.messages.values()))
            await life.settled()
            (card,) = wire.messages.values()
            shown = "\n".join(_texts(card.body["components"]))
            assert "https://evil" not in shown
            assert "@everyone" not in shown
            assert "\u202e" not in shown
            assert "<@900000000000000004>" not in shown
            assert card.body["allowed_mentions"] == {"parse": []}
    forged = [line for line in lines.getvalue().splitlines() if line.lstrip().startswith("ERROR bot: forged")]
    assert forged == []
    assert TOKEN not in lines.getvalue()
    assert "aW50ZXJhY3Rpb246planted" not in lines.getvalue()
