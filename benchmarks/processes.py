"""Everyday commands as processes on a large store, beside a Python that has only loaded click and sqlite3.

python -m benchmarks.processes --beads 100000 --times 15
"""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from pathlib import Path
from random import Random

from beads import Store
from benchmarks import graph
from benchmarks.common import BEAD, IMPORTS, Figure, Launcher, Ran, git, progress, repository, run, timed

FLOOR = "import click, sqlite3"
AT_MOST = {"ready": 2.0, "create": 4.0}
"""How many times the floor a command may take, where that was promised."""


def everyday(place: Path, beads: int, times: int, seed: int) -> dict[str, list[Ran]]:
    """Run every command ``times`` times, in turns, and beside them the floor.

    Args:
        place: a repository with a store that has the beads of :mod:`benchmarks.graph`.
        beads: how many.
        times: how often.
        seed: of the graph; also chooses what is shown.
    """
    chance, found = Random(seed), dict[str, list[Ran]]()
    with Launcher(place) as launcher:
        # The first one brings the cache up to date and Python's bytecode to the disk.
        launcher.run(*BEAD, "ready", "--limit", "1")
        for number in range(times):
            progress(f"round {number} of {times}")
            for name, ran in _round(launcher, graph.name(chance.randrange(beads // graph.CLUSTER), 1)):
                found.setdefault(name, []).append(ran)
        # A store that has a remote asks it for every claim, so that this comes last.
        _share(place)
        launcher.run(*BEAD, "sync", "--remote", "shared")
        found["sync"] = [launcher.run(*BEAD, "sync", "--json") for _ in range(times)]
    return found


def _share(place: Path) -> None:
    """Give the store a remote that has all of it: one that borrows its objects, as pushing them takes long."""
    shared = place.parent / "shared.git"
    git(place, "init", "--quiet", "--bare", str(shared))
    (shared / "objects" / "info" / "alternates").write_text(f"{place.resolve()}/.git/objects\n")
    git(shared, "update-ref", Store.open(place).ref, git(place, "rev-parse", Store.open(place).ref).strip())
    git(place, "remote", "add", "shared", str(shared))


def _round(launcher: Launcher, some: str) -> Iterator[tuple[str, Ran]]:
    """Each command once, ``some`` being a bead that is there."""
    yield FLOOR, launcher.run(*IMPORTS)
    for name, arguments in {
        "ready": ("--limit", "10", "--json"),
        "show": (some, "--json"),
        "why": (some, "--json"),
        "list": ("--limit", "50", "--json"),
        "list --all": ("--after", some, "--limit", "50", "--json"),
        "list --label": ("api", "--limit", "50", "--json"),
        "list --state": ("needs_person", "--limit", "50", "--json"),
        "blocked": ("--limit", "50", "--json"),
        "search": ("unicode", "--limit", "20", "--json"),
        "stats": ("--json",),
        "log": ("--limit", "10", "--json"),
        "log ID": (some, "--json"),
    }.items():
        words = ["log"] if name == "log ID" else name.split()
        yield name, launcher.run(*BEAD, *words, *arguments)
    created = launcher.run(*BEAD, "create", "one more", "--json")
    yield "create", created
    yield "show --at", launcher.run(*BEAD, "show", some, "--at", "~1", "--json")
    new = json.loads(created.output)["id"]
    yield "claim", launcher.run(*BEAD, "claim", new, "--as", "bench", "--json")
    yield "close", launcher.run(*BEAD, "close", new, "--as", "bench", "--epoch", "1", "--json")
    yield "claim --next", launcher.run(*BEAD, "claim", "--next", "--as", "bench", "--json")


def measure(place: Path, options: Namespace) -> Iterator[Figure]:
    """Fill a store and time the commands on it."""
    graph.fill(Store.init(repository(place / "store"), "bench"), options.beads, options.seed)
    found = everyday(place / "store", options.beads, options.times, options.seed)
    floor = [ran.seconds for ran in found.pop(FLOOR)]
    for name, all_of_them in found.items():
        seconds = [ran.seconds for ran in all_of_them]
        title = f"bead {name}, {options.beads:,} beads"
        yield timed(title, seconds, floor, floor_is=FLOOR, at_most=AT_MOST.get(name))


def add(parser: ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--beads", type=int, default=100_000, help="how many beads there are (100000)")
    parser.add_argument("--times", type=int, default=15, help="how often each command is run (15)")
    parser.add_argument("--seed", type=int, default=0, help="of the graph of beads (0)")


if __name__ == "__main__":
    run(__doc__, add, measure)
