"""What the painter needs to know to paint one picture."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from bot.backends.painting.words import MEDIUM_WORDS, PALETTE_WORDS, styles

_PALETTES_MAX = 3  # laid over one another, more than these turn to mud


@dataclass(frozen=True, slots=True)
class Recipe:
    """One picture's options, with the style words of the prompts already found.

    `weight` is how much the style words count, from 0 to 1; `medium` is "" where
    the prompt names none.
    """

    seed: int
    strength: float
    steps: int
    weight: float
    medium: str
    palettes: tuple[str, ...]

    @classmethod
    def read(cls, options: Mapping[str, Any], seed: int) -> Self:
        """Return a sample's recipe out of a request's `options`, an `Img2ImgParams` dump, and its `seed`."""
        prompt, negative = options["prompt"], options["negative_prompt"]
        media = styles(prompt, negative, MEDIUM_WORDS)
        return cls(
            seed=seed,
            strength=options["strength"],
            steps=options["num_inference_steps"],
            weight=1 - math.exp(-options["guidance_scale"] / 2),
            medium=media[0] if media else "",
            palettes=tuple(styles(prompt, negative, PALETTE_WORDS)[:_PALETTES_MAX]),
        )

    def rng(self, purpose: str) -> random.Random:
        """Return the random numbers for one purpose: always the same for a seed and a purpose."""
        return random.Random(f"{self.seed}/{purpose}")  # noqa: S311 - brush strokes, not secrets
