"""The inbox: one item for everything that needs a person, with what was found and the commands that help."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beads import Store, graph
from beads.clock import milliseconds
from beads.git import Oid
from beads.index import Reader, connect
from beads.indexing import SCHEMA, Update, advance_by
from beads.model import Attempt, Bead, Criterion, Dependency, Evidence, MergeRequest, Terms, path_of, write_bead
from beads.objects import raw
from beads.ops import Close, Judge
from beads.recent import Recent
from refinery.queue import REWORK, stand
from roles.acceptance import PROTECTED
from roles.inbox import Inbox, Item, about, facts, for_programs, inbox, key
from roles.settings import Agent, Settings, TownTable
from tests.beads.strategies import ENDS, NOW, OUTCOMES, STATUSES, bead, needs, part_of

TESTS = Criterion(run="pytest -q")
ASKED = Criterion(approval="is it loud enough?")
TREE = "ab" * 20
SETTINGS = Settings()


def at(minutes: int) -> datetime:
    return NOW + timedelta(minutes=minutes)


def step(bead_id: str = "m.1", parent: str = "m", **fields: Any) -> Bead:
    criteria = fields.pop("criteria", (TESTS,))
    return bead(bead_id, issue_type="step", dependencies=part_of(parent), criteria=criteria, **fields)


def tried(*ends: str, **fields: Any) -> tuple[Attempt, ...]:
    """Attempts of two minutes each, one every ten."""
    return tuple(
        Attempt.model_validate(
            {
                "number": n,
                "epoch": n,
                "worker": "nux",
                "runtime": "claude",
                "started_at": at(10 * n),
                "ended_at": at(10 * n + 2),
                "end": end,
                "reason": f"reason {n}",
                **fields,
            }
        )
        for n, end in enumerate(ends, start=1)
    )


def said(subject: str, verdict: str, minutes: int, **fields: Any) -> Evidence:
    found = {"id": f"{subject}{minutes}", "subject": subject, "verdict": verdict, "at": at(minutes), **fields}
    return Evidence.model_validate(found)


def request(number: int = 1, **fields: Any) -> Bead:
    merge = MergeRequest(molecule="m", branch="polecat/m", head="c" * 40, base="d" * 40)
    return bead(f"m.m{number}", issue_type="merge-request", dependencies=part_of("m"), merge=merge, **fields)


def sent_back(number: int) -> Bead:
    red = said("gate: make test", "fail", 10 * number, gate="sha256:g", output=f"red {number}")
    back = {"status": "closed", "outcome": "rejected", "closed_at": at(10 * number), "close_reason": "the gate is red"}
    return request(number, evidence=(red,), **back)


def store_of(repo: Path, *beads: Bead) -> Store:
    """The store, these beads put into it, also such as no transaction makes: what others push may be anything."""
    store = Store.init(repo, "ada")
    repository, head = store.repository, store.snapshot().commit
    files = {path_of(found.id): write_bead(found) for found in beads}
    tree = repository.commit(head).tree
    commit = repository.write(tree, files, parents=(head,), author="a <b>", when=NOW, message="x")
    assert repository.swap(store.ref, head, commit)
    return store


def found_in(repo: Path, *beads: Bead, settings: Settings | None = None) -> Inbox:
    return inbox(store_of(repo, *beads).snapshot(), at(1000), settings)


def only(repo: Path, *beads: Bead, settings: Settings | None = None) -> Item:
    (item,) = found_in(repo, *beads, settings=settings).items
    return item


def commands(item: Item) -> list[str]:
    return [way.command for way in item.ways]


M = bead("m", issue_type="molecule", title="Do it")
ANEW = 'town mayor "Find another way for m"'
GIVE_UP = "bead close m --outcome cancelled --reason WHY"


# --- each kind -------------------------------------------------------------------------------------------------


def test_an_approval_says_what_changed_and_how_to_look_at_it(repo: Path) -> None:
    files = "parts/voice (+1 -0)\ncheck.sh (+1 -5), protected"
    asks = said(str(ASKED), "asked", 30, tree=TREE, detail="2 files, 7 lines changed", output=files)
    proven = said(str(TESTS), "pass", 29, tree=TREE, detail="exit 0")
    other = said(str(TESTS), "pass", 20, tree="ef" * 20, detail="of other files")
    item = only(repo, M, step(criteria=(TESTS, ASKED), evidence=(other, proven, asks)))
    assert (item.kind, item.bead_id, item.title, item.since) == ("approval", "m", "Do it", at(30))
    assert item.reason == "step m.1 asks for approval: is it loud enough?: 2 files, 7 lines changed"
    assert [(one.what, one.text) for one in item.evidence] == [
        (str(ASKED), ""),
        ("2 files, 7 lines changed", files),
        ("what was proven about the same files", "run: pytest -q: exit 0"),
    ]
    approve = f"town approve m --tree {TREE[:12]}"
    others = ["town reject m --reason WHY", "town answer m TEXT", "git diff main...polecat/m", GIVE_UP]
    assert commands(item) == [approve, *others]


def test_what_is_asked_in_many_lines_is_told_in_one(repo: Path) -> None:
    asking = Criterion(approval="is it\nloud enough?")
    item = only(repo, M, step(criteria=(asking,), evidence=(said(str(asking), "asked", 30, tree=TREE),)))
    assert item.reason == "step m.1 asks for approval: is it loud enough?"
    assert item.evidence[0].what == "approval: is it loud enough?"


def test_the_branch_to_compare_with_is_the_one_of_the_settings(repo: Path) -> None:
    asks = said(str(ASKED), "asked", 30, tree=TREE)
    settings = Settings(town=TownTable(branch="trunk"))
    item = only(repo, M, step(criteria=(ASKED,), evidence=(asks,)), settings=settings)
    assert "git diff trunk...polecat/m" in commands(item)


def test_an_approval_that_the_refinery_asks_for_is_about_protected_paths(repo: Path) -> None:
    asking = Criterion(approval="the changes to check.sh")
    asks = said(str(asking), "asked", 30, tree=TREE, detail="1 files, 1 lines changed; protected: check.sh")
    rework: dict[str, Any] = {
        "labels": (REWORK,),
        "description": "it changes check.sh, which is protected",
        "title": "Rework after m.m1",
    }
    item = only(
        repo,
        M,
        step(status="closed", outcome="done", criteria=(ASKED,)),
        step("m.2", criteria=(ASKED, asking), evidence=(asks,), **rework),
    )
    assert (item.kind, item.evidence[-1].text) == ("protected", "it changes check.sh, which is protected")
    # What the molecule promised itself is an approval like any other, also there.
    again = said(str(ASKED), "asked", 31, tree=TREE)
    assert only(repo, M, step("m.2", criteria=(ASKED,), evidence=(again,), **rework)).kind == "approval"


def test_a_poison_molecule_comes_with_the_evidence_of_every_attempt(repo: Path) -> None:
    printed = "\n".join(f"line {n}" for n in range(40))
    evidence = (
        said(str(TESTS), "fail", 11, tree="1", detail="exit 1", output="first"),
        said("file: a", "pass", 21, tree="2"),
        said(str(TESTS), "fail", 22, tree="2", detail="exit 2", output="second"),
        said(str(TESTS), "fail", 32, tree="3", detail="exit 3", output=printed),
    )
    attempts = tried("unmet", "unmet", "stopped", "unmet")
    item = only(repo, M, step(attempts=attempts, evidence=evidence))
    assert (item.kind, item.reason, item.since) == (
        "poison",
        "step m.1 failed 3 of 3 attempts; the last time: reason 4",
        at(42),
    )
    last = "\n".join(f"line {n}" for n in range(30, 40))
    assert [(one.what, one.text, one.at) for one in item.evidence] == [
        ("attempt 1 at m.1 by claude: reason 1", "first", at(12)),
        ("attempt 2 at m.1 by claude: reason 2", "second", at(22)),
        ("attempt 4 at m.1 by claude: reason 4", "", at(42)),
    ]
    assert commands(item) == ["town retry m", "town attach m", ANEW, "town log m.1", GIVE_UP]
    moved = evidence[3].model_copy(update={"at": at(41)})
    again = only(repo, M, step(attempts=attempts, evidence=(*evidence[:3], moved)))
    assert again.evidence[-1].text == last
    # After more attempts it is another occasion, and news.
    more = step(attempts=(*attempts, *tried("unmet", started_at=at(60))), attempts_max=4)
    assert key(only(repo, M, more)) != key(item)


@pytest.mark.parametrize("end, count, words", [("died", 20, "lost 20 workers"), ("handed_off", 10, "handed off 10")])
def test_deaths_and_handoffs_are_poison_that_a_retry_does_not_help(
    repo: Path, end: str, count: int, words: str
) -> None:
    item = only(repo, M, step(attempts=tried(*[end] * count)))
    assert (item.kind, len(item.evidence)) == ("poison", count)
    assert words in item.reason
    assert commands(item) == ["town attach m", ANEW, "town log m.1", GIVE_UP]


def test_what_the_refinery_has_sent_back_too_often(repo: Path) -> None:
    item = only(repo, M, step(), *(sent_back(n) for n in range(1, 7)))
    assert (item.kind, item.reason, item.since) == ("poison", "sent back by the Refinery 6 times", at(60))
    assert [(one.what, one.text) for one in item.evidence] == [
        (f"m.m{n}: the gate is red", f"red {n}") for n in range(1, 7)
    ]
    assert commands(item) == ["town attach m", GIVE_UP]


def test_protected_paths_that_nobody_asks_about_are_named(repo: Path) -> None:
    found = said(PROTECTED, "fail", 31, tree=TREE, detail="changes a, b, c and 1 more", output="a\nb\nc\nd")
    item = only(repo, M, step(attempts=tried("unmet", "unmet", "unmet"), evidence=(found,)))
    assert (item.kind, item.evidence[-1].text) == ("protected", "a\nb\nc\nd")
    assert commands(item) == ["town attach m", "town retry m", GIVE_UP]
    assert "an approval among its criteria" in item.ways[-1].does


def test_a_work_tree_that_cannot_be_made_ready(repo: Path) -> None:
    lost = said("[worktree] setup", "error", 51, detail="exit 1", output="no network")
    attempts = tried(*["parked"] * 5, ending="environment")
    item = only(repo, M, step(attempts=attempts, evidence=(lost,)))
    assert (item.kind, len(item.evidence), item.evidence[-1].text) == ("setup", 5, "no network")
    assert [one.at for one in item.evidence] == [at(10 * n + 2) for n in range(1, 6)]
    assert commands(item) == ["town retry m", "bead why m", GIVE_UP]


@pytest.mark.parametrize("spent", ["m", "m.1"])
def test_a_budget_that_is_spent(repo: Path, spent: str) -> None:
    terms = Terms(budget=1.0)
    root = M.evolve(terms=terms) if spent == "m" else M
    done = step(status="closed", outcome="done", attempts=tried("satisfied", cost=0.5))
    left = step("m.2" if spent == "m" else "m.1", attempts=tried("unmet", "died", cost=0.6))
    left = left if spent == "m" else left.evolve(terms=terms)
    item = only(repo, root, *([done] if spent == "m" else []), left)
    assert (item.kind, item.since) == ("budget", at(22))
    assert len(item.evidence) == (3 if spent == "m" else 2)
    assert item.evidence[-1].what.endswith("by claude: $0.6000")
    assert commands(item) == [f"bead update {spent} --budget N", "town attach m", "town costs --by molecule", GIVE_UP]


def test_a_seal_that_is_broken(repo: Path) -> None:
    broken = step().sealed().evolve(criteria=(Criterion(run="true"),), updated_at=at(7))
    item = only(repo, M, broken)
    assert (item.kind, item.since) == ("seal", at(7))
    assert item.evidence[0].text == f"sealed: {broken.seal}\nnow:    {broken.digest()}"
    assert commands(item)[0] == "bead log m.1"


CANCELLED = bead(
    "t", issue_type="molecule", status="closed", outcome="cancelled", closed_at=at(5), close_reason="not wanted"
)


def test_what_needs_something_that_was_given_up(repo: Path) -> None:
    item = only(repo, M.evolve(dependencies=needs("t")), step(), CANCELLED)
    assert (item.kind, item.bead_id, item.since) == ("dependency", "m", at(5))
    assert [(one.what, one.text) for one in item.evidence] == [("t The work of t: cancelled", "not wanted")]
    assert commands(item) == ["bead dep remove m t", "bead reopen t", GIVE_UP]


def test_what_a_whole_waits_for_in_vain_is_one_thing_and_not_one_for_each_part(repo: Path) -> None:
    whole = bead("e", issue_type="epic", dependencies=needs("t"))
    parts = [bead(f"e.{n}", dependencies=part_of("e")) for n in range(1, 4)]
    item = only(repo, whole, *parts, CANCELLED)
    assert (item.bead_id, commands(item)[0]) == ("e", "bead dep remove e t")


def test_what_is_for_a_failure_that_did_not_come(repo: Path) -> None:
    other = (Dependency(on="t", type="conditional-blocks"),)
    item = only(repo, M.evolve(dependencies=other), step(), CANCELLED.evolve(outcome="landed"))
    assert item.kind == "dependency"
    assert commands(item) == [GIVE_UP, "bead dep remove m t --type conditional-blocks"]


def test_beads_that_wait_for_each_other_are_one_item(repo: Path) -> None:
    ring = [bead(a, dependencies=needs(b), priority=p) for a, b, p in (("a", "b", 3), ("b", "c", 1), ("c", "a", 2))]
    waits = bead("d", dependencies=needs("a"))
    item = only(repo, *ring, waits)
    assert (item.kind, item.bead_id, item.priority, item.reason) == ("cycle", "a", 1, "a, b, c wait for each other")
    assert [one.what for one in item.evidence] == ["a needs b", "b needs c", "c needs a"]
    assert commands(item) == ["bead dep remove a b", "bead dep remove b c", "bead dep remove c a"]


def test_a_ring_through_a_whole_names_whose_dependency_it_is(repo: Path) -> None:
    whole = bead("e", issue_type="epic", dependencies=needs("x"))
    part = bead("e.1", dependencies=part_of("e"))
    other = bead("x", dependencies=needs("e.1"))
    item = only(repo, whole, part, other)
    assert (item.bead_id, item.reason) == ("e.1", "e.1, x wait for each other")
    assert commands(item) == ["bead dep remove e x", "bead dep remove x e.1"]


def test_a_ring_of_which_all_is_put_off_needs_nobody_yet(repo: Path) -> None:
    ring = [bead(a, dependencies=needs(b), status="deferred") for a, b in (("a", "b"), ("b", "a"))]
    assert found_in(repo, *ring, bead("c", dependencies=needs("a"))).items == ()


def test_nobody_who_is_able(repo: Path) -> None:
    wanted = step(terms=Terms(capabilities=("rust",)))
    assert found_in(repo, M, wanted).items == ()
    item = only(repo, M, wanted, settings=SETTINGS)
    assert (item.kind, item.reason) == ("agent", "no agent is capable of rust")
    assert (str(item.ways[0]), commands(item)[1:]) == (
        "Name them in [agents.NAME] capabilities of town.toml.",
        ["town doctor", GIVE_UP],
    )


def test_what_the_mayor_asks_and_proposes(repo: Path) -> None:
    talk = bead("c", issue_type="conversation")
    asks = bead(
        "q", issue_type="message", created_by="mayor", dependencies=part_of("c"), description="Which one?\nA or B?"
    )
    plan = bead("p", issue_type="proposal", created_by="mayor", dependencies=part_of("c"), description='plan = "x"\n')
    mine = bead("w", issue_type="message", created_by="ada", dependencies=part_of("c"))
    found = found_in(repo, talk, asks, plan, mine)
    assert {item.kind: (item.bead_id, item.evidence[0].text) for item in found.items} == {
        "question": ("q", "Which one?\nA or B?"),
        "proposal": ("p", 'plan = "x"\n'),
    }
    assert {item.kind: commands(item) for item in found.items} == {
        "question": ["town answer q TEXT", "town mayor --in c"],
        "proposal": ["town approve p", "town reject p --reason WHY", "town mayor --in c"],
    }


def test_the_queue_stands_still_until_the_refinery_says_otherwise(repo: Path) -> None:
    red = said("gate: make test", "error", 20, gate="sha256:g", detail="timed out", output="…")
    store = store_of(
        repo, M, step(status="closed", outcome="done"), request(evidence=(red,)), request(2, created_at=at(1))
    )

    def found() -> tuple[Item, ...]:
        return inbox(store.snapshot(), at(1000)).items

    def tell(reason: str, minutes: int) -> None:
        evidence = stand(store.snapshot().need("m.m1"), reason, "Mend it.", "refinery", milliseconds(at(minutes)))
        store.commit("refinery", [Judge(id="m.m1", evidence=evidence)])

    assert found() == ()
    tell("main itself fails the gate", 30)
    (item,) = found()
    assert (item.kind, item.bead_id, item.since) == ("queue", "m.m1", at(30))
    assert item.reason == "nothing can land: main itself fails the gate"
    assert [(one.what, one.text) for one in item.evidence] == [("gate: make test: timed out", "…")]
    assert [str(way) for way in item.ways] == [
        "Mend it.",
        "town queue",
        "town queue retry m.m1",
        "town queue drop m.m1 --reason WHY",
    ]
    # What is said later counts, also by a clock that is behind.
    tell("", 10)
    assert found() == ()
    tell("the branch main is gone", 10)
    assert [item.reason for item in found()] == ["nothing can land: the branch main is gone"]
    store.commit("ada", [Close(id="m.m1", outcome="cancelled")])
    assert found() == ()


# --- the whole -------------------------------------------------------------------------------------------------


def test_what_waits_for_a_time_is_put_off_and_not_in_the_inbox(repo: Path) -> None:
    until = at(5000)
    attempts = tried("parked", ending="quota", until=until)
    off = M.evolve(defer_until=until), step(attempts=attempts)
    other = bead("n", issue_type="molecule", agent="claude"), step("n.1", "n")
    plain = bead("x", defer_until=until)
    settings = Settings(agents={"claude": Agent(runtime="plain", command=("claude",))})
    found = found_in(repo, *off, *other, plain, settings=settings)
    assert found.items == ()
    assert [(one.bead_id, one.until) for one in found.later] == [("m", until), ("n", until)]
    assert for_programs(found)["put_off"] == [
        {"id": one.bead_id, "title": one.title, "reason": one.reason, "until": "2026-01-05T14:24:05.678Z"}
        for one in found.later
    ]


def test_what_stops_all_comes_first_then_what_matters_most_then_what_waits_longest(repo: Path) -> None:
    stopped = stand(request(), "main itself fails the gate", "", "refinery", milliseconds(at(900)))
    gone = [bead(f"g{n}", dependencies=needs("t"), priority=p) for n, p in ((1, 2), (2, 1))]
    later = bead("g3", dependencies=needs("u"), priority=1)
    found = found_in(
        repo,
        *(M.evolve(priority=4), request(priority=4, evidence=(stopped,))),
        *(CANCELLED, CANCELLED.evolve(id="u", closed_at=at(4)), *gone, later),
    )
    assert [item.bead_id for item in found.items] == ["m.m1", "g3", "g2", "g1"]


def test_an_item_is_found_by_its_bead_its_step_and_its_request(repo: Path) -> None:
    store = store_of(repo, M, step(attempts_max=0), bead("other"))
    snapshot = store.snapshot()
    found = inbox(snapshot, at(1000))
    assert [about(found, snapshot, snapshot.need(one)) for one in ("m", "m.1", "other")] == [
        [*found.items],
        [*found.items],
        [],
    ]


def test_an_item_is_data_for_programs(repo: Path) -> None:
    item = only(repo, M.evolve(dependencies=needs("t")), step(), CANCELLED)
    said = json.loads(json.dumps(facts(item)))
    assert list(said) == ["kind", "id", "title", "priority", "since", "reason", "evidence", "ways"]
    assert said["since"] == "2026-01-02T03:09:05.678Z"
    assert said["ways"][0] == {"command": "bead dep remove m t", "does": "lets m go on without it"}


# --- whatever is stored ----------------------------------------------------------------------------------------

_few = st.sampled_from(["a", "b", "c", "a.1", "a.2", "b.m1"])
_edges = st.lists(
    st.builds(
        Dependency,
        on=_few,
        type=st.sampled_from(["blocks", "blocks", "parent-child", "conditional-blocks", "waits-for"]),
    ),
    max_size=3,
).map(tuple)
_anything = st.fixed_dictionaries(
    {"dependencies": _edges},
    optional={
        "issue_type": st.sampled_from(["task", "molecule", "step", "step", "epic", "message", "proposal"]),
        "created_by": st.sampled_from(["ada", "mayor"]),
        "status": st.sampled_from(STATUSES),
        "outcome": st.sampled_from([None, *OUTCOMES]),
        "defer_until": st.sampled_from([NOW, at(2000)]),
        "criteria": st.just((ASKED,)),
        "attempts": st.builds(lambda end, n: tried(*[end] * n), st.sampled_from(ENDS), st.integers(1, 25)),
        "attempts_max": st.integers(0, 2),
        "evidence": st.just((said(str(ASKED), "asked", 1, tree=TREE),)),
        "terms": st.just(Terms(budget=0.1)),
        "seal": st.just("sha256:wrong"),
    },
)
_stores = st.dictionaries(_few, _anything, max_size=6)

# What the graph says, and the kind of item that must come of it.
WORDS = {
    "asks for approval": {"approval"},
    "were changed after they were sealed": {"seal"},
    "failed ": {"poison"},
    "lost ": {"poison"},
    "handed off": {"poison"},
    "could not be begun": {"setup"},
    "did not land": {"dependency"},
    "is for when": {"dependency"},
    "and in the end itself": {"cycle"},
    "of its budget": {"budget"},
    "the Mayor asks": {"question"},
    "proposes a plan": {"proposal"},
}


def reader_of(beads: Sequence[Bead]) -> Reader:
    connection, known = connect(None), Recent[bytes, Bead]()
    connection.executescript(SCHEMA)
    datas = [(found, write_bead(found)) for found in beads]
    updates = [Update(found.id, None, found, raw(b"blob", data).oid, data) for found, data in datas]
    advance_by(connection, updates, [], Oid("1" * 40), known)
    return Reader(connection, known)


@given(_stores)
def test_there_is_an_item_for_each_bead_that_needs_a_person_and_for_nothing_else(
    said: dict[str, dict[str, Any]],
) -> None:
    beads = [bead(bead_id, **fields) for bead_id, fields in said.items()]
    view, now = reader_of(beads), at(1000)
    found = inbox(view, now)
    states = {b.id: graph.state(view, b, now) for b in beads if graph.is_unit(b)}
    needing = {bead_id: state.reason for bead_id, state in states.items() if state.kind == "needs_person"}
    covered = {name for item in found.items for name in (item.mark.split() if item.kind == "cycle" else [item.bead_id])}
    for bead_id, reason in needing.items():
        kinds = next(kinds for words, kinds in WORDS.items() if words in reason)
        items = [item for item in found.items if item.kind in kinds]
        assert items, reason
        # What a part waits for only because its whole does is told of the whole.
        assert bead_id in covered or kinds == {"dependency"}
    assert bool(found.items) == bool(needing)
    for item in found.items:
        assert item.reason
        assert "\n" not in item.reason
        assert item.ways
        assert all(re.match(r"(bead|town|git) \S+", way.command) for way in item.ways)
        json.dumps(facts(item))
    assert len({key(item) for item in found.items}) == len(found.items)
