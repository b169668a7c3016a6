"""What the words, the guidance and the strength do to a painting, without a child process."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageChops, ImageStat

from bot.backends.painting.easel import Easel
from bot.backends.painting.media import MEDIA
from bot.backends.painting.recipe import Recipe
from bot.params import Img2ImgParams

SAMPLE = Path(__file__).resolve().parents[4] / "bot" / "demo" / "assets" / "sample.jpg"


@cache
def source() -> Image.Image:
    """Return the sample picture, small."""
    with Image.open(SAMPLE) as image:
        return image.convert("RGB").resize((144, 96))


def painted(prompt: str, **options: Any) -> Image.Image:
    """Return the sample picture painted in a few steps."""
    params = Img2ImgParams(**{"prompt": prompt, "seed": 3, "num_inference_steps": 6, **options})
    easel = Easel(source(), Recipe.read(params.model_dump(), params.seed))
    for step in range(params.num_inference_steps):
        easel.layer(step)
    return easel.picture()


@cache
def plain() -> Image.Image:
    """Return what a prompt without style words gives."""
    return painted("a cat")


def distance(one: Image.Image, other: Image.Image) -> float:
    """Return the mean difference of two pictures, in levels."""
    return sum(ImageStat.Stat(ImageChops.difference(one, other)).mean) / 3


def band(index: int) -> Callable[[Image.Image], float]:
    """Return what measures how far one colour is above the mean of all three."""

    def measure(image: Image.Image) -> float:
        means = ImageStat.Stat(image).mean
        return means[index] - sum(means) / 3

    return measure


def light(image: Image.Image) -> float:
    """Return a picture's mean tone."""
    return ImageStat.Stat(image.convert("L")).mean[0]


def colour(image: Image.Image) -> float:
    """Return how saturated a picture is, black left out of account."""
    red, green, blue = image.split()
    most = ImageChops.lighter(ImageChops.lighter(red, green), blue)
    least = ImageChops.darker(ImageChops.darker(red, green), blue)
    return ImageStat.Stat(ImageChops.subtract(most, least)).mean[0]


def hues(image: Image.Image) -> float:
    """Return how much the colours of a picture differ from each other."""
    red, _, blue = image.split()
    return ImageStat.Stat(ImageChops.subtract(red, blue, scale=1, offset=128)).stddev[0]


RED, GREEN, BLUE = band(0), band(1), band(2)


@pytest.mark.parametrize(
    ("word", "measure", "more"),
    [
        ("red", RED, True),
        ("green", GREEN, True),
        ("blue", BLUE, True),
        ("golden", BLUE, False),
        ("autumn", RED, True),
        ("sunset", RED, True),
        ("night", light, False),
        ("night", BLUE, True),
        ("neon", colour, True),
        ("winter", light, True),
        ("snow", BLUE, True),
        ("pastel", light, True),
        ("black and white", colour, False),
        ("noir", colour, False),
        ("sepia", hues, False),
        ("vivid", colour, True),
        ("sketch", colour, False),
        ("ink", colour, False),
        ("watercolor", light, True),
    ],
)
def test_a_style_word_changes_the_colours(
    word: str, measure: Callable[[Image.Image], float], more: bool
) -> None:
    """A style word moves the picture's colours clearly the way it says."""
    change = measure(painted(f"a cat, {word}")) - measure(plain())
    assert change * (1 if more else -1) > 3


def test_every_medium_looks_different() -> None:
    """Each medium looks unlike every other and unlike a painting without one."""
    made = {medium: painted(medium or "a cat") for medium in MEDIA}
    alike = {pair for pair in combinations(MEDIA, 2) if distance(*(made[medium] for medium in pair)) < 5}
    assert alike == set()


def test_the_negative_prompt_cancels_a_style() -> None:
    """A style in the negative prompt leaves the picture as if the word had not been said."""
    assert painted("a blue oil cat", negative_prompt="BLUE, impasto").tobytes() == plain().tobytes()


def test_parts_of_words_mean_nothing() -> None:
    """A style word inside another word means nothing."""
    assert painted("blueprint of a tinkering, oily cat").tobytes() == plain().tobytes()


def test_guidance_strengthens_style_words() -> None:
    """The higher the guidance, the more the style words show."""
    low, middle, high = (BLUE(painted("blue", guidance_scale=g)) for g in (1, 4, 20))
    assert low < middle < high


@pytest.mark.parametrize("medium", MEDIA)
def test_every_medium_paints_with_one_step(medium: str) -> None:
    """Every medium paints with a single step at either end of the strength, the lower nearer the picture."""
    near, far = (
        painted(medium or "a cat", strength=strength, num_inference_steps=1) for strength in (0.05, 1.0)
    )
    assert near.size == far.size == source().size
    assert distance(near, source()) < distance(far, source())
