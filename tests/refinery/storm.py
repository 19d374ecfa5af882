"""Two Refineries at once, killed at random moments, while people push to main.

``python -m tests.refinery.storm WHERE SEED KILLS`` works in the directory that it is started in. WHERE is ``clone`` for
two processes in one clone, or ``clones`` for two clones that land on one remote and share its store. What it found is
printed as JSON.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

from beads import sync
from beads.remote import Remote
from beads.store import Store
from refinery.strays import strays
from tests.refinery.invariants import broken, left_over
from tests.refinery.ledger import read
from tests.refinery.yard import make_shared, make_yard, outcomes, push_by_a_person, site_of, submit, work
from tests.world import git

_LANDS = {"a": "landed", "b": "landed", "c": "landed", "d": "landed", "bad": "rejected", "e": "landed"}


class Storm:
    """What happens to a queue.

    Args:
        place: an empty directory.
        where: see above.
        chance: decides when.
    """

    def __init__(self, place: Path, where: str, chance: random.Random) -> None:
        self._chance = chance
        self._shared = where == "clones"
        first = make_shared(place) if self._shared else make_yard(place / "project")
        submit(first, "a", {"parts/a": "ok\n"})
        submit(first, "b", {"parts/b": "ok\n"})
        submit(first, "bad", {"parts/bad": "no\n"})
        submit(first, "c", {"parts/c": "ok\n"}, needs=("a",))
        self._trunk = place / "hub.git" if self._shared else first
        self._clones = [first, place / "other" if self._shared else first]
        if self._shared:
            git(first, "remote", "set-url", "origin", str(self._trunk))
            git(first, "push", "--quiet", "origin", "refs/beads/main")
            shutil.copytree(first, self._clones[1], symlinks=True)
        # Not the same queue, so that not both build the same commits.
        submit(self._clones[0], "d", {"parts/d": "ok\n"})
        submit(self._clones[1], "e", {"parts/e": "ok\n"})
        self._workers: dict[int, int] = {}
        self._markers: set[str] = set()

    def blow(self, kills: int) -> None:
        """Go on for so long that so many die."""
        while kills:
            for number in (0, 1):
                if number not in self._workers or not _alive(self._workers[number]):
                    self._workers[number] = self._begin(number)
            time.sleep(self._chance.uniform(0.01, 0.5))
            if self._chance.random() < 0.3:
                push_by_a_person(self._trunk, f"hand-{self._chance.getrandbits(40):x}")
            elif _alive(self._workers[number := self._chance.randrange(2)]):
                _kill(self._workers.pop(number))
                kills -= 1
        for worker in self._workers.values():
            _kill(worker)

    def calm(self) -> None:
        """Let each come to its end, one after the other, and know of the other's."""
        for number in (0, 1):
            pid = self._begin(number)
            os.waitpid(pid, 0)
        for clone in [*self._clones, self._clones[0]] if self._shared else ():
            store = Store.open(clone)
            sync.sync(store, Remote(store.repository, "origin", environ=os.environ), "test", random.Random(1))

    def problems(self) -> Iterator[str]:
        """What is wrong then."""
        for number, clone in enumerate(dict.fromkeys(self._clones)):
            ledger = read(clone, self._trunk)
            yield from (f"clone {number}: {said}" for said in [*broken(ledger), *left_over(clone, self._markers)])
            if outcomes(clone) != _LANDS:
                yield f"clone {number} ended as {outcomes(clone)}"
            if git(clone, "status", "--porcelain") and self._shared:
                yield f"clone {number} did not follow"
        yield from (f"process {pid} still runs" for marker in self._markers for pid in strays(marker))

    def _begin(self, number: int) -> int:
        clone, name = self._clones[number], f"worker{number}"
        child = os.fork()
        if not child:
            os.setpgid(0, 0)
            try:
                work(site_of(clone, name))
            except BaseException:  # noqa: BLE001 - whatever it is, it is told in the end
                Path(f"died-{os.getpid()}").write_text(traceback.format_exc())
            os._exit(0)
        self._markers.add(f"{name} {clone}/refinery-{child}")
        return child


def _alive(pid: int) -> bool:
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == 0
    except ChildProcessError:
        return False


def _kill(pid: int) -> None:
    if _alive(pid):
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def main() -> None:
    """Let it blow, and say what came of it."""
    where, seed, kills = sys.argv[1:]
    storm = Storm(Path.cwd(), where, random.Random(int(seed)))
    storm.blow(int(kills))
    storm.calm()
    problems = [*storm.problems(), *(path.read_text() for path in Path.cwd().glob("died-*"))]
    json.dump({"problems": problems}, sys.stdout)


if __name__ == "__main__":
    main()
