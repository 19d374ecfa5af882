"""The Refinery killed at effect boundaries and at random moments: another one goes on, and every promise is kept.

The usual run tries the boundaries where most is at stake; ``make faults`` tries them all.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.scenarios import LONG
from tests.world import ROOT

# After the intent and before main moves; after main moved and before that is stored; a gate that nobody waits for.
_WORST = ["after:store-intend", "before:store-land", "after:start-sh"]
_EACH = [[f"each:{part}/8"] for part in range(8)]


def strike(place: Path, scenario: str, *words: str) -> None:
    """Kill there; fails when anything is wrong afterwards."""
    command = [sys.executable, "-m", "tests.refinery.kills", scenario, *words]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=place, env=environ, stdout=subprocess.PIPE, text=True, check=True)
    found = json.loads(done.stdout)
    assert found["tried"]
    assert not found["problems"], "\n".join(found["problems"])


@pytest.mark.parametrize("words", _EACH if LONG else [_WORST])
def test_killed_at_any_effect(tmp_path: Path, words: list[str]) -> None:
    strike(tmp_path, "local", *words)


@pytest.mark.parametrize("style", ["squash", pytest.param("rebase", marks=pytest.mark.slow)])
@pytest.mark.parametrize("words", _EACH if LONG else [["before:store-land"]])
def test_killed_at_any_effect_where_the_head_is_no_parent(tmp_path: Path, style: str, words: list[str]) -> None:
    strike(tmp_path, style, *words)
