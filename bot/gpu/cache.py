"""A small cache that drops the least recently used entry, and counts how often it helped."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Value = TypeVar("Value")


class Cache(Generic[Value]):
    """At most `size_max` values, each made from something else than its key (a picture, not its digest)."""

    def __init__(self, size_max: int) -> None:
        self._values: OrderedDict[Hashable, Value] = OrderedDict()
        self._size_max = size_max
        self.hits = 0
        self.misses = 0

    def get(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """Return the value of `key`; a missing one is made with `make` and stored."""
        if key in self._values:
            self.hits += 1
            self._values.move_to_end(key)
            return self._values[key]
        self.misses += 1
        value = self._values[key] = make()
        while len(self._values) > self._size_max:
            self._values.popitem(last=False)
        return value
