"""What pictures cost, in credits."""

from __future__ import annotations

import math
from dataclasses import dataclass

from bot.params import Img2ImgParams
from bot.pictures.sizes import MEGAPIXEL


@dataclass(frozen=True, slots=True)
class Prices:
    """What one backend's pictures cost, in credits."""

    per_sample: int
    per_megapixel_step: float
    per_step: float = 0.0
    per_megapixel: float = 0.0

    def of(self, params: Img2ImgParams, pixels: int) -> int:
        """Return the price of `params.samples` pictures of `pixels` each.

        Each costs per_sample + (steps × per_step + megapixels × (per_megapixel + steps ×
        per_megapixel_step)), with the part in brackets rounded up.
        """
        steps, megapixels = params.num_inference_steps, pixels / MEGAPIXEL
        work = steps * self.per_step + megapixels * (self.per_megapixel + steps * self.per_megapixel_step)
        # A float product may come out just above a whole number, which must not cost a credit more.
        return params.samples * (self.per_sample + math.ceil(work - 1e-9))
