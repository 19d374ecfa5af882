"""What the merge queue itself takes for each request that it lands, the gate left out, beside a merge by hand.

python -m benchmarks.landing --requests 60 --files 400
"""

from __future__ import annotations

import os
import statistics
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from beads import Store
from beads.clock import SystemClock
from beads.model import Bead, MergeRequest
from beads.ops import Create
from benchmarks.common import Figure, Watch, environment, git, interleaved, progress, run, timed
from benchmarks.worktrees import filled
from refinery.containment import Sandbox
from refinery.git import Git
from refinery.refinery import Refinery
from refinery.view import Host
from refinery.workshop import Workshop

SETTINGS = '[gate]\ncommands = ["true"]\n'
_FLOOR = "git worktree add, merge, worktree remove"
_BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


def measure(place: Path, options: Namespace) -> Iterator[Figure]:
    """Land requests that all come at once, and requests that come one by one; then merge the same ones by hand."""
    where = filled(place / "landing", options.files)
    (where / "town.toml").write_text(SETTINGS)
    git(where, "add", "--all")
    git(where, "commit", "--quiet", "--message", "settings")
    count = options.requests
    heads = [_branch(where, number) for number in range(2 * count)]
    git(where, "checkout", "--quiet", *(["main"] if options.checked_out else ["--detach"]))
    store = Store.init(where, "bench")
    made = _refinery(where, store, place / "trees")
    by_hand = _by_hand(where, place / "hand", heads[: min(count, options.by_hand)])
    yield timed("a merge by hand", by_hand)
    for how, arrivals in (
        ("at once", [list(enumerate(heads[:count]))]),
        ("one by one", [[pair] for pair in enumerate(heads[count:], count)]),
    ):
        inside, whole, gates = [], 0.0, 0.0
        for some in arrivals:
            progress(f"{how}: {some[0][0]} of {2 * count}")
            main = git(where, "rev-parse", "main").strip()
            for number, head in some:
                _submit(store, number, head, main)
            with Watch() as watch:
                inside.append(_drive(made))
            whole += watch.seconds
            gates += _gates(store, {f"bench-{number}.m1" for number, _ in some})
        landed = [bead for bead in store.snapshot() if bead.merge and bead.outcome == "landed"]
        assert len(landed) == count * (1 if how == "at once" else 2), f"{len(landed)} landed"
        own = (whole - gates) / count
        floor = statistics.median(by_hand)
        yield Figure(f"a request to main ({count} {how})", own, floor=floor, floor_is=_FLOOR, at_most=1.0)
        yield Figure(f"of that: in ticks, {how}", sum(inside) / count)
        yield Figure(f"beside it: the gate, {how}", gates / count)
    made.close()


def _branch(where: Path, number: int) -> str:
    """A branch off main that changes one file and adds another."""
    git(where, "checkout", "--quiet", "--detach", "main")
    (where / f"new-{number}.txt").write_text(f"new {number}\n")
    files = sorted(where.glob("d*/f*.txt"))
    changed = files[number % len(files)]
    text = changed.read_text().splitlines()
    # Far enough apart that no two of them conflict.
    text.insert(number // len(files) * 5 % len(text), f"by {number}")
    changed.write_text("\n".join(text) + "\n")
    git(where, "add", "--all")
    git(where, "commit", "--quiet", "--message", f"work {number}")
    return git(where, "rev-parse", "HEAD").strip()


def _submit(store: Store, number: int, head: str, base: str) -> None:
    at = _BEGIN + timedelta(minutes=number)

    def bead(bead_id: str, kind: str) -> Bead:
        return Bead(id=bead_id, title=f"Do {number}", issue_type=kind, created_at=at, updated_at=at)

    molecule = bead(f"bench-{number}", "molecule")
    merge = MergeRequest(molecule=molecule.id, branch=f"polecat/{number}", head=head, base=base)
    request = bead(f"bench-{number}.m1", "merge-request").evolve(merge=merge)
    store.commit("bench", [Create(bead=molecule), Create(bead=request)])


def _refinery(where: Path, store: Store, trees: Path) -> Refinery:
    environ = environment()
    host = Host(Path.home(), tuple(Path(part) for part in environ["PATH"].split(os.pathsep)))
    common = where / ".git"
    return Refinery(
        store=store,
        git=Git(where, environ),
        workshop=Workshop(Git(where, environ), trees),
        branch="main",
        environ=environ,
        sandbox=Sandbox("none", host, common, common / "beads"),
        clock=SystemClock(),
        marker=f"bench {where}",
        obtain=lambda _: None,
    )


def _drive(made: Refinery) -> float:
    """Tick until nothing happens any more; the seconds spent in ticks."""
    inside = 0.0
    while True:
        with Watch() as watch:
            happened = made.tick()
        inside += watch.seconds
        if made.busy:
            while not made.judged:
                time.sleep(0.0005)
        elif not happened:
            assert not made.halted, made.halted
            return inside


def _gates(store: Store, requests: set[str]) -> float:
    beads = [bead for bead in store.snapshot() if bead.id in requests]
    return sum(e.seconds for bead in beads for e in bead.evidence if e.gate)


def _by_hand(where: Path, place: Path, heads: list[str]) -> list[float]:
    """Seconds for each merge in a work tree of its own, onto a branch that moves as main does."""
    git(where, "branch", "hand", "main")

    def merge(number: int) -> None:
        git(where, "worktree", "add", "--quiet", str(place), "hand")
        git(place, "merge", "--quiet", "--no-ff", "--message", f"Merge {number}", heads[number])
        git(where, "worktree", "remove", str(place))

    return interleaved(len(heads), merge=merge)["merge"]


def add(parser: ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--requests", type=int, default=60, help="how many land, at once and one by one (60)")
    parser.add_argument("--files", type=int, default=400, help="files in the repository (400)")
    parser.add_argument("--checked-out", action="store_true", help="main is checked out, and follows each landing")
    parser.add_argument("--by-hand", type=int, default=30, help="how many are merged by hand for the floor (30)")


if __name__ == "__main__":
    run(__doc__, add, measure)
