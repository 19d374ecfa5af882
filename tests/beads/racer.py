"""A process that takes part in a test of the store: ``python -m tests.beads.racer ROLE REPOSITORY NAME [HOW] [COUNT]``.

It says ``ready``, waits until it is told to go, does what its role is, and prints what came of it as JSON.
"""

from __future__ import annotations

import contextlib
import json
import random
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO

from beads.errors import LostRace, NotFound, TownError
from beads.git import Oid
from beads.history import last_own, undoing
from beads.ops import Claim, Operation, Say, Update
from beads.store import Snapshot, Store
from tests.world import ROOT


class Unlocked(Store):
    """A store without turns, as on a file system that knows no locks: only the compare-and-swap is left."""

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        yield


def start(role: str, repository: Path, name: str, *more: str) -> subprocess.Popen[str]:
    """Start a process with that role; it waits at the line."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.beads.racer", role, str(repository), name, *more],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def race(processes: Sequence[subprocess.Popen[str]], meanwhile: Callable[[], None] = lambda: None) -> list[object]:
    """Let them all go at once, do something meanwhile, and return what each has printed at the end."""
    for process in processes:
        assert _pipe(process.stdout).readline() == "ready\n"
    for process in processes:
        _pipe(process.stdin).write("go\n")
        _pipe(process.stdin).flush()
    meanwhile()
    return [finish(process) for process in processes]


def finish(process: subprocess.Popen[str]) -> object:
    out, _ = process.communicate()
    assert process.returncode == 0
    return json.loads(out)


def _pipe(stream: IO[str] | None) -> IO[str]:
    assert stream is not None
    return stream


def _claim(store: Store, name: str) -> list[str]:
    """Claim everything there is, in an order of its own; what was won."""
    ids = [found.id for found in store.snapshot()]
    random.Random(name).shuffle(ids)
    won = []
    for bead_id in ids:
        with contextlib.suppress(LostRace):
            store.commit(name, [Claim(id=bead_id, worker=name, site="here")])
            won.append(bead_id)
    return won


def _say(store: Store, name: str) -> list[str]:
    """Say some things about one bead, and read everything in between."""
    said = [f"{name} {number}" for number in range(int(sys.argv[5]))]
    beads = len(store.snapshot())
    for text in said:
        store.commit(name, [Say(id="bt-0", text=text)])
        assert text in [comment.text for comment in store.snapshot().need("bt-0").comments]
        assert len(list(store.snapshot())) == beads
    return said


def _undo(store: Store, actor: str) -> list[str]:
    """Undo what the actor did, the last first, until nothing is left; the commits that were undone here."""
    undone: list[str] = []
    with contextlib.suppress(NotFound):
        while True:
            head = store.snapshot()
            target = last_own(store.repository, head.commit, head, actor).commit

            def decide(snapshot: Snapshot, target: Oid = target) -> list[Operation]:
                restore = undoing(store.repository, snapshot.commit, snapshot, target)
                return [restore] if restore else []

            undone += [target] if store.commit(actor, decide).changed else []
    return undone


def _write(store: Store, size: str) -> list[str]:
    """Write a bead of some incompressible bytes, or a hundred small ones, where no file may exceed 4 KiB."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    text = random.Random(0).randbytes(20_000).hex()
    many: list[Operation] = [Update(id=f"bt-{number}", description=text[number:][:300]) for number in range(24)]
    operations: list[Operation] = [Update(id="bt-0", description=text)] if size == "big" else many
    try:
        store.commit("racer", operations)
    except TownError as error:
        return [type(error).__name__, error.message, error.hint]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    return []


def _init(repository: Path, name: str) -> list[str]:
    """Begin the store; which one it is."""
    return [str(Store.init(repository, name).snapshot().settings()["store"])]


def main() -> None:
    """Do what the arguments say."""
    role, repository, name = sys.argv[1:4]
    kind = Unlocked if "unlocked" in sys.argv[4:] else Store
    roles = {"claim": _claim, "say": _say, "undo": _undo, "write": _write}
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    place = Path(repository)
    json.dump(_init(place, name) if role == "init" else roles[role](kind.open(place), name), sys.stdout)


if __name__ == "__main__":
    main()
