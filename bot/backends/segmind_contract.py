"""The API contract of Segmind's `sd3-med-img2img`: what to send and what the answers mean.

The hosted API and our own GPU server both follow it. Statuses, headers and
bodies are those of Segmind's API page and its Python SDK.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from pydantic import BaseModel, Field, SecretStr, ValidationError

from bot.backends.base import Generation, Picture, Progress
from bot.backends.http import JSON_LINES, Answer, OnLine, PaidHttp
from bot.backends.status_errors import error_of, most_important
from bot.clock import Clock
from bot.errors import BackendError, BackendUnsure
from bot.params import Img2ImgParams

PATH: Final = "/v1/sd3-med-img2img"

_NO_PICTURE: Final = (
    "The image service sent something that isn't a complete picture. You weren't charged; please try again."
)
#: How far from the end of a file its end marker is searched, as encoders may pad.
_TAIL_BYTES: Final = 256
#: Far above any preview a card shows; a larger one is dropped.
PREVIEW_BYTES_MAX: Final = 256 * 1024

_log = logging.getLogger(__name__)


#: Called with a sample's index and its progress.
OnStep = Callable[[int, Progress], None]


class Contract:
    """A client of one service that follows the contract."""

    def __init__(
        self,
        url: str,
        api_key: SecretStr | None,
        *,
        clock: Clock,
        deadline_s: float,
        connect_timeout_s: float,
        jitter: random.Random | None = None,
    ) -> None:
        """Validate the address and the key; nothing is sent yet. Raises `OperatorError`."""
        self._http = PaidHttp(
            base_url=url,
            api_key=api_key,
            clock=clock,
            deadline_s=deadline_s,
            connect_timeout_s=connect_timeout_s,
            jitter=jitter,
        )

    async def generate(
        self, params: Img2ImgParams, image: bytes, on_step: OnStep | None = None
    ) -> Generation:
        """Make `params.samples` pictures from `image` (JPEG bytes), one concurrent call each.

        With `on_step`, a service that can report its steps is asked to, and each is passed on.
        A failed call doesn't stop the others, which may already be paid for. Raises the most
        important `BackendError` if all failed; cancelling cancels every call.
        """
        image_base64 = base64.b64encode(image).decode("ascii")
        async with asyncio.TaskGroup() as group:
            calls = [
                group.create_task(self._try_sample(params, index, image_base64, on_step))
                for index in range(params.samples)
            ]
        return _combine([call.result() for call in calls])

    async def sample(
        self, params: Img2ImgParams, index: int, image_base64: str, on_step: OnStep | None = None
    ) -> Sample:
        """Make picture `index` of `params.samples` with one paid call. Raises `BackendError`."""
        one = params.sample(index)
        on_line = _step_parser(on_step, index) if on_step else None
        answer = _with_late_status(await self._http.post(PATH, one.body(image_base64), on_line=on_line))
        self._log_answer(answer)
        picture = Picture(index=index, seed=one.seed, data=self._picture_in(answer))
        return Sample(picture=picture, remaining_credits=remaining_credits(answer.headers))

    async def get(self, path: str) -> Answer:
        """Fetch `path` and return a 2xx answer. Raises the `BackendError` of any other status."""
        answer = await self._http.get(path)
        if not _is_success(answer):
            raise self._error(answer)
        return answer

    def excerpt(self, answer: Answer) -> str:
        """Return the start of an answer's body, made safe for a log."""
        return self._http.detail(answer.body.decode("utf-8", "replace"))

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def _try_sample(
        self, params: Img2ImgParams, index: int, image_base64: str, on_step: OnStep | None
    ) -> Sample | BackendError:
        try:
            return await self.sample(params, index, image_base64, on_step)
        except BackendError as exc:
            _log.warning(
                "Sample %d of %d failed: %s (%s)", index + 1, params.samples, type(exc).__name__, exc.detail
            )
            return exc

    def _picture_in(self, answer: Answer) -> bytes:
        """Return the picture in an answer: encoded, and so far only known to be complete."""
        if not _is_success(answer):
            raise self._error(answer)
        data = _unwrap(answer)
        if not looks_complete(data):
            # A 200 may have been charged, so the outcome is uncertain rather than a plain failure.
            raise BackendUnsure(_NO_PICTURE, detail=self._describe(answer))
        return data

    def _error(self, answer: Answer) -> BackendError:
        return error_of(answer.status, message=_message(answer), detail=self._describe(answer))

    def _describe(self, answer: Answer) -> str:
        kind = answer.headers.get("content-type", "no content type")
        summary = f"{kind}, {len(answer.body)} bytes" if _is_success(answer) else _message(answer)
        return self._http.detail(f"{answer.status}: {summary}")

    def _log_answer(self, answer: Answer) -> None:
        headers = {name: answer.headers.get(name, "-") for name in ("x-request-id", "x-generation-time")}
        _log.debug("Answered %d: %s", answer.status, self._http.detail(str(headers)))


@dataclass(frozen=True, slots=True)
class Sample:
    """One picture, and the operator's credits after it was made, None if they weren't reported."""

    picture: Picture
    remaining_credits: float | None


def remaining_credits(headers: Mapping[str, str]) -> float | None:
    """Return the operator's credits from `x-remaining-credits`, None if it isn't a finite number.

    They may be negative: the account is overdrawn.
    """
    try:
        credits_left = float(headers.get("x-remaining-credits", ""))
    except ValueError:
        return None
    return credits_left if math.isfinite(credits_left) else None


def looks_complete(data: bytes) -> bool:
    """Return whether `data` is a JPEG, PNG or WebP that isn't cut off, without decoding it.

    A JPEG ends in its EOI marker (ITU-T T.81, B.1.1.3), a PNG in an IEND chunk (RFC 2083, 4.1.4), either
    possibly followed by padding; a WebP's RIFF header contains its length (RFC 9649, 2.4).
    """
    tail = data[-_TAIL_BYTES:]
    if data.startswith(b"\xff\xd8\xff"):
        return b"\xff\xd9" in tail
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return b"IEND\xaeB`\x82" in tail
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return len(data) >= 8 + int.from_bytes(data[4:8], "little")
    return False


def _combine(outcomes: list[Sample | BackendError]) -> Generation:
    samples = [outcome for outcome in outcomes if isinstance(outcome, Sample)]
    if not samples:
        raise most_important([outcome for outcome in outcomes if isinstance(outcome, BackendError)])
    balances = [sample.remaining_credits for sample in samples if sample.remaining_credits is not None]
    return Generation(
        pictures=tuple(sample.picture for sample in samples), remaining_credits=min(balances, default=None)
    )


def _is_success(answer: Answer) -> bool:
    return 200 <= answer.status < 300  # noqa: PLR2004  # 2xx


class _Step(BaseModel):
    """One line of a streamed answer; our GPU server's own addition to the contract."""

    step: int = Field(ge=0, le=10_000)
    steps: int = Field(ge=1, le=10_000)
    preview: str = ""


def _step_parser(on_step: OnStep, index: int) -> OnLine:
    def on_line(line: bytes) -> None:
        try:
            parsed = _Step.model_validate_json(line)
            preview = base64.b64decode(parsed.preview, validate=True)
        except (ValidationError, binascii.Error):
            return  # progress is optional: only the last line decides
        usable = looks_complete(preview) and len(preview) <= PREVIEW_BYTES_MAX
        on_step(index, Progress(min(parsed.step, parsed.steps), parsed.steps, preview if usable else None))

    return on_line


class _LateError(BaseModel):
    """The last line of a streamed answer whose work failed after its status 200 was sent."""

    error: str
    status: int = Field(default=500, ge=400, le=599)


def _with_late_status(answer: Answer) -> Answer:
    """Return the answer with the status it would have had if the work had failed before the first line."""
    if JSON_LINES not in answer.headers.get("content-type", ""):
        return answer
    try:
        return replace(answer, status=_LateError.model_validate_json(answer.body).status)
    except ValidationError:
        return answer


class _WrappedPicture(BaseModel):
    """A picture as JSON, `{"image": "<base64>"}`; other fields are ignored."""

    image: str


class _ErrorBody(BaseModel):
    """An error as JSON: `error`, sometimes with `error_description`; ASGI servers send `detail`."""

    error: Any = ""
    error_description: Any = ""
    message: Any = ""
    detail: Any = ""


def _unwrap(answer: Answer) -> bytes:
    """Return the picture's bytes, taken out of JSON if necessary; empty if there are none."""
    is_json = "json" in answer.headers.get("content-type", "").lower() or answer.body[:1] == b"{"
    if not is_json or looks_complete(answer.body):
        return answer.body
    try:
        text = _WrappedPicture.model_validate_json(answer.body).image
        return base64.b64decode(text.partition(",")[2] if text.startswith("data:") else text)
    except (ValidationError, ValueError, binascii.Error):
        return b""


def _message(answer: Answer) -> str:
    """Return the service's own error text, unfiltered."""
    try:
        error = _ErrorBody.model_validate_json(answer.body)
    except ValidationError:
        return answer.body.decode("utf-8", "replace")
    return " ".join(str(part) for part in error.model_dump().values() if part)
