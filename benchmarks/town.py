"""A molecule's whole way to main, beside the Git commands that a person would type for it.

python -m benchmarks.town --molecules 12
"""

from __future__ import annotations

import subprocess
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from pathlib import Path

from beads import Store
from benchmarks.common import TOWN, Figure, Watch, environment, git, interleaved, repository, run, timed

SETTINGS = '[town]\npolecats = 2\n[worktree]\nroot = "../work"\n[gate]\ncommands = ["true"]\n'
MOLECULE = """\
[[molecules]]
id = "m{0}"
title = "m{0}"
goal = "g"
run = "echo > f{0}"
criteria = [{{ file = "f{0}" }}]
"""


def measure(place: Path, options: Namespace) -> Iterator[Figure]:
    """Land molecules whose command and gate are next to nothing."""
    where, count = repository(place / "town"), options.molecules
    (where / "town.toml").write_text(SETTINGS)
    _town(where, "init")
    (place / "plan.toml").write_text('plan = "bench"\n' + "".join(MOLECULE.format(n) for n in range(count)))
    _town(where, "mayor", "--plan", "../plan.toml", "--yes")
    with Watch() as watch:
        _town(where, "up", "--until-idle")
    landed = sum(b.outcome == "landed" for b in Store.open(where).snapshot() if b.issue_type == "molecule")
    assert landed == count, f"{landed} of {count} landed"

    def by_hand(number: int) -> None:
        git(where, "worktree", "add", "--quiet", "-b", f"b{number}", f"../hand{number}")
        (place / f"hand{number}" / f"g{number}").touch()
        git(place / f"hand{number}", "add", ".")
        git(place / f"hand{number}", "commit", "--quiet", "--message", "work")
        git(where, "merge", "--quiet", "--no-ff", "--message", "merge", f"b{number}")
        git(where, "worktree", "remove", f"../hand{number}")

    floor = interleaved(9, by_hand=by_hand)["by_hand"]
    title = f"molecule to main ({count}, 2 polecats)"
    yield timed(title, [watch.seconds / count], floor, floor_is="worktree add, commit, merge, remove")


def _town(where: Path, *args: str) -> None:
    subprocess.run([*TOWN, *args], cwd=where, env=environment(), check=True, capture_output=True)


def add(parser: ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--molecules", type=int, default=12, help="how many are landed (12)")


if __name__ == "__main__":
    run(__doc__, add, measure)
