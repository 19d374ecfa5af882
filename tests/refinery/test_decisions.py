"""A person decides about requests while the Refinery works, and dies: whatever they decide, every promise is kept."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path
from random import Random

import pytest

from beads import Snapshot, graph
from beads.clock import milliseconds
from beads.errors import LostRace, Refused
from beads.model import Bead
from beads.ops import Again, Bump, Operation, Reopen, Withdraw
from refinery.refinery import Refinery
from roles.revert import revert
from roles.site import Site
from tests.refinery.invariants import assert_kept
from tests.refinery.yard import make_yard, refinery_of, site_of, submit, work
from tests.world import git

FEW, MANY = range(2), range(2, 22)


class Person:
    """Somebody who decides by chance, and is sometimes too late."""

    def __init__(self, site: Site, chance: Random) -> None:
        self.site = site
        self.chance = chance
        self.said: list[str] = []

    def decide(self) -> None:
        snapshot = self.site.store.snapshot()
        requests = [bead for bead in snapshot if bead.merge]
        request = self.chance.choice(requests)
        what = self.chance.choice(["bump", "withdraw", "again", "again", "revert", "reopen"])
        with suppress(Refused, LostRace):
            if what == "revert":
                self.revert(request)
            else:
                self.site.store.commit("ada", [self.operation(what, request)])
            self.said.append(what)

    def operation(self, what: str, request: Bead) -> Operation:
        match what:
            case "bump":
                return Bump(id=request.id)
            case "withdraw":
                return Withdraw(id=request.id, reason="not now")
            case "again":
                return Again(id=request.id)
            case _:
                return Reopen(id=request.parent or request.id)

    def revert(self, request: Bead) -> None:
        if (request.outcome == "landed" and not request.id.startswith("bt-")) or request.title.startswith("Do "):
            revert(self.site, request.id, "ada", "", milliseconds(self.site.clock.now()))


@pytest.mark.parametrize("seed", [*FEW, *(pytest.param(seed, marks=pytest.mark.slow) for seed in MANY)])
def test_whatever_a_person_decides_meanwhile_every_promise_is_kept(tmp_path: Path, seed: int) -> None:
    chance = Random(seed)
    repository = make_yard(tmp_path / "project")
    git(repository, "checkout", "--quiet", "--detach")
    names = list("abcdef")
    bad, hanging = chance.sample(names, 2)
    for place, name in enumerate(names):
        text = "no\n" if name == bad else "hangs\n" if name == hanging and chance.random() < 0.5 else "ok\n"
        needs = (chance.choice(names[:place]),) if place and chance.random() < 0.3 else ()
        submit(repository, name, {f"parts/{name}": text}, priority=chance.randint(1, 3), needs=needs)
    site = site_of(repository)
    person = Person(site, chance)
    refinery = refinery_of(site, "refinery-1")
    for _ in range(40):
        if chance.random() < 0.35:
            person.decide()
        if chance.random() < 0.1:
            refinery = die(site, refinery)
        lines = refinery.tick()
        while refinery.busy and not refinery.judged and chance.random() < 0.9:
            time.sleep(0.002)
        if not lines and not refinery.busy and chance.random() < 0.3:
            break
    refinery.close()
    work(site)
    ledger = assert_kept(repository, markers=[site.marker("refinery-1"), site.marker(f"refinery-{os.getpid()}")])
    assert person.said
    assert ledger.landings
    snapshot = site.store.snapshot()
    for bead in snapshot:
        if bead.merge and not snapshot.need(bead.merge.molecule).closed:
            assert_kept_and_told(site, snapshot, bead)


def die(site: Site, refinery: Refinery) -> Refinery:
    """Another Refinery after this one was killed, which has nothing but what is stored."""
    refinery.cancel()
    return refinery_of(site, "refinery-1")


def assert_kept_and_told(site: Site, snapshot: Snapshot, request: Bead) -> None:
    """The head of what has not landed is kept by a ref, and somebody is the next to act."""
    assert request.merge is not None
    molecule = snapshot.need(request.merge.molecule)
    refs = git(site.git.directory, "for-each-ref", "--format=%(refname)", f"--contains={request.merge.head}")
    assert refs, f"the head of {request.id} is lost"
    state = graph.state(snapshot, molecule, site.clock.now())
    if snapshot.merges(molecule.id)[-1].outcome == "cancelled":
        # What it needs comes first: nothing can be decided about it before.
        assert state.kind == ("blocked" if graph.awaited(snapshot, request) else "needs_person")
        assert state.kind == "blocked" or "took it out of the merge queue" in state.reason
    elif not snapshot.merges(molecule.id)[-1].closed:
        assert state.kind == "queued"
