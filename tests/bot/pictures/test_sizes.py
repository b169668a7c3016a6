from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.pictures.sizes import (
    AREA_MAX,
    AREA_MIN,
    ASPECT_MAX,
    MEGAPIXEL,
    PIXELS_MAX,
    SIDE_MAX,
    SIDE_MIN,
    SIDE_STEP,
    fitted_size,
)

ROOT = Path(__file__).resolve().parents[3]


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


def test_a_megapixel_is_the_usual_square() -> None:
    """Prices and quotas count in the area of 1024 by 1024 pixels, which is also the largest input."""
    assert fitted_size(1024, 1024) == (1024, 1024)
    assert MEGAPIXEL == AREA_MAX == 1024 * 1024


@pytest.mark.parametrize("module", ["bot.pictures.pool", "bot.credits.service", "bot.jobs.inputs"])
def test_the_bot_does_not_import_the_decoders(module: str) -> None:
    """What reads untrusted pictures is loaded by the child alone, not by whoever needs the arithmetic."""
    code = f"import sys, {module}; print({{'bot.pictures.child', 'PIL.WebPImagePlugin'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "set()\n"
