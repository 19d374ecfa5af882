"""Making a work tree ready: what is copied, the set-up line, the check, and that failing there is nobody's failure."""

from __future__ import annotations

import json
import subprocess
from datetime import timedelta
from pathlib import Path

import pytest

from beads import Bead, graph
from beads.errors import InvalidDocument, Refused
from cli.config import open_site
from cli.town import _refinery
from refinery.copying import bring
from refinery.git import Git
from roles import polecat
from roles.polecat import Polecat, Result
from roles.settings import read_settings
from roles.town import Town
from tests.towns import BEAD, SETTINGS, TOWN, make_town, molecule, pour, prepare, run, sandboxed, snapshot, until
from tests.world import commit, git, make_repository

# ── Copying ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def trees(tmp_path: Path) -> tuple[Path, Git]:
    """A checkout with files that Git ignores, and Git in a work tree of it."""
    repository = make_repository(tmp_path / "r", {".gitignore": ".env*\nlocal/\nlink\n", "src/a": "a\n"})
    git(repository, "worktree", "add", "-q", "-b", "side", str(tmp_path / "w" / "t"))
    for name, text in {".env": "KEY=1\n", "local/deep/x": "x\n", "src/.env.test": "t\n", "loose": "l\n"}.items():
        (repository / name).parent.mkdir(parents=True, exist_ok=True)
        (repository / name).write_text(text)
    (repository / "local/run").write_text("#!/bin/sh\n")
    (repository / "local/run").chmod(0o755)
    return repository, Git(tmp_path / "w" / "t", {"PATH": "/usr/bin:/bin"})


def test_what_git_does_not_have_is_copied_once(trees: tuple[Path, Git]) -> None:
    repository, there = trees
    (repository / "local/link").symlink_to("deep/x")
    copied = bring(repository, there, [".env", "local", "**/.env.*", "src/a"])
    assert sorted(copied) == [".env", "local/deep/x", "local/link", "local/run", "src/.env.test"]
    assert (there.directory / "local/run").stat().st_mode & 0o777 == 0o755
    assert (there.directory / "local/link").read_text() == "x\n"
    assert there.line("status", "--porcelain") == ""
    (there.directory / ".env").write_text("mine\n")
    assert bring(repository, there, [".env", "nothing*"]) == []
    assert (there.directory / ".env").read_text() == "mine\n"
    assert [path.name for path in there.directory.parent.iterdir()] == ["t"]


def test_what_git_would_commit_is_refused(trees: tuple[Path, Git]) -> None:
    repository, there = trees
    with pytest.raises(Refused, match="Git does not ignore 'loose', so it would be committed"):
        bring(repository, there, [".env", "loose"])
    assert not (there.directory / ".env").exists()


@pytest.mark.parametrize("how", ["file", "directory", "inside", "absolute", "git", "place"])
def test_no_link_leads_out_of_the_repository(trees: tuple[Path, Git], how: str) -> None:
    repository, there = trees
    outside = repository.parent / "outside"
    outside.mkdir()
    (outside / "secret").write_text("s")
    link, pattern = repository / "link", "link"
    match how:
        case "file":
            link.symlink_to("../outside/secret")
        case "directory":
            link.symlink_to(outside)
            pattern = "link/secret"
        case "inside":
            (repository / "local/out").symlink_to("../../outside")
            pattern = "local"
        case "absolute":
            link.symlink_to(repository / ".env")
        case "git":
            link.symlink_to(".git/config")
        case _:
            (there.directory / "local").symlink_to(outside)
            pattern = "local"
    with pytest.raises(Refused, match="leads out of"):
        bring(repository, there, [pattern])
    assert [path.name for path in outside.iterdir()] == ["secret"]


def test_neither_gits_own_nor_other_work_trees_are_copied(trees: tuple[Path, Git]) -> None:
    repository, there = trees
    other = repository / "local/trees"
    (other / "t").mkdir(parents=True)
    (other / "t/x").write_text("x")
    commit(repository, {".gitignore": "*\n"}, "ignore all")
    git(there.directory, "merge", "-q", "main")
    found = bring(repository, there, ["**/*"], [other])
    assert ".env" in found
    assert not [name for name in found if ".git" in name.split("/") or name.startswith("local/trees")]


def test_a_file_that_is_named_has_to_be_there(trees: tuple[Path, Git]) -> None:
    repository, there = trees
    with pytest.raises(Refused, match=r"there is no '\.env\.production'"):
        bring(repository, there, [".env.production"])


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "a/../../x", ".git/config", " ", "a/.git/b"])
def test_only_paths_in_the_repository_can_be_named(path: str) -> None:
    with pytest.raises(InvalidDocument, match="must be a path inside the repository"):
        read_settings(f"[worktree]\ncopy = [{json.dumps(path)}]\n".encode())


# ── Set-up and check ─────────────────────────────────────────────────────────────────────────────────────────────


def town_with(path: Path, **table: object) -> Path:
    """A town with these values in ``[worktree]``, and one molecule."""
    lines = "".join(f"{key} = {json.dumps(value)}\n" for key, value in table.items())
    settings = SETTINGS.replace("[worktree]\n", f"[worktree]\n{lines}")
    repository = make_town(path, sandboxed(f'write = ["{path}"]', settings))
    pour(repository, molecule("m", "cat seen > parts/m", "grep ok parts/m"))
    return repository


def work(repository: Path) -> Result:
    return Polecat(open_site(repository), "nux", lambda: False).run(None)


def of(repository: Path, kind: str) -> Bead:
    (found,) = [bead for bead in snapshot(repository) if bead.issue_type == kind]
    return found


def test_files_are_copied_before_the_set_up_line(tmp_path: Path) -> None:
    repository = town_with(tmp_path, copy=[".env"], setup="grep KEY .env && echo ok > seen")
    commit(repository, {".gitignore": ".env\nseen\n"}, "ignore")
    (repository / ".env").write_text("KEY\n")
    assert work(repository).end == "submitted"
    head = f"polecat/{of(repository, 'molecule').id}"
    assert ".env" not in git(repository, "ls-tree", "-r", "--name-only", head).split()


@pytest.mark.parametrize(
    "table,what,detail",
    [
        ({"setup": "echo no network >&2; exit 3"}, "[worktree] setup: echo no network >&2; exit 3", "exit 3"),
        ({"ready": "false"}, "[worktree] ready: false", "exit 1"),
        ({"copy": [".env"]}, "[worktree] copy", "there is no '.env' in"),
    ],
)
def test_what_cannot_be_made_ready_is_put_off_and_no_attempt_is_lost(
    tmp_path: Path, table: dict[str, object], what: str, detail: str
) -> None:
    repository = town_with(tmp_path, **table)
    result = work(repository)
    assert result.end == "parked"
    root, step = of(repository, "molecule"), of(repository, "step")
    assert root.lease is None
    assert [(a.end, a.ending) for a in step.attempts] == [("parked", "environment")]
    assert graph.failed(step) == []
    assert list(tmp_path.glob("worktrees/[!.]*")) == []
    # Who acts next, and why, is there to be read: nobody for a moment.
    state = graph.state(snapshot(repository), root, root.updated_at)
    assert state.kind == "deferred"
    assert what in state.reason
    assert detail in state.reason
    shown = run(repository, "why", root.id, program=BEAD).stdout
    assert what in shown
    assert ("no network" in shown) == ("no network" in what)
    assert root.defer_until is not None
    later = root.defer_until + timedelta(seconds=1)
    assert graph.state(snapshot(repository), root, later).kind == "ready"
    # A town that ends when nothing is left to do is not through yet.
    site = open_site(repository)
    assert Town(site, _refinery(site), 1, TOWN, lambda _: None).tick()


def test_a_person_is_asked_in_the_end_and_can_have_it_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(polecat, "UNREADY_SECONDS", 0.0)
    repository = town_with(tmp_path, setup=f"cat {tmp_path}/cache > seen")
    ends = [work(repository).end for _ in range(graph.UNREADY_MAX)]
    assert ends == ["parked"] * (graph.UNREADY_MAX - 1) + ["unmet"]
    root = of(repository, "molecule")
    said = graph.state(snapshot(repository), root, root.updated_at)
    assert said.kind == "needs_person"
    assert f"could not be begun {graph.UNREADY_MAX} times: [worktree] setup: " in said.reason
    assert f"town retry {root.id}" in run(repository, "status").stdout
    (tmp_path / "cache").write_text("ok\n")
    prepare(repository, "retry", root.id)
    assert work(repository).end == "submitted"
    assert graph.unready(of(repository, "step")) == []


def test_a_work_tree_that_does_not_pass_its_check_is_set_up_once_more(tmp_path: Path) -> None:
    log = tmp_path / "log"
    repository = town_with(
        tmp_path,
        setup=f"echo setup >> {log}; echo ok > seen; echo x >> env",
        ready=f"echo ready >> {log}; touch junk; test $(wc -l < env) = 2",
    )
    commit(repository, {".gitignore": "seen\nenv\n"}, "ignore")
    assert work(repository).end == "submitted"
    assert log.read_text().split() == ["setup", "ready", "setup", "ready"]
    head = f"polecat/{of(repository, 'molecule').id}"
    assert "junk" not in git(repository, "ls-tree", "--name-only", head).split()


def test_a_work_tree_that_is_taken_up_again_is_only_checked(tmp_path: Path) -> None:
    log = tmp_path / "log"
    table = {"setup": f"echo setup >> {log}; echo ok > seen", "ready": f"echo ready >> {log}"}
    repository = town_with(tmp_path, **table)
    commit(repository, {".gitignore": "seen\nhalf\n"}, "ignore")
    pour(repository, molecule("slow", "if [ -f half ]; then cp seen parts/slow; else touch half; exec sleep 60; fi"))
    slow = next(bead.id for bead in snapshot(repository) if bead.title == "Do slow" and bead.issue_type == "molecule")
    first = subprocess.Popen([*TOWN, "polecat", "run", slow], cwd=repository)
    until(lambda: list(tmp_path.glob("worktrees/*/half")))
    first.kill()
    first.wait()
    prepare(repository, "witness", "tick")
    assert Polecat(open_site(repository), "nux", lambda: False).run(slow).end == "submitted"
    assert log.read_text().split() == ["setup", "ready", "ready"]
