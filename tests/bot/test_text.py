"""Small pieces of sentences."""

import pytest

from bot.text import credits_text, duration_text, listed, ordinal


@pytest.mark.parametrize(
    ("number", "text"),
    [(1, "1st"), (2, "2nd"), (3, "3rd"), (4, "4th"), (11, "11th"), (112, "112th"), (1021, "1,021st")],
)
def test_places_are_said_as_people_say_them(number: int, text: str) -> None:
    """A member reads "3rd in line", not "3 in line"."""
    assert ordinal(number) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "a few seconds"),
        (41, "about 40 s"),
        (90, "about 2 min"),
        (3600, "about 60 min"),
        (9000, "about 2 h"),
    ],
)
def test_waits_are_said_roughly(seconds: float, text: str) -> None:
    """A wait is told in the unit a person would use."""
    assert duration_text(seconds) == text


def test_one_credit_is_singular() -> None:
    """Nobody reads "1 credits"."""
    assert (credits_text(1), credits_text(1200)) == ("1 credit", "1,200 credits")


@pytest.mark.parametrize(
    ("items", "text"), [([], ""), (["a"], "a"), (["a", "b"], "a and b"), (["a", "b", "c"], "a, b and c")]
)
def test_a_list_reads_as_a_sentence(items: list[str], text: str) -> None:
    """Several things are named as a person would name them."""
    assert listed(items) == text
