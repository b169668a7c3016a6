"""The server's metrics in Prometheus' text format (version 0.0.4)."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Final

from bot.gpu.engine import Engine

#: From a small picture on a fast card to a long wait in the queue.
_BOUNDS_S: Final = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0)


class RequestMetrics:
    """Counts requests by outcome, and how long those took that made their pictures."""

    def __init__(self) -> None:
        self._outcomes: Counter[str] = Counter()
        self._seconds = 0.0
        self._within: Counter[float] = Counter()

    def count_made(self, took_s: float) -> None:
        """Count a request that made its pictures."""
        self._outcomes["200"] += 1
        self._seconds += took_s
        # Prometheus' buckets are cumulative: each counts all that is below its bound.
        self._within.update(bound for bound in _BOUNDS_S if took_s <= bound)

    def count_refused(self, status: int) -> None:
        """Count a request that was refused."""
        self._outcomes[str(status)] += 1

    def count_failed(self, error: BaseException) -> None:
        """Count a request that ended without its pictures: cancelled by its client, or failed."""
        self._outcomes["gone" if isinstance(error, asyncio.CancelledError) else "failed"] += 1

    def lines(self) -> Iterator[str]:
        """Yield the metrics line by line."""
        yield "# TYPE gpu_requests_total counter"
        for outcome, count in sorted(self._outcomes.items()):
            yield f'gpu_requests_total{{outcome="{outcome}"}} {count}'
        yield "# TYPE gpu_request_seconds histogram"
        for bound in _BOUNDS_S:
            yield f'gpu_request_seconds_bucket{{le="{bound:g}"}} {self._within[bound]}'
        yield f'gpu_request_seconds_bucket{{le="+Inf"}} {self._outcomes["200"]}'
        yield f"gpu_request_seconds_sum {self._seconds:.6f}"
        yield f"gpu_request_seconds_count {self._outcomes['200']}"


def render(requests: RequestMetrics, engine: Engine) -> str:
    """Return all metrics of a server."""
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
        "gpu_prompt_cache_hits_total": engine.embeddings.hits,
        "gpu_prompt_cache_misses_total": engine.embeddings.misses,
        "gpu_latent_cache_hits_total": engine.latents.hits,
        "gpu_latent_cache_misses_total": engine.latents.misses,
    }
    lines = [*_block(gauges, "gauge"), *_block(totals, "counter"), *requests.lines()]
    return "\n".join(lines) + "\n"


def _block(values: Mapping[str, float], kind: str) -> Iterator[str]:
    for name, value in values.items():
        yield f"# TYPE {name} {kind}"
        yield f"{name} {value}"
