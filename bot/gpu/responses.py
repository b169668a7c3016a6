"""What the server sends back: pictures, lines of a stream, and errors with the contract's statuses."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from bot.errors import (
    BackendFailed,
    BotError,
    InvalidOption,
    JobGone,
    NotAllowed,
    NotEnoughCredits,
    Paused,
    QueueFull,
    UnusablePicture,
)
from bot.gpu.picture_files import preview_base64, to_base64
from bot.gpu.tickets import Step

_log = logging.getLogger(__name__)

#: A picture takes seconds, so a full queue soon has room again.
RETRY_AFTER_S: Final = 5

#: nginx's status for a client that closed its connection; nobody reads it.
_CLIENT_CLOSED: Final = 499

_STATUSES: Final[dict[type[BotError], int]] = {
    InvalidOption: 400,
    UnusablePicture: 400,
    NotAllowed: 401,
    JobGone: 404,
    NotEnoughCredits: 406,
    QueueFull: 429,
    Paused: 503,
}


def status_of(error: BotError) -> int:
    """Return the contract's status for an error; 500 for what is the server's own fault."""
    return next((status for kind, status in _STATUSES.items() if isinstance(error, kind)), 500)


def picture_body(pictures: Sequence[bytes]) -> dict[str, str | list[str]]:
    """Return the JSON of JPEG files: `image`, and `images` beside it where there are several."""
    images = [to_base64(picture) for picture in pictures]
    return {"image": images[0], "images": images} if len(images) > 1 else {"image": images[0]}


def step_line(step: Step) -> dict[str, Any]:
    """Return a step as a line of the stream."""
    line: dict[str, Any] = {"step": step.step, "steps": step.steps}
    return line if step.preview is None else {**line, "preview": preview_base64(step.preview)}


def error_response(status: int, sentence: str, headers: dict[str, str] | None = None) -> Response:
    """Return an error in the contract's form."""
    return JSONResponse({"error": sentence}, status_code=status, headers=headers)


def refusal(error: BotError, *, now_s: float) -> Response:
    """Return the answer to a request that was refused at `now_s` (seconds since 1970)."""
    headers = {}
    if isinstance(error, QueueFull):
        reset = datetime.fromtimestamp(now_s + RETRY_AFTER_S, UTC).isoformat(timespec="seconds")
        # The hosted API sends only the second; the first is what HTTP libraries know.
        headers = {"retry-after": str(RETRY_AFTER_S), "x-rate-limit-reset-at-utc": reset}
    if isinstance(error, NotAllowed):
        headers = {"www-authenticate": "x-api-key"}
    return error_response(status_of(error), str(error), headers)


async def on_http_error(_: Request, error: Exception) -> Response:
    """Answer Starlette's own errors in the contract's form."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    sentences = {404: "There is no such address.", 405: "This address takes another method."}
    return error_response(status, sentences.get(status, getattr(error, "detail", "")))


async def on_disconnect(_: Request, __: Exception) -> Response:
    """End a request whose client disconnected."""
    return Response(status_code=_CLIENT_CLOSED)


async def on_crash(_: Request, error: Exception) -> Response:
    """Answer a fault of the server's without its details."""
    _log.error("Unhandled error in a request", exc_info=error)
    return error_response(500, str(BackendFailed()))
