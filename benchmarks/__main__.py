"""Measure what costs time, each beside a floor measured in the same run, and print the ratios.

A floor is the least that Git or Python would need for the same effect. Times are medians; ratios are what to quote.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from beads import Bead, Snapshot, Store
from beads.git import Repository
from beads.model import path_of, write_bead
from beads.ops import Create

TOWN = [sys.executable, "-P", "-c", "from cli.main import town; town()"]
BEAD = [sys.executable, "-P", "-c", "from cli.main import bead; bead()"]


@dataclass(frozen=True)
class Figure:
    """One measurement: ours and the floor's median in seconds, and what each of them is."""

    name: str
    ours: float
    floor: float
    floor_is: str

    @property
    def ratio(self) -> float:
        """How many times the floor ours takes."""
        return self.ours / self.floor


def median(action: Callable[[int], object], times: int) -> float:
    """The median duration in seconds of calling ``action`` with 0, 1, 2, …"""
    spent = []
    for number in range(times):
        begin = time.perf_counter()
        action(number)
        spent.append(time.perf_counter() - begin)
    return statistics.median(spent)


def repository(place: Path) -> Path:
    """A Git repository with one commit on main and a store."""
    place.mkdir()
    git(place, "init", "--quiet", "--initial-branch", "main")
    git(place, "config", "user.name", "Bench")
    git(place, "config", "user.email", "bench@example.org")
    git(place, "config", "gc.auto", "0")
    (place / "file").write_text("text\n")
    git(place, "add", ".")
    git(place, "commit", "--quiet", "--message", "begin")
    return place


def git(place: Path, *args: str) -> None:
    """Run git there."""
    subprocess.run(["git", *args], cwd=place, check=True, capture_output=True)


def bead(number: int) -> Bead:
    """A bead like any other."""
    now = datetime(2026, 1, 1, tzinfo=UTC)
    return Bead(id=f"bt-{number:06}", title=f"bead {number}", created_at=now, updated_at=now)


def transactions(place: Path) -> Iterator[Figure]:
    """One transaction of one bead, and one of a thousand, beside writing the same objects and moving the same ref."""
    store, bare = Store.init(repository(place / "a"), "bench"), Repository(repository(place / "b"))
    Store.init(place / "b", "bench")

    def floor(files: dict[str, bytes]) -> None:
        head = bare.head("refs/beads/main")
        assert head is not None, "the store was just made"
        commit = bare.write(
            bare.commit(head).tree, files, parents=(head,), author="b <b@b>", when=datetime.now(UTC), message="m"
        )
        assert bare.swap("refs/beads/main", head, commit)

    def bytes_of(first: int, count: int) -> dict[str, bytes]:
        return {path_of(b.id): write_bead(b) for b in map(bead, range(first, first + count))}

    one = median(lambda n: store.commit("bench", [Create(bead=bead(n))]), 200)
    yield Figure("transaction of 1 bead", one, median(lambda n: floor(bytes_of(n, 1)), 200), "same objects, same ref")

    def thousand(number: int) -> None:
        store.commit("bench", [Create(bead=bead(n)) for n in range(1000 * number + 1000, 1000 * number + 2000)])

    many = median(thousand, 3)
    least = median(lambda n: floor(bytes_of(1000 * n + 1000, 1000)), 3)
    yield Figure("transaction of 1000 beads", many, least, "same objects, same ref")


def commands(place: Path) -> Iterator[Figure]:
    """Everyday commands as processes, on a store of a thousand beads."""
    where = repository(place / "c")
    Store.init(where, "bench").commit("bench", [Create(bead=bead(n)) for n in range(1000)])

    def process(*args: str) -> Callable[[int], object]:
        return lambda _: subprocess.run(args, cwd=where, check=True, capture_output=True)

    floor = median(process(sys.executable, "-c", "import click, sqlite3"), 9)
    for name in (["ready", "--limit", "10", "--json"], ["create", "one more"]):
        yield Figure(f"bead {name[0]}, 1000 beads", median(process(*BEAD, *name), 9), floor, "import click, sqlite3")


def molecules(place: Path, count: int = 12) -> Iterator[Figure]:
    """A molecule's whole way to main, its command and the gate being next to nothing."""
    where = repository(place / "d")
    settings = '[town]\npolecats = 2\n[worktree]\nroot = "../work"\n[gate]\ncommands = ["true"]\n'
    (where / "town.toml").write_text(settings)
    subprocess.run([*TOWN, "init"], cwd=where, check=True, capture_output=True)
    one = '[[molecules]]\nid = "m{0}"\ntitle = "m{0}"\ngoal = "g"\n'
    one += 'run = "echo > f{0}"\ncriteria = [{{ file = "f{0}" }}]\n'
    (place / "plan.toml").write_text('plan = "bench"\n' + "".join(one.format(n) for n in range(count)))
    subprocess.run([*TOWN, "mayor", "--plan", "../plan.toml", "--yes"], cwd=where, check=True, capture_output=True)
    begin = time.perf_counter()
    subprocess.run([*TOWN, "up", "--until-idle"], cwd=where, check=True, capture_output=True)
    ours = (time.perf_counter() - begin) / count
    snapshot: Snapshot = Store.open(where).snapshot()
    assert sum(b.outcome == "landed" for b in snapshot if b.issue_type == "molecule") == count

    def by_hand(number: int) -> None:
        git(where, "worktree", "add", "--quiet", "-b", f"b{number}", f"../hand{number}")
        (place / f"hand{number}" / f"g{number}").touch()
        git(place / f"hand{number}", "add", ".")
        git(place / f"hand{number}", "commit", "--quiet", "--message", "work")
        git(where, "merge", "--quiet", "--no-ff", "--message", "merge", f"b{number}")
        git(where, "worktree", "remove", f"../hand{number}")

    yield Figure(
        f"molecule to main ({count}, 2 polecats)", ours, median(by_hand, 9), "worktree add, commit, merge, remove"
    )


def main() -> None:
    """Measure, and print a table or JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="beadtown-bench-") as name:
        place = Path(name)
        figures = [*transactions(place), *commands(place), *molecules(place)]
    if arguments.json:
        print(json.dumps([{**asdict(figure), "ratio": figure.ratio} for figure in figures], indent=2))
        return
    print(f"{'what':<32} {'ours':>10} {'floor':>10} {'ratio':>6}  floor is")
    for figure in figures:
        ours, floor = f"{figure.ours * 1000:.1f} ms", f"{figure.floor * 1000:.1f} ms"
        print(f"{figure.name:<32} {ours:>10} {floor:>10} {figure.ratio:>6.1f}  {figure.floor_is}")


if __name__ == "__main__":
    main()
