"""How many rows go into one forward: measured on the card, up to where more rows save no more time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import torch

from bot.gpu.model import Model

#: A side of 1024 pixels, the size that the model was trained for.
_CELLS_SIDE: Final = 128
#: Bounds how long the measurement takes at the start.
_ROWS_MAX: Final = 32
#: Doubling the rows must make a row this much cheaper; less is within the noise of the measurement.
_GAIN_MIN: Final = 0.05
#: Room for two pictures side by side, so that neither waits for the other's end.
_ROWS_MIN: Final = 4
#: The fastest of three: other programs can only slow a run down.
_RUNS: Final = 3


def worthwhile_rows(seconds_for: Callable[[int], float], *, rows_max: int = _ROWS_MAX) -> int:
    """Return the largest batch that still gains: rows double while a row gets 5 % cheaper each time.

    `seconds_for(rows)` times one forward and may raise `OutOfMemoryError`, which ends the search.
    """
    rows, seconds_per_row = 1, seconds_for(1)
    while rows < rows_max:
        try:
            next_s = seconds_for(2 * rows) / (2 * rows)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            return rows
        if next_s > seconds_per_row * (1 - _GAIN_MIN):
            return max(rows, _ROWS_MIN)
        rows, seconds_per_row = 2 * rows, next_s
    return rows


def measure_cells(model: Model) -> int:
    """Return how many latent cells one forward should hold at most, measured at 1024 x 1024.

    Takes some seconds on a card; minutes where the model is compiled, which also warms it up.
    """
    embedding = model.embed("a measure", model.sequence_length(["a measure"]))

    def seconds_for(rows: int) -> float:
        x = torch.zeros(rows, 16, _CELLS_SIDE, _CELLS_SIDE, device=model.device)
        return best_seconds(lambda: model.velocity(x, [0.5] * rows, [embedding] * rows), model.device)

    return worthwhile_rows(seconds_for) * _CELLS_SIDE * _CELLS_SIDE


def best_seconds(work: Callable[[], object], device: torch.device, *, runs: int = _RUNS) -> float:
    """Return the seconds that `work` takes: the least of several runs, after one to warm up."""
    times = []
    for _ in range(runs + 1):
        _synchronize(device)
        started = time.perf_counter()
        work()
        _synchronize(device)
        times.append(time.perf_counter() - started)
    return min(times[1:])


def _synchronize(device: torch.device) -> None:
    # A card works on after the call has returned.
    if device.type == "cuda":
        torch.cuda.synchronize(device)
