"""Packing: fewer files, the same store, and nobody else's objects touched, wherever it is killed."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import sys
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from beads import objects, packing
from beads import packs as packs_
from beads.clock import SystemClock
from beads.errors import Unreadable
from beads.files import turn
from beads.ops import Create, Say
from beads.store import Store
from tests.beads.strategies import bead
from tests.world import git

BEADS = 3

TRACED = {packing.__file__, packs_.__file__, objects.__file__}


@pytest.fixture
def store(repo: Path) -> Store:
    """A store with a pack of its own and loose objects, in a repository that has loose objects, too."""
    store = Store.init(repo, "ada")
    store.commit("ada", [Create(bead=bead(f"bt-{number}")) for number in range(30)])
    for number in range(5):
        store.commit("ada", [Say(id=f"bt-{number % BEADS}", text=f"{number}")])
    return store


def loose(repo: Path) -> set[str]:
    return {f"{path.parent.name}{path.name}" for path in (repo / ".git" / "objects").glob("??/*")}


def packs(repo: Path) -> set[str]:
    return {path.name for path in (repo / ".git" / "objects" / "pack").iterdir()}


def reached(repo: Path, *refs: str) -> set[str]:
    return {line.split()[0] for line in git(repo, "rev-list", "--objects", *refs).splitlines()}


def rest(store: Store) -> None:
    """Wait until no packer is at work."""
    with turn(store.directory / "packer", SystemClock(), 60, str) as alone:
        assert alone is not None


def test_what_the_store_has_is_packed_and_nothing_else(store: Store, repo: Path) -> None:
    (repo / "mine").write_text("not added to any commit\n")
    git(repo, "add", "mine")
    before, ours = loose(repo), reached(repo, store.ref)
    said = list(store.snapshot())
    packed = store.pack()
    assert packed.objects == len(before & ours)
    assert loose(repo) == before - ours
    assert list(Store.open(repo).snapshot_at(store.snapshot().commit)) == said
    git(repo, "fsck", "--strict", "--no-dangling")


def test_packing_again_does_nothing(store: Store, repo: Path) -> None:
    store.pack()
    before = packs(repo)
    assert store.pack() == (0, 0)
    assert packs(repo) == before


@pytest.mark.parametrize("at_once", [2, 100])
def test_only_packs_that_the_store_wrote_are_rolled_up(
    store: Store, repo: Path, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(packing, "_OPEN_MAX", at_once)
    git(repo, "commit", "--quiet", "--allow-empty", "--message", "mine")
    git(repo, "pack-objects", "--revs", "--quiet", str(repo / ".git/objects/pack/pack"), stdin="HEAD\n")
    theirs = {name for name in packs(repo) if name.endswith(".pack")} - {
        f"{name}.pack" for name in store.repository.objects.own.settled()
    }
    assert store.pack().packs == 6
    assert theirs <= packs(repo)
    assert len(store.repository.objects.own) == 1


def test_no_directory_is_like_another_one_to_git() -> None:
    def number(path: str) -> int:
        """What Git's ``pack_name_hash`` makes of a path."""
        found = 0
        for letter in path.encode():
            found = ((found >> 2) + (letter << 24)) & 0xFFFFFFFF
        return found

    directories = [f"beads/{one:02x}" for one in range(256)]
    directories += [f"{one}/{other:02x}" for one in directories for other in range(256)]
    numbers = {number(packing._alike(directory)) for directory in directories}
    assert len(numbers) == 256 + 256 * 256 > 6 * len({number(directory) for directory in directories})
    for path in "", "beads", "beads/readme.md", "beads/3f/a9/bt-7f3a9c.toml":
        assert packing._alike(path) == path


@pytest.mark.parametrize("late", [False, True])
def test_an_index_of_gits_over_several_packs_does_not_outlive_them(store: Store, repo: Path, late: bool) -> None:
    git(repo, "multi-pack-index", "write")
    listing = repo / ".git" / "objects" / "pack" / "multi-pack-index"
    listing.with_name(f"{listing.name}-{'0' * 40}.bitmap").touch()
    content = listing.read_bytes()
    assert store.pack().packs == 6
    assert not [name for name in packs(repo) if name.startswith("multi-pack-index")]
    if late:
        # Git had looked which packs there are before, and was slow to write.
        listing.write_bytes(content)
        with pytest.raises(AssertionError, match="failed to load pack"):
            git(repo, "fsck", "--strict", "--no-dangling")
        store.sweep()
    git(repo, "fsck", "--strict", "--no-dangling")
    git(repo, "multi-pack-index", "write")
    store.sweep()
    assert listing.exists()


@pytest.mark.parametrize("content", [b"", b"MIDX", b"MIDX\1\1\4\0" + bytes(60)])
def test_an_index_over_several_packs_that_is_none_is_nobodys_business(store: Store, repo: Path, content: bytes) -> None:
    listing = repo / ".git" / "objects" / "pack" / "multi-pack-index"
    listing.write_bytes(content)
    assert store.pack().packs == 6
    assert listing.read_bytes() == content


def test_packs_are_rolled_up_when_they_are_of_a_size() -> None:
    assert packing._too_small({"a": 100, "b": 10}) == []
    assert packing._too_small({"a": 10, "b": 9, "c": 100}) == ["b", "a"]
    assert packing._too_small({"a": 1}) == []
    assert packing._too_small({}) == []


def test_a_writer_packs_when_there_is_much(store: Store, repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("beads.store.PACKS_MAX", 10)
    before = loose(repo)
    for number in range(60):
        store.commit("ada", [Say(id="bt-0", text=f"again {number}")])
        rest(store)
    assert len({name for name in packs(repo) if name.endswith(".idx")}) <= 10
    assert loose(repo) == before
    assert len(Store.open(repo).snapshot_at(store.snapshot().commit).need("bt-0").comments) == 62
    git(repo, "fsck", "--strict", "--no-dangling")


def test_without_git_nothing_is_packed_and_writing_goes_on(
    store: Store, repo: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unreadable, match="git cannot be run"):
        store.pack()
    monkeypatch.setattr("beads.store.PACKS_MAX", 1)
    before = packs(repo)
    assert store.commit("ada", [Say(id="bt-0", text="x")]).changed
    assert before < packs(repo)


def test_what_cannot_be_packed_is_said_when_asked_and_not_tried_at_every_write(
    store: Store, repo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("beads.store.PACKS_MAX", 3)
    before = packs(repo)
    [victim] = (repo / ".git" / "objects" / "pack").glob(f"{sorted(before)[0].split('.')[0]}.pack")
    victim.chmod(0o644)
    victim.write_bytes(b"PACK" + bytes(100))
    with pytest.raises(Unreadable, match=r"git cannot pack: \w"):
        store.pack()
    said = repo / ".git" / "beads" / "packing" / "said"
    complained = said.stat().st_mtime_ns
    for number in range(5):
        assert Store.open(repo).commit("ada", [Create(bead=bead(f"bt-n{number}"))]).changed
        rest(store)
    assert said.stat().st_mtime_ns == complained
    assert before < packs(repo)
    # Some time later somebody tries again.
    os.utime(said, ns=(complained - 700 * 10**9,) * 2)
    assert Store.open(repo).commit("ada", [Create(bead=bead("bt-later"))]).changed
    rest(store)
    assert said.stat().st_mtime_ns > complained


def test_one_packs_at_a_time(store: Store, repo: Path) -> None:
    with turn(store.directory / "packer", SystemClock(), 0, str) as alone:
        assert alone is not None
        assert store.pack() == (0, 0)
    assert store.pack().objects > 0
    assert reached(repo, store.ref).isdisjoint(loose(repo))


def _killed(template: Path, place: Path, line: int) -> bool:
    """Pack a copy in a child that is killed before it runs that line; whether it came to its end before."""
    shutil.copytree(template, place, symlinks=True)
    child = os.fork()
    if child == 0:
        left, times = itertools.count(line - 1, -1), Counter[int]()

        def trace(frame: FrameType, event: str, _: object) -> Any:
            if frame.f_code.co_filename not in TRACED:
                return None
            if event == "line":
                times[frame.f_lineno] += 1
                if times[frame.f_lineno] <= 2 and next(left) == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
            return trace

        sys.settrace(trace)
        Store.open(place).pack()
        os._exit(0)
    return os.waitpid(child, 0)[1] == 0


@pytest.mark.slow
def test_a_kill_at_any_line_loses_nothing_and_the_next_one_ends_it(store: Store, repo: Path, tmp_path: Path) -> None:
    head = store.snapshot().commit
    said = list(store.snapshot())
    store._index.close()
    for line in itertools.count(1):
        place = tmp_path / f"copy-{line}"
        done = _killed(repo, place, line)
        git(place, "fsck", "--strict", "--no-dangling")
        assert list(Store.open(place).snapshot_at(head)) == said, f"after line {line}"
        # Git may still be at work, and ends what it was told before.
        rest(Store.open(place))
        Store.open(place).pack()
        left = loose(place) & reached(place, store.ref)
        assert left == set(), f"after line {line} something stays loose"
        assert not (place / ".git" / "beads" / "packing").exists()
        shutil.rmtree(place)
        if done:
            break
    assert line > 40
