"""The contract as an ASGI application: v1, v2, the balance, health and metrics.

`POST /v1/sd3-med-img2img` answers when the picture is made, or, to `Accept:
application/x-ndjson`, with one JSON line a step and a last one with the picture. A client
that goes away takes its work along. Only a picture that was made is paid for.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from bot.clock import Clock, SystemClock
from bot.errors import BackendFailed, BotError, InvalidOption, NotAllowed, Paused, QueueFull
from bot.gpu import request_body
from bot.gpu.api_keys import UNITS_A_CREDIT, Charge, Keys, open_keys
from bot.gpu.engine import Engine, Step, Ticket
from bot.gpu.metrics import Meter, rendered
from bot.gpu.queued_requests import Record, Records
from bot.gpu.request_body import SLUG, Order
from bot.gpu.streaming import NDJSON, Follow, Lines, unless_gone

_log = logging.getLogger(__name__)

BODY_TIMEOUT_S: Final = 60.0
JOB_TIMEOUT_S: Final = 600.0
RETRY_AFTER_S: Final = 5

_BODIES_AT_ONCE: Final = 8
_NOT_ACCEPTABLE: Final = 406
_UNPROCESSABLE: Final = 422
_GATEWAY_TIMEOUT: Final = 504
_GONE: Final = 499
_CLOSING: Final = "The server is closing; please try again in a minute."
_TOO_LONG: Final = "The picture took too long."
#: What a server without keys says is left: nothing is counted there.
_UNCOUNTED_CREDITS: Final = 1_000_000.0


@dataclass(frozen=True, slots=True)
class Settings:
    """How the application answers.

    `label` names the model; `open_without_keys` lets everybody in while there is no key, which only a
    server on loopback may; `image_hosts` are those that pictures may be fetched from. A stream of lines
    repeats its last step after `heartbeat_s` without news, so that nobody takes it for dead.
    """

    label: str
    open_without_keys: bool = False
    image_hosts: frozenset[str] = frozenset()
    heartbeat_s: float = 10.0


@dataclass(slots=True)
class Work:
    """One accepted request: what it asks for, what it was charged, its pictures to come."""

    id: str
    order: Order
    charge: Charge | None
    tickets: list[Ticket]
    follow: Follow
    started_s: float

    @property
    def headers(self) -> dict[str, str]:
        """Return what the contract tells beside a picture."""
        told = {"x-request-id": self.id, "x-seed-value": str(self.order.params.seed)}
        if self.charge is not None:
            told["x-cost"] = f"{self.charge.units / UNITS_A_CREDIT:.3f}"
            told["x-remaining-credits"] = f"{self.charge.units_left / UNITS_A_CREDIT:.3f}"
        return told


class Server:
    """The routes' state: the engine, the keys, the queued requests. It closes the engine with itself."""

    def __init__(
        self, engine: Engine, keys_path: Path, settings: Settings, clock: Clock | None = None
    ) -> None:
        self.engine = engine
        self.meter = Meter()
        self._keys_path = keys_path
        self._keys: Keys
        self._settings = settings
        self._clock = clock or SystemClock()
        self._records = Records(self._clock)
        self._tasks: set[asyncio.Task[None]] = set()
        self._bodies = asyncio.Semaphore(_BODIES_AT_ONCE)

    def app(self) -> Starlette:
        """Return the ASGI application."""
        requests = "/v2/requests/{request_id}"
        return Starlette(
            routes=[
                Route(f"/v1/{SLUG}", self.make, methods=["POST"]),
                Route(f"/v2/{SLUG}", self.queue, methods=["POST"]),
                Route(f"{requests}/status", self.queued_status, methods=["GET"], name="status"),
                Route(requests, self.queued_result, methods=["GET"], name="result"),
                Route("/v2/outputs/{output_id}/{index:int}.jpg", self.output, methods=["GET"], name="output"),
                Route("/v1/get-user-credits", self.balance, methods=["GET"]),
                Route("/health", self.health, methods=["GET"]),
                Route("/metrics", self.metrics, methods=["GET"]),
            ],
            exception_handlers={
                BotError: self._refuse,
                HTTPException: _http_error,
                ClientDisconnect: _gone,
                Exception: _broken,
            },
            lifespan=self._lifespan,
        )

    @asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        """Open the keys; at the end give up what is left, then close the engine and the keys."""
        try:
            async with open_keys(self._keys_path, self._clock) as self._keys:
                orphans = await self._keys.refund_orphans()
                if orphans:
                    _log.warning("%d charges of a server that died were given back", orphans)
                yield
                for task in self._tasks:
                    task.cancel()
                await asyncio.gather(*self._tasks, return_exceptions=True)
        finally:
            await asyncio.to_thread(self.engine.close)

    # ---- v1 ---------------------------------------------------------------------------------

    async def make(self, request: Request) -> Response:
        """Make a picture and answer with it, or with its steps and then with it."""
        owner = await self._owner(request)
        order = await self._order(request)
        lines = NDJSON in request.headers.get("accept", "")
        work = await self._accept(order, owner, previews=lines)
        if lines:
            return Lines(self._lines(work), work.headers)
        try:
            pictures = await unless_gone(request.receive, self._finish(work))
        except TimeoutError:
            return _error(_GATEWAY_TIMEOUT, _TOO_LONG)
        return self._answer(work, pictures)

    def _answer(self, work: Work, pictures: Sequence[bytes]) -> Response:
        headers = {**work.headers, "x-generation-time": f"{self._clock.now() - work.started_s:.3f}"}
        if work.order.as_json:
            return JSONResponse(request_body.answer(pictures), headers=headers)
        return Response(pictures[0], media_type="image/jpeg", headers=headers)

    async def _lines(self, work: Work) -> AsyncGenerator[dict[str, Any], None]:
        """Yield each step told, then the answer, or the error that came instead."""
        finish = asyncio.create_task(self._finish(work))
        finish.add_done_callback(lambda _: work.follow.end())
        try:
            last = Step(0, work.order.params.num_inference_steps, None)
            while not finish.done():
                step = await work.follow.next(within_s=self._settings.heartbeat_s)
                if not finish.done():
                    yield _step_line(step or last)
                last = replace(step, preview=None) if step else last
            pictures = await finish
        except TimeoutError:
            yield {"error": _TOO_LONG}
        except BotError as error:
            yield {"error": str(error), "status": request_body.status_of(error)}
        else:
            yield {
                **request_body.answer(pictures),
                "generation_time": round(self._clock.now() - work.started_s, 3),
            }
        finally:
            finish.cancel()
            await asyncio.gather(finish, return_exceptions=True)

    # ---- the work ---------------------------------------------------------------------------

    async def _owner(self, request: Request) -> int | None:
        """Return the id of the request's key; None where the server is open."""
        presented = request.headers.get("x-api-key", "")
        if self._settings.open_without_keys and not await self._keys.any_live():
            return None
        return await self._keys.find(presented)

    async def _order(self, request: Request) -> Order:
        """Read, check and decode a request's body: a few at a time, each within a minute."""
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise HTTPException(_NOT_ACCEPTABLE, "The content type must be application/json.")
        async with self._bodies:
            try:
                async with asyncio.timeout(BODY_TIMEOUT_S):
                    body = request_body.parse(await _body(request))
                    data = await request_body.picture_bytes(body.image, self._settings.image_hosts)
            except TimeoutError as error:
                raise InvalidOption("The body took too long to arrive.") from error
            picture = await asyncio.to_thread(request_body.decode, data)
        return Order(body.params(), picture, body.base64)

    async def _accept(self, order: Order, owner: int | None, *, previews: bool = False) -> Work:
        """Charge a request and hand it to the engine. Raises `NotEnoughCredits` or `QueueFull`."""
        if not self.engine.alive:
            raise Paused(_CLOSING)
        request_id = secrets.token_hex(16)
        charge = None
        if owner is not None:
            charge = await self._keys.charge(key_id=owner, request_id=request_id, units=order.units)
        follow = Follow()
        each = [order.params.sample(index) for index in range(order.params.samples)]
        try:
            # A thread, since the picture's digest takes a while.
            tickets = await asyncio.to_thread(
                self.engine.submit_all, each, order.picture, follow.tell, previews=previews
            )
        except BaseException:
            await asyncio.shield(self._give_back(charge))
            raise
        return Work(request_id, order, charge, tickets, follow, self._clock.now())

    async def _finish(self, work: Work) -> list[bytes]:
        """Wait for a request's pictures. Raises `BackendFailed` or `TimeoutError`; gives back what failed."""
        try:
            async with asyncio.timeout(JOB_TIMEOUT_S):
                pictures = await self._pictures(work)
        except BaseException as error:
            for ticket in work.tickets:
                ticket.cancel()
            await asyncio.shield(self._give_back(work.charge))
            self.meter.failed(error)
            raise
        if work.charge is not None:
            await asyncio.shield(self._keys.keep(work.charge))
        self.meter.made(len(pictures), self._clock.now() - work.started_s)
        return pictures

    async def _pictures(self, work: Work) -> list[bytes]:
        waits = [asyncio.wrap_future(ticket.result) for ticket in work.tickets]
        try:
            made = await asyncio.gather(*waits)
        except asyncio.CancelledError:
            if self.engine.alive:
                raise
            raise Paused(_CLOSING) from None
        return [await asyncio.to_thread(request_body.jpeg, picture) for picture in made]

    async def _give_back(self, charge: Charge | None) -> None:
        if charge is not None:
            await self._keys.refund(charge)

    # ---- v2 ---------------------------------------------------------------------------------

    async def queue(self, request: Request) -> Response:
        """Take a request and answer at once with where to ask for it."""
        owner = await self._owner(request)
        order = await self._order(request)
        work = await self._accept(order, owner)
        record = Record(work.id, owner, self._clock.now())
        self._records.add(record)
        task = asyncio.create_task(self._run(work, record))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        status_url = str(request.url_for("status", request_id=record.id))
        told = {
            "request_id": record.id,
            "status": record.status,
            "poll_url": status_url,
            "status_url": status_url,
            "response_url": str(request.url_for("result", request_id=record.id)),
        }
        return JSONResponse(told, headers={"x-request-id": record.id})

    async def _run(self, work: Work, record: Record) -> None:
        watch = asyncio.create_task(self._watch(work, record))
        try:
            record.outputs = await self._finish(work)
        except (BotError, TimeoutError) as error:
            record.status, record.error = "FAILED", str(error) or _TOO_LONG
        else:
            record.metrics = self._record_metrics(work, record)
            record.status = "COMPLETED"
        finally:
            watch.cancel()

    async def _watch(self, work: Work, record: Record) -> None:
        if await work.follow.next() is not None and record.status == "QUEUED":
            record.status, record.begun_s = "PROCESSING", self._clock.now()

    def _record_metrics(self, work: Work, record: Record) -> dict[str, float]:
        now_s = self._clock.now()
        begun_s = record.begun_s or record.queued_s
        units, left = (work.charge.units, work.charge.units_left) if work.charge else (0, 0)
        return {
            "cost": units / UNITS_A_CREDIT,
            "remaining_credits": left / UNITS_A_CREDIT if work.charge else _UNCOUNTED_CREDITS,
            "inference_time": round(now_s - begun_s, 3),
            "queue_time": round(begun_s - record.queued_s, 3),
            "total_time": round(now_s - record.queued_s, 3),
            "retry_count": 0,
        }

    async def _record(self, request: Request) -> Record:
        return self._records.find(request.path_params["request_id"], owner=await self._owner(request))

    async def queued_status(self, request: Request) -> Response:
        """Answer how a queued request is doing."""
        record = await self._record(request)
        if record.status == "FAILED":
            return JSONResponse({"status": "FAILED", "error": record.error}, status_code=_UNPROCESSABLE)
        return JSONResponse({"request_id": record.id, "status": record.status})

    async def queued_result(self, request: Request) -> Response:
        """Answer with where a queued request's picture is."""
        record = await self._record(request)
        if record.status != "COMPLETED":
            return await self.queued_status(request)
        urls = [
            str(request.url_for("output", output_id=record.output_id, index=index))
            for index in range(len(record.outputs))
        ]
        output = urls[0] if len(urls) == 1 else urls
        told = {"request_id": record.id, "status": "COMPLETED", "output": output, "metrics": record.metrics}
        return JSONResponse(told)

    async def output(self, request: Request) -> Response:
        """Answer with a queued request's picture."""
        places = request.path_params
        picture = self._records.output(places["output_id"], places["index"])
        return Response(picture, media_type="image/jpeg")

    # ---- the rest ---------------------------------------------------------------------------

    async def balance(self, request: Request) -> Response:
        """Answer with the key's balance."""
        owner = await self._owner(request)
        left = _UNCOUNTED_CREDITS if owner is None else await self._keys.units(owner) / UNITS_A_CREDIT
        return JSONResponse({"credits": left, "free-credits": 0.0})

    async def health(self, _: Request) -> Response:
        """Answer whether pictures can be made, with what, and how many are on their way."""
        live, waiting = self.engine.load
        alive = self.engine.alive
        told = {
            "status": "ok" if alive else "closing",
            "model": self._settings.label,
            "live": live,
            "waiting": waiting,
        }
        return JSONResponse(told, status_code=200 if alive else 503)

    async def metrics(self, _: Request) -> Response:
        """Answer with figures in Prometheus' text format."""
        return PlainTextResponse(rendered(self.meter, self.engine), media_type="text/plain; version=0.0.4")

    async def _refuse(self, _: Request, error: Exception) -> Response:
        if not isinstance(error, BotError):
            raise error
        self.meter.refused(request_body.status_of(error))
        headers = {}
        if isinstance(error, QueueFull):
            reset = datetime.fromtimestamp(self._clock.now() + RETRY_AFTER_S, UTC).isoformat(
                timespec="seconds"
            )
            headers = {"retry-after": str(RETRY_AFTER_S), "x-rate-limit-reset-at-utc": reset}
        if isinstance(error, NotAllowed):
            headers = {"www-authenticate": "x-api-key"}
        return _error(request_body.status_of(error), str(error), headers)


def _step_line(step: Step) -> dict[str, Any]:
    line: dict[str, Any] = {"step": step.step, "steps": step.steps}
    return line if step.preview is None else {**line, "preview": request_body.preview(step.preview)}


async def _body(request: Request) -> bytes:
    """Return the body. Raises `InvalidOption` as soon as it is too long."""
    data = bytearray()
    async for piece in request.stream():
        data += piece
        if len(data) > request_body.BODY_BYTES_MAX:
            raise InvalidOption(f"The body is longer than {request_body.BODY_BYTES_MAX // 2**20} MiB.")
    return bytes(data)


def _error(status: int, sentence: str, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse({"error": sentence}, status_code=status, headers=headers)


async def _http_error(_: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    sentences = {404: "There is no such address.", 405: "This address takes another method."}
    return _error(status, sentences.get(status, getattr(error, "detail", "")))


async def _gone(_: Request, __: Exception) -> Response:
    return Response(status_code=_GONE)


async def _broken(_: Request, error: Exception) -> Response:
    _log.error("a request broke", exc_info=error)
    return _error(500, str(BackendFailed()))
