"""A work tree for a molecule: made anew, or used again after proof that it is clean, beside Git's own.

python -m benchmarks.worktrees --files 20000 --times 5
"""

from __future__ import annotations

import os
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter

from benchmarks.common import Figure, git, progress, repository, run, timed
from refinery.git import Git
from refinery.workshop import Workshop

_FLOOR = "git worktree add"


def filled(place: Path, files: int) -> Path:
    """A repository whose main has so many files of a kilobyte and a half, in directories of a hundred."""
    made = repository(place)
    for number in range(files):
        path = made / f"d{number // 100:04}" / f"f{number:06}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"line of file {number}\n" * 80)
    (made / ".gitignore").write_text("cache\n")
    git(made, "add", "--all")
    git(made, "commit", "--quiet", "--message", "files")
    return made


def rounds(made: Path, trees: Path, times: int) -> dict[str, list[float]]:
    """Seconds for each way of having a work tree and of being rid of it, taken in turns."""
    at = Git(made, os.environ)
    anew, again = Workshop(at, trees / "anew"), Workshop(at, trees / "again", keep=("cache",))
    found: dict[str, list[float]] = {}
    # There has to be one to be used again.
    again.open("first", "b/first", "HEAD").remove(shelve=True)
    for number in range(times):
        progress(f"round {number} of {times}")
        plain = trees / f"plain-{number}"
        began = perf_counter()
        git(made, "worktree", "add", "--quiet", "-b", f"b/plain-{number}", str(plain), "HEAD")
        found.setdefault(_FLOOR, []).append(perf_counter() - began)
        git(made, "worktree", "remove", "--force", str(plain))
        for name, workshop in (("anew", anew), ("again", again)):
            began = perf_counter()
            worktree = workshop.open(f"t-{number}", f"b/{name}-{number}", "HEAD")
            opened = perf_counter()
            worktree.remove(shelve=bool(workshop.keep))
            found.setdefault(f"a work tree {name}", []).append(opened - began)
            found.setdefault(f"given up, {name}", []).append(perf_counter() - opened)
    return found


def measure(place: Path, options: Namespace) -> Iterator[Figure]:
    """Make work trees and time it."""
    found = rounds(filled(place / "files", options.files), place / "trees", options.times)
    floor = found.pop(_FLOOR)
    for name, seconds in found.items():
        yield timed(f"{name}, {options.files:,} files", seconds, floor, floor_is=_FLOOR)


def add(parser: ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--files", type=int, default=20_000, help="how many files main has (20000)")
    parser.add_argument("--times", type=int, default=5, help="how often each is done (5)")


if __name__ == "__main__":
    run(__doc__, add, measure)
