"""What each operation needs, does, refuses, and that doing it again does nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, Literal, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beads import graph
from beads.apply import Context, Draft, apply
from beads.describe import describe
from beads.errors import Fenced, InvalidInput, LostRace, NotFound, Refused, TownError
from beads.model import BLOCKING, Bead, Criterion, Dependency, Evidence, Outcome, Status, Terms, Usage
from beads.ops import (
    Again,
    Answer,
    Begin,
    Bump,
    Changed,
    Claim,
    Close,
    Create,
    Delete,
    Depend,
    Finish,
    Held,
    Import,
    Intend,
    Judge,
    Label,
    Land,
    Operation,
    Release,
    Renew,
    Reopen,
    Report,
    Restore,
    Say,
    SendBack,
    Spend,
    Submit,
    Update,
    Withdraw,
)
from beads.proof import words
from tests.beads.strategies import NOW, OUTCOMES, STATUSES, Beads, bead, needs, part_of, proof

HEAD, BASE = "a" * 40, "b" * 40
TESTS = Criterion(run="pytest -q")
FILE = Criterion(file="a.txt")
TREE = "c" * 40
REPORT = Report(ending="quota", model="m-1", session="s", usage=Usage(input=10, output=2), cost=0.5, note="Later.")


class World:
    """Beads that operations happen to, each in a transaction of its own."""

    def __init__(self, *beads: Bead) -> None:
        self.view = Beads(beads)
        self.now = NOW

    def do(self, *operations: Operation, actor: str = "ada") -> Bead:
        """What the last operation is about, after all were done."""
        found = self.attempt(*operations, actor=actor)
        assert found is not None
        return found

    def attempt(self, *operations: Operation, actor: str = "ada") -> Bead | None:
        found: Bead | None = None
        for operation in operations:
            draft = Draft(self.view)
            found = apply(operation, draft, Context(actor, self.now))
            self.view = Beads({**self.view.beads, **draft.changed}.values())
        return found

    def changes(self, operation: Operation, actor: str = "ada") -> dict[str, Bead]:
        """What an operation would change."""
        draft = Draft(self.view)
        apply(operation, draft, Context(actor, self.now))
        return dict(draft.changed)

    def later(self, seconds: float) -> World:
        self.now += timedelta(seconds=seconds)
        return self

    def __getitem__(self, bead_id: str) -> Bead:
        return self.view.beads[bead_id]

    def state(self, bead_id: str) -> graph.State:
        return graph.state(self.view, self[bead_id], self.now)


def molecule(**fields: Any) -> World:
    """A molecule ``m`` with two steps, each with a criterion, all sealed."""
    return World(
        bead("m", issue_type="molecule", description="Do it.", **fields).sealed(),
        bead("m.1", issue_type="step", criteria=(TESTS,), dependencies=part_of("m")).sealed(),
        bead("m.2", issue_type="step", criteria=(TESTS, FILE), dependencies=part_of("m", "m.1")).sealed(),
    )


def held(world: World | None = None, worker: str = "nux") -> World:
    world = world or molecule()
    world.do(Claim(id="m", worker=worker, site="here"))
    return world


def worked(world: World | None = None) -> World:
    """Held, and both steps proven and closed."""
    world = held(world)
    epoch = world["m"].epoch
    world.do(
        Close(id="m.1", worker="nux", epoch=epoch, evidence=(proof(TESTS),)),
        Close(id="m.2", worker="nux", epoch=epoch, evidence=(proof(TESTS), proof(FILE))),
    )
    return world


def queued() -> World:
    world = worked()
    world.do(submit())
    return world


def submit(epoch: int = 1, head: str = HEAD, base: str = BASE) -> Submit:
    return Submit(id="m", worker="nux", epoch=epoch, branch="polecat/m", head=head, base=base)


def mend(number: int = 3) -> Bead:
    return bead(f"m.{number}", issue_type="step", criteria=(TESTS,), dependencies=part_of("m")).sealed()


def plain(**fields: Any) -> World:
    return World(bead("a", **fields), bead("b"))


def started() -> World:
    world = held()
    world.do(Begin(id="m.1", worker="nux", epoch=1, runtime="command"))
    return world


def erred() -> World:
    """In the queue, and the gate could not judge it, by a clock that is ahead."""
    world = queued()
    world.do(Judge(id="m.m1", evidence=proof(TESTS, TREE, verdict="error", at=NOW + timedelta(hours=1))))
    return world


def sent_back() -> World:
    world = queued()
    world.do(SendBack(id="m.m1", reason="red", step=mend().evolve(source="refinery:m.m1")))
    return world


def withdrawn() -> World:
    world = queued()
    world.do(Withdraw(id="m.m1", reason="not yet"))
    return world


APPROVAL = Criterion(approval="is it what we want?")


def asking(verdict: Literal["asked", "pass"] = "asked") -> World:
    """A molecule whose step asks a person about a tree, and that nobody holds."""
    world = held(
        World(
            bead("m", issue_type="molecule").sealed(),
            bead("m.1", issue_type="step", criteria=(TESTS, APPROVAL), dependencies=part_of("m")).sealed(),
        )
    )
    said = (proof(TESTS, TREE), proof(APPROVAL, TREE, verdict=verdict))
    world.do(Begin(id="m.1", worker="nux", epoch=1, runtime="command"))
    world.do(Finish(id="m.1", worker="nux", epoch=1, end="asked", evidence=said))
    world.do(Release(id="m", worker="nux", epoch=1))
    return world


AGAIN: dict[str, tuple[Callable[[], World], Operation]] = {
    "create": (World, Create(bead=bead("a", labels=("x",)))),
    "create with a source": (World, Create(bead=bead("a", source="plan", title="A").sealed())),
    "create in the past": (lambda: World().later(60), Create(bead=bead("a"))),
    "import": (plain, Import(bead=bead("a", title="New", updated_at=NOW + timedelta(seconds=5)))),
    "update": (plain, Update(id="a", title="New", priority=0, status="deferred", agent="x", defer_until=NOW)),
    "label": (lambda: plain(labels=("y", "x")), Label(id="a", add=("z", "x"), remove=("y",))),
    "depend": (plain, Depend(id="a", on="b")),
    "depend, removing": (lambda: plain(dependencies=needs("b")), Depend(id="a", on="b", remove=True)),
    "depend, removing what is gone": (plain, Depend(id="a", on="gone", remove=True)),
    "say": (plain, Say(id="a", text="Hm.\r\n")),
    "claim": (molecule, Claim(id="m", worker="nux", site="here")),
    "renew": (held, Renew(id="m", worker="nux", epoch=1, seconds=9999)),
    "renew through a step": (held, Renew(id="m.2", worker="nux", epoch=1)),
    "release": (started, Release(id="m", worker="nux", epoch=1, reason="enough")),
    "release through a step": (started, Release(id="m.1", worker="nux", epoch=1)),
    "release until later": (started, Release(id="m", worker="nux", epoch=1, until=NOW + timedelta(hours=1))),
    "begin": (held, Begin(id="m.1", worker="nux", epoch=1, runtime="command")),
    "spend": (started, Spend(id="m.1", worker="nux", epoch=1, report=REPORT)),
    "finish": (started, Finish(id="m.1", worker="nux", epoch=1, end="unmet", evidence=(proof(TESTS),))),
    "finish what was not begun": (held, Finish(id="m.1", worker="nux", epoch=1, end="unmet")),
    "answer": (asking, Answer(id="m.1", tree=TREE, approved=True)),
    "answer no": (asking, Answer(id="m.1", tree=TREE, approved=False, reason="no")),
    "answer in words": (asking, Answer(id="m.1", tree=TREE, approved=None, reason="by name")),
    "close a step": (started, Close(id="m.1", worker="nux", epoch=1, evidence=(proof(TESTS),))),
    "close by decision": (queued, Close(id="m", outcome="cancelled", reason="no more")),
    "close by force": (held, Close(id="m", force=True, reason="because")),
    "reopen": (lambda: plain(status="closed", outcome="done", closed_at=NOW), Reopen(id="a")),
    "delete": (plain, Delete(id="a", reason="a duplicate")),
    "delete a molecule": (molecule, Delete(id="m")),
    "restore": (
        plain,
        Restore(
            commit=HEAD, what="update a: priority", beads=(Changed(before=bead("a", priority=0), after=bead("a")),)
        ),
    ),
    "submit": (worked, submit()),
    "submit nothing": (worked, submit(head=BASE)),
    "judge": (queued, Judge(id="m.m1", evidence=proof(TESTS, commit=HEAD))),
    "intend": (queued, Intend(ids=("m.m1",), commit=HEAD)),
    "land": (queued, Land(ids=("m.m1",), commit=HEAD)),
    "send back": (queued, SendBack(id="m.m1", reason="red", step=mend())),
    "bump": (queued, Bump(id="m.m1", reason="it is late")),
    "withdraw": (queued, Withdraw(id="m.m1", reason="not yet")),
    "again": (queued, Again(id="m.m1")),
    "again, after a failure": (erred, Again(id="m.m1", reason="the network is back")),
    "again, sent back": (sent_back, Again(id="m.m1")),
    "again, withdrawn": (withdrawn, Again(id="m.m1")),
}


def test_every_operation_is_here() -> None:
    union = get_args(get_args(Operation)[0])
    assert {type(operation) for _, operation in AGAIN.values()} == set(union)


@pytest.mark.parametrize("name", AGAIN)
def test_doing_it_again_changes_nothing(name: str) -> None:
    make, operation = AGAIN[name]
    world = make()
    first = world.do(operation)
    assert world.changes(operation) == {}
    assert world.do(operation) == first == world[first.id]
    if not isinstance(operation, Say | Renew):
        assert world.later(60).changes(operation) == {}, "the same words later are another comment, but not this"


@pytest.mark.parametrize("name", AGAIN)
def test_what_changed_says_when(name: str) -> None:
    make, operation = AGAIN[name]
    world = make()
    moment = world.later(5).now
    for changed in world.changes(operation).values():
        assert changed.updated_at == moment


@pytest.mark.parametrize("name", AGAIN)
def test_a_clock_that_went_back_does_not_take_updates_back(name: str) -> None:
    make, operation = AGAIN[name]
    world = make()
    before = dict(world.view.beads)
    world.later(-86_400)
    for bead_id, changed in world.changes(operation).items():
        assert changed.updated_at >= (before[bead_id].updated_at if bead_id in before else world.now)


@pytest.mark.parametrize("name", AGAIN)
def test_the_history_says_it_in_one_line(name: str) -> None:
    make, operation = AGAIN[name]
    world = make()
    line = describe(operation, world.do(operation))
    assert "\n" not in line
    assert any(bead_id in line.replace(":", "").replace(",", "").split() for bead_id in world.view.beads)


@pytest.mark.parametrize("name", [name for name in AGAIN if not name.startswith(("create", "import", "send back"))])
def test_what_is_not_there_is_not_found(name: str) -> None:
    operation = AGAIN[name][1]
    with pytest.raises(NotFound, match=r"there is no bead '[am]"):
        World().do(operation)


# --- who holds it ----------------------------------------------------------------------------------------------

FENCED: dict[str, Operation] = {
    "renew": Renew(id="m", worker="nux", epoch=1),
    "renew through a step": Renew(id="m.1", worker="nux", epoch=1),
    "release": Release(id="m", worker="nux", epoch=1),
    "release through a step": Release(id="m.1", worker="nux", epoch=1),
    "begin": Begin(id="m.1", worker="nux", epoch=1, runtime="command"),
    "spend": Spend(id="m.1", worker="nux", epoch=1, report=REPORT),
    "finish": Finish(id="m.1", worker="nux", epoch=1, end="unmet", evidence=(proof(TESTS),)),
    "close": Close(id="m.1", worker="nux", epoch=1, evidence=(proof(TESTS),)),
    "close by decision": Close(id="m", worker="nux", epoch=1, outcome="cancelled"),
    "close by force": Close(id="m", worker="nux", epoch=1, force=True, reason="x"),
    "submit": submit(),
    "submit nothing": submit(head=BASE),
}


def test_every_operation_of_a_holder_is_here() -> None:
    union = get_args(get_args(Operation)[0])
    fenced = {kind for kind in union if issubclass(kind, Held) or kind is Close}
    assert {type(operation) for operation in FENCED.values()} == fenced


@pytest.mark.parametrize("name", FENCED)
def test_an_old_epoch_is_fenced_even_of_the_same_name(name: str) -> None:
    world = held()
    world.do(Release(id="m", worker="nux", epoch=1), Claim(id="m", worker="nux", site="here"))
    assert world["m"].epoch == 2
    with pytest.raises(Fenced, match="under epoch 2"):
        world.do(FENCED[name], actor="nux")


@pytest.mark.parametrize("name", FENCED)
def test_another_worker_is_fenced(name: str) -> None:
    world = held(worker="ada")
    with pytest.raises(Fenced, match="ada holds it"):
        world.do(FENCED[name], actor="nux")


@pytest.mark.parametrize("name", [name for name in FENCED if "release" not in name])
def test_who_gave_it_back_is_fenced(name: str) -> None:
    world = held()
    world.do(Release(id="m", worker="nux", epoch=1))
    with pytest.raises(Fenced, match="nobody holds it, epoch 1"):
        world.do(FENCED[name], actor="nux")


@pytest.mark.parametrize("name", FENCED)
def test_a_future_epoch_is_fenced(name: str) -> None:
    operation = FENCED[name].model_copy(update={"epoch": 7})
    with pytest.raises(Fenced):
        held().do(operation)


@pytest.mark.parametrize("name", [n for n in FENCED if "close by" not in n and "release" not in n])
def test_who_was_cancelled_while_working_is_fenced(name: str) -> None:
    world = held()
    world.do(Close(id="m", outcome="cancelled", reason="no more"), actor="person")
    assert world["m"].lease is None
    assert world.state("m").kind == "closed"
    with pytest.raises(Fenced):
        world.do(FENCED[name], actor="nux")


def test_a_worker_says_under_which_epoch_it_closes() -> None:
    with pytest.raises(InvalidInput, match="which epoch"):
        held().do(Close(id="m.1", worker="nux", evidence=(proof(TESTS),)))


def test_nobody_closes_as_done_what_another_holds() -> None:
    close = Close(id="m.1", evidence=(proof(TESTS),))
    with pytest.raises(Fenced, match="nux holds it"):
        held().do(close, actor="ada")
    with pytest.raises(Fenced):
        held().do(close, actor="\udcff")
    assert held().do(close, actor="nux").closed


def test_a_claim_is_a_lease_under_the_next_epoch() -> None:
    world = molecule()
    claimed = world.do(Claim(id="m", worker="nux", site="here", seconds=60))
    assert claimed.lease is not None
    assert (claimed.status, claimed.assignee, claimed.epoch) == ("in_progress", "nux", 1)
    lease = claimed.lease
    assert (lease.worker, lease.site, lease.epoch, lease.since) == ("nux", "here", 1, NOW)
    assert lease.until == NOW + timedelta(seconds=60)


@pytest.mark.parametrize("worker,site", [("ada", "here"), ("nux", "there")])
def test_what_is_held_is_not_claimed(worker: str, site: str) -> None:
    with pytest.raises(LostRace, match="held by nux"):
        held().do(Claim(id="m", worker=worker, site=site))


def test_a_lease_that_ran_out_is_taken_over_and_what_was_begun_has_died() -> None:
    world = started().later(3601)
    assert world.do(Claim(id="m", worker="ada", site="there")).epoch == 2
    step = world.do(Begin(id="m.1", worker="ada", epoch=2, runtime="command"))
    assert [(a.number, a.epoch, a.end) for a in step.attempts] == [(1, 1, "died"), (2, 2, None)]
    with pytest.raises(Fenced):
        world.do(Finish(id="m.1", worker="nux", epoch=1, end="unmet"))


def test_a_holder_whose_lease_ran_out_goes_on_until_somebody_takes_it() -> None:
    world = held().later(999_999)
    assert world.do(Renew(id="m", worker="nux", epoch=1)).lease is not None


def test_renewing_never_shortens_a_lease() -> None:
    world = held()
    world.do(Renew(id="m", worker="nux", epoch=1, seconds=9999))
    assert world.later(-3600).changes(Renew(id="m", worker="nux", epoch=1, seconds=1)) == {}


def test_the_best_is_claimed_and_then_the_next_best() -> None:
    world = World(
        bead("low", priority=3),
        bead("young", created_at=NOW + timedelta(seconds=1)),
        bead("old"),
        bead("blocked", priority=0, dependencies=needs("low")),
        bead("epic", priority=0, issue_type="epic"),
    )
    claimed = [world.attempt(Claim(worker="nux")) for _ in range(4)]
    assert [found and found.id for found in claimed] == ["old", "young", "low", None]
    assert describe(Claim(worker="nux"), None) == "claim nothing: none ready"


def test_only_what_can_be_proven_is_claimed_when_asked() -> None:
    world = World(bead("vague", priority=0), bead("clear", criteria=(TESTS,)))
    assert world.do(Claim(worker="nux", workable=True)).id == "clear"
    assert world.attempt(Claim(worker="nux", workable=True)) is None


@pytest.mark.parametrize(
    "world,bead_id,reason",
    [
        (molecule(), "m.1", "cannot be claimed"),
        (queued(), "m.m1", "place 1 in the merge queue"),
        (queued(), "m", "place 1 in the merge queue"),
        (plain(dependencies=needs("b")), "a", "needs b"),
        (plain(status="deferred"), "a", "deferred"),
        (plain(defer_until=NOW + timedelta(days=1)), "a", "deferred until 2026-01-03"),
        (plain(status="closed", outcome="done"), "a", "closed: done"),
    ],
    ids=["step", "request", "queued", "blocked", "deferred", "until", "closed"],
)
def test_what_is_not_ready_is_not_claimed(world: World, bead_id: str, reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        world.do(Claim(id=bead_id, worker="nux"))


@pytest.mark.parametrize("issue_type", ["conversation", "message", "proposal"])
@pytest.mark.parametrize("hand", [False, True])
def test_nobody_holds_what_is_said(issue_type: str, hand: bool) -> None:
    world = plain(issue_type=issue_type, created_by="mayor", criteria=(TESTS,))
    with pytest.raises(Refused, match="cannot be claimed"):
        world.do(Claim(id="a", worker="nux", hand=hand))
    assert World(world["a"]).attempt(Claim(worker="nux")) is None


def test_releasing_ends_what_was_begun_and_gives_back() -> None:
    world = started()
    released = world.do(Release(id="m", worker="nux", epoch=1, end="died", reason="gone"))
    assert (released.lease, released.status, released.assignee, released.epoch) == (None, "open", "", 1)
    assert [(a.end, a.reason, a.ended_at) for a in world["m.1"].attempts] == [("died", "gone", NOW)]
    assert world.state("m").kind == "ready"


def test_what_was_put_off_while_it_was_worked_on_stays_put_off() -> None:
    world = held()
    world.do(Update(id="m", status="deferred"), actor="person")
    assert world.state("m").kind == "running"
    world.do(Release(id="m", worker="nux", epoch=1))
    assert world.state("m").kind == "deferred"


# --- attempts --------------------------------------------------------------------------------------------------


def test_attempts_are_counted_when_they_start_and_bounded() -> None:
    world = held(molecule(attempts_max=9))
    for number in range(1, 4):
        step = world.do(Begin(id="m.1", worker="nux", epoch=1, runtime="command"))
        assert [a.number for a in step.attempts] == list(range(1, number + 1))
        step = world.do(Finish(id="m.1", worker="nux", epoch=1, end="unmet", reason=f"no {number}"))
        assert (step.attempts[-1].end, step.attempts[-1].reason) == ("unmet", f"no {number}")
    with pytest.raises(Refused, match="all 3 attempts"):
        world.do(Begin(id="m.1", worker="nux", epoch=1, runtime="command"))
    world.do(Update(id="m.1", attempts_max=4), actor="person")
    assert len(world.do(Begin(id="m.1", worker="nux", epoch=1, runtime="command")).attempts) == 4


def test_what_an_attempt_took_is_kept_whatever_becomes_of_it() -> None:
    world = started()
    world.do(Spend(id="m.1", worker="nux", epoch=1, report=REPORT))
    world.do(Spend(id="m.1", worker="nux", epoch=1, report=Report(cost=0.75)))
    world.do(Release(id="m.1", worker="nux", epoch=1, end="died"))
    attempt = world["m.1"].attempts[-1]
    assert (attempt.end, attempt.ending, attempt.cost) == ("died", "finished", 0.75)
    assert (attempt.usage, attempt.session, attempt.note) == (REPORT.usage, "s", "Later.")
    assert graph.cost(world["m.1"]) == 0.75


def test_what_was_ended_is_spent_for_no_more() -> None:
    world = started()
    world.do(Finish(id="m.1", worker="nux", epoch=1, end="unmet"))
    assert world.do(Spend(id="m.1", worker="nux", epoch=1, report=REPORT)).attempts[-1].cost is None


@pytest.mark.parametrize("end", ["parked", "handed_off"])
def test_neither_a_provider_that_is_away_nor_a_full_context_is_a_failure(end: Literal["parked", "handed_off"]) -> None:
    world = held(molecule(attempts_max=9))
    for _ in range(3):
        world.do(Begin(id="m.1", worker="nux", epoch=1, runtime="claude"))
        world.do(Finish(id="m.1", worker="nux", epoch=1, end=end, reason="no quota"))
    assert graph.failed(world["m.1"]) == []
    assert world.do(Begin(id="m.1", worker="nux", epoch=1, runtime="claude")).attempts[-1].number == 4


def test_who_hands_off_for_ever_is_stopped() -> None:
    world = held()
    for _ in range(graph.HANDOFFS_MAX):
        world.do(Begin(id="m.1", worker="nux", epoch=1, runtime="claude"))
        world.do(Finish(id="m.1", worker="nux", epoch=1, end="handed_off"))
    with pytest.raises(Refused, match="handed off 10 times"):
        world.do(Begin(id="m.1", worker="nux", epoch=1, runtime="claude"))
    world.do(Release(id="m", worker="nux", epoch=1))
    assert world.state("m").kind == "needs_person"


def test_what_is_put_off_on_release_comes_back_by_itself() -> None:
    world, later = started(), NOW + timedelta(hours=1)
    world.do(Finish(id="m.1", worker="nux", epoch=1, end="parked", reason="no quota left"))
    assert world.do(Release(id="m", worker="nux", epoch=1, until=later)).defer_until == later
    state = world.state("m")
    assert (state.kind, state.reason) == (
        "deferred",
        f"deferred until {later:%Y-%m-%d %H:%M} UTC: command: no quota left",
    )
    world.later(3601)
    assert world.state("m").kind == "ready"


def test_a_closed_step_is_not_begun() -> None:
    with pytest.raises(Refused, match="closed already"):
        worked().do(Begin(id="m.1", worker="nux", epoch=1, runtime="command"))


def test_evidence_is_kept_once() -> None:
    world = started()
    world.do(Finish(id="m.1", worker="nux", epoch=1, end="unmet", evidence=(proof(TESTS), proof(FILE))))
    step = world.do(Finish(id="m.1", worker="nux", epoch=1, end="unmet", evidence=(proof(FILE), proof(TESTS, "u"))))
    assert [e.id for e in step.evidence] == [proof(TESTS).id, proof(FILE).id, proof(TESTS, "u").id]


# --- closing ---------------------------------------------------------------------------------------------------

UNPROVEN: dict[str, tuple[tuple[Evidence, ...], str]] = {
    "nothing": ((), "run: pytest -q"),
    "only one": ((proof(TESTS),), r"file: a\.txt exists"),
    "the other": ((proof(FILE),), "run: pytest -q"),
    "failed": ((proof(TESTS, verdict="fail"), proof(FILE)), "run: pytest -q"),
    "error": ((proof(TESTS, verdict="error"), proof(FILE)), "run: pytest -q"),
    "failed at last": ((proof(TESTS, id="1"), proof(FILE), proof(TESTS, id="2", verdict="fail")), "run: pytest -q"),
    "something else": ((proof(TESTS), proof(Criterion(file="b.txt"))), r"file: a\.txt exists"),
    "different trees": ((proof(TESTS, "t"), proof(FILE, "u")), "the evidence is of different trees"),
    "no tree": ((proof(TESTS, ""), proof(FILE, "")), "run: pytest -q"),
    "no tree for one": ((proof(TESTS, "t"), proof(FILE, "")), "the evidence is of different trees"),
}


@pytest.mark.parametrize("name", UNPROVEN)
def test_what_is_not_proven_does_not_close(name: str) -> None:
    evidence, missing = UNPROVEN[name]
    world = held()
    with pytest.raises(Refused, match=f"not proven: {missing}"):
        world.do(Close(id="m.2", worker="nux", epoch=1, evidence=evidence))


def test_a_plain_bead_with_criteria_needs_proof_as_well() -> None:
    with pytest.raises(Refused, match="not proven"):
        plain(criteria=(TESTS,)).do(Close(id="a"))
    assert plain(criteria=(TESTS,)).do(Close(id="a", evidence=(proof(TESTS),))).outcome == "done"


def test_a_plain_bead_without_criteria_just_closes() -> None:
    closed = plain().do(Close(id="a", reason="Done."))
    assert (closed.status, closed.outcome, closed.close_reason, closed.closed_at) == ("closed", "done", "Done.", NOW)


def test_closing_keeps_the_proof_and_ends_the_attempt() -> None:
    world = started()
    closed = world.do(Close(id="m.1", worker="nux", epoch=1, evidence=(proof(TESTS),)))
    assert closed.evidence == (proof(TESTS),)
    assert closed.attempts[-1].end == "satisfied"
    assert world["m"].lease is not None


def test_a_molecule_does_not_close_before_its_steps() -> None:
    with pytest.raises(Refused, match=r"step m\.1 is open"):
        molecule().do(Close(id="m"))
    world = worked()
    world.do(Release(id="m", worker="nux", epoch=1))
    assert world.do(Close(id="m")).outcome == "done"


@pytest.mark.parametrize("outcome", ["rejected", "cancelled", "superseded"])
def test_a_decision_needs_no_proof_and_no_lease(outcome: Outcome) -> None:
    world = started()
    closed = world.do(Close(id="m", outcome=outcome, reason="so"), actor="person")
    assert (closed.outcome, closed.close_reason, closed.lease) == (outcome, "so", None)


@pytest.mark.parametrize("outcome", ["rejected", "cancelled", "superseded"])
def test_nobody_gets_around_a_step_by_giving_it_up(outcome: Outcome) -> None:
    for world, worker, epoch in ((held(), "nux", 1), (held(), "", 0), (molecule(), "", 0)):
        with pytest.raises(Refused, match=rf"m\.1 cannot be {outcome}: m is done only when"):
            world.do(Close(id="m.1", outcome=outcome, reason="not needed", worker=worker, epoch=epoch))
    given_up = molecule()
    given_up.do(Close(id="m", outcome=outcome))
    assert given_up.do(Close(id="m.1", outcome=outcome)).outcome == outcome
    closed = held().do(Close(id="m.1", outcome=outcome, force=True, reason="not needed"), actor="person")
    assert (closed.outcome, closed.close_reason) == (outcome, "forced by person: not needed")


def test_force_is_a_decision_with_a_name_and_a_reason() -> None:
    with pytest.raises(Refused, match="needs a reason"):
        held().do(Close(id="m.1", force=True, reason=" "))
    closed = held().do(Close(id="m.1", force=True, reason="checked by hand"), actor="person")
    assert (closed.outcome, closed.close_reason) == ("done", "forced by person: checked by hand")


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("bead_id", ["m", "m.m1"])
def test_only_the_refinery_says_that_something_landed(bead_id: str, force: bool) -> None:
    with pytest.raises(Refused, match="only the Refinery"):
        queued().do(Close(id=bead_id, outcome="landed", force=force, reason="x"))


def test_a_merge_request_is_not_simply_done() -> None:
    with pytest.raises(Refused, match="only the Refinery"):
        queued().do(Close(id="m.m1"))


@pytest.mark.parametrize(
    "changes", [{"description": "less"}, {"criteria": (FILE,)}, {"run": "true"}, {"title": "x"}], ids=str
)
@pytest.mark.parametrize("bead_id", ["m", "m.1"])
def test_a_goal_changed_behind_the_seal_stops_everything(bead_id: str, changes: dict[str, Any]) -> None:
    world = molecule()
    world.view.beads[bead_id] = world[bead_id].evolve(**changes)
    with pytest.raises(Refused):
        world.do(Claim(id="m", worker="nux"))
    assert world.attempt(Claim(worker="nux")) is None
    world = held()
    world.view.beads["m.1"] = world["m.1"].evolve(**changes)
    with pytest.raises(Refused, match="changed after they were sealed"):
        world.do(Close(id="m.1", worker="nux", epoch=1, evidence=(proof(TESTS),)))


def test_a_lie_in_the_seal_is_found() -> None:
    world = World(bead("a", criteria=(TESTS,), seal="sha256:0"))
    with pytest.raises(Refused, match="were changed after they were sealed"):
        world.do(Close(id="a", evidence=(proof(TESTS),)))


# --- plain facts -----------------------------------------------------------------------------------------------


def test_create_refuses_another_bead_of_that_id() -> None:
    world = World(bead("a", source="plan", title="A").sealed())
    with pytest.raises(Refused, match="exists already: A"):
        world.do(Create(bead=bead("a", source="plan", title="Other").sealed()))
    with pytest.raises(Refused, match="exists already"):
        plain().do(Create(bead=bead("a", title="Other")))


def test_create_leaves_what_was_worked_on_since() -> None:
    world = World(bead("a", source="plan").sealed())
    world.do(Update(id="a", priority=0))
    assert world.do(Create(bead=bead("a", source="plan").sealed())).priority == 0


@pytest.mark.parametrize("kind", sorted(BLOCKING))
def test_a_bead_is_not_created_waiting_for_itself(kind: str) -> None:
    with pytest.raises(Refused, match="wait for itself"):
        World().do(Create(bead=bead("a", dependencies=(Dependency(on="a", type=kind),))))
    world = World(bead("b", dependencies=needs("c")), bead("c", dependencies=needs("a")))
    with pytest.raises(Refused, match="wait for itself"):
        world.do(Create(bead=bead("a", dependencies=(Dependency(on="b", type=kind),))))


def test_a_bead_may_need_what_is_made_later() -> None:
    world = World()
    world.do(Create(bead=bead("a", dependencies=needs("b"))), Create(bead=bead("b", dependencies=needs("c"))))
    assert world.state("a").kind == "blocked"


@pytest.mark.parametrize("field", ["title", "description"])
def test_what_is_sealed_is_not_updated(field: str) -> None:
    with pytest.raises(Refused, match=f"{field} of m is sealed"):
        molecule().do(Update.model_validate({"id": "m", field: "other"}))
    same = Update.model_validate({"id": "m", field: getattr(molecule()["m"], field), "priority": 0})
    assert molecule().do(same).priority == 0


@pytest.mark.parametrize("status", [status for status in STATUSES if status != "closed"])
def test_an_update_does_not_reopen(status: Status) -> None:
    with pytest.raises(Refused, match="a is closed"):
        plain(status="closed", outcome="done").do(Update(id="a", status=status))


def test_an_update_does_not_close() -> None:
    with pytest.raises(Refused, match="cannot be closed by an update"):
        plain().do(Update(id="a", status="closed"))


@pytest.mark.parametrize("title", ["", " ", "a\nb", "x" * 501])
def test_a_title_that_is_none_is_refused_in_words(title: str) -> None:
    with pytest.raises(InvalidInput, match="a cannot have that title"):
        plain().do(Update(id="a", title=title))


def test_updates_keep_what_they_do_not_know() -> None:
    assert plain(later={"x": [1]}).do(Update(id="a", priority=1)).model_extra == {"later": {"x": [1]}}


def test_labels_are_a_sorted_set() -> None:
    assert plain(labels=("b",)).do(Label(id="a", add=("c", "a", "c"), remove=("b", "x"))).labels == ("a", "c")


@pytest.mark.parametrize("kind", sorted(BLOCKING))
def test_a_cycle_is_refused(kind: str) -> None:
    world = World(bead("a", dependencies=needs("b")), bead("b", dependencies=needs("c")), bead("c"))
    with pytest.raises(Refused, match="c cannot wait for a"):
        world.do(Depend.model_validate({"id": "c", "on": "a", "type": kind}))
    with pytest.raises(Refused, match="c cannot wait for c"):
        world.do(Depend.model_validate({"id": "c", "on": "c", "type": kind}))


def test_a_cycle_of_what_only_informs_is_fine() -> None:
    world = World(bead("a", dependencies=needs("b")), bead("b"))
    assert world.do(Depend(id="b", on="a", type="related")).dependencies[0].type == "related"
    assert world.state("b").kind == "ready"


def test_a_dependency_needs_both_ends() -> None:
    with pytest.raises(NotFound, match="'x'"):
        plain().do(Depend(id="a", on="x"))


def test_a_sealed_step_stays_in_its_molecule() -> None:
    with pytest.raises(Refused, match="sealed as a part of m"):
        molecule().do(Depend(id="m.2", on="m", type="parent-child", remove=True))
    assert molecule().do(Depend(id="m.2", on="m.1", remove=True)).needs == ()


def test_comments_are_kept_in_order_and_in_full() -> None:
    world = plain()
    world.do(Say(id="a", text="one\r\n\x00"), actor="ada")
    world.do(Say(id="a", text="two"), Say(id="a", text="one\r\n\x00"), actor="nux")
    said = world["a"].comments
    assert [(c.author, c.text) for c in said] == [("ada", "one\r\n\x00"), ("nux", "two"), ("nux", "one\r\n\x00")]
    assert len({c.id for c in said}) == 3
    assert len(world.later(0.001).do(Say(id="a", text="two"), actor="nux").comments) == 4


def test_reopening_makes_it_open_again() -> None:
    world = plain()
    world.do(Close(id="a", reason="Done."), Reopen(id="a"))
    assert (world["a"].status, world["a"].outcome, world["a"].closed_at, world["a"].close_reason) == (
        "open", None, None, "",
    )  # fmt: skip


def test_what_has_landed_is_not_reopened() -> None:
    world = queued()
    world.do(Land(ids=("m.m1",), commit=HEAD))
    for bead_id in ("m", "m.m1"):
        with pytest.raises(Refused, match="has landed"):
            world.do(Reopen(id=bead_id))


def test_a_step_is_not_reopened_behind_a_molecule_that_is_over_or_queued() -> None:
    world = queued()
    with pytest.raises(Refused, match="in the merge queue"):
        world.do(Reopen(id="m.1"))
    world.do(Close(id="m", outcome="cancelled"))
    with pytest.raises(Refused, match="is closed"):
        world.do(Reopen(id="m.1"))
    world.do(Reopen(id="m"))
    assert world.do(Reopen(id="m.1")).status == "open"


# --- the merge queue -------------------------------------------------------------------------------------------


def test_submitting_gives_the_lease_back_and_queues() -> None:
    world = worked()
    request = world.do(submit(), actor="nux")
    assert request.merge is not None
    assert (request.id, request.issue_type, request.parent, request.created_by) == ("m.m1", "merge-request", "m", "nux")
    assert (request.merge.molecule, request.merge.head, request.merge.base) == ("m", HEAD, BASE)
    assert (world["m"].lease, world["m"].status) == (None, "open")
    assert [world.state(i).kind for i in ("m", "m.1", "m.m1")] == ["queued", "closed", "queued"]


def test_nothing_is_submitted_before_it_is_done() -> None:
    with pytest.raises(Refused, match=r"step m\.1 is open"):
        held().do(submit())


def test_a_head_that_adds_nothing_is_done() -> None:
    done = worked().do(submit(head=BASE))
    assert (done.id, done.outcome, done.lease) == ("m", "done", None)


@pytest.mark.parametrize("head", [HEAD, BASE])
def test_a_plain_bead_is_not_submitted_without_proof(head: str) -> None:
    world = held(World(bead("m", criteria=(TESTS, FILE))))
    other = (proof(TESTS, "t"), proof(FILE, "u"))
    with pytest.raises(Refused, match="not proven: run: pytest -q"):
        world.do(submit(head=head))
    world.do(Finish(id="m", worker="nux", epoch=1, end="unmet", evidence=other))
    with pytest.raises(Refused, match="not proven: run: pytest -q"):
        world.do(submit(head=head))
    world.do(Finish(id="m", worker="nux", epoch=1, end="satisfied", evidence=(proof(FILE, "t"),)))
    assert world.do(submit(head=head)).id == ("m" if head == BASE else "m.m1")


def test_a_request_takes_nobody_elses_id() -> None:
    world = worked()
    world.do(Create(bead=bead("m.m1", title="Mine")))
    assert world.do(submit()).id == "m.m2"
    assert world["m.m1"].title == "Mine"


def test_landing_closes_the_request_and_the_molecule() -> None:
    world = queued()
    world.do(Intend(ids=("m.m1",), commit=HEAD))
    request = world.do(Land(ids=("m.m1",), commit=HEAD))
    assert request.merge is not None
    assert (request.outcome, request.merge.landing, request.merge.landed) == ("landed", HEAD, HEAD)
    assert (world["m"].outcome, world["m"].close_reason) == ("landed", f"landed as {HEAD[:12]}")
    assert list(graph.queue(world.view)) == []


def test_sending_back_adds_a_step_and_frees_the_molecule() -> None:
    world = queued()
    request = world.do(SendBack(id="m.m1", reason="red", step=mend()))
    assert (request.outcome, request.close_reason) == ("rejected", "red")
    assert world.state("m") == graph.State("ready", "next step m.3: The work of m.3")
    with pytest.raises(Fenced):
        world.do(submit())
    world.do(Claim(id="m", worker="nux"), Close(id="m.3", worker="nux", epoch=2, evidence=(proof(TESTS, TREE),)))
    assert world.do(submit(epoch=2)).id == "m.m2", "the same head may be asked for again"
    assert graph.reworks(world.view, world["m"]) == 1


def test_what_is_over_is_not_about_to_land() -> None:
    world = queued()
    world.do(SendBack(id="m.m1", reason="red", step=mend()))
    with pytest.raises(LostRace, match="closed already: rejected"):
        world.do(Intend(ids=("m.m1",), commit=HEAD))


@pytest.mark.parametrize(
    "operation",
    [
        Judge(id="a", evidence=proof(TESTS)),
        Intend(ids=("a",), commit=HEAD),
        Land(ids=("a",), commit=HEAD),
        SendBack(id="a", reason="x", step=mend()),
        Bump(id="a"),
        Withdraw(id="a", reason="x"),
        Again(id="a"),
    ],
    ids=lambda operation: operation.op,
)
def test_only_merge_requests_land(operation: Operation) -> None:
    with pytest.raises(InvalidInput, match="a is not a merge request"):
        plain().do(operation)


@pytest.mark.parametrize("outcome", ["rejected", "cancelled", "superseded"])
def test_what_is_cancelled_leaves_the_queue(outcome: Outcome) -> None:
    world = queued()
    world.do(Close(id="m", outcome=outcome, reason="no more"), actor="person")
    assert world["m.m1"].outcome == "cancelled"
    assert list(graph.queue(world.view)) == []
    # The Refinery, which does not know yet, cannot bring it back.
    with pytest.raises(LostRace):
        world.do(Intend(ids=("m.m1",), commit=HEAD))
    world.do(SendBack(id="m.m1", reason="red", step=mend()))
    assert (world["m"].outcome, "m.3" in world.view.beads) == (outcome, False)


def test_what_is_about_to_land_is_not_cancelled_on_the_way() -> None:
    world = queued()
    world.do(Intend(ids=("m.m1",), commit=HEAD))
    with pytest.raises(Refused, match="about to land"):
        world.do(Close(id="m", outcome="cancelled"))
    world.do(Close(id="m", outcome="cancelled", force=True, reason="stuck"))
    assert world["m.m1"].closed
    # It was on main after all: main is right.
    world.do(Land(ids=("m.m1",), commit=HEAD))
    assert (world["m"].outcome, world["m.m1"].outcome) == ("landed", "landed")


def test_only_open_requests_are_withdrawn() -> None:
    world = queued()
    world.do(SendBack(id="m.m1", reason="red", step=mend()), Close(id="m", outcome="cancelled"))
    assert world["m.m1"].outcome == "rejected"


def test_a_request_that_is_over_is_not_reopened() -> None:
    world = queued()
    world.do(SendBack(id="m.m1", reason="red", step=mend()))
    with pytest.raises(Refused, match=r"merge request m\.m1 is over"):
        world.do(Reopen(id="m.m1"))


def test_sending_back_overwrites_no_step() -> None:
    world = queued()
    before = world["m.1"]
    world.do(SendBack(id="m.m1", reason="red", step=mend(1)))
    assert (world["m.1"], world["m.m1"].outcome) == (before, "rejected")


def test_after_a_cancelled_request_the_same_head_can_be_submitted() -> None:
    world = queued()
    world.do(Close(id="m", outcome="cancelled"), Reopen(id="m"), Claim(id="m", worker="nux"))
    assert world.do(submit(epoch=2)).id == "m.m2"


# --- what a person decides about a request ---------------------------------------------------------------------


def test_what_is_withdrawn_waits_for_a_person_and_nothing_of_it_is_lost() -> None:
    world = queued()
    request = world.do(Withdraw(id="m.m1", reason="not before Monday"), actor="bob")
    assert (request.outcome, request.close_reason) == ("cancelled", "withdrawn by bob: not before Monday")
    assert world.state("m") == graph.State("needs_person", "bob took it out of the merge queue: not before Monday")
    with pytest.raises(Refused, match="cannot be claimed"):
        world.do(Claim(id="m", worker="nux"))
    assert world["m.1"].outcome == "done"
    made = world.do(Again(id="m.m1"), actor="bob")
    assert made.merge == request.merge
    assert world.state("m").kind == "queued"


def test_what_is_withdrawn_can_be_worked_on_again() -> None:
    world = withdrawn()
    world.do(Reopen(id="m.2"))
    assert world.state("m").kind == "ready"
    world.do(Claim(id="m", worker="nux"))
    world.do(Close(id="m.2", worker="nux", epoch=2, evidence=(proof(TESTS), proof(FILE))))
    assert world.do(submit(epoch=2)).id == "m.m2"


def test_a_plain_bead_that_is_withdrawn_waits_for_a_person_too() -> None:
    world = World(bead("m", criteria=(TESTS,)))
    world.do(Claim(id="m", worker="nux"), Begin(id="m", worker="nux", epoch=1, runtime="command"))
    world.do(Finish(id="m", worker="nux", epoch=1, end="satisfied", evidence=(proof(TESTS),)), submit())
    world.do(Withdraw(id="m.m1", reason="not yet"))
    assert world.state("m").kind == "needs_person"
    assert graph.ready(world.view, NOW) == []


def test_what_is_about_to_land_is_withdrawn_only_when_it_cannot() -> None:
    world = queued()
    world.do(Intend(ids=("m.m1",), commit=HEAD))
    for void in ("", BASE):
        with pytest.raises(Refused, match="about to land"):
            world.do(Withdraw(id="m.m1", reason="no", void=void))
    assert world.do(Withdraw(id="m.m1", reason="no", void=HEAD)).outcome == "cancelled"


@pytest.mark.parametrize("operation", [Bump(id="m.m1"), Withdraw(id="m.m1", reason="no"), Again(id="m.m1")])
def test_what_has_landed_is_nobody_s_to_decide_any_more(operation: Operation) -> None:
    world = queued()
    world.do(Intend(ids=("m.m1",), commit=HEAD), Land(ids=("m.m1",), commit=HEAD))
    with pytest.raises(Refused, match="landed"):
        world.do(operation)


def test_what_was_sent_back_is_asked_for_again_without_the_step_it_was_given() -> None:
    world = sent_back()
    made = world.do(Again(id="m.m1", reason="it was the network"), actor="bob")
    assert (made.id, world["m.3"].outcome) == ("m.m2", "cancelled")
    assert world.state("m").kind == "queued"
    (said,) = made.evidence
    assert (said.by, said.detail) == ("bob", "it was the network")
    with pytest.raises(Refused, match="not in the queue"):
        world.do(Bump(id="m.m1"))


def test_nobody_asks_again_for_what_somebody_mends() -> None:
    world = sent_back()
    world.do(Claim(id="m", worker="nux"))
    with pytest.raises(LostRace, match="held by nux"):
        world.do(Again(id="m.m1"))
    world.do(Close(id="m.3", worker="nux", epoch=2, evidence=(proof(TESTS),)), Release(id="m", worker="nux", epoch=2))
    with pytest.raises(Refused, match=r"was mended since: step m\.3 is done"):
        world.do(Again(id="m.m1"))
    world.do(Claim(id="m", worker="nux"), submit(epoch=3, head=BASE[:39] + "c"))
    with pytest.raises(Refused, match=r"m\.m2 came after it"):
        world.do(Again(id="m.m1"))


def test_nobody_asks_again_for_what_is_given_up_or_not_done() -> None:
    world = withdrawn()
    world.do(Reopen(id="m.2"))
    with pytest.raises(Refused, match=r"step m\.2 is open"):
        world.do(Again(id="m.m1"))
    world.do(Close(id="m", outcome="cancelled"))
    with pytest.raises(Refused, match="m is closed"):
        world.do(Again(id="m.m1"))


# --- deleting --------------------------------------------------------------------------------------------------


def test_deleting_a_molecule_takes_its_steps_along_and_frees_who_waits() -> None:
    world = World(*molecule().view, bead("a", dependencies=needs("m")))
    assert world.state("a").kind == "blocked"
    world.do(Delete(id="m", reason="a duplicate"))
    assert {b.id for b in world.view if b.deleted} == {"m", "m.1", "m.2"}
    assert world.state("a").kind == "ready"
    assert world["m"].close_reason == "a duplicate"
    assert not world["m.1"].criteria
    assert not world["m.1"].dependencies


def test_what_was_deleted_is_not_there_and_does_not_come_back() -> None:
    made = bead("a", source="plan:p/a").sealed()
    world = World(made)
    world.do(Delete(id="a"))
    with pytest.raises(NotFound, match="a was deleted"):
        world.do(Say(id="a", text="still here?"))
    assert world.changes(Create(bead=made)) == {}, "pouring the plan again brought it back"
    with pytest.raises(Refused, match="exists already"):
        world.do(Create(bead=bead("a", title="Another one")))


def test_parts_that_are_work_of_their_own_are_not_deleted_by_the_way() -> None:
    world = World(bead("e", issue_type="epic"), bead("a", dependencies=part_of("e")), bead("b"))
    with pytest.raises(Refused, match="a is a part of e"):
        world.do(Delete(id="e"))
    world.do(Delete(id="e", cascade=True))
    assert [b.id for b in world.view if not b.deleted] == ["b"]


def test_a_long_chain_of_parts_is_deleted_as_a_whole() -> None:
    draft = Draft(Beads(()))
    for one in (bead("b-0"), *(bead(f"b-{n}", dependencies=part_of(f"b-{n - 1}")) for n in range(1, 5001))):
        draft.put(one)
    gone = apply(Delete(id="b-0", cascade=True), draft, Context("ada", NOW))
    assert gone == draft.get("b-0")
    assert all(one.deleted for one in draft.changed.values())


@pytest.mark.parametrize(
    "world, bead_id, reason",
    [
        (held(), "m", "held by nux"),
        (molecule(), "m.1", "m.1 is a part of m"),
        (queued(), "m.m1", "m.m1 is a part of m"),
    ],
)
def test_what_is_not_deleted(world: World, bead_id: str, reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        world.do(Delete(id=bead_id))


def test_what_has_landed_is_not_deleted() -> None:
    world = queued()
    world.do(Land(ids=("m.m1",), commit=HEAD))
    with pytest.raises(Refused, match="landed"):
        world.do(Delete(id="m"))


def test_nothing_is_closed_as_deleted() -> None:
    with pytest.raises(InvalidInput, match="a cannot be closed as deleted"):
        plain().do(Close(id="a", outcome="deleted"))


# --- anything at all -------------------------------------------------------------------------------------------

_ids = st.sampled_from(["m", "m.1", "m.2", "m.3", "m.m1", "m.m2", "a", "b", "ghost"])
_who = st.sampled_from(["nux", "ada"])
_epochs = st.integers(1, 3)
_holder = {"id": _ids, "worker": _who, "epoch": _epochs}
_proofs = st.lists(
    st.builds(
        proof, st.sampled_from([TESTS, FILE]), st.sampled_from(["", "t", "u"]),
        verdict=st.sampled_from(["pass", "pass", "pass", "fail"]),
    ),
    max_size=3,
).map(tuple)  # fmt: skip
_kinds = st.sampled_from([*sorted(BLOCKING), "related"])
_edges = st.lists(st.builds(Dependency, on=_ids, type=_kinds), max_size=2).map(tuple)
_commits = st.sampled_from([HEAD, BASE])
operations: st.SearchStrategy[Operation] = st.one_of(
    st.builds(Create, bead=st.builds(lambda i, e: bead(i, dependencies=e, criteria=(TESTS,)), _ids, _edges)),
    st.builds(Update, id=_ids, status=st.sampled_from([None, *STATUSES]), title=st.sampled_from([None, "", "x"])),
    st.builds(Label, id=_ids, add=st.just(("x",))),
    st.builds(Depend, id=_ids, on=_ids, type=_kinds, remove=st.booleans()),
    st.builds(Say, id=_ids, text=st.just("x")),
    st.builds(Claim, id=_ids, worker=_who, seconds=st.sampled_from([1.0, 3600.0])),
    st.builds(Renew, **_holder),
    st.builds(Release, **_holder),
    st.builds(Begin, **_holder, runtime=st.just("command")),
    st.builds(Finish, **_holder, end=st.sampled_from(["unmet", "satisfied"]), evidence=_proofs),
    st.builds(
        Close, id=_ids, worker=st.sampled_from(["", "nux"]), epoch=st.integers(0, 3), evidence=_proofs,
        outcome=st.sampled_from(OUTCOMES), force=st.booleans(), reason=st.sampled_from(["", "x"]),
    ),
    st.builds(Reopen, id=_ids),
    st.builds(Delete, id=_ids, cascade=st.booleans()),
    st.builds(Submit, **_holder, branch=st.just("b"), head=_commits, base=_commits),
    st.builds(Judge, id=_ids, evidence=st.just(proof(TESTS))),
    st.builds(Intend, ids=st.tuples(_ids), commit=_commits),
    st.builds(Land, ids=st.tuples(_ids), commit=_commits),
    st.builds(SendBack, id=_ids, reason=st.just("red"), step=st.just(mend())),
    st.builds(Bump, id=_ids),
    st.builds(Withdraw, id=_ids, reason=st.just("not yet"), void=st.sampled_from(["", *(HEAD, BASE)])),
    st.builds(Again, id=_ids),
)  # fmt: skip


@given(st.lists(st.tuples(operations, _who, st.sampled_from([0.0, 0.5, 2.0])), max_size=30))
def test_whatever_happens(history: list[tuple[Operation, str, float]]) -> None:
    world = World(*molecule().view, bead("a", criteria=(TESTS,)), bead("b", dependencies=needs("a")))
    for operation, actor, seconds in history:
        before = dict(world.view.beads)
        world.later(seconds)
        try:
            about = world.attempt(operation, actor=actor)
        except TownError:
            assert world.view.beads == before
            continue
        assert world.changes(operation, actor) == {}, "done again, it changes something"
        assert about is None or about == world[about.id]
        assert describe(operation, about)
        _check(before, world, operation)


def _check(before: dict[str, Bead], world: World, operation: Operation) -> None:
    assert before.keys() <= world.view.beads.keys()
    for now in world.view:
        was = before.get(now.id)
        assert Bead.model_validate(dict(now)) == now
        assert was is None or was.epoch <= now.epoch
        if now.deleted:
            assert now.closed
            assert (now.lease, now.dependencies) == (None, ()), "more than a tombstone is left"
            continue
        assert was is None or was.comments == now.comments[: len(was.comments)]
        assert was is None or was.evidence == now.evidence[: len(was.evidence)]
        assert was is None or was.seal == now.seal
        assert now.lease is None or (now.lease.epoch == now.epoch and not now.closed)
        assert now.closed == (now.outcome is not None)
        if now.closed and now.criteria and now.outcome == "done" and not (was and was.closed):
            assert now.close_reason.startswith("forced by ") or now.evidence
        assert graph.state(world.view, now, world.now).kind in get_args(graph.Kind)
    if isinstance(operation, Depend | Create):
        assert not _cycles(world.view)


def _cycles(view: Beads) -> Sequence[str]:
    return [found.id for found in view if found.id in set(graph.waits_on(view, found.id))]


# ── Answers ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_is_asked_waits_for_a_person() -> None:
    state = graph.state(asking().view, asking()["m"], NOW)
    assert (state.kind, "approval: is it what we want?" in state.reason) == ("needs_person", True)
    with pytest.raises(Refused, match=r"asks for approval: is it what we want\?"):
        asking().do(Claim(id="m", worker="ace"))


@pytest.mark.parametrize("approved,verdict", [(True, "pass"), (False, "fail"), (None, "answered")])
def test_an_answer_is_kept_with_who_gave_it_and_frees_the_molecule(approved: bool | None, verdict: str) -> None:
    world = asking()
    step = world.do(Answer(id="m.1", tree=TREE, approved=approved, reason="because"), actor="ada")
    said = step.evidence[-1]
    assert (said.subject, said.verdict, said.tree, said.by, said.detail) == (
        "approval: is it what we want?",
        verdict,
        TREE,
        "ada",
        "because",
    )
    assert graph.state(world.view, world["m"], NOW).kind == "ready"


def test_an_answer_in_words_is_told_as_one_and_closes_nothing() -> None:
    world = asking()
    operation = Answer(id="m.1", tree=TREE, approved=None, reason="by name")
    assert describe(operation, world.do(operation)) == "answer m.1: by name"
    assert words(world["m.1"]) == ("by name",)
    assert graph.failed(world["m.1"]) == []
    world.do(Claim(id="m", worker="ace"))
    with pytest.raises(Refused, match="not proven: approval"):
        world.do(Close(id="m.1", worker="ace", epoch=2, evidence=(proof(TESTS, TREE),)))


@pytest.mark.parametrize("approved,problem", [(False, "rejecting m.1 needs a reason"), (None, "needs words")])
def test_whoever_does_not_say_yes_says_why(approved: bool | None, problem: str) -> None:
    with pytest.raises(Refused, match=problem):
        asking().do(Answer(id="m.1", tree=TREE, approved=approved, reason="  "))


def test_only_what_was_approved_of_closes_the_step() -> None:
    world = asking()
    world.do(Answer(id="m.1", tree=TREE, approved=True))
    world.do(Claim(id="m", worker="ace"))
    changed = tuple(proof(criterion, "d" * 40) for criterion in (TESTS, APPROVAL))
    with pytest.raises(Refused, match="only a person can answer"):
        world.do(Close(id="m.1", worker="ace", epoch=2, evidence=changed))
    with pytest.raises(Refused, match="not proven: approval"):
        world.do(Close(id="m.1", worker="ace", epoch=2, evidence=changed[:1]))
    assert world.do(Close(id="m.1", worker="ace", epoch=2, evidence=(proof(TESTS, TREE),))).outcome == "done"


def test_the_last_answer_counts_as_long_as_nothing_happened_since() -> None:
    world = asking()
    world.do(Answer(id="m.1", tree=TREE, approved=True))
    world = world.later(1)
    world.do(Answer(id="m.1", tree=TREE, approved=False, reason="on second thought"))
    world.do(Claim(id="m", worker="ace"))
    with pytest.raises(Refused, match="not proven: approval"):
        world.do(Close(id="m.1", worker="ace", epoch=2, evidence=(proof(TESTS, TREE),)))
    world = world.later(1)
    later = proof(TESTS, "d" * 40, verdict="fail", at=world.now)
    world.do(Finish(id="m.1", worker="ace", epoch=2, end="unmet", evidence=(later,)))
    with pytest.raises(Refused, match=r"nothing is asked about m\.1"):
        world.do(Answer(id="m.1", tree=TREE, approved=True))


def test_what_is_found_with_a_clock_that_is_behind_still_comes_after_what_was_said() -> None:
    world = asking()
    world.later(60).do(Answer(id="m.1", tree=TREE, approved=False, reason="no"))
    world.do(Claim(id="m", worker="ace"))
    other = "d" * 40
    # Found an hour before the question that was answered, as this worker's clock has it.
    behind = NOW - timedelta(hours=1)
    found = (proof(TESTS, other, at=behind), proof(APPROVAL, other, verdict="asked", at=behind))
    world.do(Finish(id="m.1", worker="ace", epoch=2, end="asked", evidence=found))
    world.do(Release(id="m", worker="ace", epoch=2))
    assert graph.state(world.view, world["m"], NOW).kind == "needs_person"
    step = world.do(Answer(id="m.1", tree=other, approved=True))
    assert (step.evidence[-1].tree, step.evidence[-1].verdict) == (other, "pass")


def test_a_worker_cannot_answer_for_a_person() -> None:
    with pytest.raises(Refused, match="only a person can answer"):
        asking("pass")


@pytest.mark.parametrize(
    "answer, error",
    [
        (Answer(id="m.1", tree="b" * 40, approved=True), LostRace),
        (Answer(id="m.1", tree=TREE, approved=False, reason=" "), Refused),
        (Answer(id="m", tree=TREE, approved=True), Refused),
    ],
)
def test_answers_that_are_none(answer: Answer, error: type[TownError]) -> None:
    with pytest.raises(error):
        asking().do(answer)


def test_a_worker_opens_a_step_again_only_as_the_holder() -> None:
    world = worked()
    with pytest.raises(Fenced):
        world.do(Reopen(id="m.1", worker="ace", epoch=1))
    assert world.do(Reopen(id="m.1", worker="nux", epoch=1)).status == "open"


# ── Terms ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_budget_that_is_spent_lets_nobody_begin() -> None:
    world = started()
    world.do(Update(id="m.1", terms=Terms(budget=1.0)))
    found = proof(TESTS, verdict="fail", cost=0.75)
    world.do(Finish(id="m.1", worker="nux", epoch=1, end="unmet", evidence=(found,)))
    world.do(Begin(id="m.1", worker="nux", epoch=1, runtime="x", cost=0.25))
    world.do(Finish(id="m.1", worker="nux", epoch=1, end="unmet"))
    with pytest.raises(Refused, match=r"has cost \$1\.00 of its budget of \$1\.00"):
        world.do(Begin(id="m.1", worker="nux", epoch=1, runtime="x"))
    world.do(Release(id="m", worker="nux", epoch=1))
    state = graph.state(world.view, world["m"], NOW)
    assert (state.kind, state.reason) == ("needs_person", "step m.1 has cost $1.00 of its budget of $1.00")
    world.do(Update(id="m.1", terms=Terms(budget=2.0)))
    assert graph.state(world.view, world["m"], NOW).kind == "ready"


def test_the_budget_of_a_molecule_is_for_all_its_steps() -> None:
    world = held()
    world.do(Update(id="m", terms=Terms(budget=1.0)))
    world.do(Begin(id="m.1", worker="nux", epoch=1, runtime="x", cost=0.75, budget=0.9, tokens=7))
    assert (world["m.1"].attempts[-1].budget, world["m.1"].attempts[-1].tokens) == (0.9, 7)
    world.do(Finish(id="m.1", worker="nux", epoch=1, end="unmet", evidence=(proof(TESTS, verdict="fail", cost=0.25),)))
    with pytest.raises(Refused, match=r"^m has cost \$1\.00 of its budget of \$1\.00$") as error:
        world.do(Begin(id="m.1", worker="nux", epoch=1, runtime="x"))
    assert error.value.hint == "`bead update m --budget N` allows more."
    world.do(Release(id="m", worker="nux", epoch=1))
    state = graph.state(world.view, world["m"], NOW)
    assert (state.kind, state.reason) == ("needs_person", "m has cost $1.00 of its budget of $1.00")


def test_terms_may_be_changed_under_a_seal() -> None:
    world = molecule()
    changed = world.do(Update(id="m.1", terms=Terms(model="x", timeout=5.0, capabilities=("ui",))))
    assert changed.seal == changed.digest()
