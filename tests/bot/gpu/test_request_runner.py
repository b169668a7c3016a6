"""From an accepted request to its pictures: what is charged, refunded and counted."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs the extra [gpu]")
pytest.importorskip("diffusers", reason="needs the extra [gpu]")
pytest.importorskip("starlette", reason="needs the extra [gpu]")

from bot.clock import SystemClock  # noqa: E402  after the skip
from bot.errors import BackendFailed, NotEnoughCredits, Paused, QueueFull  # noqa: E402  after the skip
from bot.gpu.api_keys import ApiKeys  # noqa: E402  after the skip
from bot.gpu.continuous_batch import EngineLimits  # noqa: E402  after the skip
from bot.gpu.engine import Engine  # noqa: E402  after the skip
from bot.gpu.key_file import open_keys  # noqa: E402  after the skip
from bot.gpu.metrics import RequestMetrics  # noqa: E402  after the skip
from bot.gpu.model import Model  # noqa: E402  after the skip
from bot.gpu.request_body import GenerationRequest  # noqa: E402  after the skip
from bot.gpu.request_runner import RequestRunner  # noqa: E402  after the skip
from bot.params import Img2ImgParams  # noqa: E402  after the skip
from tests.bot.gpu.model_stand_ins import CrampedModel, GatedModel, picture  # noqa: E402  after the skip

BUDGET = 1000


def a_request(*, samples: int = 1) -> GenerationRequest:
    """Return a small request."""
    params = Img2ImgParams(prompt="a fox", seed=1, num_inference_steps=2, samples=samples)
    return GenerationRequest(params, picture(), as_json=True)


@pytest.fixture
async def keys(tmp_path: Path) -> AsyncIterator[ApiKeys]:
    """Yield a file of keys with one key, whose id is 1."""
    async with open_keys(tmp_path / "keys.sqlite") as opened:
        await opened.add("bot", credits_given=1)
        yield opened


def runner(engine: Engine, keys: ApiKeys) -> RequestRunner:
    """Return a runner of requests on `engine`."""
    return RequestRunner(engine, keys, RequestMetrics(), SystemClock())


def wait_until_closing(engine: Engine) -> None:
    """Return once the engine takes no more tickets."""
    while engine.alive:
        time.sleep(0.01)


async def test_pictures_are_charged(engine: Engine, keys: ApiKeys) -> None:
    """A request that made its pictures costs what its headers say."""
    requests = runner(engine, keys)
    accepted = await requests.accept(a_request(samples=2), 1)
    made = await requests.finish(accepted)
    assert [file[:3] for file in made] == [b"\xff\xd8\xff"] * 2
    assert accepted.headers["x-cost"] == "0.001"
    assert accepted.headers["x-remaining-credits"] == "0.999"
    assert await keys.available_units(1) == BUDGET - 1


async def test_failed_request_is_refunded(model: Model, keys: ApiKeys) -> None:
    """A request that fails on the card costs nothing."""
    engine = Engine(CrampedModel(model, rows_max=0))  # type: ignore[arg-type]  # a stand-in for the card
    requests = runner(engine, keys)
    with pytest.raises(BackendFailed):
        await requests.finish(await requests.accept(a_request(), 1))
    assert await keys.available_units(1) == BUDGET
    engine.close()


async def test_cancelled_request_is_refunded_and_leaves_the_engine(model: Model, keys: ApiKeys) -> None:
    """When nobody waits any more, the tickets are cancelled and the charge comes back."""
    gate = GatedModel(model)
    engine = Engine(gate)  # type: ignore[arg-type]  # a stand-in for the card
    requests = runner(engine, keys)
    accepted = await requests.accept(a_request(), 1)
    finish = asyncio.create_task(requests.finish(accepted))
    await asyncio.sleep(0)
    finish.cancel()
    await asyncio.wait([finish])
    assert finish.cancelled()
    assert accepted.tickets[0].is_cancelled
    assert await keys.available_units(1) == BUDGET
    gate.go.set()
    engine.close()


async def test_request_that_is_not_accepted_costs_nothing(
    new_engine: Callable[..., Engine], keys: ApiKeys
) -> None:
    """Too little credit and a full queue refuse a request before anything is charged."""
    full = runner(new_engine(EngineLimits(waiting=0)), keys)
    with pytest.raises(QueueFull):
        await full.accept(a_request(), 1)
    with pytest.raises(NotEnoughCredits):
        await runner(new_engine(), keys).accept(a_request(), 2)
    assert await keys.available_units(1) == BUDGET


async def test_closing_engine_pauses_new_and_running_requests(model: Model, keys: ApiKeys) -> None:
    """While the engine closes, running requests are refunded and new ones refused with `Paused`."""
    gate = GatedModel(model)
    engine = Engine(gate)  # type: ignore[arg-type]  # a stand-in for the card
    requests = runner(engine, keys)
    accepted = await requests.accept(a_request(), 1)
    finish = asyncio.create_task(requests.finish(accepted))
    await asyncio.to_thread(gate.reached.wait)
    closing = asyncio.create_task(asyncio.to_thread(engine.close))
    await asyncio.to_thread(wait_until_closing, engine)
    gate.go.set()
    with pytest.raises(Paused):
        await finish
    await closing
    assert await keys.available_units(1) == BUDGET
    with pytest.raises(Paused):
        await requests.accept(a_request(), 1)
