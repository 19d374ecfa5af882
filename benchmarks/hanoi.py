"""Towers of Hanoi: a chain of 2^N - 1 beads, worked off by a process that is killed again and again.

Every move is a bead that needs the one before it. A worker claims each and closes it, durably, in a transaction for
that step or, with ``--apart``, in one for each of the two; at random moments it is killed with SIGKILL and started
again, and finds in the store alone where to go on. In the end plain Git tells from the history whether every move was
made exactly once and in order, and whether the tower stands where it should.

    python -m benchmarks.hanoi --discs 10 --kills 10
    python -m benchmarks.hanoi --discs 10 --kills 10 --apart
    python -m benchmarks.hanoi --discs 20 --kills 10 --group 1000
"""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO

from beads import Bead, Dependency, Snapshot, Store
from beads.liveness import Presence
from beads.ops import Claim, Close, Create, Operation
from benchmarks.common import Figure, Watch, environment, git, progress, repository, run

ROOT = "bt-hanoi"
WORKER = "mover"
SITE = "bench"
BATCH = 10_000
"""How many beads are created in one transaction."""

GROUP_SECONDS = 1.0
"""The most that a group of steps may take before it is durable."""

FLOOR = "flushing as many files"

# Issue 3 of the project: the most that the whole run may take, in seconds.
TARGETS = {(10, 1): 15.0, (20, 1000): 900.0}


def moves(discs: int) -> Iterator[tuple[int, str, str]]:
    """Which disc goes from which peg to which, move by move, for a tower that goes from A to C."""
    pegs = "ABC" if discs % 2 else "ACB"
    for move in range(1, 2**discs):
        disc = (move & -move).bit_length()
        yield disc, pegs[(move & (move - 1)) % 3], pegs[((move | (move - 1)) + 1) % 3]


def create(store: Store, discs: int) -> None:
    """Create the root and one bead for each move, in transactions of :data:`BATCH`."""
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    root = Bead(
        id=ROOT,
        title=f"Move a tower of {discs} discs from A to C",
        issue_type="epic",
        created_at=begin,
        updated_at=begin,
    )
    store.commit("planner", [Create(bead=root)])
    batch: list[Operation] = []
    for number, (disc, source, target) in enumerate(moves(discs), start=1):
        before = (Dependency(on=f"{ROOT}.{number - 1}"),) if number > 1 else ()
        title, when = f"move disc {disc} from {source} to {target}", begin + timedelta(milliseconds=number)
        part = Dependency(on=ROOT, type="parent-child")
        step = Bead(id=f"{ROOT}.{number}", title=title, created_at=when, updated_at=when, dependencies=(part, *before))
        batch.append(Create(bead=step))
        if len(batch) == BATCH or number == 2**discs - 1:
            store.commit("planner", batch, f"plan the moves up to {number}")
            batch.clear()
            progress(f"created {number:,} of {2**discs - 1:,}")


def work(directory: Path, out: IO[str], group: int, *, apart: bool = False) -> None:
    """Be the worker: find where to go on, and move until nothing is left to move.

    After each transaction that closed steps, says on ``out`` how many.
    """
    store = Store.open(directory)
    # While a process has this name there is no other, so whatever is held under it was left by a dead one.
    with Presence(store.directory / "workers", WORKER):
        here, size = _begin(store), 1
        while here is not None:
            begin = time.perf_counter()
            done, here = _one(store, here) if apart else _several(store, here, size)
            spent = max(time.perf_counter() - begin, 1e-6)
            size = max(1, min(group, 2 * size, int(done / spent * GROUP_SECONDS)))
            print(done, file=out, flush=True)


def _begin(store: Store) -> Bead | None:
    """The step to go on with, held: what is ready, or else what our dead predecessor held."""
    (found,) = store.commit(WORKER, [Claim(worker=WORKER, site=SITE)]).beads
    if found is not None:
        return found
    left = (b for b in store.snapshot().unclosed() if b.lease is not None and b.lease.worker == WORKER)
    found = next(left, None)
    return found and store.commit(WORKER, [_claim(found)]).beads[0]


def _claim(step: Bead) -> Claim:
    return Claim(id=step.id, worker=WORKER, site=SITE)


def _close(step: Bead) -> Close:
    # One that is not held yet is claimed in the same transaction, under the next epoch.
    return Close(id=step.id, worker=WORKER, epoch=step.epoch if step.lease else step.epoch + 1)


def _one(store: Store, held: Bead) -> tuple[int, Bead | None]:
    """Close the step that is held and claim the one it freed, each in its own transaction."""
    snapshot = store.commit(WORKER, [_close(held)]).snapshot
    following = _following(snapshot, held)
    return 1, following and store.commit(WORKER, [_claim(following)]).beads[0]


def _several(store: Store, first: Bead, size: int) -> tuple[int, Bead | None]:
    """Claim and close up to ``size`` steps in one transaction; also says which step comes after them."""
    steps: list[Bead] = []

    def decide(snapshot: Snapshot) -> Sequence[Operation]:
        steps[:] = _chain(snapshot, first, size)
        return [operation for step in steps for operation in (_claim(step), _close(step))]

    snapshot = store.commit(WORKER, decide).snapshot
    return len(steps), _following(snapshot, steps[-1])


def _chain(snapshot: Snapshot, start: Bead, count: int) -> Iterator[Bead]:
    here: Bead | None = start
    while here is not None and count:
        yield here
        here, count = _following(snapshot, here), count - 1


def _following(snapshot: Snapshot, step: Bead) -> Bead | None:
    """The step that needs this one."""
    return next((other for other in snapshot.dependents(step.id) if step.id in other.needs), None)


@dataclass
class Killings:
    """What happened to the workers: how many were killed, and how many said that they were done."""

    killed: int = 0
    started: int = 0
    steps: int = 0
    gaps: list[float] = field(default_factory=list)


def drive(directory: Path, total: int, how: Sequence[str], kills: int, chance: random.Random) -> Killings:
    """Start the worker until all is moved, and kill it ``kills`` times at moments that ``chance`` chooses."""
    moments = sorted(chance.randrange(1, max(2, total * 19 // 20)) for _ in range(kills))
    told = Killings()
    while True:
        with _start(directory, how) as worker:
            told.started += 1
            killed = _watch(worker, told, moments, total, chance)
            told.killed += killed
        if not killed:
            break
    if worker.returncode:
        raise RuntimeError(f"the worker ended with {worker.returncode}")
    return told


def _start(directory: Path, how: Sequence[str]) -> subprocess.Popen[str]:
    line = [sys.executable, "-m", "benchmarks.hanoi", "--work", str(directory), *how]
    return subprocess.Popen(line, env=environment(), stdout=subprocess.PIPE, text=True)


def _watch(
    worker: subprocess.Popen[str], told: Killings, moments: list[int], total: int, chance: random.Random
) -> bool:
    """Follow one worker until it ends or is killed, and say whether it was killed."""
    assert worker.stdout is not None, "a pipe was asked for"
    last = time.perf_counter()
    for line in worker.stdout:
        now = time.perf_counter()
        gap, last = now - last, now
        told.steps += int(line)
        progress(f"moved at least {told.steps:,} of {total:,}, killed {told.killed} times")
        if moments and told.steps >= moments[0]:
            moments.pop(0)
            # Not always right after a transaction: anywhere in one of the next two.
            time.sleep(chance.uniform(0, 2 * min(gap, GROUP_SECONDS)))
            worker.kill()
            return worker.wait() == -signal.SIGKILL
    worker.wait()
    return False


_FACT = re.compile(rb'^(title|status|epoch) = "?([^"\n]*)"?$', re.MULTILINE)
_NEED = re.compile(rb'\{ on = "([^"]+)", type = "blocks" \}')
_CHUNK = 500
"""How many objects are asked for at once: few enough that neither side of the pipes has to wait for the other."""


class Contents:
    """Blobs, read by one ``git cat-file`` that stays open."""

    def __init__(self, directory: Path) -> None:
        self._process = subprocess.Popen(
            ["git", "cat-file", "--batch"],
            cwd=directory,
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def read(self, oids: Sequence[str]) -> Iterator[bytes]:
        """The contents of the blobs of these ids, in their order."""
        source, sink = self._process.stdout, self._process.stdin
        assert source is not None, "a pipe was asked for"
        assert sink is not None, "a pipe was asked for"
        for first in range(0, len(oids), _CHUNK):
            chunk = oids[first : first + _CHUNK]
            sink.write("".join(f"{oid}\n" for oid in chunk).encode())
            sink.flush()
            for _ in chunk:
                size = int(source.readline().split()[2])
                yield source.read(size + 1)[:-1]

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


def verify(directory: Path, ref: str, discs: int, *, grouped: bool, apart: bool = False) -> int:
    """Read the whole history with plain Git and play it; returns the number of commits that moved something.

    Every move's bead must have been created once, claimed, and closed exactly once, in the order of the needs that are
    written in it; unless grouped, by a commit of its own, and if apart, by one that did not claim it. The moves'
    titles, played one after another, must be allowed and end with the tower on C.

    Raises:
        RuntimeError: one of that does not hold.
    """
    judge, contents = Judge(discs, grouped=grouped, apart=apart), Contents(directory)
    try:
        for commit, changed in _commits(directory, ref):
            found = sorted(zip(changed, contents.read(list(changed.values())), strict=True), key=lambda pair: pair[0])
            judge.see(commit, found)
    finally:
        contents.close()
    judge.end()
    return judge.commits


def _commits(directory: Path, ref: str) -> Iterator[tuple[str, dict[int, str]]]:
    """Every commit, oldest first, with the moves whose beads it changed and the blobs they became."""
    line = ["git", "log", "--reverse", "--format=%H", "--raw", "-m", "--no-abbrev", "--no-renames", "--root", ref]
    with subprocess.Popen(line, cwd=directory, env=environment(), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None, "a pipe was asked for"
        commit, changed = "", dict[int, str]()
        for text in process.stdout:
            if text[0] != ":":
                # The id of a commit, and an empty line between it and what it changed.
                if text != "\n":
                    if commit:
                        yield commit, changed
                    commit, changed = text.strip(), {}
                continue
            facts, path = text.rstrip("\n").split("\t")
            name = path.rsplit("/", 1)[-1].removesuffix(".toml")
            if name.startswith(f"{ROOT}."):
                changed[int(name.rsplit(".", 1)[-1])] = facts.split()[3]
        yield commit, changed
    if process.returncode:
        raise RuntimeError(f"git log ended with {process.returncode}")


class Judge:
    """Replays the moves as the history has them, and objects to whatever may not be."""

    def __init__(self, discs: int, *, grouped: bool, apart: bool) -> None:
        self._discs = discs
        self._grouped = grouped
        self._apart = apart
        self._states = bytearray(2**discs)
        self._pegs = {"A": list(range(discs, 0, -1)), "B": [], "C": []}
        self._closed = 0
        self.commits = 0

    def see(self, commit: str, found: Sequence[tuple[int, bytes]]) -> None:
        """Take the next commit, with the beads that it changed in the order of their numbers."""
        before = self._closed
        for number, data in found:
            facts = dict(_FACT.findall(data))
            match self._states[number], facts.get(b"status"), int(facts.get(b"epoch", b"0")):
                case 0, b"open", 0:
                    self._need(number == 1 or _before(number) in _NEED.findall(data), f"{number} needs another one")
                    self._states[number] = 1
                case 1, b"in_progress", 1:
                    self._need(number == self._closed + 1, f"{number} was claimed after {self._closed}")
                    self._states[number] = 2
                case (1 | 2) as state, b"closed", 1:
                    self._need(state == 2 or not self._apart, f"{number} was closed by the commit that claimed it")
                    self._need(number == self._closed + 1, f"{number} was closed after {self._closed}")
                    self._play(facts.get(b"title", b"").decode())
                    self._states[number], self._closed = 3, number
                case state, status, epoch:
                    raise RuntimeError(f"{commit}: move {number} went from {state} to {status!r}, epoch {epoch}")
        self.commits += self._closed > before
        self._need(self._grouped or self._closed <= before + 1, f"{commit} closes several")

    def _play(self, title: str) -> None:
        found = re.fullmatch(r"move disc (\d+) from ([ABC]) to ([ABC])", title)
        self._need(found is not None, f"{title!r} is no move")
        assert found is not None, "was just asked"
        disc, source, target = int(found[1]), self._pegs[found[2]], self._pegs[found[3]]
        self._need(bool(source) and source.pop() == disc, f"{title}: it is not on top there")
        self._need(not target or target[-1] > disc, f"{title}: it would lie on a smaller one")
        target.append(disc)

    def end(self) -> None:
        """Say that there is nothing more."""
        self._need(self._closed == 2**self._discs - 1, f"only {self._closed} moves were closed")
        self._need(self._pegs["C"] == list(range(self._discs, 0, -1)), f"the tower stands at {self._pegs}")

    def _need(self, holds: bool, problem: str) -> None:
        if not holds:
            raise RuntimeError(problem)


def _before(number: int) -> bytes:
    return f"{ROOT}.{number - 1}".encode()


def measure(place: Path, options: Namespace) -> Iterator[Figure]:
    """Create, work under fire, verify; one figure for each, and one for all."""
    total = 2**options.discs - 1
    what = f"{total:,} steps"
    store = Store.init(repository(place / "hanoi"), "planner")
    directory = store.repository.common
    # Of a transaction for one step nothing takes as long as waiting for the disk.
    floor = (1 + options.apart) * total * flushed(place / "floor") if options.group == 1 else None
    with Watch() as all_of_it:
        with Watch() as creation:
            create(store, options.discs)
        ref = store.ref
        del store
        yield Figure(f"create {what}", creation.seconds)
        with Watch() as working:
            how = ["--group", str(options.group), *(["--apart"] if options.apart else [])]
            told = drive(directory, total, how, options.kills, random.Random(options.seed))
        yield Figure(f"claim and close {what}", working.seconds, floor=floor, floor_is=FLOOR)
        yield Figure("steps claimed and closed", total / working.seconds, "/s")
        progress("verifying")
        with Watch() as verifying:
            commits = verify(directory, ref, options.discs, grouped=options.group > 1, apart=options.apart)
    yield Figure(f"verify {what} from the history", verifying.seconds)
    yield Figure("killed", told.killed, "", at_least=options.kills)
    yield Figure("workers started", told.started, "")
    yield Figure("commits that closed steps", commits, "")
    yield Figure("size of the objects", _size(directory), "bytes")
    target = TARGETS.get((options.discs, options.group)) if options.kills else None
    yield Figure("all of it", all_of_it.seconds, at_most=target)


def flushed(place: Path, times: int = 200) -> float:
    """Seconds that it takes to bring to the disk what a transaction does: three new files, with their names."""
    place.mkdir()
    begin = time.perf_counter()
    for number in range(times):
        for name, size in (("pack", 8000), ("idx", 1300), ("ref", 41)):
            with (place / f"{name}.new").open("wb") as file:
                file.write(bytes(size))
                file.flush()
                os.fsync(file.fileno())
            (place / f"{name}.new").replace(place / (name if name == "ref" else f"{name}{number}"))
        directory = os.open(place, os.O_RDONLY)
        os.fsync(directory)
        os.close(directory)
    return (time.perf_counter() - begin) / times


def _size(directory: Path) -> int:
    counted = dict(line.split(": ") for line in git(directory, "count-objects", "-v").splitlines())
    return 1024 * (int(counted["size"]) + int(counted["size-pack"]))


def add(parser: ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--discs", type=int, default=10, help="how high the tower is (10)")
    parser.add_argument("--kills", type=int, default=10, help="how often the worker is killed (10)")
    parser.add_argument("--group", type=int, default=1, help="at most so many steps in one transaction (1)")
    parser.add_argument("--apart", action="store_true", help="claim and close in transactions of their own")
    parser.add_argument("--seed", type=int, default=0, help="chooses the moments of the kills (0)")


def main() -> None:
    """Be the benchmark, or with ``--work DIRECTORY`` its worker."""
    if "--work" not in sys.argv:
        run(__doc__, add, measure)
        return
    parser = ArgumentParser()
    parser.add_argument("--work", type=Path)
    parser.add_argument("--group", type=int)
    parser.add_argument("--apart", action="store_true")
    options = parser.parse_args()
    work(options.work, sys.stdout, options.group, apart=options.apart)


if __name__ == "__main__":
    main()
