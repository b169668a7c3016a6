"""The palette: what the style words and the seed do to a picture's colours."""

from __future__ import annotations

import colorsys
import random
from dataclasses import dataclass
from typing import Final

from PIL import Image, ImageChops, ImageEnhance, ImageOps

from bot.backends.painting.media import Colour


@dataclass(frozen=True, slots=True)
class Palette:
    """A palette: colours from dark to light laid over the picture's tones by `amount`, from 0 to 1.

    `saturation`, `contrast` and `brightness` are factors on the picture first.
    """

    dark: Colour = (0, 0, 0)
    middle: Colour = (128, 128, 128)
    light: Colour = (255, 255, 255)
    amount: float = 0.0
    saturation: float = 1.0
    contrast: float = 1.0
    brightness: float = 1.0


PALETTES: Final[dict[str, Palette]] = {
    "blue": Palette((8, 14, 52), (46, 106, 190), (222, 238, 255), 0.80),
    "teal": Palette((4, 34, 44), (28, 148, 150), (226, 255, 246), 0.78),
    "green": Palette((10, 34, 20), (72, 140, 62), (236, 248, 206), 0.76),
    "yellow": Palette((58, 40, 6), (226, 182, 36), (255, 250, 214), 0.74),
    "golden": Palette((48, 24, 6), (204, 140, 42), (255, 240, 190), 0.80, brightness=1.05),
    "orange": Palette((52, 18, 6), (222, 112, 34), (255, 234, 204), 0.78),
    "red": Palette((40, 4, 10), (194, 44, 42), (255, 224, 206), 0.78),
    "pink": Palette((60, 14, 48), (224, 112, 158), (255, 236, 242), 0.76, brightness=1.08),
    "purple": Palette((26, 8, 58), (128, 72, 180), (242, 226, 255), 0.78),
    "brown": Palette((30, 16, 8), (140, 94, 58), (246, 230, 208), 0.78),
    "autumn": Palette((44, 18, 14), (196, 92, 28), (255, 226, 150), 0.76, saturation=1.2),
    "sunset": Palette((44, 16, 74), (226, 84, 78), (255, 214, 128), 0.82),
    "fire": Palette((30, 2, 2), (224, 62, 10), (255, 236, 130), 0.8, contrast=1.2),
    "night": Palette((3, 6, 24), (26, 48, 104), (176, 200, 236), 0.84, contrast=1.1, brightness=0.62),
    "neon": Palette((10, 2, 36), (214, 18, 168), (76, 246, 255), 0.70, 1.9, 1.35, 0.82),
    "winter": Palette((36, 54, 84), (146, 178, 208), (252, 254, 255), 0.80, 0.6, 0.9, 1.16),
    "pastel": Palette((132, 118, 158), (232, 184, 196), (255, 250, 236), 0.45, 0.8, 0.62, 1.28),
    "noir": Palette((6, 6, 8), (112, 112, 112), (250, 250, 248), 1.0, 0.0, 1.45, 0.96),
    "sepia": Palette((34, 20, 10), (150, 112, 72), (250, 234, 204), 1.0, 0.0, 0.95, 1.04),
    "vivid": Palette(saturation=1.9, contrast=1.15),
    "muted": Palette((92, 98, 104), (164, 168, 168), (238, 238, 232), 0.5, 0.5, 0.75, 1.06),
    "dark": Palette(contrast=1.15, brightness=0.6),
    "bright": Palette(contrast=1.0, brightness=1.32, saturation=1.1),
}


def enhance(image: Image.Image, *, saturation: float, contrast: float, brightness: float) -> Image.Image:
    """Return `image` with its saturation, contrast and brightness multiplied."""
    image = ImageEnhance.Brightness(image).enhance(brightness)
    image = ImageEnhance.Contrast(image).enhance(contrast)
    return ImageEnhance.Color(image).enhance(saturation)


def apply_palette(image: Image.Image, palette: Palette, weight: float) -> Image.Image:
    """Return `image` in `palette`, by `weight` from 0 to 1."""
    changed = enhance(
        image, saturation=palette.saturation, contrast=palette.contrast, brightness=palette.brightness
    )
    if palette.amount:
        toned = ImageOps.colorize(
            changed.convert("L"), black=palette.dark, mid=palette.middle, white=palette.light
        )
        changed = Image.blend(changed, toned, palette.amount)
    return Image.blend(image, changed, weight)


def _hue(turn: float, saturation: float, value: int) -> Colour:
    """Return a colour: its hue in turns (any), its saturation from 0 to 1, its value from 0 to 255."""
    red, green, blue = colorsys.hsv_to_rgb(turn % 1.0, saturation, value / 255)
    return round(red * 255), round(green * 255), round(blue * 255)


def shift_palette(image: Image.Image, rng: random.Random, amount: float) -> Image.Image:
    """Return `image` as this painter sees it, by `amount` from 0 to 1.

    Shadows and lights drift to opposite hues, the middle tones to one beside the
    lights'; the colours as a whole are a little bolder or quieter.
    """
    turn = rng.random()
    opposite = turn + 0.42 + 0.16 * rng.random()
    shades = ImageOps.colorize(
        image.convert("L"),
        black=_hue(turn, 0.75, 150),
        mid=_hue(opposite + 0.2 * rng.random() - 0.1, 0.32, 142),
        white=_hue(opposite, 0.5, 245),
    )
    tinted = ImageChops.soft_light(image, shades)
    bold = ImageEnhance.Color(tinted).enhance(0.8 + 0.5 * rng.random())
    return Image.blend(image, bold, amount)
