"""Layers of strokes from coarse to fine, each laid where the canvas is still wrong.

The method is Hertzmann's ("Painterly rendering with curved brush strokes of
multiple sizes", 1998): bring the picture to the brush's size, compare it with
the canvas, paint where they differ.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from PIL import Image, ImageChops, ImageStat

from bot.backends.painting.brushes import BENDS, VARIANTS, Brush
from bot.backends.painting.flow import ANGLES, Flow, FlowMaker
from bot.backends.painting.media import Colour, Medium
from bot.backends.painting.recipe import Recipe

#: Strokes in one layer, at most: bounds a layer's time.
STROKES_MAX: Final = 25_000
#: A mark over which the flow turns this many directions or fewer is straight.
_STRAIGHT: Final = 2
#: Pictures whose tones spread less than these many levels are painted with more care.
_CONTRAST: Final = 45


@dataclass(frozen=True, slots=True)
class Sizes:
    """How wide the brush is, layer by layer, in pixels."""

    coarse: float
    fine: float
    layers: int

    @classmethod
    def plan(cls, size: tuple[int, int], recipe: Recipe, medium: Medium) -> Sizes:
        """Return widths for `size`: bolder with strength (and some seeds), finer with steps."""
        hand = math.exp(recipe.rng("hand").random() * 0.58 - 0.33)
        scale, s = hand * math.sqrt(size[0] * size[1]), recipe.strength
        steps = max(0.6, min(2.5, (20 / recipe.steps) ** 0.4))
        fine = scale * medium.fine * steps * (0.45 + 0.75 * s + 3.0 * s**9)
        coarse = max(fine * 1.5, scale * medium.coarse * (0.5 + 0.75 * s))
        return cls(max(2.0, coarse), max(1.5, fine), recipe.steps)

    def width(self, layer: int) -> float:
        """Return the brush's width for `layer`, from 0."""
        part = layer / (self.layers - 1) if self.layers > 1 else 0.6
        return self.coarse * math.exp(part * math.log(self.fine / self.coarse))


def direction(flow: Flow, x: float, y: float, reach: float) -> tuple[int, int]:
    """Return the flow's direction at (x, y), parts of the picture, and which way it bends within `reach`."""
    width, height, angles = flow.width, flow.height, flow.angles
    column, row = int(x * width), int(y * height)
    angle = angles[row * width + column]
    turn = angle * math.pi / ANGLES
    ahead_x = min(width - 1, max(0, int((x + reach * math.cos(turn)) * width)))
    ahead_y = min(height - 1, max(0, int(y * height + reach * math.sin(turn) * width)))
    change = (angles[ahead_y * width + ahead_x] - angle + ANGLES // 2) % ANGLES - ANGLES // 2
    return angle, BENDS // 2 + (change > _STRAIGHT) - (change < -_STRAIGHT)


@dataclass(frozen=True, slots=True)
class Cells:
    """The picture in cells of a stroke's size: each one's colour and how wrong the canvas is there.

    `width`, `height`, `cell_w` and `cell_h` are pixels; `colours` are RGB bytes and
    `errors` the largest difference of a channel, both row by row.
    """

    width: int
    height: int
    columns: int
    cell_w: float
    cell_h: float
    colours: bytes
    errors: bytes

    def colour(self, cell: int) -> Colour:
        """Return what colour a cell should be."""
        red, green, blue = self.colours[3 * cell : 3 * cell + 3]
        return red, green, blue

    @classmethod
    def between(cls, target: Image.Image, canvas: Image.Image, cell: float, darkens: bool) -> Cells:
        """Compare in cells of `cell` pixels; `darkens` counts only where the canvas is too light."""
        width, height = target.size
        columns, rows = max(1, round(width / cell)), max(1, round(height / cell))
        wanted = target.resize((columns, rows), Image.Resampling.BOX)
        there = Image.merge("RGB", canvas.resize((columns, rows), Image.Resampling.BOX).split()[:3])
        difference = ImageChops.subtract(there, wanted) if darkens else ImageChops.difference(there, wanted)
        red, green, blue = difference.split()
        errors = ImageChops.lighter(ImageChops.lighter(red, green), blue)
        return cls(width, height, columns, width / columns, height / rows, wanted.tobytes(), errors.tobytes())


class Strokes:
    """Paints `target` onto `canvas` (colours and, in the fourth band, thickness)."""

    def __init__(self, target: Image.Image, canvas: Image.Image, recipe: Recipe, medium: Medium) -> None:
        """Plan the strokes; nothing is painted yet."""
        self._target, self._canvas, self._recipe, self._medium = target, canvas, recipe, medium
        self._sizes = Sizes.plan(target.size, recipe, medium)
        self._rng = recipe.rng("strokes")
        contrast = ImageStat.Stat(target.convert("L").reduce(4)).stddev[0] / _CONTRAST
        self._ease = min(1.0, max(0.6, contrast))
        temper = recipe.rng("temper")
        self._aspect = medium.aspect * (0.75 + 0.6 * temper.random())
        habit = (2 + 9 * recipe.strength) * (0.6 + 0.9 * temper.random())
        self._flows = FlowMaker(target, recipe.rng("flow"), habit=habit)

    def layer(self, index: int) -> None:
        """Paint layer `index`, from 0."""
        width, medium = self._sizes.width(index), self._medium
        cells = Cells.between(self._target, self._canvas, width * medium.gap, medium.darkens)
        ground = index < max(1, self._recipe.steps // 8) and not medium.darkens
        limit = -1.0 if ground else self._medium.error * (0.6 + 0.6 * self._recipe.strength) * self._ease
        chosen = [i for i, error in enumerate(cells.errors) if error > limit]
        self._rng.shuffle(chosen)
        self._lay(chosen[:STROKES_MAX], cells, width)

    def _brush(self, width: float) -> Brush:
        """Return the medium's brush of `width` pixels."""
        return Brush(self._medium, self._rng, width=width, length=width * self._aspect)

    def _lay(self, chosen: list[int], cells: Cells, width: float) -> None:
        """Lay one stroke for each of the `chosen` cells."""
        medium, rnd = self._medium, self._rng.random
        flow = self._flows.flow(min(0.1, max(0.012, 2.5 * width / max(self._target.size))))
        brush, under = self._brush(width), self._brush(width * 1.3)
        grout = (*medium.grout, 90) if medium.grout else None
        reach = width * self._aspect * 0.4 / cells.width
        jitter, paste, spread = self._jitter(), self._canvas.paste, medium.spread + 0.99
        for cell in chosen:
            row, column = divmod(cell, cells.columns)
            x, y = (column + rnd()) * cells.cell_w, (row + rnd()) * cells.cell_h
            angle, bend = direction(flow, x / cells.width, y / cells.height, reach)
            angle = (angle + int((rnd() * 2 - 1) * spread)) % ANGLES
            variant = int(rnd() * VARIANTS)
            if grout:
                mask, half_w, half_h = under.mark(angle, bend, variant)
                paste(grout, (int(x) - half_w, int(y) - half_h), mask)
            mask, half_w, half_h = brush.mark(angle, bend, variant)
            red, green, blue = medium.dye or cells.colour(cell)
            r, g, b, thick = jitter[int(rnd() * 256)]
            paste((red + r, green + g, blue + b, thick), (int(x) - half_w, int(y) - half_h), mask)

    def _jitter(self) -> list[tuple[int, int, int, int]]:
        """Return 256 ways in which a stroke's colour and thickness stray."""
        gauss, wild = self._rng.gauss, (0.4 + 0.8 * self._recipe.strength) * self._ease
        table = []
        for _ in range(256):
            light = gauss(0, self._medium.light * wild)
            r, g, b = (round(light + gauss(0, self._medium.hue * wild * 0.6)) for _ in range(3))
            table.append((r, g, b, 60 + int(self._rng.random() * 136)))
        return table
