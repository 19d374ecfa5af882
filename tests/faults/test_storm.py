"""Many writers at once, while Git tidies up, or while they are killed at random: nothing that was told is lost."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from beads.ops import Create, Say
from beads.store import REF, Store
from tests.beads.clocks import Virtual
from tests.beads.strategies import bead
from tests.faults import worker
from tests.faults.scenarios import done, index
from tests.world import git

LONG = os.environ.get("FAULTS") == "all"


@pytest.fixture
def store(repo: Path) -> Store:
    """A store with the beads that the workers comment on and fight for."""
    store = Store.init(repo, "ada")
    store.commit("ada", [Create(bead=bead(f"bt-{number}")) for number in range(40)])
    return store


def kept(store: Store, told: list[str]) -> None:
    """All that was told is there, once, and the store is as it must be."""
    snapshot = store.snapshot()
    texts = Counter(comment.text for comment in snapshot.need("bt-0").comments)
    assert {text for text, count in texts.items() if count > 1} == set(), "said twice"
    words = [line.split() for line in told]
    assert {what[1] for what in words if what[0] == "said"} - texts.keys() == set(), "lost"
    assert {what[1] for what in words if what[0] == "made" and snapshot.get(what[1]) is None} == set(), "lost"
    claims = Counter((what[1], what[2]) for what in words if what[0] == "claimed")
    assert [claim for claim, count in claims.items() if count > 1] == [], "one epoch was given to two"
    for _, bead_id, epoch, *_ in (what for what in words if what[0] == "claimed"):
        assert snapshot.need(bead_id).epoch >= int(epoch)
    for found in snapshot:
        # Of what is written together there is all or nothing.
        if found.id.endswith(".0"):
            assert len([one for one in range(worker.PACK) if snapshot.get(f"{found.id[:-2]}.{one}")]) == worker.PACK


def sound(store: Store) -> None:
    """Git and the doctor find nothing wrong, nothing is left over, and the history is one line."""
    store.sweep()
    common = store.repository.common
    git(common, "fsck", "--strict", "--no-dangling")
    assert git(common, "rev-list", "--count", REF) == git(common, "rev-list", "--count", "--first-parent", REF)
    assert [path.name for path in common.rglob("*") if path.name.endswith((".lock", ".keep"))] == []
    assert "0 problems" in done(common, "doctor").out
    answers = [done(common, *question).out for question in (("list", "--all", "--json"), ("ready", "--json"))]
    for path in index(common.parent):
        path.unlink()
    assert answers == [done(common, *question).out for question in (("list", "--all", "--json"), ("ready", "--json"))]


@pytest.fixture
def begin(repo: Path, tmp_path: Path) -> Iterator[Callable[..., Writer]]:
    """Start a writer; none outlives the test."""
    writers: list[Writer] = []

    def begin(name: str, count: int = 0) -> Writer:
        log = tmp_path / name
        with log.open("w") as out:
            writers.append(Writer(worker.start(repo, name, count, out=out.fileno()), log))
        return writers[-1]

    yield begin
    for process, _ in writers:
        process.kill()
        process.wait()


class Writer(NamedTuple):
    """A process that writes, and the file in which it says what is written."""

    process: subprocess.Popen[str]
    log: Path

    def told(self) -> list[str]:
        return self.log.read_text().splitlines()


TIDYING = {
    "gc": ["gc --quiet"],
    "repack": ["repack -adfq", "prune-packed --quiet"],
    "pack-refs": ["pack-refs --all --prune"],
    "maintenance": ["maintenance run --quiet --task=gc", "maintenance run --quiet --task=loose-objects"],
    "incremental": ["maintenance run --quiet --task=loose-objects --task=incremental-repack --task=commit-graph"],
    "gc now": ["gc --quiet --prune=now"],
}
TIDYING["one after the other"] = [task for how, tasks in TIDYING.items() if how != "gc now" for task in tasks]


@pytest.mark.parametrize("how", TIDYING if LONG else ["one after the other"])
def test_git_tidies_up_while_four_write(store: Store, repo: Path, begin: Callable[..., Writer], how: str) -> None:
    writers = [begin(f"w{number}", 200 if LONG else 10) for number in range(4)]
    while any(writer.process.poll() is None for writer in writers):
        for task in TIDYING[how]:
            git(repo, *task.split())
    assert [writer.process.returncode for writer in writers] == [0] * 4
    kept(store, [line for writer in writers for line in writer.told()])
    sound(store)


@pytest.mark.parametrize("task", ["gc --quiet --prune=now", "prune"])
def test_what_is_pruned_before_the_ref_names_it_is_not_lost(store: Store, repo: Path, task: str) -> None:
    # The writer has written everything and waits for the lock of the ref.
    clock = Virtual()
    lock = repo / ".git" / f"{REF}.lock"
    lock.touch()

    def meanwhile() -> None:
        if lock.exists():
            git(repo, *task.split())
            lock.unlink()

    clock.meanwhile = meanwhile
    assert Store.open(repo, clock).commit("nux", [Say(id="bt-0", text="Found it.")]).changed
    assert [comment.text for comment in Store.open(repo).snapshot().need("bt-0").comments] == ["Found it."]
    sound(store)


def test_writers_that_are_killed_at_random(store: Store, begin: Callable[..., Writer]) -> None:
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    writers = [begin(f"w{number}") for number in range(8 if LONG else 5)]
    living = list(writers)
    for _ in range(200 if LONG else 8):
        enough = _size(writers) + chance.randrange(200)
        _wait_for(lambda: _size(writers) > enough)  # noqa: B023 - It is asked before the next round.
        victim = living.pop(chance.randrange(len(living))).process
        victim.kill()
        assert victim.wait() == -signal.SIGKILL, f"it ended by itself; seed {seed}"
        writers.append(begin(f"w{len(writers)}"))
        living.append(writers[-1])
    for process, _ in living:
        process.kill()
        process.wait()
    kept(store, [line for writer in writers for line in writer.told()])
    sound(store)
    # Whoever comes next finds nothing in the way.
    after = begin("next", 3)
    assert after.process.wait() == 0
    assert after.told()[0] == "said next/0"


def _size(writers: list[Writer]) -> int:
    """How much has been told."""
    return sum(writer.log.stat().st_size for writer in writers)


def _wait_for(event: Callable[[], bool]) -> None:
    while not event():
        time.sleep(0.01)
