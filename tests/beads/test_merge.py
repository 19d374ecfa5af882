"""The merge of two histories of a bead: its laws, for any histories, and what it means for each field."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beads import graph
from beads.merge import merge
from beads.model import Attempt, Bead, Comment, Criterion, Dependency, Evidence, Lease, MergeRequest
from tests.beads.strategies import NOW, Beads, bead, beads, needs

LATER = NOW + timedelta(hours=1)


def lease(worker: str, epoch: int = 1, site: str = "here", hours: int = 1, since: int = 0) -> Lease:
    start = NOW + timedelta(seconds=since)
    return Lease(worker=worker, epoch=epoch, site=site, since=start, until=start + timedelta(hours=hours))


def comment(name: str, text: str = "hm", hours: int = 0) -> Comment:
    return Comment(id=name, author="ada", text=text, created_at=NOW + timedelta(hours=hours))


def attempt(worker: str, number: int = 1, **fields: Any) -> Attempt:
    said = {"number": number, "epoch": 1, "worker": worker, "runtime": "command", "started_at": NOW, **fields}
    return Attempt.model_validate(said)


def evidence(name: str) -> Evidence:
    return Evidence(id=name, subject="run: true", verdict="pass", tree="t", at=NOW)


def merged(base: Bead | None, a: Bead, b: Bead, accepted: Lease | None = None) -> Bead:
    found = merge(base, a, b, accepted)
    assert found is not None
    assert found == merge(base, b, a, accepted)
    return found


# A few values for each field, so that sides often agree, often differ, and often both leave the base as it is.
_LEASES = [lease("nux"), lease("nux", hours=2), lease("nux", site="there"), lease("fox"), lease("fox", 2, since=9)]
_WORK = [(), (Criterion(run="true"),), (Criterion(file="a"),)]
_LIVES: list[dict[str, Any]] = [
    {"status": "open"},
    {"status": "in_progress"},
    {"status": "deferred", "defer_until": LATER},
    {"status": "closed", "outcome": "done", "closed_at": NOW, "close_reason": "well done"},
    {"status": "closed", "outcome": "done", "closed_at": LATER, "close_reason": "done"},
    {"status": "closed", "outcome": "cancelled", "closed_at": NOW, "close_reason": "no"},
    {"status": "closed", "outcome": "landed", "closed_at": NOW},
    {"status": "closed", "outcome": "deleted", "closed_at": NOW},
]
_SETS: dict[str, list[Any]] = {
    "labels": ["a", "b", "c"],
    "dependencies": [
        Dependency(on="bt-x"),
        Dependency(on="bt-x", gate="any-children"),
        Dependency(on="bt-y"),
        Dependency(on="bt-y", type="parent-child"),
    ],
    "comments": [comment("1"), comment("1", "other"), comment("2", hours=-1), comment("3", hours=1)],
    "attempts": [attempt("nux"), attempt("nux", end="unmet", ended_at=LATER), attempt("fox"), attempt("nux", 2)],
    "evidence": [evidence("1"), evidence("2")],
}
_REQUEST = MergeRequest(molecule="bt-m", branch="b", head="h", base="0")


@st.composite
def versions(draw: st.DrawFn) -> Bead:
    """A bead as somebody might have made it."""
    facts: dict[str, Any] = {"title": draw(st.sampled_from(["t", "ti", "uv"])), **draw(st.sampled_from(_LIVES))}
    plain: dict[str, list[Any]] = {
        "description": ["", "d", "e"],
        "priority": [0, 2, 4],
        "assignee": ["", "nux", "zoe"],
        "criteria": _WORK,
        "epoch": [0, 1, 2],
        "attempts_max": [3, 6],
        "created_at": [NOW, LATER],
        "updated_at": [NOW, LATER],
        "merge": [None, _REQUEST, _REQUEST.model_copy(update={"landing": "c"})],
        "later": [1, True, {"a": [1]}],
        "more": ["x", "y"],
    }
    for name, values in plain.items():
        if draw(st.booleans()):
            facts[name] = draw(st.sampled_from(values))
    for name, items in _SETS.items():
        facts[name] = tuple(draw(st.lists(st.sampled_from(items), max_size=3)))
    if facts["status"] != "closed":
        facts["lease"] = draw(st.sampled_from([None, *_LEASES]))
    made = bead("bt-a", **facts)
    how = draw(st.sampled_from(["plain", "plain", "sealed", "broken"]))
    return made.sealed() if how == "sealed" else made.evolve(seal="sha256:0") if how == "broken" else made


HISTORIES = st.none() | versions()
ACCEPTED = st.sampled_from([None, *_LEASES])


@given(HISTORIES, versions(), versions(), ACCEPTED)
def test_it_is_commutative(base: Bead | None, a: Bead, b: Bead, accepted: Lease | None) -> None:
    assert merge(base, a, b, accepted) == merge(base, b, a, accepted)


@given(HISTORIES, versions(), versions(), ACCEPTED)
def test_it_is_idempotent(base: Bead | None, a: Bead, b: Bead, accepted: Lease | None) -> None:
    both = merge(base, a, b, accepted)
    assert merge(base, both, both, accepted) == both
    assert merge(base, both, a, accepted) == both
    assert merge(both, both, both) == both


@given(HISTORIES, versions(), versions(), versions(), ACCEPTED)
def test_it_is_associative(base: Bead | None, a: Bead, b: Bead, c: Bead, accepted: Lease | None) -> None:
    left = merge(base, merge(base, a, b, accepted), c, accepted)
    right = merge(base, a, merge(base, b, c, accepted), accepted)
    assert left == right


@given(versions(), versions())
def test_a_side_that_changed_nothing_gives_way(base: Bead, b: Bead) -> None:
    assert merge(base, base, b) == merge(base, b, b)


@given(beads())
def test_any_bead_can_be_merged(one: Bead) -> None:
    there = merged(None, one, one)
    assert merge(None, there, there) == there
    assert merge(None, one, None) == one
    assert merge(None, None, None) is None


def test_text_that_did_not_win_is_kept() -> None:
    base = bead("bt-a", title="Old", description="old")
    a, b = base.evolve(title="New title", description="longer text"), base.evolve(title="New")
    both = merged(base, a, b)
    assert (both.title, both.description) == ("New title", "longer text")
    assert [(c.author, c.text.splitlines()[-1]) for c in both.comments] == [("sync", "New")]
    assert both.comments[0].created_at == base.created_at
    # Nothing is kept of what only one side changed.
    assert merged(base, a, base).comments == ()


def test_one_id_for_two_beads_loses_nothing() -> None:
    a = bead("bt-a", title="Crash", description="It crashes", labels=("x",), comments=(comment("1"),), priority=0)
    b = bead("bt-a", title="Slow parser", labels=("y",), comments=(comment("1", "other"),), priority=1, more="z")
    both = merged(None, a, b.evolve(created_at=LATER))
    assert (both.title, both.description, both.priority) == ("Slow parser", "It crashes", 0)
    assert both.labels == ("x", "y")
    assert both.created_at == NOW
    assert both.model_extra == {"more": "z"}
    said = [c.text for c in both.comments]
    assert {"hm", "other"} < set(said)
    assert any(text.endswith("\n\nCrash") for text in said)
    assert len(said) == 3


def test_sets_forget_what_one_side_removed() -> None:
    base = bead("bt-a", labels=("a", "b"), dependencies=needs("bt-x", "bt-y"))
    a = base.evolve(labels=("a", "c"), dependencies=needs("bt-x"))
    b = base.evolve(labels=("b", "d"), dependencies=needs("bt-x", "bt-y", "bt-z"))
    both = merged(base, a, b)
    assert both.labels == ("c", "d")
    assert both.dependencies == needs("bt-x", "bt-z")


def test_facts_of_both_sides_are_there_in_order() -> None:
    base = bead("bt-a", comments=(comment("1"),), attempts=(attempt("nux"),))
    a = base.evolve(
        comments=(comment("1"), comment("3", hours=3)), attempts=(attempt("nux", end="unmet", ended_at=LATER),)
    )
    b = base.evolve(comments=(comment("1"), comment("2", hours=2)), evidence=(evidence("e"),))
    both = merged(base, a, b)
    assert [c.id for c in both.comments] == ["1", "2", "3"]
    assert both.attempts == a.attempts
    assert both.evidence == b.evidence


def test_closed_stays_closed_unless_it_was_reopened_since() -> None:
    base = bead("bt-a")
    shut = base.evolve(status="closed", outcome="done", closed_at=NOW)
    assert merged(base, shut, base.evolve(status="deferred")).outcome == "done"
    assert merged(base, shut, base.evolve(status="in_progress", lease=lease("nux"), epoch=1)).lease is None
    assert merged(shut, shut, base).status == "open"
    assert merged(shut, base, shut.evolve(labels=("x",))).status == "open"


@pytest.mark.parametrize("outcome", ["done", "rejected", "cancelled", "superseded"])
def test_landed_beats_every_other_outcome(outcome: Any) -> None:
    base = bead("bt-a")
    landed = base.evolve(status="closed", outcome="landed", closed_at=NOW)
    assert merged(base, landed, landed.evolve(outcome=outcome, closed_at=LATER)).outcome == "landed"
    # Nobody but a program of another kind can say of what is on main that it is not.
    assert merged(landed, landed, base).outcome == "landed"


def test_deleted_stays_deleted_unless_that_was_taken_back() -> None:
    base = bead("bt-a", description="text", epoch=3)
    gone = bead("bt-a", status="closed", outcome="deleted", closed_at=NOW, epoch=3)
    both = merged(base, gone, base.evolve(title="Edited", comments=(comment("1"),), epoch=4, lease=lease("nux", 4)))
    assert both == gone.evolve(epoch=4)
    assert merged(base, gone, gone.evolve(close_reason="why")).deleted
    assert merged(gone, gone, gone.evolve(assignee="")) == gone
    assert merged(gone.evolve(assignee="x"), gone.evolve(assignee="x"), gone) == gone
    assert merged(gone, gone, base) == base
    assert merged(gone, gone.evolve(epoch=5), base.evolve(title="Back")).title == "Back"


def test_the_lease_that_the_remote_has_wins() -> None:
    base = bead("bt-a")
    a, b = (
        base.evolve(lease=lease(name, epoch), epoch=epoch, status="in_progress", assignee=name)
        for name, epoch in (("nux", 2), ("fox", 1))
    )
    assert merged(base, a, b).lease == a.lease
    both = merged(base, a, b, b.lease)
    assert both.lease == b.lease
    assert (both.epoch, both.assignee, both.status) == (2, "fox", "in_progress")


def test_of_two_workers_of_one_name_one_holds_it() -> None:
    base = bead("bt-a")
    a, b = (base.evolve(lease=lease("nux", 1, site), epoch=1) for site in ("here", "there"))
    assert merged(base, a, b, a.lease).lease == a.lease
    assert merged(base, a, b, b.lease).lease == b.lease


def test_giving_back_wins_over_renewing_and_a_new_holder_over_both() -> None:
    base = bead("bt-a", lease=lease("nux"), epoch=1, status="in_progress", assignee="nux")
    back = base.evolve(lease=None, status="open", assignee="")
    renewed = base.evolve(lease=lease("nux", hours=5))
    taken = base.evolve(lease=lease("fox", 2), epoch=2, assignee="fox")
    assert merged(base, back, renewed) == back
    assert merged(base, renewed, base.evolve(lease=lease("nux", hours=3))).lease == renewed.lease
    assert merged(base, taken, renewed).lease == taken.lease
    both = merged(base, taken, back)
    assert (both.lease, both.status, both.assignee) == (taken.lease, "in_progress", "fox")


def test_a_lease_of_a_bead_that_is_not_in_progress_is_given_back_whatever_was_merged_first() -> None:
    base = bead("bt-a", lease=lease("nux"), epoch=1)
    back = base.evolve(lease=None)
    first, last = merged(base, merged(base, base, base), back), merged(base, base, merged(base, base, back))
    assert first == last == back


def test_a_seal_is_never_broken() -> None:
    base = bead("bt-a", title="Goal", criteria=(Criterion(run="true"),))
    sealed = base.sealed()
    both = merged(base, sealed, base.evolve(title="A longer goal", criteria=()))
    assert both.seal == both.digest() == sealed.seal
    assert both.comments[0].text.endswith("A longer goal")
    # Changed behind its seal on one side, or unsealed.
    assert merged(sealed, sealed, sealed.evolve(title="Easier")).title == "Goal"
    assert merged(sealed, sealed.evolve(labels=("x",)), base).seal == sealed.seal


def test_keys_that_are_not_known_are_merged() -> None:
    base = bead("bt-a", one=1, two="x", three=True)
    a, b = bead("bt-a", one=2, two="x", three=1, four=4), bead("bt-a", one=1, three=True)
    assert merged(base, a, b).model_extra == {"one": 2, "three": 1, "four": 4}


def test_a_ring_that_merging_made_is_for_a_person() -> None:
    one, two = bead("bt-1"), bead("bt-2")
    both = (
        merged(one, one.evolve(dependencies=needs("bt-2")), one),
        merged(two, two, two.evolve(dependencies=needs("bt-1"))),
    )
    assert {graph.state(Beads(both), one, NOW).kind for one in both} == {"needs_person"}
