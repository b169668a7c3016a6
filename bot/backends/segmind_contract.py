"""The contract of Segmind's `sd3-med-img2img`: what to send and what the answers mean.

The hosted API and our own GPU server speak it alike. Statuses, headers and
bodies are those of Segmind's API page and its Python SDK.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from pydantic import BaseModel, Field, ValidationError

from bot.backends.base import Generation, Picture, Progress
from bot.backends.http import JSON_LINES, Answer, OnLine, PaidHttp
from bot.errors import (
    BackendDown,
    BackendError,
    BackendFailed,
    BackendOutOfCredits,
    BackendRefused,
    BackendThrottled,
    BackendUnsure,
)
from bot.params import Img2ImgParams

PATH: Final = "/v1/sd3-med-img2img"

#: What members call the attributes, the ones that can't be meant otherwise first: a
#: message about `strength` may well hold the word "image" too.
OPTION_WORDS: Final[Mapping[str, str]] = {
    "num_inference_steps": "number of steps",
    "guidance_scale": "guidance",
    "negative_prompt": "negative prompt",
    "sampler": "sampler",
    "scheduler": "scheduler",
    "samples": "number of pictures",
    "strength": "strength",
    "seed": "seed",
    "prompt": "prompt",
    "image": "picture",
}

_MEANINGS: Final[Mapping[int, type[BackendError]]] = {
    401: BackendDown,
    403: BackendDown,
    404: BackendDown,
    405: BackendDown,
    410: BackendDown,
    429: BackendThrottled,
    502: BackendUnsure,
    503: BackendUnsure,
    504: BackendUnsure,
}
_PERHAPS_CREDITS: Final = frozenset({402, 406})
_TOO_LARGE: Final = 413

#: Which of several errors says most: one that stops all calls, then one that the member
#: can do something about, and so on.
_MOST_TELLING: Final = (
    BackendDown,
    BackendRefused,
    BackendThrottled,
    BackendUnsure,
    BackendFailed,
    BackendError,
)

_NO_PICTURE: Final = (
    "The picture service sent something that isn't a whole picture. It cost you nothing; please try again."
)
_PICTURE_TOO_LARGE: Final = (
    "The picture is too large for the picture service. It cost you nothing; please use a smaller one."
)

_TAIL_BYTES: Final = 256
PREVIEW_BYTES_MAX: Final = 256 * 1024

_log = logging.getLogger(__name__)


#: Hears the sample's index and the step it came to.
OnStep = Callable[[int, Progress], None]


class Contract:
    """Makes pictures at one service that speaks the contract."""

    def __init__(self, http: PaidHttp) -> None:
        self._http = http

    async def generate(
        self, params: Img2ImgParams, image: bytes, on_step: OnStep | None = None
    ) -> Generation:
        """Make `params.samples` pictures from `image` (JPEG bytes), one call each, side by side.

        With `on_step`, a service that can tell its steps is asked to, and each is handed over.
        A call that fails leaves the others be: they may be paid for already. Raises the most
        telling `BackendError` where all failed; cancelling cancels every call.
        """
        image_base64 = base64.b64encode(image).decode("ascii")
        async with asyncio.TaskGroup() as group:
            calls = [
                group.create_task(self._try_sample(params, index, image_base64, on_step))
                for index in range(params.samples)
            ]
        return _gathered([call.result() for call in calls])

    async def sample(
        self, params: Img2ImgParams, index: int, image_base64: str, on_step: OnStep | None = None
    ) -> Sample:
        """Make picture `index` of `params.samples` with one paid call. Raises `BackendError`."""
        one = params.sample(index)
        on_line = _steps_to(on_step, index) if on_step else None
        answer = _told_late(await self._http.post(PATH, one.body(image_base64), on_line=on_line))
        self._log_answer(answer)
        picture = Picture(index=index, seed=one.seed, data=self._picture(answer))
        return Sample(picture=picture, remaining_credits=remaining_credits(answer.headers))

    async def get(self, path: str) -> Answer:
        """Fetch `path` and return a good answer. Raises `BackendError` by the contract's statuses."""
        answer = await self._http.get(path)
        if not _is_good(answer):
            raise self._error(answer)
        return answer

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

    def _picture(self, answer: Answer) -> bytes:
        """Return the picture of an answer, still encoded and only known to be whole."""
        if not _is_good(answer):
            raise self._error(answer)
        data = _unwrapped(answer)
        if not looks_whole(data):
            # A 200 may have been charged, so this is in doubt and not just failed.
            raise BackendUnsure(_NO_PICTURE, detail=self._told(answer))
        return data

    def _error(self, answer: Answer) -> BackendError:
        return error_of(answer.status, message=_message(answer), detail=self._told(answer))

    def _told(self, answer: Answer) -> str:
        kind = answer.headers.get("content-type", "no content type")
        said = f"{kind}, {len(answer.body)} bytes" if _is_good(answer) else _message(answer)
        return self._http.detail(f"{answer.status}: {said}")

    def _log_answer(self, answer: Answer) -> None:
        told = {name: answer.headers.get(name, "-") for name in ("x-request-id", "x-generation-time")}
        _log.debug("Answered %d: %s", answer.status, self._http.detail(str(told)))


@dataclass(frozen=True, slots=True)
class Sample:
    """One picture, and the operator's credits that were left when it was made, where told."""

    picture: Picture
    remaining_credits: float | None


def error_of(status: int, *, message: str, detail: str) -> BackendError:
    """Return what a status other than 2xx means.

    `message` is the service's own and only searched, never shown: it is foreign text.
    """
    if status in _PERHAPS_CREDITS and re.search("credit|balance", message, re.IGNORECASE):
        return BackendOutOfCredits(detail=detail)
    if status == _TOO_LARGE:
        return BackendRefused(_PICTURE_TOO_LARGE, detail=detail)
    meaning = _MEANINGS.get(status) or _meaning_of_class(status // 100)
    return _refused(message, detail) if meaning is BackendRefused else meaning(detail=detail)


def _meaning_of_class(hundreds: int) -> type[BackendError]:
    """Return the meaning of a status that the contract doesn't list; 1xx and 3xx don't come from the API."""
    return {4: BackendRefused, 5: BackendFailed}.get(hundreds, BackendDown)


def remaining_credits(headers: Mapping[str, str]) -> float | None:
    """Return the operator's credits as `x-remaining-credits` tells them, None where it tells no number.

    Below zero is a number: the account is overdrawn.
    """
    try:
        told = float(headers.get("x-remaining-credits", ""))
    except ValueError:
        return None
    return told if math.isfinite(told) else None


def looks_whole(data: bytes) -> bool:
    """Tell a JPEG, PNG or WebP that has its end from anything else, without decoding it.

    A JPEG ends in its EOI marker (ITU-T T.81, B.1.1.3), a PNG in an IEND chunk (RFC 2083, 4.1.4), both
    perhaps followed by padding; a WebP's RIFF header tells its length (RFC 9649, 2.4).
    """
    tail = data[-_TAIL_BYTES:]
    if data.startswith(b"\xff\xd8\xff"):
        return b"\xff\xd9" in tail
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return b"IEND\xaeB`\x82" in tail
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return len(data) >= 8 + int.from_bytes(data[4:8], "little")
    return False


def _gathered(outcomes: list[Sample | BackendError]) -> Generation:
    samples = [outcome for outcome in outcomes if isinstance(outcome, Sample)]
    if not samples:
        raise _most_telling([outcome for outcome in outcomes if isinstance(outcome, BackendError)])
    balances = [sample.remaining_credits for sample in samples if sample.remaining_credits is not None]
    return Generation(
        pictures=tuple(sample.picture for sample in samples), remaining_credits=min(balances, default=None)
    )


def _most_telling(errors: list[BackendError]) -> BackendError:
    def rank(error: BackendError) -> int:
        return next(place for place, kind in enumerate(_MOST_TELLING) if isinstance(error, kind))

    return min(errors, key=rank)


def _refused(message: str, detail: str) -> BackendRefused:
    option = _option_in(message)
    if option is None:
        return BackendRefused(detail=detail)
    return BackendRefused(
        f"The picture service refused the {option}. It cost you nothing; please change it and try again.",
        detail=detail,
    )


def _option_in(message: str) -> str | None:
    if message.lstrip().startswith("<"):  # a page about anything, full of words such as "image"
        return None
    words = (
        words for name, words in OPTION_WORDS.items() if re.search(rf"\b{name}\b", message, re.IGNORECASE)
    )
    return next(words, None)


def _is_good(answer: Answer) -> bool:
    return 200 <= answer.status < 300  # noqa: PLR2004  # 2xx


class _Step(BaseModel):
    """One line of an answer that tells its steps; our GPU server's own addition to the contract."""

    step: int = Field(ge=0, le=10_000)
    steps: int = Field(ge=1, le=10_000)
    preview: str = ""


def _steps_to(on_step: OnStep, index: int) -> OnLine:
    def on_line(line: bytes) -> None:
        try:
            told = _Step.model_validate_json(line)
            preview = base64.b64decode(told.preview, validate=True)
        except (ValidationError, binascii.Error):
            return  # progress is a courtesy: the last line is what counts
        fit = looks_whole(preview) and len(preview) <= PREVIEW_BYTES_MAX
        on_step(index, Progress(min(told.step, told.steps), told.steps, preview if fit else None))

    return on_line


class _LateError(BaseModel):
    """The last line of an answer whose 200 was sent before the work failed."""

    error: str
    status: int = Field(default=500, ge=400, le=599)


def _told_late(answer: Answer) -> Answer:
    """Return the answer with the status it would have had if the failure had come first."""
    if JSON_LINES not in answer.headers.get("content-type", ""):
        return answer
    try:
        return replace(answer, status=_LateError.model_validate_json(answer.body).status)
    except ValidationError:
        return answer


class _WrappedPicture(BaseModel):
    """A picture's JSON form, `{"image": "<base64>"}`, whatever else is in it."""

    image: str


class _Complaint(BaseModel):
    """An error's JSON form: `error`, some with `error_description`; ASGI servers say `detail`."""

    error: Any = ""
    error_description: Any = ""
    message: Any = ""
    detail: Any = ""


def _unwrapped(answer: Answer) -> bytes:
    """Return the picture's bytes, out of JSON if need be; nothing where the JSON holds none."""
    is_json = "json" in answer.headers.get("content-type", "").lower() or answer.body[:1] == b"{"
    if not is_json or looks_whole(answer.body):
        return answer.body
    try:
        text = _WrappedPicture.model_validate_json(answer.body).image
        return base64.b64decode(text.partition(",")[2] if text.startswith("data:") else text)
    except (ValidationError, ValueError, binascii.Error):
        return b""


def _message(answer: Answer) -> str:
    """Return what the service says is wrong, its words as they came."""
    try:
        said = _Complaint.model_validate_json(answer.body)
    except ValidationError:
        return answer.body.decode("utf-8", "replace")
    return " ".join(str(part) for part in said.model_dump().values() if part)
