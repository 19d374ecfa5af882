"""Clones of one store around a bare repository, for tests of what they make of it together.

``python -m tests.beads.clones ROLE PLACE NAME`` is a process in one of them; see the roles at the end.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import sys
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from beads import ops, sync
from beads.clock import Clock, SystemClock
from beads.errors import LostRace, TownError
from beads.git import Oid, Repository
from beads.model import Bead
from beads.remote import REMOTE_REF, Remote
from beads.store import Store
from tests.beads.strategies import NOW, bead
from tests.world import git

IDS = [f"bt-{number}" for number in range(6)]


def make_hub(place: Path) -> Path:
    """A bare repository that everybody pushes to."""
    git(place, "init", "--quiet", "--bare", "hub.git")
    return place / "hub.git"


@dataclass
class Clone:
    """One clone, whose store may not be there yet."""

    path: Path
    name: str
    clock: Clock = field(default_factory=SystemClock)
    ref: str = REMOTE_REF
    url: str = "origin"

    @classmethod
    def make(cls, hub: Path | str, name: str, place: Path) -> Clone:
        git(place, "init", "--quiet", name)
        git(place / name, "remote", "add", "origin", str(hub))
        return cls(place / name, name)

    @property
    def store(self) -> Store:
        store = Store(Repository(self.path), self.clock)
        store.site = self.name
        store.renewed = self.remote.renewed
        return store

    @property
    def remote(self) -> Remote:
        return Remote(Repository(self.path), self.url, self.ref, environ=os.environ)

    @property
    def head(self) -> Oid | None:
        return self.store.repository.head(self.store.ref)

    @property
    def tree(self) -> Oid:
        assert self.head is not None
        return self.store.repository.commit(self.head).tree

    def begin(self, *ids: str) -> Clone:
        Store.init(self.path, self.name).commit(self.name, [ops.Create(bead=bead(one)) for one in ids or IDS])
        return self

    def do(self, *operations: ops.Operation) -> None:
        self.store.commit(self.name, operations)

    def get(self, bead_id: str) -> Bead:
        return self.store.snapshot().need(bead_id)

    def sync(self, *, adopt: bool = False) -> sync.Synced:
        return sync.sync(self.store, self.remote, self.name, random.Random(self.name), adopt=adopt)

    def claim(self, bead_id: str | None, worker: str = "") -> Bead | None:
        wanted = ops.Claim(id=bead_id, worker=worker or self.name, site=self.name)
        return sync.claim(self.store, self.remote, self.name, wanted, random.Random(self.name)).beads[0]

    def peek(self, other: Clone) -> None:
        """Take over what another clone has, without telling it."""
        remote = Remote(Repository(self.path), str(other.path), environ=os.environ)
        sync.integrate(self.store, remote, remote.fetch(), self.name)


def anything(clone: Clone, chance: random.Random, serial: int) -> None:
    """Do something to some bead, unless a rule says no."""
    bead_id = chance.choice(IDS)
    worker, epoch = clone.name, max(1, clone.get(bead_id).epoch)
    new = bead(f"bt-{chance.choice('xyz')}", title=f"By {clone.name}", description=f"number {serial}")
    choices: list[ops.Operation] = [
        ops.Say(id=bead_id, text=f"{clone.name} {serial}"),
        ops.Say(id=bead_id, text=f"{clone.name} {serial}"),
        ops.Update(id=bead_id, title=f"Title {chance.randrange(4)}"),
        ops.Update(id=bead_id, priority=chance.randrange(5)),
        ops.Update(id=bead_id, status=chance.choice(["open", "deferred"])),
        ops.Label(id=bead_id, add=(chance.choice("abc"),), remove=(chance.choice("abc"),)),
        ops.Depend(id=bead_id, on=chance.choice(IDS), remove=chance.random() < 0.4),
        ops.Claim(id=bead_id, worker=worker, site=clone.name, seconds=chance.choice([1, 1000])),
        ops.Release(id=bead_id, worker=worker, epoch=epoch),
        ops.Close(id=bead_id, outcome="cancelled", reason=f"because {serial}"),
        ops.Reopen(id=bead_id),
        ops.Create(bead=new.evolve(created_at=NOW + timedelta(seconds=serial))),
    ]
    with contextlib.suppress(TownError):
        clone.do(chance.choice(choices))


def said(clone: Clone) -> set[str]:
    """Everything that was ever said in a clone, by people."""
    return {comment.text for one in clone.store.snapshot() for comment in one.comments if comment.author != "sync"}


def main() -> None:
    """``claim``: claim everything, in an order of its own. ``sync``: say something and sync, many times."""
    role, place, name = sys.argv[1:4]
    clone = Clone(Path(place), name)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    won = []
    if role == "claim":
        ids = list(IDS)
        random.Random(name).shuffle(ids)
        for bead_id in ids:
            with contextlib.suppress(LostRace):
                clone.claim(bead_id)
                won.append(bead_id)
    else:
        for number in range(8):
            won.append(f"{name} {number}")
            clone.do(ops.Say(id=IDS[0], text=won[-1]))
            clone.sync()
    json.dump(won, sys.stdout)


if __name__ == "__main__":
    main()
