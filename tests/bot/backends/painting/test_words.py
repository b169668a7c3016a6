from __future__ import annotations

import pytest

from bot.backends.painting.grading import PALETTES
from bot.backends.painting.media import MEDIA
from bot.backends.painting.words import MEDIUM_WORDS, PALETTE_WORDS, styles


@pytest.mark.parametrize(
    ("prompt", "negative", "found"),
    [
        ("a BLUE cat", "", ["blue"]),
        ("a blueprint", "", []),
        ("golden,autumn!", "", ["golden", "autumn"]),
        ("autumn in gold", "", ["autumn", "golden"]),
        ("black-and-white photo", "", ["noir"]),
        ("a blue ocean", "Sea", []),
        ("a blue night", "low quality, night", ["blue"]),
        ("", "", []),
        ("\x00\u202e blue", "", ["blue"]),
    ],
)
def test_whole_words_name_palettes(prompt: str, negative: str, found: list[str]) -> None:
    """Whole words name palettes in the order of mention, and any word of one forbids it."""
    assert styles(prompt, negative, PALETTE_WORDS) == found


def test_both_spellings_name_a_medium() -> None:
    """Both spellings of a medium mean the same."""
    assert (
        styles("watercolor", "", MEDIUM_WORDS)
        == styles("A Watercolour.", "", MEDIUM_WORDS)
        == ["watercolour"]
    )
    assert styles("oil, pencil", "oil", MEDIUM_WORDS) == ["sketch"]


def test_every_style_can_be_painted() -> None:
    """Every style that a prompt can name is one that the painter has."""
    assert set(MEDIUM_WORDS) == set(MEDIA) - {""}
    assert set(PALETTE_WORDS) == set(PALETTES)


def test_no_word_names_two_styles() -> None:
    """No word stands for two palettes or two media, so a prompt is never read two ways."""
    for words in (MEDIUM_WORDS, PALETTE_WORDS):
        listed = [word for line in words.values() for word in line.split(", ")]
        assert len(listed) == len(set(listed))
