"""The hosted API as a backend: what is sent to it, its capabilities, and that its key is never shown."""

from __future__ import annotations

import asyncio
import contextlib
import io
import logging
import random
import traceback
from collections.abc import AsyncIterator, Iterator

import pytest
from pydantic import SecretStr

from bot.backends.base import Backend, Progress
from bot.backends.segmind import SegmindBackend
from bot.errors import BackendDown, BackendError, BackendFailed, BackendUnsure
from bot.logs import RedactingFormatter, Redactor
from bot.params import Img2ImgParams
from tests.support import provider as service
from tests.support.provider import API_KEY, Behaviour, Provider, QuickClock

PARAMS = Img2ImgParams(prompt="a fox in the snow", seed=7)


def segmind_at(url: str, clock: QuickClock, deadline_s: float = 30.0) -> SegmindBackend:
    """Return the backend, pointed at `url`."""
    return SegmindBackend(
        api_key=SecretStr(API_KEY),
        base_url=url,
        clock=clock,
        deadline_s=deadline_s,
        jitter=random.Random(7),
    )


@pytest.fixture
async def segmind(provider: Provider, clock: QuickClock) -> AsyncIterator[SegmindBackend]:
    """The backend, pointed at the service."""
    segmind = segmind_at(provider.url, clock)
    yield segmind
    await segmind.aclose()


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """Everything logged during the test, from DEBUG up, as the bot would log it without knowing the key."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(RedactingFormatter(Redactor()))
    root, level = logging.getLogger(), logging.getLogger().level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield stream
    root.removeHandler(handler)
    root.setLevel(level)


def unwatched(progress: Progress) -> None:
    """Fail: the API reports no progress."""
    raise AssertionError(progress)


async def test_documented_body_and_header_arrive(segmind: SegmindBackend, provider: Provider) -> None:
    """The service gets exactly the documented request, with the picture's bytes unchanged."""
    image = service.jpeg(size=(640, 480))
    params = Img2ImgParams(
        prompt="a fox",
        negative_prompt="dogs",
        num_inference_steps=14,
        guidance_scale=6.5,
        seed=41,
        strength=0.55,
        sampler="euler",
        scheduler="normal",
    )
    await segmind.generate(params, image, unwatched)
    (request,) = provider.received
    assert (request.method, request.path) == ("POST", "/v1/sd3-med-img2img")
    assert request.headers["x-api-key"] == API_KEY
    assert request.image == image
    assert not request.json["image"].startswith("data:")
    assert {key: value for key, value in request.json.items() if key != "image"} == {
        "prompt": "a fox",
        "negative_prompt": "dogs",
        "num_inference_steps": 14,
        "guidance_scale": 6.5,
        "seed": 41,
        "samples": 1,
        "strength": 0.55,
        "sampler": "euler",
        "scheduler": "normal",
        "base64": False,
    }


async def test_picture_comes_back_as_it_was_sent(segmind: SegmindBackend, provider: Provider) -> None:
    """The picture's bytes are passed on unchanged, with its seed and the operator's credits."""
    data = service.jpeg("coral")
    provider.will(service.picture(data, {"x-remaining-credits": "12.34"}))
    generation = await segmind.generate(PARAMS, service.jpeg(), unwatched)
    (picture,) = generation.pictures
    assert (picture.index, picture.seed, picture.data) == (0, 7, data)
    assert generation.remaining_credits == 12.34


async def test_samples_run_concurrently(segmind: SegmindBackend, provider: Provider) -> None:
    """Four pictures are made at once: none is answered before all four were requested."""
    gate = asyncio.Barrier(4)

    async def together(connection: service.Connection) -> None:
        await connection.receive()
        await gate.wait()
        await connection.send(service.message(200, service.jpeg(), {"Content-Type": "image/jpeg"}))

    provider.will(together)
    params = PARAMS.model_copy(update={"samples": 4})
    async with asyncio.timeout(20):
        generation = await segmind.generate(params, service.jpeg(), unwatched)
    assert [picture.seed for picture in generation.pictures] == [7, 8, 9, 10]


async def test_cancelling_ends_every_call(segmind: SegmindBackend, provider: Provider) -> None:
    """A job that is cancelled leaves no call behind."""
    left: asyncio.Queue[None] = asyncio.Queue()
    came = asyncio.Barrier(4)

    async def notice(connection: service.Connection) -> None:
        await connection.receive()
        await came.wait()
        await connection.reader.read()
        left.put_nowait(None)

    provider.will(notice)
    params = PARAMS.model_copy(update={"samples": 3})
    job = asyncio.create_task(segmind.generate(params, service.jpeg(), unwatched))
    async with asyncio.timeout(20):
        await came.wait()
        job.cancel()
        with pytest.raises(asyncio.CancelledError):
            await job
        for _ in range(3):
            await left.get()


async def test_deadline_is_per_call(provider: Provider, clock: QuickClock) -> None:
    """A service that sends byte by byte is given up at the deadline, not waited for endlessly."""
    provider.will(service.drip)
    segmind = segmind_at(provider.url, clock, deadline_s=0.3)
    with pytest.raises(BackendUnsure):
        await segmind.generate(PARAMS, service.jpeg(), unwatched)
    await segmind.aclose()
    assert provider.posts == 1


async def test_throttled_job_ends_with_its_picture(segmind: SegmindBackend, provider: Provider) -> None:
    """A rate-limited job waits and gets its picture."""
    provider.will(service.error(429, headers={"Retry-After": "3"}), service.picture())
    assert (await segmind.generate(PARAMS, service.jpeg(), unwatched)).pictures
    assert provider.posts == 2


async def test_check_reports_the_credits(segmind: SegmindBackend, provider: Provider) -> None:
    """The operator sees in one sentence that the key works and what is left, free credits included."""
    provider.will(service.answer(200, b'{"credits": 12.3, "free-credits": 0.04}'))
    assert await segmind.check() == "Segmind OK (12.34 credits left)."
    (request,) = provider.received
    assert (request.method, request.path) == ("GET", "/v1/get-user-credits")
    assert request.headers["x-api-key"] == API_KEY


async def test_check_reports_a_refused_key(segmind: SegmindBackend, provider: Provider) -> None:
    """The check notices a key that the service doesn't know."""
    provider.will(service.error(401, "invalid key"))
    with pytest.raises(BackendDown) as caught:
        await segmind.check()
    assert caught.value.detail == "401: invalid key"


@pytest.mark.parametrize("body", [b"", b"[]", b'{"credits": NaN}', b'{"credits": "many"}', b"<html>"])
async def test_check_survives_any_answer(segmind: SegmindBackend, provider: Provider, body: bytes) -> None:
    """The check reports an answer that is not a balance."""
    provider.will(service.answer(200, body))
    with pytest.raises(BackendFailed, match="can't be read"):
        await segmind.check()


def test_it_reports_its_capabilities(clock: QuickClock) -> None:
    """The bot knows that a model makes the picture, and that it can't be cancelled."""
    segmind: Backend = SegmindBackend(api_key=SecretStr(API_KEY), clock=clock, concurrency_max=9)
    assert segmind.name == "segmind"
    assert segmind.capabilities.label == "Stable Diffusion 3 Medium (Segmind)"
    assert segmind.capabilities.uses_model
    assert not segmind.capabilities.can_cancel
    assert (segmind.capabilities.concurrency_max, segmind.capabilities.typical_s) == (9, 7.43)


ECHO = {"x-request-id": API_KEY, "x-whatever": API_KEY, "Content-Type": API_KEY}
ECHOES = [
    service.picture(headers={"x-request-id": API_KEY}),
    service.error(400, f"strength: bad key {API_KEY}", ECHO),
    service.error(401, f"invalid key {API_KEY}"),
    service.error(406, f"no credits for {API_KEY}"),
    service.error(429, API_KEY, {"Retry-After": API_KEY}),
    service.error(503, API_KEY),
    service.answer(200, API_KEY.encode(), ECHO),
    service.answer(307, b"", {"Location": f"https://elsewhere.example/?key={API_KEY}"}),
    service.nonsense,
    service.reset_before_body,
    service.reset_after_body,
    service.reset_in_answer,
]


@pytest.mark.parametrize("behaviour", ECHOES)
async def test_key_is_seen_nowhere(
    segmind: SegmindBackend, provider: Provider, log: io.StringIO, behaviour: Behaviour
) -> None:
    """Even if a service repeats the key in everything it sends, no log line and no error contains it."""
    provider.will(behaviour)
    shown = [repr(segmind), repr(vars(segmind))]
    for call in (segmind.generate(PARAMS, service.jpeg(), unwatched), segmind.check()):
        try:
            await call
        except BackendError as exc:
            logging.getLogger("bot").exception("A job failed: %s", exc.detail)
            shown += [str(exc), repr(exc), exc.detail, *traceback.format_exception(exc)]
    assert provider.connections
    assert "httpcore" in log.getvalue()
    assert API_KEY not in log.getvalue()
    assert API_KEY not in "".join(shown)


async def test_key_is_in_no_raw_log_record(
    segmind: SegmindBackend, provider: Provider, caplog: pytest.LogCaptureFixture
) -> None:
    """Even unredacted logs don't contain the key, as long as the service doesn't repeat it."""
    provider.will(service.picture(), service.error(401), service.reset_after_body)
    with caplog.at_level(logging.DEBUG):
        for _ in range(3):
            with pytest.raises(BackendError) if provider.connections else contextlib.nullcontext():
                await segmind.generate(PARAMS, service.jpeg(), unwatched)
    assert any(record.name == "httpcore.http11" for record in caplog.records)
    assert any(record.name == "httpx" for record in caplog.records)
    assert API_KEY not in caplog.text
    assert not any(API_KEY in repr(vars(record)) for record in caplog.records)
