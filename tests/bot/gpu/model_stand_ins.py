"""Models that wait, run out of memory or break, and small pictures to feed to an engine."""

from __future__ import annotations

import threading

import torch
from torch import Tensor

from bot.gpu.engine import Engine
from bot.gpu.model import Model, PromptEmbedding
from bot.params import Img2ImgParams

TIMEOUT_S = 20

#: Seven requests that differ in all options.
MIXED = [
    Img2ImgParams(prompt="a red fox", seed=1, num_inference_steps=6),
    Img2ImgParams(prompt="a blue bird", seed=2, num_inference_steps=3, sampler="euler", scheduler="normal"),
    Img2ImgParams(prompt="a tree", seed=3, num_inference_steps=8, guidance_scale=1, sampler="heun"),
    Img2ImgParams(prompt="a tree", seed=4, num_inference_steps=5, strength=1, sampler="dpmpp_sde"),
    Img2ImgParams(prompt="the sea", seed=5, num_inference_steps=4, scheduler="karras", sampler="uni_pc"),
    Img2ImgParams(prompt="the sea", seed=6, num_inference_steps=7, strength=0.3, sampler="euler_ancestral"),
    Img2ImgParams(prompt="fog", seed=7, num_inference_steps=5, guidance_scale=1, sampler="euler_pp"),
]


def picture(seed: int = 0, side: int = 64) -> Tensor:
    """Return a picture of noise, bytes [side, side, 3]."""
    generator = torch.Generator().manual_seed(seed)
    noise: Tensor = torch.randint(0, 256, (side, side, 3), generator=generator, dtype=torch.uint8)
    return noise


def levels_off(one: Tensor, other: Tensor) -> int:
    """Return the largest difference between two pictures of bytes."""
    return int((one.int() - other.int()).abs().max())


class GatedModel:
    """A model that waits at each forward until `go` is set, so that a test can fill the queue."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self.go = threading.Event()
        self.reached = threading.Event()
        self.rows: list[int] = []

    def __getattr__(self, name: str) -> object:
        return getattr(self._model, name)

    def velocity(self, x: Tensor, sigmas: list[float], embeddings: list[PromptEmbedding]) -> Tensor:
        """Wait for the gate, note the rows, call the model."""
        self.reached.set()
        self.go.wait(TIMEOUT_S)
        self.rows.append(len(x))
        return self._model.velocity(x, sigmas, embeddings)


class CrampedModel(GatedModel):
    """A model on a card whose memory ends at `rows_max` rows."""

    def __init__(self, model: Model, *, rows_max: int) -> None:
        super().__init__(model)
        self.go.set()
        self._rows_max = rows_max

    def velocity(self, x: Tensor, sigmas: list[float], embeddings: list[PromptEmbedding]) -> Tensor:
        """Run out of memory where there are too many rows."""
        if len(x) > self._rows_max:
            raise torch.OutOfMemoryError("too many rows")
        return super().velocity(x, sigmas, embeddings)


class BrokenModel(GatedModel):
    """A model on a card that has failed."""

    def velocity(self, _x: Tensor, _sigmas: list[float], _embeddings: list[PromptEmbedding]) -> Tensor:
        """Raise what a lost card raises."""
        raise RuntimeError("the card fell off the bus")


def made(engine: Engine, params: Img2ImgParams, source: Tensor) -> Tensor:
    """Return one picture, made alone."""
    return engine.submit(params, source).result.result(TIMEOUT_S)
