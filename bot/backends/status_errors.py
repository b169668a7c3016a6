"""What a failed call of the contract means: HTTP statuses and messages into errors.

The statuses are those of Segmind's API page and its Python SDK.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

from bot.errors import (
    BackendDown,
    BackendError,
    BackendFailed,
    BackendOutOfCredits,
    BackendRefused,
    BackendThrottled,
    BackendUnsure,
)

#: The attributes as members know them, in search order, least ambiguous first: an error
#: message about `strength` may well contain the word "image" too.
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
#: Either may also be another refusal, so the message decides whether credits are meant.
_PERHAPS_CREDITS: Final = frozenset({402, 406})
_TOO_LARGE: Final = 413

#: Which of several errors to raise: first one that affects every call, then one that the
#: member can do something about, and so on.
_BY_IMPORTANCE: Final = (
    BackendDown,
    BackendRefused,
    BackendThrottled,
    BackendUnsure,
    BackendFailed,
    BackendError,
)

_PICTURE_TOO_LARGE: Final = (
    "The picture is too large for the image service. You weren't charged; please use a smaller one."
)


def error_of(status: int, *, message: str, detail: str) -> BackendError:
    """Return the error that a status other than 2xx stands for.

    `message` comes from the service; it is untrusted, so it is searched but never shown.
    """
    if status in _PERHAPS_CREDITS and re.search("credit|balance", message, re.IGNORECASE):
        return BackendOutOfCredits(detail=detail)
    if status == _TOO_LARGE:
        return BackendRefused(_PICTURE_TOO_LARGE, detail=detail)
    meaning = _MEANINGS.get(status) or _meaning_of_class(status // 100)
    return _refusal(message, detail) if meaning is BackendRefused else meaning(detail=detail)


def _meaning_of_class(hundreds: int) -> type[BackendError]:
    """Return the error for a status that the contract doesn't list; the API itself sends no 1xx or 3xx."""
    return {4: BackendRefused, 5: BackendFailed}.get(hundreds, BackendDown)


def most_important(errors: Iterable[BackendError]) -> BackendError:
    """Return the error to raise where several calls failed: `_BY_IMPORTANCE` says which."""

    def rank(error: BackendError) -> int:
        return next(rank for rank, kind in enumerate(_BY_IMPORTANCE) if isinstance(error, kind))

    return min(errors, key=rank)


def _refusal(message: str, detail: str) -> BackendRefused:
    option = _option_in(message)
    if option is None:
        return BackendRefused(detail=detail)
    return BackendRefused(
        f"The image service refused the {option}. You weren't charged; please change it and try again.",
        detail=detail,
    )


def _option_in(message: str) -> str | None:
    if message.lstrip().startswith("<"):  # an HTML page, which may use words such as "image" for anything
        return None
    words = (
        words for name, words in OPTION_WORDS.items() if re.search(rf"\b{name}\b", message, re.IGNORECASE)
    )
    return next(words, None)
