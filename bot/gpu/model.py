"""Stable Diffusion 3 as the engine calls it: prompts and latents in, velocities out.

Only the published parts are used; sampling is this program's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Literal

import torch
from torch import Tensor
from torch.nn import functional

from bot.gpu.int8_linear import quantize_linears
from bot.gpu.schedules import TRAINING_STEPS
from bot.gpu.sd3_architecture import CELL_PX, CLIP_TOKENS, T5_TOKENS_MAX, T5_TOKENS_SHORT, TINY, build

T5 = Literal["on", "off", "8bit"]


@dataclass(frozen=True, slots=True)
class MemoryMode:
    """How the parts are laid out on a card.

    `t5` says whether the largest text encoder is loaded, and in how many bits; `offload_encoders` keeps the
    text encoders in main memory except while they run; `tile_vae` runs the VAE tile by tile.
    """

    t5: T5
    offload_encoders: bool = False
    tile_vae: bool = False


#: By gigabytes of the card. Estimated from the parts' sizes at two bytes a weight, not measured.
MEMORY_MODES: Final[dict[int, MemoryMode]] = {
    8: MemoryMode(t5="off", offload_encoders=True, tile_vae=True),
    12: MemoryMode(t5="off"),
    24: MemoryMode(t5="on"),
}


@dataclass(frozen=True, slots=True)
class PromptEmbedding:
    """One prompt as the transformer reads it: `sequence` [tokens, width] and `pooled` [width]."""

    sequence: Tensor
    pooled: Tensor


class Model:
    """Stable Diffusion 3's five parts on one device, ready to be stepped row by row.

    `parts` is a `StableDiffusion3Pipeline`; its scheduler and its loop are not used.
    Latents are float32 [rows, 16, height / 8, width / 8] on the device; pictures are bytes
    [height, width, 3] in main memory.
    Not thread-safe: one thread calls it.
    """

    def __init__(self, parts: Any, *, device: torch.device, mode: MemoryMode) -> None:
        self.device = device
        self._mode = mode
        self._parts = parts
        self._transformer: Any = parts.transformer.eval()
        self._vae: Any = parts.vae.eval()
        encoders = (parts.text_encoder, parts.text_encoder_2, parts.text_encoder_3)
        self._encoders = [encoder.eval() for encoder in encoders if encoder is not None]
        self._place_parts()
        self._preview_projection = self._fit_preview_projection()

    def _place_parts(self) -> None:
        if self._mode.t5 == "8bit" and self.has_t5:
            quantize_linears(self._parts.text_encoder_3)
        for part in [self._transformer, self._vae, *self._encoders]:
            part.requires_grad_(requires_grad=False)
        self._transformer.to(self.device)
        # Convolutions are faster with the channels innermost.
        self._vae.to(self.device, memory_format=torch.channels_last)
        if self._mode.tile_vae:
            self._vae.enable_tiling()
        for encoder in self._encoders:
            encoder.to("cpu" if self._mode.offload_encoders else self.device)

    def compile(self) -> None:
        """Compile each transformer block; the first forward of each shape then takes a minute."""
        for block in self._transformer.transformer_blocks:
            # A block that can't be compiled whole should fail here, not run slowly in pieces.
            block.compile(fullgraph=True)

    @property
    def has_t5(self) -> bool:
        """Whether the largest text encoder is loaded."""
        return self._parts.text_encoder_3 is not None

    def sequence_length(self, prompts: Sequence[str]) -> int:
        """Return how many tokens the transformer reads of all `prompts`: 77 without T5, else 154 or 333.

        Rows of one forward share it, so a request's prompt and negative prompt must.
        """
        if not self.has_t5:
            return CLIP_TOKENS
        longest = max(len(self._parts.tokenizer_3(prompt).input_ids) for prompt in prompts)
        return CLIP_TOKENS + (T5_TOKENS_SHORT if longest <= T5_TOKENS_SHORT else T5_TOKENS_MAX)

    @torch.inference_mode()
    def embed(self, prompt: str, tokens: int) -> PromptEmbedding:
        """Return the embedding of `prompt` in `tokens` tokens. CLIP reads its first 77, T5 its first 256."""
        with self._encoders_on_device():
            sequence, _, pooled, _ = self._parts.encode_prompt(
                prompt,
                prompt,
                prompt,
                device=self.device,
                do_classifier_free_guidance=False,
                max_sequence_length=max(tokens - CLIP_TOKENS, T5_TOKENS_SHORT),
            )
        dtype = self._transformer.dtype
        # Without T5 the sequence comes padded with zeros, which would only cost time.
        return PromptEmbedding(sequence[0, :tokens].to(dtype), pooled[0].to(dtype))

    @contextmanager
    def _encoders_on_device(self) -> Iterator[None]:
        if not self._mode.offload_encoders:
            yield
            return
        try:
            for encoder in self._encoders:
                encoder.to(self.device)
            yield
        finally:
            for encoder in self._encoders:
                encoder.to("cpu")

    @torch.inference_mode()
    def encode(self, picture: Tensor) -> Tensor:
        """Return the latent [1, 16, h, w] of a picture.

        It is the mode of the VAE's distribution, not a sample, so it is always the same and can be cached.
        """
        pixels = (picture.permute(2, 0, 1)[None].float() / 127.5 - 1).to(self.device, self._vae.dtype)
        distribution = self._tile_if_out_of_memory(lambda: self._vae.encode(pixels).latent_dist)
        latent: Tensor = (
            distribution.mode().float() - self._vae.config.shift_factor
        ) * self._vae.config.scaling_factor
        return latent

    @torch.inference_mode()
    def decode(self, latent: Tensor) -> Tensor:
        """Return the picture of a latent [1, 16, h, w]."""
        latent = latent / self._vae.config.scaling_factor + self._vae.config.shift_factor
        latent = latent.to(self._vae.dtype)
        return _to_bytes(self._tile_if_out_of_memory(lambda: self._vae.decode(latent).sample)[0])

    def _tile_if_out_of_memory(self, work: Callable[[], Any]) -> Any:
        """Return what `work` returns; the first time that memory is short, tile the VAE from then on."""
        try:
            return work()
        except torch.OutOfMemoryError:
            if self._vae.use_tiling:
                raise
        torch.cuda.empty_cache()
        self._vae.enable_tiling()
        return work()

    @torch.inference_mode()
    def velocity(self, x: Tensor, sigmas: Sequence[float], embeddings: Sequence[PromptEmbedding]) -> Tensor:
        """Return dx/dsigma [rows, 16, h, w], each row at its own sigma with its own prompt."""
        dtype = self._transformer.dtype
        result: Tensor = self._transformer(
            hidden_states=x.to(dtype),
            encoder_hidden_states=torch.stack([row.sequence for row in embeddings]),
            pooled_projections=torch.stack([row.pooled for row in embeddings]),
            timestep=torch.tensor(sigmas, dtype=torch.float32, device=self.device) * TRAINING_STEPS,
            return_dict=False,
        )[0]
        # Samplers compute in float32: in bfloat16 their small differences would drown in rounding.
        return result.float()

    @torch.inference_mode()
    def preview(self, latent: Tensor) -> Tensor:
        """Return a small picture, bytes [h, w, 3], of a latent [1, 16, h, w].

        One linear projection: nearly free, where decoding with the VAE costs over half a step.
        """
        cells = latent[0].permute(1, 2, 0)
        weights, offset = self._preview_projection[:-1], self._preview_projection[-1]
        return _to_bytes((cells @ weights + offset).permute(2, 0, 1))

    @torch.inference_mode()
    def _fit_preview_projection(self) -> Tensor:
        """Fit [17, 3] numbers that take a latent cell (and a constant 1) to its mean colour.

        Fitted at the start, to this very VAE, on eight pictures of soft blots of random colours.
        """
        blots = torch.rand(8, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * 2 - 1
        pictures = functional.interpolate(blots, size=(16 * CELL_PX, 16 * CELL_PX), mode="bicubic").clamp(
            -1, 1
        )
        colours = functional.avg_pool2d(pictures, CELL_PX).permute(0, 2, 3, 1).reshape(-1, 3)
        latents = torch.cat([self.encode(_to_bytes(picture)) for picture in pictures]).cpu()
        cells = latents.permute(0, 2, 3, 1).reshape(-1, latents.shape[1])
        cells = torch.cat([cells, torch.ones(len(cells), 1)], dim=1)
        # Ridge regression: without the small diagonal, channels that move together have no single solution.
        ridge = torch.eye(cells.shape[1]) * (1e-3 * len(cells))
        fitted: Tensor = torch.linalg.solve(cells.T @ cells + ridge, cells.T @ colours)
        return fitted.to(self.device)


def _to_bytes(picture: Tensor) -> Tensor:
    """Return bytes [height, width, 3], in main memory, of a picture [3, height, width] from -1 to 1."""
    # NaN has no defined byte; it becomes mid grey.
    scaled = (picture.float().nan_to_num().clamp(-1, 1) + 1) * 127.5
    return scaled.round().to(torch.uint8).permute(1, 2, 0).cpu()


def tiny_model(*, device: str = "cpu", t5: T5 = "on") -> Model:
    """Return the same model in small: under a megabyte of random weights, the same at each start.

    Its pictures mean nothing. It is for tests, and to try the server without a card.
    """
    parts = build(TINY, t5=t5 != "off")
    return Model(parts, device=torch.device(device), mode=MemoryMode(t5=t5))
