"""The parts of Stable Diffusion 3 Medium, built from configurations: in full size, and tiny for tests.

The full sizes are those of the published model's own configuration files; with random
weights they make pictures of noise, at the real speed.
"""

from __future__ import annotations

import json
import string
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import torch

from bot.gpu.schedules import SHIFT

# Both are only partly typed, which strict checking reports as errors.
diffusers: Any = import_module("diffusers")
transformers: Any = import_module("transformers")

#: CLIP's window, and the two used for T5: one for short prompts, and the longest of the model's training.
CLIP_TOKENS: Final = 77
T5_TOKENS_SHORT: Final = 77
T5_TOKENS_MAX: Final = 256
#: Pixels on a side of one latent cell, and of a patch: 2 x 2 cells, which the transformer reads as one token.
CELL_PX: Final = 8
PATCH_PX: Final = 16


@dataclass(frozen=True, slots=True)
class Architecture:
    """The keyword arguments of each part's configuration class."""

    transformer: Mapping[str, Any]
    vae: Mapping[str, Any]
    clip_l: Mapping[str, Any]
    clip_g: Mapping[str, Any]
    t5: Mapping[str, Any]


_VAE: Final = MappingProxyType(
    {
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "latent_channels": 16,
        "scaling_factor": 1.5305,
        "shift_factor": 0.0609,
        "use_quant_conv": False,
        "use_post_quant_conv": False,
    }
)

SD3_MEDIUM: Final = Architecture(
    transformer={
        "sample_size": 128,
        "patch_size": 2,
        "in_channels": 16,
        "out_channels": 16,
        "num_layers": 24,
        "attention_head_dim": 64,
        "num_attention_heads": 24,
        "joint_attention_dim": 4096,
        "caption_projection_dim": 1536,
        "pooled_projection_dim": 2048,
        "pos_embed_max_size": 192,
    },
    vae={**_VAE, "block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "sample_size": 1024},
    clip_l={
        "vocab_size": 49408,
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "projection_dim": 768,
        "hidden_act": "quick_gelu",
    },
    clip_g={
        "vocab_size": 49408,
        "hidden_size": 1280,
        "intermediate_size": 5120,
        "num_hidden_layers": 32,
        "num_attention_heads": 20,
        "projection_dim": 1280,
        "hidden_act": "gelu",
    },
    t5={
        "vocab_size": 32128,
        "d_model": 4096,
        "d_kv": 64,
        "d_ff": 10240,
        "num_layers": 24,
        "num_heads": 64,
        "feed_forward_proj": "gated-gelu",
        "tie_word_embeddings": False,
    },
)

#: Bytes that stand for themselves in byte-level vocabularies: those that print as one character.
_PRINTABLE_BYTES: Final = [*range(33, 127), *range(161, 173), *range(174, 256)]


def _byte_letters() -> list[str]:
    """Return the 256 letters that byte-level tokenizers write bytes as (Radford et al. 2019)."""
    others = 256 - len(_PRINTABLE_BYTES)
    return [*map(chr, _PRINTABLE_BYTES), *(chr(256 + i) for i in range(others))]


def _clip_vocabulary() -> dict[str, int]:
    letters = _byte_letters()
    # The end must have the highest id: CLIP pools at the largest id of a prompt.
    words = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    return {word: index for index, word in enumerate(words)}


_T5_PIECES: Final = ["<pad>", "</s>", "<unk>", "\u2581", *string.ascii_lowercase, *string.digits, *",.!'-"]

_TINY_CLIP: Final = MappingProxyType(
    {
        "vocab_size": 514,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "bos_token_id": 512,
        "eos_token_id": 513,
    }
)

TINY: Final = Architecture(
    transformer={
        "sample_size": 32,
        "patch_size": 2,
        "in_channels": 16,
        "out_channels": 16,
        "num_layers": 2,
        "attention_head_dim": 4,
        "num_attention_heads": 2,
        "joint_attention_dim": 32,
        "caption_projection_dim": 8,
        "pooled_projection_dim": 24,
        "pos_embed_max_size": 128,
    },
    vae={
        **_VAE,
        "block_out_channels": (4, 4, 4, 8),
        "layers_per_block": 1,
        "norm_num_groups": 2,
        "sample_size": 64,
    },
    clip_l={
        **_TINY_CLIP,
        "hidden_size": 8,
        "intermediate_size": 16,
        "projection_dim": 8,
        "hidden_act": "quick_gelu",
    },
    clip_g={
        **_TINY_CLIP,
        "hidden_size": 16,
        "intermediate_size": 32,
        "projection_dim": 16,
        "hidden_act": "gelu",
    },
    t5={
        "vocab_size": len(_T5_PIECES),
        "d_model": 32,
        "d_kv": 8,
        "d_ff": 32,
        "num_layers": 1,
        "num_heads": 2,
        "feed_forward_proj": "gated-gelu",
        "tie_word_embeddings": False,
    },
)


def _tiny_clip_tokenizer() -> Any:
    """Return a tokenizer of single letters, with CLIP's two special words."""
    return transformers.CLIPTokenizer(vocab=_clip_vocabulary(), merges=[], model_max_length=CLIP_TOKENS)


def _tiny_t5_tokenizer() -> Any:
    """Return a tokenizer of single letters, with T5's special pieces."""
    return transformers.T5TokenizerFast(vocab=[(piece, -1.0) for piece in _T5_PIECES], extra_ids=0)


def build(architecture: Architecture, *, seed: int = 0, t5: bool = True) -> Any:
    """Return the five parts with random weights that depend on `seed` alone, and letter tokenizers."""
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        parts = diffusers.StableDiffusion3Pipeline(
            transformer=diffusers.SD3Transformer2DModel(**architecture.transformer),
            scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=SHIFT),
            vae=diffusers.AutoencoderKL(**architecture.vae),
            text_encoder=_clip(architecture.clip_l),
            tokenizer=_tiny_clip_tokenizer(),
            text_encoder_2=_clip(architecture.clip_g),
            tokenizer_2=_tiny_clip_tokenizer(),
            text_encoder_3=transformers.T5EncoderModel(transformers.T5Config(**architecture.t5))
            if t5
            else None,
            tokenizer_3=_tiny_t5_tokenizer() if t5 else None,
        )
    for part in parts.components.values():
        if isinstance(part, torch.nn.Module):
            # New modules are in training mode, where dropout makes every answer different.
            part.eval()
    return parts


def _clip(config: Mapping[str, Any]) -> Any:
    return transformers.CLIPTextModelWithProjection(transformers.CLIPTextConfig(**config))


def write_configs(architecture: Architecture, folder: Path) -> None:
    """Write the configurations that `from_single_file` needs beside a file of weights.

    Without them it would fetch them from the hub. On the meta device the parts take no memory.
    """
    with torch.device("meta"):
        transformer = diffusers.SD3Transformer2DModel(**architecture.transformer)
        vae = diffusers.AutoencoderKL(**architecture.vae)
    transformer.save_config(folder / "transformer")
    vae.save_config(folder / "vae")
    transformers.CLIPTextConfig(**architecture.clip_l).save_pretrained(folder / "text_encoder")
    transformers.CLIPTextConfig(**architecture.clip_g).save_pretrained(folder / "text_encoder_2")
    transformers.T5Config(**architecture.t5).save_pretrained(folder / "text_encoder_3")
    diffusers.FlowMatchEulerDiscreteScheduler(shift=SHIFT).save_config(folder / "scheduler")
    index = {"_class_name": "StableDiffusion3Pipeline", **_INDEX}
    (folder / "model_index.json").write_text(json.dumps(index), encoding="utf-8")


_INDEX: Final = {
    "transformer": ["diffusers", "SD3Transformer2DModel"],
    "vae": ["diffusers", "AutoencoderKL"],
    "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
    "text_encoder": ["transformers", "CLIPTextModelWithProjection"],
    "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
    "text_encoder_3": ["transformers", "T5EncoderModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "tokenizer_2": ["transformers", "CLIPTokenizer"],
    "tokenizer_3": ["transformers", "T5TokenizerFast"],
}
