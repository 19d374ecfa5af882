"""What a sandbox adds to the start of a command, beside the command without one.

python -m benchmarks.sandbox --times 30
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from beads.clock import SystemClock
from benchmarks.common import Figure, environment, git, interleaved, repository, run, timed
from cli.config import this_host
from refinery.containment import Reach, Sandbox, trials
from refinery.processes import start


def measure(place: Path, options: Namespace) -> Iterator[Figure]:
    """Start ``true`` in each kind of sandbox that works here, and without."""
    where = repository(place / "project")
    tree = place / "tree"
    git(where, "worktree", "add", "--quiet", "-b", "work", str(tree))
    host, common = this_host(), where / ".git"
    kinds = [trial.kind for trial in trials(host) if not trial.reason]

    def once(within: Sequence[str], number: int) -> None:
        job = start(
            ["true"],
            cwd=tree,
            environ=environment(),
            log=place / f"log-{number}",
            timeout=60,
            marker="benchmark",
            clock=SystemClock(),
            within=within,
        )
        assert job.wait().code == 0

    def contained(sandbox: Sandbox, number: int) -> None:
        once(sandbox.around(Reach((tree,)), tree), number)

    boxes = {kind: Sandbox(kind, host, common, common / "beads", where) for kind in kinds}
    spent = interleaved(
        options.times, none=partial(once, ()), **{kind: partial(contained, box) for kind, box in boxes.items()}
    )
    for kind in kinds:
        yield timed(f"true, in {kind}", spent[kind], spent["none"], floor_is="true, with nothing around it")


def add(parser: ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--times", type=int, default=30, help="how often each is started (30)")


if __name__ == "__main__":
    run(__doc__, add, measure)
