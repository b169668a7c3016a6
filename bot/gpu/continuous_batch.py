"""Steps all live pictures together: whatever they ask for, one forward of the model serves many.

A picture is a sampler that waits for its next prediction. Each tick takes as many pictures as one
forward holds, of one latent size and one prompt length, oldest first; calls the model once; and sends
each sampler its prediction. A picture may join at any tick and leave at any tick, so none waits for
another's last step, and progress, previews and cancelling need no further machinery. Language-model
servers call this continuous batching.

A picture does not depend on which others share its forwards, except for rounding: its noise comes from
a generator of its own, and every row has its own sigma and its own prompt.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from bot.gpu.cache import Cache
from bot.gpu.model import Model, PromptEmbedding
from bot.gpu.samplers import BY_NAME, NEED_UNGUIDED, Prediction, SamplerSteps
from bot.gpu.schedules import sigmas_of
from bot.gpu.tickets import PictureTicket, Step
from bot.params import Img2ImgParams

_log = logging.getLogger(__name__)

#: What all rows of one forward share: latent height, latent width, prompt length in tokens.
Shape = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class EngineLimits:
    """The most that the engine holds at once.

    A row is one input of a forward: a picture takes two, or one at guidance 1. A latent cell stands for
    8 x 8 pixels; past some number of cells in a forward a card gains nothing from more rows.
    """

    #: Rows of one forward: as many as `cells` allows at 512 x 512.
    rows: int = 64
    #: Latent cells of one forward, over all its rows: 16 rows of 1024 x 1024. On a card it is measured.
    cells: int = 16 * 128 * 128
    #: Pictures being made: those that fill `rows` at two rows each.
    live: int = 32
    #: Pictures that wait; further ones are refused. The last in line still meets the server's time limit of
    #: 600 s if a picture takes 3.7 s or less.
    waiting: int = 128
    #: Cached prompts, of 2.7 MB each at most (333 tokens, 4096 wide, two bytes).
    embeddings_cached: int = 128
    #: Cached input pictures, of 1 MiB each at 1024 x 1024.
    latents_cached: int = 64

    def rows_of(self, shape: Shape) -> int:
        """Return how many rows of one shape go into one forward."""
        return max(1, min(self.rows, self.cells // (shape[0] * shape[1])))


@dataclass(slots=True)
class Counters:
    """What the engine has done since it started."""

    ticks: int = 0
    forwards: int = 0
    rows: int = 0
    forward_s: float = 0.0
    pictures: int = 0
    cancelled: int = 0
    failed: int = 0
    out_of_memory: int = 0
    #: The rows that each shape was cut down to when memory ran out.
    rows_max: dict[Shape, int] = field(default_factory=dict)


@dataclass(slots=True)
class _LivePicture:
    """A picture being made: its sampler, and the `query` (x, sigma) that the sampler wants predicted next."""

    ticket: PictureTicket
    sampler: SamplerSteps
    sigmas: tuple[float, ...]
    query: tuple[Tensor, float]
    embeddings: tuple[PromptEmbedding, ...]
    shape: Shape
    reported: int = 0

    @property
    def rows(self) -> int:
        return len(self.embeddings)


class ContinuousBatch:
    """The live pictures and the model that steps them. Not thread-safe: the engine's thread owns it."""

    def __init__(self, model: Model, limits: EngineLimits) -> None:
        self.counters = Counters()
        self.embeddings: Cache[PromptEmbedding] = Cache(limits.embeddings_cached)
        self.latents: Cache[Tensor] = Cache(limits.latents_cached)
        self._limits = limits
        self._model = model
        self._live: list[_LivePicture] = []
        self._last_tick_of: dict[Shape, int] = {}

    def __len__(self) -> int:
        return len(self._live)

    def add(self, ticket: PictureTicket) -> None:
        """Encode a ticket's prompt and picture and start its sampler."""
        try:
            self._start(ticket)
        except Exception as error:  # noqa: BLE001  whatever one picture breaks must not stop the others
            self._fail(ticket, error)

    def _start(self, ticket: PictureTicket) -> None:
        params, source = ticket.params, ticket.source
        sigmas = sigmas_of(
            scheduler=params.scheduler,
            sampler=params.sampler,
            steps=params.num_inference_steps,
            strength=params.strength,
        )
        if not sigmas:
            # Strength 0: the answer is the input, which the VAE would only blur.
            self.counters.pictures += ticket.complete(source.picture)
            return
        latent = self.latents.get(source.digest, partial(self._model.encode, source.picture))
        embeddings = self._embed_prompts(params)
        sampler, query = _start_sampler(params, latent, sigmas)
        shape = (latent.shape[2], latent.shape[3], embeddings[0].sequence.shape[0])
        self._live.append(_LivePicture(ticket, sampler, sigmas, query, embeddings, shape))

    def _embed_prompts(self, params: Img2ImgParams) -> tuple[PromptEmbedding, ...]:
        """Return an embedding for each of a picture's rows: the prompt, and the negative prompt if needed.

        At guidance 1 the negative prompt cancels out, so its row would be wasted; two samplers use it anyway.
        """
        unguided = params.guidance_scale != 1 or params.sampler in NEED_UNGUIDED
        prompts = [params.prompt, params.negative_prompt] if unguided else [params.prompt]
        tokens = self._model.sequence_length(prompts)
        return tuple(
            self.embeddings.get((prompt, tokens), partial(self._model.embed, prompt, tokens))
            for prompt in prompts
        )

    def tick(self) -> None:
        """Step the pictures of one forward, and finish those that took their last step."""
        for cancelled in [live for live in self._live if live.ticket.is_cancelled]:
            self._remove(cancelled)
            self.counters.cancelled += 1
        if not self._live:
            return
        batch = self._next_batch()
        try:
            predictions = self._predict(batch)
        except torch.OutOfMemoryError as error:
            self._shrink_batch(batch, error)
        except Exception as error:  # noqa: BLE001  a broken forward fails its own pictures and no others
            self._fail_live(batch, error)
        else:
            for live, prediction in zip(batch, predictions, strict=True):
                self._advance(live, prediction)

    def _next_batch(self) -> list[_LivePicture]:
        """Return the pictures of the next forward: the oldest ones of the shape that has waited longest.

        So shapes take turns, and within one the first to come is the first to finish: pictures that do
        not fit wait, since stepping more than a forward holds by turns would only delay all of them.
        """
        shape = min((live.shape for live in self._live), key=lambda shape: self._last_tick_of.get(shape, 0))
        self.counters.ticks += 1
        self._last_tick_of[shape] = self.counters.ticks
        room = self._rows_max(shape)
        batch: list[_LivePicture] = []
        for live in self._live:
            # The first always goes in: with room for a single row its two go through one after the other.
            if live.shape == shape and (not batch or live.rows <= room):
                batch.append(live)
                room -= live.rows
        return batch

    def _rows_max(self, shape: Shape) -> int:
        return min(self._limits.rows_of(shape), self.counters.rows_max.get(shape, self._limits.rows))

    def _predict(self, batch: Sequence[_LivePicture]) -> list[Prediction]:
        """Return each picture's prediction; one forward takes all rows, unless memory asks for several."""
        rows = [(live.query, embedding) for live in batch for embedding in live.embeddings]
        rows_max = self._rows_max(batch[0].shape)
        started = time.perf_counter()
        pieces = [self._forward(rows[first : first + rows_max]) for first in range(0, len(rows), rows_max)]
        self.counters.forward_s += time.perf_counter() - started
        velocities = iter(torch.cat(pieces)[:, None])
        return [_prediction(live, [next(velocities) for _ in live.embeddings]) for live in batch]

    def _forward(self, rows: Sequence[tuple[tuple[Tensor, float], PromptEmbedding]]) -> Tensor:
        self.counters.forwards += 1
        self.counters.rows += len(rows)
        x = torch.cat([x for (x, _), _ in rows])
        return self._model.velocity(
            x, [sigma for (_, sigma), _ in rows], [embedding for _, embedding in rows]
        )

    def _advance(self, live: _LivePicture, prediction: Prediction) -> None:
        """Send a sampler its prediction; report the step, or finish the picture if that was the last one."""
        try:
            live.query = live.sampler.send(prediction)
            self._report_step(live, prediction)
        except StopIteration as end:
            self._remove(live)
            self._decode(live.ticket, end.value)
        except Exception as error:  # noqa: BLE001  whatever one picture breaks must not stop the others
            self._fail_live([live], error)

    def _report_step(self, live: _LivePicture, prediction: Prediction) -> None:
        """Report how far down its schedule a picture is, whenever that grows.

        Read off sigma, since samplers make one to three calls a step. The last step is reported by the
        picture itself.
        """
        steps = len(live.sigmas) - 1
        step = min(sum(sigma > live.query[1] for sigma in live.sigmas), steps - 1)
        if live.ticket.on_step is None or step <= live.reported:
            return
        live.reported = step
        preview = self._model.preview(prediction.denoised) if live.ticket.previews else None
        live.ticket.on_step(Step(step, steps, preview))

    def _decode(self, ticket: PictureTicket, latent: Tensor) -> None:
        try:
            if not latent.isfinite().all():
                raise ArithmeticError("the sampler ended on numbers that are not finite")  # noqa: TRY301  one path
            picture = self._model.decode(latent)
        except Exception as error:  # noqa: BLE001  whatever one picture breaks must not stop the others
            self._fail(ticket, error)
        else:
            self.counters.pictures += ticket.complete(picture)

    def _fail(self, ticket: PictureTicket, error: Exception) -> None:
        self.counters.failed += 1
        _log.error("A picture failed", exc_info=error)
        ticket.fail(error)

    def _fail_live(self, batch: Sequence[_LivePicture], error: Exception) -> None:
        for live in batch:
            self._remove(live)
            self._fail(live.ticket, error)

    def _remove(self, removed: _LivePicture) -> None:
        self._live = [live for live in self._live if live is not removed]
        removed.sampler.close()

    def _shrink_batch(self, batch: Sequence[_LivePicture], error: Exception) -> None:
        """Halve the rows of this shape and try again at the next tick; if one row is too much, fail."""
        self.counters.out_of_memory += 1
        if self._model.device.type == "cuda":
            torch.cuda.empty_cache()
        shape = batch[0].shape
        rows = min(sum(live.rows for live in batch), self._rows_max(shape))
        if rows == 1:
            self._fail_live(batch, error)
            return
        self.counters.rows_max[shape] = rows // 2
        _log.warning("Out of memory with %d rows of shape %s; the limit is now %d", rows, shape, rows // 2)

    def cancel_all(self) -> None:
        """Cancel every live picture, so that nobody waits for an engine that has ended."""
        for live in self._live:
            live.ticket.cancel()


def _start_sampler(
    params: Img2ImgParams, latent: Tensor, sigmas: tuple[float, ...]
) -> tuple[SamplerSteps, tuple[Tensor, float]]:
    """Return a picture's sampler and its first query."""
    # Drawn in main memory, so that a seed gives the same noise on every card.
    generator = torch.Generator().manual_seed(params.seed)

    def noise() -> Tensor:
        return torch.randn(latent.shape, generator=generator).to(latent.device)

    x = (1 - sigmas[0]) * latent + sigmas[0] * noise()
    sampler = BY_NAME[params.sampler](x, sigmas, noise)
    return sampler, next(sampler)


def _prediction(live: _LivePicture, velocities: Sequence[Tensor]) -> Prediction:
    """Return a picture's prediction from its rows' velocities: `x - sigma * v`, then guidance.

    The guided one lies `guidance_scale` times as far from the negative prompt's as the prompt's does.
    """
    x, sigma = live.query
    denoised = [x - sigma * velocity for velocity in velocities]
    unguided = denoised[-1]
    scale = live.ticket.params.guidance_scale
    return Prediction(unguided + scale * (denoised[0] - unguided), unguided)
