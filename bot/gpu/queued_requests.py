"""Queued requests and their outcomes, kept for an hour in memory."""

from __future__ import annotations

import secrets
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

from bot.clock import Clock
from bot.errors import JobGone

RECORDS_MAX: Final = 256
RECORD_KEPT_S: Final = 3600.0


@dataclass(slots=True)
class Record:
    """A queued request: its state, and its outcome once there is one."""

    id: str
    owner: int | None
    queued_s: float
    begun_s: float | None = None
    status: str = "QUEUED"
    error: str = ""
    outputs: list[bytes] = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)
    #: Another secret than the id, since whoever has the address of a picture may see it.
    output_id: str = field(default_factory=lambda: secrets.token_urlsafe(24))


class Records:
    """The records by id. Those that ended are let go after an hour, or when newer ones need the room."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._kept: OrderedDict[str, Record] = OrderedDict()

    def add(self, record: Record) -> None:
        """Keep a record, and let the oldest go that nobody may ask for any more."""
        old_s = self._clock.now() - RECORD_KEPT_S
        ended = [kept for kept in self._kept.values() if kept.status in {"COMPLETED", "FAILED"}]
        surplus = len(ended) + 1 - RECORDS_MAX
        for place, kept in enumerate(ended):
            if kept.queued_s < old_s or place < surplus:
                del self._kept[kept.id]
        self._kept[record.id] = record

    def find(self, request_id: str, *, owner: int | None) -> Record:
        """Return a record of `owner`. Raises `JobGone` for another's as for none."""
        record = self._kept.get(request_id)
        if record is None or record.owner != owner or self._is_old(record):
            raise JobGone("There is no such request, or it is over an hour old.")
        return record

    def output(self, output_id: str, index: int) -> bytes:
        """Return a picture by its address. Raises `JobGone` if there is none."""
        for record in self._kept.values():
            here = secrets.compare_digest(record.output_id.encode(), output_id.encode())
            if here and index < len(record.outputs) and not self._is_old(record):
                return record.outputs[index]
        raise JobGone("There is no such picture, or it is over an hour old.")

    def _is_old(self, record: Record) -> bool:
        return record.queued_s < self._clock.now() - RECORD_KEPT_S
