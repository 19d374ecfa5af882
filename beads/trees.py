"""Git's trees as bytes: find an entry, put entries in. Pure.

A tree of the store has up to a few hundred entries, of which a transaction changes one. Making an object of each
entry, only to write the same bytes again, would cost more than everything else a transaction does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

FILE = b"100644"
DIRECTORY = b"40000"

_SHA = 20


class Entry(NamedTuple):
    """What a name in a tree stands for: ``mode`` as it is written, and the twenty bytes of the object's id."""

    mode: bytes
    sha: bytes

    @property
    def is_tree(self) -> bool:
        """Whether there is a tree behind it."""
        return self.mode == DIRECTORY


class Tree:
    """A tree object's content; immutable.

    Attributes:
        raw: the bytes.
        at: where in them the object id of each name begins, in the order of the tree.
    """

    __slots__ = ("at", "raw")

    def __init__(self, raw: bytes, at: Mapping[bytes, int] | None = None) -> None:
        self.raw = raw
        self.at = _offsets(raw) if at is None else at

    def get(self, name: bytes) -> Entry | None:
        """The entry of that name."""
        place = self.at.get(name)
        if place is None:
            return None
        end = place - len(name) - 2
        # Of all modes only that of a directory has these five digits at its end.
        mode = self.raw[end - 5 : end]
        return Entry(mode if mode == DIRECTORY else self.raw[end - 6 : end], self.raw[place : place + _SHA])

    def items(self) -> Iterator[tuple[bytes, Entry]]:
        """Every name with its entry, in the order of the tree."""
        start = 0
        for name, place in self.at.items():
            yield name, Entry(self.raw[start : place - len(name) - 2], self.raw[place : place + _SHA])
            start = place + _SHA

    def put(self, changes: Mapping[bytes, Entry | None]) -> Tree:
        """The tree with these entries added or replaced; where there is None for one, without it."""
        raw = bytearray(self.raw)
        for name, entry in changes.items():
            place = self.at.get(name)
            if place is None or entry is None:
                return self._merged(changes)
            if raw[place - len(name) - 2 - len(entry.mode) : place - len(name) - 2] != entry.mode:
                return self._merged(changes)
            raw[place : place + _SHA] = entry.sha
        return Tree(bytes(raw), self.at)

    def _merged(self, changes: Mapping[bytes, Entry | None]) -> Tree:
        both = {**dict(self.items()), **changes}
        entries = {name: entry for name, entry in both.items() if entry is not None}
        # Git sorts a directory as if its name ended in a slash.
        order = sorted(entries, key=lambda name: name + b"/" if entries[name].is_tree else name)
        at, end = dict[bytes, int](), 0
        for name in order:
            at[name] = end + len(entries[name].mode) + len(name) + 2
            end = at[name] + _SHA
        return Tree(b"".join(b"%b %b\0%b" % (entries[name].mode, name, entries[name].sha) for name in order), at)


def _offsets(raw: bytes) -> dict[bytes, int]:
    """Where the id of each name begins.

    Raises:
        ValueError: these bytes are no tree.
    """
    found: dict[bytes, int] = {}
    start = 0
    while start < len(raw):
        end = raw.index(b"\0", start)
        found[raw[raw.index(b" ", start, end) + 1 : end]] = end + 1
        start = end + 1 + _SHA
    if start != len(raw):
        raise ValueError("the last entry is cut off")
    return found
