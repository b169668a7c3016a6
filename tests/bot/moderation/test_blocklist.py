"""Words and patterns that prompts may not contain."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.errors import InvalidOption
from bot.moderation.blocklist import PATTERNS_MAX, TEXT_CHARS_MAX, checked, compile_pattern, find_blocked
from db.guilds import BlockedText


def blocked(
    prompt: str, text: str, kind: str = "word", *, adult_ok: bool = False, adult: bool = False
) -> bool:
    """Tell whether the text keeps the prompt out."""
    entry = checked(kind, text, [], adult_ok=adult_ok)
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
    ],
)
def test_patterns_are_found_anywhere(prompt: str, pattern: str, found: bool) -> None:
    """Sets, repeats and choices mean what they mean elsewhere."""
    assert blocked(prompt, pattern, "pattern") is found


@given(
    st.text("ab", max_size=12),
    st.recursive(
        st.sampled_from(["a", "b", ".", "[ab]", "[^a]"]),
        lambda inner: st.one_of(
            st.tuples(inner, inner).map("".join),
            st.tuples(inner, inner).map(lambda two: f"({two[0]}|{two[1]})"),
            inner.map(lambda one: f"({one})*"),
            inner.map(lambda one: f"({one})?"),
        ),
        max_leaves=6,
    ),
)
@settings(max_examples=300, deadline=None)
def test_patterns_agree_with_pythons(text: str, pattern: str) -> None:
    """What our matcher finds is what Python's finds, wherever both can tell."""
    if len(pattern) > TEXT_CHARS_MAX or re.search(pattern, ""):
        return
    assert compile_pattern(pattern).found_in(text) == bool(re.search(pattern, text))


@pytest.mark.parametrize(
    "pattern",
    ["(a*)*b", "(a|a)" * 20 + "b", "a?" * 48 + "aab", "(a+)+" * 10 + "b", ".*.*.*.*.*.*=", "((a?)*)*b"],
)
def test_no_pattern_runs_away(pattern: str) -> None:
    """Patterns that take other matchers longer than the universe lasts are through a whole prompt at once."""
    steps = 0

    def test_of(found: bool) -> bool:
        nonlocal steps
        steps += 1
        return found

    machine = compile_pattern(pattern)
    seen, pending = {}, [machine._whole.start]
    while pending:
        state = pending.pop()
        if id(state) in seen:
            continue
        seen[id(state)] = state
        pending += state.next
        if state.test is not None:
            old = state.test
            state.test = lambda char, old=old: test_of(old(char))
    assert not machine.found_in("a" * 1000)
    compile_pattern.cache_clear()
    assert steps <= 1000 * len(seen)
    assert len(seen) <= 4 * TEXT_CHARS_MAX


@pytest.mark.parametrize("pattern", ["(", "a)", "*a", "[a", "a**b" + "(" * 12, "", "a*", "()", "\\"])
def test_a_pattern_that_can_not_be_is_refused(pattern: str) -> None:
    """A moderator who mistypes a pattern, or writes one that matches everything, is told so."""
    with pytest.raises(InvalidOption):
        checked("pattern", pattern, [], adult_ok=False)


def test_a_server_keeps_so_many_patterns() -> None:
    """One more pattern than can be matched in time is refused."""
    known = [BlockedText("pattern", f"x{n}", adult_ok=False) for n in range(PATTERNS_MAX)]
    with pytest.raises(InvalidOption, match="at most"):
        checked("pattern", "more", known, adult_ok=False)
    assert checked("pattern", "x1", known, adult_ok=True).adult_ok


def test_age_restricted_channels_may_let_through() -> None:
    """What a moderator lets through for adults is refused elsewhere only."""
    assert blocked("a nude", "nude", adult_ok=True)
    assert not blocked("a nude", "nude", adult_ok=True, adult=True)
    assert blocked("a nude", "nude", adult=True)
