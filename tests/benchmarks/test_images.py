from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import aclosing

import pytest
from PIL import Image

from bot.pictures.pool import PicturePool
from bot.pictures.sizes import INPUT_BYTES_MAX
from tests.benchmarks.heartbeat import heartbeat
from tests.support import pictures
from tests.support.pictures import encoded

pytestmark = pytest.mark.benchmark


def photo(width: int, height: int) -> Image.Image:
    """Return an RGB picture with about as much detail as a photograph."""
    fine = pictures.noise(width // 4, height // 4).resize((width, height), Image.Resampling.BICUBIC)
    return Image.blend(fine, pictures.quarters(width, height), 0.6)


def megapixel_jpeg() -> bytes:
    """Return a JPEG of the size that most pictures on Discord have."""
    return encoded(photo(1280, 960), quality=85)


def forty_megapixel_jpeg() -> bytes:
    """Return a JPEG as a phone's best camera makes it."""
    return encoded(photo(7744, 5184), quality=85)


def largest_png() -> bytes:
    """Return a PNG of just under the most bytes that are taken."""
    side = int((INPUT_BYTES_MAX * 0.99 / 3) ** 0.5)
    return encoded(pictures.noise(side, side), "PNG", compress_level=1)


def largest_webp() -> bytes:
    """Return a WebP of nearly the most pixels that are taken, the format that needs the most memory."""
    image = photo(7680, 6500).convert("RGBA")
    image.putalpha(Image.radial_gradient("L").resize(image.size))
    return encoded(image, "WEBP", quality=40, alpha_quality=20, method=0)


@pytest.mark.parametrize(
    ("make", "times"),
    [(megapixel_jpeg, 20), (forty_megapixel_jpeg, 3), (largest_png, 3), (largest_webp, 2)],
)
async def test_opening_a_picture(make: Callable[[], bytes], times: int) -> None:
    """Print what a picture costs, and for how long the loop stood still meanwhile."""
    data = make()
    async with aclosing(PicturePool(children=1)) as pool:
        start = time.perf_counter()
        await pool.normalise(encoded(pictures.quarters()))
        started = time.perf_counter()
        async with heartbeat() as late:
            for _ in range(times):
                await pool.normalise(data)
    each_s = (time.perf_counter() - started) / times
    print(
        f"\n{make.__name__}: {len(data) / 2**20:.1f} MiB, {each_s * 1000:.0f} ms each, "
        f"longest stall {max(late) * 1000:.1f} ms; first child {(started - start) * 1000:.0f} ms"
    )
    assert late
