"""One requested picture: the ticket that its requester waits on, and the steps reported on the way."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TypeAlias

from torch import Tensor

from bot.errors import BackendFailed
from bot.params import Img2ImgParams


@dataclass(frozen=True, slots=True)
class Step:
    """How far a picture has come: `step` of `steps`, with a small preview [h, w, 3] if one was asked for."""

    step: int
    steps: int
    preview: Tensor | None


OnStep: TypeAlias = Callable[[Step], None]


@dataclass(frozen=True, slots=True)
class SourcePicture:
    """An input picture, bytes [height, width, 3], and the digest that its latent is cached by."""

    picture: Tensor
    digest: str

    @classmethod
    def of(cls, picture: Tensor) -> SourcePicture:
        """Return `picture` with its digest, which covers the shape too: equal bytes can differ in shape."""
        shape = repr(tuple(picture.shape)).encode()
        return cls(picture, hashlib.sha256(shape + picture.numpy().tobytes()).hexdigest())


class PictureTicket:
    """One requested picture. Any thread may wait for `result` or cancel; the engine's thread ends it."""

    def __init__(
        self, params: Img2ImgParams, source: SourcePicture, on_step: OnStep | None, *, previews: bool
    ) -> None:
        self.params = params
        self.source = source
        self.previews = previews
        self.on_step = on_step
        #: The finished picture, bytes [height, width, 3].
        self.result: Future[Tensor] = Future()
        self._cancelled = threading.Event()

    @property
    def is_cancelled(self) -> bool:
        """Whether nobody waits for the picture any more."""
        return self._cancelled.is_set()

    def cancel(self) -> None:
        """Stop waiting for the picture; the engine drops it at its next tick."""
        self._cancelled.set()
        self.result.cancel()

    def complete(self, picture: Tensor) -> bool:
        """Hand over the picture; return False if the ticket was cancelled before."""
        if not self.result.set_running_or_notify_cancel():
            return False
        self.result.set_result(picture)
        return True

    def fail(self, error: Exception) -> None:
        """End the ticket with a `BackendFailed` caused by `error`, unless it was cancelled before."""
        if self.result.set_running_or_notify_cancel():
            failure = BackendFailed(detail=f"{type(error).__name__}: {error}")
            failure.__cause__ = error
            self.result.set_exception(failure)
