"""The simulation: seeds run clean, a seed gives the same run each time, and bugs that are planted are found."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.simulation.__main__ import run, seeds_until_found, shrunk
from tests.simulation.git import ComparedGit
from tests.simulation.planted import BUGS, planted
from tests.simulation.stage import template
from tests.simulation.world import scenario

SOON = {"sweeps nothing": 2, "any green counts": 2, "no compare-and-swap": 2}
"""Bugs that the first seeds find; for all of them, see `make slow`."""

PLANTED_MOST = 60
"""By which seed each planted bug has to be found."""


@pytest.fixture(scope="module")
def repository() -> Iterator[Path]:
    with template() as found:
        yield found


@pytest.mark.parametrize("first", range(1, 17, 8))
def test_whatever_goes_wrong_all_promises_hold_in_the_end(repository: Path, first: int) -> None:
    for seed in range(first, first + 8):
        found = run(repository, scenario(seed))
        assert found.wrong == (), f"{found}: see `python -m tests.simulation --show {seed}`"


@pytest.mark.slow
@pytest.mark.parametrize("first", range(17, 417, 50))
def test_more_seeds(repository: Path, first: int) -> None:
    for seed in range(first, first + 50):
        found = run(repository, scenario(seed))
        assert found.wrong == (), f"{found}: see `python -m tests.simulation --show {seed}`"


@pytest.mark.parametrize("seed", [5, 12])
def test_a_seed_gives_the_same_run_event_by_event(repository: Path, seed: int) -> None:
    one, other = (run(repository, scenario(seed)) for _ in range(2))
    assert one.mishaps
    assert one.trace == other.trace


def test_what_is_answered_for_git_is_what_git_answers(repository: Path) -> None:
    calm = dataclasses.replace(scenario(4), faults={})
    assert run(repository, calm, git=ComparedGit).wrong == ()


@pytest.mark.parametrize("bug", SOON)
def test_a_planted_bug_is_found_at_once(repository: Path, bug: str) -> None:
    assert seeds_until_found(repository, bug, SOON[bug]) is not None


@pytest.mark.slow
@pytest.mark.parametrize("bug", BUGS)
def test_every_planted_bug_is_found(repository: Path, bug: str) -> None:
    assert seeds_until_found(repository, bug, PLANTED_MOST) is not None


@pytest.mark.slow
def test_what_goes_wrong_is_shrunk_to_the_faults_it_takes(repository: Path) -> None:
    with planted("no salvage"):
        found = next(
            o for o in (run(repository, scenario(seed)) for seed in range(1, 40)) if len(o.mishaps) > 1 and o.wrong
        )
        least = shrunk(repository, found)
    assert least.wrong
    assert len(least.mishaps) < len(found.mishaps)
