"""What a foreign row says and no field of ours can hold, kept beside the bead so that it can be given back. Pure.

It is the bead's extra key ``imported``, in plain TOML wherever TOML can say it, so that ``git log -p`` shows it.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from beads.model import Bead, Comment

KEY = "imported"
"""The extra key of a bead or a comment that holds the rest of what was imported."""

_INTEGER_MAX = 2**63
_DEPTH_MAX = 16


@dataclass(frozen=True)
class Kept:
    """The rest of an imported row, and what its fields were when it came.

    Attributes:
        seen: a digest of each field that may be edited here, as it was in the file: what differs was edited since.
        exact: the values of the row that we would have printed otherwise, or not at all.
        without: what we would have printed and the row does not say.
        also: the keys of the row that the bead has under their own names.
        parent: the parent that the row's dotted id implies and no dependency names.
    """

    seen: Mapping[str, str] = field(default_factory=dict)
    exact: Mapping[str, Any] = field(default_factory=dict)
    without: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    parent: str = ""

    @classmethod
    def of(cls, thing: Bead | Comment) -> Kept | None:
        """What is kept of a bead or a comment; None when it was not imported."""
        table = (thing.model_extra or {}).get(KEY)
        if not isinstance(table, dict):
            return None
        return cls(
            seen=table.get("seen", {}),
            exact={**table.get("row", {}), **json.loads(table.get("json", "{}"))},
            without=tuple(table.get("without", ())),
            also=tuple(table.get("also", ())),
            parent=table.get("parent", ""),
        )

    def table(self) -> dict[str, Any]:
        """The value of the extra key: empty parts left out, keys in order."""
        plain = {key: value for key, value in sorted(self.exact.items()) if holds(value)}
        rest = {key: value for key, value in self.exact.items() if key not in plain}
        found = {
            "parent": self.parent,
            "without": sorted(self.without),
            "also": sorted(self.also),
            "json": json.dumps(rest, sort_keys=True) if rest else "",
            "row": plain,
            "seen": dict(sorted(self.seen.items())),
        }
        return {key: value for key, value in found.items() if value}


def difference(row: Mapping[str, Any], printed: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """What a row says otherwise than we would print it, and what it does not say at all."""
    exact = {key: value for key, value in row.items() if key not in printed or not same(value, printed[key])}
    return exact, tuple(key for key in printed if key not in row)


def holds(value: object, depth: int = _DEPTH_MAX) -> bool:
    """Whether TOML can hold a JSON value so that it reads back as the same one."""
    match value:
        case bool():
            return True
        case str():
            return is_text(value)
        case int():
            return -_INTEGER_MAX <= value < _INTEGER_MAX
        case float():
            return math.isfinite(value)
        case list():
            return depth > 0 and all(holds(inner, depth - 1) for inner in value)
        case dict():
            return depth > 0 and all(is_text(key) and holds(inner, depth - 1) for key, inner in value.items())
        case _:
            return False


def is_text(text: str) -> bool:
    """Whether it is Unicode text; JSON may also escape halves of characters."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def same(one: object, other: object) -> bool:
    """Whether two JSON values are the same; unlike for Python, 1 is neither 1.0 nor true."""
    return one == other and (
        isinstance(one, str) or json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    )


def digest(value: object) -> str:
    """A short digest of a JSON value, to notice that it was changed."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:8]
