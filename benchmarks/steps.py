"""What the harness takes for each step of a molecule, beside the step's command and criterion themselves.

python -m benchmarks.steps --steps 30
"""

from __future__ import annotations

import subprocess
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from beads import Store
from benchmarks.common import TOWN, Figure, Watch, environment, repository, run
from cli.config import open_site
from refinery.git import Git
from roles.polecat import Polecat

SETTINGS = '[worktree]\nroot = "../work"\n[gate]\ncommands = ["true"]\n'
MOLECULE = '[[molecules]]\nid = "m"\ntitle = "m"\ngoal = "g"\n'
STEP = """\
[[molecules.steps]]
id = "s{0}"
title = "s{0}"
run = "echo > f{0}"
criteria = [{{ run = "test -f f{0}" }}]
"""


def measure(place: Path, options: Namespace) -> Iterator[Figure]:
    """Let one polecat work off a molecule whose commands are next to nothing, and tell where the time goes."""
    where, count = repository(place / "town"), options.steps
    (where / "town.toml").write_text(SETTINGS)
    _town(where, "init")
    (place / "plan.toml").write_text('plan = "bench"\n' + MOLECULE + "".join(STEP.format(n) for n in range(count)))
    _town(where, "mayor", "--plan", "../plan.toml", "--yes")
    (molecule,) = (bead for bead in Store.open(where).snapshot() if bead.issue_type == "molecule")
    inside: dict[str, Watch] = {}
    calls: dict[str, int] = {}
    with ExitStack() as stack:
        for name, owner, method in PARTS:
            inside[name], calls[name] = Watch(), 0
            stack.enter_context(_counted(owner, method, name, inside[name], calls))
        with Watch() as whole:
            result = Polecat(open_site(where), "bench", lambda: False).run(molecule.id)
    assert result.end == "submitted", result.reason
    alone = by_hand(place, count)
    # Each step is looked at, worked on, and looked at again.
    yield Figure(
        f"a step ({count} in one molecule)",
        whole.seconds / count,
        floor=alone,
        floor_is="its two commands, the second twice, with sh -c",
    )
    rest = whole.seconds
    for name, watch in inside.items():
        yield Figure(f"of that: {name}", watch.seconds / count)
        yield Figure(f"of that: {name}, how often", calls[name] / count, "")
        rest -= watch.seconds
    yield Figure("of that: everything else", rest / count)


PARTS: tuple[tuple[str, type, str], ...] = (
    ("Git, as processes", Git, "run"),
    ("transactions on the store", Store, "commit"),
    ("waiting for the commands", Polecat, "_wait"),
)
"""Where time goes: what, the class, and the method that is timed. None of them is inside another one."""


@contextmanager
def _counted(owner: type, method: str, name: str, watch: Watch, calls: dict[str, int]) -> Iterator[None]:
    """Measure all calls of a method while the block lasts."""
    inner: Callable[..., Any] = getattr(owner, method)

    def outer(*args: object, **options: object) -> object:
        calls[name] += 1
        with watch:
            return inner(*args, **options)

    setattr(owner, method, outer)
    try:
        yield
    finally:
        setattr(owner, method, inner)


def by_hand(place: Path, count: int) -> float:
    """How long a step's commands take by themselves."""
    where = place / "hand"
    where.mkdir()
    begin = time.perf_counter()
    for number in range(count):
        for line in (f"test -f f{number}", f"echo > f{number}", f"test -f f{number}"):
            subprocess.run(["sh", "-c", line], cwd=where, check=False, stdin=subprocess.DEVNULL)
    return (time.perf_counter() - begin) / count


def _town(where: Path, *args: str) -> None:
    subprocess.run([*TOWN, *args], cwd=where, env=environment(), check=True, capture_output=True)


def add(parser: ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--steps", type=int, default=30, help="how many there are (30)")


if __name__ == "__main__":
    run(__doc__, add, measure)
