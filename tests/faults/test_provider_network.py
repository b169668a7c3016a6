"""The whole bot with the hosted API behind it: a loopback service that speaks the contract."""

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from bot.backends.segmind import SegmindBackend
from bot.clock import SystemClock
from bot.events import OperatorAlert
from bot.pictures.pool import PicturePool
from db import providers
from tests.support.discord_wire import open_wire
from tests.support.live_bot import living
from tests.support.pictures import dimension_bomb, encoded, noise, scan_bomb
from tests.support.provider import (
    API_KEY,
    Provider,
    QuickClock,
    answer,
    close_after_body,
    drip,
    error,
    jpeg,
    nonsense,
    picture,
    reset_after_body,
    reset_before_body,
    reset_in_answer,
    reset_in_body,
    running_provider,
)
from tests.support.simulated_server import World, a_picture, open_world, texts


@asynccontextmanager
async def _world(folder: Path, **settings: Any) -> AsyncIterator[tuple[World, Provider]]:
    async with running_provider() as provider:
        segmind = SegmindBackend(
            api_key=SecretStr(API_KEY),
            base_url=provider.url,
            clock=QuickClock(),
            jitter=random.Random(1),
        )
        async with open_world(folder, backends=[segmind], **settings) as world:
            yield world, provider


async def test_the_service_gets_the_documented_request(tmp_path: Path) -> None:
    """What a member asks for arrives as the API documents it, with the picture as we normalised it."""
    async with _world(tmp_path) as (world, provider):
        await world.img2img(image=("in.png", a_picture((600, 300))), seed=5, samples=1)
        (request,) = provider.received
        pool = PicturePool(children=1)
        expected = await pool.normalise(a_picture((600, 300)))
        await pool.aclose()
        assert request.headers["x-api-key"] == API_KEY
        assert request.image == expected.data
        assert {key: value for key, value in request.json.items() if key != "image"} == {
            "prompt": "a harbour at dawn",
            "negative_prompt": "low quality,less details",
            "num_inference_steps": 20,
            "guidance_scale": 5.0,
            "seed": 5,
            "samples": 1,
            "strength": 0.7,
            "sampler": "dpmpp_2m",
            "scheduler": "sgm_uniform",
            "base64": False,
        }
        assert "AI-generated with Stable Diffusion 3 Medium" in texts(world.card)


@pytest.mark.parametrize(
    ("answer", "calls", "words"),
    [
        (error(400, "seed must be an integer"), 1, "refused"),
        (error(401), 1, "operator has been notified"),
        (error(500), 1, "failed on this request"),
        (error(503), 2, "didn't answer"),
        (reset_after_body, 2, "didn't answer"),
        (picture(b"<html>busy</html>"), 2, "isn't a complete picture"),
        (reset_in_answer, 2, "didn't answer"),
        (close_after_body, 2, "didn't answer"),
        (nonsense, 2, "didn't answer"),
        (picture(jpeg(size=(640, 480))[:-500]), 2, "isn't a complete picture"),
        (picture(dimension_bomb()), 2, "no usable picture"),
        (picture(scan_bomb(side=256)), 2, "no usable picture"),
        (error(429, headers={"Retry-After": "1e9"}), 5, "too busy"),
        (error(429, headers={"Retry-After": "-1"}), 5, "too busy"),
    ],
    ids=[
        *("400", "401", "500", "503", "reset", "html"),
        *("half an answer", "no answer", "nonsense", "half a picture", "bomb", "scans", "far off", "past"),
    ],
)
async def test_each_failure_costs_the_member_nothing(
    tmp_path: Path, answer: Any, calls: int, words: str
) -> None:
    """Whatever the service answers, the member pays nothing and reads one clear sentence."""
    async with _world(tmp_path) as (world, provider):
        provider.will(*[answer] * calls)
        await world.img2img()
        text = texts(world.card)
        assert words in text
        assert "weren't charged" in text
        assert API_KEY not in text
        assert provider.posts == calls
        assert await world.available() == 40
        assert await world.ledger_faults() == []


@pytest.mark.parametrize("behaviour", [reset_before_body, reset_in_body], ids=["before", "in"])
async def test_a_call_cut_off_under_way_is_made_again(tmp_path: Path, behaviour: Any) -> None:
    """When the connection breaks before the request is out whole, it is sent again: nothing was paid yet."""
    async with _world(tmp_path) as (world, provider):
        provider.will(behaviour, picture())
        await world.img2img(image=("in.png", encoded(noise(1000, 1000), "PNG")))
        assert len(world.card.attachments) == 1
        assert await world.available() == 38


async def test_a_dripping_answer_ends_at_the_deadline(tmp_path: Path) -> None:
    """A service that sends a byte now and then keeps nobody waiting for longer than the deadline, twice."""
    async with running_provider() as provider, open_wire() as wire:
        provider.will(drip)
        segmind = SegmindBackend(
            api_key=SecretStr(API_KEY), base_url=provider.url, clock=SystemClock(), deadline_s=0.5
        )
        async with living(tmp_path, wire, backends=[segmind]) as life:
            await wire.until(lambda: wire.online)
            await wire.slash(image=a_picture((64, 64)), prompt="a harbour")
            await wire.until(lambda: "didn't answer" in str(wire.messages))
            await life.settled()
            assert provider.posts == 2
            assert await life.spent() == 0


@pytest.mark.parametrize("left", ["NaN", "-5", "inf", "lots", "9" * 400, ""])
async def test_absurd_headers_change_nothing(tmp_path: Path, left: str) -> None:
    """Whatever the service says of the operator's credits, the picture comes and is paid once."""
    async with _world(tmp_path) as (world, provider):
        provider.will(
            picture(headers={"x-remaining-credits": left, "x-generation-time": "\x01", "retry-after": "x"})
        )
        await world.img2img()
        assert len(world.card.attachments) == 1
        assert await world.available() == 38


async def test_a_lost_answer_is_made_good(tmp_path: Path) -> None:
    """When an answer is lost on the way, the second call's picture comes and is paid once."""
    async with _world(tmp_path) as (world, provider):
        provider.will(reset_after_body, picture())
        await world.img2img()
        assert len(world.card.attachments) == 1
        assert await world.available() == 38


async def test_pictures_that_failed_are_not_charged(tmp_path: Path) -> None:
    """Of four pictures asked for, three come and three are paid."""
    async with _world(tmp_path) as (world, provider):
        provider.will(error(500), picture())
        await world.img2img(samples=4)
        message = world.card
        assert len(message.attachments) == 3
        assert "1 of 4 pictures failed, at no cost" in texts(message)
        assert await world.available() == 40 - 3 * 2
        assert await world.ledger_faults() == []


async def test_a_service_out_of_use_is_left_alone_and_tried_again(tmp_path: Path) -> None:
    """After a refusal of the key nobody calls in vain: jobs wait, and go on when the service is back."""
    async with _world(tmp_path) as (world, provider):
        provider.will(error(401), picture())
        await world.img2img()
        await world.img2img(world.bob)
        assert provider.posts == 1
        await world.env.advance_time(30)
        assert provider.posts == 2
        assert len(world.card.attachments) == 1


async def test_used_up_credits_pause_the_queue_until_they_are_back(tmp_path: Path) -> None:
    """When the operator's credits run out, everyone's card says so, and all go on automatically."""
    async with _world(tmp_path) as (world, provider):
        provider.will(error(406, "Not enough credits"))
        await world.img2img()
        await world.img2img(world.bob)
        await world.env.advance_time(8)
        for card in world.channel.history():
            assert "⏸️" in texts(card)
            assert "made as soon as they're topped up" in texts(card)
        provider.will(answer(200, b'{"credits": 0, "free-credits": 0}'))
        await world.env.advance_time(8)
        assert provider.posts == 1
        provider.will(answer(200, b'{"credits": 7, "free-credits": 0}'), picture(), picture())
        await world.env.advance_time(60)
        assert [len(card.attachments) for card in world.channel.history()] == [1, 1]
        assert provider.posts == 3
        assert (await world.available(), await world.available(world.bob)) == (38, 38)
        assert await world.ledger_faults() == []


async def test_nobody_waits_for_ever_for_the_operators_credits(tmp_path: Path) -> None:
    """Credits that don't come back within hours end what waits, at no cost."""
    async with _world(tmp_path) as (world, provider):
        provider.will(error(406, "Not enough credits"))
        await world.img2img()
        for _ in range(60):
            provider.will(answer(200, b'{"credits": 0}'))
        for _ in range(50):
            await world.env.advance_time(600)
        assert "has run out of credits" in texts(world.card)
        assert "No picture this time" in texts(world.card)
        assert await world.available() == 40
        assert await world.ledger_faults() == []


async def test_a_low_balance_alerts_the_operator_once(tmp_path: Path) -> None:
    """Below the low-water mark the operator is alerted once, and again only after it was filled up."""
    async with _world(tmp_path, provider_low_credits=10) as (world, provider):
        alerts: list[str] = []
        world.app.events.subscribe(
            lambda event: alerts.append(event.sentence) if isinstance(event, OperatorAlert) else None
        )
        for left in ("12", "9.5", "9", "nonsense", "20", "8"):
            provider.will(picture(headers={"x-remaining-credits": left}))
            await world.img2img()
        assert [sentence.split(": ")[1] for sentence in alerts] == [
            "9.5. Please top them up.",
            "8. Please top them up.",
        ]
        balance = (await world.app.db.read(providers.balances))[0]
        assert (balance.backend, balance.remaining) == ("segmind", 8.0)
