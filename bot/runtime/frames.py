"""Frames between the bot and its child processes: one byte of kind, four of length, the payload.

Children import this file on every start, so it must import next to nothing.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import BinaryIO, Final

HEADER: Final = struct.Struct(">cI")


class BrokenFrame(ValueError):
    """The other side sent something that is not one of the frames expected."""


def parse_header(header: bytes, bytes_max: Mapping[bytes, int]) -> tuple[bytes, int]:
    """Return a frame's kind and its payload's length in bytes.

    `bytes_max` maps each kind that may come to the longest payload it may have.

    Raises:
        BrokenFrame: another kind, or too long. Nothing of the payload has been read by then.
    """
    kind, length = HEADER.unpack(header)
    if length > bytes_max.get(kind, -1):
        raise BrokenFrame(f"a frame of kind {kind!r} and {length} bytes")
    return kind, length


def read_frame(stream: BinaryIO, bytes_max: Mapping[bytes, int]) -> tuple[bytes, bytes]:
    """Return the next frame's kind and payload. Raises `EOFError` at the end and `BrokenFrame`."""
    kind, length = parse_header(_read_exactly(stream, HEADER.size), bytes_max)
    return kind, _read_exactly(stream, length)


def write_frame(stream: BinaryIO, kind: bytes, payload: bytes = b"") -> None:
    """Write one frame and flush it."""
    stream.write(HEADER.pack(kind, len(payload)))
    stream.write(payload)
    stream.flush()


def _read_exactly(stream: BinaryIO, length: int) -> bytes:
    data = stream.read(length)
    if len(data) < length:
        raise EOFError
    return data
