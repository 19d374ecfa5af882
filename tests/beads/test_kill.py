"""SIGKILL before every line that touches the disk: the transaction happened or it did not, and can be done again."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from beads.ops import Create
from beads.store import Store
from tests.beads.strategies import bead
from tests.world import ROOT, git


def kill_everywhere(role: str, repo: Path) -> list[bool]:
    command = [sys.executable, "-m", "tests.beads.victim", role, str(repo)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    seen: list[bool] = json.loads(done.stdout)
    return seen


def litter(repo: Path) -> list[str]:
    names = (path.name for path in (repo / ".git").rglob("*"))
    return [name for name in names if name.endswith((".lock", ".keep")) or name.startswith("tmp_")]


@pytest.mark.parametrize("role,lines", [("label", 80), ("create", 50), ("init", 25)])
def test_a_kill_at_any_line_is_survived(repo: Path, role: str, lines: int) -> None:
    Store.init(repo, "ada").commit("ada", [Create(bead=bead("bt-0"))])
    happened = kill_everywhere(role, repo)
    # Killed often, first before it had happened and later after it, and never back and forth.
    assert len(happened) > lines
    assert happened == sorted(happened)
    assert happened.count(False) > lines / 2
    assert happened.count(True) > 2
    # What the dead left behind is known to those whose business it is.
    Store.open(repo).sweep()
    git(repo, "prune", "--expire=now")
    assert litter(repo) == []
    git(repo, "fsck", "--strict", "--no-dangling")
