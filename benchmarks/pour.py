"""A molecule of ten thousand steps: poured, poured again, shown, and shown once all of it was worked on.

python -m benchmarks.pour --steps 10000 --times 5
"""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path

from beads import Bead, Snapshot, Store
from beads.model import Evidence, Usage
from beads.ops import Begin, Claim, Close, Operation, Report, Spend
from benchmarks.common import BEAD, IMPORTS, Figure, Launcher, progress, repository, run, timed

POUR_AT_MOST = 5.0
SHOW_AT_MOST = 1.0
STEPS = 10_000
WORKER = "bench"
GROUP = 500
"""How many steps are worked off in one transaction."""


def plan(steps: int) -> str:
    """A plan of one molecule that is a chain of so many steps, each with a command and a criterion."""
    lines = [
        'plan = "long"',
        "[[molecules]]",
        'id = "chain"',
        'title = "A long chain"',
        'goal = "Every file is there."',
    ]
    for number in range(1, steps + 1):
        lines += [
            "[[molecules.steps]]",
            f'id = "step-{number}"',
            f'title = "Write part {number} of {steps}"',
            f'description = "Part {number} says what comes after part {number - 1}."',
            f'run = "echo {number} > part-{number}.txt"',
            *([f'needs = ["step-{number - 1}"]'] if number > 1 else []),
            "[[molecules.steps.criteria]]",
            f"run = \"grep -qx '{number}' part-{number}.txt\"",
        ]
    return "\n".join(lines) + "\n"


def work_off(store: Store, molecule: str) -> None:
    """Close every step of a molecule with an attempt and with evidence of its criterion, as a polecat would."""
    (held,) = store.commit(WORKER, [Claim(id=molecule, worker=WORKER, seconds=86_400)]).beads
    assert held is not None, "nobody else is there"
    # One of a chain is free when the one before it is closed, which is the order of the ids.
    steps = store.snapshot().part_ids(molecule)
    for first in range(0, len(steps), GROUP):
        progress(f"worked off {first:,} of {len(steps):,}")
        store.commit(WORKER, _done(store.snapshot(), steps[first : first + GROUP], held.epoch))


def _done(snapshot: Snapshot, steps: Sequence[str], epoch: int) -> list[Operation]:
    found: list[Operation] = []
    for step in map(snapshot.need, steps):
        report = Report(model="a-model", note="Wrote the file.", usage=Usage(input=12_000, output=800), cost=0.0125)
        found += [
            Begin(id=step.id, worker=WORKER, epoch=epoch, runtime="agent"),
            Spend(id=step.id, worker=WORKER, epoch=epoch, report=report),
            Close(id=step.id, worker=WORKER, epoch=epoch, evidence=tuple(_evidence(step))),
        ]
    return found


def _evidence(step: Bead) -> Iterator[Evidence]:
    """What evaluating a step's criteria might have found."""
    for criterion in step.criteria:
        yield Evidence(
            id=f"{int(step.id.rpartition('.')[2]):012x}",
            subject=str(criterion),
            verdict="pass",
            detail="exit 0",
            tree="a" * 40,
            commit="b" * 40,
            exit=0,
            seconds=0.25,
            digest=f"sha256:{'c' * 64}",
            by=WORKER,
            at=step.created_at + timedelta(seconds=1),
        )


def measure(place: Path, options: Namespace) -> Iterator[Figure]:
    """Pour a plan, and again; show what came of it; work it off, and show that."""
    many = f"{options.steps:,} steps"
    store = Store.init(repository(place / "pour"), "bench")
    (place / "plan.toml").write_text(plan(options.steps))
    line = [*BEAD, "pour", str(place / "plan.toml")]
    with Launcher(place / "pour") as launcher:
        # Brings Python's bytecode to the disk.
        launcher.run(*BEAD, "pour", "--help")
        poured = launcher.run(*line)
        rows = map(str.split, poured.output.splitlines())
        molecule = next(row[0] for row in rows if "molecule" in row)
        yield Figure(f"pour {many}", poured.seconds, at_most=POUR_AT_MOST)
        again = [launcher.run(*line) for _ in range(options.times)]
        yield timed(f"pour {many} again", [ran.seconds for ran in again])
        yield _shown(launcher, molecule, f"show {many} as JSON", options)
        work_off(store, molecule)
        yield _shown(launcher, molecule, f"show {many} as JSON, all worked on", options)
        text = [launcher.run(*BEAD, "show", molecule) for _ in range(options.times)]
        yield timed(f"show {many}, all worked on", [ran.seconds for ran in text])
        floor = [launcher.run(*IMPORTS) for _ in range(options.times)]
        yield timed("a Python that loads click and sqlite3", [ran.seconds for ran in floor])
        yield Figure(f"pour {many}, most memory", poured.peak, "bytes")


def _shown(launcher: Launcher, molecule: str, name: str, options: Namespace) -> Figure:
    ran = [launcher.run(*BEAD, "show", molecule, "--json") for _ in range(options.times)]
    assert all(len(json.loads(one.output)[0]["steps"]) == options.steps for one in ran), "all of them are shown"
    return timed(name, [one.seconds for one in ran], at_most=SHOW_AT_MOST)


def add(parser: ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--steps", type=int, default=STEPS, help=f"how many steps the molecule has ({STEPS})")
    parser.add_argument("--times", type=int, default=5, help="how often it is poured again and shown (5)")


if __name__ == "__main__":
    run(__doc__, add, measure)
