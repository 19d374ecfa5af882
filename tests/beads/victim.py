"""A process whose children are killed in the middle of writing: ``python -m tests.beads.victim ROLE REPOSITORY``.

For each line of the code that touches the disk, a child runs a transaction and is killed just before that line, by
SIGKILL, which nothing can catch. After each, this process looks at what is left, and does the same once more. It
prints what it saw as JSON.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from beads import files, git
from beads.ops import Create, Label, Operation
from beads.store import Snapshot, Store
from tests import world
from tests.beads.clocks import Virtual
from tests.beads.strategies import bead

_WRITING = ("swap", "sweep", "_let_go", "_keep", "_add", "_add_loose", "_add_pack", "_make_directory", "_drop_keeps")


def _kill_before(line: int) -> None:
    """Kill this process before it runs that line, counted from 1, of those that touch the disk."""
    left = itertools.count(line - 1, -1)

    def trace(frame: FrameType, event: str, _: object) -> Any:
        code = frame.f_code
        if code.co_filename != files.__file__ and not (code.co_filename == git.__file__ and code.co_name in _WRITING):
            return None
        if event == "line" and next(left) == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return trace

    sys.settrace(trace)


def _survives(line: int, work: Callable[[], object]) -> bool:
    """Whether a child got to the end of its work before that line."""
    child = os.fork()
    if child == 0:
        _kill_before(line)
        work()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert status in (0, signal.SIGKILL), f"the child ended with {status}"
    return status == 0


def _label(number: int) -> list[Operation]:
    """What is written as loose objects."""
    return [Label(id="bt-0", add=(f"l{number}",))]


def _create(number: int) -> list[Operation]:
    """What is written as a pack."""
    return [Create(bead=bead(f"bt-{number}-{index}")) for index in range(70)]


def _labelled(snapshot: Snapshot, number: int) -> bool:
    return f"l{number}" in snapshot.need("bt-0").labels


def _created(snapshot: Snapshot, number: int) -> bool:
    found = [snapshot.get(f"bt-{number}-{index}") is not None for index in range(70)]
    assert all(found) or not any(found), "a transaction happened in part"
    return all(found)


_ROLES = {"label": (_label, _labelled), "create": (_create, _created)}


def _transactions(place: Path, role: str) -> list[bool]:
    """For each kill, whether what was being done had happened."""
    operations, happened = _ROLES[role]
    seen: list[bool] = []
    for line in itertools.count(1):

        def work(line: int = line) -> None:
            Store.open(place, Virtual()).commit("victim", operations(line))

        done = _survives(line, work)
        clock = Virtual()
        store = Store.open(place, clock)
        seen.append(happened(store.snapshot(), line))
        len(store.snapshot())
        world.git(place, "fsck", "--strict", "--no-dangling")
        # The same again, with the same time on the clock: even the objects are the same ones.
        written = store.commit("victim", operations(line))
        assert written.changed != seen[-1]
        assert happened(Store.open(place).snapshot(), line)
        assert clock.elapsed < files.STALE_LOCK_SECONDS + 0.1, f"waited {clock.elapsed} s after line {line}"
        if done:
            return seen


def _beginnings(place: Path) -> list[bool]:
    """For each kill while the store is begun, whether there was one."""
    seen: list[bool] = []
    for line in itertools.count(1):
        ref = f"refs/beads/store-{line}"

        def work(ref: str = ref) -> None:
            Store.init(place, "victim", clock=Virtual(), ref=ref)

        done = _survives(line, work)
        seen.append(git.Repository(place).head(ref) is not None)
        clock = Virtual()
        assert len(Store.init(place, "victim", clock=clock, ref=ref).snapshot()) == 0
        assert clock.elapsed < files.STALE_LOCK_SECONDS + 0.1
        world.git(place, "fsck", "--strict", "--no-dangling")
        if done:
            return seen


def main() -> None:
    """Do what the arguments say."""
    role, place = sys.argv[1], Path(sys.argv[2])
    json.dump(_beginnings(place) if role == "init" else _transactions(place, role), sys.stdout)


if __name__ == "__main__":
    main()
