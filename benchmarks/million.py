"""A million beads: how long they take to create, to index and to use, and how much memory that needs.

python -m benchmarks.million --beads 1000000
"""

from __future__ import annotations

import resource
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import count, islice
from pathlib import Path
from random import Random

from beads import Store
from beads.index import Choice
from beads.ops import Claim, Create
from benchmarks import graph, processes
from benchmarks.common import BEAD, Figure, Launcher, Watch, progress, quantile, repository, run
from benchmarks.store import bead

MEMORY_AT_MOST = 300e6
"""Bytes that an everyday command may have at its peak."""


def creation(place: Path, options: Namespace) -> Iterator[Figure]:
    """Fill the store, and say how large it became."""
    store = Store.init(repository(place), "bench")
    seconds = graph.fill(store, options.beads, options.seed)
    yield Figure(f"create {options.beads:,} beads", seconds)
    yield Figure("beads created", options.beads / seconds, "/s")
    yield Figure("most memory of the process that created them", _peak(), "bytes")
    yield Figure("objects in Git", sum(_sizes(place / ".git" / "objects")), "bytes")
    yield Figure("index", sum(path.stat().st_size for path in _index(store)), "bytes")


def _sizes(place: Path) -> Iterator[int]:
    return (path.stat().st_size for path in place.rglob("*") if path.is_file())


def _index(store: Store) -> list[Path]:
    return sorted(store.directory.glob("index.db*"))


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def rebuilding(place: Path) -> Iterator[Figure]:
    """Remove the index; the first command builds it anew."""
    for path in _index(Store.open(place)):
        path.unlink()
    progress("building the index")
    with Launcher(place) as launcher:
        ran = launcher.run(*BEAD, "ready", "--limit", "10", "--json")
    yield Figure("first command without an index", ran.seconds)
    yield Figure("most memory of it", ran.peak, "bytes")


def in_process(place: Path, options: Namespace) -> Iterator[Figure]:
    """Questions and claims in a process that stays."""
    store, chance, clusters = Store.open(place), Random(options.seed), options.beads // graph.CLUSTER
    now = datetime.now(UTC)
    with Watch() as first:
        store.snapshot().get(graph.name(0, 1))
    yield Figure("in-process: open the store and show one", first.seconds)
    # A bead can be claimed once, so there are as many more as there are claims.
    store.commit("bench", [Create(bead=bead(number)) for number in range(2 * options.times)])
    free = count()
    questions: dict[str, Callable[[], object]] = {
        "show": lambda: store.snapshot().need(graph.name(chance.randrange(clusters), 1)),
        "ready, 10": lambda: list(islice(store.snapshot().ready(now), 10)),
        "list, 50": lambda: list(islice(store.snapshot().unclosed(), 50)),
        "search, 20": lambda: list(store.snapshot().rows(Choice(text="unicode", limit=20), now)),
        "claim": lambda: store.commit("bench", [Claim(id=bead(next(free)).id, worker="bench")]),
        "claim the best": lambda: store.commit("bench", [Claim(worker="other")]),
    }
    for name, question in questions.items():
        progress(f"in-process: {name}")
        samples = list(_samples(question, options.times, options.seconds))
        yield from _two(f"in-process: {name}", samples)


def _samples(question: Callable[[], object], times: int, seconds: float) -> Iterator[float]:
    """How long it takes, up to ``times`` times, but no longer than ``seconds`` altogether."""
    deadline = time.perf_counter() + seconds
    for _ in range(times):
        with Watch() as watch:
            question()
        yield watch.seconds
        if time.perf_counter() > deadline:
            return


def _two(name: str, samples: Sequence[float]) -> Iterator[Figure]:
    yield Figure(f"{name}, p50 of {len(samples)}", quantile(samples, 0.5))
    yield Figure(f"{name}, p99", quantile(samples, 0.99))


def as_processes(place: Path, options: Namespace) -> Iterator[Figure]:
    """The everyday commands, and the most memory that each of them had."""
    found = processes.everyday(place, options.beads, options.rounds, options.seed)
    floor = quantile([ran.seconds for ran in found.pop(processes.FLOOR)], 0.5)
    for name, all_of_them in found.items():
        seconds = [ran.seconds for ran in all_of_them]
        title = f"bead {name}, p50 of {len(seconds)}"
        yield Figure(
            title, quantile(seconds, 0.5), floor=floor, floor_is=processes.FLOOR, at_most=processes.AT_MOST.get(name)
        )
        yield Figure(f"bead {name}, p99", quantile(seconds, 0.99))
    for name, all_of_them in found.items():
        peak = max(ran.peak for ran in all_of_them)
        yield Figure(f"bead {name}, most memory", peak, "bytes", at_most=MEMORY_AT_MOST)


def measure(place: Path, options: Namespace) -> Iterator[Figure]:
    """All of it, on one store."""
    store = place / "store"
    yield from creation(store, options)
    yield from rebuilding(store)
    yield from as_processes(store, options)
    yield from in_process(store, options)


def add(parser: ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--beads", type=int, default=1_000_000, help="how many beads there are (1000000)")
    parser.add_argument("--rounds", type=int, default=20, help="how often each command is run (20)")
    parser.add_argument("--times", type=int, default=300, help="how often each question is asked in-process (300)")
    parser.add_argument("--seconds", type=float, default=60, help="the most time for one kind of question (60)")
    parser.add_argument("--seed", type=int, default=0, help="of the graph of beads (0)")


if __name__ == "__main__":
    run(__doc__, add, measure)
