"""The issue store: beads in a Git ref. Knows nothing of agents, processes or terminals.

What is here is imported when it is asked for: a command that only looks must not pay for everything else.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from beads.model import Bead, Comment, Criterion, Dependency, Evidence, Lease, MergeRequest
    from beads.ops import Operation
    from beads.store import Snapshot, Store, Transaction, Written

_PLACES = {
    "Bead": "beads.model",
    "Comment": "beads.model",
    "Criterion": "beads.model",
    "Dependency": "beads.model",
    "Evidence": "beads.model",
    "Lease": "beads.model",
    "MergeRequest": "beads.model",
    "Operation": "beads.ops",
    "Snapshot": "beads.store",
    "Store": "beads.store",
    "Transaction": "beads.store",
    "Written": "beads.store",
}

__all__ = [
    "Bead",
    "Comment",
    "Criterion",
    "Dependency",
    "Evidence",
    "Lease",
    "MergeRequest",
    "Operation",
    "Snapshot",
    "Store",
    "Transaction",
    "Written",
]


def __getattr__(name: str) -> object:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found: object = getattr(importlib.import_module(_PLACES[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
