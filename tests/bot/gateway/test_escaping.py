"""Texts of people, shown: nothing of them acts, and they keep to their line."""

import pytest

from bot.gateway.escaping import one_line, plain


@pytest.mark.parametrize(
    "text",
    [
        "# heading",
        "> quote",
        "- list",
        "1. list",
        "-# small",
        "```\ncode",
        "</cmd:1>",
        "<t:1:R>",
        "<:e:123456789012345678>",
    ],
)
def test_plain_text_keeps_its_line(text: str) -> None:
    """What would start a heading, list or quote is shown within the quoted prompt."""
    assert "\n" not in plain(text, 100)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("**bold** _it_ `code` ||x||", "\\*\\*bold\\*\\* \\_it\\_ \\`code\\` \\|\\|x\\|\\|"),
        ("@everyone <@123456789012345678>", "@\u200beveryone \\<@\u200b123456789012345678\\>"),
        ("see https://evil.example", "see https:\u200b//evil.example"),
        ("a\u202eb\u200bc\0d", "abcd"),
        ("  two\n lines\t", "two lines"),
    ],
)
def test_nothing_of_a_text_acts(text: str, shown: str) -> None:
    """Markup, mentions, links, reversed text and line breaks are shown and do nothing."""
    assert plain(text, 100) == shown


def test_a_long_text_ends_with_an_ellipsis() -> None:
    """Who reads a shortened text sees that it goes on."""
    assert one_line("x" * 100, 10) == "x" * 9 + "…"
    assert one_line("x" * 10, 10) == "x" * 10
