"""How much a repository grows by a change of one field, once the store is packed, index of the pack included.

python -m benchmarks.growth --beads 1000 100000 --changes 2000
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random

from beads import Bead, Operation, Store
from beads.ops import Update
from benchmarks import graph
from benchmarks.common import BEAD, Figure, Launcher, git, progress, repository, run

AT_MOST = 700
"""Bytes for each change, the index of the pack included."""

BESIDE = "commit-graph and lists"
"""What Git may keep besides packs and their indices; it can do without, and makes it again."""

PACKERS = {"bead": [*BEAD, "gc"], "git": ["git", "gc", "--quiet", "--prune=now"]}


def grow(place: Path, beads: int, changes: int, packer: str, seed: int) -> Iterator[Figure]:
    """Change fields of random beads of a store of ``beads`` beads, each in its own transaction."""
    graph.fill(Store.init(repository(place), "bench"), beads, seed)
    _pack(place, packer)
    before, chance = _sizes(place), Random(seed)
    # Packing has moved the objects under the store that was open.
    store = Store.open(place)
    for number in range(changes):
        progress(f"change {number} of {changes}")
        some = graph.name(chance.randrange(beads // graph.CLUSTER), chance.randrange(1, 13))
        store.commit("bench", [_change(store.snapshot().need(some), chance)])
    loose = _sizes(place)
    _pack(place, packer)
    after = _sizes(place)
    kept = {part: (after[part] - before[part]) / changes for part in after}
    what = f"a change, {beads:,} beads, packed by {packer}"
    yield Figure(what, sum(kept.values()) - kept.get(BESIDE, 0), "bytes", at_most=AT_MOST)
    for part, size in sorted(kept.items()):
        yield Figure(f"beside that: {part}" if part == BESIDE else f"of that: {part}", size, "bytes")
    yield Figure("the same before packing", (loose.total() - before.total()) / changes, "bytes")


def _change(bead: Bead, chance: Random) -> Operation:
    """An update of one plain field to something that it is not yet."""
    if chance.random() < 0.5:
        return Update(id=bead.id, priority=(bead.priority + 1) % 5)
    return Update(id=bead.id, assignee="nux" if bead.assignee != "nux" else "toast")


def _pack(place: Path, packer: str) -> None:
    progress("packing")
    with Launcher(place) as launcher:
        launcher.run(*PACKERS[packer])


def _sizes(place: Path) -> Counter[str]:
    """The bytes of each type of object as stored, of the indices of packs, and of what else Git keeps beside them."""
    form = "--batch-check=%(objecttype)s %(objectsize:disk)"
    found = Counter[str]()
    for line in git(place, "cat-file", "--batch-all-objects", "--unordered", form).splitlines():
        kind, size = line.split()
        found[kind] += int(size)
    for path in (place / ".git" / "objects").rglob("*"):
        if path.is_file() and path.suffix != ".pack" and len(path.parent.name) != 2:
            found["indices" if path.parent.name == "pack" else BESIDE] += path.stat().st_size
    return found


def measure(place: Path, options: Namespace) -> Iterator[Figure]:
    """The growth at each size."""
    for beads in options.beads:
        yield from grow(place / str(beads), beads, options.changes, options.packer, options.seed)


def add(parser: ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument(
        "--beads", type=int, nargs="+", default=[1000, 100_000], help="how many there are (1000 100000)"
    )
    parser.add_argument("--changes", type=int, default=2000, help="how many changes are made (2000)")
    parser.add_argument("--packer", choices=sorted(PACKERS), default="bead", help="what packs the store (bead)")
    parser.add_argument("--seed", type=int, default=0, help="of the graph and of the changes (0)")


if __name__ == "__main__":
    run(__doc__, add, measure)
