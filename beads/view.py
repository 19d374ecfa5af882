"""What the pure functions ask of the beads at one moment."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Protocol

from beads.model import Bead


class View(Protocol):
    """The beads at one moment, as the pure functions need them."""

    def get(self, bead_id: str) -> Bead | None:
        """The bead of that id, or None."""
        ...

    def children(self, bead_id: str) -> Sequence[Bead]:
        """The beads whose parent it is, in the order of their ids."""
        ...

    def steps(self, bead_id: str, *, unclosed: bool = False) -> Iterable[Bead]:
        """Those of the children that are steps, in the order of their ids; only the first ones need be taken."""
        ...

    def merges(self, bead_id: str) -> Sequence[Bead]:
        """Those of the children that are merge requests, in the order of their ids."""
        ...

    def dependents(self, bead_id: str) -> Sequence[Bead]:
        """The beads that depend on it in any other way, in the order of their ids."""
        ...

    def unclosed(self) -> Iterable[Bead]:
        """Every bead that is not closed."""
        ...

    def requests(self) -> Iterable[Bead]:
        """The merge requests that are not closed."""
        ...

    def ready(self, now: datetime) -> Iterable[Bead]:
        """What ``graph.ready`` says of this view; where it can be known without looking at every bead, it is."""
        ...
