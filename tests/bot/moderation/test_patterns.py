"""Moderators' patterns: what they match, in which scripts, and that none of them takes long."""

import random
import re
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.errors import InvalidOption
from bot.moderation.blocklist import PATTERNS_MAX, TEXT_CHARS_MAX, plain_text
from bot.moderation.patterns import PATTERN_BYTES_MAX, compile_pattern

HOSTILE = [
    "(a*)*b",
    "(a|a)" * 19 + "b",
    "a?" * 48 + "aab",
    "(a+)+" * 10 + "b",
    ".*.*.*.*.*.*=",
    "((a?)*)*b",
    ".{1000}b",
    r"\w{3,20}=",
    r"\w" * 49 + "=",
    "(x|y)*x(x|y){14}=",
]
PROMPTS = ["a" * 1000, "é" * 1000, "xy" * 500, "".join(random.Random(1).choices("xyaé猫 ", k=1000))]


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
    """What our matcher finds is what Python's finds, wherever both can be used."""
    if len(pattern) > TEXT_CHARS_MAX or re.search(pattern, ""):
        return
    assert compile_pattern(pattern)(text) == bool(re.search(pattern, text))


@pytest.mark.parametrize(
    ("pattern", "prompt", "found"),
    [
        (r"^\w+$", "ПРИВЕТ", True),
        (r"^\w+$", "猫の絵", True),
        (r"^\w+$", "été_7", True),
        (r"^\w+$", "a-b", False),
        (r"^\W$", "é", False),
        (r"^\W$", "!", True),
        (r"x\d", "x٣", True),
        (r"x\D", "x٣", False),
        (r"^[\w-]+$", "été-猫", True),
        (r"^[^\w]$", "é", False),
        (r"^[\d.]+$", "٣.٤", True),
        (r"^[^\d]$", "٣", False),
        (r"a\sb", "a\u3000b", True),
        (r"^\S+$", "a b", False),
        ("ПРИВЕТ", "привет", True),
        ("[Ж-Я]+!", "щит!", True),
        ("É", "e\u0301", True),
        ("e\u0301", "É", True),
        ("\uff47ory", "GORY", True),
        ("go\u200bry", "gory", True),
        ("^straße$", "STRASSE", True),
        ("^aß+b$", "assssb", True),
        ("x\uff08y", "x\uff08y", True),
        (r"\é", "é", True),
        (r"^\p{Greek}+$", "ΩΜΕΓΑ", True),
        (r"^\pL$", "7", False),
        (r"\x41", "a", True),
    ],
)
def test_patterns_cover_every_script(pattern: str, prompt: str, found: bool) -> None:
    r"""`\w`, `\d` and letters mean those of every script, also in sets, and both sides are folded alike."""
    assert compile_pattern(pattern)(plain_text(prompt)) is found


@pytest.mark.parametrize(
    ("pattern", "prompt", "found"),
    [
        ("^[]a]+$", "]a]", True),
        ("^[^]a]$", "]", False),
        ("^[[:a]+$", "[:a", True),
        ("^[[:digit:]]$", "d]", True),
        ("^[a-]+$", "a-", True),
        (r"^[\]a]+$", "]a", True),
        (r"^[\w-z]+$", "a-z", True),
        (r"\(x\)", "(x)", True),
        (r"a\-b\_c", "a-b_c", True),
        ("a{", "a{", True),
        (r"[\\w]", "é", False),
        (r"\\w", r"\w", True),
    ],
)
def test_sets_and_escapes_are_read_as_in_python(pattern: str, prompt: str, found: bool) -> None:
    """Brackets in sets mean themselves and an escaped backslash escapes nothing after it."""
    assert compile_pattern(pattern)(prompt) is found


@pytest.mark.parametrize("pattern", HOSTILE)
def test_no_pattern_runs_away(pattern: str) -> None:
    """Patterns that take other matchers longer than the universe lasts are through a whole prompt at once."""
    contains = compile_pattern(pattern)
    started_s = time.perf_counter()
    assert not any(contains(prompt) for prompt in PROMPTS)
    assert time.perf_counter() - started_s < 2  # measured: 0.06 s


def test_no_pattern_takes_the_memory() -> None:
    """A server's worth of patterns with more states than fit stays within the bound of each."""
    statm = Path("/proc/self/statm")
    if not statm.exists():
        pytest.skip("needs Linux's /proc")
    before = int(statm.read_text().split()[1])
    patterns = [compile_pattern(f"(x|y)*x(x|y){{14}}{number}") for number in range(PATTERNS_MAX)]
    prompt = "".join(random.Random(1).choices("xy", k=100_000))
    assert not any(contains(prompt) for contains in patterns)
    grown_bytes = (int(statm.read_text().split()[1]) - before) * 4096
    assert grown_bytes < 2 * PATTERNS_MAX * PATTERN_BYTES_MAX


@pytest.mark.parametrize(
    ("pattern", "sentence"),
    [
        ("(", "The pattern has a `(` that is never closed; please add the `)`."),
        ("[a", "The pattern has a `[` that is never closed; please add the `]`."),
        ("a)", "That pattern can't be used (unexpected ): `a)`); please correct it."),
        ("*a", "That pattern can't be used (no argument for repetition operator: `*`); please correct it."),
        ("a**b" + "(" * 12, "That pattern can't be used (bad repetition operator: `**`); please correct it."),
        ("[z-a]", "That pattern can't be used (invalid character class range: `z-a`); please correct it."),
        ("a(?=b)", "That pattern can't be used (invalid perl operator: `(?=`); please correct it."),
        ("\\", "The pattern ends with a single `\\`; please write `\\\\` to match a backslash."),
        (r"\w{999}", "That pattern takes too much memory; please repeat less in it."),
        (r"\bgory\b", "A pattern can't use `\\b` there; without the backslash, b means itself."),
        (r"[\W]", "A pattern can't use `\\W` there; without the backslash, W means itself."),
        (r"(a)\1", "A pattern can't use `\\1` there; without the backslash, 1 means itself."),
        ("", "That pattern matches every prompt; please make it more precise."),
        ("a*", "That pattern matches every prompt; please make it more precise."),
        ("()", "That pattern matches every prompt; please make it more precise."),
    ],
)
def test_a_pattern_that_can_not_be_is_refused(pattern: str, sentence: str) -> None:
    """A moderator who mistypes a pattern, or writes one that matches everything, gets one clear sentence."""
    with pytest.raises(InvalidOption) as refused:
        compile_pattern(pattern)
    assert str(refused.value) == sentence


@given(st.text("()[]{}\\^$.|*+?-:awdW9é猫ß\u200b \n", max_size=40), st.text(max_size=20))
@settings(max_examples=500, deadline=None)
def test_any_text_compiles_or_is_refused(pattern: str, prompt: str) -> None:
    """Whatever a moderator types, nothing but `InvalidOption` comes of it."""
    try:
        contains = compile_pattern(pattern)
    except InvalidOption:
        return
    assert contains(plain_text(prompt)) in (True, False)
