"""What a picture's own bytes say of it before any decoder has seen them."""

from __future__ import annotations

import re
from typing import Final

#: A progressive JPEG of an ordinary encoder has 6 to 18 scans; each costs a pass over the whole picture.
SCANS_MAX: Final = 64

_MAGIC: Final = re.compile(
    rb"(?P<PNG>\x89PNG\r\n\x1a\n)|(?P<JPEG>\xff\xd8\xff)|(?P<GIF>GIF8[79]a)|(?P<WEBP>RIFF.{4}WEBP)", re.DOTALL
)
#: Any JPEG marker but the restarts, which stand inside a scan's data as `FF 00` does.
_MARKER: Final = re.compile(rb"\xff+([\x01-\xcf\xd8-\xfe])")
_SOI, _EOI, _SOS, _TEM = 0xD8, 0xD9, 0xDA, 0x01


def kind_of(data: bytes) -> str | None:
    """Return the format that the first bytes of `data` promise (PNG, JPEG, GIF, WEBP), or None."""
    match = _MAGIC.match(data)
    return match.lastgroup if match else None


def has_too_many_scans(data: bytes) -> bool:
    """Return whether the JPEG in `data` has more than `SCANS_MAX` scans."""
    # A count of all such bytes can only be too high, and is a hundred times faster than the walk.
    return data.count(b"\xff\xda") > SCANS_MAX and scan_count(data) > SCANS_MAX


def scan_count(data: bytes) -> int:
    """Return how many scans the JPEG in `data` has, counting no further than just over `SCANS_MAX`.

    Segments are stepped over by their lengths and the end marker ends the walk, as in
    libjpeg: thumbnails, and films that phones append, hold markers that are no scans.
    """
    count, position = 0, 2
    while count <= SCANS_MAX and (match := _MARKER.search(data, position)):
        marker, position = match[1][0], match.end()
        if marker == _EOI:
            break
        count += marker == _SOS
        if marker not in {_SOI, _TEM}:
            position += max(2, int.from_bytes(data[position : position + 2], "big"))
    return count


def webp_size(data: bytes) -> tuple[int, int] | None:
    """Return the width and height in pixels that a WebP's header declares, or None if it is no header.

    The decoder reserves memory for the whole canvas as it opens, so its size is
    looked up before that (RFC 9649, sections 2.5 to 2.7).
    """
    if data[12:16] == b"VP8X":
        return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    if data[12:16] == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if data[12:16] == b"VP8 ":
        return int.from_bytes(data[26:28], "little") & 0x3FFF, int.from_bytes(data[28:30], "little") & 0x3FFF
    return None
