"""Tickets: how a requested picture ends."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="needs the extra [gpu]")

from bot.errors import BackendFailed  # noqa: E402  after the skip
from bot.gpu.tickets import Source, Ticket  # noqa: E402  after the skip
from bot.params import Img2ImgParams  # noqa: E402  after the skip

PICTURE = torch.zeros(16, 32, 3, dtype=torch.uint8)


@pytest.fixture
def ticket() -> Ticket:
    """Return a new ticket."""
    return Ticket(Img2ImgParams(prompt="a", seed=1), Source.of(PICTURE), None, previews=False)


def test_digest_covers_bytes_and_shape() -> None:
    """Equal pictures have equal digests; other bytes, or the same bytes in another shape, have others."""
    digest = Source.of(PICTURE).digest
    assert Source.of(PICTURE.clone()).digest == digest
    assert Source.of(PICTURE + 1).digest != digest
    assert Source.of(PICTURE.reshape(32, 16, 3)).digest != digest


def test_completed_ticket_gives_its_picture(ticket: Ticket) -> None:
    """Whoever waits gets the picture."""
    assert ticket.complete(PICTURE)
    assert ticket.result.result(0).equal(PICTURE)


def test_failed_ticket_raises_and_names_the_cause(ticket: Ticket) -> None:
    """Whoever waits gets a `BackendFailed` with the cause in its detail."""
    ticket.fail(ZeroDivisionError("by zero"))
    with pytest.raises(BackendFailed) as failure:
        ticket.result.result(0)
    assert failure.value.detail == "ZeroDivisionError: by zero"


def test_picture_after_the_cancellation_is_dropped(ticket: Ticket) -> None:
    """A ticket that was cancelled takes no picture."""
    ticket.cancel()
    assert ticket.is_cancelled
    assert not ticket.complete(PICTURE)
    assert ticket.result.cancelled()


def test_error_after_the_cancellation_is_dropped(ticket: Ticket) -> None:
    """A ticket that was cancelled takes no error."""
    ticket.cancel()
    ticket.fail(ZeroDivisionError())
    assert ticket.result.cancelled()
