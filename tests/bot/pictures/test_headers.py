from __future__ import annotations

import io

import pytest
from PIL import Image

from bot.pictures.headers import SCANS_MAX, has_too_many_scans, kind_of, scan_count, webp_size
from tests.support import pictures
from tests.support.pictures import encoded


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_scans_are_counted_as_a_decoder_meets_them(mode: str) -> None:
    """A baseline JPEG has one scan, a progressive one as many as Pillow's encoder makes."""
    image = pictures.noise(64, 64).convert(mode)
    assert scan_count(encoded(image)) == 1
    assert 6 <= scan_count(encoded(image, progressive=True)) <= 24


def test_counting_scans_ends_early() -> None:
    """Thousands of scans are not counted to the end."""
    bomb = pictures.scan_bomb(side=64)
    assert scan_count(bomb) == SCANS_MAX + 1
    assert has_too_many_scans(bomb)


def test_scans_in_a_thumbnail_are_not_counted() -> None:
    """A JPEG in the metadata of a JPEG is stepped over."""
    thumbnail = encoded(pictures.quarters())
    assert scan_count(encoded(pictures.quarters(), comment=thumbnail * 3)) == 1
    film = pictures.with_film(encoded(pictures.quarters()))
    assert not has_too_many_scans(film)


@pytest.mark.parametrize(
    "data", [b"", b"\xff\xd8", b"\xff\xd8\xff", b"\xff\xd8\xff\xda", b"\xff\xd8\xff\xe0\xff"]
)
def test_truncated_jpegs_have_few_scans(data: bytes) -> None:
    """A JPEG of a few bytes is counted without an error at its end."""
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
    """All three kinds of WebP header give the size that the decoder will reserve memory for."""
    data = encoded(pictures.quarters(300, 41), "WEBP", **options)
    assert webp_size(data) == Image.open(io.BytesIO(data)).size == (300, 41)


def test_a_webp_without_a_header_has_no_size() -> None:
    """What begins like a WebP and is none is left to the decoder to refuse."""
    assert webp_size(b"RIFF\0\0\0\0WEBPnone") is None


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "ICO"])
def test_only_four_kinds_are_known(kind: str) -> None:
    """Pictures of the four accepted kinds are recognised by their first bytes, all others are not."""
    known = kind_of(encoded(pictures.quarters(), kind))
    assert known == (kind if kind in {"PNG", "JPEG", "GIF", "WEBP"} else None)
