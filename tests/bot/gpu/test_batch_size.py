"""Measuring how many rows a forward should have."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="needs the extra [gpu]")
pytest.importorskip("diffusers", reason="needs the extra [gpu]")

from bot.gpu.batch_size import best_seconds, measure_cells, worthwhile_rows  # noqa: E402  after the skip
from bot.gpu.model import Model  # noqa: E402  after the skip


@pytest.mark.parametrize(("rows_free", "expected"), [(1, 4), (4, 4), (8, 8), (64, 32)])
def test_rows_grow_while_they_save_time(rows_free: int, expected: int) -> None:
    """A card that steps so many rows in the time of one gets batches of about that many."""
    assert worthwhile_rows(lambda rows: float(max(rows, rows_free))) == expected


def test_rows_stop_where_memory_does() -> None:
    """A card whose memory ends at eight rows gets eight."""

    def seconds_for(rows: int) -> float:
        if rows > 8:
            raise torch.OutOfMemoryError
        return 1.0

    assert worthwhile_rows(seconds_for) == 8


def test_measuring_times_real_work(model: Model) -> None:
    """The work is timed as often as asked, after one run to warm up."""
    calls: list[int] = []
    assert best_seconds(lambda: calls.append(1), model.device, runs=2) >= 0
    assert len(calls) == 3


def test_tiny_model_can_be_measured(model: Model) -> None:
    """The whole measurement runs on the tiny model and gives a whole number of rows."""
    assert measure_cells(model) % (128 * 128) == 0
