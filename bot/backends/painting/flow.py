"""Which way the brush goes at each place: along edges, and as the painter likes where there are none.

The direction is that of the smoothed structure tensor, kept as a vector of
twice the angle so that opposite directions add up (Kass and Witkin, 1987).
"""

from __future__ import annotations

import math
import random
from array import array
from dataclasses import dataclass

from PIL import Image, ImageMath

#: Directions over half a turn.
ANGLES = 24
_SIDE_MAX = 224  # directions are smooth, and each layer walks the grid in pure Python


@dataclass(frozen=True, slots=True)
class Flow:
    """A grid of `width` by `height` brush directions, each from 0 to `ANGLES` - 1."""

    width: int
    height: int
    angles: bytes


def _floats(width: int, height: int, values: array[float]) -> Image.Image:
    """Return a float image of `width` by `height` out of `values`, row by row."""
    return Image.frombytes("F", (width, height), values.tobytes())


def _slopes(grey: Image.Image) -> tuple[Image.Image, Image.Image]:
    """Return the picture's slope in x and in y, 0 along the border."""
    width, height = grey.size

    def difference(ahead: tuple[int, int, int, int], behind: tuple[int, int, int, int]) -> Image.Image:
        slope = Image.new("F", grey.size)
        parts = {"ahead": grey.crop(ahead), "behind": grey.crop(behind)}
        slope.paste(ImageMath.lambda_eval(lambda a: a["ahead"] - a["behind"], **parts), (1, 1))
        return slope

    across = difference((2, 1, width, height - 1), (0, 1, width - 2, height - 1))
    down = difference((1, 2, width - 1, height), (1, 0, width - 1, height - 2))
    return across, down


class FlowMaker:
    """Makes the flows of one picture, coarse and fine, that share one painter's habit."""

    def __init__(self, image: Image.Image, rng: random.Random, *, habit: float) -> None:
        """Read `image`; `habit` is how steep a slope (levels a pixel) the painter's own way outweighs."""
        scale = min(1.0, _SIDE_MAX / max(image.size))
        self.size = (max(4, round(image.width * scale)), max(4, round(image.height * scale)))
        grey = image.convert("L").resize(self.size, Image.Resampling.BOX).convert("F")
        across, down = _slopes(grey)
        self._u = ImageMath.lambda_eval(lambda a: a["y"] * a["y"] - a["x"] * a["x"], x=across, y=down)
        self._v = ImageMath.lambda_eval(lambda a: a["x"] * a["y"] * -2.0, x=across, y=down)
        self._habit = self._own_way(rng, habit)

    def _own_way(self, rng: random.Random, habit: float) -> tuple[Image.Image, Image.Image]:
        """Return a slow swirl around one favourite direction, as two float images."""
        favourite, turn, knots = rng.random() * math.tau, 1.6 + rng.random(), 5
        angles = [favourite + turn * (rng.random() * 2 - 1) for _ in range(knots * knots)]
        parts = (array("f", [habit * habit * f(a) for a in angles]) for f in (math.cos, math.sin))
        u, v = (_floats(knots, knots, part).resize(self.size, Image.Resampling.BICUBIC) for part in parts)
        return u, v

    def flow(self, smooth: float) -> Flow:
        """Return the directions smoothed over `smooth`, a part of the longer side."""
        width, height = self.size
        cell = max(1.0, smooth * max(self.size))
        small = (max(2, round(width / cell)), max(2, round(height / cell)))
        u, v = (
            ImageMath.lambda_eval(
                lambda a: a["slope"] + a["own"],
                slope=part.resize(small, Image.Resampling.BOX).resize(self.size, Image.Resampling.BICUBIC),
                own=own,
            )
            for part, own in zip((self._u, self._v), self._habit, strict=True)
        )
        return Flow(width, height, _angles(u, v))


def _angles(u: Image.Image, v: Image.Image) -> bytes:
    """Return each place's direction out of its vector of twice the angle."""
    us, vs = array("f", u.tobytes()), array("f", v.tobytes())
    scale, atan2 = ANGLES / math.tau, math.atan2
    return bytes([round(atan2(y, x) * scale) % ANGLES for x, y in zip(us, vs, strict=True)])
