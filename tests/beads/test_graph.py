"""What follows from the facts: one next actor for every bead, whatever the facts are."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Any, cast, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beads import graph
from beads.draft import Draft, related
from beads.graph import State
from beads.model import (
    BLOCKING,
    Attempt,
    AttemptEnd,
    Bead,
    Criterion,
    Dependency,
    Lease,
    MergeRequest,
)
from tests.beads.strategies import ENDS, IDS, NOW, OUTCOMES, STATUSES, Beads, bead, needs, part_of

TESTS = Criterion(run="pytest -q")
LEASE = Lease(worker="nux", epoch=2, site="here", since=NOW, until=NOW + timedelta(hours=1))
REQUEST = MergeRequest(molecule="m", branch="b", head="h", base="b")


def request(bead_id: str, molecule: str = "m", **fields: Any) -> Bead:
    merge = REQUEST.model_copy(update={"molecule": molecule})
    return bead(bead_id, issue_type="merge-request", dependencies=part_of(molecule), merge=merge, **fields)


def step(bead_id: str, molecule: str = "m", *after: str, **fields: Any) -> Bead:
    return bead(bead_id, issue_type="step", dependencies=part_of(molecule, *after), **fields)


def attempts(end: AttemptEnd, count: int) -> tuple[Attempt, ...]:
    return tuple(
        Attempt(number=n, epoch=n, worker="nux", runtime="x", started_at=NOW, end=end) for n in range(1, count + 1)
    )


def closed(bead_id: str, outcome: str | None = "done", **fields: Any) -> Bead:
    return bead(bead_id, status="closed", outcome=outcome, **fields)


GIVEN_UP = closed("a", "cancelled", issue_type="molecule")


def state(bead_id: str, *beads: Bead) -> State:
    view = Beads(beads)
    return graph.state(view, view.beads[bead_id], NOW)


# --- whatever is stored ----------------------------------------------------------------------------------------

# Few ids, so that everything is related to everything: rings, missing ends, parents of parents.
_few = st.sampled_from(["a", "b", "c", "a.1", "a.2", "b.m1", "gone"])
_edges = st.lists(
    st.builds(Dependency, on=_few, type=st.sampled_from([*sorted(BLOCKING), "parent-child", "blocks", "related"])),
    max_size=3,
).map(tuple)
_moments = st.sampled_from([NOW - timedelta(days=1), NOW, NOW + timedelta(days=1)])
_TYPES = ["task", "molecule", "step", "step", "merge-request", "epic", "message", "proposal"]
_anything = st.fixed_dictionaries(
    {"dependencies": _edges},
    optional={
        "issue_type": st.sampled_from(_TYPES),
        "created_by": st.sampled_from(["ada", "mayor"]),
        "status": st.sampled_from(STATUSES),
        "outcome": st.sampled_from([None, *OUTCOMES]),
        "priority": st.integers(0, 4),
        "created_at": _moments,
        "defer_until": _moments,
        "lease": st.just(LEASE),
        "merge": st.just(REQUEST),
        "criteria": st.just((TESTS,)),
        "attempts": st.builds(attempts, st.sampled_from(ENDS), st.integers(1, 25)),
        "attempts_max": st.integers(0, 2),
        "seal": st.just("sha256:wrong"),
    },
)
_stores = st.dictionaries(_few.filter(lambda i: i != "gone"), _anything, max_size=6).map(
    lambda said: Beads(bead(bead_id, **fields) for bead_id, fields in said.items())
)


@given(_stores)
def test_every_bead_has_exactly_one_state(view: Beads) -> None:
    ready = [found.id for found in graph.ready(view, NOW)]
    queued = [found.id for found in graph.queue(view)]
    for found in view:
        seen = graph.state(view, found, NOW)
        assert seen == graph.state(view, found, NOW)
        assert seen.kind in get_args(graph.Kind)
        assert seen.reason
        assert "\n" not in seen.reason
        assert (seen.kind == "closed") >= found.closed
        unlisted = found.issue_type in ("step", "merge-request", "message", "proposal", "epic")
        assert (found.id in ready) == (seen.kind == "ready" and not unlisted)
        if found.merge is not None and not found.closed:
            assert seen == State("queued", f"place {queued.index(found.id) + 1} in the merge queue")
        for other in seen.waits_for:
            assert not view.beads[other].closed
        if seen.kind in ("blocked", "waiting"):
            # What was said in a conversation waits for no bead, but for somebody to speak.
            assert seen.waits_for or found.issue_type == "message"


def _is_next(found: Bead | None, steps: list[Bead]) -> bool:
    """Whether it is the first of the steps that are left which needs no other one; in a ring, the first one."""
    left = sorted((one for one in steps if not one.closed), key=lambda one: graph.natural(one.id))
    free = (one for one in left if len(left) == 1 or {other.id for other in left}.isdisjoint(one.needs))
    return found == next(free, left[0] if left else None)


@given(_stores)
def test_every_question_has_an_answer(view: Beads) -> None:
    for found in view:
        steps = graph.steps(view, found)
        assert len({one.id for one in steps}) == len(steps)
        parts = {child.id for child in view.children(found.id) if child.issue_type == "step"}
        assert {one.id for one in steps} == (parts or ({found.id} if found.criteria else set()))
        assert _is_next(graph.next_step(view, found), steps)
        assert graph.workable(view, found) == bool(steps)
        assert graph.molecule_of(view, found).id in (found.id, found.parent)
        assert all(view.get(other.id) is other for other in graph.blockers(view, found))
        reached = list(graph.waits_on(view, found.id))
        assert len(set(reached)) == len(reached)
        assert graph.closes_cycle(view, found.id, found.id)


@given(_stores, st.lists(st.tuples(_few, _anything), max_size=8))
def test_a_draft_is_the_view_it_will_become(view: Beads, changes: list[tuple[str, dict[str, Any]]]) -> None:
    draft, after = Draft(view), Beads(view)
    for bead_id, fields in changes:
        draft.put(bead(bead_id, **fields))
        after.beads[bead_id] = bead(bead_id, **fields)
    assert set(draft.changed) == {bead_id for bead_id, _ in changes}
    for bead_id in ("a", "b", "c", "a.1", "a.2", "b.m1", "gone", "nothing"):
        assert draft.get(bead_id) == after.get(bead_id)
        assert draft.children(bead_id) == after.children(bead_id)
        assert draft.dependents(bead_id) == after.dependents(bead_id)
    assert sorted(draft.unclosed(), key=lambda found: graph.natural(found.id)) == after.unclosed()
    assert list(draft.ready(NOW)) == graph.ready(draft, NOW) == graph.ready(after, NOW)
    assert graph.queue(draft) == graph.queue(after)


@given(_stores, st.lists(st.tuples(_few, _anything), max_size=3))
def test_what_is_not_affected_stands_where_it_stood(view: Beads, changes: list[tuple[str, dict[str, Any]]]) -> None:
    after = Beads({**view.beads, **{bead_id: bead(bead_id, **fields) for bead_id, fields in changes}}.values())
    affected = graph.affected(after, [(view.get(i), after.get(i)) for i in view.beads | after.beads])
    changed = [(view.get(i), after.get(i)) for i in after.beads if view.get(i) != after.get(i)]
    assert affected >= graph.affected(after, changed)
    for found in after:
        if found.id not in graph.affected(after, changed) and graph.is_unit(found):
            assert graph.standing(after, found) == graph.standing(view, found)
            assert graph.deferred_until(after, found) == graph.deferred_until(view, found)


@given(_stores, st.sampled_from([NOW, NOW + timedelta(hours=2), NOW + timedelta(days=2)]))
def test_what_is_ready_is_what_stands_so_and_waits_for_no_time(view: Beads, now: datetime) -> None:
    def waits(found: Bead) -> bool:
        times = [graph.deferred_until(view, found), found.lease.until if found.lease else None]
        return any(moment is not None and moment > now for moment in times)

    units = (found for found in view.unclosed() if graph.is_unit(found) and found.issue_type not in graph.UNLISTED)
    expected = [found for found in units if graph.standing(view, found).kind == "ready" and not waits(found)]
    assert sorted(expected, key=graph.rank) == graph.ready(view, now)


@given(_stores, st.lists(st.tuples(st.sampled_from(["a", "b", "c", "d", "e", "f"]), _edges), max_size=15))
def test_a_draft_finds_every_cycle_that_a_new_bead_would_close(view: Beads, made: list[tuple[str, Any]]) -> None:
    draft, after = Draft(view), Beads(view)
    for bead_id, edges in made:
        changed = bead(bead_id, dependencies=edges)
        if draft.get(bead_id) is None:
            waits = [d.on for d in edges if d.type in BLOCKING]
            assert draft.closes_cycle(changed) == any(graph.closes_cycle(after, bead_id, on) for on in waits)
        draft.put(changed)
        after.beads[bead_id] = changed


def test_a_draft_forgets_what_was_settled_when_it_is_no_longer() -> None:
    draft = Draft(Beads([bead("a"), bead("b", dependencies=needs("a"))]))
    assert not draft.closes_cycle(bead("c", dependencies=needs("b")))
    draft.put(bead("a", dependencies=needs("d")))
    assert draft.closes_cycle(bead("d", dependencies=needs("b")))
    assert not draft.closes_cycle(bead("e", dependencies=needs("b")))


def test_a_bead_is_related_to_each_other_once() -> None:
    both = (*part_of("m", "x", "m"), Dependency(on="x", type="related"), Dependency(on="n", type="parent-child"))
    assert list(related(bead("a", dependencies=both))) == [(True, "m"), (False, "x"), (False, "m"), (False, "n")]


# --- what no transaction makes, and a pulled store may hold -----------------------------------------------------


def test_beads_that_wait_for_each_other_need_a_person() -> None:
    ring = [bead("a", dependencies=needs("b")), bead("b", dependencies=needs("c")), bead("c", dependencies=needs("a"))]
    for bead_id in ("a", "b", "c"):
        seen = state(bead_id, *ring)
        assert seen.kind == "needs_person"
        assert "in the end itself" in seen.reason
    assert state("d", *ring, bead("d", dependencies=needs("a"))).kind == "blocked"
    assert state("a", bead("a", dependencies=needs("a"))).kind == "needs_person"


def test_a_step_of_a_ring_says_so_too() -> None:
    ring = [bead("a", dependencies=needs("b")), bead("b", dependencies=needs("a"))]
    assert state("a.1", *ring, step("a.1", "a")).kind == "needs_person"


def test_steps_that_are_parts_of_each_other_need_a_person() -> None:
    ring = [step("a", "b"), step("b", "a")]
    assert {state(bead_id, *ring).kind for bead_id in ("a", "b")} == {"needs_person"}
    assert state("a", step("a", "a")).kind == "needs_person"
    assert state("a", step("a", "gone")).kind == "needs_person"
    assert state("b", step("a", "m"), step("b", "a"), bead("m")).kind == "needs_person"
    assert state("a", bead("a", issue_type="step")).kind == "needs_person"


def test_a_long_line_of_steps_within_steps_is_no_deeper() -> None:
    line = [step(f"a{n}", f"a{n + 1}") for n in range(3000)]
    assert state("a0", *line).kind == "needs_person"
    waiting = [bead(f"w{n}", dependencies=needs(f"w{n + 1}")) for n in range(3000)]
    assert state("w0", *waiting, bead("w3000")).kind == "blocked"


def test_steps_that_need_each_other_are_still_done_in_some_order() -> None:
    ring = [bead("m", issue_type="molecule"), step("m.1", "m", "m.2"), step("m.2", "m", "m.1"), step("m.3", "m", "m.2")]
    assert [found.id for found in graph.steps(Beads(ring), ring[0])] == ["m.1", "m.2", "m.3"]
    assert state("m", *ring) == State("ready", "next step m.1: The work of m.1")
    assert state("m.2", *ring) == State("waiting", "after step m.1", ("m.1",))


def test_a_merge_request_that_says_nothing_needs_a_person() -> None:
    assert state("r", bead("r", issue_type="merge-request")).kind == "needs_person"
    assert graph.queue(Beads([bead("r", issue_type="merge-request")])) == []


def test_a_request_that_is_not_stored_yet_is_about_to_queue() -> None:
    assert graph.state(Beads(), request("m.m1"), NOW) == State("queued", "about to join the merge queue")


# --- conversations --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "issue_type, by, kind, reason",
    [
        ("conversation", "ada", "waiting", "for what is said in it next"),
        ("message", "ada", "waiting", "for the Mayor's answer"),
        ("message", "mayor", "needs_person", "the Mayor asks this"),
        ("proposal", "mayor", "needs_person", "proposes a plan, which waits for a yes or a no"),
    ],
)
def test_who_is_to_speak_next(issue_type: str, by: str, kind: str, reason: str) -> None:
    talk = bead("c", issue_type="conversation")
    said = bead("c.1", issue_type=issue_type, created_by=by, dependencies=part_of("c", "t"), criteria=(TESTS,))
    assert state("c.1", talk, said, bead("t")) == State(cast("graph.Kind", kind), reason)
    assert graph.ready(Beads([talk, said]), NOW) == []
    assert state("c.1", talk, said.evolve(status="closed", outcome="done")).kind == "closed"
    later = said.evolve(defer_until=NOW + timedelta(days=1))
    assert state("c.1", talk, later).kind == "deferred"


# --- readiness -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind,reason,beads",
    [
        ("ready", "nothing in its way", [bead("m")]),
        ("ready", "next step m: The work of m", [bead("m", criteria=(TESTS,))]),
        ("ready", "next step m.2: ", [bead("m"), step("m.1", status="closed"), step("m.2")]),
        ("ready", "all steps closed, not yet submitted", [bead("m"), step("m.1", status="closed")]),
        ("ready", "", [bead("m", dependencies=needs("gone"))]),
        ("ready", "", [bead("m", defer_until=NOW)]),
        ("closed", "closed: landed", [closed("m", "landed")]),
        ("closed", "closed: done", [closed("m", None)]),
        ("deferred", "deferred", [bead("m", status="deferred")]),
        ("deferred", "deferred until 2026-01-03 03:04 UTC", [bead("m", defer_until=NOW + timedelta(days=1))]),
        ("running", "held by nux since 03:04:05, epoch 2", [bead("m", lease=LEASE, epoch=2)]),
        ("running", "held by nux", [bead("m", lease=LEASE, epoch=2, status="deferred")]),
        ("blocked", "needs a, b", [bead("m", dependencies=needs("a", "b")), bead("a"), bead("b")]),
        ("queued", "m.m1: place 1 in the merge queue", [bead("m"), request("m.m1")]),
        ("queued", "m.m1: place 1", [bead("m", status="deferred"), request("m.m1")]),
        ("queued", "m.m1: place 1", [bead("m", dependencies=needs("a")), bead("a"), request("m.m1")]),
        ("ready", "", [bead("m"), request("m.m1", status="closed", outcome="rejected")]),
        (
            "needs_person",
            "sent back by the Refinery 6 times",
            [bead("m"), *(request(f"m.m{n}", status="closed", outcome="rejected") for n in range(6))],
        ),
        ("ready", "", [bead("m"), *(request(f"m.m{n}", status="closed", outcome="rejected") for n in range(5))]),
        ("needs_person", "step m.1 failed 3 of 3 attempts", [bead("m"), step("m.1", attempts=attempts("unmet", 3))]),
        ("ready", "", [bead("m"), step("m.1", attempts=attempts("unmet", 2))]),
        ("ready", "", [bead("m"), step("m.1", attempts=attempts("died", 19))]),
        ("ready", "", [bead("m"), step("m.1", attempts=attempts("stopped", 99))]),
        ("needs_person", "step m.1 lost 20 workers", [bead("m"), step("m.1", attempts=attempts("died", 20))]),
        ("needs_person", "failed 0 of 0", [bead("m"), step("m.1", attempts_max=0)]),
        ("needs_person", "criteria of m were changed", [bead("m", seal="sha256:x")]),
        ("needs_person", "criteria of m.1 were changed", [bead("m"), step("m.1", seal="sha256:x")]),
        ("needs_person", "needs a, which was cancelled", [bead("m", dependencies=needs("a")), GIVEN_UP]),
    ],
)  # fmt: skip
def test_where_a_molecule_stands(kind: str, reason: str, beads: list[Bead]) -> None:
    seen = state("m", *beads)
    assert seen.kind == kind
    assert reason in seen.reason


@pytest.mark.parametrize(
    "target,frees",
    [
        (bead("t"), False),
        (bead("t", status="deferred"), False),
        *[(closed("t", outcome), True) for outcome in (None, *OUTCOMES)],
        *[
            (closed("t", outcome, **fields), outcome in ("landed", "done", "superseded", "deleted"))
            for outcome in (None, *OUTCOMES)
            for fields in ({"issue_type": "molecule"}, {"criteria": (TESTS,)})
        ],
    ],
    ids=lambda value: (
        str(value)
        if isinstance(value, bool)
        else f"{value.issue_type}-{value.status}-{value.outcome}-{len(value.criteria)}"
    ),
)  # fmt: skip
def test_what_frees_what_waits_for_it(target: Bead, frees: bool) -> None:
    waiting = bead("m", dependencies=needs("t"))
    assert (state("m", waiting, target).kind == "ready") == frees
    assert [found.id for found in graph.blockers(Beads([waiting, target]), waiting)] == ([] if frees else ["t"])


@pytest.mark.parametrize(
    "target,kind",
    [
        (bead("t"), "blocked"),
        (bead("t", status="in_progress"), "blocked"),
        (closed("t", "rejected"), "ready"),
        (closed("t", "cancelled"), "ready"),
        (closed("t", "deleted"), "ready"),
        (bead("other"), "ready"),
        (closed("t", "done"), "needs_person"),
        (closed("t", "landed"), "needs_person"),
        (closed("t", "superseded"), "needs_person"),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{value.id}-{value.status}-{value.outcome}",
)
def test_what_is_for_a_failure_is_freed_by_nothing_else(target: Bead, kind: str) -> None:
    waiting = bead("m", dependencies=(Dependency(on="t", type="conditional-blocks"),))
    assert state("m", waiting, target).kind == kind


def test_who_waits_for_children_waits_for_all_of_them_or_for_any() -> None:
    for_all = bead("all", dependencies=(Dependency(on="e", type="waits-for"),))
    for_any = bead("any", dependencies=(Dependency(on="e", type="waits-for", gate="any-children"),))
    epic = bead("e", issue_type="epic")
    one, two = (bead(name, dependencies=part_of("e")) for name in ("e.1", "e.2"))
    both = (for_all, for_any)
    assert [state(w.id, w, epic).kind for w in both] == ["ready", "ready"], "without children nothing is waited for"
    assert state("all", *both, epic, one, two) == State("blocked", "needs e.1, e.2", ("e.1", "e.2"))
    assert state("any", *both, epic, one, two).kind == "blocked"
    done = one.evolve(status="closed", outcome="done")
    assert state("all", *both, epic, done, two).waits_for == ("e.2",)
    assert state("any", *both, epic, done, two).kind == "ready"


def test_a_part_of_what_is_blocked_is_blocked_and_of_what_is_open_is_not() -> None:
    epic = bead("e", issue_type="epic", dependencies=needs("t"))
    middle = bead("e.1", issue_type="epic", dependencies=part_of("e"))
    leaf = bead("e.1.1", dependencies=part_of("e.1"))
    assert state("e.1.1", epic, middle, leaf, bead("t")) == State("blocked", "needs t", ("t",))
    assert state("e.1.1", epic, middle, leaf, closed("t", "done")).kind == "ready"


def test_what_is_put_off_puts_its_parts_off_one_level_down() -> None:
    epic = bead("e", issue_type="epic", defer_until=NOW + timedelta(days=1))
    child, grandchild = bead("e.1", dependencies=part_of("e")), bead("e.1.1", dependencies=part_of("e.1"))
    assert state("e.1", epic, child, grandchild).kind == "deferred"
    assert state("e.1.1", epic, child, grandchild).kind == "ready"


def test_a_lease_that_ran_out_holds_nothing() -> None:
    held = bead("m", status="in_progress", lease=LEASE.model_copy(update={"until": NOW}))
    assert state("m", held).kind == "ready"


def test_what_somebody_works_on_by_hand_is_not_ready() -> None:
    found = state("m", bead("m", status="in_progress", assignee="ada"))
    assert found == State("running", "in progress by ada, without a lease")


@pytest.mark.parametrize("kind", ["related", "discovered-from", "supersedes", "parent-child"])
def test_what_only_informs_blocks_nothing(kind: str) -> None:
    assert state("m", bead("m", dependencies=(Dependency(on="t", type=kind),)), bead("t")).kind == "ready"


def test_a_step_stands_where_its_molecule_stands() -> None:
    steps = [step("m.1", status="closed", outcome="done"), step("m.2"), step("m.3")]
    assert state("m.1", bead("m"), *steps).kind == "closed"
    assert state("m.2", bead("m"), *steps) == State("ready", "next step m.2: The work of m.2")
    assert state("m.3", bead("m"), *steps) == State("waiting", "after step m.2", ("m.2",))
    assert state("m.2", bead("m", lease=LEASE), *steps).kind == "running"
    assert state("m.2", closed("m", "cancelled"), *steps) == State("closed", "closed: cancelled")


def test_steps_are_done_in_the_order_of_their_needs_and_then_of_their_ids() -> None:
    steps = [
        step("m.10"),
        step("m.9", "m", "m.10"),
        step("m.2", "m", "elsewhere"),
        step("m.1", "m", "m.9"),
        bead("m.3"),
    ]
    view = Beads([bead("m"), *steps, request("m.m1"), bead("m.4", dependencies=part_of("m"))])
    assert [found.id for found in graph.steps(view, view.beads["m"])] == ["m.2", "m.10", "m.9", "m.1"]


def test_a_missing_molecule_leaves_a_bead_to_itself() -> None:
    view = Beads([step("a", "gone"), request("r", "gone"), bead("t", dependencies=part_of("a"))])
    assert [graph.molecule_of(view, found).id for found in view] == ["a", "r", "t"]


def test_the_best_comes_first() -> None:
    soon, late = NOW, NOW + timedelta(seconds=1)
    beads = [
        bead("a.10", priority=1, created_at=soon),
        bead("a.9", priority=1, created_at=soon),
        bead("z", priority=1, created_at=soon - timedelta(days=1)),
        bead("urgent", priority=0, created_at=late),
        bead("last", priority=4, created_at=soon - timedelta(days=9)),
        *(bead(kind, issue_type=kind, priority=0) for kind in ("step", "merge-request", "message", "epic")),
    ]
    assert [found.id for found in graph.ready(Beads(beads), NOW)] == ["urgent", "z", "a.9", "a.10", "last"]


_request = st.tuples(st.integers(0, 4), st.integers(0, 200), st.sets(st.integers(0, 9)))
_requests = st.lists(_request, max_size=10).map(
    lambda drawn: [(level, hours, {n for n in after if n < at}) for at, (level, hours, after) in enumerate(drawn)]
)


@given(_requests, st.randoms())
def test_the_queue_keeps_to_what_is_needed_and_nobody_is_overtaken_for_ever(
    drawn: list[tuple[int, int, set[int]]], shuffled: Any
) -> None:
    beads = [
        found
        for at, (priority, hours, after) in enumerate(drawn)
        for found in (
            bead(f"m{at}", issue_type="molecule", dependencies=needs(*(f"m{n}" for n in sorted(after)))),
            request(f"m{at}.m1", f"m{at}", priority=priority, created_at=NOW + timedelta(hours=hours)),
        )
    ]
    queue = [found.id for found in graph.queue(Beads(beads))]
    shuffled.shuffle(beads)
    assert [found.id for found in graph.queue(Beads(beads))] == queue
    places = {name: place for place, name in enumerate(queue)}
    assert sorted(places) == sorted(f"m{at}.m1" for at in range(len(drawn)))
    for at, (priority, hours, after) in enumerate(drawn):
        assert all(places[f"m{n}.m1"] < places[f"m{at}.m1"] for n in after)
        for other, (level, later, _) in enumerate(drawn):
            if not after and later - hours > 24 * (priority - level):
                assert places[f"m{at}.m1"] < places[f"m{other}.m1"]


def test_what_is_needed_and_not_in_the_queue_is_awaited() -> None:
    molecule = bead("m", issue_type="molecule", dependencies=needs("n"))
    waiting = request("m.m1")
    view = Beads([molecule, waiting, bead("n", issue_type="molecule")])
    assert graph.awaited(view, waiting) == ["n"]
    assert graph.awaited(Beads([molecule, waiting, closed("n", "landed", issue_type="molecule")]), waiting) == []
    assert graph.queue(view) == [waiting], "it has a place nevertheless"


def test_the_queue_is_in_order_of_priority_then_age_then_id() -> None:
    requests = [
        request("m.m10"),
        request("m.m9"),
        request("n.m1", priority=0, created_at=NOW + timedelta(days=1)),
        request("o.m1", created_at=NOW - timedelta(days=1)),
        request("gone", status="closed", outcome="landed"),
        request("put-off", status="deferred", priority=4),
    ]
    view = Beads(requests)
    assert [found.id for found in graph.queue(view)] == ["n.m1", "o.m1", "m.m9", "m.m10", "put-off"]
    assert [graph.state(view, found, NOW).reason[:7] for found in graph.queue(view)] == [
        f"place {n}" for n in range(1, 6)
    ]


def test_numbers_are_in_their_natural_order() -> None:
    ordered = ["bt-a", "bt-a.1", "bt-a.2", "bt-a.9", "bt-a.10", "bt-a.10.1", "bt-a.m1", "bt-a.m9", "bt-a.m10", "bt-a-b"]
    assert sorted(reversed(ordered), key=graph.natural) == ordered  # noqa: C414 - From another order.


@given(IDS, IDS)
def test_no_two_ids_are_in_the_same_place(first: str, second: str) -> None:
    assert (graph.natural(first) == graph.natural(second)) == (first == second)
    assert (graph.natural(first) < graph.natural(second)) != (graph.natural(first) >= graph.natural(second))


@given(st.text(max_size=8))
def test_any_text_has_a_place_in_the_order(text: str) -> None:
    assert graph.natural(text) <= graph.natural(text)


def test_what_is_waited_for_is_found_through_everything_that_blocks() -> None:
    kinds = sorted(BLOCKING)
    line = [bead(f"a{n}", dependencies=(Dependency(on=f"a{n + 1}", type=kind),)) for n, kind in enumerate(kinds)]
    view = Beads([*line, bead("x", dependencies=(Dependency(on="a0", type="related"),))])
    assert list(graph.waits_on(view, "a0")) == [f"a{n}" for n in range(1, len(kinds) + 1)]
    assert list(graph.waits_on(view, "x")) == list(graph.waits_on(view, "gone")) == []
    assert graph.closes_cycle(view, f"a{len(kinds)}", "a0")
    assert not graph.closes_cycle(view, "a0", "x")


def test_reasons_are_for_people() -> None:
    assert not re.search(r"[_{}<>]", state("m", bead("m", lease=LEASE)).reason)
