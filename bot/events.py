"""Events: what happened to a job, for whoever listens.

`bot/` emits events and never calls a cog. Listeners are plain functions on the event
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
    """A job waits: a new one, or one that was put back."""

    job_id: int
    is_new: bool


@dataclass(frozen=True, slots=True)
class JobStarted:
    """A backend works on the job, usually for `job_s` seconds; the jobs behind it moved up."""

    job_id: int
    can_cancel: bool
    job_s: float


@dataclass(frozen=True, slots=True)
class JobProgressed:
    """The backend reported a step."""

    job_id: int
    progress: Progress


@dataclass(frozen=True, slots=True)
class JobRendered:
    """The pictures are stored and paid: they can be posted."""

    job_id: int


@dataclass(frozen=True, slots=True)
class InputRefused:
    """The member's picture can't be used: its card is removed and only they see why."""

    job_id: int
    sentence: str


@dataclass(frozen=True, slots=True)
class JobFailed:
    """No picture was made, and it cost nothing."""

    job_id: int


@dataclass(frozen=True, slots=True)
class JobCancelled:
    """Its requester or a moderator stopped it."""

    job_id: int


@dataclass(frozen=True, slots=True)
class BotStopping:
    """The bot is stopping; these jobs continue after the restart.

    It comes first for the jobs that wait, then for those that were cut off or put back since.
    """

    job_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class OperatorAlert:
    """Something that the operator has to fix, in one sentence."""

    sentence: str


@dataclass(frozen=True, slots=True)
class QueuePaused:
    """The operator's credits are used up and no backend takes jobs: waiting cards should say so."""


@dataclass(frozen=True, slots=True)
class QueueResumed:
    """The operator's credits were topped up; jobs go on."""


@dataclass(frozen=True, slots=True)
class AuditLogGrew:
    """A server's audit log has a new entry, which its log channel may want."""

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
    | AuditLogGrew
)
Listener = Callable[[Event], None]


class Events:
    """Hands each event to every listener, in order."""

    def __init__(self) -> None:
        self._listeners: list[Listener] = []

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Add a listener; call what is returned to remove it."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def emit(self, event: Event) -> None:
        """Call every listener. An error of one is logged and doesn't stop the others."""
        for listener in tuple(self._listeners):
            try:
                listener(event)
            except Exception:
                log.exception("A listener failed on %s", type(event).__name__)
