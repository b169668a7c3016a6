"""Brush marks: small masks with bristles, ragged ends or wet rims, drawn once and stamped often."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from PIL import Image, ImageDraw, ImageFilter

from bot.backends.painting.flow import ANGLES
from bot.backends.painting.media import Medium

#: Bends a mark can have: to the left, straight, to the right.
BENDS: Final = 3
VARIANTS: Final = 3  # enough that a row of marks does not look stamped
#: Marks narrower than these many pixels are drawn four times and twice too large, for smooth edges.
_SMALL: Final = 8
_LARGE: Final = 80
_Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Mark:
    """A mark's shape before it is drawn: sizes in pixels, `angle` in radians, `bend` from -1 to 1."""

    width: float
    length: float
    angle: float
    bend: float

    def place(self, along: float, beside: float) -> _Point:
        """Return where a point of the mark lies, from its centre; both run from -0.5 to 0.5."""
        x = along * self.length
        y = beside * self.width + self.bend * self.length * 0.35 * (4 * along * along - 0.5)
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        return x * cos - y * sin, x * sin + y * cos


@dataclass(frozen=True, slots=True)
class Pen:
    """What draws one mark: `scale` mask pixels to each of the picture's, the mark in the mask's middle."""

    draw: ImageDraw.ImageDraw
    mark: Mark
    centre: _Point
    scale: int
    rng: random.Random

    def at(self, along: float, beside: float) -> _Point:
        """Return where in the mask a point of the mark lies."""
        x, y = self.mark.place(along, beside)
        return (x + self.centre[0]) * self.scale, (y + self.centre[1]) * self.scale

    def ring(self, *, points: int, wobble: float) -> list[_Point]:
        """Return an ellipse that fills the mark, pulled in here and there by up to `wobble` (0 to 1)."""
        reach = [0.5 * (1 - wobble * self.rng.random()) for _ in range(points)]
        turns = [i * math.tau / points for i in range(points)]
        return [self.at(r * math.cos(t), r * math.sin(t)) for r, t in zip(reach, turns, strict=True)]


def _bristles(pen: Pen) -> None:
    """Draw a loaded brush's mark: bristles side by side, ragged where they start and lift."""
    width, rnd = pen.mark.width, pen.rng.random
    count = max(3, min(16, round(width * 0.9)))
    thick = max(1, math.ceil(width * pen.scale / count * 1.25))
    order = list(range(count))
    pen.rng.shuffle(order)
    for bristle in order:
        beside = (bristle + 0.5) / count - 0.5
        reach = 0.5 * (1 - 0.55 * (2 * abs(beside)) ** 2.2)
        start, end = -reach + rnd() * 0.10, reach - rnd() * 0.18
        load = 150 + int(rnd() * 105)
        points = [pen.at(start + (end - start) * i / 7, beside) for i in range(8)]
        pen.draw.line(points, fill=load, width=thick)


def _flat(pen: Pen) -> None:
    """Draw an even mark with round ends."""
    pen.draw.polygon(pen.ring(points=16, wobble=0.15), fill=250)


def _wash(pen: Pen) -> None:
    """Draw a wet patch: an uneven outline, darker along its rim where pigment gathers."""
    ring = pen.ring(points=18, wobble=0.28)
    pen.draw.polygon(ring, fill=150)
    pen.draw.line([*ring, ring[0]], fill=255, width=max(1, round(pen.mark.width * pen.scale * 0.05)))


def _line(pen: Pen) -> None:
    """Draw a line that swells in the middle and fades at its ends."""
    load, width = 170 + int(pen.rng.random() * 85), pen.mark.width * pen.scale
    for part, share in ((0.5, 0.45), (0.4, 0.7), (0.28, 1.0)):
        points = [pen.at(-part + 2 * part * i / 6, 0.0) for i in range(7)]
        pen.draw.line(points, fill=int(load * share), width=max(1, round(width * (0.4 + 0.6 * share))))


def _shard(pen: Pen) -> None:
    """Draw a sharp-edged plane, opaque on one side and thinning to the other."""
    lean, cut, bands = pen.rng.random() * 0.5 - 0.25, 0.2 + pen.rng.random() * 0.3, 12
    for i in range(bands):
        near, far = i / bands - 0.5, (i + 1) / bands - 0.5
        half, far_half = 0.5 - cut * i / bands, 0.5 - cut * (i + 1) / bands
        quad = [
            pen.at(-half + lean * near, near),
            pen.at(half + lean * near, near),
            pen.at(far_half + lean * far, far),
            pen.at(-far_half + lean * far, far),
        ]
        pen.draw.polygon(quad, fill=255 - i * 15)


def _tile(pen: Pen) -> None:
    """Draw a piece of stone: four corners, none quite square."""
    rnd, corners = pen.rng.random, ((-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5))
    pen.draw.polygon([pen.at(a * (0.8 + 0.2 * rnd()), b * (0.8 + 0.2 * rnd())) for a, b in corners], fill=255)


DRAWERS: Final[dict[str, Callable[[Pen], None]]] = {
    "bristle": _bristles,
    "flat": _flat,
    "wash": _wash,
    "line": _line,
    "shard": _shard,
    "tile": _tile,
}


def _fold(width: float) -> int:
    """Return how many times too large a mark of `width` pixels is drawn, for smooth edges."""
    return 4 if width < _SMALL else 2 if width < _LARGE else 1


def _draw_mask(medium: Medium, mark: Mark, rng: random.Random) -> Image.Image:
    """Return the mask of one mark, just large enough for it."""
    fold = _fold(mark.width)
    corners = [mark.place(a, b) for a in (-0.5, -0.25, 0, 0.25, 0.5) for b in (-0.55, 0.55)]
    half_w = math.ceil(max(abs(x) for x, _ in corners)) + 1
    half_h = math.ceil(max(abs(y) for _, y in corners)) + 1
    mask = Image.new("L", (2 * half_w * fold, 2 * half_h * fold))
    DRAWERS[medium.brush](Pen(ImageDraw.Draw(mask), mark, (half_w, half_h), fold, rng))
    mask = mask.filter(ImageFilter.BoxBlur(0.8)) if fold == 1 else mask.reduce(fold)
    return mask.point([round(v * medium.opacity) for v in range(256)])


class Brush:
    """A medium's brush of one size in pixels: hands out its marks, drawing each the first time."""

    def __init__(self, medium: Medium, rng: random.Random, *, width: float, length: float) -> None:
        self._medium, self._rng, self._width, self._length = medium, rng, width, length
        self._marks: dict[int, tuple[Image.Image, int, int]] = {}

    def mark(self, angle: int, bend: int, variant: int) -> tuple[Image.Image, int, int]:
        """Return a mark's mask and half its width and height, in pixels.

        `angle` is a direction of a flow, `bend` below `BENDS` and `variant` below `VARIANTS`.
        """
        key = (angle * BENDS + bend) * VARIANTS + variant
        known = self._marks.get(key)
        if known is None:
            shape = Mark(
                self._width * (0.8 + 0.2 * variant),
                self._length * (1.2 - 0.2 * variant),
                angle * math.pi / ANGLES,
                (bend - 1) * self._medium.bend,
            )
            mask = _draw_mask(self._medium, shape, self._rng)
            known = self._marks[key] = (mask, mask.width // 2, mask.height // 2)
        return known
