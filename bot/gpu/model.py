"""The model as the engine sees it: words in, latents in, velocities out; and how it is fitted to a card."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from bot.gpu.schedules import TIMES
from bot.gpu.sd3_architecture import CELL_PX, CLIP_TOKENS, T5_TOKENS_MAX, T5_TOKENS_SHORT, TINY, build

T5 = Literal["on", "off", "8bit"]


@dataclass(frozen=True, slots=True)
class Fit:
    """How the parts are laid onto a card.

    `t5` is how the largest text encoder is kept; `encoders_wait` keeps the text encoders in main
    memory but for the moments they are needed; `tiled` runs the VAE tile by tile.
    """

    t5: T5
    encoders_wait: bool = False
    tiled: bool = False


#: By gigabytes on the card, estimated from the parts' sizes at two bytes a weight.
FITS: Final[dict[int, Fit]] = {
    8: Fit(t5="off", encoders_wait=True, tiled=True),
    12: Fit(t5="off"),
    24: Fit(t5="on"),
}


@dataclass(frozen=True, slots=True)
class Words:
    """One prompt as the transformer reads it: `sequence` [tokens, width] and `pooled` [width]."""

    sequence: Tensor
    pooled: Tensor


class EightBitLinear(nn.Module):
    """A linear layer whose weights take one byte each, with one scale an output; inputs keep their type."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight = linear.weight.detach().float()
        scale = weight.abs().amax(dim=1, keepdim=True).clamp_min(1e-12) / 127
        self.register_buffer("small", (weight / scale).round().to(torch.int8))
        self.register_buffer("scale", scale.to(linear.weight.dtype))
        self.bias = linear.bias

    @property
    def weight(self) -> Tensor:
        """Return the weights [out, in] at their full size; T5 looks at their type."""
        small, scale = self.get_buffer("small"), self.get_buffer("scale")
        return small.to(scale.dtype) * scale

    def forward(self, x: Tensor) -> Tensor:
        """Return the layer's output for `x` [..., in]."""
        return functional.linear(x, self.weight, self.bias)


def shrink(module: nn.Module) -> None:
    """Replace every linear layer inside `module` by one of eight bits."""
    for name, child in module.named_children():
        if isinstance(child, nn.Linear):
            setattr(module, name, EightBitLinear(child))
        else:
            shrink(child)


class Model:
    """Stable Diffusion 3's five parts on one device, ready to be stepped row by row.

    `parts` is a `StableDiffusion3Pipeline`, of which only the parts are used.
    Latents are float32 [rows, 16, height / 8, width / 8] on the device; pictures are bytes
    [height, width, 3] in main memory.
    Not thread-safe: one thread calls it.
    """

    def __init__(self, parts: Any, *, device: torch.device, fit: Fit) -> None:
        self.device = device
        self.fit = fit
        self._parts = parts
        self._transformer: Any = parts.transformer.eval()
        self._vae: Any = parts.vae.eval()
        self._encoders = [part.eval() for part in _encoders(parts) if part is not None]
        self._place()
        self._sketch = self._fit_sketch()

    def _place(self) -> None:
        if self.fit.t5 == "8bit" and self._parts.text_encoder_3 is not None:
            shrink(self._parts.text_encoder_3)
        for part in [self._transformer, self._vae, *self._encoders]:
            part.requires_grad_(requires_grad=False)
        self._transformer.to(self.device)
        self._vae.to(self.device, memory_format=torch.channels_last)
        if self.fit.tiled:
            self._vae.enable_tiling()
        for encoder in self._encoders:
            encoder.to("cpu" if self.fit.encoders_wait else self.device)

    def compile(self) -> None:
        """Compile each transformer block; the first forward of each shape then takes a minute."""
        for block in self._transformer.transformer_blocks:
            block.compile(fullgraph=True)

    @property
    def has_t5(self) -> bool:
        """Whether the largest text encoder is loaded."""
        return self._parts.text_encoder_3 is not None

    def tokens(self, prompts: Sequence[str]) -> int:
        """Return the sequence length that fits all `prompts`: 77 without T5, else 154 or 333.

        Rows of one batch share it, so that a request's prompt and negative prompt do.
        """
        if not self.has_t5:
            return CLIP_TOKENS
        longest = max(len(self._parts.tokenizer_3(prompt).input_ids) for prompt in prompts)
        return CLIP_TOKENS + (T5_TOKENS_SHORT if longest <= T5_TOKENS_SHORT else T5_TOKENS_MAX)

    @torch.inference_mode()
    def read(self, prompt: str, tokens: int) -> Words:
        """Return `prompt` as `tokens` tokens. CLIP reads its first 77, T5 its first 256."""
        with self._encoders_here():
            sequence, _, pooled, _ = self._parts.encode_prompt(
                prompt,
                prompt,
                prompt,
                device=self.device,
                do_classifier_free_guidance=False,
                max_sequence_length=max(tokens - CLIP_TOKENS, T5_TOKENS_SHORT),
            )
        dtype = self._transformer.dtype
        return Words(sequence[0, :tokens].to(dtype), pooled[0].to(dtype))

    @contextmanager
    def _encoders_here(self) -> Iterator[None]:
        if not self.fit.encoders_wait:
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
        """Return the latent [1, 16, h, w] of a picture: the mode of the VAE's answer, so always the same."""
        pixels = (picture.permute(2, 0, 1)[None].float() / 127.5 - 1).to(self.device, self._vae.dtype)
        spread = self._in_tiles_if_need_be(lambda: self._vae.encode(pixels).latent_dist)
        latent: Tensor = (
            spread.mode().float() - self._vae.config.shift_factor
        ) * self._vae.config.scaling_factor
        return latent

    @torch.inference_mode()
    def decode(self, latent: Tensor) -> Tensor:
        """Return the picture of a latent [1, 16, h, w]."""
        latent = latent / self._vae.config.scaling_factor + self._vae.config.shift_factor
        latent = latent.to(self._vae.dtype)
        return _bytes(self._in_tiles_if_need_be(lambda: self._vae.decode(latent).sample)[0])

    def _in_tiles_if_need_be(self, work: Callable[[], Any]) -> Any:
        """Return what `work` returns; from the first time that memory is short, the VAE works by tiles."""
        try:
            return work()
        except torch.OutOfMemoryError:
            if self._vae.use_tiling:
                raise
        torch.cuda.empty_cache()
        self._vae.enable_tiling()
        return work()

    @torch.inference_mode()
    def velocity(self, x: Tensor, sigmas: Sequence[float], words: Sequence[Words]) -> Tensor:
        """Return dx/dsigma [rows, 16, h, w], each row at its own sigma with its own words."""
        dtype = self._transformer.dtype
        times = torch.tensor(sigmas, dtype=torch.float32, device=self.device) * TIMES
        result: Tensor = self._transformer(
            hidden_states=x.to(dtype),
            encoder_hidden_states=torch.stack([row.sequence for row in words]),
            pooled_projections=torch.stack([row.pooled for row in words]),
            timestep=times,
            return_dict=False,
        )[0]
        return result.float()

    @torch.inference_mode()
    def sketch(self, latent: Tensor) -> Tensor:
        """Return a small picture [h, w, 3] of bytes of a latent [1, 16, h, w]: linear, so nearly free."""
        cells = latent[0].permute(1, 2, 0)
        return _bytes((cells @ self._sketch[:-1] + self._sketch[-1]).permute(2, 0, 1))

    @torch.inference_mode()
    def _fit_sketch(self) -> Tensor:
        """Fit [17, 3] numbers that take a latent cell to its mean colour, on pictures of soft blots."""
        blots = torch.rand(8, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * 2 - 1
        pictures = functional.interpolate(blots, size=(16 * CELL_PX, 16 * CELL_PX), mode="bicubic").clamp(
            -1, 1
        )
        colours = functional.avg_pool2d(pictures, CELL_PX).permute(0, 2, 3, 1).reshape(-1, 3)
        latents = torch.cat([self.encode(_bytes(picture)) for picture in pictures]).cpu()
        cells = latents.permute(0, 2, 3, 1).reshape(-1, latents.shape[1])
        cells = torch.cat([cells, torch.ones(len(cells), 1)], dim=1)
        scale = torch.eye(cells.shape[1]) * (1e-3 * len(cells))
        fitted: Tensor = torch.linalg.solve(cells.T @ cells + scale, cells.T @ colours)
        return fitted.to(self.device)


def _encoders(parts: Any) -> list[Any]:
    return [parts.text_encoder, parts.text_encoder_2, parts.text_encoder_3]


def _bytes(picture: Tensor) -> Tensor:
    """Return bytes [height, width, 3], in main memory, of a picture [3, height, width] from -1 to 1."""
    scaled = (picture.float().nan_to_num().clamp(-1, 1) + 1) * 127.5
    return scaled.round().to(torch.uint8).permute(1, 2, 0).cpu()


def tiny_model(*, device: str = "cpu", t5: T5 = "on") -> Model:
    """Return the same machine in small: under a megabyte, random but always the same weights.

    Its pictures mean nothing. It is there to test with, and to try the server without a card.
    """
    parts = build(TINY, t5=t5 != "off")
    return Model(parts, device=torch.device(device), fit=Fit(t5=t5))
