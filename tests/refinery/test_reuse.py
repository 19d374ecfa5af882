"""Work trees that are used again: what stays, and that in any doubt nothing does."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from refinery.git import Git
from refinery.workshop import Workshop, Worktree
from tests.towns import SETTINGS, make_town, molecule, pour, run, snapshot
from tests.world import commit, git, make_repository

FILES = {".gitignore": "cache/\njunk\n", "a": "one\n", "src/b": "b\n", "run": "#!/bin/sh\n"}


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    repository = make_repository(tmp_path / "r", FILES)
    return Workshop(Git(repository, dict(os.environ)), tmp_path / "trees", keep=("cache",))


def used(workshop: Workshop, spoil: Callable[[Worktree], object] = lambda _: None) -> Worktree:
    """A work tree that was used, perhaps spoilt, and given up: what is kept is in it."""
    first = workshop.open("one", "polecat/one", "main")
    (first.path / "cache").mkdir()
    (first.path / "cache/made").write_text("by a set-up")
    spoil(first)
    first.remove(discard=True, shelve=True)
    return first


def as_main(worktree: Worktree) -> None:
    """What every work tree that is handed out must be, whatever was there before."""
    found = sorted(p.relative_to(worktree.path).as_posix() for p in worktree.path.rglob("*") if not p.is_dir())
    assert [name for name in found if not name.startswith("cache/")] == sorted([".git", *FILES])
    assert {name: (worktree.path / name).read_text() for name in FILES} == FILES
    assert git(worktree.path, "status", "--porcelain") == ""
    assert git(worktree.path, "stash", "list") == ""
    assert worktree.tree() == git(worktree.path, "rev-parse", "main^{tree}")


def test_what_is_kept_is_there_for_the_next_branch_at_the_same_path(workshop: Workshop) -> None:
    first = used(workshop)
    assert not first.path.exists()
    assert git(workshop.root.parent / "r", "worktree", "list").count("\n") == 0
    second = workshop.open("two", "polecat/two", "main")
    assert second.path == first.path
    assert (second.path / "cache/made").read_text() == "by a set-up"
    assert second.branch == "polecat/two"
    as_main(second)
    third = workshop.open("three", "polecat/three", "main")
    assert third.path != second.path
    assert not (third.path / "cache").exists()
    as_main(third)


def lie_about(path: Path, text: str) -> None:
    """Change a file so that neither its size nor its time tell."""
    before = path.stat()
    path.write_text(text)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def become_a_directory(path: Path) -> None:
    path.unlink()
    (path / "b").mkdir(parents=True)


def become_a_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("run")


HARMLESS: dict[str, Callable[[Worktree], object]] = {
    "an edit that neither size nor time tells of": lambda w: lie_about(w.path / "a", "two\n"),
    "files that nobody tracks": lambda w: [(w.path / name).write_text("x") for name in ("junk", "src/new")],
    "a deleted file": lambda w: (w.path / "a").unlink(),
    "a directory where a file was": lambda w: become_a_directory(w.path / "a"),
    "a mode": lambda w: (w.path / "run").chmod(0o755),
    "flags that hide a change": lambda w: (
        git(w.path, "update-index", "--assume-unchanged", "a"),
        (w.path / "a").write_text("hidden\n"),
    ),
    "a branch of its own": lambda w: git(w.path, "checkout", "-q", "-b", "mine"),
    "a merge under way": lambda w: (Path(git(w.path, "rev-parse", "--absolute-git-dir")) / "MERGE_HEAD").write_text(
        "x"
    ),
    "a commit": lambda w: commit(w.path, {"a": "mine\n"}, "mine"),
    "a nested repository": lambda w: make_repository(w.path / "nested"),
    "a link in place of the file": lambda w: become_a_link(w.path / "a"),
}


@pytest.mark.parametrize("name", HARMLESS)
def test_nothing_else_is_left_of_who_was_there_before(workshop: Workshop, name: str) -> None:
    used(workshop, HARMLESS[name])
    second = workshop.open("two", "polecat/two", "main")
    as_main(second)
    assert (second.path / "cache/made").exists()


def outside(worktree: Worktree) -> Path:
    place = worktree.path.parent.parent / "outside"
    place.mkdir(exist_ok=True)
    return place


def replace_cache(worktree: Worktree) -> None:
    (worktree.path / "cache/made").unlink()
    (worktree.path / "cache").rmdir()
    (worktree.path / "cache").symlink_to(outside(worktree))


DOUBTFUL: dict[str, Callable[[Worktree], object]] = {
    "a link where something is to be kept": replace_cache,
    "a file with a second name elsewhere": lambda w: (outside(w) / "a").hardlink_to(w.path / "a"),
    "a repository around the tracked files": lambda w: git(w.path / "src", "init", "-q"),
    "a repository in place of ours": lambda w: become_a_directory(w.path / ".git"),
}


@pytest.mark.parametrize("name", DOUBTFUL)
def test_in_doubt_it_is_made_anew(workshop: Workshop, name: str) -> None:
    used(workshop, DOUBTFUL[name])
    second = workshop.open("two", "polecat/two", "main")
    as_main(second)
    assert not (second.path / "cache").exists()
    assert list((workshop.root / ".idle").iterdir()) == []


@pytest.mark.parametrize("rules", ["*.txt text=auto\n", "* -text\n", "a filter=lfs\n", "a eol=crlf\n"])
def test_where_files_can_be_written_in_two_ways_nothing_is_used_again(workshop: Workshop, rules: str) -> None:
    commit(workshop.root.parent / "r", {".gitattributes": rules}, "rules")
    used(workshop)
    assert not (workshop.open("two", "polecat/two", "main").path / "cache").exists()


def test_what_git_does_not_ignore_is_not_kept(workshop: Workshop) -> None:
    used(workshop)
    commit(workshop.root.parent / "r", {".gitignore": "junk\n"}, "no cache")
    second = workshop.open("two", "polecat/two", "main")
    assert not (second.path / "cache").exists()
    assert git(second.path, "status", "--porcelain") == ""


def test_a_process_that_is_still_there_keeps_its_files(workshop: Workshop) -> None:
    first = workshop.open("one", "polecat/one", "main")
    with subprocess.Popen(["sleep", "60"], cwd=first.path) as process:
        first.remove(shelve=True)
        second = workshop.open("two", "polecat/two", "main")
        as_main(second)
        assert list((workshop.root / ".idle").iterdir()) == []
        process.kill()


def test_killed_at_any_point_the_next_one_is_whole(workshop: Workshop, tmp_path: Path) -> None:
    first = used(workshop)
    waiting = workshop.root / ".idle" / first.path.name
    # Killed between the two renames that take it down: a registration without files, and files without one.
    second = workshop.open("two", "polecat/two", "main")
    admin = Path(git(second.path, "rev-parse", "--absolute-git-dir"))
    (admin / "locked").write_text("beadtown is making this")
    second.path.rename(waiting)
    again = workshop.open("two", "polecat/two", "main")
    as_main(again)
    assert git(tmp_path / "r", "worktree", "list").count("\n") == 1


def test_without_anything_to_keep_what_waits_is_deleted(workshop: Workshop) -> None:
    used(workshop)
    workshop.prune()
    assert list((workshop.root / ".idle").iterdir())
    workshop.prune(idle=True)
    assert list((workshop.root / ".idle").iterdir()) == []


def test_a_town_sets_the_next_one_up_on_what_was_kept(tmp_path: Path) -> None:
    table = 'keep = ["cache"]\nsetup = "echo x >> cache/runs || { mkdir cache && echo x > cache/runs; }"\n'
    repository = make_town(tmp_path, SETTINGS.replace("[worktree]\n", f"[worktree]\n{table}"))
    commit(repository, {".gitignore": "cache\n"}, "ignore")
    for name in ("one", "two"):
        pour(repository, molecule(name, f"wc -l < cache/runs > seen-{name}; echo ok > parts/{name}"))
        run(repository, "up", "--until-idle")
    molecules = [bead for bead in snapshot(repository) if bead.issue_type == "molecule"]
    assert [bead.outcome for bead in molecules] == ["landed"] * 2
    assert [(repository / f"seen-{name}").read_text().strip() for name in ("one", "two")] == ["1", "2"]
    assert [path.name for path in (tmp_path / "worktrees").glob("[!.]*")] == []
