"""The contract as an ASGI application: v1, v2, the balance, health and metrics.

`POST /v1/sd3-med-img2img` answers when the picture is made, or, to `Accept:
application/x-ndjson`, with one JSON line for each step and a last one with the picture. When a
client disconnects, its work is cancelled. Only pictures that were made are charged.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from bot.clock import Clock, SystemClock
from bot.errors import BotError
from bot.gpu.api_keys import UNITS_PER_CREDIT, ApiKeys
from bot.gpu.engine import Engine
from bot.gpu.key_file import open_keys
from bot.gpu.metrics import RequestMetrics, render
from bot.gpu.queued_requests import TOO_LONG, UNCOUNTED_CREDITS, QueuedRequest, QueuedRequests
from bot.gpu.request_body import BodyReader
from bot.gpu.request_runner import AcceptedRequest, RequestRunner
from bot.gpu.responses import (
    error_response,
    on_crash,
    on_disconnect,
    on_http_error,
    picture_body,
    refusal,
    status_of,
    step_line,
)
from bot.gpu.streaming import NDJSON, JsonLinesResponse, cancel_on_disconnect
from bot.gpu.tickets import Step

_log = logging.getLogger(__name__)

#: The hosted API's name for the model, and so the path here.
SLUG: Final = "sd3-med-img2img"

_UNPROCESSABLE: Final = 422
_GATEWAY_TIMEOUT: Final = 504


@dataclass(frozen=True, slots=True)
class GpuServerSettings:
    """How the application answers.

    `label` names the model; `open_without_keys` lets everybody in while there is no key, which only a
    server on loopback may; `image_hosts` are those that pictures may be fetched from. A stream of lines
    repeats its last step after `heartbeat_s` without a new one, so that clients don't give it up for dead.
    """

    label: str
    open_without_keys: bool = False
    image_hosts: frozenset[str] = frozenset()
    heartbeat_s: float = 10.0


class Server:
    """The routes and what they share. The server owns the engine, and closes it when it ends."""

    def __init__(
        self, engine: Engine, keys_path: Path, settings: GpuServerSettings, clock: Clock | None = None
    ) -> None:
        self._engine = engine
        self._keys_path = keys_path
        self._settings = settings
        self._clock = clock or SystemClock()
        self._metrics = RequestMetrics()
        self._bodies = BodyReader(settings.image_hosts)
        self._keys: ApiKeys
        self._runner: RequestRunner
        self._queued: QueuedRequests

    def app(self) -> Starlette:
        """Return the ASGI application."""
        queued = "/v2/requests/{request_id}"
        return Starlette(
            routes=[
                Route(f"/v1/{SLUG}", self.generate, methods=["POST"]),
                Route(f"/v2/{SLUG}", self.queue, methods=["POST"]),
                Route(f"{queued}/status", self.queued_status, methods=["GET"], name="status"),
                Route(queued, self.queued_result, methods=["GET"], name="result"),
                Route("/v2/outputs/{output_id}/{index:int}.jpg", self.output, methods=["GET"], name="output"),
                Route("/v1/get-user-credits", self.balance, methods=["GET"]),
                Route("/health", self.health, methods=["GET"]),
                Route("/metrics", self.metrics, methods=["GET"]),
            ],
            exception_handlers={
                BotError: self._on_bot_error,
                HTTPException: on_http_error,
                ClientDisconnect: on_disconnect,
                Exception: on_crash,
            },
            lifespan=self._lifespan,
        )

    @asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        """Open the keys; at the end cancel the queued requests, then close the engine and the keys."""
        try:
            async with open_keys(self._keys_path, self._clock) as self._keys:
                self._runner = RequestRunner(self._engine, self._keys, self._metrics, self._clock)
                self._queued = QueuedRequests(self._runner.finish, self._clock)
                if orphans := await self._keys.refund_orphans():
                    _log.warning("Refunded %d charges of a server that died", orphans)
                yield
                await self._queued.close()
        finally:
            await asyncio.to_thread(self._engine.close)

    async def _authenticate(self, request: Request) -> int | None:
        """Return the id of the request's key, None where none is needed. Raises `NotAllowed`."""
        if self._settings.open_without_keys and not await self._keys.has_active_key():
            return None
        return await self._keys.authenticate(request.headers.get("x-api-key", ""))

    async def generate(self, request: Request) -> Response:
        """Make a picture and answer with it, or with its steps and then with it."""
        key_id = await self._authenticate(request)
        checked = await self._bodies.read(request)
        stream = NDJSON in request.headers.get("accept", "")
        accepted = await self._runner.accept(checked, key_id, previews=stream)
        if stream:
            return JsonLinesResponse(self._lines(accepted), accepted.headers)
        try:
            pictures = await cancel_on_disconnect(request.receive, self._runner.finish(accepted))
        except TimeoutError:
            return error_response(_GATEWAY_TIMEOUT, TOO_LONG)
        headers = {**accepted.headers, "x-generation-time": f"{self._seconds_since(accepted):.3f}"}
        if checked.as_json:
            return JSONResponse(picture_body(pictures), headers=headers)
        return Response(pictures[0], media_type="image/jpeg", headers=headers)

    def _seconds_since(self, accepted: AcceptedRequest) -> float:
        return self._clock.now() - accepted.accepted_s

    async def _lines(self, accepted: AcceptedRequest) -> AsyncGenerator[dict[str, Any], None]:
        """Yield each step as it is reported, then the pictures, or the error that came instead."""
        finish = asyncio.create_task(self._runner.finish(accepted))
        finish.add_done_callback(lambda _: accepted.steps.close())
        try:
            last = Step(0, accepted.request.params.num_inference_steps, None)
            while not finish.done():
                step = await accepted.steps.next(within_s=self._settings.heartbeat_s)
                if not finish.done():
                    yield step_line(step or last)
                # A heartbeat repeats the numbers, not the preview, which the client has.
                last = replace(step, preview=None) if step else last
            pictures = await finish
        except TimeoutError:
            yield {"error": TOO_LONG}
        except BotError as error:
            yield {"error": str(error), "status": status_of(error)}
        else:
            yield {**picture_body(pictures), "generation_time": round(self._seconds_since(accepted), 3)}
        finally:
            finish.cancel()
            await asyncio.gather(finish, return_exceptions=True)

    async def queue(self, request: Request) -> Response:
        """Accept a request and answer at once with where to ask for its picture."""
        key_id = await self._authenticate(request)
        accepted = await self._runner.accept(await self._bodies.read(request), key_id)
        queued = self._queued.start(accepted, key_id)
        status_url = str(request.url_for("status", request_id=queued.id))
        body = {
            "request_id": queued.id,
            "status": queued.status,
            "poll_url": status_url,
            "status_url": status_url,
            "response_url": str(request.url_for("result", request_id=queued.id)),
        }
        return JSONResponse(body, headers={"x-request-id": queued.id})

    async def _find_queued(self, request: Request) -> QueuedRequest:
        return self._queued.find(request.path_params["request_id"], key_id=await self._authenticate(request))

    async def queued_status(self, request: Request) -> Response:
        """Answer with the status of a queued request."""
        queued = await self._find_queued(request)
        if queued.status == "FAILED":
            return JSONResponse({"status": "FAILED", "error": queued.error}, status_code=_UNPROCESSABLE)
        return JSONResponse({"request_id": queued.id, "status": queued.status})

    async def queued_result(self, request: Request) -> Response:
        """Answer with the address of a queued request's picture, or a list of them if there are several."""
        queued = await self._find_queued(request)
        if queued.status != "COMPLETED":
            return await self.queued_status(request)
        urls = [
            str(request.url_for("output", output_id=queued.output_id, index=index))
            for index in range(len(queued.outputs))
        ]
        output = urls[0] if len(urls) == 1 else urls
        return JSONResponse(
            {"request_id": queued.id, "status": "COMPLETED", "output": output, "metrics": queued.metrics}
        )

    async def output(self, request: Request) -> Response:
        """Answer with a queued request's picture; like the hosted API's files it needs no key."""
        params = request.path_params
        picture = self._queued.output(params["output_id"], params["index"])
        return Response(picture, media_type="image/jpeg")

    async def balance(self, request: Request) -> Response:
        """Answer with the key's balance."""
        key_id = await self._authenticate(request)
        credits_left = UNCOUNTED_CREDITS
        if key_id is not None:
            credits_left = await self._keys.available_units(key_id) / UNITS_PER_CREDIT
        return JSONResponse({"credits": credits_left, "free-credits": 0.0})

    async def health(self, _: Request) -> Response:
        """Answer whether pictures can be made, with which model, and how many are being made or wait."""
        live, waiting = self._engine.load
        alive = self._engine.alive
        body = {
            "status": "ok" if alive else "closing",
            "model": self._settings.label,
            "live": live,
            "waiting": waiting,
        }
        return JSONResponse(body, status_code=200 if alive else 503)

    async def metrics(self, _: Request) -> Response:
        """Answer with metrics in Prometheus' text format."""
        return PlainTextResponse(render(self._metrics, self._engine), media_type="text/plain; version=0.0.4")

    async def _on_bot_error(self, _: Request, error: Exception) -> Response:
        if not isinstance(error, BotError):
            # Starlette calls this for `BotError` alone; its type only says `Exception`.
            raise error
        self._metrics.count_refused(status_of(error))
        return refusal(error, now_s=self._clock.now())
