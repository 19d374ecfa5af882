"""A molecule as its chain: where each step stands, what was found last, and what it took."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from beads import Store
from beads.chain import Found, Link, Spent, links, log_of
from beads.errors import InvalidInput
from beads.model import Attempt, Bead, Criterion, Dependency, Evidence
from beads.ops import Create
from tests.beads.strategies import NOW, bead, part_of, proof

TESTS, FILE = Criterion(run="pytest -q"), Criterion(file="a.txt")


@pytest.fixture
def store(repo: Path) -> Store:
    return Store.init(repo, "ada")


def chain_of(store: Store, *steps: Bead) -> list[Link]:
    store.commit("ada", [Create(bead=bead("m", issue_type="molecule")), *(Create(bead=step) for step in steps)])
    return list(links(store.snapshot().parts("m")))


def step(number: int, **fields: object) -> Bead:
    fields = {"criteria": (TESTS, FILE), "dependencies": part_of("m"), **fields}
    return bead(f"m.{number}", issue_type="step", **fields)


def attempt(number: int, seconds: float | None, cost: float | None) -> Attempt:
    begun = Attempt(number=number, epoch=1, worker="nux", runtime="x", started_at=NOW, cost=cost)
    if seconds is None:
        return begun
    return begun.model_copy(update={"ended_at": NOW + timedelta(seconds=seconds), "end": "unmet"})


def test_steps_come_in_order_and_what_was_not_begun_says_only_who_it_is(store: Store) -> None:
    chain = chain_of(store, *(step(n, title=f'Step "{n}" \\ é') for n in (10, 2, 1)))
    assert [link.id for link in chain] == ["m.1", "m.2", "m.10"]
    assert chain[0] == Link("m.1", 'Step "1" \\ é', "open", None, Spent(), ())


def test_of_each_criterion_the_newest_finding_counts(store: Store) -> None:
    later = NOW + timedelta(minutes=1)
    evidence = (
        proof(TESTS, "a" * 40, verdict="fail", detail="exit 1"),
        proof(TESTS, "b" * 40, at=later, detail="exit 0", by="nux", seconds=2.5),
    )
    [link] = chain_of(store, step(1, evidence=evidence))
    assert link.found == (
        Found("run: pytest -q", "pass", "exit 0", "b" * 40, "nux", later, 2.5),
        Found("file: a.txt exists"),
    )


def test_what_no_criterion_is_about_is_told_as_long_as_it_was_in_the_way_last(store: Store) -> None:
    later = NOW + timedelta(minutes=1)
    strays = Evidence(id="x", subject="protected paths", verdict="fail", tree="a" * 40, at=NOW)
    first, second = chain_of(
        store, step(1, evidence=(strays,)), step(2, evidence=(strays, proof(TESTS, "b" * 40, at=later)))
    )
    assert [found.subject for found in first.found][2:] == ["protected paths"]
    assert [found.subject for found in second.found][2:] == []


def test_what_work_took_is_summed_and_the_unknown_stays_unknown(store: Store) -> None:
    attempts = (attempt(1, 2.0, 0.25), attempt(2, 3.0, None), attempt(3, None, 0.0))
    [link] = chain_of(store, step(1, attempts=attempts, evidence=(proof(TESTS, cost=0.5),)))
    assert link.spent == Spent(attempts=3, seconds=5.0, cost=0.75, unpriced=1)
    assert link.spent.plus(Spent(1, 1.0, 0.25, 1)) == Spent(4, 6.0, 1.0, 2)


def test_merge_requests_and_deleted_steps_are_no_part_of_the_chain(store: Store) -> None:
    request = bead("m.m1", issue_type="merge-request", dependencies=(Dependency(on="m", type="parent-child"),))
    gone = step(2).tombstone("", NOW).evolve(dependencies=part_of("m"))
    assert [link.id for link in chain_of(store, step(1), gone, request)] == ["m.1"]


def test_a_log_is_found_by_its_digest_and_nowhere_else(store: Store) -> None:
    logs = store.directory / "logs"
    assert log_of(logs, "m", "sha256:0123456789abcdef00") == logs / "m" / "0123456789abcdef.log"
    with pytest.raises(InvalidInput):
        log_of(logs, "../m", "sha256:0123456789abcdef00")
