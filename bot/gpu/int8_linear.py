"""Linear layers with weights of one byte, so that T5 fits onto smaller cards."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class Int8Linear(nn.Module):
    """A linear layer with one byte a weight and one scale an output; inputs keep their type."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight = linear.weight.detach().float()
        # An output whose weights are all 0 has no scale of its own; the floor avoids 0 / 0.
        scale = weight.abs().amax(dim=1, keepdim=True).clamp_min(1e-12) / 127
        self.register_buffer("small", (weight / scale).round().to(torch.int8))
        self.register_buffer("scale", scale.to(linear.weight.dtype))
        self.bias = linear.bias

    @property
    def weight(self) -> Tensor:
        """Return the weights [out, in] in the type of the layer; T5 reads that type."""
        small, scale = self.get_buffer("small"), self.get_buffer("scale")
        return small.to(scale.dtype) * scale

    def forward(self, x: Tensor) -> Tensor:
        """Return the layer's output for `x` [..., in]."""
        return functional.linear(x, self.weight, self.bias)


def quantize_linears(module: nn.Module) -> None:
    """Replace every linear layer inside `module` by an `Int8Linear`."""
    for name, child in module.named_children():
        if isinstance(child, nn.Linear):
            setattr(module, name, Int8Linear(child))
        else:
            quantize_linears(child)
