"""Repositories of every make, and places to stand in: the commands work there, or say why not and change nothing."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from beads.errors import TownError
from beads.ops import Say
from beads.store import REF, Store
from tests.faults.scenarios import command, done, forget, state
from tests.world import git, make_repository


def files(place: Path) -> dict[str, bytes]:
    return {str(path.relative_to(place)): path.read_bytes() for path in place.rglob("*") if path.is_file()}


def day(place: Path) -> None:
    """What one does there, and what must have come of it."""
    done(place, "init")
    done(place, "create", "Work", "--id", "bt-0")
    done(place, "create", "More work", "--id", "bt-1", "--needs", "bt-0")
    done(place, "claim", "--next", "--as", "nux")
    done(place, "close", "bt-0", "--as", "nux", "--epoch", "1")
    assert "bt-1" in done(place, "ready").out
    assert "bt-0" in done(place, "log").out
    assert done(place, "doctor").out.startswith("2 beads, 0 problems")


# --- where one stands ------------------------------------------------------------------------------------------


def _subdirectory(repo: Path) -> Path:
    (repo / "deep" / "er").mkdir(parents=True)
    return repo / "deep" / "er"


def _worktree(repo: Path) -> Path:
    git(repo, "worktree", "add", "--quiet", "../linked")
    return repo.parent / "linked"


def _submodule(repo: Path) -> Path:
    outer = make_repository(repo.parent / "outer")
    git(outer, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(repo), "inner")
    return outer / "inner"


def _bare(repo: Path) -> Path:
    git(repo.parent, "clone", "--quiet", "--bare", str(repo), "bare.git")
    return repo.parent / "bare.git"


def _shared_clone(repo: Path) -> Path:
    git(repo.parent, "clone", "--quiet", "--shared", str(repo), "shared")
    return repo.parent / "shared"


def _shallow_clone(repo: Path) -> Path:
    git(repo.parent, "clone", "--quiet", "--depth", "1", f"file://{repo}", "shallow")
    return repo.parent / "shallow"


def _partial_clone(repo: Path) -> Path:
    git(repo, "config", "uploadpack.allowFilter", "true")
    git(repo.parent, "clone", "--quiet", "--filter=blob:none", f"file://{repo}", "partial")
    return repo.parent / "partial"


def _without_commits(repo: Path) -> Path:
    (repo.parent / "new").mkdir()
    git(repo.parent / "new", "init", "--quiet")
    return repo.parent / "new"


def _strange_name(repo: Path) -> Path:
    return repo.rename(repo.parent / "a b'\"$x\né")


PLACES: dict[str, Callable[[Path], Path]] = {
    "subdirectory": _subdirectory,
    "work tree": _worktree,
    "submodule": _submodule,
    "bare": _bare,
    "shared clone": _shared_clone,
    "shallow clone": _shallow_clone,
    "partial clone": _partial_clone,
    "no commit yet": _without_commits,
    "strange name": _strange_name,
}


@pytest.mark.parametrize("name", PLACES)
def test_a_day_of_work_in(repo: Path, name: str) -> None:
    place = PLACES[name](repo)
    day(place)
    git(place, "fsck", "--strict", "--no-dangling")
    assert git(place, "rev-parse", REF) == Store.open(place).snapshot().commit


def test_a_clone_that_borrows_its_objects_goes_on_with_the_store(repo: Path) -> None:
    day(repo)
    shared = _shared_clone(repo)
    git(shared, "fetch", "--quiet", "origin", f"{REF}:{REF}")
    done(shared, "comment", "bt-1", "from the clone")
    assert "from the clone" in done(shared, "show", "bt-1").out
    git(shared, "fsck", "--strict", "--no-dangling")
    assert "from the clone" not in done(repo, "show", "bt-1").out


def test_a_clone_that_left_out_the_beads_says_so(repo: Path) -> None:
    day(repo)
    partial = _partial_clone(repo)
    git(partial, "fetch", "--quiet", "origin", f"{REF}:{REF}")
    before = git(partial, "rev-parse", REF)
    for args in ("list", "--all"), ("show", "bt-1"), ("comment", "bt-1", "Found it."):
        outcome = command(partial, *args)
        # It may fetch them, or say that they are not there; but not stumble.
        assert outcome.code == 0 or (outcome.err.startswith("error: object") and "Traceback" not in outcome.err)
        if outcome.code:
            assert git(partial, "rev-parse", REF) == before


# --- which repository is meant ---------------------------------------------------------------------------------


def test_git_dir_of_a_hook_changes_nothing(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    below = _subdirectory(repo)
    monkeypatch.setenv("GIT_DIR", ".git")
    monkeypatch.setenv("GIT_INDEX_FILE", ".git/index")
    monkeypatch.setenv("GIT_PREFIX", "deep/er/")
    day(below)
    assert state(repo) != "none"
    assert not (below / ".git").exists()


def test_git_dir_of_another_repository_leads_nobody_astray(
    repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = make_repository(tmp_path / "other")
    before = files(other)
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(other))
    monkeypatch.setenv("GIT_OBJECT_DIRECTORY", str(other / ".git" / "objects"))
    day(repo)
    # One store of the two, and not half of it in each.
    assert files(other) == before


def test_a_hook_of_git_can_use_the_store(repo: Path) -> None:
    day(repo)
    hook = repo / ".git" / "hooks" / "post-commit"
    hook.write_text("#!/bin/sh\nexec bead --actor hook comment bt-1 'committed'\n")
    hook.chmod(0o755)
    git(repo, "commit", "--quiet", "--allow-empty", "--message", "Something")
    assert "committed" in done(repo, "show", "bt-1").out


# --- other kinds of repository ---------------------------------------------------------------------------------


def test_a_sha256_repository_is_refused_and_not_touched(tmp_path: Path) -> None:
    place = tmp_path / "other"
    place.mkdir()
    git(place, "init", "--quiet", "--object-format=sha256")
    git(place, "commit", "--quiet", "--allow-empty", "--message", "Begin")
    before = files(place)
    outcome = command(place, "init")
    assert outcome.code == 6, outcome
    assert "objectformat = sha256" in outcome.err
    assert "hint: It needs SHA-1" in outcome.err
    assert files(place) == before


def test_a_reftable_repository_is_refused_and_not_touched(tmp_path: Path) -> None:
    place = tmp_path / "other"
    place.mkdir()
    made = subprocess.run(
        ["git", "init", "--quiet", "--ref-format=reftable"], cwd=place, capture_output=True, check=False
    )
    if made.returncode:
        # This Git is older than reftables; the file that says what a repository is does as well.
        git(place, "init", "--quiet")
        git(place, "config", "core.repositoryFormatVersion", "1")
        with (place / ".git" / "config").open("a") as config:
            config.write("[extensions]\n\trefStorage = reftable\n")
    before = files(place)
    for args in ("init",), ("ready",), ("create", "Work"):
        outcome = command(place, *args)
        assert outcome.code in (3, 6), outcome
        assert files(place) == before
    assert "refstorage = reftable" in command(place, "init").err


@pytest.mark.parametrize("part", ["objects", "refs/beads", "beads"])
def test_what_a_group_shares_its_members_can_use(tmp_path: Path, part: str) -> None:
    repo = tmp_path / "repo"
    mask = os.umask(0o077)
    try:
        git(tmp_path, "init", "--quiet", "--shared=group", "repo")
        day(repo)
    finally:
        os.umask(mask)
    place = repo / ".git" / part
    mean = {str(path.relative_to(place)) for path in (place, *place.rglob("*")) if not _usable(path)}
    assert mean == set()


def _usable(path: Path) -> bool:
    """Whether the group can read what is replaced and never written again, and write everything else."""
    mode = stat.S_IMODE(path.stat().st_mode)
    replaced = (path.is_file() and path.parent.name != "beads") or path.name == "main"
    needed = stat.S_IRGRP if replaced else stat.S_IRGRP | stat.S_IWGRP
    return mode & needed == needed


# --- repositories that change under one ------------------------------------------------------------------------


def test_a_repository_that_is_moved_while_open_is_not_begun_anew(repo: Path) -> None:
    day(repo)
    store = Store.open(repo)
    assert len(store.snapshot()) == 2
    moved = repo.rename(repo.parent / "moved")
    before = state(moved)
    with pytest.raises(TownError, match=r"is gone|cannot be"):
        store.commit("ada", [Say(id="bt-1", text="to the old place")])
    # Whoever writes to where it was makes no half of a repository there.
    assert not (repo / ".git" / "objects").exists()
    assert not (repo / ".git" / "refs").exists()
    assert state(moved) == before
    day_after = Store.open(moved)
    assert day_after.commit("ada", [Say(id="bt-1", text="to the new one")]).changed
    done(moved, "doctor")


def test_a_repository_that_is_copied_is_another_one(repo: Path) -> None:
    day(repo)
    copy = Path(shutil.copytree(repo, repo.parent / "copy"))
    done(copy, "comment", "bt-1", "in the copy")
    assert "in the copy" in done(copy, "show", "bt-1").out
    assert "in the copy" not in done(repo, "show", "bt-1").out
    forget(copy)
    assert "in the copy" in done(copy, "show", "bt-1").out


def test_a_store_whose_ref_is_set_back_is_read_as_it_is(repo: Path) -> None:
    day(repo)
    before = done(repo, "list", "--all", "--json").out
    was = git(repo, "rev-parse", REF)
    done(repo, "create", "Another", "--id", "bt-x")
    done(repo, "list", "--all")
    git(repo, "update-ref", REF, was)
    assert done(repo, "list", "--all", "--json").out == before
    assert command(repo, "show", "bt-x").code == 3


def test_a_store_that_is_replaced_by_another_is_read_as_it_is(repo: Path, tmp_path: Path) -> None:
    day(repo)
    done(repo, "list", "--all")
    other = make_repository(tmp_path / "other")
    done(other, "init")
    done(other, "create", "Of another store", "--id", "bt-o")
    git(repo, "fetch", "--quiet", str(other), f"+{REF}:{REF}")
    assert "bt-0" not in done(repo, "list", "--all").out
    assert "Of another store" in done(repo, "ready").out
    assert "Of another store" in done(repo, "search", "another").out
