"""One picture being painted: its target, its canvas, and the strokes between them."""

from __future__ import annotations

from typing import Final

from PIL import Image, ImageOps, ImageStat

from bot.backends.painting.finish import finish
from bot.backends.painting.grading import PALETTES, apply_palette, enhance, shift_palette
from bot.backends.painting.media import MEDIA, Colour, Medium
from bot.backends.painting.recipe import Recipe
from bot.backends.painting.strokes import Strokes
from bot.backends.painting.warp import break_into_planes, ripple

#: Above this strength, shapes change too.
WARP_ABOVE: Final = 0.75


def prepare(source: Image.Image, recipe: Recipe, medium: Medium) -> Image.Image:
    """Return the target: the picture in the palette of the prompt's words and the seed."""
    ease = min(1.0, recipe.strength / 0.4)
    care = ease * (recipe.weight if recipe.medium else 1.0)
    image = enhance(
        source,
        saturation=1 + (medium.saturation - 1) * care,
        contrast=1 + (medium.contrast - 1) * care,
        brightness=1 + (medium.brightness - 1) * care,
    )
    if medium.finish == "cubist":
        image = break_into_planes(image, recipe.rng("planes"), recipe.strength * recipe.weight)
    elif recipe.strength > WARP_ABOVE:
        image = ripple(image, recipe.rng("warp"), (recipe.strength - WARP_ABOVE) / (1 - WARP_ABOVE))
    image = shift_palette(image, recipe.rng("palette"), min(1.0, 0.2 + 0.8 * recipe.strength) * ease)
    for name in recipe.palettes:
        image = apply_palette(image, PALETTES[name], recipe.weight * ease)
    return image


def ground_colour(image: Image.Image, medium: Medium, weight: float) -> Colour:
    """Return the bare canvas's colour: the medium's paper, or a warm middle tone of the picture."""
    red, green, blue = (round(v) for v in ImageStat.Stat(image.resize((16, 16))).mean)
    toned = (min(255, int(red * 0.75) + 30), int(green * 0.72) + 12, int(blue * 0.68) + 6)
    if medium.ground is None:
        return toned
    share = 1 - (1 - weight) ** 2
    r, g, b = (round(t + (m - t) * share) for t, m in zip(toned, medium.ground, strict=True))
    return r, g, b


class Easel:
    """A picture being painted. Call `layer()` for 0 to `steps` - 1, then `picture()`."""

    def __init__(self, source: Image.Image, recipe: Recipe) -> None:
        """Set up the canvas for `source` (RGB, any size)."""
        self._source, self._recipe, self._medium = source, recipe, MEDIA[recipe.medium]
        self._target = prepare(source, recipe, self._medium)
        ground = ground_colour(self._target, self._medium, recipe.weight)
        self._canvas = Image.new("CMYK", source.size, (*ground, 128))
        self._strokes = Strokes(self._target, self._canvas, recipe, self._medium)

    def layer(self, index: int) -> None:
        """Paint one layer; nothing at strength 0."""
        if self._recipe.strength > 0:
            self._strokes.layer(index)

    def preview(self, side: int) -> Image.Image:
        """Return the canvas as it is now, RGB, without the last touches, at most `side` pixels a side."""
        size = ImageOps.contain(self._source, (side, side)).size
        if self._recipe.strength <= 0:
            return self._source.resize(size, Image.Resampling.BOX)
        bands = self._canvas.resize(size, Image.Resampling.BOX).split()
        return Image.merge("RGB", bands[:3])

    def picture(self) -> Image.Image:
        """Return the picture as it is now, RGB, in the light and on its canvas."""
        if self._recipe.strength <= 0:
            return self._source
        painted = finish(self._canvas, self._target, self._medium, self._recipe)
        return Image.blend(self._source, painted, min(1.0, (self._recipe.strength / 0.6) ** 0.7))
