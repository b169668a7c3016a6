r"""Words and patterns that a server's prompts may not contain, matched in bounded time.

Python's own `re` backtracks: even without nested repeats, `a?a?a?…aaa` takes 2^n steps. So
patterns are a small language of our own, matched by following all possibilities side by side
(Thompson, "Regular Expression Search Algorithm", 1968): a text of n characters against a
pattern of m takes at most n × m steps, whatever the pattern.

    abc  .  [a-z0-9]  [^a-z]  \\d \\w \\s  x* x+ x?  (ab|cd)
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from bot.errors import InvalidOption
from db.guilds import BlockedText

TEXT_CHARS_MAX: Final = 100
TEXTS_MAX: Final = 100
PATTERNS_MAX: Final = 20
PATTERNS_KEPT: Final = 512
DEPTH_MAX: Final = 10

_Test = Callable[[str], bool]
_CLASSES: Final[dict[str, _Test]] = {
    "d": str.isdigit,
    "s": str.isspace,
    "w": lambda char: char.isalnum() or char == "_",
}
_REPEATS: Final = "*+?"


def plain_text(text: str) -> str:
    """Return `text` as it is compared: one small form of each letter, none invisible, single spaces."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    seen = "".join(char for char in folded if unicodedata.category(char) != "Cf")
    return " ".join(seen.split())


def find_blocked(prompt: str, entries: Iterable[BlockedText], *, age_restricted: bool) -> BlockedText | None:
    """Return the first word or pattern that the prompt may not contain where it is asked for."""
    text = plain_text(prompt)
    for entry in entries:
        if not (age_restricted and entry.adult_ok) and _contains(text, entry):
            return entry
    return None


def _contains(text: str, entry: BlockedText) -> bool:
    if entry.kind == "word":
        return _has_word(text, entry.text)
    return compile_pattern(entry.text).found_in(text)


def _has_word(text: str, word: str) -> bool:
    at = text.find(word)
    while at >= 0:
        end = at + len(word)
        if not _is_letter(text[at - 1 : at]) and not _is_letter(text[end : end + 1]):
            return True
        at = text.find(word, at + 1)
    return False


def _is_letter(char: str) -> bool:
    return char.isalnum()


def checked(kind: str, text: str, known: list[BlockedText], *, adult_ok: bool) -> BlockedText:
    """Return the entry as it is stored. Raises `InvalidOption` for one that can't be, or one too many."""
    text = plain_text(text) if kind == "word" else text.strip()
    if not 1 <= len(text) <= TEXT_CHARS_MAX:
        raise InvalidOption(f"Please give a text of 1 to {TEXT_CHARS_MAX} characters.")
    if kind == "pattern":
        compile_pattern(text)
    others = [entry for entry in known if (entry.kind, entry.text) != (kind, text)]
    of_patterns = sum(entry.kind == "pattern" for entry in others)
    if len(others) >= TEXTS_MAX or (kind == "pattern" and of_patterns >= PATTERNS_MAX):
        raise InvalidOption(
            f"A server keeps at most {TEXTS_MAX} texts, {PATTERNS_MAX} of them patterns; please remove some."
        )
    return BlockedText(kind, text, adult_ok)


# ---------------------------------------------------------------------------- patterns


@dataclass(slots=True)
class _State:
    """A state: goes on to `next` over a character that passes `test`, or freely if there is none."""

    test: _Test | None = None
    next: list[_State] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Part:
    """A piece of the machine: where it begins, and the state that it ends in."""

    start: _State
    end: _State


class Pattern:
    """A compiled pattern."""

    def __init__(self, whole: _Part) -> None:
        self._whole = whole

    def found_in(self, text: str) -> bool:
        """Tell whether any part of `text` matches."""
        first = _reach([self._whole.start])
        now = first
        for char in text:
            if id(self._whole.end) in now:
                return True
            passed = [
                after for state in now.values() if state.test and state.test(char) for after in state.next
            ]
            now = first | _reach(passed)
        return id(self._whole.end) in now


def _reach(states: list[_State]) -> dict[int, _State]:
    """Return the states reached without a character, by identity: each is visited once."""
    reached: dict[int, _State] = {}
    pending = list(states)
    while pending:
        state = pending.pop()
        if id(state) not in reached:
            reached[id(state)] = state
            if state.test is None:
                pending += state.next
    return reached


@lru_cache(maxsize=PATTERNS_KEPT)
def compile_pattern(source: str) -> Pattern:
    """Return the pattern. Raises `InvalidOption` saying what is wrong with it."""
    parser = _Parser(source)
    pattern = Pattern(parser.alternatives(depth=0))
    if parser.at < len(source):
        stray = source[parser.at]
        raise InvalidOption(f"The pattern has a stray {stray}; put a \\ before it to mean itself.")
    if pattern.found_in(""):
        raise InvalidOption("That pattern matches every prompt; please make it more precise.")
    return pattern


class _Parser:
    """Recursive descent over one pattern."""

    def __init__(self, source: str) -> None:
        self._source = source
        self.at = 0

    def _peek(self) -> str:
        return self._source[self.at : self.at + 1]

    def _take(self) -> str:
        char = self._peek()
        if not char:
            raise InvalidOption("The pattern ends in the middle; please close what it opens.")
        self.at += 1
        return char

    def alternatives(self, *, depth: int) -> _Part:
        """Read `a|b|c`."""
        if depth > DEPTH_MAX:
            raise InvalidOption(f"The pattern has more than {DEPTH_MAX} brackets inside each other.")
        choices = [self._sequence(depth)]
        while self._peek() == "|":
            self.at += 1
            choices.append(self._sequence(depth))
        end = _State()
        for choice in choices:
            choice.end.next.append(end)
        return _Part(_State(next=[choice.start for choice in choices]), end)

    def _sequence(self, depth: int) -> _Part:
        start = end = _State()
        while self._peek() not in ("", "|", ")"):
            part = self._repeated(depth)
            end.next.append(part.start)
            end = part.end
        return _Part(start, end)

    def _repeated(self, depth: int) -> _Part:
        part = self._atom(depth)
        while self._peek() and self._peek() in _REPEATS:
            part = _repeat(part, self._take())
        return part

    def _atom(self, depth: int) -> _Part:
        char = self._take()
        if char == "(":
            inside = self.alternatives(depth=depth + 1)
            if self._take() != ")":
                raise InvalidOption("The pattern opens a bracket that it does not close.")
            return inside
        if char in _REPEATS:
            raise InvalidOption(f"The pattern has a {char} with nothing to repeat before it.")
        return _one(self._test(char))

    def _test(self, char: str) -> _Test:
        if char == ".":
            return lambda _: True
        if char == "[":
            return self._set()
        return self._single(char)

    def _single(self, char: str) -> _Test:
        if char == "\\":
            char = self._take()
            if char in _CLASSES:
                return _CLASSES[char]
        wanted = char.casefold()
        return lambda found: found == wanted

    def _set(self) -> _Test:
        negated = self._peek() == "^"
        self.at += negated
        tests = [self._member()]
        while self._peek() != "]":
            tests.append(self._member())
        self.at += 1
        return lambda found: any(test(found) for test in tests) != negated

    def _member(self) -> _Test:
        low = self._take()
        if low == "\\" or self._peek() != "-" or self._source[self.at + 1 : self.at + 2] == "]":
            return self._single(low)
        self.at += 1
        first, last = low.casefold(), self._take().casefold()
        return lambda found: first <= found <= last


def _one(test: _Test) -> _Part:
    end = _State()
    return _Part(_State(test, [end]), end)


def _repeat(part: _Part, how: str) -> _Part:
    start, end = _State(next=[part.start]), _State()
    part.end.next.append(end)
    if how in "*?":
        start.next.append(end)
    if how in "*+":
        part.end.next.append(part.start)
    return _Part(start, end)
