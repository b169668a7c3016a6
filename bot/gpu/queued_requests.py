"""The queued form of the contract (v2): requests that run in the background, kept in memory for an hour."""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

from bot.clock import Clock
from bot.errors import BotError, JobGone
from bot.gpu.api_keys import UNITS_PER_CREDIT
from bot.gpu.request_runner import AcceptedRequest
from bot.runtime.background import BackgroundTasks

#: Bounds the memory of finished pictures, of which each request has up to four.
REQUESTS_MAX: Final = 256
#: As long as the hosted API keeps them.
KEPT_S: Final = 3600.0

#: What a server without keys reports as left: nothing is counted there.
UNCOUNTED_CREDITS: Final = 1_000_000.0
TOO_LONG: Final = "The picture took too long."


@dataclass(slots=True)
class QueuedRequest:
    """A queued request: its status in the contract's words, and its outcome once there is one."""

    id: str
    key_id: int | None
    queued_s: float
    started_s: float | None = None
    status: str = "QUEUED"
    error: str = ""
    outputs: list[bytes] = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)
    #: Another secret than the id: whoever has a picture's address may see it, but not the request.
    output_id: str = field(default_factory=lambda: secrets.token_urlsafe(24))


class QueuedRequests:
    """Queued requests by id. Finished ones are dropped after an hour, or when newer ones need the room."""

    def __init__(self, finish: Callable[[AcceptedRequest], Awaitable[list[bytes]]], clock: Clock) -> None:
        self._finish = finish
        self._clock = clock
        self._requests: OrderedDict[str, QueuedRequest] = OrderedDict()
        self._tasks = BackgroundTasks()

    def start(self, accepted: AcceptedRequest, key_id: int | None) -> QueuedRequest:
        """Finish an accepted request in the background, and return what is known of it so far."""
        queued = QueuedRequest(accepted.id, key_id, self._clock.now())
        self.add(queued)
        self._tasks.spawn(self._run(accepted, queued), name=f"queued request {queued.id}")
        return queued

    async def close(self) -> None:
        """Cancel the requests that still run, and wait until their charges are refunded."""
        await self._tasks.cancel()

    def add(self, queued: QueuedRequest) -> None:
        """Store a request, and drop the finished ones that are too old or too many."""
        old_s = self._clock.now() - KEPT_S
        ended = [kept for kept in self._requests.values() if kept.status in {"COMPLETED", "FAILED"}]
        surplus = len(ended) + 1 - REQUESTS_MAX
        for index, kept in enumerate(ended):
            if kept.queued_s < old_s or index < surplus:
                del self._requests[kept.id]
        self._requests[queued.id] = queued

    def find(self, request_id: str, *, key_id: int | None) -> QueuedRequest:
        """Return a request of the key `key_id`. Raises `JobGone`, for another key's request too."""
        queued = self._requests.get(request_id)
        if queued is None or queued.key_id != key_id or self._is_old(queued):
            raise JobGone("There is no such request, or it is over an hour old.")
        return queued

    def output(self, output_id: str, index: int) -> bytes:
        """Return a picture by its address. Raises `JobGone` if there is none."""
        for queued in self._requests.values():
            # Compared in constant time, so that the address can't be guessed letter by letter.
            found = secrets.compare_digest(queued.output_id.encode(), output_id.encode())
            if found and index < len(queued.outputs) and not self._is_old(queued):
                return queued.outputs[index]
        raise JobGone("There is no such picture, or it is over an hour old.")

    def _is_old(self, queued: QueuedRequest) -> bool:
        return queued.queued_s < self._clock.now() - KEPT_S

    async def _run(self, accepted: AcceptedRequest, queued: QueuedRequest) -> None:
        first_step = self._tasks.spawn(
            self._note_first_step(accepted, queued), name=f"first step of {queued.id}"
        )
        try:
            queued.outputs = await self._finish(accepted)
        except (BotError, TimeoutError) as error:
            queued.status, queued.error = "FAILED", str(error) or TOO_LONG
        else:
            queued.metrics = self._measure(accepted, queued)
            queued.status = "COMPLETED"
        finally:
            first_step.cancel()

    async def _note_first_step(self, accepted: AcceptedRequest, queued: QueuedRequest) -> None:
        if await accepted.steps.next() is not None and queued.status == "QUEUED":
            queued.status, queued.started_s = "PROCESSING", self._clock.now()

    def _measure(self, accepted: AcceptedRequest, queued: QueuedRequest) -> dict[str, float]:
        now_s = self._clock.now()
        started_s = queued.started_s or queued.queued_s
        charge = accepted.charge
        return {
            "cost": charge.units / UNITS_PER_CREDIT if charge else 0.0,
            "remaining_credits": charge.units_left / UNITS_PER_CREDIT if charge else UNCOUNTED_CREDITS,
            "inference_time": round(now_s - started_s, 3),
            "queue_time": round(started_s - queued.queued_s, 3),
            "total_time": round(now_s - queued.queued_s, 3),
            "retry_count": 0,
        }
