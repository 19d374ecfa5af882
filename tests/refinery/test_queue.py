"""Order, verdicts and strategy together, against what each request is known to be; only Git and the gate are played."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from beads import graph
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
                **over,
            ),
        )

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
        held = [name for name in self.waiting if graph.awaited(self.view(), self.beads(name)[1])]
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
                assert not self.overtakes(self.requests[new], self.requests[old])

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
        blocked = all(graph.awaited(self.view(), self.beads(name)[1]) for name in self.waiting)
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
