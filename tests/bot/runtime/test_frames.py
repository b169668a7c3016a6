from __future__ import annotations

import io

import pytest

from bot.runtime.frames import HEADER, BrokenFrame, parse_header, read_frame, write_frame

BYTES_MAX = {b"P": 10, b"R": 32 << 20}


def test_what_one_side_writes_the_other_reads() -> None:
    """A frame comes out as it went in: kind, length and bytes, and the next one follows."""
    stream = io.BytesIO()
    write_frame(stream, b"R", b"jpeg")
    write_frame(stream, b"P")
    assert parse_header(stream.getvalue()[: HEADER.size], BYTES_MAX) == (b"R", 4)
    stream.seek(0)
    assert [read_frame(stream, BYTES_MAX) for _ in range(2)] == [(b"R", b"jpeg"), (b"P", b"")]


@pytest.mark.parametrize("header", [HEADER.pack(b"X", 4), HEADER.pack(b"X", 0), HEADER.pack(b"P", 11)])
def test_rubbish_is_recognised_by_its_header(header: bytes) -> None:
    """A child that sends rubbish is caught at the first header, before anything is read into memory."""
    with pytest.raises(BrokenFrame):
        parse_header(header, BYTES_MAX)
    stream = io.BytesIO(header + bytes(20))
    with pytest.raises(BrokenFrame):
        read_frame(stream, BYTES_MAX)
    assert stream.tell() == HEADER.size


@pytest.mark.parametrize("length", range(HEADER.size + 4))
def test_a_stream_that_ends_early_is_an_end(length: int) -> None:
    """A stream that ends between frames, or in the middle of one, never gives half a frame."""
    stream = io.BytesIO()
    write_frame(stream, b"R", b"jpeg")
    with pytest.raises(EOFError):
        read_frame(io.BytesIO(stream.getvalue()[:length]), BYTES_MAX)
