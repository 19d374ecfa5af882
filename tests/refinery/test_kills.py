"""The Refinery killed at effect boundaries and at random moments: another one goes on, and every promise is kept.

The usual run tries the boundaries where most is at stake; ``make faults`` tries them all.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.faults.scenarios import LONG
from tests.world import ROOT

_KILLS = [[f"kill:each:{part}/8"] for part in range(8)]
# The even ones are those before an effect; nobody else sees a difference between after one and before the next.
_ALL = [*_KILLS, *([f"{how}:each:{part}/8"] for how in ("push", "other") for part in range(0, 8, 2))]

# After the intent and before main moves, and after main moved and before that is stored.
_LOCAL = ["kill:before:store-land", "push:after:store-intend"]
_SHARED = ["kill:after:start-git-push", "other:before:store-intend"]
_MORE = [*_LOCAL, *_SHARED[1:], "kill:after:store-intend", "kill:after:start-sh", "other:after:store-intend"]


def run(place: Path, module: str, *words: str) -> dict[str, Any]:
    """Run a module in a process of its own; what it found."""
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", module, *words]
    done = subprocess.run(command, cwd=place, env=environ, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def strike(place: Path, scenario: str, *words: str) -> None:
    """Have something happen there; fails when anything is wrong afterwards."""
    found = run(place, "tests.refinery.kills", scenario, *words)
    assert found["tried"]
    assert not found["problems"], "\n".join(found["problems"])


def moments(usual: list[str], all_: list[list[str]] = _ALL) -> list[Any]:
    """What is tried each time, and what only by ``make slow``; by ``make faults``, everything."""
    return all_ if LONG else [usual, pytest.param(_MORE, marks=pytest.mark.slow)]


@pytest.mark.parametrize("words", moments(_LOCAL))
def test_whatever_happens_at_any_effect(tmp_path: Path, words: list[str]) -> None:
    strike(tmp_path, "local", *words)


@pytest.mark.parametrize("style", ["squash", pytest.param("rebase", marks=pytest.mark.slow)])
@pytest.mark.parametrize("words", _ALL if LONG else [["kill:before:store-land"]])
def test_killed_at_any_effect_where_the_head_is_no_parent(tmp_path: Path, style: str, words: list[str]) -> None:
    strike(tmp_path, style, *words)


@pytest.mark.parametrize("words", moments(_SHARED))
def test_the_same_where_main_is_on_a_remote(tmp_path: Path, words: list[str]) -> None:
    strike(tmp_path, "shared", *words)


@pytest.mark.slow
@pytest.mark.parametrize("words", _KILLS if LONG else [["kill:after:start-gh-create", "kill:before:store-judge"]])
def test_the_same_where_a_forge_is_asked(tmp_path: Path, words: list[str]) -> None:
    strike(tmp_path, "proposed", *words)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 8) if LONG else [1])
@pytest.mark.parametrize("where", ["clone", "clones"])
def test_two_at_once_killed_at_random_moments_while_people_push(tmp_path: Path, where: str, seed: int) -> None:
    assert not run(tmp_path, "tests.refinery.storm", where, str(seed), "12" if LONG else "4")["problems"]
