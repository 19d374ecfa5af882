"""aider and Git: it adds the files that it makes, and nothing of that is to be found in the repository."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

from roles.runtimes import RUNTIMES
from roles.settings import Agent
from roles.task import Order
from tests.world import git


def test_what_it_does_with_git_leaves_the_repository_alone(repo: Path, tmp_path: Path) -> None:
    tree, scratch = tmp_path / "tree", tmp_path / "scratch"
    git(repo, "worktree", "add", "--quiet", str(tree))
    before = {path: path.stat().st_mtime_ns for path in (repo / ".git").rglob("*")}
    now = datetime(2026, 11, 28, tzinfo=UTC)
    order = Order(Agent(runtime="aider"), "do it", tree, tmp_path / "home", scratch, "a-session", now)
    launched = RUNTIMES["aider"].launch(order)
    for path, text in launched.files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tree / "new").write_text("new\n")
    os.environ.pop("GIT_CONFIG_GLOBAL")
    assert git(tree, "config", "--get", "user.name", extra=launched.environ) == "aider"
    # So it does before it writes a file that is new to Git.
    git(tree, "add", "new", extra=launched.environ)
    assert git(tree, "cat-file", "-t", "HEAD", extra=launched.environ) == "commit"
    assert {path: path.stat().st_mtime_ns for path in (repo / ".git").rglob("*")} == before
    assert git(tree, "status", "--porcelain") == "?? new"


def test_without_a_repository_there_is_nothing_to_leave_alone(tmp_path: Path) -> None:
    now = datetime(2026, 11, 28, tzinfo=UTC)
    order = Order(Agent(runtime="aider"), "do it", tmp_path, tmp_path / "home", tmp_path / "scratch", "a-session", now)
    assert "GIT_OBJECT_DIRECTORY" not in RUNTIMES["aider"].launch(order).environ
