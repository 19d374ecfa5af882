"""What the operations of one transaction see of each other: a view with changes on top. Pure."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime

from beads import graph
from beads.errors import NotFound
from beads.model import BLOCKING, Bead, check_id


def related(bead: Bead) -> dict[tuple[bool, str], None]:
    """The beads that this one is related to, each once: whether as its child, and the other's id."""
    parent = bead.parent
    return dict.fromkeys([(d.type == "parent-child" and d.on == parent, d.on) for d in bead.dependencies])


class Draft:
    """A view with changes on top. Costs what changed, however much of that there is already.

    Args:
        base: what is under the changes.
        strangers: ids that it has no bead of, and that none of its beads names.
    """

    def __init__(self, base: graph.View, strangers: Collection[str] = ()) -> None:
        self._base = base
        self._strangers = strangers
        self._changed: dict[str, Bead] = {}
        # Who was ever put in a relation, and in which each is now: one that waits for many is asked by each of them.
        self._related: dict[tuple[bool, str], set[str]] = {}
        self._relations: dict[str, frozenset[tuple[bool, str]]] = {}
        # Beads that wait, in the end, for nothing but beads that are there.
        self._settled: set[str] = set()

    @property
    def changed(self) -> Mapping[str, Bead]:
        """The beads that were added or replaced, by id."""
        return self._changed

    def get(self, bead_id: str) -> Bead | None:
        """The bead as changed so far."""
        return self._changed.get(bead_id) or self.before(bead_id)

    def before(self, bead_id: str) -> Bead | None:
        """The bead as it was before all changes."""
        return None if self.is_new(bead_id) else self._base.get(bead_id)

    def is_new(self, bead_id: str) -> bool:
        """Whether it is known, without a look, that there was no such bead, and none that names it."""
        return bead_id in self._strangers

    def need(self, bead_id: str) -> Bead:
        """The bead as changed so far.

        Raises:
            NotFound: there is none, or it was deleted.
        """
        bead = self.get(check_id(bead_id))
        if bead is not None and bead.deleted:
            raise NotFound(f"{bead_id} was deleted", f"`bead log {bead_id}` shows what it was.")
        if bead is None:
            raise NotFound(f"there is no bead {bead_id!r}", "`bead list` shows what there is.")
        return bead

    def put(self, bead: Bead) -> None:
        """Add or replace a bead."""
        if bead.id in self._settled and not self._settled.issuperset(_waits(bead)):
            self._settled.clear()
        before = self._changed.get(bead.id)
        self._changed[bead.id] = bead
        if before is None or before.dependencies is not bead.dependencies:
            self._relations[bead.id] = frozenset(related(bead))
            for relation in self._relations[bead.id]:
                self._related.setdefault(relation, set()).add(bead.id)

    def closes_cycle(self, new: Bead) -> bool:
        """Whether a bead that is not there yet would wait for itself: somebody waits for its id already."""
        if new.id in _waits(new):
            return True
        if not self.dependents(new.id) and not self.children(new.id):
            return False
        seen: set[str] = set()
        stack, whole = _waits(new), True
        while stack:
            here = stack.pop()
            if here == new.id:
                return True
            if here not in self._settled and here not in seen:
                seen.add(here)
                found = self.get(here)
                whole = whole and found is not None
                stack += _waits(found)
        if whole:
            self._settled |= seen
        return False

    def children(self, bead_id: str) -> Sequence[Bead]:
        """As :meth:`graph.View.children`."""
        base = () if self.is_new(bead_id) else self._base.children(bead_id)
        return self._merged(base, list(self._put((True, bead_id))))

    def steps(self, bead_id: str, *, unclosed: bool = False) -> Iterator[Bead]:
        """As :meth:`graph.View.steps`."""
        there = () if self.is_new(bead_id) else self._base.steps(bead_id, unclosed=unclosed)
        base = (bead for bead in there if bead.id not in self._changed)
        if (True, bead_id) not in self._related:
            return base
        steps = (bead for bead in self._put((True, bead_id)) if bead.issue_type == "step")
        fresh = [bead for bead in steps if not (unclosed and bead.closed)]
        return heapq.merge(base, sorted(fresh, key=_order), key=_order)

    def merges(self, bead_id: str) -> Sequence[Bead]:
        """As :meth:`graph.View.merges`."""
        put = [bead for bead in self._put((True, bead_id)) if bead.merge is not None]
        return self._merged(() if self.is_new(bead_id) else self._base.merges(bead_id), put)

    def dependents(self, bead_id: str) -> Sequence[Bead]:
        """As :meth:`graph.View.dependents`."""
        base = () if self.is_new(bead_id) else self._base.dependents(bead_id)
        return self._merged(base, list(self._put((False, bead_id))))

    def unclosed(self) -> Iterable[Bead]:
        """As :meth:`graph.View.unclosed`."""
        yield from (bead for bead in self._base.unclosed() if bead.id not in self._changed)
        yield from (bead for bead in self._changed.values() if not bead.closed)

    def requests(self) -> Iterator[Bead]:
        """As :meth:`graph.View.requests`."""
        yield from (bead for bead in self._base.requests() if bead.id not in self._changed)
        yield from (bead for bead in self._changed.values() if bead.merge is not None and not bead.closed)

    def ready(self, now: datetime) -> Iterator[Bead]:
        """As :meth:`graph.View.ready`."""
        moved = graph.affected(self, ((self.before(bead_id), bead) for bead_id, bead in self._changed.items()))
        news = (bead for bead_id in moved if (bead := self.get(bead_id)) is not None)
        fresh = sorted((bead for bead in news if graph.is_ready(self, bead, now)), key=graph.rank)
        rest = (bead for bead in self._base.ready(now) if bead.id not in moved)
        return heapq.merge(rest, fresh, key=graph.rank)

    def _merged(self, base: Iterable[Bead], put: list[Bead]) -> list[Bead]:
        found = [bead for bead in base if bead.id not in self._changed]
        return sorted([*found, *put], key=_order) if put else found

    def _put(self, relation: tuple[bool, str]) -> Iterator[Bead]:
        """The beads put on top that are in a relation."""
        put = (bead_id for bead_id in self._related.get(relation, ()) if relation in self._relations[bead_id])
        return (self._changed[bead_id] for bead_id in put)


def _order(bead: Bead) -> str:
    return graph.natural(bead.id)


def _waits(bead: Bead | None) -> list[str]:
    return [d.on for d in bead.dependencies if d.type in BLOCKING] if bead else []
