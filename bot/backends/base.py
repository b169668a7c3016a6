"""The interface between the bot and whatever makes pictures.

A backend knows neither Discord nor the database. It takes options and one
normalised picture (RGB JPEG, both sides multiples of 16, at most 2048) and
returns pictures, or raises a `BackendError`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from bot.params import Img2ImgParams


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a job is: `step` of `steps`, with a small JPEG preview if there is one."""

    step: int
    steps: int
    preview: bytes | None = None


OnProgress = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture as the backend returned it (encoded bytes, untrusted) and the seed that made it.

    `index` is the sample's position in the request, from 0.
    """

    index: int
    seed: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Generation:
    """The result of a call: at least one picture, at most `params.samples`, ordered by `index`.

    Missing pictures failed and are not charged. `remaining_credits` is the
    operator's balance at the provider, None if it wasn't reported.
    """

    pictures: tuple[Picture, ...]
    remaining_credits: float | None = None


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What the rest of the bot may expect of a backend.

    Attributes:
        label: The backend's name on cards.
        uses_model: False if no model makes the picture, which cards must say.
        can_cancel: Whether a running call can be stopped at no cost.
        concurrency_max: How many jobs may run at once.
        typical_s: Estimated seconds per job, used until the bot has measured some.
    """

    label: str
    uses_model: bool
    can_cancel: bool
    concurrency_max: int
    typical_s: float


@runtime_checkable
class ReportsBalance(Protocol):
    """A backend that can report the operator's credits at no cost."""

    async def balance(self) -> float:
        """Return the operator's credits at the provider. Raises `BackendError`."""
        ...


class Backend(Protocol):
    """A service or program that turns one picture into another."""

    name: str
    capabilities: Capabilities

    async def generate(self, params: Img2ImgParams, image: bytes, on_progress: OnProgress) -> Generation:
        """Make `params.samples` pictures from `image` (normalised JPEG bytes).

        `on_progress` is called on the event loop. Cancelling the task stops the
        work if the backend can do that. Raises `BackendError`.
        """
        ...

    async def check(self) -> str:
        """Return one sentence that says the backend works, or raise a `BackendError` with the problem."""
        ...

    async def aclose(self) -> None:
        """Close connections and end child processes."""
        ...
