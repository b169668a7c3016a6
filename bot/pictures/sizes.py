"""The sizes of pictures: what fits, and what a megapixel is."""

from __future__ import annotations

from typing import Final

#: In pixels. Prices and limits count binary megapixels, as the model's square 1024 × 1024 does.
MEGAPIXEL: Final = 1024 * 1024
