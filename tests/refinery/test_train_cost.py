"""What the train costs: tests per change in one slot, changes per round in several."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator
from random import Random

import pytest

from refinery import train
from refinery.gate import Verdict
from refinery.train import BATCH_MAX, Plan, batch_size, failure_rate, horizon

Runs = dict[int, list[Verdict]]


def plan(n: int, runs: Runs, controls: Runs, slots: int, rate: float) -> Plan:
    """The plan for a line of which nothing is known without any of its requests."""
    return train.plan(train.Line(n, runs, controls), slots, rate)


@pytest.mark.parametrize(
    "rate, slots, least", [(0.05, 2, 5.0), (0.05, 4, 7.3), (0.1, 4, 4.3), (0.01, 4, 26.0), (0.2, 8, 3.9)]
)
def test_more_slots_resolve_more_per_round(rate: float, slots: int, least: float) -> None:
    """Against the capacity of a train in rounds, less five per cent for the rounds that a conviction takes here."""
    assert rounds_capacity(rate, slots) > least


def rounds_capacity(rate: float, slots: int) -> float:
    """Requests resolved per round, in rounds of one run in each slot, with convictions taken for granted."""
    chance = Random(7)
    bad = [chance.random() < rate for _ in range(6000)]
    done = rounds = 0
    log: dict[tuple[int, int], Verdict] = {}
    removed = 0
    while done < 5000:
        n = min(300, len(bad) - done)
        runs: dict[int, list[Verdict]] = {
            k: [log[done + k, removed]] for k in range(1, n + 1) if (done + k, removed) in log
        }
        decided = plan(n, runs, {}, slots, rate)
        if decided.land:
            done += decided.land
        elif decided.trial:
            done, removed = done + 1, removed + 1
        else:
            rounds += 1
            for k in decided.test:
                log[done + k, removed] = "fail" if any(bad[done : done + k]) else "pass"
    return done / rounds


def entropy(rate: float) -> float:
    return -rate * math.log2(rate) - (1 - rate) * math.log2(1 - rate)


def cost_per_change(rate: float, search: float) -> float:
    """Of batches of the best size, when a failing one takes ``search`` more tests."""
    some = 1 - (1 - rate) ** batch_size(rate)
    return (1 + some * search) / (some / rate)


def best_search(rate: float) -> float:
    """The fewest tests, on average, that tell which request of a failing batch is the first bad one (Huffman)."""
    weights = [(1 - rate) ** k * rate for k in range(batch_size(rate))]
    heap, total = list(weights), 0.0
    heapq.heapify(heap)
    while len(heap) > 1:
        both = heapq.heappop(heap) + heapq.heappop(heap)
        total += both
        heapq.heappush(heap, both)
    return total / sum(weights)


class Line:
    """An endless queue in one slot, with the tests that search and those that repeat counted apart."""

    def __init__(self, rate: float, bad: Iterator[bool]) -> None:
        self.rate, self.bad = rate, bad
        self.searched = self.repeated = self.landed = self.convicted = 0
        self.queue: list[bool] = []
        self.runs: dict[int, list[Verdict]] = {}
        self.control: list[Verdict] = []

    def step(self) -> bool:
        """Act on one plan; whether a batch has ended."""
        self.queue += [next(self.bad) for _ in range(BATCH_MAX - len(self.queue))]
        runs = {0: self.control, **self.runs}
        decided = plan(len(self.queue), runs, {1: self.control}, 1, self.rate)
        if decided.land:
            self.landed += decided.land
            self.queue = self.queue[decided.land :]
            self.runs = {k - decided.land: seen for k, seen in self.runs.items() if k > decided.land}
            return not self.runs
        if decided.convict:
            self.convicted += 1
            self.queue, self.runs, self.control = self.queue[1:], {}, []
            return True
        (k,) = decided.test
        self.searched += k not in self.runs and k > 0
        self.repeated += k in self.runs or k == 0
        if k:
            self.runs.setdefault(k, []).append("fail" if any(self.queue[:k]) else "pass")
        else:
            self.control.append("pass")
        return False


@pytest.mark.parametrize("rate, published", [(0.01, 0.081), (0.02, 0.143), (0.05, 0.289), (0.10, 0.476), (0.20, 0.739)])
def test_the_tests_per_change_are_those_of_prefix_bisection(rate: float, published: float) -> None:
    """Exactly, over every place where the first failure of a batch can be."""
    searched = repeated = resolved = 0.0
    for first in range(batch_size(rate) + 1):
        weight = (1 - rate) ** first * (rate if first < batch_size(rate) else 1)
        line = Line(rate, iter([False] * first + [True] + [False] * 1000))
        while not line.step():
            pass
        searched += weight * line.searched
        repeated += weight * line.repeated
        resolved += weight * (line.landed + line.convicted)
    exact = cost_per_change(rate, best_search(rate))
    assert searched / resolved == pytest.approx(exact, rel=0.005)
    assert searched / resolved <= published * 1.005
    assert searched / resolved <= entropy(rate) * 1.01
    assert repeated / resolved == pytest.approx(2 * rate), "a repetition and a control for each conviction"


@pytest.mark.parametrize("rate", [0.01, 0.02, 0.05, 0.10, 0.20])
def test_a_long_simulation_agrees(rate: float) -> None:
    chance = Random(11)
    line = Line(rate, iter(lambda: chance.random() < rate, None))
    for _ in range(4000):
        while not line.step():
            pass
    changes = line.landed + line.convicted
    assert line.convicted / changes == pytest.approx(rate, rel=0.06)
    assert line.searched / changes == pytest.approx(cost_per_change(rate, best_search(rate)), rel=0.03)


def test_the_batch_is_about_as_long_as_it_takes_to_fail_half_the_time() -> None:
    assert [batch_size(rate) for rate in (0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 1.0)] == [69, 34, 14, 7, 3, 1, 1]
    for rate in (0.01, 0.03, 0.07, 0.15, 0.3):
        assert batch_size(rate) == pytest.approx(math.log(2) / rate, abs=1)
    assert batch_size(0.0) == BATCH_MAX


def test_the_horizon_has_room_for_every_slot() -> None:
    for slots in range(1, 200):
        for rate in (0.0, 0.01, 0.1, 0.5, 1.0):
            assert min(slots, 2) <= horizon(slots, rate) + (slots == 1) <= max(BATCH_MAX, slots) + 1
    assert [horizon(4, rate) // 4 for rate in (0.01, 0.05, 0.1, 0.2)] == [23, 5, 5, 1]
    assert [horizon(3, rate, 4) for rate in (0.05, 0.2)] == [15, 3], "three now, and four in the search"
    assert [horizon(4, rate) for rate in (0.15, 0.17)] == [4, 4]
    assert [horizon(3, rate, 4) for rate in (0.15, 0.17)] == [3, 3], "a repetition makes no train of what is none"


def test_the_failure_rate_starts_with_a_guess_and_forgets() -> None:
    assert failure_rate([]) == 0.1
    assert failure_rate([False] * 90) == pytest.approx(0.01, rel=0.1)
    assert failure_rate([True, *[False] * 19]) == pytest.approx(2 / 30, rel=0.02)
    assert failure_rate([True] * 9000) == pytest.approx(501 / 510)
    assert failure_rate([True] * 9000 + [False] * 1500) == pytest.approx(0.05, rel=0.1), "most of it is forgotten"
