"""Killed at every system call that writes, and told by each that the disk is full or broken: nothing is ever halved.

The usual run tries one call of each kind and some more of each scenario; with ``FAULTS=all``, which is what ``make
faults`` says, it tries them all.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.scenarios import LONG, SCENARIOS
from tests.world import ROOT

STRIKES = ("KILL=0", "ENOSPC=0", "EIO=0") if LONG else ("KILL=1", "ENOSPC=1", "EIO=1")


@pytest.fixture
def base(tmp_path: Path) -> Iterator[Path]:
    """A directory in memory where there is one: what a power cut would do is another matter."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=memory) as place:
        yield Path(place)


def strike(base: Path, name: str, *how: str) -> list[str]:
    """Strike each call that is to be tried; what came of it that should not have."""
    command = [sys.executable, "-m", "tests.faults.victim", name, *how]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=base, env=environ, stdout=subprocess.PIPE, text=True, check=True)
    found = json.loads(done.stdout)
    if "unavailable" in found:
        pytest.skip(found["unavailable"])
    # SQLite does not end with the same calls every time, nor do processes of Git; the work is done by the same ones.
    changing = re.compile(r"/index\.|/tmp_pack_|/tmp_objdir-incoming-")
    assert all(changing.search(missed) for missed in found["missed"]), found["missed"]
    assert len(found["missed"]) * 5 <= sum(found["tried"].values()), found["missed"]
    problems: list[str] = found["problems"]
    return problems


@pytest.mark.parametrize("name", SCENARIOS)
def test_whatever_call_is_killed_or_fails_all_happened_or_nothing(base: Path, name: str) -> None:
    if SCENARIOS[name].lacks:
        pytest.skip(SCENARIOS[name].lacks)
    problems = strike(base, name, *STRIKES)
    assert not problems, "\n".join(problems)
