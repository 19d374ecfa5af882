"""Generated files that conflict are made again, in the queue; where that cannot be, it is a conflict like any other."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from refinery.git import Git
from refinery.landed import landed
from refinery.merge import Request
from tests.refinery.test_refinery import Queue
from tests.world import commit, git

MAKE = "ls parts | sort | xargs > made.lock"


@pytest.fixture
def one(tmp_path: Path, environ: dict[str, str]) -> Iterator[Queue]:
    queue = Queue(tmp_path, 1, environ)
    yield queue
    queue.refinery.close()


def declare(queue: Queue, run: str, style: str = "merge") -> None:
    """Let main say how ``made.lock`` is made, and have it."""
    settings = (queue.repository / "town.toml").read_text()
    table = f'[merge]\nstyle = "{style}"\n[[merge.generated]]\npaths = ["*.lock"]\nrun = "{run}"\ntimeout = 20\n'
    commit(queue.repository, {"town.toml": f"{settings}\n{table}", "made.lock": "first\n"}, "Declare")


def submit(queue: Queue, name: str) -> None:
    """A request that adds a part, and to the file that is made of all parts."""
    queue.submit(name, more=("made.lock", f"{name} first\n"))


@pytest.mark.parametrize("style", ["merge", "squash"])
def test_what_conflicts_in_generated_files_lands_with_them_made_again(style: str, one: Queue) -> None:
    declare(one, MAKE, style)
    for name in "abc":
        submit(one, name)
    one.submit("d")
    happened = one.run()
    assert one.ended("landed") == set("abcd"), happened
    assert git(one.repository, "show", "main:made.lock") == "a b c d first"
    one.assert_green()
    first = next(line for line in happened if line.startswith("landed"))
    assert "bt-d.m1" in first, "nobody waits for it"
    beads = [bead for bead in one.store.snapshot() if bead.merge]
    asked = [Request(b.id, b.title, b.merge.head, b.merge.molecule) for b in beads if b.merge]
    told = landed(Git(one.repository, dict(os.environ)), "main", asked)
    assert told == {bead.id: bead.merge.landed for bead in beads if bead.merge}, "history alone says so, too"


@pytest.mark.parametrize(
    "run,why",
    [
        ("echo sorry; exit 3", "failed: echo sorry; exit 3: exit 3"),
        ("echo x > made.lock; echo y > parts/first", "changed parts/first too"),
        ("no-such-program", "could not be run"),
    ],
)
def test_a_command_that_cannot_make_them_leaves_a_conflict(run: str, why: str, one: Queue) -> None:
    declare(one, run)
    submit(one, "a")
    submit(one, "b")
    one.run()
    assert (one.ended("landed"), one.ended("rejected")) == ({"a"}, {"b"})
    description = one.store.snapshot().need("bt-b.1").description
    assert "CONFLICT (content): Merge conflict in made.lock" in description
    assert why in description


def test_a_conflict_in_other_files_too_is_one_for_the_molecule(one: Queue) -> None:
    declare(one, "echo made > made.lock; touch ran")
    one.submit("a", more=("shared", "a\n"))
    one.submit("b", "ok\n", more=("shared", "b\n"))
    one.run()
    assert (one.ended("landed"), one.ended("rejected")) == ({"a"}, {"b"})
    assert "command" not in one.store.snapshot().need("bt-b.1").description
