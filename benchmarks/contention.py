"""Many processes writing to one store at once, beside one process doing the same work alone.

Each bead must be claimed exactly once, and no comment may be lost; both are checked. A try that lost the race for the
ref leaves a commit that no ref reaches, so the tries are counted in the objects.

    python -m benchmarks.contention --processes 16
"""

from __future__ import annotations

import subprocess
import sys
import time
from argparse import ArgumentParser, Namespace
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from beads import Store
from beads.ops import Claim, Create, Say
from benchmarks.common import Figure, environment, git, progress, repository, run
from benchmarks.store import bead

COMMENTED = 16
"""How many beads the comments go to; each gets some of every writer."""


def claim(store: Store, worker: str, amount: int, out: TextIO) -> None:
    """Claim up to ``amount`` beads, as long as one is ready, and say which."""
    for _ in range(amount):
        (found,) = store.commit(worker, [Claim(worker=worker)]).beads
        if found is None:
            return
        print(found.id, file=out)


def comment(store: Store, worker: str, amount: int, out: TextIO) -> None:
    """Make ``amount`` comments, and say which."""
    for number in range(amount):
        store.commit(worker, [Say(id=bead(number % COMMENTED).id, text=f"{worker} {number}")])
        print(f"{worker} {number}", file=out)


WORK = {"claim": claim, "comment": comment}


@dataclass(frozen=True)
class Race:
    """How it went: what the processes said, the seconds, and how many commits came of how many tries."""

    said: list[str]
    seconds: float
    commits: int
    tries: int


def race(place: Path, what: str, processes: int, amount: int) -> Race:
    """Let that many processes do ``amount`` each, starting at the same moment."""
    before, tried = _commits(place), _tries(place)
    workers = [_start(place, what, f"worker{number}", amount) for number in range(processes)]
    for worker in workers:
        assert worker.stdout is not None, "a pipe was asked for"
        worker.stdout.readline()
    begin = time.perf_counter()
    for worker in workers:
        assert worker.stdin is not None, "a pipe was asked for"
        worker.stdin.write("go\n")
        worker.stdin.flush()
    said = [line for worker in workers for line in worker.communicate()[0].splitlines()]
    seconds = time.perf_counter() - begin
    if any(worker.returncode for worker in workers):
        raise RuntimeError(f"a worker failed: {[worker.returncode for worker in workers]}")
    return Race(said, seconds, _commits(place) - before, _tries(place) - tried)


def _start(place: Path, what: str, worker: str, amount: int) -> subprocess.Popen[str]:
    line = [sys.executable, "-m", "benchmarks.contention", "--work", what, worker, str(amount), str(place)]
    return subprocess.Popen(line, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _commits(place: Path) -> int:
    return int(git(place, "rev-list", "--count", "refs/beads/main"))


def _tries(place: Path) -> int:
    kinds = git(place, "cat-file", "--batch-all-objects", "--batch-check=%(objecttype)")
    return Counter(kinds.split())["commit"]


def claims(place: Path, processes: int, beads: int) -> Race:
    """Claim all of ``beads`` beads; each must have one winner."""
    store = Store.init(repository(place), "bench")
    store.commit("bench", [Create(bead=bead(number)) for number in range(beads)])
    told = race(place, "claim", processes, beads)
    epochs = {found.id: found.epoch for found in store.snapshot()}
    if sorted(told.said) != sorted(epochs) or set(epochs.values()) != {1}:
        raise RuntimeError(f"{len(told.said)} claims of {beads} beads, epochs {Counter(epochs.values())}")
    return told


def comments(place: Path, processes: int, amount: int) -> Race:
    """Make ``amount`` comments by each of the processes; none may be lost."""
    store = Store.init(repository(place), "bench")
    store.commit("bench", [Create(bead=bead(number)) for number in range(COMMENTED)])
    told = race(place, "comment", processes, amount)
    kept = [said.text for found in store.snapshot() for said in found.comments]
    if sorted(told.said) != sorted(kept) or len(kept) != processes * amount:
        raise RuntimeError(f"{len(told.said)} comments were made, {len(kept)} are there")
    return told


def measure(place: Path, options: Namespace) -> Iterator[Figure]:
    """Claims and comments, by many and by one."""
    many = options.processes
    progress(f"{many} processes claim")
    yield from _figures(
        f"{many} processes claim {options.beads} beads",
        claims(place / "claims", many, options.beads),
        claims(place / "claims-alone", 1, options.beads),
    )
    progress(f"{many} processes comment")
    yield from _figures(
        f"{many} writers, {options.comments} comments each",
        comments(place / "comments", many, options.comments),
        comments(place / "comments-alone", 1, many * options.comments),
    )


def _figures(name: str, many: Race, one: Race) -> Iterator[Figure]:
    alone = one.commits / one.seconds
    yield Figure(f"{name}: commits", many.commits / many.seconds, "/s", floor=alone, floor_is="one process alone")
    yield Figure(f"{name}: tries a commit", many.tries / many.commits, "")


def add(parser: ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--processes", type=int, default=16, help="how many write at once (16)")
    parser.add_argument("--beads", type=int, default=200, help="how many beads they claim (200)")
    parser.add_argument("--comments", type=int, default=50, help="how many comments each makes (50)")


def main() -> None:
    """Be the benchmark, or with ``--work WHAT NAME AMOUNT DIRECTORY`` one of its processes."""
    if "--work" not in sys.argv:
        run(__doc__, add, measure)
        return
    _, _, what, worker, amount, place = sys.argv
    store = Store.open(Path(place))
    store.snapshot()
    print("ready", flush=True)
    sys.stdin.readline()
    WORK[what](store, worker, int(amount), sys.stdout)


if __name__ == "__main__":
    main()
