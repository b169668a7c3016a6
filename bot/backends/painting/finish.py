"""The last touches: light on the paint, the canvas or paper beneath it, outlines over it."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from itertools import product
from typing import Final

from PIL import Image, ImageChops, ImageFilter, ImageOps

from bot.backends.painting.media import Medium
from bot.backends.painting.recipe import Recipe

_LIGHT: Final = ImageFilter.Kernel((3, 3), (-1, -1, 0, -1, 0, 1, 0, 1, 1), scale=2.2, offset=128)
_TILE: Final = 128  # pixels a side: large enough that its repetition is not seen


def relight(paint: Image.Image, thickness: Image.Image, amount: float) -> Image.Image:
    """Return `paint` with light from the upper left on its `thickness`, by `amount` from 0 to 1."""
    relief = thickness.filter(_LIGHT)
    return Image.blend(paint, ImageChops.hard_light(paint, _rgb(relief)), amount)


def repeat_tile(tile: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Return a picture of `size` covered with `tile`."""
    whole = Image.new(tile.mode, size)
    for corner in product(range(0, size[0], tile.width), range(0, size[1], tile.height)):
        whole.paste(tile, corner)
    return whole


def weave(rng: random.Random) -> Image.Image:
    """Return a tile of linen: threads over and under each other, a little uneven; mean 128."""
    period, wave = 4, math.tau / 4
    noise = rng.randbytes(_TILE * _TILE)
    values = bytearray()
    for y in range(_TILE):
        for x in range(_TILE):
            over = (x // period + y // period) % 2
            thread = math.sin(wave * (y if over else x) + 0.8)
            values.append(round(128 + 46 * thread + (noise[y * _TILE + x] - 128) * 0.25))
    return Image.frombytes("L", (_TILE, _TILE), bytes(values))


def grain(rng: random.Random, roughness: float) -> Image.Image:
    """Return a tile of paper, lit from one side, with bumps of `roughness` pixels; mean about 128."""
    noise = Image.frombytes("L", (_TILE, _TILE), rng.randbytes(_TILE * _TILE))
    around = repeat_tile(noise, (_TILE * 2, _TILE * 2)).filter(ImageFilter.GaussianBlur(roughness))
    bumps = ImageOps.autocontrast(around, cutoff=1).filter(_LIGHT)
    return bumps.crop((_TILE // 2, _TILE // 2, _TILE // 2 + _TILE, _TILE // 2 + _TILE))


def apply_texture(paint: Image.Image, tile: Image.Image, amount: float) -> Image.Image:
    """Return `paint` on the surface of `tile`, by `amount` from 0 to 1."""
    return Image.blend(paint, ImageChops.overlay(paint, _rgb(repeat_tile(tile, paint.size))), amount)


def contours(picture: Image.Image, radius: float, gain: float) -> Image.Image:
    """Return the picture's lines, dark on white (L): where it is darker than its surroundings.

    `radius` is in pixels of a picture of one megapixel; a smaller picture gets thinner lines.
    """
    grey, radius = picture.convert("L"), max(0.8, radius * _scale(picture))
    near, wide = (grey.filter(ImageFilter.GaussianBlur(radius * k)) for k in (0.5, 2.0))
    return ImageChops.subtract(near, wide, scale=1 / gain, offset=round(255 + 4 * gain))


def _scale(picture: Image.Image) -> float:
    """Return how large the picture is against one of a megapixel, by its side."""
    return math.sqrt(picture.width * picture.height) / 1000


def _rgb(grey: Image.Image) -> Image.Image:
    return Image.merge("RGB", [grey] * 3)


def _darken(paint: Image.Image, grey: Image.Image, curve: Callable[[int], int]) -> Image.Image:
    """Return `paint` darkened by `grey`, whose values go through `curve` first."""
    return ImageChops.multiply(paint, _rgb(grey.point([max(0, min(255, curve(v))) for v in range(256)])))


def _canvas(paint: Image.Image, _target: Image.Image, rng: random.Random) -> Image.Image:
    """Linen beneath the paint."""
    return apply_texture(paint, weave(rng), 0.12)


def _watercolour(paint: Image.Image, target: Image.Image, rng: random.Random) -> Image.Image:
    """Pigment that settled unevenly and along edges, a few pencil lines, rough paper, a border left bare."""
    pooled = _darken(paint, contours(paint, 3.0, 3.0), lambda v: 110 + v * 145 // 255)
    drawn = _darken(pooled, contours(target, 1.4, 5.0), lambda v: 165 + v * 90 // 255)
    washed = ImageChops.overlay(drawn, _rgb(_clouds(paint.size, rng)))
    paper = Image.new("RGB", paint.size, (252, 250, 244))
    return apply_texture(Image.composite(washed, paper, _border(paint.size, rng)), grain(rng, 1.2), 0.2)


def _clouds(size: tuple[int, int], rng: random.Random) -> Image.Image:
    """Return how thinly the pigment settled: soft blots in two sizes, a little above 128 on average."""
    large, small = (
        Image.frombytes("L", (n, n), rng.randbytes(n * n)).resize(size, Image.Resampling.BICUBIC)
        for n in (9, 40)
    )
    return Image.blend(large, small, 0.4).point([136 + (v - 128) * 3 // 8 for v in range(256)])


def _border(size: tuple[int, int], rng: random.Random) -> Image.Image:
    """Return a mask: 255 where the brush went, 0 along an uneven border."""
    side = 96
    noise = [0] * (side * side)
    for knots, share in ((5, 0.9), (17, 0.5), (48, 0.35)):
        rough = Image.frombytes("L", (knots, knots), rng.randbytes(knots * knots))
        for i, v in enumerate(rough.resize((side, side), Image.Resampling.BICUBIC).tobytes()):
            noise[i] += int((v - 128) * share)
    values = bytes(
        max(0, min(255, min(x, y, side - 1 - x, side - 1 - y) * 58 + noise[y * side + x] + 20))
        for y in range(side)
        for x in range(side)
    )
    mask = Image.frombytes("L", (side, side), values).resize(size, Image.Resampling.BICUBIC)
    return mask.point([max(0, min(255, (v - 110) * 6)) for v in range(256)])


def _sketch(paint: Image.Image, target: Image.Image, rng: random.Random) -> Image.Image:
    """Firm contours over the hatching, on drawing paper."""
    drawn = _darken(paint, contours(target, 1.8, 4.0), lambda v: 90 + v * 165 // 255)
    return apply_texture(drawn, grain(rng, 0.9), 0.22)


def _ink(paint: Image.Image, target: Image.Image, rng: random.Random) -> Image.Image:
    """Strong pen lines on rice paper."""
    drawn = _darken(paint, contours(target, 2.4, 7.0), lambda v: max(20, v * 2 - 160))
    return apply_texture(drawn, grain(rng, 1.1), 0.2)


def _comic(paint: Image.Image, target: Image.Image, _rng: random.Random) -> Image.Image:
    """Flat colours in few steps of light, printed dots in the shadows, black outlines."""
    k = _scale(paint)
    soft = paint.filter(ImageFilter.GaussianBlur(2.2 * k))
    light = soft.convert("L")
    stepped = light.point([min(255, round(v / 255 * 5) * 51) for v in range(256)])
    change = ImageChops.subtract(stepped, light, scale=1, offset=128)
    flat = ImageChops.add(soft, _rgb(change), scale=1, offset=-128)
    screen = ImageChops.add(light, repeat_tile(_dot(max(4, round(8 * k))), paint.size), scale=1, offset=-70)
    dots = screen.point([max(0, min(255, (v - 62) * 8)) for v in range(256)])
    printed = _darken(flat, dots, lambda v: 140 + v * 115 // 255)
    lines = contours(target.filter(ImageFilter.GaussianBlur(1.2 * k)), 3.0, 8.0)
    return _darken(printed, lines, lambda v: (v - 110) * 4)


def _dot(period: int) -> Image.Image:
    """Return one screen of printed dots, two to a tile so that they stand at 45 degrees."""
    wave = math.tau / (2 * period)
    values = [
        round(70 + 35 * (math.cos((x + y) * wave) + math.cos((x - y) * wave)))
        for y in range(2 * period)
        for x in range(2 * period)
    ]
    return Image.frombytes("L", (2 * period, 2 * period), bytes(max(0, min(255, v)) for v in values))


def _stone(paint: Image.Image, _target: Image.Image, rng: random.Random) -> Image.Image:
    """A stone's fine grain."""
    return apply_texture(paint, grain(rng, 0.7), 0.25)


def _cubist(paint: Image.Image, _target: Image.Image, rng: random.Random) -> Image.Image:
    """Dry canvas and a few dark edges between planes."""
    drawn = _darken(paint, contours(paint, 2.5, 3.0), lambda v: 110 + v * 145 // 255)
    return apply_texture(drawn, weave(rng), 0.25)


FINISHES: Final[dict[str, Callable[[Image.Image, Image.Image, random.Random], Image.Image]]] = {
    "canvas": _canvas,
    "watercolour": _watercolour,
    "sketch": _sketch,
    "ink": _ink,
    "comic": _comic,
    "stone": _stone,
    "cubist": _cubist,
}


def finish(canvas: Image.Image, target: Image.Image, medium: Medium, recipe: Recipe) -> Image.Image:
    """Return the canvas (colours and thickness) as an RGB picture with the medium's last touches."""
    *bands, thickness = canvas.split()
    paint = Image.merge("RGB", bands)
    if medium.relief:
        paint = relight(paint, thickness, medium.relief * 0.6)
    touched = FINISHES[medium.finish](paint, target, recipe.rng("finish"))
    return Image.blend(paint, touched, recipe.weight if recipe.medium else 1.0)
