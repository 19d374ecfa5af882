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


# tests/faults kills at every system call in less time; this is finer.
@pytest.mark.slow
@pytest.mark.parametrize(
    "role,lines",
    [
        ("label", 60),
        ("create", 60),
        ("init", 60),
    ],
)
def test_a_kill_at_any_line_is_survived(repo: Path, role: str, lines: int) -> None:
    # What a power cut would do is another matter, and waiting for the disk makes this no better.
    git(repo, "config", "core.fsyncObjectFiles", "false")
    Store.init(repo, "ada").commit("ada", [Create(bead=bead("bt-0"))])
    happened = kill_everywhere(role, repo)
    # Killed often, first before it had happened and later after it, and never back and forth.
    assert len(happened) > lines
    assert happened == sorted(happened)
    assert happened.count(False) > lines / 2
    assert happened.count(True) > 2
