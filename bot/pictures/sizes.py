"""How large pictures may be, and what size they are brought to."""

from __future__ import annotations

import math
from typing import Final

#: Prices and quotas count in these: the usual 1024 x 1024 is one.
MEGAPIXEL: Final = 1024 * 1024

INPUT_BYTES_MAX: Final = 25 << 20
#: Width times height of a member's picture: a transparent WebP this large takes 820 MB of the child's 1 GiB.
PIXELS_MAX: Final = 50_000_000
#: The same for a backend's answer: four times the most that is ever asked for.
RESULT_PIXELS_MAX: Final = 4096 * 4096

SIDE_MIN: Final = 16  # one step of the grid below
SIDE_MAX: Final = 2048  # with the smallest area, an aspect of 16 to 1
SIDE_STEP: Final = 16  # Stable Diffusion 3 works on patches of 2 x 2 latents of 8 x 8 pixels each
#: Longer side over shorter: at 16 to 1, 2048 x 128 still holds `AREA_MIN`.
ASPECT_MAX: Final = 16
AREA_MIN: Final = 512 * 512  # a quarter of the area that Stable Diffusion 3 was trained on
AREA_MAX: Final = MEGAPIXEL


def fitted_size(width: int, height: int) -> tuple[int, int]:
    """Return the size in pixels that a picture of `width` by `height` pixels is brought to.

    Its area is brought to `AREA_MAX` or less and to about `AREA_MIN` or more, no side
    exceeds `SIDE_MAX`, and each is about the nearest multiple of `SIDE_STEP`. A size that
    comes out stays as it is when it goes in, so that a result used again is not resampled.
    """
    area = width * height
    # Rounding both sides may have cost a picture made here 7 % of the least area.
    area_min = AREA_MIN * 0.93 if width % SIDE_STEP == height % SIDE_STEP == 0 else AREA_MIN
    scale = 1.0 if area_min <= area <= AREA_MAX else math.sqrt(min(max(area, AREA_MIN), AREA_MAX) / area)
    scale = min(scale, SIDE_MAX / max(width, height))
    across, down = _nearest_step(width * scale), _nearest_step(height * scale)
    while across * down > AREA_MAX:
        across, down = (across - SIDE_STEP, down) if across > down else (across, down - SIDE_STEP)
    return across, down


def _nearest_step(side: float) -> int:
    return max(SIDE_MIN, math.floor(side / SIDE_STEP + 0.5) * SIDE_STEP)
