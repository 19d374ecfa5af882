"""The train against a world whose truth is known: what lands, who is convicted, and what it costs."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refinery import train
from refinery.gate import Verdict
from refinery.train import HEAD_ERRS, MAIN_ERRS, MAIN_FAILS, Line, Plan, flaky

Tree = frozenset[int]
Truth = Callable[[Tree], Verdict]
Noise = Callable[[Tree, int], Verdict | None]


Runs = Mapping[int, Sequence[Verdict]]


def plan(n: int, runs: Runs, controls: Runs, running: Collection[int], slots: int, rate: float) -> Plan:
    """The plan for a line of which nothing is known without any of its requests."""
    return train.plan(Line(n, runs, controls, running), slots, rate)


class World:
    """A queue of numbered requests, the gate's slots, and a truth about every tree.

    Does what a plan says, lets one run at a time end, in any order, and checks at every step what must never be.

    Args:
        truth: what a run of the gate on a tree says.
        queue: the requests that are there from the beginning.
        chance: which run ends next, and when requests arrive.
        noise: for the how-manieth run of a tree, what it says instead of the truth.
    """

    def __init__(
        self,
        truth: Truth,
        queue: Iterable[int],
        slots: int = 1,
        rate: float = 0.1,
        chance: Random | None = None,
        noise: Noise | None = None,
    ) -> None:
        self.truth, self.slots, self.rate = truth, slots, rate
        self.noise: Noise = noise or (lambda *_: None)
        self.chance = chance or Random(0)
        self.queue = list(queue)
        self.arriving: list[int] = []
        self.landed: list[int] = []
        self.convicted: list[int] = []
        self.main: Tree = frozenset()
        self.log: dict[Tree, list[Verdict]] = defaultdict(list)
        self.said: list[tuple[Tree, Verdict]] = []
        self.running: set[Tree] = set()
        self.started: list[Tree] = []

    def tree(self, k: int) -> Tree:
        return self.main | set(self.queue[:k])

    def line(self, queue: list[int]) -> Line:
        trees = [self.main | set(queue[:k]) for k in range(len(queue) + 1)]
        return Line(
            len(queue),
            {k: self.log[tree] for k, tree in enumerate(trees) if tree in self.log},
            {k: found for k, tree in enumerate(trees) if k and (found := self.controls(tree))},
            [k for k, tree in enumerate(trees) if tree in self.running],
            lambda k: self.line([*queue[: k - 1], *queue[k:]]),
        )

    def controls(self, tree: Tree) -> list[Verdict]:
        """What was said of main, and what passed, after the first time that this did not."""
        first = next((n for n, said in enumerate(self.said) if said[0] == tree and said[1] != "pass"), len(self.said))
        return [verdict for other, verdict in self.said[first + 1 :] if verdict == "pass" or other == self.main]

    def plan(self) -> Plan:
        return train.plan(self.line(self.queue), self.slots, self.rate)

    def tests(self, decided: Plan) -> list[Tree]:
        """The trees to be tested, each once."""
        found: dict[Tree, None] = {}
        for without, k in decided.tests():
            queue = list(self.queue)
            for place in without:
                del queue[place - 1]
            assert 0 <= k <= len(queue)
            assert k or not without, "main is the control of one that is in the queue"
            found[self.main | set(queue[:k])] = None
        return list(found)

    def run(self) -> Plan:
        """Go on until nothing is left to do; the plan that says so."""
        for _ in range(10_000):
            while self.arriving and (not self.running or self.chance.random() < 0.3):
                self.queue.append(self.arriving.pop(0))
            decided = self.plan()
            self.check(decided)
            if not self.act(decided):
                return decided
        raise AssertionError("it does not come to an end")

    def act(self, decided: Plan) -> bool:
        if decided.land:
            self.main = self.tree(decided.land)
            self.landed += self.queue[: decided.land]
            del self.queue[: decided.land]
        elif decided.convict:
            self.convicted.append(self.queue.pop(0))
        else:
            self.start(decided)
            if not self.running:
                return bool(self.arriving)
            self.finish(self.chance.choice(sorted(self.running, key=sorted)))
        return True

    def start(self, decided: Plan) -> None:
        wanted = self.tests(decided)
        self.started += [tree for tree in wanted if tree not in self.running]
        self.running = set(wanted)

    def finish(self, tree: Tree) -> None:
        self.running.remove(tree)
        verdict = self.noise(tree, len(self.log[tree])) or self.truth(tree)
        self.log[tree].append(verdict)
        self.said.append((tree, verdict))

    def check(self, decided: Plan) -> None:
        tests = self.tests(decided)
        assert len(tests) == len(decided.tests()) <= self.slots
        assert not any("pass" in self.log.get(tree, ()) for tree in tests if tree != self.main)
        if decided.land:
            assert "pass" in self.log[self.tree(decided.land)], "what lands has a green verdict"
            assert self.truth(self.tree(decided.land)) == "pass", "no red tree lands"
        if decided.convict:
            assert not decided.land
            assert self.log[self.tree(1)].count("fail") >= 2, "whoever is convicted failed twice"
            assert "pass" not in self.log[self.tree(1)]
            assert "pass" in self.log[self.main], "main is green"
            assert "pass" in self.controls(self.tree(1)), "and so was something since"


def truth_of(bad: Iterable[int], pairs: Iterable[tuple[int, int]] = (), otherwise: Verdict = "pass") -> Truth:
    wrong, together = frozenset(bad), tuple(pairs)
    return lambda tree: "fail" if tree & wrong or any(a in tree and b in tree for a, b in together) else otherwise


def one_by_one(truth: Truth, queue: Iterable[int]) -> tuple[list[int], list[int]]:
    """What testing each request alone on main, in order, would land and convict."""
    landed: list[int] = []
    convicted: list[int] = []
    for request in queue:
        good = truth(frozenset([*landed, request])) == "pass"
        (landed if good else convicted).append(request)
    return landed, convicted


def noise_of(seed: int, flakes: float, breaks: float) -> Noise:
    """The first run of a tree may fail though it is good, or not come to a verdict; later runs tell the truth."""

    def noise(tree: Tree, nth: int) -> Verdict | None:
        dice = Random(f"{seed} {sorted(tree)}").random()
        if nth or dice > flakes + breaks:
            return None
        return "fail" if dice < flakes else "error"

    return noise


_requests = st.integers(0, 14)


@given(
    n=st.integers(0, 14),
    later=st.integers(0, 14),
    bad=st.sets(_requests, max_size=6),
    pairs=st.lists(st.tuples(_requests, _requests).filter(lambda pair: pair[0] != pair[1]), max_size=4),
    slots=st.integers(1, 7),
    rate=st.sampled_from([0.001, 0.01, 0.05, 0.1, 0.2, 0.5, 1.0]),
    seed=st.integers(0, 1000),
    flakes=st.sampled_from([0.0, 0.2, 0.9]),
    breaks=st.sampled_from([0.0, 0.1]),
)
def test_it_ends_as_if_each_had_been_tested_on_main_in_turn(
    n: int,
    later: int,
    bad: set[int],
    pairs: list[tuple[int, int]],
    slots: int,
    rate: float,
    seed: int,
    flakes: float,
    breaks: float,
) -> None:
    truth = truth_of(bad, pairs)
    world = World(truth, range(min(n, later)), slots, rate, Random(seed), noise_of(seed, flakes, breaks))
    world.arriving = list(range(min(n, later), n))
    last = world.run()
    assert last == Plan()
    assert (world.landed, world.convicted) == one_by_one(truth, range(n))
    assert truth(world.main) == "pass"
    assert max(Counter(world.log[tree].count("fail") for tree in world.log), default=0) <= 3
    assert all(len(runs) <= 3 for tree, runs in world.log.items() if tree != world.main and "pass" not in runs)


_verdicts = st.lists(st.sampled_from(["pass", "fail", "error"]), max_size=4)
_lines = st.builds(
    Line,
    st.integers(0, 9),
    st.dictionaries(st.integers(0, 9), _verdicts),
    st.dictionaries(st.integers(1, 9), _verdicts),
    st.sets(st.integers(0, 9)),
)


def within(lines: Sequence[Line]) -> Line:
    """The first of these lines, which is like the next one above whichever request is left out, and so on."""
    first, *others = lines
    if not others:
        return first

    def without(k: int) -> Line:
        rest = within(others)

        def joined(below: Runs, above: Runs) -> Runs:
            return {j: seen for j, seen in below.items() if j < k} | {j: seen for j, seen in above.items() if j >= k}

        running = {*(j for j in first.running if j < k), *(j for j in rest.running if j >= k)}
        runs, controls = joined(first.runs, rest.runs), joined(first.controls, rest.controls)
        return replace(rest, n=max(0, first.n - 1), runs=runs, controls=controls, running=running)

    return replace(first, without=without)


@given(lines=st.lists(_lines, min_size=1, max_size=4), slots=st.integers(1, 5), rate=st.floats(0, 1))
def test_every_state_has_a_plan(lines: list[Line], slots: int, rate: float) -> None:
    line = within(lines)
    decided = train.plan(line, slots, rate)
    turned = replace(line, running=sorted(line.running, reverse=True))
    assert decided == train.plan(turned, slots, rate)
    assert len(set(decided.test)) == len(decided.test)
    assert decided.land or len(decided.tests()) <= slots
    assert all(0 <= k <= line.n for k in decided.test)
    assert not any("pass" in line.runs.get(k, ()) for k in decided.test if k)
    assert decided.trial or 0 not in decided.test
    assert sum(map(bool, (decided.land, decided.convict, decided.halt))) <= 1
    # Nothing waits for a nudge.
    assert line.n == 0 or decided.land or decided.convict or decided.halt or decided.tests()


# What one run means


def test_the_head_is_convicted_by_a_repeated_run_while_main_is_green() -> None:
    world = World(truth_of([0]), [0, 1], slots=1, rate=0.5)
    assert world.run() == Plan()
    head, main, rest = frozenset([0]), frozenset[int](), frozenset([1])
    assert world.started == [head, head, main, rest]
    assert (world.landed, world.convicted) == ([1], [0])


def test_with_two_slots_run_and_control_are_repeated_together() -> None:
    assert plan(3, {1: ["fail"]}, {}, [], 2, 0.1) == Plan(test=(1, 0), trial=1)
    assert plan(3, {1: ["fail"]}, {}, [2, 3], 3, 0.1) == Plan(test=(1, 0, 2), trial=1)


@pytest.mark.parametrize("waiting, others, asked", [(40, 0, False), (40, 2, False), (40, 3, True), (6, 1, True)])
def test_main_is_asked_where_several_in_turn_have_failed(waiting: int, others: int, asked: bool) -> None:
    """What passes of the others brings the queue forward, and says as much; but a broken gate passes nothing."""

    def line(n: int, failed: int) -> Line:
        runs: Runs = {0: ["pass"], **({1: ["fail"]} if failed else {})}
        return Line(n, runs, without=lambda k: line(n - 1, failed - (k == 1)))

    decided = train.plan(replace(line(waiting, others + 1), runs={0: ["pass"], 1: ["fail"] * 2}), 3, 0.2)
    assert (0 in decided.test) == asked
    assert not decided.convict


def test_a_flaky_failure_convicts_nobody_and_lands() -> None:
    decided = plan(1, {1: ["fail", "pass"]}, {}, [], 1, 0.1)
    assert decided == Plan(land=1)
    assert flaky(["fail", "pass"])
    assert not flaky(["fail", "fail", "error"])
    assert not flaky(["pass", "error"])


def test_green_prefixes_land_before_anybody_is_convicted() -> None:
    assert plan(4, {1: ["pass"], 2: ["pass"], 3: ["fail", "fail"]}, {3: ["pass"]}, [4], 2, 0.1) == Plan(
        land=2, test=(4,)
    )


def test_a_break_with_its_mend_behind_it_lands_as_one() -> None:
    truth: Truth = lambda tree: "fail" if 0 in tree and 1 not in tree else "pass"  # noqa: E731
    world = World(truth, [0, 1], slots=1)
    world.run()
    assert (world.landed, world.convicted) == ([0, 1], [])
    assert plan(2, {1: ["fail"], 2: ["pass"]}, {}, [], 2, 0.1) == Plan(land=2)


def test_of_two_that_do_not_go_together_the_later_is_convicted() -> None:
    world = World(truth_of([], [(3, 1)]), [0, 1, 2, 3, 4])
    world.run()
    assert world.convicted == [3]


# Main and the environment at fault


def test_a_red_main_convicts_nobody() -> None:
    world = World(truth_of([], [], otherwise="fail"), range(4), slots=1)
    last = world.run()
    assert (last.halt, last.test, world.convicted, world.landed) == (MAIN_FAILS, (), [], [])


@pytest.mark.parametrize("slots", [1, 2, 5])
@pytest.mark.parametrize("verdict", ["fail", "error"])
def test_a_request_that_repairs_main_gets_through(slots: int, verdict: Verdict) -> None:
    broken: Truth = lambda tree: "pass" if 9 in tree else verdict  # noqa: E731
    world = World(broken, [0, 1, 2], slots)
    assert world.run().halt
    world.queue.insert(0, 9)
    assert world.run() == Plan()
    assert world.landed == [9, 0, 1, 2]


def test_a_repair_behind_good_requests_takes_them_along() -> None:
    world = World(lambda tree: "pass" if 9 in tree else "fail", [0, 1, 2])
    assert world.run().halt == MAIN_FAILS
    world.queue.append(9)
    assert world.run() == Plan()
    assert world.landed == [0, 1, 2, 9]


def test_requests_that_arrive_do_not_start_the_repair_over() -> None:
    main: list[Verdict] = ["fail", "fail"]
    assert plan(5, {0: main}, {}, [], 1, 0.1) == Plan(test=(5,), halt=MAIN_FAILS)
    assert plan(8, {0: main}, {}, [5], 1, 0.1) == Plan(test=(5,), halt=MAIN_FAILS)


def test_main_that_fails_once_is_asked_again() -> None:
    fails: list[Verdict] = ["fail", "fail"]
    assert plan(1, {0: ["pass", "fail"], 1: fails}, {1: ["fail"]}, [], 2, 0.1) == Plan(test=(0,), trial=1)
    assert plan(1, {0: ["pass", "fail"], 1: fails}, {1: ["fail", "pass"]}, [], 2, 0.1) == Plan(convict=True, trial=1)
    assert plan(1, {0: ["pass", "fail"], 1: fails}, {1: ["fail", "fail"]}, [], 2, 0.1) == Plan(halt=MAIN_FAILS)


def test_a_green_main_of_yesterday_is_no_control() -> None:
    assert plan(1, {0: ["pass"], 1: ["fail", "fail"]}, {}, [], 2, 0.1) == Plan(test=(0,), trial=1)


@pytest.mark.parametrize("slots", [1, 4])
def test_an_outage_halts_at_once_and_heals(slots: int) -> None:
    world = World(truth_of([], otherwise="error"), range(20), slots)
    last = world.run()
    assert last.halt == MAIN_ERRS
    assert len(world.started) <= 4 * slots + 2
    assert not world.convicted
    world.truth = truth_of([])
    world.log.clear()
    world.said.clear()
    assert world.run() == Plan()
    assert world.landed == list(range(20))


@pytest.mark.parametrize("slots", [1, 3])
def test_a_request_that_cannot_be_judged_is_found_and_not_convicted(slots: int) -> None:
    world = World(lambda tree: "error" if 5 in tree else "fail" if 7 in tree else "pass", range(9), slots)
    last = world.run()
    assert (last.halt, last.trial) == (HEAD_ERRS, 1)
    assert (world.landed, world.convicted) == ([0, 1, 2, 3, 4], [])
    assert world.queue.pop(0) == 5, "somebody sets it aside"
    assert world.run() == Plan()
    assert (world.landed, world.convicted) == ([0, 1, 2, 3, 4, 6, 8], [7])


# Several slots


def test_a_short_queue_is_tested_at_every_prefix() -> None:
    for slots in range(1, 9):
        for n in range(1, slots + 1):
            test = plan(n, {}, {}, [], slots, 0.05).test
            assert sorted(test) == list(range(1, n + 1)) or slots == 1
            assert test[0] == n


def test_a_long_queue_is_tested_at_spaced_prefixes() -> None:
    assert sorted(plan(100, {}, {}, [], 4, 0.05).test) == [5, 10, 15, 20]
    assert max(plan(11, {}, {}, [], 4, 0.05).test) == 11


def test_a_search_cuts_into_one_more_part_than_there_are_slots() -> None:
    assert plan(100, {20: ["fail"]}, {}, [], 4, 0.001).test == (4, 8, 12, 16)
    assert plan(100, {16: ["fail"]}, {}, [], 1, 0.001).test == (8,)


def test_what_runs_goes_on_when_the_queue_grows() -> None:
    assert plan(5, {}, {}, [3], 1, 0.05).test == (3,)
    assert plan(5, {}, {}, [3], 3, 0.05).test[:2] == (3, 5)


def test_what_is_refuted_makes_room() -> None:
    assert plan(9, {6: ["fail"]}, {}, [8, 9], 2, 0.001).test == (2, 4)
    assert plan(9, {2: ["fail"]}, {}, [8, 9], 3, 0.001).test == (1, 2, 8), "but it may use a slot that nobody needs"


def test_false_convictions_are_as_rare_as_two_flakes_in_a_row() -> None:
    """One run in twenty fails for nothing: of a thousand good requests about two and a half are sent back."""
    chance = Random(3)
    noise: Noise = lambda *_: "fail" if chance.random() < 0.05 else None  # noqa: E731
    convicted = 0
    for _ in range(50):
        world = World(truth_of([]), range(20), slots=1, rate=0.05, chance=chance, noise=noise)
        world.run()
        convicted += len(world.convicted)
    assert convicted <= 8
