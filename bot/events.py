"""Announcements: what happened to a job, for whoever listens.

`bot/` announces and never calls a cog. Listeners are plain functions on the event
loop; one that has more to do starts a task of its own.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from bot.backends.base import Progress

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class JobQueued:
    """A job waits: a new one, or one taken up once more."""

    job_id: int
    is_new: bool


@dataclass(frozen=True, slots=True)
class JobStarted:
    """A backend is at work on the job, usually for `job_s` seconds; those behind it moved up."""

    job_id: int
    can_cancel: bool
    job_s: float


@dataclass(frozen=True, slots=True)
class JobProgressed:
    """The backend came a step further."""

    job_id: int
    progress: Progress


@dataclass(frozen=True, slots=True)
class JobRendered:
    """The pictures are stored and paid: they can be posted."""

    job_id: int


@dataclass(frozen=True, slots=True)
class InputRefused:
    """The member's picture is of no use: only he is told, and the card goes."""

    job_id: int
    sentence: str


@dataclass(frozen=True, slots=True)
class JobFailed:
    """No picture came of it, and it cost nothing."""

    job_id: int


@dataclass(frozen=True, slots=True)
class JobCancelled:
    """Its requester or a moderator stopped it."""

    job_id: int


@dataclass(frozen=True, slots=True)
class BotStopping:
    """The bot stops; these jobs go on after its restart."""

    job_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class OperatorAlert:
    """Something that the operator must mend, in a sentence."""

    sentence: str


@dataclass(frozen=True, slots=True)
class QueuePaused:
    """No backend takes jobs for want of the operator's credits: those who wait should know."""


@dataclass(frozen=True, slots=True)
class QueueResumed:
    """The credits are back, and jobs go on."""


@dataclass(frozen=True, slots=True)
class TrailGrew:
    """Something was put on a server's trail that its log channel may want."""

    guild_id: int


Event = (
    JobQueued
    | JobStarted
    | JobProgressed
    | JobRendered
    | InputRefused
    | JobFailed
    | JobCancelled
    | BotStopping
    | OperatorAlert
    | QueuePaused
    | QueueResumed
    | TrailGrew
)
Listener = Callable[[Event], None]


class Events:
    """Hands each announcement to every listener, in the order they came."""

    def __init__(self) -> None:
        self._listeners: list[Listener] = []

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Add a listener; call what is returned to take it off again."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def emit(self, event: Event) -> None:
        """Tell everyone. A listener that breaks is logged and keeps nobody else from hearing."""
        for listener in tuple(self._listeners):
            try:
                listener(event)
            except Exception:
                log.exception("A listener failed on %s", type(event).__name__)
