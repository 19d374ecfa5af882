"""The issue store: beads in a Git ref. Knows nothing of agents, processes or terminals."""

from beads.model import Bead, Comment, Criterion, Dependency, Evidence, Lease, MergeRequest
from beads.ops import Operation
from beads.store import Snapshot, Store, Transaction, Written

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
