"""The engine: takes pictures to make from any thread, and makes them on a thread of its own."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from typing import Final

from torch import Tensor

from bot.errors import QueueFull
from bot.gpu.continuous_batch import ContinuousBatch, EngineLimits
from bot.gpu.model import Model
from bot.gpu.sd3_architecture import PATCH_PX
from bot.gpu.tickets import OnStep, PictureTicket, SourcePicture
from bot.params import Img2ImgParams

#: Encoding a prompt and a picture holds up the live pictures, so only a few join at each tick.
_ADMISSIONS_PER_TICK: Final = 4


class Engine:
    """A queue of tickets and the thread that makes them; nothing else may touch the model."""

    def __init__(self, model: Model, limits: EngineLimits | None = None) -> None:
        self.limits = limits or EngineLimits()
        self._batch = ContinuousBatch(model, self.limits)
        self.counters = self._batch.counters
        self.embeddings = self._batch.embeddings
        self.latents = self._batch.latents
        self._waiting: deque[PictureTicket] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    @property
    def load(self) -> tuple[int, int]:
        """How many pictures are being made, and how many wait."""
        return len(self._batch), len(self._waiting)

    @property
    def alive(self) -> bool:
        """Whether the engine still takes tickets."""
        return self._thread.is_alive() and not self._closing

    def submit(
        self,
        params: Img2ImgParams,
        picture: Tensor,
        on_step: OnStep | None = None,
        *,
        previews: bool = False,
    ) -> PictureTicket:
        """Ask for one picture (sample 0 of `params`) from `picture`, bytes [height, width, 3].

        Both sides must be multiples of 16. `on_step` is called on the engine's thread and must
        return at once. Raises `QueueFull` when too many wait.
        """
        return self.submit_all([params], picture, on_step, previews=previews)[0]

    def submit_all(
        self,
        samples: Sequence[Img2ImgParams],
        picture: Tensor,
        on_step: OnStep | None = None,
        *,
        previews: bool = False,
    ) -> list[PictureTicket]:
        """Ask for several pictures from one: all of them, or `QueueFull` and none.

        Only the first one's steps are reported: samples run side by side, so it stands for all of them.
        """
        height, width, _ = picture.shape
        if height % PATCH_PX or width % PATCH_PX:
            raise ValueError(f"{width} x {height}: both sides must be multiples of {PATCH_PX}")
        source = SourcePicture.of(picture)
        tickets = [PictureTicket(samples[0], source, on_step, previews=previews)]
        tickets += [PictureTicket(params, source, None, previews=False) for params in samples[1:]]
        with self._changed:
            self._drop_cancelled()
            if self._closing or len(self._waiting) + len(tickets) > self.limits.waiting:
                raise QueueFull
            self._waiting.extend(tickets)
            self._changed.notify()
        return tickets

    def close(self) -> None:
        """Cancel all that is not finished and end the thread."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        try:
            while self._wait_for_work():
                for _ in range(_ADMISSIONS_PER_TICK):
                    self._admit()
                self._batch.tick()
        finally:
            # However the thread ends, nobody is left waiting.
            with self._changed:
                self._closing = True
            for ticket in self._waiting:
                ticket.cancel()
            self._batch.cancel_all()

    def _wait_for_work(self) -> bool:
        """Wait until there is something to do; return False when it is time to end."""
        with self._changed:
            self._changed.wait_for(lambda: self._closing or self._waiting or len(self._batch))
            return not self._closing

    def _admit(self) -> None:
        """Let the picture that has waited longest join the batch, if there is room."""
        with self._changed:
            self._drop_cancelled()
            if not self._waiting or len(self._batch) >= self.limits.live:
                return
            ticket = self._waiting.popleft()
        self._batch.add(ticket)

    def _drop_cancelled(self) -> None:
        wanted = [ticket for ticket in self._waiting if not ticket.is_cancelled]
        self.counters.cancelled += len(self._waiting) - len(wanted)
        self._waiting = deque(wanted)
