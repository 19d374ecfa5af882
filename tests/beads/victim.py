"""A process whose children are killed in the middle of writing: ``python -m tests.beads.victim ROLE REPOSITORY``.

For each line of the code that touches the disk, a child runs a transaction and is killed just before that line, by
SIGKILL, which nothing can catch. After each, this process looks at what is left, and does the same once more. It
prints what it saw as JSON.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from beads import files, git, objects, ops
from beads.store import Store
from tests import world
from tests.beads.clocks import Virtual
from tests.beads.strategies import bead

_WRITING = {"swap", "sweep", "let_go", "_keep", "add", "_add_loose", "_add_pack", "_make_directory"}
_FILES = {git.__file__: 10_000, objects.__file__: 20_000}


def kill_before(line: int) -> None:
    """Kill this process before it runs that line, counted from 1, of those that touch the disk.

    Of a line that is run many times, once for each object, only the first two times count.
    """
    left = itertools.count(line - 1, -1)
    times: Counter[int] = Counter()

    def trace(frame: FrameType, event: str, _: object) -> Any:
        code = frame.f_code
        if code.co_filename != files.__file__ and not (code.co_filename in _FILES and code.co_name in _WRITING):
            return None
        if event == "line":
            here = frame.f_lineno + _FILES.get(code.co_filename, 0)
            times[here] += 1
            if times[here] <= 2 and next(left) == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    sys.settrace(trace)


def _survives(line: int, work: Callable[[], object]) -> bool:
    """Whether a child got to the end of its work before that line."""
    child = os.fork()
    if child == 0:
        kill_before(line)
        work()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert status in (0, signal.SIGKILL), f"the child ended with {status}"
    return status == 0


class Label:
    """A transaction that is written as loose objects."""

    def do(self, place: Path, clock: Virtual) -> None:
        Store.open(place, clock).commit("victim", [ops.Label(id="bt-0", add=("x",))])

    def happened(self, place: Path) -> bool:
        return Store.open(place).snapshot().need("bt-0").labels == ("x",)


class Create:
    """A transaction that is written as a pack."""

    ids = tuple(f"bt-x{number}" for number in range(24))

    def do(self, place: Path, clock: Virtual) -> None:
        Store.open(place, clock).commit("victim", [ops.Create(bead=bead(bead_id)) for bead_id in self.ids])

    def happened(self, place: Path) -> bool:
        found = {one.id for one in Store.open(place).snapshot()} - {"bt-0"}
        assert found in (set(), set(self.ids)), "a transaction happened in part"
        return bool(found)


class Init:
    """The beginning of a store."""

    def do(self, place: Path, clock: Virtual) -> None:
        assert len(Store.init(place, "victim", clock=clock, ref="refs/beads/new").snapshot()) == 0

    def happened(self, place: Path) -> bool:
        return git.Repository(place).head("refs/beads/new") is not None


def _killed(template: Path, line: int, role: Label | Create | Init) -> tuple[bool, bool]:
    """Whether a child came to the end without being killed, and whether what it was doing had happened."""
    place = template.parent / "work"
    shutil.copytree(template, place, ignore=shutil.ignore_patterns("*.sample"))
    done = _survives(line, lambda: role.do(place, Virtual()))
    happened = role.happened(place)
    world.git(place, "fsck", "--strict", "--no-dangling")
    # The same again, with the same time on the clock: even the objects are the same ones.
    clock = Virtual()
    role.do(place, clock)
    assert role.happened(place)
    assert clock.elapsed < files.STALE_LOCK_SECONDS + 0.1, f"waited {clock.elapsed} s after line {line}"
    Store.open(place).sweep()
    left = [path.name for path in (place / ".git").rglob("*") if path.name.endswith((".lock", ".keep"))]
    assert left == [], f"after line {line}"
    shutil.rmtree(place)
    return done, happened


def main() -> None:
    """Do what the arguments say."""
    roles: dict[str, Label | Create | Init] = {"label": Label(), "create": Create(), "init": Init()}
    role = roles[sys.argv[1]]
    seen: list[bool] = []
    for line in itertools.count(1):
        done, happened = _killed(Path(sys.argv[2]), line, role)
        seen.append(happened)
        if done:
            break
    json.dump(seen, sys.stdout)


if __name__ == "__main__":
    main()
