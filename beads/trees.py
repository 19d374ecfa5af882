"""Git's trees as bytes: find an entry, put entries in. Pure.

A tree of the store has up to a few hundred entries, of which a transaction changes one. Making an object of each
entry, only to write the same bytes again, would cost more than everything else a transaction does.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

FILE = b"100644"
DIRECTORY = b"40000"

_SHA = 20
_ENTRY = re.compile(rb"([^ \0]+ ([^\0]+)\0.{20})", re.DOTALL)


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

    Raises:
        ValueError: these bytes are no tree.
    """

    __slots__ = ("_there", "raw")

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        found = _ENTRY.findall(raw)
        if sum([len(written) for written, _ in found]) != len(raw):
            raise ValueError("an entry is cut off")
        # The bytes of each entry, in the order of the tree.
        self._there: dict[bytes, bytes] = {name: written for written, name in found}

    def get(self, name: bytes) -> Entry | None:
        """The entry of that name."""
        written = self._there.get(name)
        return None if written is None else _entry(name, written)

    def items(self) -> Iterator[tuple[bytes, Entry]]:
        """Every name with its entry, in the order of the tree."""
        return ((name, _entry(name, written)) for name, written in self._there.items())

    def put(self, changes: Mapping[bytes, Entry | None]) -> Tree:
        """The tree with these entries added or replaced; where there is None for one, without it."""
        there, moved = self._there.copy(), False
        for name, entry in changes.items():
            before = there.pop(name, None) if entry is None else there.get(name)
            if entry is not None:
                there[name] = b"%b %b\0%b" % (entry.mode, name, entry.sha)
                moved = moved or before is None or _is_tree(before) != entry.is_tree
        if moved:
            there = {name: there[name] for name in _ordered(there)}
        made = Tree.__new__(Tree)
        made.raw, made._there = b"".join(there.values()), there
        return made


def _entry(name: bytes, written: bytes) -> Entry:
    return Entry(written[: -len(name) - _SHA - 2], written[-_SHA:])


def _ordered(there: Mapping[bytes, bytes]) -> list[bytes]:
    """The names in the order of a tree: Git sorts a directory as if its name ended in a slash."""
    if not any(map(_is_tree, there.values())):
        return sorted(there)
    return sorted(there, key=lambda name: name + b"/" if _is_tree(there[name]) else name)


def _is_tree(written: bytes) -> bool:
    return written.startswith(b"40000 ")
