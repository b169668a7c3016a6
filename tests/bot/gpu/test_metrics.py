"""Metrics in Prometheus' text format."""

from __future__ import annotations

import asyncio

import pytest

pytest.importorskip("torch", reason="needs the extra [gpu]")
pytest.importorskip("diffusers", reason="needs the extra [gpu]")

from bot.gpu.engine import Engine
from bot.gpu.metrics import RequestMetrics, render


def test_requests_are_counted_by_outcome(engine: Engine) -> None:
    """Made, refused, failed and disconnected requests are counted apart."""
    metrics = RequestMetrics()
    metrics.count_made(1.5)
    metrics.count_refused(400)
    metrics.count_refused(400)
    metrics.count_failed(RuntimeError())
    metrics.count_failed(asyncio.CancelledError())
    lines = render(metrics, engine).splitlines()
    for outcome, count in {"200": 1, "400": 2, "failed": 1, "gone": 1}.items():
        assert f'gpu_requests_total{{outcome="{outcome}"}} {count}' in lines


def test_buckets_are_cumulative(engine: Engine) -> None:
    """Each bucket counts all requests up to its bound, the last one all of them."""
    metrics = RequestMetrics()
    for took_s in (0.2, 1.5, 400.0):
        metrics.count_made(took_s)
    lines = render(metrics, engine).splitlines()
    for bound, count in {"0.5": 1, "1": 1, "2": 2, "300": 2, "+Inf": 3}.items():
        assert f'gpu_request_seconds_bucket{{le="{bound}"}} {count}' in lines
    assert "gpu_request_seconds_sum 401.700000" in lines
    assert "gpu_request_seconds_count 3" in lines


def test_every_metric_has_a_type(engine: Engine) -> None:
    """Each name is declared once, before its first value."""
    declared: list[str] = []
    for line in render(RequestMetrics(), engine).splitlines():
        if line.startswith("# TYPE"):
            declared.append(line.split()[2])
        else:
            assert line.startswith(declared[-1])
    assert len(declared) == len(set(declared))
