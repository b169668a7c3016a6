"""Texts of members and moderators, made safe to show on Discord."""

from __future__ import annotations

import discord


def plain(text: str, chars_max: int) -> str:
    """Return `text` on one line, shortened, so that none of it acts as markup, link or mention."""
    line = one_line(text, chars_max)
    # `escape_markdown` leaves addresses as they are; an invisible space keeps them from becoming links.
    return discord.utils.escape_mentions(discord.utils.escape_markdown(line)).replace("://", ":\u200b//")


def one_line(text: str, chars_max: int) -> str:
    """Return the printable characters of `text` on one line; an ellipsis shows where it was cut."""
    line = " ".join("".join(c for c in text if c.isprintable() or c.isspace()).split())
    return line if len(line) <= chars_max else f"{line[: chars_max - 1]}…"
