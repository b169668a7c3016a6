"""The engine's queue: who gets in, who waits, and what happens at the end."""

from __future__ import annotations

import threading

import pytest

torch = pytest.importorskip("torch", reason="needs the extra [gpu]")
pytest.importorskip("diffusers", reason="needs the extra [gpu]")

from bot.errors import QueueFull  # noqa: E402  after the skip
from bot.gpu.continuous_batch import EngineLimits  # noqa: E402  after the skip
from bot.gpu.engine import Engine  # noqa: E402  after the skip
from bot.gpu.model import Model  # noqa: E402  after the skip
from bot.gpu.tickets import PictureTicket  # noqa: E402  after the skip
from tests.bot.gpu.model_stand_ins import MIXED, TIMEOUT_S, GatedModel, picture  # noqa: E402  after the skip


def test_cancelled_while_waiting_makes_room(model: Model) -> None:
    """A picture that is cancelled while it waits leaves the queue at once."""
    gate = GatedModel(model)
    engine = Engine(gate, EngineLimits(waiting=1, live=1))  # type: ignore[arg-type]  # a stand-in for the card
    engine.submit(MIXED[0], picture())
    assert gate.reached.wait(TIMEOUT_S)
    engine.submit(MIXED[0], picture()).cancel()
    after = engine.submit(MIXED[0], picture())
    gate.go.set()
    assert after.result.result(TIMEOUT_S).shape == (64, 64, 3)
    engine.close()


def test_full_queue_is_refused(model: Model) -> None:
    """When too many wait, the next one is refused; several samples get in together or not at all."""
    gate = GatedModel(model)
    engine = Engine(gate, EngineLimits(waiting=2, live=1))  # type: ignore[arg-type]  # a stand-in for the card
    first = engine.submit(MIXED[0], picture())
    assert gate.reached.wait(TIMEOUT_S)
    second = engine.submit(MIXED[0], picture())
    with pytest.raises(QueueFull):
        engine.submit_all([MIXED[0], MIXED[1]], picture())
    gate.go.set()
    assert first.result.result(TIMEOUT_S).equal(second.result.result(TIMEOUT_S))
    engine.close()


def test_closing_cancels_what_is_left(model: Model) -> None:
    """Closing the engine ends every wait."""
    gate = GatedModel(model)
    engine = Engine(gate, EngineLimits(live=1))  # type: ignore[arg-type]  # a stand-in for the card
    tickets: list[PictureTicket] = [engine.submit(MIXED[0], picture()) for _ in range(3)]
    assert gate.reached.wait(TIMEOUT_S)
    threading.Timer(0.05, gate.go.set).start()
    engine.close()
    assert all(ticket.result.cancelled() for ticket in tickets)
    with pytest.raises(QueueFull):
        engine.submit(MIXED[0], picture())


def test_sides_must_fit_the_model(engine: Engine) -> None:
    """A side that is not a multiple of 16 is refused before anything is made."""
    with pytest.raises(ValueError, match="multiples of 16"):
        engine.submit(MIXED[0], torch.zeros(64, 40, 3, dtype=torch.uint8))
