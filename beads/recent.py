"""A memory of what was asked for lately, which does not grow for ever."""

from __future__ import annotations

from typing import Generic, TypeVar

MOST = 10_000
"""How many things are kept at least, once there were so many, where nobody says otherwise."""

K = TypeVar("K")
V = TypeVar("V")


class Recent(Generic[K, V]):
    """What was put there lately: the last ``most`` things at least, and never more than twice as many."""

    def __init__(self, most: int | None = None) -> None:
        self._most = most
        self._young: dict[K, V] = {}
        self._old: dict[K, V] = {}

    def get(self, key: K) -> V | None:
        """What was put under that key, if it is still there."""
        found = self._young.get(key)
        return self._old.get(key) if found is None else found

    def put(self, key: K, value: V) -> None:
        """Keep it, and forget what is too old."""
        if len(self._young) >= (self._most or MOST):
            self._old, self._young = self._young, {}
        self._young[key] = value

    def clear(self) -> None:
        """Forget everything."""
        self._young, self._old = {}, {}

    def __len__(self) -> int:
        return len(self._young) + len(self._old)
