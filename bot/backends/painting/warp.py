"""Shapes that change: pictures rippled like water, or broken into planes."""

from __future__ import annotations

import random
from collections.abc import Sequence

from PIL import Image

_Box = tuple[int, int, int, int]
_Quad = tuple[float, float, float, float, float, float, float, float]


def _cuts(size: int, parts: int) -> list[int]:
    """Return where `parts` even parts of `size` pixels begin, and the end."""
    return [round(size * i / parts) for i in range(parts + 1)]


def _warp(image: Image.Image, mesh: Sequence[tuple[_Box, _Quad]]) -> Image.Image:
    """Return `image` with each box of `mesh` filled from its quadrilateral."""
    return image.transform(image.size, Image.Transform.MESH, mesh, Image.Resampling.BILINEAR)


def _parts(size: tuple[int, int], side: int) -> tuple[int, int]:
    """Return how many parts each side is cut into: about `side` along the longer one."""
    longer = max(size)
    return max(1, round(side * size[0] / longer)), max(1, round(side * size[1] / longer))


def ripple(image: Image.Image, rng: random.Random, amount: float) -> Image.Image:
    """Return `image` bent as if under water, by `amount` from 0 to 1; the borders stay."""
    columns, rows = _parts(image.size, 9)
    xs, ys = _cuts(image.width, columns), _cuts(image.height, rows)
    reach = amount * 0.75 * max(image.size) / 9

    def knot(column: int, row: int) -> tuple[float, float]:
        dx, dy = (rng.random() * 2 - 1) * reach, (rng.random() * 2 - 1) * reach
        inner_x, inner_y = 0 < column < columns, 0 < row < rows
        return xs[column] + dx * inner_x, ys[row] + dy * inner_y

    knots = [[knot(column, row) for column in range(columns + 1)] for row in range(rows + 1)]
    mesh = [
        (
            (xs[c], ys[r], xs[c + 1], ys[r + 1]),
            (*knots[r][c], *knots[r + 1][c], *knots[r + 1][c + 1], *knots[r][c + 1]),
        )
        for r in range(rows)
        for c in range(columns)
    ]
    return _warp(image, mesh)


def break_into_planes(image: Image.Image, rng: random.Random, amount: float) -> Image.Image:
    """Return `image` in planes, each seen from a little elsewhere, by `amount` from 0 to 1."""
    columns, rows = _parts(image.size, 6)
    xs, ys = _cuts(image.width, columns), _cuts(image.height, rows)
    reach = amount * 0.2 * max(image.size) / 6
    mesh: list[tuple[_Box, _Quad]] = []
    for r in range(rows):
        for c in range(columns):
            dx, dy = (rng.random() * 2 - 1) * reach, (rng.random() * 2 - 1) * reach
            grow = (rng.random() - 0.4) * reach
            x0, x1 = (min(image.width, max(0.0, x)) for x in (xs[c] + dx + grow, xs[c + 1] + dx - grow))
            y0, y1 = (min(image.height, max(0.0, y)) for y in (ys[r] + dy + grow, ys[r + 1] + dy - grow))
            mesh.append(((xs[c], ys[r], xs[c + 1], ys[r + 1]), (x0, y0, x0, y1, x1, y1, x1, y0)))
    return _warp(image, mesh)
