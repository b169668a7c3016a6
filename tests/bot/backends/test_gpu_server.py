"""Our own GPU server behind the bot: steps and previews on arrival, cancel, failures after a status 200."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from bot.backends.base import Progress
from bot.backends.gpu_server import GpuServerBackend
from bot.backends.http import JSON_LINES
from bot.errors import BackendDown, BackendError, BackendFailed, BackendThrottled, BackendUnsure
from bot.params import Img2ImgParams
from tests.support.provider import Behaviour, Connection, Provider, QuickClock, answer, jpeg, message

PARAMS = Img2ImgParams(prompt="a harbour", seed=3, num_inference_steps=4)
PICTURE = jpeg("olive")


def _line(**fields: object) -> bytes:
    return json.dumps(fields).encode() + b"\n"


def _step(step: int, preview: bytes = b"") -> bytes:
    return _line(step=step, steps=4, preview=base64.b64encode(preview).decode())


DONE = _line(image=base64.b64encode(PICTURE).decode(), generation_time=1.5)


def lines(*parts: bytes) -> Behaviour:
    """Answer with JSON lines."""
    return answer(200, b"".join(parts), {"content-type": JSON_LINES})


@asynccontextmanager
async def _gpu(provider: Provider) -> AsyncIterator[GpuServerBackend]:
    gpu = GpuServerBackend(url=provider.url, clock=QuickClock())
    try:
        yield gpu
    finally:
        await gpu.aclose()


async def _failure(provider: Provider) -> BackendError:
    async with _gpu(provider) as gpu:
        with pytest.raises(BackendError) as caught:
            await gpu.generate(PARAMS, jpeg(), lambda _: None)
    return caught.value


async def test_each_step_is_reported_with_its_preview(provider: Provider) -> None:
    """A member's card can count the steps and show the picture as it grows."""
    provider.will(lines(_step(1, b"no picture"), _step(2, PICTURE), _step(4), DONE))
    reported: list[Progress] = []
    async with _gpu(provider) as gpu:
        made = await gpu.generate(PARAMS, jpeg(), reported.append)
    assert reported == [Progress(1, 4), Progress(2, 4, PICTURE), Progress(4, 4)]
    assert [picture.data for picture in made.pictures] == [PICTURE]
    assert provider.received[0].headers["accept"] == JSON_LINES


async def test_several_pictures_progress_as_one(provider: Provider) -> None:
    """While four pictures are being made, the bar shows their mean and never goes back."""
    provider.will(lines(_step(2), _step(4), DONE))
    reported: list[Progress] = []
    async with _gpu(provider) as gpu:
        made = await gpu.generate(PARAMS.model_copy(update={"samples": 4}), jpeg(), reported.append)
    steps = [progress.step for progress in reported]
    assert steps == sorted(steps)
    assert steps[-1] == 4
    assert [picture.seed for picture in made.pictures] == [3, 4, 5, 6]


async def test_nonsense_between_the_steps_is_ignored(provider: Provider) -> None:
    """Progress is optional: only the last line decides."""
    provider.will(lines(b"nonsense\n", _line(step=-1, steps=0), _line(step=1, steps=4, preview="?"), DONE))
    reported: list[Progress] = []
    async with _gpu(provider) as gpu:
        made = await gpu.generate(PARAMS, jpeg(), reported.append)
    assert reported == []
    assert len(made.pictures) == 1


@pytest.mark.parametrize(
    ("last", "kind"),
    [
        (_line(error="busy", status=429), BackendThrottled),
        (_line(error="out of memory", status=500), BackendFailed),
        (_line(error="closing", status=503), BackendUnsure),
        (_line(error="no status"), BackendFailed),
        (_step(3), BackendUnsure),
        (b"", BackendUnsure),
    ],
)
async def test_a_failure_after_the_first_step_counts(
    provider: Provider, last: bytes, kind: type[BackendError]
) -> None:
    """A failure after a status 200 is still a failure: nobody pays for a half-made picture."""
    provider.will(lines(_step(1), last))
    assert type(await _failure(provider)) is kind


async def test_a_server_that_dies_midway_leaves_the_outcome_unsure(provider: Provider) -> None:
    """If the server dies in the middle, the job may be tried once more."""

    async def dies(connection: Connection) -> None:
        await connection.receive()
        whole = message(200, _step(1) + DONE, {"content-type": JSON_LINES})
        connection.writer.write(whole[:-40])
        await connection.writer.drain()

    provider.will(dies)
    assert type(await _failure(provider)) is BackendUnsure


async def test_cancelling_hangs_up(provider: Provider) -> None:
    """Cancel reaches the server at once, so that it stops working on the job."""
    hung_up = asyncio.Event()
    begun = asyncio.Event()

    async def slow(connection: Connection) -> None:
        await connection.receive()
        begun.set()
        await connection.reader.read()
        hung_up.set()

    provider.will(slow)
    async with _gpu(provider) as gpu:
        call = asyncio.create_task(gpu.generate(PARAMS, jpeg(), lambda _: None))
        await begun.wait()
        call.cancel()
        await asyncio.wait([call])
        await asyncio.wait_for(hung_up.wait(), 10)
    assert call.cancelled()


async def test_check_names_the_model(provider: Provider) -> None:
    """An operator sees which model answers."""
    provider.will(answer(200, b'{"status": "ok", "model": "sd3"}', {"content-type": "application/json"}))
    async with _gpu(provider) as gpu:
        assert await gpu.check() == "GPU server OK (model sd3)."


async def test_check_recognises_another_server(provider: Provider) -> None:
    """`check` notices that something else answers at the address."""
    provider.will(answer(200, b"<html>", {"content-type": "text/html"}))
    async with _gpu(provider) as gpu:
        with pytest.raises(BackendDown) as caught:
            await gpu.check()
    assert "IMG2IMG_GPU_URL" in caught.value.detail
