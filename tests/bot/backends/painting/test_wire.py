from __future__ import annotations

import pytest

from bot.backends.painting import wire


def test_round_trip() -> None:
    """What one side frames the other side reads: kind, length, bytes."""
    frame = wire.framed(wire.RESULT, b"jpeg")
    assert wire.opened(frame[: wire.HEADER.size], wire.PROGRESS + wire.RESULT) == (wire.RESULT, 4)
    assert frame[wire.HEADER.size :] == b"jpeg"


@pytest.mark.parametrize(
    "header", [wire.HEADER.pack(b"X", 4), wire.HEADER.pack(b"R", wire.FRAME_BYTES_MAX + 1)]
)
def test_broken(header: bytes) -> None:
    """A child that sends rubbish is found out at the first header, before anything is read into memory."""
    with pytest.raises(wire.BrokenFrame):
        wire.opened(header, wire.PROGRESS + wire.RESULT)
