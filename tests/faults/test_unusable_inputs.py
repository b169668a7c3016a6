"""Odd and hostile files as inputs: a right picture or a clear sentence."""

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from tests.support import pictures
from tests.support.simulated_server import open_world, texts

GOOD: dict[str, Callable[[], bytes]] = {
    "cmyk.jpg": lambda: pictures.encoded(pictures.quarters().convert("CMYK"), "JPEG"),
    "animated.gif": lambda: pictures.many_frames_gif(50),
    "rotated.jpg": lambda: pictures.turned(6),
    "deep.png": lambda: pictures.grey16_png(40_000),
    "palette.png": lambda: pictures.encoded(pictures.quarters().convert("P"), "PNG"),
    "wrong-name.gif": lambda: pictures.encoded(pictures.quarters(), "WEBP"),
    "zip-inside.jpg": lambda: pictures.with_zip(pictures.encoded(pictures.quarters())),
}
BAD: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty.png": (lambda: b"", "empty"),
    "text.png": (lambda: b"hello, I am a text", "not a PNG, JPEG, GIF or WebP"),
    "truncated.jpg": (lambda: pictures.encoded(pictures.noise(300, 300))[:5000], "damaged"),
    "huge.png": (pictures.dimension_bomb, "20,000 × 20,000"),
    "vector.svg": (lambda: b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not a PNG, JPEG, GIF or WebP"),
    "bomb.jpg": (lambda: pictures.scan_bomb(side=256), "please"),
    "strip.png": (lambda: pictures.encoded(Image.new("RGB", (4000, 20)), "PNG"), "crop it"),
}


@pytest.mark.parametrize("name", list(GOOD))
async def test_an_odd_picture_is_taken(tmp_path: Path, name: str) -> None:
    """Whatever a camera or program makes of a PNG, JPEG, GIF or WebP gives a new picture."""
    async with open_world(tmp_path) as world:
        await world.img2img(image=(name, GOOD[name]()))
        assert len(world.card.attachments) == 1
        assert await world.ledger_faults() == []


@pytest.mark.parametrize("name", list(BAD))
async def test_a_bad_picture_is_refused_in_private(tmp_path: Path, name: str) -> None:
    """A file that can't be used leaves no card: its sender alone reads why, and pays nothing."""
    make, words = BAD[name]
    async with open_world(tmp_path) as world:
        answer = await world.img2img(image=(name, make()))
        notes = [note for note in (answer.response, *answer.followups) if note is not None]
        assert [words in texts(note) and note.ephemeral for note in notes] == [True]
        assert world.seen_by_all() is None
        assert await world.available() == 40
        assert await world.ledger_faults() == []
