"""Write commits without a process for each: candidates are made by the dozen, and most of them never land."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from beads.objects import Objects, raw
from refinery.git import Git, Identity
from refinery.registry import common_directory


class Commits:
    """Writes commits; the same arguments give the same ones.

    They are not flushed to the disk one by one, whatever ``core.fsync`` says. Git does not either, unless told to.

    Args:
        git: Git, in any directory of the repository.
        who: the committer, and the author where there is no other.
        when: the time of both, to the second.
    """

    def __init__(self, git: Git, who: Identity, when: datetime) -> None:
        self._objects = Objects(common_directory(git), flush=False)
        self._made = f"{who.name} <{who.email}> {int(when.timestamp())} +0000"

    def write(self, tree: str, parents: Sequence[str], message: str, author: str = "") -> str:
        """Write a commit; its id.

        Args:
            tree: what it holds.
            parents: what it builds on, in this order.
            message: what it says, as it is.
            author: name, address, time and zone as another commit has them; empty for the committer.

        Raises:
            Unreadable: it cannot be written.
        """
        lines = [f"tree {tree}", *(f"parent {parent}" for parent in parents)]
        lines += [f"author {author or self._made}", f"committer {self._made}", "", message]
        made = raw(b"commit", "\n".join(lines).encode("utf-8", "surrogateescape"))
        self._objects.add([made])
        return made.oid
