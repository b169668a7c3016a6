"""The seam between the bot and whatever makes pictures.

A backend knows neither Discord nor the database. It gets options and one
normalised picture (RGB JPEG, both sides multiples of 16, at most 2048) and
gives pictures back, or raises a `BackendError`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from bot.params import Img2ImgParams


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a job has come: `step` of `steps`, with a small JPEG preview where there is one."""

    step: int
    steps: int
    preview: bytes | None = None


OnProgress = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture as the backend gave it (encoded bytes, untrusted) and the seed that made it.

    `index` is the sample's place in the request, from 0.
    """

    index: int
    seed: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Generation:
    """What a call made: at least one picture, at most `params.samples`, in the order of `index`.

    Fewer than asked means that the others failed; they are not charged.
    `remaining_credits` is the operator's balance at the provider, where it told.
    """

    pictures: tuple[Picture, ...]
    remaining_credits: float | None = None


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What the rest of the bot may expect of a backend.

    `label` is its name on cards; `uses_model` is False where no model makes the
    picture, which cards must say; `can_cancel` tells that a running call can be
    stopped without cost; `concurrency_max` bounds jobs at once; `typical_s` is a
    first guess at the seconds one job takes, until the bot has measured some.
    """

    label: str
    uses_model: bool
    reports_progress: bool
    can_cancel: bool
    concurrency_max: int
    typical_s: float


@runtime_checkable
class TellsBalance(Protocol):
    """A backend that can be asked for the operator's credits at no cost."""

    async def balance(self) -> float:
        """Return the operator's credits at the provider. Raises `BackendError`."""
        ...


class Backend(Protocol):
    """Whatever turns one picture into another."""

    name: str
    capabilities: Capabilities

    async def generate(self, params: Img2ImgParams, image: bytes, on_progress: OnProgress) -> Generation:
        """Make `params.samples` pictures from `image` (normalised JPEG bytes).

        `on_progress` is called on the event loop. Raises `BackendError`; cancelling the
        task stops the work as far as the backend can.
        """
        ...

    async def check(self) -> str:
        """Return one sentence of good health, or raise a `BackendError` that says what is wrong."""
        ...

    async def aclose(self) -> None:
        """Give back connections and children."""
        ...
