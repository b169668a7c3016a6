from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from bot.pictures.child import (
    AREA_MAX,
    AREA_MIN,
    ASPECT_MAX,
    PIXELS_MAX,
    SCANS_MAX,
    SIDE_MAX,
    SIDE_MIN,
    SIDE_STEP,
    fitted_size,
    kind_of,
    scan_count,
    webp_size,
)
from tests.support import pictures
from tests.support.pictures import encoded


@given(
    short=st.integers(min_value=SIDE_MIN, max_value=10_000),
    aspect=st.floats(min_value=1, max_value=ASPECT_MAX),
)
def test_fitted_sizes_are_within_every_bound(short: int, aspect: float) -> None:
    """Whatever the size, both sides are multiples of 16 up to 2048 and the area and shape are about right."""
    long = int(short * aspect)
    width, height = fitted_size(short, long)
    assert fitted_size(long, short) == (height, width)
    assert width % SIDE_STEP == height % SIDE_STEP == 0
    assert width <= height <= SIDE_MAX
    assert AREA_MIN * 0.9 <= width * height <= AREA_MAX
    assert height / width == pytest.approx(long / short, rel=0.07)


@given(
    short=st.integers(min_value=SIDE_MIN, max_value=10_000),
    aspect=st.floats(min_value=1, max_value=ASPECT_MAX),
)
def test_a_fitted_size_stays(short: int, aspect: float) -> None:
    """A result that is used as an input in turn keeps its size."""
    fitted = fitted_size(short, int(short * aspect))
    assert fitted_size(*fitted) == fitted


def test_the_bound_is_the_one_that_the_sentence_names() -> None:
    """The 50 megapixels that a refusal names are the bound itself, not a rounding of it."""
    assert PIXELS_MAX % 1_000_000 == 0


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_scans_are_counted_as_a_decoder_meets_them(mode: str) -> None:
    """A baseline JPEG has one scan, a progressive one as many as Pillow's encoder makes."""
    image = pictures.noise(64, 64).convert(mode)
    assert scan_count(encoded(image)) == 1
    assert 6 <= scan_count(encoded(image, progressive=True)) <= 24


def test_counting_scans_ends_early() -> None:
    """Thousands of scans are not counted to the end."""
    assert scan_count(pictures.scan_bomb(side=64)) == SCANS_MAX + 1


def test_scans_in_a_thumbnail_are_not_counted() -> None:
    """A JPEG in the metadata of a JPEG is stepped over."""
    thumbnail = encoded(pictures.quarters())
    assert scan_count(encoded(pictures.quarters(), comment=thumbnail * 3)) == 1


@pytest.mark.parametrize(
    "data", [b"", b"\xff\xd8", b"\xff\xd8\xff", b"\xff\xd8\xff\xda", b"\xff\xd8\xff\xe0\xff"]
)
def test_stumps_have_few_scans(data: bytes) -> None:
    """A JPEG of a few bytes is counted without falling over its end."""
    assert scan_count(data) <= 1


@pytest.mark.parametrize(
    "options",
    [
        {"lossless": True},
        {"lossless": False},
        {"save_all": True, "append_images": [pictures.quarters(300, 41)]},
    ],
    ids=["lossless", "lossy", "animated"],
)
def test_the_size_of_a_webp_is_known_before_it_is_opened(options: dict[str, object]) -> None:
    """All three kinds of WebP header tell the size that the decoder will reserve memory for."""
    data = encoded(pictures.quarters(300, 41), "WEBP", **options)
    assert webp_size(data) == Image.open(io.BytesIO(data)).size == (300, 41)


def test_a_webp_without_a_header_has_no_size() -> None:
    """What begins like a WebP and is none is left to the decoder to refuse."""
    assert webp_size(b"RIFF\0\0\0\0WEBPnone") is None


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "ICO"])
def test_only_four_kinds_are_known(kind: str) -> None:
    """Pictures of the four accepted kinds are told by their first bytes, all others are not known."""
    known = kind_of(encoded(pictures.quarters(), kind))
    assert known == (kind if kind in {"PNG", "JPEG", "GIF", "WEBP"} else None)
