"""How many pictures a second the engine makes, beside diffusers' own loop, in one run.

    python -m tests.benchmarks.gpu_throughput            # on a CUDA card
    python -m tests.benchmarks.gpu_throughput --tiny     # a dry run on the processor: figures mean nothing

The real architecture with random weights: its pictures are noise, its speed is the real one. Both
sides get the same calls (20 steps, guidance, VAE in and out), the same weights and ready-made prompt
embeddings of 154 tokens. TFLOP are counted on tensors without data; the peak is what one large
matrix product reaches on the same card in the same run.
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from bot.errors import BackendFailed
from bot.gpu.batch_size import best_seconds
from bot.gpu.continuous_batch import EngineLimits
from bot.gpu.engine import Engine
from bot.gpu.model import MemoryMode, Model, PromptEmbedding
from bot.gpu.schedules import SHIFT
from bot.gpu.sd3_architecture import CELL_PX, SD3_MEDIUM, TINY, Architecture, diffusers
from bot.params import Img2ImgParams

#: A short prompt with T5.
TOKENS = 154
TIMEOUT_S = 3600
MIXED_STEPS = (10, 15, 20, 25, 30, 40)


@dataclass(frozen=True)
class Setup:
    """What is measured: the architecture, where, and how."""

    architecture: Architecture
    device: torch.device
    dtype: torch.dtype
    steps: int
    compiled: bool

    @property
    def is_dry_run(self) -> bool:
        """Whether the figures mean nothing."""
        return self.architecture is TINY


class ModelWithoutEncoders(Model):
    """The model without its text encoders: embeddings are random numbers."""

    def sequence_length(self, _: Sequence[str]) -> int:
        """Return the length of a short prompt with T5."""
        return TOKENS

    def embed(self, prompt: str, tokens: int) -> PromptEmbedding:
        """Return random numbers, the same for prompts of one length."""
        config = self._transformer.config
        generator = torch.Generator().manual_seed(len(prompt))
        sequence = torch.randn(tokens, config.joint_attention_dim, generator=generator)
        pooled = torch.randn(config.pooled_projection_dim, generator=generator)
        dtype = self._transformer.dtype
        return PromptEmbedding(sequence.to(self.device, dtype), pooled.to(self.device, dtype))


def parts_of(setup: Setup) -> SimpleNamespace:
    """Return a transformer and a VAE with random weights, made on the device."""
    before = torch.get_default_dtype()
    torch.manual_seed(0)
    torch.set_default_dtype(setup.dtype)
    try:
        with setup.device:
            transformer = diffusers.SD3Transformer2DModel(**setup.architecture.transformer)
            vae = diffusers.AutoencoderKL(**setup.architecture.vae)
    finally:
        torch.set_default_dtype(before)
    return SimpleNamespace(
        transformer=transformer, vae=vae, text_encoder=None, text_encoder_2=None, text_encoder_3=None
    )


def stock_of(parts: SimpleNamespace) -> Any:
    """Return diffusers' own image-to-image pipeline around the same weights."""
    pipeline = diffusers.StableDiffusion3Img2ImgPipeline(
        transformer=parts.transformer,
        vae=parts.vae,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=SHIFT),
        **dict.fromkeys(
            ["text_encoder", "text_encoder_2", "text_encoder_3", "tokenizer", "tokenizer_2", "tokenizer_3"]
        ),
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def tera_flop(setup: Setup, side: int) -> tuple[float, float]:
    """Return the TFLOP of one row of the transformer, and of the VAE both ways, at one size."""
    with torch.device("meta"):
        transformer = diffusers.SD3Transformer2DModel(**setup.architecture.transformer)
        vae = diffusers.AutoencoderKL(**setup.architecture.vae)
        cells = torch.empty(1, 16, side // CELL_PX, side // CELL_PX)
        sequence = torch.empty(1, TOKENS, transformer.config.joint_attention_dim)
        pooled = torch.empty(1, transformer.config.pooled_projection_dim)
        row = _counted(lambda: transformer(cells, sequence, pooled, torch.empty(1)))
        both = _counted(lambda: (vae.encode(torch.empty(1, 3, side, side)), vae.decode(cells)))
    return row, both


def _counted(work: Callable[[], object]) -> float:
    with FlopCounterMode(display=False) as counter:
        work()
    return float(counter.get_total_flops()) / 1e12


def peak_tera_flops(setup: Setup) -> float:
    """Return the TFLOP/s of a large matrix product on this device."""
    side = 512 if setup.is_dry_run else 8192
    a, b = (torch.randn(side, side, device=setup.device, dtype=setup.dtype) for _ in range(2))
    return 2 * side**3 / best_seconds(lambda: a @ b, setup.device, runs=10) / 1e12


def picture(side: int, *, seed: int = 0) -> Tensor:
    """Return a picture of noise."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (side, side, 3), generator=generator, dtype=torch.uint8)


def params_of(steps: Sequence[int]) -> list[Img2ImgParams]:
    """Return one request for each number of steps."""
    return [
        Img2ImgParams(prompt="a", seed=i, num_inference_steps=n, strength=1, sampler="euler")
        for i, n in enumerate(steps)
    ]


def ours(model: Model, setup: Setup, side: int, steps: Sequence[int]) -> float:
    """Return the seconds that the engine takes for these requests, submitted at once from one picture."""
    cells = 2 * len(steps) * (side // CELL_PX) ** 2
    engine = Engine(model, EngineLimits(rows=2 * len(steps), cells=cells, live=len(steps), latents_cached=1))
    # Another picture in each run, so that none finds its latent in the cache.
    pictures = (picture(side, seed=run) for run in count())
    try:

        def work() -> None:
            for ticket in engine.submit_all(params_of(steps), next(pictures)):
                ticket.result.result(TIMEOUT_S)

        return best_seconds(work, setup.device, runs=1 if setup.is_dry_run else 2)
    finally:
        engine.close()


def stock(pipeline: Any, model: ModelWithoutEncoders, setup: Setup, side: int, steps: Sequence[int]) -> float:
    """Return the seconds that diffusers takes: in one batch if all steps agree, else one after the other."""
    image = picture(side).permute(2, 0, 1)[None].float() / 255
    batches = [(steps[0], len(steps))] if len(set(steps)) == 1 else [(n, 1) for n in steps]

    def work() -> None:
        for each, rows in batches:
            _stock_call(pipeline, model, image, each, rows)

    return best_seconds(work, setup.device, runs=1 if setup.is_dry_run else 2)


def _stock_call(pipeline: Any, model: ModelWithoutEncoders, image: Tensor, steps: int, rows: int) -> None:
    positive, negative = model.embed("a", TOKENS), model.embed("no", TOKENS)
    side = image.shape[-1]
    made = pipeline(
        image=image.expand(rows, -1, -1, -1),
        height=side,
        width=side,
        strength=1.0,
        num_inference_steps=steps,
        guidance_scale=5.0,
        prompt_embeds=positive.sequence.expand(rows, -1, -1),
        negative_prompt_embeds=negative.sequence.expand(rows, -1, -1),
        pooled_prompt_embeds=positive.pooled.expand(rows, -1),
        negative_pooled_prompt_embeds=negative.pooled.expand(rows, -1),
        output_type="pt",
    )
    made.images.cpu()


@dataclass(frozen=True)
class Bench:
    """Both sides around the same weights, and what the device can do at best."""

    setup: Setup
    model: ModelWithoutEncoders
    pipeline: Any
    peak: float

    def of_side(self, side: int, batches: Sequence[int]) -> Iterator[str]:
        """Yield the table of one size: equal requests in growing batches, then unequal ones."""
        row, vae = tera_flop(self.setup, side)
        yield f"{side} x {side}: {row:.3g} TFLOP a row, {vae:.3g} TFLOP for the VAE both ways"
        for batch in batches:
            yield from self._both(side, [self.setup.steps] * batch, row=row, vae=vae)
        mixed = (2, 3, 4) if self.setup.is_dry_run else MIXED_STEPS
        yield f"{len(mixed)} requests of {', '.join(map(str, mixed))} steps, submitted at once:"
        yield from self._both(side, mixed, row=row, vae=vae)

    def _both(self, side: int, steps: Sequence[int], *, row: float, vae: float) -> Iterator[str]:
        work = sum(2 * calls * row + vae for calls in steps)
        sides = {
            "ours": lambda: ours(self.model, self.setup, side, steps),
            "stock": lambda: stock(self.pipeline, self.model, self.setup, side, steps),
        }
        for name, timed in sides.items():
            head = f"{name:6} {side:5} px  {len(steps):3} pictures"
            yield f"{head}  {self._figures(_seconds(timed), len(steps), work)}"

    def _figures(self, took_s: float | None, pictures: int, work: float) -> str:
        if took_s is None:
            return "out of memory"
        speed, share = work / took_s, work / took_s / self.peak
        each = f"{took_s:8.3f} s  {pictures / took_s:7.3f} pictures/s"
        return f"{each}  {speed:7.4g} TFLOP/s  {share:6.1%} of peak"


def bench_of(setup: Setup) -> Bench:
    """Return both sides, ready to be measured."""
    parts = parts_of(setup)
    model = ModelWithoutEncoders(parts, device=setup.device, mode=MemoryMode(t5="off"))
    if setup.compiled:
        model.compile()
    return Bench(setup, model, stock_of(parts), peak_tera_flops(setup))


def _seconds(timed: Callable[[], float]) -> float | None:
    try:
        return timed()
    except (torch.OutOfMemoryError, BackendFailed):
        return None
    finally:
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tiny", action="store_true", help="a dry run on the processor with the tiny model")
    parser.add_argument(
        "--compile", action="store_true", help="compile the transformer's blocks for both sides"
    )
    parser.add_argument("--steps", type=int, help="steps a picture (20; in a dry run 3)")
    parser.add_argument(
        "--sides", type=int, nargs="+", help="sides in pixels (512 1024; in a dry run 64 128)"
    )
    parser.add_argument("--batches", type=int, nargs="+", help="pictures at once (1 2 4 8 16; 1 2 4)")
    return parser.parse_args()


def main() -> None:
    """Measure and print."""
    arguments = _parse_arguments()
    device = torch.device("cpu" if arguments.tiny else "cuda")
    setup = Setup(
        architecture=TINY if arguments.tiny else SD3_MEDIUM,
        device=device,
        dtype=torch.float32 if arguments.tiny else torch.bfloat16,
        steps=arguments.steps or (3 if arguments.tiny else 20),
        compiled=arguments.compile,
    )
    name = "a dry run with the tiny model on the processor: these figures mean nothing"
    print(name if arguments.tiny else torch.cuda.get_device_name(device), f"(torch {torch.__version__})")
    started = time.perf_counter()
    bench = bench_of(setup)
    print(f"peak, one large matrix product: {bench.peak:.3g} TFLOP/s")
    for side in arguments.sides or ([64, 128] if arguments.tiny else [512, 1024]):
        for line in bench.of_side(
            side, arguments.batches or ([1, 2, 4] if arguments.tiny else [1, 2, 4, 8, 16])
        ):
            print(line, flush=True)
    print(f"measured in {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
