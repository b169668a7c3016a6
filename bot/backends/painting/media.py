"""The media that the painter can work in, as numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

Colour = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Medium:
    """One way of painting. Sizes are parts of the square root of the picture's area.

    `coarse` and `fine` are the widths of the first and last brush; `aspect` is a
    mark's length over its width; `opacity`, `bend` and `relief` run from 0 to 1;
    `light` and `hue` are how far a mark's colour strays, in levels; `ground` is the
    bare canvas, None for one toned after the picture; `spread` is the random turn of
    a mark, in directions of the flow; `gap` the distance of marks over their width;
    `error` the difference, in levels, that a mark is laid for; where a medium
    `darkens`, only places too light get paint; `dye` is its one colour, None for the
    picture's; `grout` shows between pieces; `finish` names the last touches;
    `saturation`, `contrast` and `brightness` are factors on the picture first.
    """

    brush: str = "bristle"
    coarse: float = 0.085
    fine: float = 0.0062
    aspect: float = 3.6
    opacity: float = 0.95
    bend: float = 0.5
    relief: float = 0.42
    light: float = 11.0
    hue: float = 7.0
    ground: Colour | None = None
    spread: int = 1
    gap: float = 0.62
    error: float = 13.0
    saturation: float = 1.18
    contrast: float = 1.06
    brightness: float = 1.0
    darkens: bool = False
    dye: Colour | None = None
    grout: Colour | None = None
    finish: str = "canvas"


MEDIA: Final[dict[str, Medium]] = {
    "": Medium(),
    "oil": Medium(relief=0.95, fine=0.009, aspect=3.0, light=14.0, saturation=1.3, contrast=1.14),
    "impressionist": Medium(
        coarse=0.06,
        fine=0.0125,
        aspect=2.3,
        relief=0.7,
        light=17.0,
        hue=24.0,
        spread=2,
        error=9.0,
        saturation=1.5,
        brightness=1.06,
    ),
    "watercolour": Medium(
        brush="wash",
        coarse=0.2,
        fine=0.014,
        aspect=1.7,
        opacity=0.5,
        relief=0.0,
        light=12.0,
        hue=9.0,
        ground=(252, 250, 244),
        spread=3,
        gap=0.6,
        error=15.0,
        saturation=1.4,
        contrast=0.9,
        brightness=1.22,
        finish="watercolour",
    ),
    "sketch": Medium(
        brush="line",
        coarse=0.0042,
        fine=0.0017,
        aspect=20.0,
        opacity=0.5,
        bend=0.4,
        relief=0.0,
        light=8.0,
        hue=0.0,
        ground=(249, 247, 241),
        gap=4.5,
        error=30.0,
        saturation=0.0,
        contrast=0.85,
        brightness=1.4,
        darkens=True,
        dye=(70, 70, 78),
        finish="sketch",
    ),
    "ink": Medium(
        coarse=0.035,
        fine=0.004,
        aspect=6.0,
        opacity=0.8,
        bend=0.9,
        relief=0.0,
        light=6.0,
        hue=0.0,
        ground=(247, 240, 224),
        gap=0.9,
        error=44.0,
        saturation=0.0,
        contrast=1.5,
        brightness=1.25,
        darkens=True,
        finish="ink",
    ),
    "pointillism": Medium(
        brush="flat",
        coarse=0.022,
        fine=0.0105,
        aspect=1.1,
        bend=0.0,
        relief=0.35,
        light=15.0,
        hue=30.0,
        ground=(240, 232, 212),
        spread=12,
        gap=0.8,
        error=16.0,
        saturation=1.5,
        brightness=1.06,
    ),
    "mosaic": Medium(
        brush="tile",
        coarse=0.03,
        fine=0.014,
        aspect=1.15,
        opacity=1.0,
        bend=0.0,
        relief=0.6,
        light=16.0,
        hue=10.0,
        ground=(52, 47, 44),
        spread=0,
        gap=0.85,
        error=44.0,
        saturation=1.5,
        contrast=1.15,
        brightness=1.1,
        grout=(52, 47, 44),
        finish="stone",
    ),
    "comic": Medium(
        brush="flat",
        coarse=0.07,
        fine=0.005,
        aspect=1.6,
        opacity=1.0,
        relief=0.0,
        light=0.0,
        hue=0.0,
        ground=(250, 244, 224),
        gap=0.5,
        error=14.0,
        saturation=1.7,
        contrast=1.2,
        brightness=1.1,
        finish="comic",
    ),
    "cubist": Medium(
        brush="shard",
        coarse=0.25,
        fine=0.018,
        aspect=1.5,
        bend=0.0,
        relief=0.3,
        light=22.0,
        hue=12.0,
        spread=2,
        gap=0.6,
        error=26.0,
        saturation=1.2,
        contrast=1.15,
        finish="cubist",
    ),
}
