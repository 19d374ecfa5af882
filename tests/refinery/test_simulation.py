"""The merge queue in virtual time: what benchmarks/refinery.py claims, with fewer changes, and what it would notice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.common import quantile
from benchmarks.refinery import bisection, capacity, entropy, halving
from benchmarks.simulator import Batches, Oracle, Strategy, Trace, Train, Window, World, backlog, poisson, simulate


def one_by_one(trace: Trace) -> list[int]:
    """What lands when each change is tested alone on main, in turn."""
    landed: list[int] = []
    for change in range(len(trace.arrivals)):
        if change not in trace.bad and not trace.pairs.get(change, frozenset()) & {*landed}:
            landed.append(change)
    return landed


@given(
    load=st.sampled_from([0.3, 1.0, 3.0, 50.0]),
    rate=st.sampled_from([0.0, 0.05, 0.3, 1.0]),
    pairs=st.sampled_from([0.0, 0.2]),
    spread=st.sampled_from([0.0, 0.5]),
    seed=st.integers(0, 999),
    slots=st.integers(1, 9),
)
def test_all_come_to_the_same_end(load: float, rate: float, pairs: float, spread: float, seed: int, slots: int) -> None:
    trace = poisson(load, rate, 30, seed, pairs, spread=spread)
    others: list[Strategy] = [Batches(1), Batches(8), Batches(4, careful=True), Window(slots), Window(slots, True)]
    alike: list[Strategy] = [Batches(4, careful=True, control=True), Window(slots, careful=True, control=True)]
    for strategy in [Train(slots), Train(slots, rate), Train(slots, granted=True), *others, *alike]:
        assert simulate(trace, strategy).landed == one_by_one(trace)


@given(seed=st.integers(0, 999), slots=st.integers(1, 5))
def test_flaky_tests_break_no_promise(seed: int, slots: int) -> None:
    trace = poisson(3.0, 0.1, 40, seed, pairs=0.1, spread=0.3, flakes=0.1)
    assert set(simulate(trace, Train(slots)).rejected) >= trace.bad


@pytest.mark.parametrize("rate", [0.02, 0.05, 0.20])
def test_runs_per_change_are_those_of_theory(rate: float) -> None:
    trace = backlog(rate, 100, seed=3)
    amount, size = len(trace.arrivals), {0.02: 32, 0.05: 8, 0.20: 2}[rate]
    assert simulate(trace, Train(rate=rate, granted=True)).started / amount == pytest.approx(bisection(rate), rel=0.01)
    assert simulate(trace, Train(granted=True)).started / amount == pytest.approx(bisection(rate), rel=0.03)
    assert simulate(trace, Batches(size)).started / amount == pytest.approx(halving(rate, size) / size, rel=0.03)
    repeated = simulate(trace, Train(rate=rate))
    assert repeated.started / amount == pytest.approx(bisection(rate) + rate, rel=0.06), "a conviction costs one run"
    assert entropy(rate) < bisection(rate) < 1.03 * entropy(rate)


@pytest.mark.parametrize("rate, slots, published", [(0.05, 4, 7.8), (0.10, 2, 3.2), (0.20, 8, 4.16)])
def test_the_capacity_is_that_of_a_train(rate: float, slots: int, published: float) -> None:
    assert capacity(rate, slots) == pytest.approx(published, rel=0.01)
    trace = backlog(rate, 60, seed=3)
    full = len(trace.arrivals) / simulate(trace, Train(slots, rate, granted=True)).now
    assert full > 0.95 * published
    assert len(trace.arrivals) / simulate(trace, Train(slots)).now > 0.8 * published


@pytest.mark.parametrize("load, rate, slots", [(0.9, 0.05, 1), (1.5, 0.05, 4), (3.0, 0.05, 4), (3.0, 0.2, 8)])
def test_nobody_waits_longer_than_with_others_and_none_beats_the_oracle(load: float, rate: float, slots: int) -> None:
    trace = poisson(load, rate, 400, seed=1)

    def waits(strategy: Strategy) -> list[float]:
        took = list(simulate(trace, strategy).took.values())
        return [quantile(took, 0.5), quantile(took, 0.95)]

    others = [waits(s) for s in (Batches(1), Batches(8), Window(slots))]
    least = [min(values) for values in zip(*others, strict=True)]
    ours, oracle = waits(Train(slots, granted=True)), waits(Oracle(slots))
    assert all(mine <= best for mine, best in zip(ours, least, strict=True))
    assert all(known <= best for known, best in zip(oracle, [*map(min, ours, least)], strict=True))


@pytest.mark.parametrize("slots", [4, 8])
def test_who_convicts_by_the_same_rule_waits_no_longer_with_us_though_many_are_bad(slots: int) -> None:
    traces = [poisson(3.0, 0.2, 1200, seed) for seed in range(3)]

    def waits(make: Callable[[], Strategy]) -> list[float]:
        took = [waited for trace in traces for waited in simulate(trace, make()).took.values()]
        return [quantile(took, 0.5), quantile(took, 0.95)]

    ours, zuul = waits(lambda: Train(slots)), waits(lambda: Window(slots, careful=True, control=True))
    assert all(mine <= other for mine, other in zip(ours, zuul, strict=True))


@pytest.mark.parametrize("strategy", [Batches(careful=True, control=True), Window(1, careful=True, control=True)])
def test_a_lone_bad_change_costs_others_a_repetition_and_a_control_too(strategy: Strategy) -> None:
    world = simulate(Trace([0.0], frozenset({0})), strategy)
    assert (world.rejected, world.started, world.repeated) == ([0], 3, 2)


def test_innocents_are_rarely_sent_back() -> None:
    trace = backlog(0.05, 200, seed=2, flakes=0.05)
    rejected = simulate(trace, Train()).rejected
    assert sum(change not in trace.bad for change in rejected) <= 0.045 * len(rejected)


class Careless:
    """Breaks one promise."""

    def __init__(self, how: str) -> None:
        self.how = how

    def act(self, world: World) -> None:
        """Test the first two; then do what must not be done."""
        if self.how == "idle" or len(world.queue) < 2:
            return
        pair = world.queue[:2]
        if world.verdict(world.tree(world.main, pair)) is None:
            if not world.running:
                world.test(world.tree(world.main, pair), pair)
        elif self.how == "skip":
            world.land(pair[1:])
        elif self.how == "twice":
            world.reject(pair[0])
            world.reject(pair[0])
        else:
            world.land(pair)


@pytest.mark.parametrize(
    "how, bad, says",
    [
        ("red", {1}, "main would be red"),
        ("skip", set(), "main would be red, or untested"),
        ("twice", set(), "ends twice"),
        ("idle", set(), "nothing is done"),
    ],
)
def test_the_simulator_notices(how: str, bad: set[int], says: str) -> None:
    with pytest.raises(RuntimeError, match=says):
        simulate(Trace([0.0, 0.0], frozenset(bad)), Careless(how))


def test_the_same_seed_gives_the_same_trace() -> None:
    assert poisson(1.0, 0.2, 50, 7, 0.2) == poisson(1.0, 0.2, 50, 7, 0.2)
    assert poisson(1.0, 0.2, 50, 7) != replace(poisson(1.0, 0.2, 50, 8), seed=7)
    assert len(backlog(0.1, 20, 1).bad) == 20
