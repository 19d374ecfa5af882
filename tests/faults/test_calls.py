"""Killed at every system call that writes, and told by each that the disk is full or broken: nothing is ever halved.

The usual run tries one call of each kind and some more of each scenario; with ``FAULTS=all``, which is what ``make
faults`` says, it tries them all.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.scenarios import SCENARIOS
from tests.world import ROOT

KILLS = 0 if os.environ.get("FAULTS") == "all" else 24
ERRORS = 0 if os.environ.get("FAULTS") == "all" else 12


@pytest.fixture
def base(tmp_path: Path) -> Iterator[Path]:
    """A directory in memory where there is one: what a power cut would do is another matter."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=memory) as place:
        yield Path(place)


def strike(base: Path, name: str, how: str, most: int) -> None:
    """Strike each call that is to be tried, and see that nothing came of it that should not have."""
    if SCENARIOS[name].lacks:
        pytest.skip(SCENARIOS[name].lacks)
    command = [sys.executable, "-m", "tests.faults.victim", name, how, str(most)]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=base, env=environ, stdout=subprocess.PIPE, text=True, check=True)
    found = json.loads(done.stdout)
    if "unavailable" in found:
        pytest.skip(found["unavailable"])
    assert found["problems"] == [], "\n".join(found["problems"])
    assert found["struck"] == found["tried"]


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_kill_at_any_call_leaves_all_or_nothing(base: Path, name: str) -> None:
    strike(base, name, "signal=KILL", KILLS)


@pytest.mark.parametrize("error", ["ENOSPC", "EIO"])
@pytest.mark.parametrize("name", SCENARIOS)
def test_an_error_of_any_call_is_said_so_and_leaves_all_or_nothing(base: Path, name: str, error: str) -> None:
    strike(base, name, f"error={error}", ERRORS)
