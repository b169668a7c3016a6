"""The bot with the real GPU server behind it, on the tiny model."""

from __future__ import annotations

import asyncio
import io
from pathlib import Path

import pytest
from PIL import Image

from bot.backends.base import Progress
from bot.backends.gpu_process import TINY, GpuProcess, free_port
from bot.backends.gpu_server import GpuServerBackend
from bot.clock import SystemClock
from bot.errors import BackendDown
from bot.params import Img2ImgParams
from tests.support.simulated_server import a_picture, open_world, texts

pytest.importorskip("torch", reason="needs the extra [gpu]")

PARAMS = Img2ImgParams(prompt="a harbour", seed=3, num_inference_steps=4)


def _process(folder: Path, port: int, model: str = TINY) -> GpuProcess:
    return GpuProcess(
        model=model, port=port, keys_path=folder / "keys.sqlite3", clock=SystemClock(), device="cpu"
    )


def _gpu(folder: Path, model: str = TINY) -> GpuServerBackend:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    return GpuServerBackend(url=url, clock=SystemClock(), process=_process(folder, port, model))


async def test_the_bot_starts_its_own_server(tmp_path: Path) -> None:
    """With a model set, the bot starts the server, reports its steps with previews and gets a picture."""
    gpu = _gpu(tmp_path)
    reported: list[Progress] = []
    try:
        assert "tiny" in await gpu.check()
        made = await gpu.generate(PARAMS, a_picture((64, 64), "JPEG"), reported.append)
    finally:
        await gpu.aclose()
    assert Image.open(io.BytesIO(made.pictures[0].data)).size == (64, 64)
    assert 1 <= reported[-1].step <= 4
    assert any(progress.preview for progress in reported)


async def test_model_that_can_not_be_loaded_is_reported(tmp_path: Path) -> None:
    """A wrong model takes the backend out of use instead of hanging jobs."""
    gpu = _gpu(tmp_path, model=str(tmp_path / "no-such-model"))
    try:
        with pytest.raises(BackendDown) as caught:
            await gpu.check()
        assert "ended while starting" in caught.value.detail
    finally:
        await gpu.aclose()


async def test_a_picture_goes_all_the_way(tmp_path: Path) -> None:
    """A member's /img2img is answered by the model on the operator's own machine."""
    gpu = _gpu(tmp_path)
    await gpu.check()
    async with open_world(tmp_path / "world", backends=[gpu]) as world:
        await world.img2img(image=("in.png", a_picture((64, 64))), steps=3, samples=2)
        assert "AI-generated with Stable Diffusion 3 Medium" in texts(world.card)
        assert len(world.card.attachments) == 2
        assert await world.ledger_faults() == []


async def test_cancel_frees_the_engine(tmp_path: Path) -> None:
    """A cancelled job stops within a step: the server has nothing live soon after."""
    gpu = _gpu(tmp_path)
    try:
        await gpu.check()
        first = asyncio.Event()
        long = PARAMS.model_copy(update={"num_inference_steps": 100})
        picture = a_picture((256, 256), "JPEG")
        call = asyncio.create_task(gpu.generate(long, picture, lambda _: first.set()))
        await first.wait()
        call.cancel()
        await asyncio.wait([call])
        made = await asyncio.wait_for(gpu.generate(PARAMS, picture, lambda _: None), 60)
    finally:
        await gpu.aclose()
    assert call.cancelled()
    assert len(made.pictures) == 1
