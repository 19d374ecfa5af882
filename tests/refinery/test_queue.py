"""Order, verdicts and strategy together, against what each request is known to be; only Git and the gate are played."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from beads import graph, lineup
from beads.model import Bead, Evidence, MergeRequest
from refinery import queue
from refinery.gate import Verdict
from refinery.merge import Candidate, Request
from refinery.train import Line, failure_rate, plan
from tests.beads.strategies import NOW, Beads, bead, needs, part_of

HEAD = "a" * 40


@dataclass(frozen=True)
class Known:
    """What is true of a request: whether it is bad, with whom it does not go together, and what decides its place."""

    bad: bool
    rival: str
    priority: int
    hour: int
    needs: str


class Merging(RuleBasedStateMachine):
    """Requests come, runs end in any order and sometimes wrongly, the Refinery dies, and somebody pushes to main."""

    @initialize(slots=st.integers(1, 4))
    def begin(self, slots: int) -> None:
        self.slots = slots
        self.hour = self.pushed = self.steps = 0
        self.requests: dict[str, Known] = {}
        self.waiting: list[str] = []
        self.landed: list[str] = []
        self.convicted: list[str] = []
        self.main: frozenset[str] = frozenset()
        self.said: list[tuple[str, Verdict]] = [(self.tree(self.main), "pass")]
        self.running: dict[str, frozenset[str]] = {}
        self.begun: tuple[str, ...] = ()
        self.was_held: set[str] = set()
        self.bumped: dict[str, int] = {}

    @rule(
        bad=st.integers(0, 3).map(lambda dice: dice == 0),
        rival=st.integers(0, 9),
        priority=st.integers(0, 4),
        hours=st.sampled_from([0, 1, 5, 30]),
        need=st.integers(0, 9),
    )
    def submit(self, bad: bool, rival: int, priority: int, hours: int, need: int) -> None:
        self.hour += hours
        name, there = f"r{len(self.requests)}", list(self.requests)
        chosen = dict(enumerate(there))
        self.requests[name] = Known(bad, chosen.get(rival, ""), priority, self.hour, chosen.get(need, ""))
        self.waiting.append(name)
        self.settle()

    @precondition(lambda self: self.running)
    @rule(which=st.integers(0, 3), wrong=st.booleans())
    def finish(self, which: int, wrong: bool) -> None:
        self.end(sorted(self.running)[which % len(self.running)], wrong)

    @precondition(lambda self: self.waiting)
    @rule(which=st.integers(0, 9))
    def bump(self, which: int) -> None:
        self.bumped.setdefault(self.waiting[which % len(self.waiting)], len(self.bumped))
        self.settle()

    @rule()
    def die(self) -> None:
        self.running, self.begun = {}, ()
        self.settle()

    @rule()
    def push(self) -> None:
        self.pushed += 1
        self.main |= {f"push {self.pushed}"}
        self.settle()

    def teardown(self) -> None:
        if not hasattr(self, "requests"):
            return
        for _ in range(1000):
            if not self.running:
                break
            self.end(min(self.running), wrong=False)
        assert not self.running, "it does not come to an end"
        assert sorted(self.waiting + self.landed + self.convicted) == sorted(self.requests)
        for name in self.waiting:
            assert self.requests[name].needs in self.convicted + self.waiting, "only what it needs holds it back"
        for name in self.convicted:
            known = self.requests[name]
            pairs = {known.rival, *(other for other, k in self.requests.items() if k.rival == name)}
            assert known.bad or pairs & {*self.landed}, "nobody is convicted for somebody else"

    # The Refinery

    def tree(self, members: frozenset[str]) -> str:
        return " ".join(sorted(members))

    def good(self, members: frozenset[str]) -> bool:
        known = [self.requests[name] for name in members if name in self.requests]
        return not any(request.bad or (request.rival and request.rival in members) for request in known)

    def view(self) -> Beads:
        return Beads(found for name in self.requests for found in self.beads(name))

    def beads(self, name: str) -> tuple[Bead, Bead]:
        known = self.requests[name]
        end = {"status": "closed", "outcome": "landed"} if name in self.landed else {}
        after = needs(f"m{known.needs}") if known.needs else ()
        merge = MergeRequest(molecule=f"m{name}", branch="b", head=HEAD, base=HEAD)
        over = {"status": "closed", "outcome": "rejected"} if name in self.convicted else end
        return (
            bead(f"m{name}", issue_type="molecule", dependencies=after, **end),
            bead(
                f"m{name}.m1",
                issue_type="merge-request",
                dependencies=part_of(f"m{name}"),
                merge=merge,
                priority=known.priority,
                created_at=NOW + timedelta(hours=known.hour),
                evidence=self.said_of(name),
                **over,
            ),
        )

    def said_of(self, name: str) -> tuple[Evidence, ...]:
        if name not in self.bumped:
            return ()
        at = NOW + timedelta(seconds=self.bumped[name])
        return (Evidence(id=f"bump {name}", subject=lineup.BUMP, verdict="answered", by="ada", at=at),)

    def stack(self, requests: Sequence[Request]) -> list[Candidate]:
        made: list[Candidate] = []
        members: tuple[Request, ...] = ()
        for request in requests:
            if {*request.needs} <= {member.id for member in members}:
                members = (*members, request)
                tree = self.main | {name_of(member) for member in members}
                made.append(Candidate(HEAD, members, HEAD, self.tree(tree)))
        return made

    def line(self, requests: Sequence[Request]) -> Line:
        made = self.stack(requests)

        def without(k: int) -> Line:
            return self.line([request for request in requests if request != made[k - 1].members[-1]])

        return queue.line(self.said, self.tree(self.main), made, self.running.keys(), without)

    def settle(self) -> None:
        """Do what is to be done until there is nothing but to wait."""
        while True:
            requests = queue.requests(self.view(), self.begun)
            made = self.stack(requests)
            decided = plan(self.line(requests), self.slots, failure_rate(()))
            assert not decided.halt
            if decided.land:
                self.land([name_of(member) for member in made[decided.land - 1].members])
            elif decided.convict:
                self.convict(name_of(made[0].members[0]))
            else:
                self.start(requests, decided.tests())
                return

    def land(self, names: Sequence[str]) -> None:
        self.landing = list(names)
        # The place of what once had to wait for another is that of then, as long as it is being tested.
        held = self.was_held | self.held()
        self.main |= {*names}
        assert self.good(self.main), "main is red"
        assert (self.tree(self.main), "pass") in self.said, "main was not tested"
        for name in names:
            known = self.requests[name]
            assert not known.needs or known.needs in self.landed, "what it needs has not landed"
            self.landed.append(name)
            self.waiting.remove(name)
        for old in (name for name in self.waiting if name not in held):
            for new in names:
                assert self.hurried(new, old) or not self.overtakes(self.requests[new], self.requests[old])

    def held(self) -> set[str]:
        """Who waits for what has not landed and is not in the queue."""
        view = self.view()
        return {name for name in self.waiting if graph.awaited(view, self.beads(name)[1])}

    def hurried(self, new: str, old: str) -> bool:
        """Whether a person has said that one is to go first, or another one that needs it, and not the same before."""
        found = [self.first(name) for name in (new, old)]
        return found[0] < found[1]

    def first(self, name: str) -> int:
        behind = [other for other in self.requests if self.requests[other].needs == name and other in self.left()]
        return min([self.bumped.get(name, 99), *map(self.first, behind)])

    def left(self) -> list[str]:
        """Who waits, or has only just landed."""
        return [name for name in self.requests if name in self.waiting or name in self.landing]

    def overtakes(self, new: Known, old: Known) -> bool:
        return new.hour - old.hour > 24 * max(0, old.priority - new.priority)

    def convict(self, name: str) -> None:
        assert self.good(self.main)
        assert not self.good(self.main | {name}), f"{name} is innocent"
        assert self.said.count((self.tree(self.main | {name}), "fail")) >= 2
        self.convicted.append(name)
        self.waiting.remove(name)

    def start(self, requests: Sequence[Request], tests: Sequence[tuple[tuple[int, ...], int]]) -> None:
        wanted: dict[str, frozenset[str]] = {}
        for without, k in tests:
            left = list(requests)
            for place in without:
                left.remove(self.stack(left)[place - 1].members[-1])
            members = self.stack(left)[k - 1].members if k else ()
            tree = self.main | {name_of(member) for member in members}
            wanted[self.tree(tree)] = tree
        assert len(wanted) <= self.slots
        self.running = wanted
        tested = [[request for request in requests if name_of(request) in tree] for tree in wanted.values()]
        known = max(self.line(requests).runs, default=0)
        self.begun = queue.begun(requests, [*tested, requests[:known]])
        held = self.held()
        self.was_held |= held
        blocked = held >= {*self.waiting}
        assert wanted or blocked, "nothing waits for a nudge"

    def end(self, tree: str, wrong: bool) -> None:
        members = self.running.pop(tree)
        flake = wrong and tree not in [other for other, _ in self.said]
        self.said.append((tree, "pass" if self.good(members) and not flake else "fail"))
        self.settle()


def name_of(request: Request) -> str:
    return request.id.removeprefix("m").removesuffix(".m1")


TestMerging = Merging.TestCase
TestMerging.settings = settings(max_examples=30, stateful_step_count=40)


def test_only_convictions_count_as_failures() -> None:
    merge = MergeRequest(molecule="m", branch="b", head=HEAD, base=HEAD)

    def ended(bead_id: str, outcome: str, *failed: str) -> Bead:
        runs = tuple(
            Evidence(id=f"{bead_id}-{n}", subject="gate", verdict="fail", tree=tree, at=NOW)
            for n, tree in enumerate(failed)
        )
        fields = {"status": "closed", "outcome": outcome, "merge": merge, "evidence": runs, "closed_at": NOW}
        return bead(bead_id, issue_type="merge-request", **fields)

    convicted, conflicting = ended("a", "rejected", "t1", "t2", "t2"), ended("b", "rejected", "t3", "t4")
    assert queue.outcomes([convicted, conflicting, ended("c", "landed"), bead("d")]) == [True, False]


def test_a_control_is_what_was_said_after_the_failure() -> None:
    candidates = [Candidate(HEAD, (), HEAD, tree) for tree in ("one", "two")]

    def controls(*said: tuple[str, Verdict]) -> dict[int, Sequence[Verdict]]:
        return dict(queue.line(said, "main", candidates, (), lambda _: Line(0)).controls)

    assert controls(("main", "pass"), ("other", "pass"), ("one", "fail")) == {}
    assert controls(("one", "fail"), ("main", "pass")) == {1: ["pass"]}
    assert controls(("one", "fail"), ("other", "fail"), ("other", "pass"), ("two", "error")) == {1: ["pass"]}
    assert controls(("two", "error"), ("main", "fail"), ("two", "error")) == {2: ["fail"]}


def queued(bead_id: str, hour: int, *marks: Evidence, need: str = "", priority: int = 2) -> tuple[Bead, Bead]:
    """A molecule and its request, which came at that hour."""
    merge = MergeRequest(molecule=bead_id, branch="b", head=HEAD, base=HEAD)
    at = NOW + timedelta(hours=hour)
    request = bead(
        f"{bead_id}.m1",
        issue_type="merge-request",
        dependencies=part_of(bead_id),
        merge=merge,
        created_at=at,
        priority=priority,
        evidence=marks,
    )
    return bead(bead_id, issue_type="molecule", dependencies=needs(need) if need else ()), request


def mark(subject: str, minute: int, verdict: Literal["pass", "error", "answered"] = "answered") -> Evidence:
    at = NOW + timedelta(minutes=minute)
    return Evidence(id=f"{subject} {minute}", subject=subject, verdict=verdict, detail="why", by="ada", at=at)


def order(*pairs: tuple[Bead, Bead]) -> list[str]:
    return [request.id for request in graph.queue(Beads(b for pair in pairs for b in pair))]


def test_who_was_put_to_the_front_first_stays_there() -> None:
    a, b, c = queued("a", 0), queued("b", 1, mark(lineup.BUMP, 9)), queued("c", 2, mark(lineup.BUMP, 5))
    urgent = queued("u", 3, priority=0)
    assert order(a, b, c, urgent) == ["c.m1", "b.m1", "u.m1", "a.m1"]


def test_what_it_needs_comes_along_to_the_front() -> None:
    a, b = queued("a", 0), queued("b", 1)
    c, d = queued("c", 2, need="b"), queued("d", 3, mark(lineup.BUMP, 5), need="c")
    assert order(a, b, c, d) == ["b.m1", "c.m1", "d.m1", "a.m1"]
    view = Beads(found for pair in (a, b, c, d) for found in pair)
    assert lineup.bumped(view) == {"b.m1", "c.m1", "d.m1"}


def test_what_was_set_aside_is_told_until_somebody_has_it_tried_again() -> None:
    def says(*marks: Evidence) -> str:
        pair = queued("a", 0, *marks)
        return graph.state(Beads(pair), pair[0], NOW).reason

    aside = mark(lineup.ASIDE, 5, "error")
    assert says(aside) == "a.m1: place 1 in the merge queue; set aside: why"
    assert "aside" not in says(aside, mark(lineup.ASIDE, 6, "pass"))
    assert "aside" not in says(aside, mark(lineup.AGAIN, 6))
    assert "aside" in says(mark(lineup.AGAIN, 4), aside)
    stands = says(mark(lineup.STANDS, 7, "error"))
    assert stands == "a.m1: place 1 in the merge queue; nothing can land: why"
    assert "nothing can land" not in says(mark(lineup.STANDS, 7, "error"), mark(lineup.AGAIN, 8))


def run_of(tree: str, verdict: Verdict, minute: int) -> Evidence:
    at = NOW + timedelta(minutes=minute)
    name = f"{tree} {minute}"
    return Evidence(id=name, subject="gate", verdict=verdict, tree=tree, at=at, gate="g", environment="e")


def test_what_was_said_before_it_is_tried_again_does_not_count_against_it() -> None:
    runs = [run_of("t", "fail", 1), run_of("main", "fail", 2), run_of("u", "error", 3), run_of("t", "pass", 4)]
    _, before = queued("a", 0, *runs)
    _, other = queued("b", 0, run_of("v", "fail", 5), run_of("v", "error", 6))
    assert before.merge is not None
    other = other.evolve(merge=before.merge.model_copy(update={"head": "b" * 40}))

    def said(*beads: Bead) -> list[tuple[str, Verdict]]:
        return list(queue.said("main", beads, "g", "e", NOW))

    assert len(said(before, other)) == 6
    _, tried = queued("a", 0, mark(lineup.AGAIN, 7))
    left: list[tuple[str, Verdict]] = [("t", "pass"), ("v", "fail")]
    assert said(before, other, tried) == left, "nor against another request with the same head"
    _, later = queued("a", 0, mark(lineup.AGAIN, 7), run_of("t", "fail", 8), run_of("main", "error", 9))
    assert said(before, other, later) == [*left, ("t", "fail"), ("main", "error")]
