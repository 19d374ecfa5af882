"""A process that writes until it is told to stop: ``python -m tests.faults.worker NAME COUNT``, in a repository.

It prints a line for everything that it knows to be written, when it knows it: what it said, created or claimed. After
COUNT lines it stops; with 0 it goes on until it is killed.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from beads.errors import LostRace
from beads.ops import Claim, Create, Operation, Release, Say
from beads.store import Decision, Snapshot, Store
from tests.beads.strategies import bead
from tests.world import ROOT

PACK = 70
"""So many beads at once are written as a pack."""


def start(repo: Path, name: str, count: int, out: int) -> subprocess.Popen[str]:
    """Start one in that repository."""
    command = [sys.executable, "-m", "tests.faults.worker", name, str(count)]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, cwd=repo, env=environ, stdout=out, stdin=subprocess.DEVNULL, text=True)


def _rounds(store: Store, name: str) -> Iterator[str]:
    """Small writes, and at times a large one; each is told when it is done."""
    for number in itertools.count():
        store.commit(name, [Say(id="bt-0", text=f"{name}/{number}")])
        yield f"said {name}/{number}"
        store.commit(name, [Create(bead=bead(f"bt-{name}-{number}"))])
        yield f"made bt-{name}-{number}"
        if number % 5 == 4:
            store.commit(name, [Create(bead=bead(f"bt-{name}-{number}.{part}")) for part in range(PACK)])
            yield f"made bt-{name}-{number}.{PACK - 1}"
        yield from _claimed(store, name)
        assert f"{name}/{number}" in [comment.text for comment in store.snapshot().need("bt-0").comments]


def _claimed(store: Store, name: str) -> Iterator[str]:
    """Take one of the few that all want, and give back every second one."""
    with suppress(LostRace):
        (won,) = store.commit(name, _free(name)).beads or (None,)
        if won is not None:
            yield f"claimed {won.id} {won.epoch}"
            if won.epoch % 2:
                store.commit(name, [Release(id=won.id, worker=name, epoch=won.epoch)])
                yield f"released {won.id} {won.epoch}"


def _free(name: str) -> Decision:
    def decide(snapshot: Snapshot) -> Sequence[Operation]:
        wanted = (snapshot.need(f"bt-{number}") for number in range(1, 40))
        free = [found.id for found in wanted if found.lease is None]
        return [Claim(id=bead_id, worker=name) for bead_id in free[:1]]

    return decide


def main() -> None:
    """Do what the arguments say."""
    name, count = sys.argv[1], int(sys.argv[2])
    for line in itertools.islice(_rounds(Store.open(Path.cwd()), name), count or None):
        # One call for each line: what was told is whole.
        os.write(1, f"{line}\n".encode())


if __name__ == "__main__":
    main()
