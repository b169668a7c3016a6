"""Words and patterns that prompts may not contain."""

import logging

import pytest

from bot.errors import InvalidOption
from bot.moderation.blocklist import PATTERNS_MAX, _stored_pattern, find_blocked, validate_entry
from db.guilds import BlockedText


def blocked(
    prompt: str, text: str, kind: str = "word", *, adult_ok: bool = False, adult: bool = False
) -> bool:
    """Return whether the text, blocked by a moderator, refuses the prompt."""
    entry = validate_entry(kind, text, [], adult_ok=adult_ok)
    return find_blocked(prompt, [entry], age_restricted=adult) is not None


@pytest.mark.parametrize(
    ("prompt", "text", "found"),
    [
        ("a gory scene", "gory", True),
        ("category theory", "gory", False),
        ("a GORY scene", "gory", True),
        ("a g\u200bory scene", "gory", True),
        ("a \uff47ory scene", "gory", True),
        ("very   bad\nthing", "bad thing", True),
        ("gory", "gory", True),
        ("gorygory gory!", "gory", True),
    ],
)
def test_words_are_found_alone_and_in_disguise(prompt: str, text: str, found: bool) -> None:
    """A blocked word is found in capitals, wide and invisible letters, but not inside other words."""
    assert blocked(prompt, text) is found


@pytest.mark.parametrize(
    ("prompt", "pattern", "found"),
    [
        ("born in 2011", r"20\d\d", True),
        ("born in 1999", r"20\d\d", False),
        ("colour", "colou?r", True),
        ("xaby", "(ab|cd)+y", True),
        ("a-c", "[a-c]-[^ab]", True),
        ("a.c", r"a\.c", True),
        ("abc", r"a\.c", False),
        ("ABC", "abc", True),
        ("xyz", "^x.z$", True),
        ("wxyz", "^x.z$", False),
        ("aaa", "a{3}", True),
    ],
)
def test_patterns_are_found_anywhere(prompt: str, pattern: str, found: bool) -> None:
    """Sets, repeats and choices mean what they mean elsewhere."""
    assert blocked(prompt, pattern, "pattern") is found


@pytest.mark.parametrize("text", ["\x00gory", "go\x00ry", "go\x07ry", "go\x9bry", "go\ud800ry", "\x00"])
@pytest.mark.parametrize("kind", ["word", "pattern"])
def test_control_characters_are_refused(text: str, kind: str) -> None:
    """A text that the database can't store or that nobody could type again is refused with one sentence."""
    with pytest.raises(InvalidOption, match=r"^That text has a control character in it; please"):
        validate_entry(kind, text, [], adult_ok=False)


@pytest.mark.parametrize("pattern", [".", ".*", ".+", r"\w", r"\W|\w", "[^x]", "^", "$", "a*", r"\S{1,3}"])
def test_a_pattern_that_matches_every_prompt_is_refused(pattern: str) -> None:
    """A moderator can't stop all prompts with a pattern by mistake."""
    with pytest.raises(
        InvalidOption, match=r"^That pattern matches every prompt; please make it more precise"
    ):
        validate_entry("pattern", pattern, [], adult_ok=False)


@pytest.mark.parametrize(
    ("stored", "prompt", "found"),
    [
        ("a**b", "an a**b here", True),
        ("^", "x^2", True),
        ("^", "x2", False),
        (r"\bgory", "gory", False),
        (r"\bGORY", r"a \bgory scene", True),
        ("\u200b", "anything", False),
        ("", "anything", False),
        ("x{9999}", "x{9999}", True),
    ],
)
def test_a_stored_pattern_that_can_not_be_used_is_literal_text(
    stored: str, prompt: str, found: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """A pattern from an earlier version never fails a member's request; the log mentions it once."""
    _stored_pattern.cache_clear()
    entry = BlockedText("pattern", stored, adult_ok=False)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert (find_blocked(prompt, [entry], age_restricted=False) is not None) is found
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_a_prompt_of_arbitrary_characters_is_matched() -> None:
    """Neither NUL nor a lone surrogate in a prompt raises."""
    entries = [BlockedText("word", "gory", adult_ok=False), BlockedText("pattern", r"go\w+", adult_ok=False)]
    assert find_blocked("\x00 \ud800 good", entries, age_restricted=False) == entries[1]
    assert find_blocked("\x00 \ud800", entries, age_restricted=False) is None


def test_a_server_keeps_so_many_patterns() -> None:
    """One more pattern than can be matched in time is refused."""
    known = [BlockedText("pattern", f"x{n}", adult_ok=False) for n in range(PATTERNS_MAX)]
    with pytest.raises(InvalidOption, match="at most"):
        validate_entry("pattern", "more", known, adult_ok=False)
    assert validate_entry("pattern", "x1", known, adult_ok=True).adult_ok


def test_age_restricted_channels_may_let_through() -> None:
    """What a moderator lets through for adults is refused elsewhere only."""
    assert blocked("a nude", "nude", adult_ok=True)
    assert not blocked("a nude", "nude", adult_ok=True, adult=True)
    assert blocked("a nude", "nude", adult=True)
