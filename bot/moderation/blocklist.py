"""Words and patterns that a server's prompts may not contain."""

from __future__ import annotations

import logging
import unicodedata
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from bot.errors import InvalidOption
from bot.moderation.patterns import Matcher, compile_pattern, fold
from db.guilds import BlockedText

_log = logging.getLogger(__name__)

TEXT_CHARS_MAX: Final = 100  # as the database's CHECK
TEXTS_MAX: Final = 100  # each is looked for in every prompt of the server
PATTERNS_MAX: Final = 20  # even the slowest, at about 15 ms a prompt, take less than a second together
PATTERNS_CACHED: Final = 128  # at PATTERN_BYTES_MAX each, 128 MiB in the worst case

#: What matches all of these matches practically every prompt.
_ORDINARY_PROMPTS: Final = ("a cat", "2 dogs", "猫の絵")


def plain_text(text: str) -> str:
    """Return `text` as it is compared: folded, with single spaces."""
    return " ".join(fold(text).split())


def find_blocked(prompt: str, entries: Iterable[BlockedText], *, age_restricted: bool) -> BlockedText | None:
    """Return the first entry that blocks the prompt; `age_restricted` is its channel's setting."""
    text = plain_text(prompt)
    for entry in entries:
        if not (age_restricted and entry.adult_ok) and _contains(text, entry):
            return entry
    return None


def _contains(text: str, entry: BlockedText) -> bool:
    if entry.kind == "word":
        return _has_word(text, entry.text)
    return _stored_pattern(entry.text)(text)


def _has_word(text: str, word: str) -> bool:
    at = text.find(word)
    while at >= 0:
        end = at + len(word)
        if not text[at - 1 : at].isalnum() and not text[end : end + 1].isalnum():
            return True
        at = text.find(word, at + 1)
    return False


@lru_cache(maxsize=PATTERNS_CACHED)
def _stored_pattern(source: str) -> Matcher:
    """Compile a pattern that may date from version 0.1.0, whose syntax was its own.

    It never raises: the member who sent the prompt could do nothing about it.
    """
    try:
        return compile_pattern(source)
    except InvalidOption as error:
        _log.warning("The blocked pattern %r is matched as literal text: %s", source, error)
    literal = plain_text(source)
    return lambda text: bool(literal) and literal in text


def validate_entry(kind: str, text: str, known: list[BlockedText], *, adult_ok: bool) -> BlockedText:
    """Return the entry as it is stored. Raises `InvalidOption` for one that can't be, or one too many."""
    if any(unicodedata.category(char) in ("Cc", "Cs") and not char.isspace() for char in text):
        # SQLite can't store lone surrogates, and measures a text only up to its first NUL.
        raise InvalidOption("That text has a control character in it; please type it without.")
    text = plain_text(text) if kind == "word" else text.strip()
    if not 1 <= len(text) <= TEXT_CHARS_MAX:
        raise InvalidOption(f"Please give a text of 1 to {TEXT_CHARS_MAX} characters.")
    if kind == "pattern" and all(map(compile_pattern(text), _ORDINARY_PROMPTS)):
        raise InvalidOption("That pattern matches every prompt; please make it more precise.")
    others = [entry for entry in known if (entry.kind, entry.text) != (kind, text)]
    of_patterns = sum(entry.kind == "pattern" for entry in others)
    if len(others) >= TEXTS_MAX or (kind == "pattern" and of_patterns >= PATTERNS_MAX):
        raise InvalidOption(
            f"A server can block at most {TEXTS_MAX} texts, including {PATTERNS_MAX} patterns;"
            " please unblock some first."
        )
    return BlockedText(kind, text, adult_ok)
