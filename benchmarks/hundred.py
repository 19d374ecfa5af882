"""A hundred merge requests of which five are bad, on a real repository with a real gate: how often it runs.

Ours is ``town refinery tick``, from an empty store, in one slot. Serial testing and bors get the same requests, the
same gate and a repository of their own. All must land the same and send the same back. Which five are bad is decided
by a seed; what other seeds would give is played in virtual time.

    python -m benchmarks.hundred --seed 1
"""

from __future__ import annotations

import math
import statistics
import subprocess
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

from beads import Store
from beads.model import Bead, Criterion, MergeRequest
from beads.ops import Create
from benchmarks.common import TOWN, Figure, Watch, environment, git, progress, quantile, repository, run
from benchmarks.simulator import Batches, Strategy, Trace, Train, World, simulate

START = datetime(2026, 1, 1, tzinfo=UTC)

GATE = f"""\
echo run >> "$RUNS"
exec {sys.executable} -B -m unittest -q check
"""

CHECK = """\
import importlib
import unittest
from pathlib import Path


class Units(unittest.TestCase):
    def test_each_converts_its_example(self):
        names = sorted(path.stem for path in Path("units").glob("u*.py"))
        self.assertTrue(names)
        for name in names:
            with self.subTest(name):
                unit = importlib.import_module(f"units.{name}")
                given, expected = unit.EXAMPLE
                self.assertEqual(unit.convert(given), expected)
"""

SETTINGS = """\
[sandbox]
kind = "none"
[worktree]
root = "../trees"
[gate]
commands = ["sh gate.sh"]
environment = ["RUNS"]
"""


def placed(amount: int, bad: int, seed: int) -> frozenset[int]:
    """Which of so many requests are bad."""
    return frozenset(Random(seed).sample(range(amount), bad))


def unit(number: int, *, bad: bool) -> str:
    """What a request adds. A bad one merges like any other, and only a run shows that its result is wrong."""
    wrong = " + 1" if bad else ""
    return f"def convert(number):\n    return number * {number + 2}{wrong}\n\n\nEXAMPLE = (3, {3 * (number + 2)})\n"


def project(place: Path, amount: int, bad: frozenset[int]) -> list[str]:
    """A repository with a gate, and on a branch for each request what it adds; the heads of these."""
    repository(place)
    files = {
        "gate.sh": GATE,
        "check.py": CHECK,
        "town.toml": SETTINGS,
        "units/u000.py": unit(0, bad=False),
    }
    (place / "units").mkdir()
    for name, text in files.items():
        (place / name).write_text(text)
    git(place, "add", ".")
    git(place, "commit", "--quiet", "--message", "a gate")
    base, stream = git(place, "rev-parse", "main").strip(), []
    for number in range(amount):
        text, name = unit(number + 1, bad=number in bad), f"units/u{number + 1:03}.py"
        stream += [
            f"commit refs/heads/polecat/{number}\ncommitter Bench <bench@example.org> {1767225600 + number} +0000\n",
            f"data <<.\nAdd unit {number + 1}\n.\nfrom {base}\nM 100644 inline {name}\ndata {len(text)}\n{text}\n",
        ]
    subprocess.run(
        ["git", "fast-import", "--quiet"], cwd=place, env=environment(), input="".join(stream), text=True, check=True
    )
    return [git(place, "rev-parse", f"refs/heads/polecat/{number}").strip() for number in range(amount)]


def clone(place: Path, origin: Path) -> None:
    """A clone in which one can commit."""
    git(place.parent, "clone", "--quiet", str(origin), place.name)
    for name in ("user.name", "user.email"):
        git(place, "config", name, "bench")


def submit(place: Path, heads: Sequence[str]) -> None:
    """Begin a town there, and ask it to merge these, in this order."""
    _town(place, {}, "init")
    base = git(place, "rev-parse", "main").strip()
    made: list[Create] = []
    for number, head in enumerate(heads):
        at, molecule = START + timedelta(seconds=number), f"bench-{number}"
        common = {"title": f"Add unit {number + 1}", "created_at": at, "updated_at": at}
        merge = MergeRequest(molecule=molecule, branch=f"polecat/{number}", head=head, base=base)
        criteria = (Criterion(run=f"test -f units/u{number + 1:03}.py"),)
        made += [
            Create(
                bead=Bead.model_validate({**common, "id": molecule, "issue_type": "molecule", "criteria": criteria})
            ),
            Create(
                bead=Bead.model_validate(
                    {**common, "id": f"{molecule}.m1", "issue_type": "merge-request", "merge": merge}
                )
            ),
        ]
    Store.open(place).commit("bench", made)


def ours(place: Path, runs: Path) -> None:
    """Let the Refinery do what there is to be done."""
    _town(place, {"RUNS": str(runs)}, "refinery", "tick")


def verify(place: Path, amount: int, bad: frozenset[int]) -> None:
    """Check that exactly the bad ones were sent back, each with its evidence, and that the others landed in order.

    Raises:
        RuntimeError: they were not, or did not.
    """
    state = Store.open(place).snapshot()
    requests = {int(b.merge.molecule.removeprefix("bench-")): b for b in state if b.merge}
    ended = {n: b.outcome for n, b in requests.items()}
    if ended != {n: "rejected" if n in bad else "landed" for n in range(amount)}:
        raise RuntimeError(f"it ended otherwise: {ended}")
    listing = ("log", "--topo-order", "--reverse", "--format=%(trailers:key=Merge-Request,valueonly)", "main")
    landed = [int(name.split(".")[0].removeprefix("bench-")) for name in git(place, *listing).split()]
    if landed != [n for n in range(amount) if n not in bad]:
        raise RuntimeError(f"they landed in another order: {landed}")
    for number in bad:
        found = [e for e in requests[number].evidence if e.verdict == "fail"]
        steps = [b for b in state if b.issue_type == "step" and b.parent == f"bench-{number}"]
        trees = [e.tree for e in found]
        if max(map(trees.count, trees), default=0) < 2 or not any(f"u{number + 1:03}" in e.output for e in found):
            raise RuntimeError(f"{number} was sent back without evidence: {found}")
        if len(steps) != 1:
            raise RuntimeError(f"{number} was not given back to be mended")
    git(place, "fsck", "--strict", "--no-dangling")


class RealWorld(World):
    """A world in which a run is a run of the gate, on what Git makes of main and the changes, and landing moves main.

    Args:
        trace: what arrives; which are bad is not looked at.
        place: the repository, in whose checkout the gate runs.
        heads: the commits of the changes.
        runs: the file in which each run leaves a line.
    """

    def __init__(self, trace: Trace, place: Path, heads: Sequence[str], runs: Path) -> None:
        super().__init__(trace)
        self._place, self._heads, self._runs = place, heads, runs
        self._commits: dict[int, str] = {}

    def _judge(self, tree: int, changes: Sequence[int]) -> None:
        git(self._place, "checkout", "--quiet", "--detach", "main")
        if changes:
            merged = [self._heads[change] for change in changes]
            git(self._place, "merge", "--quiet", "--no-ff", "--message", f"Merge {list(changes)}", *merged)
        environ = {**environment(), "RUNS": str(self._runs)}
        done = subprocess.run(["sh", "gate.sh"], cwd=self._place, env=environ, check=False, capture_output=True)
        self._red[tree] = done.returncode != 0
        self._commits[tree] = git(self._place, "rev-parse", "HEAD").strip()

    def land(self, changes: Sequence[int]) -> None:
        """Move main to the commit that was tested."""
        before = self._commits.get(self.main) or git(self._place, "rev-parse", "main").strip()
        super().land(changes)
        git(self._place, "update-ref", "refs/heads/main", self._commits[self.main], before)


def rival(place: Path, origin: Path, heads: Sequence[str], bad: frozenset[int], strategy: Strategy) -> int:
    """Let somebody else work it off in a clone; how often the gate ran.

    Raises:
        RuntimeError: others landed or were sent back than with us.
    """
    clone(place, origin)
    runs = place.with_suffix(".runs")
    world = RealWorld(Trace([0.0] * len(heads), bad), place, heads, runs)
    world.run(strategy)
    if set(world.rejected) != bad or world.landed != [n for n in range(len(heads)) if n not in bad]:
        raise RuntimeError(f"{strategy} landed {world.landed} and sent {world.rejected} back")
    return _lines(runs)


RIVALS: dict[str, Callable[[], Strategy]] = {
    "one after the other": lambda: Batches(1),
    "bors, in batches of 8": lambda: Batches(8),
    "one after the other, two failures": lambda: Batches(careful=True, control=True),
    "bors, in batches of 8, two failures": lambda: Batches(8, careful=True, control=True),
}


def real(place: Path, amount: int, bad: frozenset[int]) -> Iterator[Figure]:
    """The runs that were needed, by everybody, and how long it took with them."""
    origin, runs = place / "origin", place / "ours.runs"
    heads = project(origin, amount, bad)
    town = place / "ours"
    clone(town, origin)
    git(town, "fetch", "--quiet", "origin", "refs/heads/polecat/*:refs/heads/polecat/*")
    submit(town, heads)
    progress(f"{amount} requests")
    with Watch() as watch:
        ours(town, runs)
    verify(town, amount, bad)
    yield Figure("runs of the gate, ours", _lines(runs), "", at_most=36 if (amount, len(bad)) == (100, 5) else None)
    yield Figure("how long, ours", watch.seconds)
    for number, (name, make) in enumerate(RIVALS.items()):
        progress(name)
        with Watch() as watch:
            count = rival(place / f"rival{number}", origin, heads, bad, make())
        if git(place / f"rival{number}", "rev-parse", "main^{tree}") != git(town, "rev-parse", "main^{tree}"):
            raise RuntimeError(f"{name} came to another main than ours")
        yield Figure(f"runs of the gate, {name}", count, "")
        yield Figure(f"how long, {name}", watch.seconds)


def played(amount: int, bad: int, seeds: Iterable[int]) -> Iterator[Figure]:
    """What other seeds would give, in virtual time, and what there is to be had at best."""
    for name, rate in (("", None), ("the failure rate known, ", bad / amount)):
        traces = [Trace([0.0] * amount, placed(amount, bad, seed)) for seed in seeds]
        runs = [simulate(trace, Train(rate=rate)).started for trace in traces]
        title = f"runs of the gate in virtual time, {name}{len(runs)} seeds: "
        yield Figure(f"{title}mean", statistics.mean(runs), "", low=quantile(runs, 0.1), high=quantile(runs, 0.9))
        yield Figure(f"{title}most", max(runs), "")
        yield Figure(f"{title}share with 36 at most", sum(count <= 36 for count in runs) / len(runs), "")
    least = math.log2(math.comb(amount, bad))
    yield Figure("runs to tell which are bad, at least", least, "")
    yield Figure("the same, and each failure once more", math.ceil(least) + bad, "")


def measure(place: Path, options: Namespace) -> Iterator[Figure]:
    """The real ones, and the others in virtual time."""
    place.mkdir(parents=True, exist_ok=True)
    bad = placed(options.requests, options.bad, options.seed)
    yield from real(place, options.requests, bad)
    trace = Trace([0.0] * options.requests, bad)
    yield Figure("runs of the gate in virtual time, the same requests", simulate(trace, Train()).started, "")
    yield from played(options.requests, options.bad, range(options.seeds))


def add(parser: ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--requests", type=int, default=100, help="how many ask to be merged (100)")
    parser.add_argument("--bad", type=int, default=5, help="how many of them fail the gate (5)")
    parser.add_argument("--seed", type=int, default=1, help="decides which (1)")
    parser.add_argument("--seeds", type=int, default=200, help="how many others are played in virtual time (200)")


def _town(place: Path, more: dict[str, str], *args: str) -> None:
    done = subprocess.run([*TOWN, *args], cwd=place, env={**environment(), **more}, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"town {' '.join(args)} ended with {done.returncode}: {done.stdout}{done.stderr}")


def _lines(path: Path) -> int:
    return len(path.read_text().splitlines())


def main() -> None:
    """Be the benchmark."""
    run(__doc__, add, measure)


if __name__ == "__main__":
    main()
