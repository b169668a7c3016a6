"""Tickets: how a requested picture ends."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="needs the extra [gpu]")

from bot.errors import BackendFailed  # noqa: E402  after the skip
from bot.gpu.tickets import PictureTicket, SourcePicture  # noqa: E402  after the skip
from bot.params import Img2ImgParams  # noqa: E402  after the skip

PICTURE = torch.zeros(16, 32, 3, dtype=torch.uint8)


@pytest.fixture
def ticket() -> PictureTicket:
    """Return a new ticket."""
    return PictureTicket(Img2ImgParams(prompt="a", seed=1), SourcePicture.of(PICTURE), None, previews=False)


def test_digest_covers_bytes_and_shape() -> None:
    """Equal pictures have equal digests; other bytes, or the same bytes in another shape, have others."""
    digest = SourcePicture.of(PICTURE).digest
    assert SourcePicture.of(PICTURE.clone()).digest == digest
    assert SourcePicture.of(PICTURE + 1).digest != digest
    assert SourcePicture.of(PICTURE.reshape(32, 16, 3)).digest != digest


def test_completed_ticket_gives_its_picture(ticket: PictureTicket) -> None:
    """Whoever waits gets the picture."""
    assert ticket.complete(PICTURE)
    assert ticket.result.result(0).equal(PICTURE)


def test_failed_ticket_raises_and_names_the_cause(ticket: PictureTicket) -> None:
    """Whoever waits gets a `BackendFailed` with the cause in its detail."""
    ticket.fail(ZeroDivisionError("by zero"))
    with pytest.raises(BackendFailed) as failure:
        ticket.result.result(0)
    assert failure.value.detail == "ZeroDivisionError: by zero"


def test_picture_after_the_cancellation_is_dropped(ticket: PictureTicket) -> None:
    """A ticket that was cancelled takes no picture."""
    ticket.cancel()
    assert ticket.is_cancelled
    assert not ticket.complete(PICTURE)
    assert ticket.result.cancelled()


def test_error_after_the_cancellation_is_dropped(ticket: PictureTicket) -> None:
    """A ticket that was cancelled takes no error."""
    ticket.cancel()
    ticket.fail(ZeroDivisionError())
    assert ticket.result.cancelled()
