"""Transactions, each beside writing the very same objects and moving the very same ref with bare dulwich.

The store commits in one repository. The objects of that commit, not one more and not one less, are then written to
another repository with dulwich alone, and its ref is moved by compare-and-swap; so both do the same for the disk.

    python -m benchmarks.store --beads 1000 --times 200
"""

from __future__ import annotations

import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

from dulwich.objects import Commit, ObjectID, ShaFile, Tree
from dulwich.refs import Ref
from dulwich.repo import Repo

from beads import Bead, Operation, Store
from beads.ops import Claim, Create, Update
from benchmarks.common import Figure, progress, quantile, repository, run, timed

SINGLE_AT_MOST = 1.5
BATCH_AT_LEAST = 0.5
BATCH = 10_000
FLOOR = "same objects, same ref, bare dulwich"


def bead(number: int) -> Bead:
    """A bead like any other."""
    now = datetime(2026, 1, 1, tzinfo=UTC)
    return Bead(id=f"bt-one{number:06}", title=f"bead {number}", created_at=now, updated_at=now)


class Spent:
    """Seconds that passed, and seconds that a processor worked for us, each time a block of statements ran."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.processor: list[float] = []

    def __enter__(self) -> None:
        self._begin = time.perf_counter(), time.process_time()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.seconds.append(time.perf_counter() - self._begin[0])
        self.processor.append(time.process_time() - self._begin[1])


class Pair:
    """A store, and a repository of dulwich's that is brought to the same state without it.

    Args:
        place: where to make both.
        beads: how many beads there are to begin with.
        flush: whether objects are flushed to the disk before the ref names them.
    """

    def __init__(self, place: Path, beads: int, *, flush: bool) -> None:
        # dulwich knows the older of the two; to flush the ref is what both do in any case.
        settings = (
            {"core.fsyncObjectFiles": "true"}
            if flush
            else {"core.fsyncObjectFiles": "false", "core.fsync": "none,reference"}
        )
        self.store = Store.init(repository(place / "ours", settings), "bench")
        self._ref = Ref(self.store.ref.encode())
        self._ours = Repo(str(place / "ours"))
        self._bare = Repo(str(repository(place / "bare", settings)))
        self._at: ObjectID | None = None
        self.replay(Spent(), packed=True)
        for first in range(0, beads, BATCH):
            self.store.commit("bench", [Create(bead=bead(n)) for n in range(first, min(beads, first + BATCH))])
            self.replay(Spent(), packed=True)

    def replay(self, spent: Spent, *, packed: bool = False) -> None:
        """Write what the store's newest commit brought with bare dulwich; only that is timed."""
        head = self._ours.refs[self._ref]
        brought = [(kind, self._ours.object_store[oid].as_raw_string()) for kind, oid in self._brought(head)]
        with spent:
            objects = [ShaFile.from_raw_string(kind, data) for kind, data in brought]
            if packed:
                self._bare.object_store.add_objects([(thing, None) for thing in objects])
            else:
                for thing in objects:
                    self._bare.object_store.add_object(thing)
            moved = self._bare.refs.set_if_equals(self._ref, self._at, objects[-1].id)
        assert moved, "nobody else moves it"
        assert objects[-1].id == head, "the same objects have the same ids"
        self._at = head

    def _brought(self, head: ObjectID) -> Iterator[tuple[int, ObjectID]]:
        """The type and the id of each object that the newest commit has and the one before it has not."""
        commit = self._commit(head)
        before = self._commit(self._at).tree if self._at else None
        yield from self._differences(before, commit.tree)
        yield Commit.type_num, head

    def _differences(self, old: ObjectID | None, new: ObjectID) -> Iterator[tuple[int, ObjectID]]:
        before = {} if old is None else {name: oid for name, _, oid in self._tree(old).iteritems()}
        for name, mode, oid in self._tree(new).iteritems():
            if before.get(name) == oid:
                continue
            if mode == 0o40000:
                yield from self._differences(before.get(name), oid)
            else:
                yield 3, oid
        yield Tree.type_num, new

    def _commit(self, oid: ObjectID) -> Commit:
        found = self._ours.object_store[oid]
        assert isinstance(found, Commit), "a ref names a commit"
        return found

    def _tree(self, oid: ObjectID) -> Tree:
        found = self._ours.object_store[oid]
        assert isinstance(found, Tree), "it is one by its mode"
        return found

    def close(self) -> None:
        """Let go of the packs."""
        self._ours.close()
        self._bare.close()


def singles(place: Path, beads: int, times: int, *, flush: bool) -> Iterator[Figure]:
    """One transaction of one operation on a store of ``beads`` beads, create, update and claim in turns."""
    pair = Pair(place, beads, flush=flush)
    operations: dict[str, Callable[[int], Operation]] = {
        "create": lambda n: Create(bead=bead(beads + n)),
        "update of a field": lambda n: Update(id=bead(n % beads).id, priority=n // beads % 2),
        "claim": lambda n: Claim(id=bead(beads + n).id, worker="bench"),
    }
    ours, floor = ({name: Spent() for name in operations} for _ in range(2))
    for number in range(times):
        progress(f"transaction {number} of {times}")
        for name, operation in operations.items():
            with ours[name]:
                pair.store.commit("bench", [operation(number)])
            pair.replay(floor[name])
    pair.close()
    how = "flushed" if flush else "not flushed"
    for name in operations:
        one, other = ours[name], floor[name]
        yield timed(f"{name}, {how}", one.seconds, other.seconds, floor_is=FLOOR, at_most=SINGLE_AT_MOST)
        # Where others keep the machine busy this says more than the time that passed.
        yield timed(f"{name}, {how}: processor", one.processor, other.processor, floor_is=FLOOR)


def batches(place: Path, size: int, times: int) -> Iterator[Figure]:
    """Creates of ``size`` beads in one transaction, as a rate, with and without making the beads that are created."""
    pair = Pair(place, 0, flush=True)
    with_making: list[float] = []
    without: list[float] = []
    floor = Spent()
    for number in range(times):
        progress(f"batch {number} of {times}")
        begin = time.perf_counter()
        operations = [Create(bead=bead(n)) for n in range(size * number, size * (number + 1))]
        made = time.perf_counter()
        pair.store.commit("bench", operations)
        end = time.perf_counter()
        with_making.append(size / (end - begin))
        without.append(size / (end - made))
        pair.replay(floor, packed=True)
    pair.close()
    least = [size / seconds for seconds in floor.seconds]
    yield _rate(f"{size:,} creates in one transaction", without, least)
    yield _rate("the same with making the beads", with_making, least)


def _rate(name: str, ours: Sequence[float], floor: Sequence[float]) -> Figure:
    return Figure(
        name,
        quantile(ours, 0.5),
        "/s",
        floor=quantile(floor, 0.5),
        floor_is="same objects as a pack, bare dulwich",
        low=quantile(ours, 0.1),
        high=quantile(ours, 0.9),
        at_least=BATCH_AT_LEAST,
    )


def measure(place: Path, options: Namespace) -> Iterator[Figure]:
    """All of it."""
    for flush in (True, False):
        yield from singles(place / f"flush-{flush}", options.beads, options.times, flush=flush)
    yield from batches(place / "batch", options.batch, options.batches)


def add(parser: ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--beads", type=int, default=1000, help="how many beads there are already (1000)")
    parser.add_argument("--times", type=int, default=200, help="how often each transaction is made (200)")
    parser.add_argument("--batch", type=int, default=BATCH, help=f"how many beads are created at once ({BATCH})")
    parser.add_argument("--batches", type=int, default=3, help="how often that is done (3)")


if __name__ == "__main__":
    run(__doc__, add, measure)
