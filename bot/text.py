"""Small pieces of sentences, worded once."""

from __future__ import annotations

from typing import Final

#: Up to where a wait is told in which unit.
_MOMENT_S: Final = 8
_IN_SECONDS_S: Final = 90
_IN_MINUTES_S: Final = 5_400


def credits_text(amount: int) -> str:
    """Return "1 credit" or "12 credits"."""
    return counted(amount, "credit")


def counted(number: int, noun: str) -> str:
    """Return "1 job" or "1,200 jobs"."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def ordinal(number: int) -> str:
    """Return "1st", "2nd", "3rd", "11th" …."""
    suffix = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number:,}{suffix}"


def duration_text(seconds: float) -> str:
    """Return a wait as a person would say it: "a few seconds", "about 40 s", "about 3 min"."""
    if seconds < _MOMENT_S:
        return "a few seconds"
    if seconds < _IN_SECONDS_S:
        return f"about {round(seconds / 5) * 5} s"
    if seconds < _IN_MINUTES_S:
        return f"about {round(seconds / 60)} min"
    return f"about {round(seconds / 3_600)} h"
