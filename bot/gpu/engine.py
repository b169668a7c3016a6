"""One thread that steps all live pictures together: whatever they ask for, one forward serves many.

A picture is a sampler that waits for its next guess. Each tick takes as many of them as one
batch holds, of one latent size and one text length, oldest first; asks the model once; and
sends each its guess. A picture may join at any tick and leave at any tick, so nobody waits for
another's last step, and progress, previews and cancelling need nothing more.

A picture never depends on who shared its batch, but for rounding: its noise comes from its own
generator, in main memory, and every row has its own sigma and its own words.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Generic, TypeVar

import torch
from torch import Tensor

from bot.errors import BackendFailed, QueueFull
from bot.gpu.model import Model, Words
from bot.gpu.samplers import BY_NAME, NEED_UNGUIDED, Guess, Steps
from bot.gpu.schedules import sigmas_of
from bot.gpu.sd3_architecture import PATCH_PX
from bot.params import Img2ImgParams

_log = logging.getLogger(__name__)

Shape = tuple[int, int, int]
Value = TypeVar("Value")

#: Reading a prompt and a picture holds up those in the making: only a few a tick.
_ADMITTED_A_TICK: Final = 4


@dataclass(frozen=True, slots=True)
class Step:
    """How far a picture has come: `step` of `steps`, with a small preview [h, w, 3] if asked for."""

    step: int
    steps: int
    preview: Tensor | None


@dataclass(frozen=True, slots=True)
class Limits:
    """What the engine holds at most.

    `rows` rows in one forward (a picture takes two, or one at guidance 1) and `cells` latent cells over
    all of them, one for 8 x 8 pixels: past some number of cells a card gains nothing from more rows.
    `live` pictures in the making at once, `waiting` ones before new ones are refused, and entries of
    its two caches.
    """

    rows: int = 64
    cells: int = 16 * 128 * 128
    live: int = 32
    waiting: int = 128
    words_cached: int = 128
    latents_cached: int = 64

    def rows_of(self, shape: Shape) -> int:
        """Return how many rows of one shape go into one forward."""
        return max(1, min(self.rows, self.cells // (shape[0] * shape[1])))


class Cache(Generic[Value]):
    """A mapping that forgets what was used longest ago."""

    def __init__(self, size_max: int) -> None:
        self._kept: OrderedDict[Hashable, Value] = OrderedDict()
        self._size_max = size_max
        self.hits = 0
        self.misses = 0

    def get(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """Return what is kept under `key`, made and kept first if need be."""
        if key in self._kept:
            self.hits += 1
            self._kept.move_to_end(key)
            return self._kept[key]
        self.misses += 1
        value = self._kept[key] = make()
        while len(self._kept) > self._size_max:
            self._kept.popitem(last=False)
        return value


@dataclass(frozen=True, slots=True)
class _Source:
    """An input picture, bytes [height, width, 3], and the digest that it is cached by."""

    picture: Tensor
    digest: str


class Ticket:
    """One picture asked for: its result, and the way to give it up."""

    def __init__(
        self,
        params: Img2ImgParams,
        source: _Source,
        on_step: Callable[[Step], None] | None,
        *,
        previews: bool,
    ) -> None:
        self.params = params
        self.source = source
        self.previews = previews
        self.on_step = on_step
        #: The finished picture [height, width, 3] of bytes.
        self.result: Future[Tensor] = Future()
        self._given_up = threading.Event()

    def cancel(self) -> None:
        """Give the picture up; it leaves at the next tick."""
        self._given_up.set()
        self.result.cancel()

    @property
    def given_up(self) -> bool:
        """Whether nobody waits for it any more."""
        return self._given_up.is_set()


@dataclass(slots=True)
class _Live:
    """A picture in the making: what its sampler asked last, and whose words it has."""

    ticket: Ticket
    sampler: Steps
    sigmas: tuple[float, ...]
    asked: tuple[Tensor, float]
    words: tuple[Words, ...]
    shape: Shape
    done: int = 0

    @property
    def rows(self) -> int:
        return len(self.words)


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
    rows_max: dict[Shape, int] = field(default_factory=dict)


class Engine:
    """Takes tickets from any thread; a thread of its own does all that touches the model."""

    def __init__(self, model: Model, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self.counters = Counters()
        self.words: Cache[Words] = Cache(self.limits.words_cached)
        self.latents: Cache[Tensor] = Cache(self.limits.latents_cached)
        self._model = model
        self._waiting: deque[Ticket] = deque()
        self._live: list[_Live] = []
        self._served: dict[Shape, int] = {}
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    @property
    def load(self) -> tuple[int, int]:
        """How many pictures are in the making, and how many wait."""
        return len(self._live), len(self._waiting)

    @property
    def alive(self) -> bool:
        """Whether the engine still takes tickets."""
        return self._thread.is_alive() and not self._closing

    def submit(
        self,
        params: Img2ImgParams,
        picture: Tensor,
        on_step: Callable[[Step], None] | None = None,
        *,
        previews: bool = False,
    ) -> Ticket:
        """Ask for one picture (sample 0 of `params`) from `picture`, bytes [height, width, 3].

        Both sides must be multiples of 16. `on_step` is called on the engine's thread and must
        return at once. Raises `QueueFull` when too many wait.
        """
        return self.submit_all([params], picture, on_step, previews=previews)[0]

    def submit_all(
        self,
        orders: Sequence[Img2ImgParams],
        picture: Tensor,
        on_step: Callable[[Step], None] | None = None,
        *,
        previews: bool = False,
    ) -> list[Ticket]:
        """Ask for several pictures from one: all of them, or `QueueFull` and none.

        `on_step` and `previews` follow the first alone.
        """
        height, width, _ = picture.shape
        if height % PATCH_PX or width % PATCH_PX:
            raise ValueError(f"{width} x {height}: both sides must be multiples of {PATCH_PX}")
        source = _Source(picture, _digest(picture))
        followers = [(on_step, previews), *[(None, False)] * (len(orders) - 1)]
        tickets = [
            Ticket(params, source, follower, previews=shown)
            for params, (follower, shown) in zip(orders, followers, strict=True)
        ]
        with self._changed:
            self._forget_given_up()
            if self._closing or len(self._waiting) + len(tickets) > self.limits.waiting:
                raise QueueFull
            self._waiting.extend(tickets)
            self._changed.notify()
        return tickets

    def close(self) -> None:
        """Give up what is in the making and end the thread."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        try:
            while self._wait():
                for _ in range(_ADMITTED_A_TICK):
                    self._admit()
                self._tick()
        finally:
            # However the thread ends, nobody is left waiting.
            with self._changed:
                self._closing = True
            for ticket in [*self._waiting, *(live.ticket for live in self._live)]:
                ticket.cancel()

    def _wait(self) -> bool:
        """Wait for something to do; return False when it is time to end."""
        with self._changed:
            self._changed.wait_for(lambda: self._closing or self._waiting or self._live)
            return not self._closing

    def _admit(self) -> None:
        """Let the picture in that waits longest, if there is room."""
        with self._changed:
            self._forget_given_up()
            if not self._waiting or len(self._live) >= self.limits.live:
                return
            ticket = self._waiting.popleft()
        try:
            self._begin(ticket)
        except Exception as error:  # noqa: BLE001  whatever one picture breaks must not stop the others
            self._fail(ticket, error)

    def _forget_given_up(self) -> None:
        still = [ticket for ticket in self._waiting if not ticket.given_up]
        self.counters.cancelled += len(self._waiting) - len(still)
        self._waiting = deque(still)

    def _begin(self, ticket: Ticket) -> None:
        params = ticket.params
        sigmas = sigmas_of(
            scheduler=params.scheduler,
            sampler=params.sampler,
            steps=params.num_inference_steps,
            strength=params.strength,
        )
        if not sigmas:
            self._finish(ticket, ticket.source.picture)
            return
        source = ticket.source
        latent = self.latents.get(source.digest, partial(self._model.encode, source.picture))
        words = self._words(params)
        sampler, asked = _start(params, latent, sigmas)
        shape = (latent.shape[2], latent.shape[3], words[0].sequence.shape[0])
        self._live.append(_Live(ticket, sampler, sigmas, asked, words, shape))

    def _words(self, params: Img2ImgParams) -> tuple[Words, ...]:
        """Return the words of a picture's rows: the prompt's, and the negative's if need be."""
        unguided = params.guidance_scale != 1 or params.sampler in NEED_UNGUIDED
        prompts = [params.prompt, params.negative_prompt] if unguided else [params.prompt]
        tokens = self._model.tokens(prompts)
        return tuple(
            self.words.get((prompt, tokens), partial(self._model.read, prompt, tokens)) for prompt in prompts
        )

    def _tick(self) -> None:
        self._drop_given_up()
        if not self._live:
            return
        batch = self._batch()
        try:
            guesses = self._ask(batch)
        except torch.OutOfMemoryError as error:
            self._out_of_memory(batch, error)
        except Exception as error:  # noqa: BLE001  a broken forward fails its own pictures alone
            for live in batch:
                self._leave(live)
                self._fail(live.ticket, error)
        else:
            for live, guess in zip(batch, guesses, strict=True):
                self._send(live, guess)

    def _drop_given_up(self) -> None:
        for live in [live for live in self._live if live.ticket.given_up]:
            self._leave(live)
            self.counters.cancelled += 1

    def _batch(self) -> list[_Live]:
        """Return the pictures of the next forward: of the shape that was served longest ago, the oldest.

        So every shape has its turn, and within one who came first is finished first: what does not fit
        waits, since stepping more pictures than a batch holds would only make all of them late.
        """
        shape = min((live.shape for live in self._live), key=lambda shape: self._served.get(shape, 0))
        self._served[shape] = self.counters.ticks = self.counters.ticks + 1
        room = self._rows_max(shape)
        batch: list[_Live] = []
        for live in self._live:
            if live.shape == shape and (not batch or live.rows <= room):
                batch.append(live)
                room -= live.rows
        return batch

    def _rows_max(self, shape: Shape) -> int:
        return min(self.limits.rows_of(shape), self.counters.rows_max.get(shape, self.limits.rows))

    def _ask(self, batch: Sequence[_Live]) -> list[Guess]:
        """Return each picture's guess from one forward over all their rows, split only where memory asks."""
        rows = [(live.asked, words) for live in batch for words in live.words]
        most = self._rows_max(batch[0].shape)
        started = time.perf_counter()
        pieces = [self._forward(rows[first : first + most]) for first in range(0, len(rows), most)]
        self.counters.forward_s += time.perf_counter() - started
        velocities = iter(torch.cat(pieces)[:, None])
        return [_guess(live, [next(velocities) for _ in live.words]) for live in batch]

    def _forward(self, rows: Sequence[tuple[tuple[Tensor, float], Words]]) -> Tensor:
        self.counters.forwards += 1
        self.counters.rows += len(rows)
        x = torch.cat([x for (x, _), _ in rows])
        return self._model.velocity(x, [sigma for (_, sigma), _ in rows], [words for _, words in rows])

    def _send(self, live: _Live, guess: Guess) -> None:
        """Send a picture its guess, tell how far it is, and finish it if that was its last step."""
        try:
            live.asked = live.sampler.send(guess)
            self._tell(live, guess)
        except StopIteration as end:
            self._leave(live)
            self._deliver(live.ticket, end.value)
        except Exception as error:  # noqa: BLE001  whatever one picture breaks must not stop the others
            self._leave(live)
            self._fail(live.ticket, error)

    def _tell(self, live: _Live, guess: Guess) -> None:
        """Tell how far down its schedule a picture's next question is; the end tells itself."""
        steps = len(live.sigmas) - 1
        done = min(sum(start > live.asked[1] for start in live.sigmas), steps - 1)
        if live.ticket.on_step is None or done <= live.done:
            return
        live.done = done
        preview = self._model.sketch(guess.denoised) if live.ticket.previews else None
        live.ticket.on_step(Step(done, steps, preview))

    def _deliver(self, ticket: Ticket, latent: Tensor) -> None:
        try:
            if not latent.isfinite().all():
                raise ArithmeticError("the sampler ended on numbers that are not finite")  # noqa: TRY301  one path
            picture = self._model.decode(latent)
        except Exception as error:  # noqa: BLE001  whatever one picture breaks must not stop the others
            self._fail(ticket, error)
        else:
            self._finish(ticket, picture)

    def _finish(self, ticket: Ticket, picture: Tensor) -> None:
        if ticket.result.set_running_or_notify_cancel():
            self.counters.pictures += 1
            ticket.result.set_result(picture)

    def _fail(self, ticket: Ticket, error: Exception) -> None:
        self.counters.failed += 1
        _log.error("a picture failed", exc_info=error)
        if ticket.result.set_running_or_notify_cancel():
            failure = BackendFailed(detail=f"{type(error).__name__}: {error}")
            failure.__cause__ = error
            ticket.result.set_exception(failure)

    def _leave(self, live: _Live) -> None:
        self._live = [other for other in self._live if other is not live]
        live.sampler.close()

    def _out_of_memory(self, batch: Sequence[_Live], error: Exception) -> None:
        """Halve the batch for this shape; where a single row is too much, its pictures fail."""
        self.counters.out_of_memory += 1
        if self._model.device.type == "cuda":
            torch.cuda.empty_cache()
        rows = min(sum(live.rows for live in batch), self._rows_max(batch[0].shape))
        if rows > 1:
            self.counters.rows_max[batch[0].shape] = rows // 2
            _log.warning("out of memory with %d rows of %s: now at most %d", rows, batch[0].shape, rows // 2)
            return
        for live in batch:
            self._leave(live)
            self._fail(live.ticket, error)


def _digest(picture: Tensor) -> str:
    return hashlib.sha256(repr(tuple(picture.shape)).encode() + picture.numpy().tobytes()).hexdigest()


def _start(
    params: Img2ImgParams, latent: Tensor, sigmas: tuple[float, ...]
) -> tuple[Steps, tuple[Tensor, float]]:
    """Return a picture's sampler and the first thing that it asks."""
    generator = torch.Generator().manual_seed(params.seed)

    def noise() -> Tensor:
        return torch.randn(latent.shape, generator=generator).to(latent.device)

    x = (1 - sigmas[0]) * latent + sigmas[0] * noise()
    sampler = BY_NAME[params.sampler](x, sigmas, noise)
    return sampler, next(sampler)


def _guess(live: _Live, velocities: Sequence[Tensor]) -> Guess:
    """Return a picture's guess from its rows' velocities: `x - sigma * v`, guided by how the rows differ."""
    x, sigma = live.asked
    denoised = [x - sigma * velocity for velocity in velocities]
    unguided = denoised[-1]
    scale = live.ticket.params.guidance_scale
    return Guess(unguided + scale * (denoised[0] - unguided), unguided)
