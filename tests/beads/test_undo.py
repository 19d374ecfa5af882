"""Taking transactions back: what each operation did, what was changed since, and that nothing else moves."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beads import graph, undo
from beads.apply import Context, Draft, apply
from beads.describe import describe
from beads.errors import Fenced, NotFound, Refused, TownError
from beads.model import Bead, Comment, Dependency
from beads.ops import (
    Begin,
    Changed,
    Claim,
    Close,
    Create,
    Delete,
    Depend,
    Label,
    Operation,
    Release,
    Reopen,
    Restore,
    Say,
    Update,
)
from tests.beads.strategies import NOW, bead, needs, part_of, proof
from tests.beads.test_apply import AGAIN, TESTS, World, held, molecule, operations, plain, queued

STAYS = ("id", "updated_at", "epoch", "attempts", "evidence")


def did(world: World, *done: Operation, actor: str = "ada") -> Restore:
    """Do operations as one transaction; what takes it back."""
    draft = Draft(world.view)
    for operation in done:
        apply(operation, draft, Context(actor, world.now))
    beads = tuple(Changed(before=world.view.get(i), after=draft.changed[i]) for i in sorted(draft.changed))
    for now in draft.changed.values():
        world.view.beads[now.id] = now
    return Restore(commit="c" * 40, what="what was done", beads=beads)


def facts(found: Bead | None) -> dict[str, Any]:
    """All that a bead says, but for what only ever moves on."""
    return {} if found is None else {name: value for name, value in dict(found).items() if name not in STAYS}


def everything(world: World) -> dict[str, dict[str, Any]]:
    return {found.id: facts(found) for found in world.view}


# --- each operation ----------------------------------------------------------------------------------------------

TAKEN_BACK = {
    "update", "label", "depend", "comment", "close", "reopen", "delete", "restore", "import",
}  # fmt: skip

# What is not closed again under somebody who works on it, or behind the back of its steps.
NOT_AGAIN = {"close a step": "m is held by nux", "close by force": "m cannot close: step m.1 is open"}


def test_every_operation_can_be_taken_back_or_says_why_not() -> None:
    names = {operation.op for _, operation in AGAIN.values()}
    assert names | {"init", "repair"} == TAKEN_BACK | {"create", "claim"} | set(undo.FINAL)
    assert not (TAKEN_BACK | {"create", "claim"}) & set(undo.FINAL)


@pytest.mark.parametrize("name", [name for name, (_, operation) in AGAIN.items() if operation.op in TAKEN_BACK])
def test_it_is_taken_back_and_done_again(name: str) -> None:
    make, operation = AGAIN[name]
    world = make()
    before = everything(world)
    done = did(world, operation)
    after = everything(world)
    if name == "close by decision":
        with pytest.raises(Refused, match=r"m.m1 is a merge request"):
            world.do(done)
        return
    undone = did(world, done)
    for change in done.beads:
        if change.before and change.before.lease and not change.after.lease:
            before[change.after.id] |= {"lease": None, "status": "open", "assignee": ""}
    assert everything(world) == before
    if name in NOT_AGAIN:
        with pytest.raises(Refused, match=NOT_AGAIN[name]):
            world.do(undone)
        return
    again = did(world, undone)
    assert everything(world) == after
    assert did(world, undone).beads == (), "doing it again changed something"
    did(world, done)
    assert everything(world) == before
    did(world, again)
    assert everything(world) == before


@pytest.mark.parametrize("name", [name for name, (_, operation) in AGAIN.items() if operation.op in undo.FINAL])
def test_even_what_is_final_can_be_no_way_to_forge_facts(name: str) -> None:
    make, operation = AGAIN[name]
    world = make()
    done = did(world, operation)
    before = dict(world.view.beads)
    with contextlib.suppress(Refused):
        world.attempt(done)
    for now in world.view:
        was = before[now.id]
        assert (now.attempts, now.evidence, now.merge, now.lease) == (was.attempts, was.evidence, was.merge, was.lease)


def test_what_was_created_is_deleted_with_all_its_parts() -> None:
    world = World(bead("e", issue_type="epic"))
    plan = [Create(bead=found) for found in reversed(list(molecule().view))]
    done = did(world, *plan, Create(bead=bead("x", dependencies=(*part_of("e"), *needs("m")))))
    undone = did(world, done)
    assert {found.id for found in world.view if found.deleted} == {"m", "m.1", "m.2", "x"}
    assert world["m"].close_reason == "undo of cccccccccccc"
    assert did(world, done).beads == (), "doing it again changed something"
    world.do(undone)
    assert {i: facts(world[i]) for i in ("m", "m.1", "m.2", "x")} == {c.after.id: facts(c.after) for c in done.beads}
    world.do(done)
    assert world["m.2"].deleted


def test_a_claim_is_taken_back_by_a_release_and_only_claimed_again() -> None:
    world = World(bead("a", assignee="zoe", labels=("x",)))
    done = did(world, Claim(id="a", worker="nux"))
    world.later(5).do(Label(id="a", add=("y",)))
    undone = did(world, done)
    now = world["a"]
    assert (now.lease, now.epoch, now.status, now.assignee, now.labels) == (None, 1, "open", "zoe", ("x", "y"))
    assert did(world, done).beads == (), "doing it again changed something"
    with pytest.raises(Refused, match="a lease is only ever given under a new epoch"):
        world.do(undone)
    assert world.do(Claim(id="a", worker="nux")).epoch == 2
    with pytest.raises(Fenced, match="nux holds it under epoch 2"):
        world.do(done)


def test_taking_back_a_claim_ends_the_attempt_and_keeps_what_was_decided_meanwhile() -> None:
    world = molecule()
    done = did(world, Claim(id="m", worker="nux"))
    world.do(Begin(id="m.1", worker="nux", epoch=1, runtime="command"), Update(id="m", status="deferred"))
    world.do(done)
    assert world["m.1"].attempts[-1].end == "stopped"
    assert (world["m"].status, world["m"].assignee, world["m"].lease) == ("deferred", "", None)


def test_a_claim_that_took_over_leaves_nobody_holding() -> None:
    world = held().later(10_000)
    done = did(world, Claim(id="m", worker="max"))
    world.do(done)
    assert (world["m"].lease, world["m"].epoch, world["m"].status, world["m"].assignee) == (None, 2, "open", "")


def test_a_batch_that_created_and_claimed_is_taken_back_whole() -> None:
    world = World()
    done = did(world, Create(bead=bead("a")), Claim(id="a", worker="nux"))
    world.do(done)
    assert (world["a"].deleted, world["a"].lease, world["a"].epoch) == (True, None, 1)


def test_what_was_closed_while_held_is_open_and_held_by_nobody() -> None:
    world = held()
    done = did(world, Close(id="m", force=True, reason="because"))
    world.do(done)
    assert (world["m"].status, world["m"].outcome, world["m"].lease, world["m"].assignee) == ("open", None, None, "")


def test_a_molecule_is_opened_before_its_steps() -> None:
    world = molecule()
    ids = ("m.2", "m.1", "m")
    done = did(world, *(Close(id=i, force=True, reason="because") for i in ids))
    undone = did(world, done)
    assert [world[i].status for i in ids] == ["open", "open", "open"]
    world.do(undone)
    assert [world[i].outcome for i in ids] == ["done", "done", "done"]


# --- what was changed since --------------------------------------------------------------------------------------


def test_other_fields_stay_as_they_are() -> None:
    world = plain(labels=("x",), dependencies=needs("b"))
    done = did(
        world,
        Update(id="a", priority=0),
        Label(id="a", add=("mine",), remove=("x",)),
        Depend(id="a", on="b", remove=True),
        Say(id="a", text="mine"),
    )
    world.later(1).do(
        Update(id="a", title="New"),
        Label(id="a", add=("later",)),
        Depend(id="a", on="b", type="related"),
        Say(id="a", text="later"),
        actor="zoe",
    )
    world.do(done)
    now = world["a"]
    assert (now.priority, now.title, now.labels) == (2, "New", ("later", "x"))
    assert set(now.dependencies) == {Dependency(on="b", type="related"), *needs("b")}
    assert [said.text for said in now.comments] == ["later"]


def test_comments_come_back_where_they_were() -> None:
    world = plain()
    for number in range(4):
        world.later(1).do(Say(id="a", text=str(number)))
    said = world["a"].comments
    took = Restore(
        commit="c" * 40,
        beads=(Changed(before=world["a"], after=world["a"].evolve(comments=(said[0], said[3]))),),
    )
    world.view.beads["a"] = world["a"].evolve(comments=(said[0], said[3], Comment(**{**dict(said[0]), "id": "new"})))
    world.do(took)
    assert [comment.id for comment in world["a"].comments] == [*(comment.id for comment in said), "new"]


@pytest.mark.parametrize(
    "done, since, field",
    [
        ([Update(id="a", priority=0)], [Update(id="a", priority=1)], "priority"),
        ([Update(id="a", title="New")], [Update(id="a", title="Newer")], "title"),
        ([Update(id="a", status="in_progress")], [Close(id="a")], "status"),
        ([Update(id="a", priority=0)], [Delete(id="a")], "outcome"),
        ([Close(id="a")], [Reopen(id="a"), Close(id="a")], "closed_at"),
        ([Create(bead=bead("c"))], [Say(id="c", text="Keep it.")], "comments"),
        ([Create(bead=bead("c"))], [Claim(id="c", worker="max")], "status"),
    ],
)  # fmt: skip
def test_nothing_is_taken_back_when_something_was_changed_again(
    done: list[Operation], since: list[Operation], field: str
) -> None:
    world = plain()
    restore = did(world, Label(id="b", add=("x",)), *done)
    world.later(1).do(*since, actor="zoe")
    before = dict(world.view.beads)
    with pytest.raises(Refused, match=f"{field} of . was changed again since"):
        world.do(restore)
    assert world.view.beads == before


def test_what_somebody_else_took_back_already_is_left_as_it_is() -> None:
    world = plain()
    done = did(world, Update(id="a", priority=0), Label(id="a", add=("x",)), Label(id="b", add=("x",)))
    world.do(Update(id="a", priority=2), Label(id="a", remove=("x",)))
    world.do(done)
    assert (world["a"].priority, world["a"].labels, world["b"].labels) == (2, (), ())


def test_what_others_depend_on_is_not_deleted() -> None:
    world = plain()
    done = did(world, Create(bead=bead("c")))
    world.do(Depend(id="a", on="c"))
    with pytest.raises(Refused, match="a depends on c, and was not made with it") as refused:
        world.do(done)
    assert refused.value.hint == "`bead delete c` deletes it all the same."
    world.do(Depend(id="a", on="c", remove=True))
    assert world.do(done).deleted


def test_parts_that_came_later_keep_their_whole() -> None:
    world = World()
    done = did(world, Create(bead=bead("e", issue_type="epic")))
    world.do(Create(bead=bead("a", dependencies=part_of("e"))))
    with pytest.raises(Refused, match="a depends on e"):
        world.do(done)


def test_a_bead_comes_back_whole() -> None:
    world = World(*queued().view, bead("a", dependencies=needs("m")))
    before = everything(world)
    done = did(world, Delete(id="m", reason="a mistake"))
    undone = did(world, done)
    assert everything(world) == before
    assert [request.id for request in graph.queue(world.view)] == ["m.m1"]
    world.do(undone)
    assert (world["m"].deleted, world["m"].close_reason, world["m.m1"].deleted) == (True, "a mistake", True)


def test_a_part_does_not_come_back_without_its_whole() -> None:
    world = World(bead("e", issue_type="epic"), bead("a", dependencies=part_of("e")))
    done = did(world, Delete(id="a"))
    whole = did(world, Delete(id="e"))
    with pytest.raises(Refused, match="e, which a is a part of, was deleted"):
        world.do(done)
    world.do(whole, done)
    assert world["a"].parent == "e"


@pytest.mark.parametrize("done", [Depend(id="a", on="b", remove=True), Delete(id="a")])
def test_a_dependency_that_would_close_a_cycle_does_not_come_back(done: Operation) -> None:
    world = plain(dependencies=needs("b"))
    restore = did(world, done)
    world.view.beads["b"] = world["b"].evolve(dependencies=needs("a"))
    with pytest.raises(Refused, match=r"would wait for itself: . → . → ."):
        world.do(restore)


# --- the rules of the store --------------------------------------------------------------------------------------


def test_what_was_reopened_is_closed_again_only_as_it_was() -> None:
    world = plain(criteria=(TESTS,))
    world.do(Close(id="a", evidence=(proof(TESTS),)))
    done = did(world.later(9), Reopen(id="a"))
    closed = done.beads[0].before
    assert facts(world.do(done)) == facts(closed)
    world.do(Reopen(id="a"), Claim(id="a", worker="nux"))
    with pytest.raises(Refused, match="status of a was changed again since"):
        world.do(done)
    world.do(Begin(id="a", worker="nux", epoch=1, runtime="command"), Release(id="a", worker="nux", epoch=1))
    with pytest.raises(Refused, match="a was worked on since it was reopened"):
        world.do(done)


def test_a_molecule_is_not_closed_again_behind_its_steps() -> None:
    world = molecule()
    world.do(*(Close(id=i, force=True, reason="because") for i in ("m.1", "m.2", "m")))
    done = did(world, Reopen(id="m"))
    world.do(Reopen(id="m.2"))
    with pytest.raises(Refused, match=r"m cannot close: step m.2 is open"):
        world.do(done)


def test_a_step_is_not_closed_again_under_somebody_who_holds_it() -> None:
    world = molecule()
    world.do(Close(id="m.1", force=True, reason="because"))
    done = did(world, Reopen(id="m.1"))
    held(world)
    with pytest.raises(Refused, match="m is held by nux"):
        world.do(done)


def test_a_step_is_not_opened_again_when_its_molecule_is_over() -> None:
    world = molecule()
    done = did(world, Close(id="m.1", force=True, reason="because"))
    world.do(Close(id="m", outcome="cancelled"))
    with pytest.raises(Refused, match=r"m, which m.1 is a step of, is closed"):
        world.do(done)


@pytest.mark.parametrize("change", [{"seal": "sha256:0"}, {"outcome": "landed", "status": "closed", "closed_at": NOW}])
def test_a_commit_made_behind_the_store_cannot_be_used_to_break_a_rule(change: dict[str, Any]) -> None:
    world = molecule()
    forged = Changed(before=world["m"].evolve(**change), after=world["m"])
    with pytest.raises(Refused, match=r"seal|landed"):
        world.do(Restore(commit="c" * 40, beads=(forged,)))


def test_a_goal_that_was_changed_behind_its_seal_is_mended_but_not_the_other_way_round() -> None:
    world = molecule()
    good = world["m"]
    bad = good.evolve(description="Do something else.")
    with pytest.raises(Refused, match="the goal and criteria of m are sealed"):
        world.do(Restore(commit="c" * 40, beads=(Changed(before=bad, after=good),)))
    world.view.beads["m"] = bad
    assert facts(world.do(Restore(commit="c" * 40, beads=(Changed(before=good, after=bad),)))) == facts(good)


def test_a_sealed_step_stays_in_its_molecule() -> None:
    world = molecule()
    loose = world["m.1"].evolve(dependencies=())
    with pytest.raises(Refused, match=r"m.1 is sealed as a part of m"):
        world.do(Restore(commit="c" * 40, beads=(Changed(before=loose, after=world["m.1"]),)))


def test_keys_that_this_version_does_not_know_go_back_too() -> None:
    old, new = bead("a", theirs=1, gone=True), bead("a", theirs=2, more="x")
    world = World(new)
    world.do(Restore(commit="c" * 40, beads=(Changed(before=old, after=new),)))
    assert world["a"].model_extra == {"theirs": 1, "gone": True}


def test_a_bead_that_is_not_there_cannot_be_restored() -> None:
    with pytest.raises(NotFound, match="there is no bead 'a'"):
        World().do(Restore(commit="c" * 40, beads=(Changed(before=bead("a"), after=bead("a", priority=0)),)))


def test_it_is_told_in_words() -> None:
    assert describe(Restore(commit="c" * 40, what="close a", beads=()), None) == "undo cccccccccccc: close a"


# --- anything at all ---------------------------------------------------------------------------------------------

_histories = st.lists(
    st.tuples(st.lists(operations, min_size=1, max_size=2), st.sampled_from([0.0, 0.5, 2.0])), min_size=1, max_size=20
)


@given(_histories, st.integers(0, 19), st.booleans())
def test_whatever_happened_only_what_was_touched_goes_back(
    history: list[tuple[list[Operation], float]], which: int, last: bool
) -> None:
    world = World(*molecule().view, bead("a", criteria=(TESTS,)), bead("b", dependencies=needs("a")))
    done = []
    for several, seconds in history:
        world.later(seconds)
        try:
            restore = did(world, *several)
        except TownError:
            continue
        done.append((several, restore))
    done = [(several, restore) for several, restore in done if restore.beads]
    if not done:
        return
    several, restore = done[-1 if last else which % len(done)]
    before = dict(world.view.beads)
    try:
        about = world.attempt(restore)
    except TownError:
        assert world.view.beads == before
        assert not last or {o.op for o in several} & {*undo.FINAL, "close", "create", "claim", "reopen"}
        return
    assert world.changes(restore) == {}, "done again, it changes something"
    assert about is None or about == world[about.id]
    for change in restore.beads:
        _check_fields(change, before[change.after.id], world[change.after.id], last)
    _check_world(before, world, {change.after.id for change in restore.beads})


def _check_fields(change: Changed, before: Bead, now: Bead, last: bool) -> None:
    if change.before is None or change.before.deleted:
        assert now.deleted
        return
    assert not now.deleted
    untouched = (
        () if change.after.deleted else [n for n, v in dict(change.before).items() if dict(change.after)[n] == v]
    )
    # Who lost the lease to a claim does not have it again when that is undone.
    given_up = {"assignee", "status"} if change.before.lease else set()
    # … and a release ends the attempt that is running.
    given_up |= {"attempts"} if change.after.lease else set()
    for name in set(untouched) - {"updated_at"} - given_up:
        assert getattr(now, name) == getattr(before, name), name
    if last and (change.before.lease, change.after.lease) == (None, None):
        assert facts(now) == facts(change.before)


def _check_world(before: dict[str, Bead], world: World, ids: set[str]) -> None:
    for now in world.view:
        was = before[now.id]
        assert Bead.model_validate(dict(now)) == now
        assert was.epoch <= now.epoch
        assert now.closed == (now.outcome is not None)
        if now.deleted:
            assert (now.lease, now.dependencies) == (None, ()), "more than a tombstone is left"
            continue
        assert now.lease is None or (now.lease == was.lease and not now.closed), "a lease was given"
        assert was.deleted or now.evidence == was.evidence
        assert was.deleted or len(now.attempts) == len(was.attempts)
        assert not now.seal or now.seal == now.digest()
        assert was.deleted or was.outcome == now.outcome or "landed" not in (was.outcome, now.outcome)
        if now.id in ids:
            assert now.id not in graph.waits_on(world.view, now.id) or now.id in graph.waits_on(_view(before), now.id)


def _view(beads: dict[str, Bead]) -> graph.View:
    return World(*beads.values()).view
