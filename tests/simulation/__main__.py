"""``python -m tests.simulation``: run many seeds, or one and show it, or find out how soon planted bugs are found."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.simulation.actors import Time
from tests.simulation.check import violations
from tests.simulation.git import QuickGit
from tests.simulation.planted import BUGS, planted
from tests.simulation.stage import staged, template
from tests.simulation.world import Mishap, Scenario, World, scenario


@dataclass(frozen=True)
class Outcome:
    """How a run went.

    Attributes:
        wrong: what does not hold, in words.
        trace: every event.
        mishaps: the faults that came about.
        stops: how often an actor stopped.
        seconds: how long it took.
    """

    seed: int
    wrong: tuple[str, ...]
    trace: tuple[str, ...]
    mishaps: tuple[Mishap, ...]
    stops: int
    seconds: float

    @property
    def digest(self) -> str:
        """Names the run: the same events give the same."""
        return hashlib.sha256("\n".join(self.trace).encode()).hexdigest()[:12]

    def __str__(self) -> str:
        return f"seed {self.seed} {self.digest}: {self.stops} stops, {len(self.mishaps)} faults, {self.seconds:.2f} s"


def run(
    repository: Path, what: Scenario, tell: Callable[[str], object] = str, git: type[QuickGit] = QuickGit
) -> Outcome:
    """One run; each event is told as it happens."""
    began = time.perf_counter()
    with staged(repository, Time(), turns=what.turns, git=git) as stage:
        world = World(what, stage, tell=tell)
        world.run()
        wrong = world.broke or violations(world)
    took = time.perf_counter() - began
    return Outcome(what.seed, tuple(wrong), tuple(world.trace), tuple(world.mishaps), world.stops, took)


def shrunk(repository: Path, found: Outcome) -> Outcome:
    """The same seed with as few faults as it still goes wrong with, found by leaving out one after the other."""
    base, best = scenario(found.seed), found
    without: frozenset[Mishap] = frozenset()
    for mishap in found.mishaps:
        tried = run(repository, dataclasses.replace(base, without=without | {mishap}))
        if tried.wrong:
            without, best = without | {mishap}, tried
    return best


def _each(repository: Path, first: int, seeds: int, jobs: int) -> Iterator[Outcome]:
    """The outcomes of so many seeds, in their order."""
    numbers = range(first, first + seeds)
    if jobs == 1:
        yield from (run(repository, scenario(seed)) for seed in numbers)
        return
    with ProcessPoolExecutor(jobs) as pool:
        yield from pool.map(_quiet, [repository] * seeds, numbers, chunksize=8)


def _quiet(repository: Path, seed: int) -> Outcome:
    found = run(repository, scenario(seed))
    return found if found.wrong else dataclasses.replace(found, trace=())


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _many(repository: Path, arguments: argparse.Namespace) -> int:
    """Run seeds and say which go wrong, each shrunk to the faults that it takes."""
    faults: Counter[str] = Counter()
    began, bad, stops = time.perf_counter(), 0, 0
    for number, found in enumerate(_each(repository, arguments.first, arguments.seeds, arguments.jobs), start=1):
        faults.update(mishap.fault for mishap in found.mishaps)
        stops += found.stops
        if found.wrong:
            bad += 1
            least = shrunk(repository, found)
            _say(f"{found}\n  " + "\n  ".join(least.wrong))
            _say(
                "  it takes "
                + (", ".join(f"{m.fault} of {m.actor} at stop {m.stop}" for m in least.mishaps) or "no fault")
            )
        if number % 1000 == 0:
            _say(f"{number} seeds, {bad} wrong, {time.perf_counter() - began:.0f} s")
    told = ", ".join(f"{count} × {fault}" for fault, count in sorted(faults.items()))
    _say(f"{arguments.seeds} seeds, {bad} wrong; {stops} stops, {told}; {time.perf_counter() - began:.1f} s")
    return int(bad > 0)


def _show(repository: Path, seed: int) -> int:
    found = run(repository, scenario(seed), _say)
    _say("\n".join([str(found), *found.wrong]))
    return int(bool(found.wrong))


def seeds_until_found(repository: Path, bug: str, most: int) -> tuple[int, Outcome] | None:
    """By which seed a planted bug is found, of so many at most, and how that run went."""
    with planted(bug):
        for seed in range(1, most + 1):
            found = run(repository, scenario(seed))
            if found.wrong:
                return seed, found
    return None


def _plant(repository: Path, most: int) -> int:
    """For each planted bug, by which seed it is found."""
    missed = 0
    for bug in BUGS:
        found = seeds_until_found(repository, bug, most)
        missed += found is None
        _say(f"{bug:<24} " + (f"seed {found[0]}: {found[1].wrong[0].splitlines()[0]}" if found else "NOT FOUND"))
    return int(missed > 0)


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=200, help="how many")
    parser.add_argument("--first", type=int, default=1, help="the first one")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="how many at once")
    parser.add_argument("--show", type=int, metavar="SEED", help="print every event of one")
    parser.add_argument("--planted", action="store_true", help="by which seed each planted bug is found")
    arguments = parser.parse_args()
    with template() as repository:
        if arguments.show is not None:
            return _show(repository, arguments.show)
        return _plant(repository, arguments.seeds) if arguments.planted else _many(repository, arguments)


if __name__ == "__main__":
    sys.exit(main())
