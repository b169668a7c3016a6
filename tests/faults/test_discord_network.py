"""The bot on a real socket: what Discord's network does to it, members don't notice."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from bot.actors import Person
from bot.errors import OperatorError
from tests.support.discord_wire import ALICE_ID, GUILD_ID, TOKEN, Fault, Message, Wire, open_wire
from tests.support.live_bot import Brush, Life, eventually, living
from tests.support.simulated_server import a_picture

PICTURE = a_picture((64, 64))
EDIT = r"^/webhooks/.*/messages/"
LIMITED = {"message": "You are being rate limited.", "retry_after": 0.05, "global": False}


@asynccontextmanager
async def _online(folder: Path, **options: Any) -> AsyncIterator[tuple[Wire, Life, Brush]]:
    brush = Brush()
    async with open_wire() as wire:
        wire.shards = options.pop("shards", 1)
        async with living(folder, wire, backends=[brush], **options) as life:
            await wire.until(lambda: wire.online)
            yield wire, life, brush
            assert wire.complaints == []


async def _shown(wire: Wire, life: Life, *, pictures: int = 1) -> list[Message]:
    """Wait until so many cards show a picture; check that no other does and that the ledger is consistent."""
    await wire.until(lambda: sum(bool(m.files) for m in wire.messages.values()) >= pictures)
    await life.settled()
    assert await life.ledger_faults() == []
    assert len(wire.messages) == pictures
    return list(wire.messages.values())


@pytest.mark.parametrize(
    "fault",
    [
        Fault(
            "PATCH",
            EDIT,
            429,
            LIMITED,
            {"Via": "1.1 google", "X-RateLimit-Remaining": "0", "X-RateLimit-Reset-After": "0.05"},
        ),
        Fault("PATCH", EDIT, 502),
        Fault("PATCH", EDIT, 503),
        Fault("PATCH", EDIT, cut="before"),
        Fault("PATCH", EDIT, cut="after"),
    ],
    ids=["429", "502", "503", "reset before", "reset after"],
)
async def test_trouble_under_the_delivery_is_got_over(tmp_path: Path, fault: Fault) -> None:
    """Whatever happens to the edit that brings the picture, the picture comes, once."""
    async with _online(tmp_path) as (wire, life, brush):
        wire.faults.append(fault)
        await wire.slash(image=PICTURE, prompt="a harbour")
        (card,) = await _shown(wire, life)
        assert len(card.files) == 1
        assert brush.calls == 1
        assert wire.faults == []


@pytest.mark.parametrize("cut", ["before", "after"])
async def test_an_answer_that_is_cut_off_is_made_good(tmp_path: Path, cut: str) -> None:
    """When the first answer's connection breaks, the job goes on and its picture is posted once."""
    async with _online(tmp_path) as (wire, life, _):
        wire.faults.append(Fault("POST", "/callback$", cut=cut))
        await wire.slash(image=PICTURE, prompt="a harbour")
        await _shown(wire, life)


async def test_a_storm_of_rate_limits_passes(tmp_path: Path) -> None:
    """Ten members served under a hail of 429s all get their picture."""
    async with _online(tmp_path, member_waiting_max=20) as (wire, life, _):
        limited = Fault("PATCH", EDIT, 429, LIMITED, {"Via": "1.1 google"})
        wire.faults += [limited] * 20
        for number in range(10):
            await wire.slash(image=PICTURE, prompt=f"number {number}", steps=1)
        await _shown(wire, life, pictures=10)


async def test_a_dropped_gateway_is_resumed(tmp_path: Path) -> None:
    """What a member asks for while the gateway is down is answered when it is back."""
    async with _online(tmp_path) as (wire, life, _):
        await wire.drop()
        await wire.slash(image=PICTURE, prompt="a harbour")
        await _shown(wire, life)
        assert wire.resumed == 1
        assert len(wire.identified) == 1


async def test_a_replayed_interaction_is_one_job_and_one_answer(tmp_path: Path) -> None:
    """The same command, sent again by a resumed gateway, is neither answered nor paid twice."""
    async with _online(tmp_path) as (wire, life, brush):
        event = await wire.slash(image=PICTURE, prompt="a harbour")
        await _shown(wire, life)
        await wire.drop()
        await wire.replay(event)
        await wire.replay(event)
        await wire.until(lambda: wire.resumed == 1)
        await wire.until(lambda: sum(r.path.endswith("/callback") for r in wire.requests) >= 1)
        await asyncio.sleep(0.2)
        await _shown(wire, life)
        assert brush.calls == 1
        assert await life.spent() == 2


async def test_an_invalid_session_is_begun_anew(tmp_path: Path) -> None:
    """When Discord has forgotten the session, the bot identifies again and serves on."""
    async with _online(tmp_path) as (wire, life, _):
        await wire.slash(image=PICTURE, prompt="before")
        await _shown(wire, life)
        await wire.invalidate()
        await wire.until(lambda: len(wire.identified) == 2)
        await wire.until(lambda: wire.online)
        await wire.slash(image=PICTURE, prompt="after")
        await _shown(wire, life, pictures=2)


async def test_two_shards_serve_side_by_side(tmp_path: Path) -> None:
    """With two shards in its settings, the bot identifies both and answers in servers of either."""
    async with _online(tmp_path, shards=2) as (wire, life, _):
        assert sorted(wire.identified) == [(0, 2), (1, 2)]
        await wire.slash(image=PICTURE, prompt="a harbour")
        await _shown(wire, life)


async def test_after_the_token_has_died_the_message_is_edited(tmp_path: Path) -> None:
    """Discord's 401 with code 50027 is asked for once; then the bot edits its own message."""
    async with _online(tmp_path) as (wire, life, brush):
        brush.gate = asyncio.Event()
        event = await wire.slash(image=PICTURE, prompt="a harbour")
        await eventually(lambda: brush.calls)
        wire.expired.add(event["token"])
        brush.gate.set()
        await _shown(wire, life)
        refused = [r for r in wire.requests if r.path.startswith("/webhooks/")]
        edits = [r for r in wire.requests if r.path.startswith("/channels/") and r.method == "PATCH"]
        assert len(refused) == 1
        assert len(edits) == 1


@pytest.mark.parametrize(
    "token", ["OTAwMDAwMDAwMDAwMDAwMDAx.AAAAAA.another-bot-token-00000000000000", "no token"]
)
async def test_a_refused_token_is_one_sentence(tmp_path: Path, token: str) -> None:
    """An operator with a wrong token reads what to do, and the token is not repeated to them."""
    async with open_wire() as wire:
        with pytest.raises(OperatorError, match="IMG2IMG_DISCORD_TOKEN") as refusal:
            async with living(tmp_path, wire, backends=[Brush()], token=token) as life:
                await asyncio.wait([life.running])
        assert token not in str(refusal.value)


async def test_an_event_that_is_nonsense_ends_nothing(tmp_path: Path) -> None:
    """A malformed interaction from Discord costs nobody else anything."""
    async with _online(tmp_path) as (wire, life, _):
        await wire.dispatch("INTERACTION_CREATE", {"guild_id": str(GUILD_ID), "id": "1", "type": 2})
        await wire.until(lambda: len(wire.identified) == 2, timeout_s=30)
        await wire.until(lambda: wire.online)
        await wire.slash(image=PICTURE, prompt="a harbour")
        await _shown(wire, life)


async def test_jobs_outlive_the_connection(tmp_path: Path) -> None:
    """When the connection ends under jobs that run and wait, each of them still gets its picture."""
    async with _online(tmp_path, member_running_max=1) as (wire, life, brush):
        brush.gate = asyncio.Event()
        for number in range(3):
            await wire.slash(image=PICTURE, prompt=f"number {number}", steps=1)
        await wire.until(lambda: len(wire.messages) == 3)
        await wire.dispatch("INTERACTION_CREATE", {"guild_id": str(GUILD_ID), "id": "1", "type": 2})
        await wire.until(lambda: len(wire.identified) == 2, timeout_s=30)
        brush.gate.set()
        await _shown(wire, life, pictures=3)
        assert brush.calls == 3
        assert await life.spent() == 6


async def test_a_result_that_discord_finds_too_large_stays_in_the_history(tmp_path: Path) -> None:
    """Refused with 413, the picture that was paid for is kept where /history finds it."""
    async with _online(tmp_path) as (wire, life, _):
        too_large = {"message": "Request entity too large", "code": 40005}
        wire.faults.append(Fault("PATCH", EDIT, 413, too_large))
        await wire.slash(image=PICTURE, prompt="a harbour")
        await eventually(lambda: wire.faults == [])
        await life.settled()
        views = await life.app.job_records.history(Person(GUILD_ID, ALICE_ID))
        assert [view.job.state for view in views] == ["undeliverable"]
        assert await life.ledger_faults() == []


@pytest.mark.parametrize(
    ("status", "code"),
    [(404, 10003), (404, 10004), (404, 10008), (403, 50001), (403, 50013)],
    ids=["channel deleted", "server gone", "message deleted", "bot kicked", "not allowed"],
)
async def test_a_place_that_is_gone_keeps_the_picture_in_the_history(
    tmp_path: Path, status: int, code: int
) -> None:
    """Where the picture can't be posted any more, it is paid, kept and found with /history."""
    async with _online(tmp_path) as (wire, life, brush):
        brush.gate = asyncio.Event()
        event = await wire.slash(image=PICTURE, prompt="a harbour")
        await eventually(lambda: brush.calls)
        wire.expired.add(event["token"])
        wire.faults.append(Fault("PATCH", "^/channels/", status, {"message": "gone", "code": code}))
        brush.gate.set()
        await eventually(lambda: wire.faults == [])
        await life.settled()
        views = await life.app.job_records.history(Person(GUILD_ID, ALICE_ID))
        assert [view.job.state for view in views] == ["undeliverable"]
        assert await life.ledger_faults() == []


async def test_no_secret_is_in_any_log_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """With everything logged and everything going wrong, no token is in a line of the log."""
    import io  # noqa: PLC0415

    from bot.logs import RedactingFormatter, Redactor  # noqa: PLC0415

    lines = io.StringIO()
    handler = logging.StreamHandler(lines)
    handler.setFormatter(RedactingFormatter(Redactor([TOKEN])))
    caplog.set_level(logging.DEBUG)
    logging.getLogger().addHandler(handler)
    try:
        async with _online(tmp_path) as (wire, life, _):
            wire.faults += [Fault("PATCH", EDIT, 503), Fault("PATCH", EDIT, cut="before")]
            event = await wire.slash(image=PICTURE, prompt="a harbour\nERROR forged: line")
            await _shown(wire, life)
            await wire.drop()
            await wire.until(lambda: wire.resumed == 1)
    finally:
        logging.getLogger().removeHandler(handler)
    text = lines.getvalue()
    assert "Shard ID" in text
    assert TOKEN not in text
    assert event["token"] not in text
    assert not [line for line in text.splitlines() if line.startswith("ERROR forged")]
