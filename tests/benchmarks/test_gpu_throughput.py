"""The GPU benchmark's arithmetic, and a dry run of it."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="needs the extra [gpu]")
pytest.importorskip("diffusers", reason="needs the extra [gpu]")

from bot.gpu.sd3_architecture import SD3_MEDIUM, TINY  # noqa: E402  after the skip
from tests.benchmarks.gpu_throughput import Setup, bench_of, tera_flop  # noqa: E402  after the skip

torch.set_num_threads(1)
CPU = torch.device("cpu")


def test_work_of_the_real_model_is_counted() -> None:
    """A row of the real model is 8.44 TFLOP at 1024 x 1024 and 1.80 at 512 x 512; the VAE is 15.35."""
    setup = Setup(SD3_MEDIUM, CPU, torch.float32, steps=20, compiled=False)
    assert tera_flop(setup, 1024) == pytest.approx((8.437, 15.355), abs=0.01)
    assert tera_flop(setup, 512)[0] == pytest.approx(1.803, abs=0.01)


def test_dry_run_measures_both_sides() -> None:
    """The dry run prints the engine and diffusers' own loop side by side, and no failure."""
    setup = Setup(TINY, CPU, torch.float32, steps=2, compiled=False)
    lines = list(bench_of(setup).of_side(64, [1, 2]))
    assert sum(line.startswith("ours") for line in lines) == 3
    assert sum(line.startswith("stock") for line in lines) == 3
    assert all("of peak" in line for line in lines if line.startswith(("ours", "stock")))
