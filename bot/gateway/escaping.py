"""Texts of members and moderators, made safe to show on Discord."""

from __future__ import annotations

import re
from typing import Final

#: Whatever begins markup, a link, a mention, a timestamp or a custom emoji anywhere on a line.
_MARKUP: Final = re.compile(r"[\\`*_~|<>\[\]]")
#: Whatever begins a heading, small text or a list item at the start of a line, up to what can be escaped.
_LINE_START: Final = re.compile(r"^(?P<before>\d*)(?P<mark>[-+#]|(?<=\d)[.)](?=\s))")
#: Addresses, invites and mentions need no markup that could be escaped: an invisible space breaks them.
_BREAK_AFTER: Final = re.compile(r"(?i):(?=//)|discord(?:app)?(?=\.(?:gg|com)/)|@(?=everyone|here|[!&]?\d)")


def plain(text: str, chars_max: int) -> str:
    """Return `text` on one line, shortened, so that none of it acts as markup, link or mention.

    The result may be twice as long as `chars_max`, for the characters that have to be escaped.
    """
    line = _MARKUP.sub(r"\\\g<0>", one_line(text, chars_max))
    line = _LINE_START.sub(r"\g<before>\\\g<mark>", line)
    return _BREAK_AFTER.sub("\\g<0>\u200b", line)


def one_line(text: str, chars_max: int) -> str:
    """Return the printable characters of `text` on one line; an ellipsis shows where it was cut."""
    line = " ".join("".join(c for c in text if c.isprintable() or c.isspace()).split())
    return line if len(line) <= chars_max else f"{line[: chars_max - 1]}…"
