"""Disks that are full, read-only, or somebody else's: reading goes on, and writing says what it lacks."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.commands import PROGRAM
from tests.faults.scenarios import Outcome, command, done, forget, state
from tests.world import git, make_repository

READS = (
    ("ready", "--json"),
    ("list", "--json"),
    ("show", "bt-0", "--json"),
    ("blocked", "--json"),
    ("search", "work", "--json"),
    ("stats", "--json"),
    ("why", "bt-1", "--json"),
    ("log", "--json"),
    ("log", "bt-0", "--json"),
    ("doctor", "--json"),
)

# What root may in spite of permissions. Without these it is a user like any other.
_OVERRIDES = "-dac_override,-dac_read_search,-fowner,-chown"


def few(repo: Path) -> Path:
    """A store of two beads, one waiting for the other."""
    done(repo, "init")
    done(repo, "create", "Work", "--id", "bt-0")
    done(repo, "create", "More work", "--id", "bt-1", "--needs", "bt-0")
    return repo


def answers(place: Path) -> list[Outcome]:
    return [done(place, *question) for question in READS]


def litter(place: Path) -> list[str]:
    names = (path.name for path in (place / ".git").rglob("*"))
    return sorted(name for name in names if name.startswith("tmp_") or name.endswith((".lock", ".keep")))


def sound(place: Path) -> None:
    git(place, "fsck", "--strict", "--no-dangling")
    assert json.loads(done(place, "doctor", "--json").out)["findings"] == []
    assert litter(place) == []


@contextlib.contextmanager
def mounted(place: Path, options: str) -> Iterator[Path]:
    """A small file system of its own; the test is skipped where nobody lets us have one."""
    place.mkdir()
    try:
        mount = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", place], capture_output=True, check=False
        )
    except FileNotFoundError:
        pytest.skip("there is no mount here")
    if mount.returncode:
        pytest.skip(f"no file system can be mounted: {mount.stderr.decode().strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A repository with a store on a file system of one megabyte."""
    with mounted(tmp_path / "disk", "size=1m") as disk:
        repo = make_repository(disk / "repo")
        shutil.rmtree(repo / ".git" / "hooks", ignore_errors=True)
        yield few(repo)


def fill(disk: Path, leave: int) -> Path:
    """Use up all of a file system but so many blocks."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 4096)
    with filler.open("r+b") as file:
        file.truncate(max(0, filler.stat().st_size // 4096 - leave) * 4096)
    return filler


WRITES = {
    "a bead": ("create", "Another", "--id", "bt-x"),
    "a long text": ("comment", "bt-0", "word " * 20_000),
    "a pack": ("batch", "batch"),
}


@pytest.mark.slow
@pytest.mark.parametrize("what", WRITES)
def test_a_full_disk_keeps_its_answers_and_takes_no_half_of_a_write(small: Path, what: str) -> None:
    lines = [json.dumps({"op": "create", "bead": {"id": f"bt-b{n}", "title": f"Work {n}"}}) for n in range(100)]
    (small / "batch").write_text("\n".join(lines))
    before, there = answers(small), state(small)
    codes = []
    # Each time there is a little more room, so that it gives out a little later.
    for leave in range(60):
        filler = fill(small.parent, leave)
        outcome = command(small, *WRITES[what])
        codes.append(outcome.code)
        if outcome.code:
            assert outcome.code == 6, outcome
            assert "No space left on device" in outcome.err
            assert state(small) == there
            assert answers(small) == before
            assert litter(small) == []
        filler.unlink()
        if not outcome.code:
            break
    assert set(codes[:-1]) == {6}
    assert codes[-1] == 0, "at last there is room enough"
    assert state(small) != there
    sound(small)


def test_what_is_read_only_is_read(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "size=4m") as disk:
        repo = few(make_repository(disk / "repo"))
        before = answers(repo)
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        assert answers(repo) == before
        for args in WRITES["a bead"], ("init", "--json"), ("claim", "bt-0", "--as", "nux"):
            outcome = command(repo, *args)
            if args[0] == "init":
                assert outcome.code == 0, "there is a store already"
            else:
                assert outcome.code == 6, outcome
                assert "Read-only file system" in outcome.err


def test_no_store_is_begun_on_a_read_only_file_system(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "size=4m") as disk:
        repo = make_repository(disk / "repo")
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        outcome = command(repo, "init")
        assert outcome.code == 6, outcome
        assert "Read-only file system" in outcome.err


def as_anybody(repo: Path, *args: str) -> Outcome:
    """Run ``bead ARGS`` as a user to whom permissions matter."""
    prefix = []
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("there is no setpriv to make root a user like any other")
        prefix = ["setpriv", f"--bounding-set={_OVERRIDES}"]
    ran = subprocess.run([*prefix, *PROGRAM, *args], cwd=repo, capture_output=True, text=True, check=False)
    return Outcome(ran.returncode, ran.stdout, ran.stderr)


def protect(*places: Path) -> None:
    """Take the permission to write from everything there."""
    for place in places:
        for path in [place, *place.rglob("*")]:
            if not path.is_symlink():
                path.chmod(path.stat().st_mode & ~0o222)


def unprotect(place: Path) -> None:
    for path in [place, *place.rglob("*")]:
        if not path.is_symlink():
            path.chmod(path.stat().st_mode | 0o200)


@pytest.mark.parametrize("part", [".", "beads"])
@pytest.mark.parametrize("indexed", [True, False], ids=["indexed", "not indexed"])
def test_who_may_not_write_can_read(repo: Path, part: str, indexed: bool) -> None:
    few(repo)
    before = answers(repo)
    if not indexed:
        for path in (repo / ".git" / "beads").glob("index.db*"):
            path.unlink()
    protect(repo / ".git" / part)
    try:
        for question, expected in zip(READS[:3:2], before[:3:2], strict=True):
            assert as_anybody(repo, *question) == expected
    finally:
        unprotect(repo / ".git")


@pytest.mark.parametrize("part", [".", "objects", "refs", "beads"])
def test_who_may_not_write_is_told_so(repo: Path, part: str) -> None:
    few(repo)
    there = state(repo)
    protect(repo / ".git" / part)
    try:
        outcome = as_anybody(repo, *WRITES["a bead"])
    finally:
        unprotect(repo / ".git")
    assert outcome.code == 6, outcome
    assert "Permission denied" in outcome.err
    assert "Traceback" not in outcome.err
    assert state(repo) == there
    sound(repo)


def test_somebody_elses_repository_is_read_and_not_written(repo: Path) -> None:
    if os.geteuid():
        pytest.skip("only root can give a file to somebody else")
    few(repo)
    before, there = answers(repo), state(repo)
    for path in [repo, *repo.rglob("*")]:
        os.lchown(path, 65534, 65534)
    for question, expected in zip(READS[:3:2], before[:3:2], strict=True):
        assert as_anybody(repo, *question) == expected
    outcome = as_anybody(repo, *WRITES["a bead"])
    assert outcome.code == 6, outcome
    assert "Permission denied" in outcome.err
    assert state(repo) == there


def test_who_may_not_even_read_is_told_so(repo: Path) -> None:
    few(repo)
    forget(repo)
    objects = repo / ".git" / "objects"
    mode = objects.stat().st_mode
    objects.chmod(0)
    try:
        outcome = as_anybody(repo, "show", "bt-0")
    finally:
        objects.chmod(mode)
    assert outcome.code == 6, outcome
    assert "Traceback" not in outcome.err
