"""Logging set-up: one line per record, and no secret in any of them.

Redaction is done in the formatter, the last step for every line, because the
libraries log what they receive: httpcore logs complete response headers at
DEBUG, discord.py complete URLs and gateway events with their tokens.
"""

from __future__ import annotations

import copy
import logging
import re
import time
from collections.abc import Iterable
from types import TracebackType
from typing import Final, TextIO

HIDDEN: Final = "[hidden]"

_ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]

#: What each kind of secret looks like; group 1 is kept. Segmind's keys are "SG_"
#: and 16 hex digits. Discord's bot tokens are three base64url parts, the first
#: of them the bot's id; an interaction's token starts with "interaction:" in
#: base64 and can act for the bot for 15 minutes.
_SHAPES: Final = tuple(
    re.compile(shape)
    for shape in (
        r"()SG_[0-9A-Fa-f]{16,}",
        r"(?i)(x-api-key['\"]?\s*[:=,]\s*(?:b?['\"])?)(?!b?['\"])[^\s'\",()\[\]]+",
        r"(/webhooks/\d+/)[^\s/?'\"]+",
        r"(/interactions/\d+/)[^\s/?'\"]+",
        r"()aW50ZXJhY3Rpb246[\w=-]+",
        r"()\b[\w-]{23,28}\.[\w-]{6,7}\.[\w-]{27,}",
        r"\b((?:Bot|Bearer) )[\w.~+/=-]{20,}",
        r"(['\"]token['\"]\s*:\s*['\"])[^'\"]+",
    )
)


class Redactor:
    """Removes secrets from text: the known ones, and whatever looks like one."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        known = set(secrets) - {""}
        # Longest first, so that a secret that starts with another one is removed completely.
        longest_first = sorted(known, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, longest_first))) if known else None

    def __call__(self, text: str) -> str:
        """Return `text` with `HIDDEN` in place of each secret."""
        if self._known is not None:
            text = self._known.sub(HIDDEN, text)
        for shape in _SHAPES:
            text = shape.sub(rf"\1{HIDDEN}", text)
        return text


def one_line(text: str) -> str:
    r"""Return `text` with everything unprintable escaped: a newline as `\n`, a bidi mark as `\u202e`.

    Otherwise a line break in a prompt could forge a log record.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


class RedactingFormatter(logging.Formatter):
    """Writes a record as one line of UTC time, level, logger and message, tracebacks indented below it."""

    converter = staticmethod(time.gmtime)
    default_msec_format = "%s.%03dZ"

    def __init__(self, redact: Redactor) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")
        self._redact = redact

    def format(self, record: logging.LogRecord) -> str:
        """Return the complete text of `record`, traceback included, without secrets."""
        fresh = copy.copy(record)
        fresh.exc_text = None  # another handler's rendering, which the base class would reuse
        return self._redact(super().format(fresh))

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # logging.Formatter's name
        """Return the record's first line."""
        return one_line(super().formatMessage(record))

    def formatException(self, ei: _ExcInfo) -> str:  # noqa: N802  # logging.Formatter's name
        """Return the traceback, indented so that no message in it looks like a record."""
        return "\n".join(f"    {one_line(line)}" for line in super().formatException(ei).splitlines())


def setup_logging(*, level: str | int, secrets: Iterable[str], stream: TextIO | None = None) -> None:
    """Log records of `level` and above to `stream` (standard error by default), redacted.

    A second call replaces the handler of the first and leaves other handlers alone.
    """
    handler = logging.StreamHandler(stream)
    handler.set_name(__name__)
    handler.setFormatter(RedactingFormatter(Redactor(secrets)))
    root = logging.getLogger()
    for old in [old for old in root.handlers if old.get_name() == __name__]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level)
    # Its DEBUG lines are complete response headers, a dozen lines per call.
    logging.getLogger("httpcore").setLevel(max(root.level, logging.INFO))
