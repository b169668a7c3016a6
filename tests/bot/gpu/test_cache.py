"""The cache of prompts and pictures."""

from __future__ import annotations

from bot.gpu.cache import Cache


def test_least_recently_used_entry_is_dropped() -> None:
    """A full cache drops the entry that was not used for the longest time."""
    cache: Cache[int] = Cache(2)
    for key in (1, 2, 1, 3):
        cache.get(key, lambda: 0)
    assert cache.get(1, lambda: 7) == 0
    assert cache.get(2, lambda: 7) == 7
