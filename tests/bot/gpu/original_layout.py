"""The tiny model written as its makers publish theirs: one file, with their names for the weights."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

Weights = dict[str, Tensor]

_BLOCK_NAMES = {
    "attn.to_out.0": "x_block.attn.proj",
    "attn.to_add_out": "context_block.attn.proj",
    "norm1.linear": "x_block.adaLN_modulation.1",
    "norm1_context.linear": "context_block.adaLN_modulation.1",
    "ff.net.0.proj": "x_block.mlp.fc1",
    "ff.net.2": "x_block.mlp.fc2",
    "ff_context.net.0.proj": "context_block.mlp.fc1",
    "ff_context.net.2": "context_block.mlp.fc2",
}
_OUTER_NAMES = {
    "pos_embed.pos_embed": "pos_embed",
    "pos_embed.proj": "x_embedder.proj",
    "time_text_embed.timestep_embedder.linear_1": "t_embedder.mlp.0",
    "time_text_embed.timestep_embedder.linear_2": "t_embedder.mlp.2",
    "time_text_embed.text_embedder.linear_1": "y_embedder.mlp.0",
    "time_text_embed.text_embedder.linear_2": "y_embedder.mlp.2",
    "context_embedder": "context_embedder",
    "proj_out": "final_layer.linear",
    "norm_out.linear": "final_layer.adaLN_modulation.1",
}


def _swapped(weight: Tensor) -> Tensor:
    """Return scale and shift in the other order, which is the makers'."""
    return torch.cat([*reversed(weight.chunk(2))])


def _transformer(weights: Weights, layers: int) -> Iterator[tuple[str, Tensor]]:
    for kind in ("weight", "bias"):
        for name, original in _OUTER_NAMES.items():
            value = weights.get(f"{name}.{kind}", weights.get(name))
            if value is not None:
                key = original if name in weights else f"{original}.{kind}"
                yield key, _swapped(value) if name == "norm_out.linear" else value
        for layer in range(layers):
            yield from _block(weights, layer, kind, is_last=layer == layers - 1)


def _block(weights: Weights, layer: int, kind: str, *, is_last: bool) -> Iterator[tuple[str, Tensor]]:
    here, there = f"transformer_blocks.{layer}", f"joint_blocks.{layer}"
    for block, parts in (
        ("x", ("to_q", "to_k", "to_v")),
        ("context", ("add_q_proj", "add_k_proj", "add_v_proj")),
    ):
        joined = torch.cat([weights[f"{here}.attn.{part}.{kind}"] for part in parts])
        yield f"{there}.{block}_block.attn.qkv.{kind}", joined
    for name, original in _BLOCK_NAMES.items():
        value = weights.get(f"{here}.{name}.{kind}")
        if value is not None:
            swap = is_last and name == "norm1_context.linear"
            yield f"{there}.{original}.{kind}", _swapped(value) if swap else value


def _vae_name(name: str) -> str:
    """Return the makers' name of a weight of the VAE."""
    name = name.replace("mid_block.resnets.0", "mid.block_1").replace("mid_block.resnets.1", "mid.block_2")
    for ours, theirs in (
        ("group_norm", "norm"),
        ("to_q", "q"),
        ("to_k", "k"),
        ("to_v", "v"),
        ("to_out.0", "proj_out"),
    ):
        name = name.replace(f"mid_block.attentions.0.{ours}", f"mid.attn_1.{theirs}")
    parts = name.split(".")
    if parts[1] in {"down_blocks", "up_blocks"}:
        up = parts[1] == "up_blocks"
        level = str(3 - int(parts[2])) if up else parts[2]
        inner = {"resnets": "block", "downsamplers": "downsample", "upsamplers": "upsample"}[parts[3]]
        rest = parts[4:] if inner == "block" else parts[5:]
        name = ".".join([parts[0], "up" if up else "down", level, inner, *rest])
    return name.replace("conv_shortcut", "nin_shortcut").replace("conv_norm_out", "norm_out")


def _vae(weights: Weights) -> Iterator[tuple[str, Tensor]]:
    for name, value in weights.items():
        is_attention = ".attentions." in name and name.endswith("weight") and "group_norm" not in name
        yield _vae_name(name), value[:, :, None, None] if is_attention else value


def write(parts: Any, path: Path, *, t5: bool = True, clip: bool = True) -> None:
    """Write the parts' weights into one file at `path`."""
    layers = parts.transformer.config.num_layers
    named: Weights = {
        f"model.diffusion_model.{name}": value
        for name, value in _transformer(parts.transformer.state_dict(), layers)
    }
    named |= {f"first_stage_model.{name}": value for name, value in _vae(parts.vae.state_dict())}
    encoders = {"clip_l": parts.text_encoder, "clip_g": parts.text_encoder_2} if clip else {}
    if t5:
        encoders["t5xxl"] = parts.text_encoder_3
    for name, encoder in encoders.items():
        prefix = f"text_encoders.{name}.transformer."
        named |= {f"{prefix}{key}": value for key, value in encoder.state_dict().items()}
    save_file({name: value.clone().contiguous() for name, value in named.items()}, path)
