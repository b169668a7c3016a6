"""One accepted request, from its charge to its pictures: charge, engine, settle."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass
from typing import Final

from bot.clock import Clock
from bot.errors import Paused
from bot.gpu import picture_files
from bot.gpu.api_keys import UNITS_PER_CREDIT, ApiKeys, Charge
from bot.gpu.engine import Engine
from bot.gpu.metrics import RequestMetrics
from bot.gpu.request_body import GenerationRequest
from bot.gpu.streaming import StepFeed
from bot.gpu.tickets import PictureTicket

#: As long as the vendor's SDK polls for a picture.
REQUEST_TIMEOUT_S: Final = 600.0

_CLOSING: Final = "The server is closing; please try again in a minute."


@dataclass(slots=True)
class AcceptedRequest:
    """A request that the engine has taken: its charge (None without keys), its tickets, its steps."""

    id: str
    request: GenerationRequest
    charge: Charge | None
    tickets: list[PictureTicket]
    steps: StepFeed
    accepted_s: float

    @property
    def headers(self) -> dict[str, str]:
        """Return the contract's headers for a picture."""
        headers = {"x-request-id": self.id, "x-seed-value": str(self.request.params.seed)}
        if self.charge is not None:
            headers["x-cost"] = f"{self.charge.units / UNITS_PER_CREDIT:.3f}"
            headers["x-remaining-credits"] = f"{self.charge.units_left / UNITS_PER_CREDIT:.3f}"
        return headers


class RequestRunner:
    """Charges requests, has the engine make their pictures, and settles the charges: only pictures cost."""

    def __init__(self, engine: Engine, keys: ApiKeys, metrics: RequestMetrics, clock: Clock) -> None:
        self._engine = engine
        self._keys = keys
        self._metrics = metrics
        self._clock = clock

    async def accept(
        self, request: GenerationRequest, key_id: int | None, *, previews: bool = False
    ) -> AcceptedRequest:
        """Charge a request and submit it. Raises `NotEnoughCredits`, `QueueFull` or `Paused`."""
        if not self._engine.alive:
            raise Paused(_CLOSING)
        request_id = secrets.token_hex(16)
        charge = None
        if key_id is not None:
            charge = await self._keys.charge(key_id=key_id, request_id=request_id, units=request.units)
        steps = StepFeed()
        samples = [request.params.sample(index) for index in range(request.params.samples)]
        try:
            # A thread, since the picture's digest takes a while.
            tickets = await asyncio.to_thread(
                self._engine.submit_all, samples, request.picture, steps.publish, previews=previews
            )
        except BaseException:
            await self._refund(charge)
            raise
        return AcceptedRequest(request_id, request, charge, tickets, steps, self._clock.now())

    async def finish(self, accepted: AcceptedRequest) -> list[bytes]:
        """Return a request's pictures as JPEG files, and settle its charge.

        Raises `BackendFailed`, `Paused` or `TimeoutError`. Then, and if cancelled, it refunds the charge.
        """
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                pictures = await self._wait_for_pictures(accepted)
        except BaseException as error:
            for ticket in accepted.tickets:
                ticket.cancel()
            await self._refund(accepted.charge)
            self._metrics.count_failed(error)
            raise
        if accepted.charge is not None:
            await asyncio.shield(self._keys.post(accepted.charge))
        self._metrics.count_made(self._clock.now() - accepted.accepted_s)
        return pictures

    async def _wait_for_pictures(self, accepted: AcceptedRequest) -> list[bytes]:
        results = [asyncio.wrap_future(ticket.result) for ticket in accepted.tickets]
        try:
            pictures = await asyncio.gather(*results)
        except asyncio.CancelledError:
            # Either this request was cancelled, or the engine ended and cancelled its tickets.
            if self._engine.alive:
                raise
            raise Paused(_CLOSING) from None
        return [await asyncio.to_thread(picture_files.jpeg, picture) for picture in pictures]

    async def _refund(self, charge: Charge | None) -> None:
        if charge is not None:
            # Shielded: the client's disconnect cancels this task, but not the refund.
            await asyncio.shield(self._keys.refund(charge))
