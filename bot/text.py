"""Small pieces of sentences, worded once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from bot.pictures.sizes import MEGAPIXEL

#: Up to these many seconds a wait is given in which unit: an exact figure would only seem exact.
_MOMENT_S: Final = 8
_IN_SECONDS_S: Final = 90
_IN_MINUTES_S: Final = 5_400

#: The fields of `GuildSettings` as people call them.
SETTING_LABELS: Final = {
    "allowance": "daily allowance",
    "daily_cap": "daily server cap",
    "running_max": "running jobs per member",
    "waiting_max": "waiting jobs per member",
    "steps_max": "maximum steps",
    "samples_max": "maximum samples",
    "pixels_max": "maximum size",
    "slow_s": "slow mode",
    "giving": "giving credits",
    "frozen": "server stopped",
    "private": "private by default",
    "results_channel_id": "results channel",
    "log_channel_id": "log channel",
}


def credits_text(amount: int) -> str:
    """Return "1 credit" or "12 credits"."""
    return counted(amount, "credit")


def counted(number: int, noun: str) -> str:
    """Return "1 job" or "1,200 jobs"."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def listed(items: Sequence[str], conjunction: str = "and") -> str:
    """Return "a", "a and b" or "a, b and c"; nothing for no items."""
    *others, last = items or ("",)
    return f"{', '.join(others)} {conjunction} {last}" if others else last


def ordinal(number: int) -> str:
    """Return "1st", "2nd", "3rd", "11th" …."""
    suffix = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number:,}{suffix}"


def duration_text(seconds: float) -> str:
    """Return an expected wait as a person would say it: "a few seconds", "about 40 s", "about 3 min"."""
    if seconds < _MOMENT_S:
        return "a few seconds"
    if seconds < _IN_SECONDS_S:
        return f"about {round(seconds / 5) * 5} s"
    if seconds < _IN_MINUTES_S:
        return f"about {round(seconds / 60)} min"
    return f"about {round(seconds / 3_600)} h"


def exact_duration_text(seconds: int) -> str:
    """Return a duration that was set, to the second: "5 s", "2 min", "1 h 30 min"."""
    hours, rest = divmod(seconds, 3_600)
    minutes, left = divmod(rest, 60)
    parts = [f"{amount} {unit}" for amount, unit in ((hours, "h"), (minutes, "min"), (left, "s")) if amount]
    return " ".join(parts) or "0 s"


def megapixels_text(pixels: int) -> str:
    """Return "0.5 megapixels", or "1 megapixel"."""
    amount = f"{pixels / MEGAPIXEL:.2g}"
    return f"{amount} megapixel" if amount == "1" else f"{amount} megapixels"
