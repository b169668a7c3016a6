r"""Patterns that moderators write, compiled with RE2.

Moderators write the pattern and members choose the text it is matched against. Python's `re`
backtracks, so `(a*)*b` could stall the bot; RE2 (https://github.com/google/re2/wiki/Syntax)
takes time linear in the text and bounded memory, whatever the pattern.

RE2's `\d` and `\w` are ASCII only. They are translated to cover every script, and letters outside
ASCII to the form that prompts are compared in. `\b` is ASCII only as well and has no translation,
so it is refused instead of silently missing words in other scripts.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from typing import Final

import re2

from bot.errors import InvalidOption

PATTERN_BYTES_MAX: Final = 1024 * 1024  # RE2's memory for one pattern; 100 characters of \w just fit

Matcher = Callable[[str], bool]

_WORD: Final = r"\p{L}_\p{N}"  # not "_" first or last, so that a "-" next to it forms no range
_ESCAPES: Final = {char: "\\" + char for char in "sSpPx"} | {"d": r"\p{Nd}", "D": r"\P{Nd}"}
_ESCAPES_OUTSIDE_SETS: Final = _ESCAPES | {"w": f"[{_WORD}]", "W": f"[^{_WORD}]"}
_ESCAPES_INSIDE_SETS: Final = _ESCAPES | {"w": _WORD}  # \W would need a set inside the set

#: A whole set such as `[^a-z]`, an escaped character, or a character outside ASCII.
_TOKEN: Final = re.compile(
    r"(?P<open>\[\^?)(?P<members>\]?(?:\\.|[^\]\\])*)\]|\\(?P<escaped>.)|[^\x00-\x7f]", re.DOTALL
)
#: The same inside a set. A `[` there means itself, as in Python, and begins no ASCII-only `[:alpha:]`.
_MEMBER: Final = re.compile(r"\\(?P<escaped>.)|[^\x00-\x7f]|\[", re.DOTALL)

#: Better words for RE2's commonest errors.
_SENTENCES: Final = {
    "missing )": "The pattern has a `(` that is never closed; please add the `)`.",
    "missing ]": "The pattern has a `[` that is never closed; please add the `]`.",
    "trailing \\": "The pattern ends with a single `\\`; please write `\\\\` to match a backslash.",
    "pattern too large - compile failed": "That pattern takes too much memory; please repeat less in it.",
}


def fold(text: str) -> str:
    """Return `text` with one lower-case form of each letter and without invisible characters."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return "".join(char for char in folded if unicodedata.category(char) != "Cf")


def compile_pattern(source: str) -> Matcher:
    """Return a function that reports whether a folded text contains the pattern.

    Raises:
        InvalidOption: RE2 can't use the pattern, or even an empty text contains it.
    """
    try:
        pattern = re2.compile(_translate(source), _options())
    except re2.error as error:
        raise InvalidOption(_explain(error)) from None

    def is_found(text: str) -> bool:
        # Lone surrogates have no UTF-8, and a member's text must never raise here.
        return pattern.search(text.encode(errors="replace")) is not None

    if is_found(""):
        raise InvalidOption("That pattern matches every prompt; please make it more precise.")
    return is_found


def _options() -> re2.Options:
    options = re2.Options()
    options.max_mem = PATTERN_BYTES_MAX
    options.case_sensitive = False
    options.dot_nl = True  # prompts are compared as one line
    options.never_capture = True  # only whether it is found matters; capturing is slower
    options.log_errors = False  # the moderator gets the error, stderr doesn't need it
    return options


def _explain(error: re2.error) -> str:
    kind, _, fragment = error.args[0].decode(errors="replace").partition(":")
    # The fragment is the moderator's own text: in a code span, none of it acts.
    shown = "".join(char for char in fragment if char.isprintable() and char != "`").strip()
    what = f"{kind}: `{shown}`" if shown else kind
    return _SENTENCES.get(kind, f"That pattern can't be used ({what}); please correct it.")


def _translate(source: str) -> str:
    composed = unicodedata.normalize("NFC", source)  # as in prompts, an accent is part of its letter
    return _TOKEN.sub(_translate_token, composed)


def _translate_token(token: re.Match[str]) -> str:
    if token["open"]:
        return token["open"] + _MEMBER.sub(_translate_member, token["members"]) + "]"
    char = token["escaped"] or token[0]
    if char.isascii():
        return _escape(char, _ESCAPES_OUTSIDE_SETS)
    folded = fold(char)
    return f"(?:{re2.escape(folded)})" if len(folded) > 1 else re2.escape(folded)


def _translate_member(token: re.Match[str]) -> str:
    char = token["escaped"] or token[0]
    if char.isascii():
        return _escape(char, _ESCAPES_INSIDE_SETS)
    folded = fold(char)
    return re2.escape(folded) if len(folded) == 1 else char


def _escape(char: str, escapes: dict[str, str]) -> str:
    if char.isalnum() and char not in escapes:
        raise InvalidOption(
            f"A pattern can't use `\\{char}` there; without the backslash, {char} means itself."
        )
    return escapes.get(char, f"\\{char}")
