"""What the bot and its painting child say to each other, as frames (`bot.runtime.frames`)."""

from __future__ import annotations

import struct
from typing import Final

#: To the child: a line of JSON with the options, then the picture (JPEG).
REQUEST: Final = b"Q"
#: From the child: steps done (`STEP`) with or without a preview (JPEG), and finished pictures (JPEG).
PROGRESS: Final = b"P"
RESULT: Final = b"R"
STEP: Final = struct.Struct(">H")

#: A picture of 2048 by 2048 pixels stays well below.
_PICTURE_BYTES_MAX: Final = 32 << 20
REQUEST_BYTES_MAX: Final = {REQUEST: _PICTURE_BYTES_MAX}
ANSWER_BYTES_MAX: Final = {PROGRESS: _PICTURE_BYTES_MAX, RESULT: _PICTURE_BYTES_MAX}
