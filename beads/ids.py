"""Ids: what one looks like, where its bead lies in the tree, and in which order people expect them. Pure."""

from __future__ import annotations

import hashlib
import json
import re
from functools import lru_cache

from beads.errors import InvalidInput

_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*")
_ID_LENGTH_MAX = 128
_DIGITS = re.compile(r"\d+")
_TREE = re.compile(r"beads(?:/([0-9a-f]{2})(?:/([0-9a-f]{2}))?)?")


@lru_cache(100_000)
def check_id(text: str) -> str:
    """``text`` if it is a bead id: letters, digits, ``_``, ``-``, and dots between parts.

    An id becomes a file name and a branch name, so what Git or a file system would read otherwise is refused.

    Raises:
        InvalidInput: it is not.
    """
    if len(text) > _ID_LENGTH_MAX or not _ID.fullmatch(text) or text.endswith(".lock"):
        raise InvalidInput(
            f"{text[:_ID_LENGTH_MAX]!r} is not a bead id",
            "An id is letters, digits, '_' and '-', with dots between parts, such as bt-7f3a9c.2.",
        )
    return text


def path_of(bead_id: str) -> str:
    """Where a bead's file is in the store's tree: two levels of the SHA-1 of its id keep every tree small."""
    digest = hashlib.sha1(check_id(bead_id).encode(), usedforsecurity=False).hexdigest()
    return f"beads/{digest[:2]}/{digest[2:4]}/{bead_id}.toml"


def place_of(path: str | None) -> int | None:
    """The number of one of the trees that beads are in; 0 for the commit, and None for a tree that has no bead."""
    if not path:
        return 0 if path is None else 1
    found = _TREE.fullmatch(path)
    if found is None:
        return None
    first, second = found.groups()
    return 2 if first is None else int(first, 16) + 0x100 if second is None else int(first + second, 16) + 0x10000


def derived_id(prefix: str, *parts: str, length: int = 6) -> str:
    """An id that follows from ``parts`` alone, so that making the same thing twice makes it once."""
    number = int.from_bytes(hashlib.sha256(json.dumps(parts).encode()).digest(), "big")
    digits = "".join("0123456789abcdefghijklmnopqrstuvwxyz"[number // 36**i % 36] for i in range(length))
    return f"{prefix}-{digits}"


def natural(bead_id: str) -> str:
    """A sort key under which ``bt-a.10`` comes after ``bt-a.9``, and ``bt-a`` before everything below it.

    It is a text whose order is that of its code points, so that a database can sort by it, too.
    """
    # A number is as long as it says before it. The id itself at the end decides between 1 and 01, so that no two
    # beads are ever in an order of their own.
    padded = _DIGITS.sub(lambda found: _counted(found[0].lstrip("0") or "0"), bead_id)
    return f"{padded.replace('.', chr(2))}{chr(1)}{bead_id}"


def _counted(digits: str) -> str:
    return f"{len(digits):03}{digits}"
