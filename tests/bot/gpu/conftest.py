"""One tiny model for all tests of a worker, and engines that end with their test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.bot.gpu.key_ledger import faults, states

if TYPE_CHECKING:
    from bot.gpu.continuous_batch import EngineLimits
    from bot.gpu.engine import Engine
    from bot.gpu.model import Model
    from tests.bot.gpu.live_server import LiveServer


@pytest.fixture(scope="session")
def model() -> Model:
    """Return the tiny model, built once a worker: nothing changes its weights."""
    import torch  # noqa: PLC0415  absent without the extra

    from bot.gpu.model import tiny_model  # noqa: PLC0415  absent without the extra

    torch.set_num_threads(1)
    return tiny_model()


@pytest.fixture
def new_engine(model: Model) -> Iterator[Callable[..., Engine]]:
    """Return a maker of engines on the tiny model; they end with the test."""
    from bot.gpu.engine import Engine  # noqa: PLC0415  absent without the extra

    made: list[Engine] = []

    def make(limits: EngineLimits | None = None) -> Engine:
        made.append(Engine(model, limits))
        return made[-1]

    yield make
    for engine in made:
        engine.close()


@pytest.fixture
def engine(new_engine: Callable[..., Engine]) -> Engine:
    """Return an engine on the tiny model."""
    return new_engine()


@pytest.fixture
def serve(model: Model, tmp_path: Path) -> Iterator[Callable[..., LiveServer]]:
    """Return a maker of servers on loopback ports; they end with the test, every charge settled."""
    from tests.bot.gpu.live_server import LiveServer  # noqa: PLC0415  absent without the extra

    keys_path = tmp_path / "keys.sqlite"
    with ExitStack() as stack:
        yield lambda **given: stack.enter_context(
            closing(LiveServer(given.pop("model", model), keys_path, **given))
        )
    assert not keys_path.exists() or (faults(keys_path), states(keys_path)["pending"]) == ([], 0)
