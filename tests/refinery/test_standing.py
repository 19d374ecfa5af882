"""Where requests stand, when they land, and what the queue has done: pure, and against the simulator."""

from __future__ import annotations

import math
import os
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest

from beads import lineup
from beads.liveness import Presence
from beads.model import Bead, Evidence, MergeRequest
from benchmarks.refinery import entropy
from benchmarks.simulator import Trace, Train, simulate
from refinery.desk import OPENED
from refinery.eta import PLACES_MAX, RUNS_MIN, landings
from refinery.gate import Verdict
from refinery.metrics import metrics, per_landing, quantile
from refinery.standing import Row, estimated, measured, rows
from refinery.underway import FILE, NOTHING, Run, Underway, going_on, tell
from tests.beads.strategies import NOW, Beads, bead, needs, part_of

HEAD = "a" * 40


def request(name: str, *marks: Evidence, minute: int = 0, landing: str = "", **fields: Any) -> Bead:
    merge = MergeRequest(molecule=name, branch="b", head=HEAD, base=HEAD, landing=landing)
    at = NOW + timedelta(minutes=minute)
    return bead(
        f"{name}.m1",
        issue_type="merge-request",
        dependencies=part_of(name),
        merge=merge,
        created_at=at,
        evidence=marks,
        **fields,
    )


def queued(name: str, *marks: Evidence, minute: int = 0, landing: str = "", need: str = "") -> list[Bead]:
    molecule = bead(name, issue_type="molecule", dependencies=needs(need) if need else ())
    return [molecule, request(name, *marks, minute=minute, landing=landing)]


def ran(verdict: Verdict, tree: str = "t", minute: int = 0, seconds: float = 60.0, gate: str = "g") -> Evidence:
    at = NOW + timedelta(minutes=minute)
    name = f"{tree} {gate} {minute} {verdict}"
    return Evidence(id=name, subject="gate", verdict=verdict, tree=tree, gate=gate, seconds=seconds, at=at)


def said(subject: str, minute: int = 0) -> Evidence:
    at = NOW + timedelta(minutes=minute)
    verdict: Any = "error" if subject in (lineup.ASIDE, lineup.STANDS) else "answered"
    return Evidence(id=subject, subject=subject, verdict=verdict, detail="because", by="ada", at=at)


def standing(*beads: list[Bead], underway: Underway = NOTHING) -> dict[str, Row]:
    return {row.request.id: row for row in rows(Beads(b for pair in beads for b in pair), underway)}


def test_each_request_stands_somewhere_and_says_why() -> None:
    since = NOW + timedelta(minutes=30)
    underway = Underway(
        runs=(Run(what="c.m1 and the 1 before it", members=("a.m1", "c.m1"), since=since),),
        waiting={"d.m1": "it conflicts in x with one before it", "gone.m1": "whatever"},
    )
    open_ = bead("later", issue_type="molecule")
    found = standing(
        queued("a"),
        queued("b", said(lineup.ASIDE), minute=1),
        queued("c", minute=2),
        queued("d", minute=3),
        queued("e", minute=4, need="later"),
        queued("f", minute=5, need="a"),
        queued("g", said(lineup.BUMP), minute=6, need="c"),
        queued("h", ran("fail"), minute=7, landing=HEAD),
        queued("i", said(lineup.AGAIN), minute=8),
        queued("j", said(OPENED), minute=9),
        [open_],
        underway=underway,
    )
    assert [row.place for row in found.values()] == list(range(1, 11))
    assert {name.removesuffix(".m1"): (row.stands, row.why) for name, row in found.items()} == {
        "c": ("testing", "with a.m1"),
        "g": ("queued", "after c at place 1; put to the front by ada"),
        "a": ("testing", "with c.m1"),
        "b": ("aside", "because"),
        "d": ("waiting", "it conflicts in x with one before it"),
        "e": ("waiting", "needs later, not in the queue yet"),
        "f": ("queued", "after a at place 3"),
        "h": ("landing", f"is to land as {HEAD[:12]}"),
        "i": ("queued", "tried again for ada"),
        "j": ("waiting", "is open as because: it lands when it is merged there"),
    }
    assert (found["a.m1"].beside, found["a.m1"].since) == (("c.m1",), since)


def test_where_nothing_can_land_everything_says_so_and_no_time_is_told() -> None:
    found = standing(queued("a", said(lineup.STANDS)), queued("b", said(lineup.ASIDE), minute=1), queued("c", minute=2))
    assert [(row.stands, row.why) for row in found.values()] == [
        ("halted", "because"),
        ("aside", "because"),
        ("halted", "because"),
    ]
    known = measured([request("z", *(ran("pass", minute=n) for n in range(5)))], "g", 1)
    assert all(row.lands is None for row in estimated(list(found.values()), known, NOW))


def test_only_runs_of_this_gate_tell_how_long_it_takes() -> None:
    recent = [request("a", ran("pass", "t", 1, 10.0), ran("error", "t", 2, 99.0), ran("pass", "t", 3, 99.0, "other"))]
    known = measured([*recent, request("b", ran("fail", "u", 4, 20.0))], "g", 2)
    assert (known.seconds, known.slots) == ((10.0, 20.0), 2)


def test_what_stands_aside_is_left_out_of_the_estimate() -> None:
    found = standing(queued("a", said(lineup.ASIDE)), queued("b", minute=1), queued("c", minute=2))
    runs = [ran("pass", minute=n) for n in range(RUNS_MIN)]
    told = estimated(list(found.values()), measured([request("z", *runs)], "g", 1), NOW)
    assert [row.lands is None for row in told] == [True, False, False]
    assert told[1].lands is not None
    assert told[1].lands[0] == 60.0


def test_without_measurements_nothing_is_estimated() -> None:
    assert landings(2, [60.0] * (RUNS_MIN - 1), 0.1, 1) == [None, None]
    assert landings(0, [60.0] * RUNS_MIN, 0.1, 1) == []
    far = landings(PLACES_MAX + 1, [60.0] * RUNS_MIN, 0.01, 4)
    assert far[-1] is None
    assert far[-2] is not None


def test_a_run_that_goes_on_ends_sooner() -> None:
    assert landings(1, [60.0] * 3, 0.001, 1, elapsed=45.0) == [(15.0, 15.0)]
    assert landings(1, [60.0] * 3, 0.001, 1, elapsed=600.0) == [(0.0, 0.0)], "it may end at any moment"


@pytest.mark.parametrize(
    "amount, slots, rate, spread", [(8, 1, 0.1, 0.0), (30, 1, 0.2, 0.0), (12, 4, 0.1, 0.3), (20, 1, 0.1, 0.45)]
)
def test_four_of_five_land_within_the_estimate(amount: int, slots: int, rate: float, spread: float) -> None:
    chance = Random(99)
    seconds = [math.exp(spread * chance.gauss(0, 1)) for _ in range(50)]
    found = landings(amount, seconds, rate, slots)
    inside = []
    for seed in range(30):
        dice = Random(1000 + seed)
        bad = frozenset(place for place in range(amount) if dice.random() < rate)
        world = simulate(Trace([0.0] * amount, bad, spread=spread, seed=seed), Train(slots, rate))
        ranges = [(at, world.took[place]) for place in world.landed if (at := found[place]) is not None]
        inside += [low - 1e-9 <= took <= high + 1e-9 for (low, high), took in ranges]
    assert 0.7 <= sum(inside) / len(inside) <= 0.97


def ended(name: str, outcome: str, minute: int, *runs: Evidence) -> Bead:
    at = NOW + timedelta(minutes=minute)
    return request(name, *runs, status="closed", outcome=outcome, closed_at=at)


def test_metrics_are_those_of_what_ended_in_that_time() -> None:
    found = metrics(
        [
            ended("a", "landed", 10, ran("pass", "t1", 9)),
            ended("b", "landed", 30, ran("fail", "t2", 11), ran("pass", "t2", 12)),
            ended("c", "landed", 60),
            ended("d", "rejected", 70, ran("fail", "t4", 61), ran("fail", "t4", 62)),
            ended("e", "rejected", 80),
            ended("f", "cancelled", 90),
            ended("early", "landed", -10_000, ran("pass")),
            request("open", ran("pass")),
        ],
        NOW - timedelta(days=1),
        NOW + timedelta(minutes=120),
    )
    assert (found.landed, found.convicted, found.sent_back, found.withdrawn, found.runs) == (3, 1, 2, 1, 5)
    assert found.since == NOW, "the first of them came then"
    assert found.per_hour == 1.5
    assert found.failing == 0.25
    assert found.sent_back_share == 0.4
    assert found.runs_per_landing == pytest.approx(5 / 3)
    assert found.bound == pytest.approx(entropy(0.25) / 0.75)
    assert (found.wait(0.5), found.wait(0.95)) == (1800, 3600)
    assert found.flakes == (1, 3)


def test_metrics_of_nothing() -> None:
    found = metrics([], NOW, NOW)
    assert (found.per_hour, found.bound, found.failing, found.sent_back_share, found.wait(0.5)) == (None,) * 5
    assert (found.runs_per_landing, found.flakes) == (None, (0, 0))
    assert (per_landing(0), per_landing(1)) == (0.0, 0.0)


def test_quantiles() -> None:
    assert [quantile([1.0, 2.0, 3.0, 4.0], share) for share in (0.25, 0.5, 0.95, 1)] == [1.0, 2.0, 4.0, 4.0]


def test_what_goes_on_counts_only_while_somebody_lives_who_says_so(tmp_path: Path) -> None:
    name = f"refinery-{os.getpid()}"
    found = Underway(by=name, runs=(Run(what="it", members=("a",), since=NOW),))
    with Presence(tmp_path / "workers", name):
        tell(tmp_path, found)
        assert going_on(tmp_path) == found
        tell(tmp_path, NOTHING)
        assert not (tmp_path / FILE).exists()
        assert going_on(tmp_path) == NOTHING
        tell(tmp_path, found)
    assert going_on(tmp_path) == NOTHING, "it was killed"
    for text in ("{", "[]", '{"by": "../x", "runs": []}', '{"by": 1}'):
        (tmp_path / FILE).write_text(text)
        assert going_on(tmp_path) == NOTHING
