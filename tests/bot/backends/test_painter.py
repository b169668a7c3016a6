"""The painter as the bot meets it: through its child process."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageChops, ImageStat

from bot.backends.base import Backend, Progress
from bot.backends.painter import Painter
from bot.errors import BackendDown, BackendFailed
from bot.params import Img2ImgParams

ROOT = Path(__file__).resolve().parents[3]
SAMPLE = ROOT / "bot" / "demo" / "assets" / "sample.jpg"


def photo(width: int = 192, height: int = 128, **extra: Any) -> bytes:
    """Return the sample picture in a size, as the bot would hand it over."""
    buffer = io.BytesIO()
    with Image.open(SAMPLE) as image:
        image.resize((width, height)).save(buffer, "JPEG", quality=95, **extra)
    return buffer.getvalue()


def params(**options: Any) -> Img2ImgParams:
    """Return options with few steps, which is quick."""
    return Img2ImgParams(**{"prompt": "a cat", "seed": 7, "num_inference_steps": 4, **options})


def opened(data: bytes) -> Image.Image:
    """Return the picture in `data`, RGB."""
    with Image.open(io.BytesIO(data)) as image:
        return image.convert("RGB")


def likeness(one: Image.Image, other: Image.Image) -> float:
    """Return how alike two pictures are in the large: the correlation of their tones, 1 the same."""
    a, b = (
        list(image.convert("L").resize((24, 16), Image.Resampling.BOX).tobytes()) for image in (one, other)
    )
    mean_a, mean_b = sum(a) / len(a), sum(b) / len(b)
    both = sum((x - mean_a) * (y - mean_b) for x, y in zip(a, b, strict=True))
    spread = sum((x - mean_a) ** 2 for x in a) * sum((y - mean_b) ** 2 for y in b)
    return float(both / spread**0.5)


def distance(one: Image.Image, other: Image.Image) -> float:
    """Return the mean difference of two pictures, in levels."""
    return sum(ImageStat.Stat(ImageChops.difference(one, other)).mean) / 3


def children(parent: int) -> set[int]:
    """Return the painting children of a process, zombies left out."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, owner = stat.read_text().rpartition(")")[2].split()[:2]
            command = (stat.parent / "cmdline").read_bytes()
            if int(owner) == parent and state != "Z" and b"bot.backends.painting" in command:
                found.add(int(stat.parent.name))
    return found


def ignore(_progress: Progress) -> None:
    """Take no notice."""


@pytest.fixture
async def painter() -> AsyncIterator[Painter]:
    """Give a painter that must have no children left when its test is done."""
    backend = Painter()
    yield backend
    await backend.aclose()
    assert not children(os.getpid())


@pytest.fixture
def waiting() -> tuple[Callable[[Progress], None], asyncio.Event]:
    """Give an `on_progress` and the event it sets when painting has begun."""
    begun = asyncio.Event()

    def on_progress(_progress: Progress) -> None:
        begun.set()

    return on_progress, begun


async def test_follows_the_picture(painter: Painter) -> None:
    """A light touch stays close to the picture; a strong one leaves it but keeps its composition."""
    source = opened(photo())
    light, usual, wild = [
        opened((await painter.generate(params(strength=s), photo(), ignore)).pictures[0].data)
        for s in (0.3, 0.7, 0.95)
    ]
    assert likeness(source, light) > 0.97
    assert likeness(source, usual) > 0.85
    assert likeness(source, wild) < likeness(source, usual) < likeness(source, light)
    assert distance(source, light) < distance(source, usual) < distance(source, wild)
    for mean, wanted in zip(ImageStat.Stat(light).mean, ImageStat.Stat(source).mean, strict=True):
        assert abs(mean - wanted) < 15


async def test_strength_zero_keeps_the_picture(painter: Painter) -> None:
    """At strength 0 a member gets the picture back, encoded afresh, whatever the prompt says."""
    made = await painter.generate(params(strength=0, prompt="blue cubist mosaic"), photo(), ignore)
    assert distance(opened(photo()), opened(made.pictures[0].data)) < 2


async def test_same_seed_same_bytes(painter: Painter) -> None:
    """The same seed and options give the same file again; another seed gives another picture."""
    first, again, other = [
        (await painter.generate(params(seed=seed), photo(), ignore)).pictures[0].data for seed in (7, 7, 8)
    ]
    assert first == again
    assert distance(opened(first), opened(other)) > 5


async def test_four_samples_are_four_pictures(painter: Painter) -> None:
    """Four samples are four different pictures, each one made again alone by its own seed."""
    seen: list[Progress] = []
    made = await painter.generate(params(samples=4, seed=2**32 - 2), photo(), seen.append)
    assert [p.index for p in made.pictures] == [0, 1, 2, 3]
    assert [p.seed for p in made.pictures] == [2**32 - 2, 2**32 - 1, 0, 1]
    pictures = [opened(p.data) for p in made.pictures]
    assert min(distance(a, b) for a, b in pairwise(pictures)) > 5
    alone = await painter.generate(params(seed=0), photo(), ignore)
    assert alone.pictures[0].data == made.pictures[2].data
    assert [p.step for p in seen] == [1, 2, 3, 4]


async def test_progress_counts_every_layer(painter: Painter) -> None:
    """Progress counts every layer once, and its small previews come closer to the picture."""
    seen: list[Progress] = []
    made = await painter.generate(params(num_inference_steps=12), photo(512, 256), seen.append)
    assert [(p.step, p.steps) for p in seen] == [(step, 12) for step in range(1, 13)]
    previews = [opened(p.preview) for p in seen if p.preview]
    assert 3 <= len(previews) < 12
    assert all(max(preview.size) <= 256 for preview in previews)
    result = opened(made.pictures[0].data)
    first, *_, last = [distance(preview, result.resize(preview.size)) for preview in previews]
    assert last < first


async def test_more_steps_are_finer(painter: Painter) -> None:
    """More steps bring a painting closer to the picture's detail."""
    coarse, fine = [
        opened((await painter.generate(params(num_inference_steps=n), photo(), ignore)).pictures[0].data)
        for n in (1, 30)
    ]
    source = opened(photo())
    assert distance(source, fine) < distance(source, coarse)


@pytest.mark.parametrize("size", [(16, 16), (2048, 16), (16, 2048), (1024, 1024)])
async def test_a_picture_keeps_its_size(painter: Painter, size: tuple[int, int]) -> None:
    """A picture comes back in the size it went in, and no larger than can be posted."""
    made = await painter.generate(params(num_inference_steps=3), photo(*size), ignore)
    assert opened(made.pictures[0].data).size == size
    assert len(made.pictures[0].data) < 4000 + 1.5 * size[0] * size[1]


@pytest.mark.parametrize("strength", [0, 0.5])
async def test_no_metadata_is_handed_on(painter: Painter, strength: float) -> None:
    """Nothing that a camera wrote into the picture is in the painted one."""
    exif = Image.Exif()
    exif[0x010E] = "where I live"
    image = photo(64, 64, exif=exif, comment=b"where I live", icc_profile=b"where I live")
    made = await painter.generate(params(strength=strength), image, ignore)
    assert b"where I live" in image
    assert b"where I live" not in made.pictures[0].data


@pytest.mark.parametrize(
    "prompt",
    [
        "\x00",
        "@everyone `rm -rf /` \n\r\x1b[2J",
        "\u202egnp.exe \u200b",
        "{} %s {0.__class__}",
        "blue " * 200,
    ],
)
async def test_a_hostile_prompt_gets_a_picture(painter: Painter, prompt: str) -> None:
    """Whatever somebody writes as a prompt, they get a picture."""
    made = await painter.generate(params(prompt=prompt, negative_prompt=prompt), photo(32, 32), ignore)
    assert opened(made.pictures[0].data).size == (32, 32)


async def test_cancelling_ends_the_process(
    painter: Painter, waiting: tuple[Callable[[Progress], None], asyncio.Event]
) -> None:
    """Cancelling ends the painting's process before the cancelled call returns."""
    on_progress, begun = waiting
    task = asyncio.create_task(
        painter.generate(params(num_inference_steps=100), photo(1024, 1024), on_progress)
    )
    await begun.wait()
    assert children(os.getpid())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not children(os.getpid())


async def test_cancelling_at_once_leaves_nothing(painter: Painter) -> None:
    """Cancelling before the painting began leaves nothing behind either."""
    for turns in range(6):
        task = asyncio.create_task(painter.generate(params(), photo(32, 32), ignore))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert not children(os.getpid())


async def test_a_dead_child_fails_its_painting_alone(
    painter: Painter, waiting: tuple[Callable[[Progress], None], asyncio.Event]
) -> None:
    """A painting whose process dies fails with a sentence, and the next one works."""
    on_progress, begun = waiting
    task = asyncio.create_task(
        painter.generate(params(num_inference_steps=100), photo(512, 512), on_progress)
    )
    await begun.wait()
    for child in children(os.getpid()):
        os.kill(child, signal.SIGKILL)
    with pytest.raises(BackendFailed) as failure:
        await task
    assert "-9" in failure.value.detail
    assert (await painter.generate(params(), photo(32, 32), ignore)).pictures


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_stop_signal_lets_a_painting_finish(painter: Painter, number: int) -> None:
    """A stop meant for the bot, which reaches its children too, lets a painting under way be finished."""

    def stop(progress: Progress) -> None:
        for child in children(os.getpid()) if progress.step == 1 else ():
            os.kill(child, number)

    assert (await painter.generate(params(), photo(64, 64), stop)).pictures


async def test_what_is_no_picture_fails_with_a_reason(painter: Painter) -> None:
    """What is no picture fails with a sentence for the member and the reason for the log."""
    with pytest.raises(BackendFailed) as failure:
        await painter.generate(params(), b"<svg/>", ignore)
    assert "UnidentifiedImageError" in failure.value.detail
    assert "try again" in str(failure.value)


async def test_a_picture_too_large_is_not_decoded(painter: Painter) -> None:
    """A picture larger than the bot ever sends is refused before it is decoded."""
    with pytest.raises(BackendFailed) as failure:
        await painter.generate(params(), photo(2064, 16), ignore)
    assert "2064 x 16" in failure.value.detail


async def test_a_painting_that_hangs_fails_at_its_deadline() -> None:
    """A painting that hangs fails at its deadline instead of holding its slot forever."""
    backend = Painter(deadline_s=0.5, pace_s=1.0)

    def stop(_progress: Progress) -> None:
        for child in children(os.getpid()):
            os.kill(child, signal.SIGSTOP)

    with pytest.raises(BackendFailed) as failure:
        await backend.generate(params(num_inference_steps=2), photo(32, 32), stop)
    assert "longer than" in failure.value.detail
    assert not children(os.getpid())
    await backend.aclose()


async def test_an_error_in_a_progress_report_ends_the_process(painter: Painter) -> None:
    """When handling a progress report fails, the painting's process ends too."""

    def fail(_progress: Progress) -> None:
        raise LookupError

    with pytest.raises(LookupError):
        await painter.generate(params(), photo(64, 64), fail)
    assert not children(os.getpid())


async def test_no_more_paintings_at_once_than_allowed() -> None:
    """No more paintings are under way than the operator allows; the others wait."""
    backend, at_once = Painter(concurrency_max=1), []

    def count(_progress: Progress) -> None:
        at_once.append(len(children(os.getpid())))

    both = (backend.generate(params(seed=seed), photo(32, 32), count) for seed in (1, 2))
    assert len(await asyncio.gather(*both)) == 2
    assert set(at_once) == {1}
    await backend.aclose()


async def test_the_check_paints_for_real(painter: Painter) -> None:
    """The operator's check paints for real and says so in one sentence."""
    assert await painter.check() == "Painter OK (test picture made)."


async def test_closing_ends_every_painting(waiting: tuple[Callable[[Progress], None], asyncio.Event]) -> None:
    """Closing ends every painting under way with an error, and takes no new one."""
    backend, (on_progress, begun) = Painter(), waiting
    task = asyncio.create_task(
        backend.generate(params(num_inference_steps=100), photo(512, 512), on_progress)
    )
    await begun.wait()
    await backend.aclose()
    assert not children(os.getpid())
    with pytest.raises(BackendFailed):
        await task
    with pytest.raises(BackendDown):
        await backend.generate(params(), photo(32, 32), ignore)
    with pytest.raises(BackendDown):
        await backend.check()
    await backend.aclose()


ORPHAN = """
import asyncio, sys
from pathlib import Path
from bot.backends.painter import Painter
from bot.params import Img2ImgParams

options = Img2ImgParams(prompt="a cat", seed=1, num_inference_steps=100)
report = lambda progress: print(progress.step, flush=True)
asyncio.run(Painter(pace_s=0.2).generate(options, Path(sys.argv[1]).read_bytes(), report))
"""


async def end_of(process: int) -> None:
    """Wait for a process that is nobody's child here to end."""
    descriptor, ended, loop = os.pidfd_open(process), asyncio.Event(), asyncio.get_running_loop()
    loop.add_reader(descriptor, ended.set)
    await ended.wait()
    loop.remove_reader(descriptor)
    os.close(descriptor)


async def test_children_end_with_a_killed_bot(tmp_path: Path) -> None:
    """When the bot is killed outright, its painting processes end too."""
    picture = tmp_path / "in.jpg"
    picture.write_bytes(photo(32, 32))
    bot = await asyncio.create_subprocess_exec(
        sys.executable, "-c", ORPHAN, str(picture), stdout=asyncio.subprocess.PIPE, cwd=ROOT
    )
    assert bot.stdout
    assert await bot.stdout.readline() == b"1\n"
    (child,) = children(bot.pid)
    ended = asyncio.create_task(end_of(child))
    await asyncio.sleep(0)
    bot.kill()
    await bot.communicate()
    await ended


def test_cards_can_say_what_painted() -> None:
    """Cards can say that no model made these pictures and offer to cancel them."""
    backend: Backend = Painter(concurrency_max=3)
    assert backend.name == "painter"
    assert backend.capabilities.label == "Painter"
    assert not backend.capabilities.uses_model
    assert backend.capabilities.can_cancel
    assert backend.capabilities.concurrency_max == 3
