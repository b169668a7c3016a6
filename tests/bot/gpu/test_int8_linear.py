"""Linear layers with weights of one byte."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="needs the extra [gpu]")
from torch import nn  # noqa: E402  after the skip

from bot.gpu.int8_linear import Int8Linear, quantize_linears  # noqa: E402  after the skip


def test_eight_bits_stay_close_to_the_full_layer() -> None:
    """The output of an eight-bit layer is within one percent of the layer it replaces."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        linear = nn.Linear(256, 64)
        x = torch.randn(8, 256)
    small, full = Int8Linear(linear)(x), linear(x)
    assert (small - full).norm() / full.norm() < 0.01


def test_every_linear_layer_is_replaced() -> None:
    """Every linear layer becomes one of eight bits, however deeply it is nested."""
    deep = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.ReLU(), nn.Linear(4, 2)))
    quantize_linears(deep)
    assert not any(isinstance(module, nn.Linear) for module in deep.modules())
