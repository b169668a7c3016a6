"""The style words that the painter understands, found in a prompt.

Only whole words count, in any case; a word in the negative prompt cancels the
style it stands for, whichever of its words the prompt used.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from operator import itemgetter
from typing import Final

MEDIUM_WORDS: Final[Mapping[str, str]] = {
    "oil": "oil, oils, oil paint, oil painting, impasto, palette knife",
    "watercolour": "watercolour, watercolor, watercolours, watercolors, aquarelle, gouache",
    "sketch": "sketch, sketches, sketched, pencil, pencils, graphite, charcoal, drawing",
    "pointillism": "pointillism, pointillist, dots, dot, dotted, seurat, stipple, stippled",
    "mosaic": "mosaic, mosaics, tiles, tiled, tesserae, stained glass",
    "ink": "ink, inks, inked, sumi e, calligraphy",
    "impressionist": "impressionist, impressionism, impressionistic, monet, van gogh, brushstrokes",
    "comic": "comic, comics, poster, pop art, cartoon, manga, halftone",
    "cubist": "cubist, cubism, picasso, geometric, low poly, polygonal",
}

PALETTE_WORDS: Final[Mapping[str, str]] = {
    "blue": "blue, ocean, sea, underwater, azure, indigo",
    "teal": "teal, turquoise, cyan, aqua",
    "green": "green, forest, jungle, meadow, emerald, spring",
    "yellow": "yellow, lemon, sunny",
    "golden": "golden, gold, honey, amber, desert",
    "orange": "orange, copper",
    "red": "red, crimson, scarlet, ruby",
    "pink": "pink, rose, cherry blossom, sakura",
    "purple": "purple, violet, lavender, magenta",
    "brown": "brown, coffee, chocolate, wooden",
    "autumn": "autumn, autumnal, fall",
    "sunset": "sunset, sunrise, dusk, dawn, evening",
    "fire": "fire, fiery, lava, volcano, flames",
    "night": "night, midnight, moonlight, moonlit, nocturne",
    "neon": "neon, cyberpunk, synthwave, vaporwave",
    "winter": "winter, snow, snowy, ice, icy, frost, frozen, arctic",
    "pastel": "pastel, pastels, soft colours, soft colors",
    "noir": "noir, black and white, monochrome, greyscale, grayscale",
    "sepia": "sepia, vintage, old photo, daguerreotype",
    "vivid": "vivid, vibrant, colourful, colorful, saturated",
    "muted": "muted, misty, mist, fog, foggy, faded",
    "dark": "dark, gloomy, shadowy",
    "bright": "bright, luminous, radiant",
}


def _normalise(text: str) -> str:
    """Return `text` as lower-case words with single spaces, one at either end too."""
    return " ".join(["", *re.findall(r"[^\W_]+", text.casefold()), ""])


def _named_styles(text: str, words: Mapping[str, str]) -> list[str]:
    """Return the styles of `words` that `text` names, in the order of their first mention."""
    plain = _normalise(text)
    mentions = [
        (min(positions), style)
        for style, listed in words.items()
        if (positions := [at for word in listed.split(", ") if (at := plain.find(f" {word} ")) >= 0])
    ]
    return [style for _, style in sorted(mentions, key=itemgetter(0))]


def styles(prompt: str, negative: str, words: Mapping[str, str]) -> list[str]:
    """Return the styles of `words` that `prompt` names and `negative` doesn't, in the order of mention."""
    forbidden = _named_styles(negative, words)
    return [style for style in _named_styles(prompt, words) if style not in forbidden]
