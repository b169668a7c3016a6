"""The server's figures in Prometheus' text format (version 0.0.4)."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Final

from bot.gpu.engine import Engine

_BOUNDS_S: Final = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0)


class Meter:
    """Counts requests: made, refused by status, failed, given up; and how long the made ones took."""

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        self.pictures = 0
        self.seconds = 0.0
        self._within: Counter[float] = Counter()

    def made(self, pictures: int, took_s: float) -> None:
        """Count a request that made its pictures."""
        self.outcomes["200"] += 1
        self.pictures += pictures
        self.seconds += took_s
        self._within.update(bound for bound in _BOUNDS_S if took_s <= bound)

    def refused(self, status: int) -> None:
        """Count a request that was refused."""
        self.outcomes[str(status)] += 1

    def failed(self, error: BaseException) -> None:
        """Count a request that ended without its pictures."""
        self.outcomes["gone" if isinstance(error, asyncio.CancelledError) else "failed"] += 1

    def lines(self) -> Iterator[str]:
        """Yield the figures, one a line."""
        yield "# TYPE gpu_requests_total counter"
        for outcome, count in sorted(self.outcomes.items()):
            yield f'gpu_requests_total{{outcome="{outcome}"}} {count}'
        yield "# TYPE gpu_request_seconds histogram"
        for bound in _BOUNDS_S:
            yield f'gpu_request_seconds_bucket{{le="{bound:g}"}} {self._within[bound]}'
        yield f'gpu_request_seconds_bucket{{le="+Inf"}} {self.outcomes["200"]}'
        yield f"gpu_request_seconds_sum {self.seconds:.6f}"
        yield f"gpu_request_seconds_count {self.outcomes['200']}"


def rendered(meter: Meter, engine: Engine) -> str:
    """Return all figures of a server."""
    live, waiting = engine.load
    counters = engine.counters
    gauges = {"gpu_pictures_live": live, "gpu_pictures_waiting": waiting}
    totals = {
        "gpu_pictures_total": counters.pictures,
        "gpu_pictures_cancelled_total": counters.cancelled,
        "gpu_pictures_failed_total": counters.failed,
        "gpu_forwards_total": counters.forwards,
        "gpu_forward_rows_total": counters.rows,
        "gpu_forward_seconds_total": round(counters.forward_s, 6),
        "gpu_out_of_memory_total": counters.out_of_memory,
        "gpu_prompt_cache_hits_total": engine.words.hits,
        "gpu_prompt_cache_misses_total": engine.words.misses,
        "gpu_latent_cache_hits_total": engine.latents.hits,
        "gpu_latent_cache_misses_total": engine.latents.misses,
    }
    lines = [*_block(gauges, "gauge"), *_block(totals, "counter"), *meter.lines()]
    return "\n".join(lines) + "\n"


def _block(figures: Mapping[str, float], kind: str) -> Iterator[str]:
    for name, figure in figures.items():
        yield f"# TYPE {name} {kind}"
        yield f"{name} {figure}"
