"""What is put into Git has no secrets, whatever a worker wrote and wherever."""

from __future__ import annotations

import os
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from refinery.git import Git, Identity
from refinery.redaction import REDACTED, SCRATCH, Redacted, Secrets
from refinery.workshop import Workshop, Worktree
from tests.towns import leaks
from tests.world import git, make_repository

KEY = "sk-0f1e2d3c4b5a6978/8796"
WHO = Identity("A Worker", "worker@example.org")
WHEN = datetime(2026, 5, 6, 7, 8, 9, tzinfo=UTC)


@pytest.fixture
def worktree(tmp_path: Path, environ: dict[str, str]) -> Worktree:
    files = {"a.txt": "a\n", "dir/b.txt": "b\n", ".gitignore": "*.log\n"}
    repo = make_repository(tmp_path / "repo", files)
    secrets = Secrets((("API_KEY", KEY),))
    return Workshop(Git(repo, environ), tmp_path / "trees", secrets).open("one", "polecat/one", "main")


def sh(worktree: Worktree, script: str) -> None:
    environ = {**os.environ, "KEY": KEY}
    subprocess.run(["sh", "-ec", script], cwd=worktree.path, env=environ, check=True, capture_output=True)


def test_secrets_are_in_no_commit_and_no_snapshot(worktree: Worktree, tmp_path: Path) -> None:
    sh(worktree, 'echo $KEY >> a.txt; mkdir -p new/$KEY; echo "<$KEY>" > new/$KEY/x; ln -s $KEY link; echo plain > c')
    saved = worktree.snapshot("refs/beads/salvage/one/1", "Saved", WHO, WHEN)
    assert saved is not None
    assert worktree.redacted() == [
        Redacted("API_KEY", "a.txt"),
        Redacted("API_KEY", "link"),
        Redacted("API_KEY", f"new/{REDACTED}/x"),
    ]
    assert git(worktree.path, "show", f"{saved}:a.txt") == f"a\n{REDACTED}"
    assert git(worktree.path, "show", f"{saved}:new/{REDACTED}/x") == f"<{REDACTED}>"
    assert git(worktree.path, "show", f"{saved}:c") == "plain"
    assert worktree.redacted() == []
    assert worktree.commit("Work", WHO, WHO, WHEN)
    assert git(worktree.path, "status", "--porcelain") == ""
    assert worktree.redacted() == []
    assert leaks(tmp_path, KEY) == []


def test_a_file_that_git_has_keeps_its_name_whatever_is_called_a_secret(
    tmp_path: Path, environ: dict[str, str]
) -> None:
    repo = make_repository(tmp_path / "repo", {"settings/agent.json": "{}\n"})
    secrets = Secrets((("AGENT", "settings/agent.json"),))
    worktree = Workshop(Git(repo, environ), tmp_path / "trees", secrets).open("one", "polecat/one", "main")
    sh(worktree, "echo '[]' > settings/agent.json")
    assert worktree.commit("Work", WHO, WHO, WHEN)
    assert git(worktree.path, "show", "HEAD:settings/agent.json") == "[]"


def test_what_was_there_before_is_not_touched(worktree: Worktree) -> None:
    (worktree.path / "a.txt").write_text(f"a person's own mistake: {KEY}\n")
    git(worktree.path, "checkout", "--quiet", "--detach")
    git(worktree.path, "commit", "--quiet", "--all", "--message", "by a person")
    mistake = git(worktree.path, "rev-parse", "HEAD")
    git(worktree.path, "checkout", "--quiet", "polecat/one")
    worktree.advance(mistake)
    sh(worktree, "echo more > dir/b.txt")
    worktree.tree()
    assert worktree.redacted() == []
    assert KEY in (worktree.path / "a.txt").read_text()


@pytest.mark.parametrize(
    "script,where",
    [
        ("git init -q nested; mkdir nested/d; echo $KEY > nested/d/f", "nested/d/f"),
        ("git init -q nested; cd nested; echo x > x; git add .; git commit -qm x; echo $KEY > y", "nested/y"),
        ("git init -q n; git init -q n/m; echo $KEY > n/m/f", "n/m/f"),
        ("echo $KEY > f; chmod 000 f", "f"),
        ("mkdir d; echo $KEY > d/f; chmod 500 d", "d/f"),
        ("git update-index --assume-unchanged a.txt; echo $KEY > a.txt", "a.txt"),
        ("git update-index --skip-worktree a.txt; echo $KEY > a.txt", "a.txt"),
        ("rm a.txt; mkdir a.txt; echo $KEY > a.txt/f", "a.txt/f"),
        ("echo broken > $(git rev-parse --git-dir)/index; echo $KEY > f", "f"),
    ],
)
def test_nothing_is_a_place_to_hide(worktree: Worktree, script: str, where: str, tmp_path: Path) -> None:
    sh(worktree, script)
    tree = worktree.tree()
    assert worktree.redacted() == [Redacted("API_KEY", where)]
    assert git(worktree.path, "cat-file", "blob", f"{tree}:{where}") == REDACTED
    assert leaks(tmp_path, KEY) == []


def test_what_is_ignored_stays_on_disk_and_what_is_forced_in_does_not(worktree: Worktree) -> None:
    sh(worktree, "echo $KEY > kept.log; echo $KEY > forced.log; echo x > x.log; git add -f x.log; git reset -q")
    git(
        worktree.path,
        "update-index",
        "--add",
        "--cacheinfo",
        f"100644,{git(worktree.path, 'rev-parse', ':a.txt')},forced.log",
    )
    tree = worktree.tree()
    assert git(worktree.path, "show", f"{tree}:forced.log") == REDACTED
    assert KEY in (worktree.path / "kept.log").read_text()


def test_files_behind_a_link_that_leads_out_are_not_ours(worktree: Worktree, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "b.txt").write_text(f"the user's own: {KEY}\n")
    sh(worktree, f"rm -r dir; ln -s {outside} dir")
    tree = worktree.tree()
    assert git(worktree.path, "ls-tree", tree, "dir").startswith("120000")
    assert worktree.redacted() == []
    assert KEY in (outside / "b.txt").read_text()


def test_what_a_kill_left_while_a_file_was_rewritten_is_removed(worktree: Worktree) -> None:
    (worktree.path / f"{SCRATCH}123").write_text("half")
    assert worktree.tree() == git(worktree.path, "rev-parse", "HEAD^{tree}")
    assert not (worktree.path / f"{SCRATCH}123").exists()
