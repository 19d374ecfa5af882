"""Merge requests that go to a forge instead of onto main: what is opened and merged there, what a person has to do."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from beads import graph
from beads.clock import Clock
from beads.model import Bead, Evidence, milliseconds
from beads.ops import Judge, Land
from beads.store import Snapshot, Store
from refinery.desk import OPENED, Ask, Desk, opened_as
from refinery.forge import Seen, body_of
from refinery.git import Git
from refinery.landing import LandingTable, Trouble
from refinery.merge import Request

BRANCHES = "polecat/"
"""Where the branches of requests are on the remote; the molecule's id follows."""


@dataclass
class Proposals:
    """The requests of one clone that a forge has, or is to have.

    Attributes:
        store: where it is kept that one was opened.
        git: Git in the clone.
        ref: main's ref here.
        clock: what time it is.
        by: who writes into the store.
        desk: what talks to the forge.
        asking: those that are to be opened, in this order.
    """

    store: Store
    git: Git
    ref: str
    clock: Clock
    by: str
    desk: Desk
    asking: tuple[Request, ...] = ()
    _main: str | None = None
    _looked_at: set[tuple[str, Seen | None]] = field(default_factory=set)

    def take(self, requests: Sequence[Request]) -> list[str]:
        """Record what main has of them, which the forge has merged; a line for each."""
        return [line for request in requests for line in self._take(request)]

    def tick(self, table: LandingTable, base: str, requests: Sequence[Request]) -> list[str]:
        """Have opened what is to be opened, once, and store where; a line for each."""
        snapshot = self.store.snapshot()
        opened = self.opened(snapshot, requests)
        asks = [request for request in self.asking if request in requests and request not in opened]
        new, old = ([_ask(snapshot, request) for request in some] for some in (asks, opened))
        self.desk.tick(table, base, new, old)
        return [line for request in requests for line in self._note(snapshot, request)]

    def opened(self, snapshot: Snapshot, requests: Sequence[Request]) -> list[Request]:
        """Those that were opened on the forge, in an order that does not depend on what is tested."""
        found = [request for request in requests if opened_as(snapshot.need(request.id))]
        return sorted(found, key=lambda request: request.id)

    def standing(self, snapshot: Snapshot, requests: Sequence[Request]) -> Trouble | None:
        """What a person has to do on the forge before anything else can happen; None when there is nothing."""
        opened = self.opened(snapshot, requests)
        declined = [r for r in opened if (seen := self.desk.seen.get(r.id)) is not None and seen.state == "closed"]
        if declined:
            where = opened_as(snapshot.need(declined[0].id))
            remedy = f"Reopen it there, or give the work up: bead close {declined[0].molecule}"
            return Trouble(f"{where} was closed without being merged", remedy)
        if opened:
            where = ", ".join(opened_as(snapshot.need(request.id)) for request in opened[:5])
            return Trouble(f"what is to land waits on the forge: {where}", "Merge it there.")
        return None

    def _note(self, snapshot: Snapshot, request: Request) -> list[str]:
        """Store that a request was opened, and where."""
        seen = self.desk.seen.get(request.id)
        if seen is None or opened_as(snapshot.need(request.id)):
            return []
        now = milliseconds(self.clock.now())
        where = f"#{seen.number} {seen.url}"
        key = hashlib.sha256(f"{request.id}\0{where}".encode()).hexdigest()[:12]
        said = Evidence(id=key, subject=OPENED, verdict="pass", detail=where, commit=request.head, by=self.by, at=now)
        self.store.commit(
            self.by, [Judge(id=request.id, evidence=said)], f"asked for {request.id} on the forge: {where}"
        )
        return [f"asked for {request.id} on the forge: {where}"]

    def _take(self, request: Request) -> list[str]:
        main, seen = self.git.resolve(self.ref), self.desk.seen.get(request.id)
        if main != self._main:
            self._main = main
            self._looked_at.clear()
        # As long as neither main nor the forge says anything new, neither does this.
        if main is None or (request.id, seen) in self._looked_at:
            return []
        self._looked_at.add((request.id, seen))
        commit = self._merged(request, seen)
        if not commit:
            return []
        self.store.commit(self.by, [Land(ids=(request.id,), commit=commit)])
        return [f"landed {request.id} as {commit[:12]}, on the forge"]

    def _merged(self, request: Request, seen: Seen | None) -> str:
        """The commit with which main got it; empty when main has it not."""
        if self.git.has(request.head) and self.git.is_ancestor(request.head, self.ref):
            span = ("--first-parent", "--ancestry-path", "--reverse", f"{request.head}..{self.ref}")
            return next(iter(self.git.line("rev-list", *span).splitlines()), request.head)
        if seen is not None and seen.state == "merged" and seen.merged and self.git.has(seen.merged):
            return seen.merged if self.git.is_ancestor(seen.merged, self.ref) else ""
        return ""


def _ask(snapshot: Snapshot, request: Request) -> Ask:
    molecule, bead = snapshot.need(request.molecule), snapshot.need(request.id)
    heads = tuple(other.merge.head for other in _siblings(snapshot, molecule) if other.merge)
    body = body_of(molecule, graph.steps(snapshot, molecule), bead)
    return Ask(request, BRANCHES + request.molecule, heads, request.title, body)


def _siblings(snapshot: Snapshot, molecule: Bead) -> list[Bead]:
    return graph.merge_requests(snapshot, molecule)
