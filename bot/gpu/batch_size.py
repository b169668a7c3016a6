"""How many rows a card takes before more of them save no more time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import torch

from bot.gpu.model import Model

_CELLS_SIDE: Final = 128
_ROWS_MOST: Final = 32
_GAIN_MIN: Final = 0.05
_RUNS: Final = 3


def rows_worth_it(seconds_for: Callable[[int], float], *, rows_most: int = _ROWS_MOST) -> int:
    """Return the largest batch that still gains: rows double while a row gets 5 % cheaper each time.

    `seconds_for(rows)` times one forward and may raise `OutOfMemoryError`, which ends the search.
    """
    rows, a_row_s = 1, seconds_for(1)
    while rows < rows_most:
        try:
            next_s = seconds_for(2 * rows) / (2 * rows)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            return rows
        if next_s > a_row_s * (1 - _GAIN_MIN):
            # Four at least: two pictures side by side, so that neither waits for the other's end.
            return max(rows, 4)
        rows, a_row_s = 2 * rows, next_s
    return rows


def measured_cells(model: Model) -> int:
    """Return how many latent cells one forward should hold at most, measured at 1024 x 1024.

    Takes some seconds on a card; minutes where the model is compiled, which warms it up as well.
    """
    words = model.read("a measure", model.tokens(["a measure"]))

    def seconds_for(rows: int) -> float:
        x = torch.zeros(rows, 16, _CELLS_SIDE, _CELLS_SIDE, device=model.device)
        return seconds_of(lambda: model.velocity(x, [0.5] * rows, [words] * rows), model.device)

    return rows_worth_it(seconds_for) * _CELLS_SIDE * _CELLS_SIDE


def seconds_of(work: Callable[[], object], device: torch.device, *, runs: int = _RUNS) -> float:
    """Return the least seconds that `work` takes, of several runs after one to warm up."""
    times = []
    for _ in range(runs + 1):
        _settle(device)
        started = time.perf_counter()
        work()
        _settle(device)
        times.append(time.perf_counter() - started)
    return min(times[1:])


def _settle(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
