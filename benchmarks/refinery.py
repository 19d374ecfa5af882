"""What the merge queue costs, in virtual time: runs of the gate, capacity and waiting, beside what others do.

The strategy is the Refinery's own code (``refinery/train.py``); changes arrive and are bad by chance, with a seed, and
a run takes 1. Each figure stands beside the exact one from theory, or the best of serial testing, bors and Zuul on the
same changes. Others convict after one failure. We do after two, when something has passed since the first one: "one
failure" is ours when all that costs nothing, beside the others as they are, and "two failures" is ours as it is, beside
others that convict by the same rule, and beside others that repeat a failure but do without the control.

    python -m benchmarks.refinery --plot docs/merge-queue.svg
"""

from __future__ import annotations

import heapq
import math
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.common import Figure, progress, quantile, run
from benchmarks.plot import Curve, Panel, svg
from benchmarks.simulator import Batches, Oracle, Strategy, Trace, Train, Window, World, backlog, poisson, simulate

RATES = (0.01, 0.02, 0.05, 0.10, 0.20)
BORS = {0.01: 64, 0.02: 32, 0.05: 8, 0.10: 4, 0.20: 2}
"""The batch that costs bors least, for a failure rate."""

TRAINS = ((0.01, (4, 8)), (0.02, (4, 8, 16)), (0.05, (2, 4, 8, 16)), (0.10, (2, 4, 8)), (0.20, (2, 4, 8)))
LOADS = ((0.9, 0.05), (1.5, 0.05), (3.0, 0.05), (6.0, 0.05), (1.5, 0.10), (3.0, 0.20))
SLOTS = (1, 4, 8)
RIVALS = ("serial", "bors", "Zuul")
SWEEP = (0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 6.0, 7.0)

FLAKES = 0.05
Make = Callable[[], Strategy]


def entropy(rate: float) -> float:
    """The fewest tests per change that any scheme can do with, when one test tells good from bad."""
    return -rate * math.log2(rate) - (1 - rate) * math.log2(1 - rate)


def bisection(rate: float) -> float:
    """Tests per change of prefix bisection with the best batch: one for it, and a search with the fewest (Huffman)."""
    return min(_bisection(rate, size) for size in range(1, 129))


def _bisection(rate: float, size: int) -> float:
    weights = [(1 - rate) ** k * rate for k in range(size)]
    some, search = sum(weights), 0.0
    heapq.heapify(weights)
    while len(weights) > 1:
        both = heapq.heappop(weights) + heapq.heappop(weights)
        search += both
        heapq.heappush(weights, both)
    return (1 + search) / (some / rate)


def halving(rate: float, size: int) -> float:
    """Tests that bors needs for a batch: one, and unless all of it is good those of both halves."""
    if size == 1:
        return 1.0
    halves = halving(rate, size // 2) + halving(rate, size - size // 2)
    return 1 + halves - 2 * (1 - rate) ** size


def capacity(rate: float, slots: int) -> float:
    """Changes per run's time of a train with the best spacing, in rounds, with a search after each failure."""
    spacings = range(1, 129)
    return max(_capacity(rate, slots, spacing) for spacing in spacings)


def _capacity(rate: float, slots: int, spacing: int) -> float:
    some = 1 - (1 - rate) ** (slots * spacing)
    rounds = math.ceil(math.log(spacing) / math.log(slots + 1) - 1e-9)
    return some / rate / (1 + some * rounds)


def costs(failures: int, seed: int) -> Iterator[Figure]:
    """Runs per change in one slot, of a queue that is never empty."""
    for rate in RATES:
        progress(f"runs per change at {rate:.0%}")
        trace = backlog(rate, failures, seed)
        name = f"runs a change, {rate:.0%} bad: "
        one, two, bors = (_runs(trace, made) for made in (Train(granted=True), Train(), Batches(BORS[rate])))
        yield _figure(name + "one failure", one, bisection(rate), "prefix bisection, exactly", at_most=1.03)
        yield _figure(name + "two failures", two, entropy(rate), "entropy, the least there is")
        exact = halving(rate, BORS[rate]) / BORS[rate]
        yield _figure(name + "bors", bors, exact, "its recursion", at_most=1.03)
        yield _figure(name + "bors, from below", bors, exact, "its recursion", at_least=0.97)


def capacities(failures: int, seed: int) -> Iterator[Figure]:
    """Changes per run's time, of a queue that is never empty."""
    for rate, choices in TRAINS:
        trace = backlog(rate, failures, seed)
        for slots in choices:
            progress(f"capacity of {slots} slots at {rate:.0%}")
            name, exact = f"capacity, {rate:.0%} bad, {slots} slots: ", capacity(rate, slots)
            one, two = (_capacity_of(trace, made) for made in (Train(slots, rate, granted=True), Train(slots)))
            yield _figure(name + "one failure", one, exact, "a train in rounds", at_least=0.95)
            yield _figure(name + "two failures", two, exact, "a train in rounds")


def turnarounds(changes: int, seeds: int) -> Iterator[Figure]:
    """How long it takes until a change has landed or was sent back, while others arrive."""
    beaten = landed = 0
    for load, rate in LOADS:
        traces = [poisson(load, rate, changes, seed) for seed in range(seeds)]
        for slots in SLOTS:
            if slots == 1 and load * entropy(rate) >= 1:
                continue
            where = f"{load:g} a run, {rate:.0%} bad, {slots} slots"
            progress(f"turnaround at {where}")
            worlds = {name: [simulate(t, make()) for t in traces] for name, make in _strategies(slots).items()}
            took = {name: [t for world in made for t in world.took.values()] for name, made in worlds.items()}
            landed += sum(len(world.landed) for made in worlds.values() for world in made)
            for share in (0.5, 0.95):
                least = {name: quantile(all_of, share) for name, all_of in took.items()}
                beaten += min(least.values()) < least["oracle"] - 1e-9
                yield from _compared(f"{where}: p{share * 100:.0f}, ", least)
            yield _landed(f"{where}: p95, landed", worlds)
    yield Figure("strategies that beat the oracle", beaten, "", at_most=0)
    # A landing that leaves main red, untested or out of order ends the simulation, as does one that comes twice.
    yield Figure(f"red mains, of {landed} changes that landed", 0, "", at_most=0)


def _strategies(slots: int) -> dict[str, Make]:
    return {
        "one failure": lambda: Train(slots, granted=True),
        "two failures": lambda: Train(slots),
        "serial": lambda: Batches(1),
        "serial, twice": lambda: Batches(1, careful=True),
        "serial, careful": lambda: Batches(1, careful=True, control=True),
        "bors": lambda: Batches(8),
        "bors, twice": lambda: Batches(8, careful=True),
        "bors, careful": lambda: Batches(8, careful=True, control=True),
        "Zuul": lambda: Window(slots),
        "Zuul, twice": lambda: Window(slots, careful=True),
        "Zuul, careful": lambda: Window(slots, careful=True, control=True),
        "oracle": lambda: Oracle(slots),
    }


def _compared(name: str, found: dict[str, float]) -> Iterator[Figure]:
    """Ours beside the best of the others: as they are, by our rule of conviction, and by half of it."""
    for label, ours, how, at_most in (
        ("one failure", "one failure", "", 1.0),
        ("two failures", "two failures", ", careful", 1.0),
        ("two failures, beside others without a control", "two failures", ", twice", None),
    ):
        best = min((f"{rival}{how}" for rival in RIVALS), key=lambda rival: found[rival])
        beside = f"{best}; oracle {found['oracle']:.2f}"
        yield _figure(f"{name}{label}", found[ours], found[best], beside, at_most=at_most)


def _landed(name: str, worlds: dict[str, list[World]]) -> Figure:
    """Ours as it is beside the others as they are, for those changes alone that land."""
    found = {
        strategy: quantile([world.took[change] for world in made for change in world.landed], 0.95)
        for strategy, made in worlds.items()
    }
    best = min(RIVALS, key=lambda rival: found[rival])
    return _figure(name, found["two failures"], found[best], f"{best}, which convicts after one failure")


def flakes(failures: int, seed: int) -> Iterator[Figure]:
    """How many of those that are sent back are innocent when one run in twenty fails for nothing."""
    rate = 0.05
    # One that is tested alone, and fails twice, is innocent with this probability.
    alone = FLAKES**2 * (1 - rate) / (FLAKES**2 * (1 - rate) + rate)
    for slots in (1, 4):
        traces = [backlog(rate, failures, seed + n, flakes=FLAKES) for n in range(4)]
        worlds = [simulate(trace, Train(slots)) for trace in traces]
        back = sum(len(world.rejected) for world in worlds)
        innocent = sum(change not in world.trace.bad for world in worlds for change in world.rejected)
        name = f"innocent of those sent back, {FLAKES:.0%} flaky, {slots} slots"
        yield _figure(name, innocent / back, alone, "two failures of one alone", at_most=1.0)


def _runs(trace: Trace, strategy: Strategy) -> float:
    return simulate(trace, strategy).started / len(trace.arrivals)


def _capacity_of(trace: Trace, strategy: Strategy) -> float:
    return len(trace.arrivals) / simulate(trace, strategy).now


def _figure(
    name: str, ours: float, floor: float, floor_is: str, at_most: float | None = None, at_least: float | None = None
) -> Figure:
    return Figure(name, round(ours, 4), "", round(floor, 4), floor_is, at_most=at_most, at_least=at_least)


def plot(path: Path, changes: int, failures: int, seed: int) -> None:
    """Draw runs per change over the failure rate, and waiting over the load; everybody convicts by the same rule."""
    rates = [share / 100 for share in (0.5, 1, 2, 3, 5, 7, 10, 15, 20, 25)]
    backlogs = {rate: backlog(rate, failures, seed) for rate in rates}
    alone = [(100 * rate, _runs(trace, Batches(careful=True, control=True))) for rate, trace in backlogs.items()]
    bors = [
        (100 * r, _runs(trace, Batches(_bors_size(r), careful=True, control=True))) for r, trace in backlogs.items()
    ]
    runs = Panel(
        "Runs of the gate per change, one slot",
        "of a hundred changes, how many are bad",
        (0, 25),
        (0, 1.4),
        [
            Curve("one after the other", "grey", alone),
            Curve("bors", "orange", bors),
            Curve("ours", "blue", [(100 * rate, _runs(trace, Train())) for rate, trace in backlogs.items()]),
            Curve("ours, one failure", "teal", [(100 * r, _runs(t, Train(granted=True))) for r, t in backlogs.items()]),
            Curve("entropy, the least", "black", [(100 * rate, entropy(rate)) for rate in rates]),
        ],
    )
    makers: dict[str, tuple[str, Make]] = {
        "one after the other": ("grey", lambda: Batches(careful=True, control=True)),
        "bors, 1 slot": ("orange", lambda: Batches(8, careful=True, control=True)),
        "ours, 1 slot": ("teal", lambda: Train(1)),
        "Zuul, 4 slots": ("red", lambda: Window(4, careful=True, control=True)),
        "ours, 4 slots": ("blue", lambda: Train(4)),
        "oracle, 4 slots": ("black", lambda: Oracle(4)),
    }
    traces = {load: poisson(load, 0.05, changes, seed) for load in SWEEP}
    waits = Panel(
        "95 of 100 changes end within so many runs, 5 % bad",
        "changes that arrive while the gate runs once",
        (0, 7),
        (0, 12),
        [
            Curve(name, colour, [(load, _p95(simulate(trace, make()))) for load, trace in traces.items()])
            for name, (colour, make) in makers.items()
        ],
    )
    path.write_text(svg([runs, waits]))


def _bors_size(rate: float) -> int:
    sizes = [1, 2, 4, 8, 16, 32, 64, 128]
    return min(sizes, key=lambda size: halving(rate, size) / size)


def _p95(world: World) -> float:
    return quantile(list(world.took.values()), 0.95)


def measure(place: Path, options: Namespace) -> Iterator[Figure]:
    """Cost, capacity, waiting, and convictions of innocents."""
    del place
    yield from costs(options.failures, options.seed)
    yield from capacities(options.failures, options.seed)
    yield from turnarounds(options.changes, options.seeds)
    yield from flakes(options.failures, options.seed)
    if options.plot:
        plot(options.plot, options.changes, options.failures, options.seed)


def add(parser: ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--failures", type=int, default=300, help="how many bad changes a full queue has (300)")
    parser.add_argument("--changes", type=int, default=1200, help="how many changes arrive one by one (1200)")
    parser.add_argument("--seeds", type=int, default=3, help="how often they do (3)")
    parser.add_argument("--seed", type=int, default=1, help="decides in which order the bad ones come (1)")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the curves into that SVG file")


def main() -> None:
    """Be the benchmark."""
    run(__doc__, add, measure)


if __name__ == "__main__":
    main()
