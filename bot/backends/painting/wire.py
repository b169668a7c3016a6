"""How the bot and its painting child talk: frames of a kind, a length and that many bytes, both ways."""

from __future__ import annotations

import struct
from typing import Final

#: One byte of kind, four of length, big-endian.
HEADER: Final = struct.Struct(">cI")
#: To the child: options (JSON), then the picture (JPEG).
OPTIONS: Final = b"O"
IMAGE: Final = b"I"
#: From the child: steps done (two bytes) with or without a preview (JPEG), and finished pictures (JPEG).
PROGRESS: Final = b"P"
RESULT: Final = b"R"
STEP: Final = struct.Struct(">H")
#: The largest frame either side takes: a picture of 2048 by 2048 pixels stays well below.
FRAME_BYTES_MAX: Final = 32 * 1024 * 1024


class BrokenFrame(ValueError):
    """The other side sent something that is no frame."""


def framed(kind: bytes, payload: bytes) -> bytes:
    """Return `payload` as one frame."""
    return HEADER.pack(kind, len(payload)) + payload


def opened(header: bytes, kinds: bytes) -> tuple[bytes, int]:
    """Return a header's kind and the length that follows.

    Raises:
        BrokenFrame: the kind is not one of `kinds` or the length is over `FRAME_BYTES_MAX`.
    """
    kind, length = HEADER.unpack(header)
    if kind not in kinds or length > FRAME_BYTES_MAX:
        raise BrokenFrame(f"kind {kind!r}, {length} bytes")
    return kind, length
