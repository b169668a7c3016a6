"""What the bot and its decoder child say to each other, as frames (`bot.runtime.frames`).

Both sides import this, so it imports next to nothing.
"""

from __future__ import annotations

import struct
from typing import Final

from bot.pictures.sizes import INPUT_BYTES_MAX

#: To the child: a picture to bring to an input's size, or to encode again at its own size.
TO_FIT: Final = b"f"
TO_KEEP: Final = b"k"
#: From the child: it waits for pictures; a sentence, a line break and a detail; `SIZE` and a JPEG.
READY: Final = b"R"
REFUSED: Final = b"N"
PICTURE: Final = b"P"
#: Width and height in pixels.
SIZE: Final = struct.Struct(">II")

REQUEST_BYTES_MAX: Final = {TO_FIT: INPUT_BYTES_MAX, TO_KEEP: INPUT_BYTES_MAX}
#: `RESULT_PIXELS_MAX` of noise make a JPEG of about 40 MB at the child's quality.
ANSWER_BYTES_MAX: Final = {REFUSED: 4 << 10, PICTURE: 64 << 20}

NOT_A_PICTURE: Final = "That file is not a PNG, JPEG, GIF or WebP picture; please attach one of these."


class Refused(Exception):
    """A picture that can't be used: a sentence for whoever sent it, details for the log."""

    def __init__(self, sentence: str, *, detail: str = "") -> None:
        super().__init__(sentence)
        self.detail = detail
