"""The log of verdicts: which failures are nobody's fault, how often that happens, and what the Refinery makes of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from beads.model import Bead, Evidence, MergeRequest
from refinery import queue
from refinery.gate import Verdict
from refinery.verdicts import FAILURES_MAX, Flake, FlakeRate, counting, flake_rate, flakes, verdicts
from tests.beads.strategies import NOW, bead
from tests.refinery.test_failures import recorded
from tests.refinery.test_refinery import Queue
from tests.world import commit

Run = tuple[str, str, Verdict, str]
"""The request, the tree, the verdict, and the tests that failed."""


def output(tests: str) -> str:
    names = "\n".join(f"FAILED {test} - why" for test in tests.split())
    return f"=== short test summary info ===\n{names}" if names else "no name of any"


def log(runs: Iterable[Run], gate: str = "g", environment: str = "e") -> list[Bead]:
    """Requests with these verdicts, one a minute."""
    found: dict[str, list[Evidence]] = {}
    for minute, (request, tree, verdict, tests) in enumerate(runs):
        said = Evidence(
            id=f"{minute}{gate}{environment}",
            subject="gate: make test",
            verdict=verdict,
            tree=tree,
            gate=gate,
            environment=environment,
            output=output(tests) if verdict == "fail" else "",
            at=NOW + timedelta(minutes=minute),
        )
        found.setdefault(request, []).append(said)
    merge = MergeRequest(molecule="m", branch="b", head="a" * 40, base="a" * 40)
    return [bead(name, issue_type="merge-request", merge=merge, evidence=tuple(said)) for name, said in found.items()]


def test_the_log_is_in_the_order_of_time_and_of_the_gate_alone() -> None:
    beads = log([("a", "t1", "fail", "x"), ("b", "t2", "pass", ""), ("a", "t1", "error", "")])
    other = queue.stand(beads[0], "why", "what to do", "refinery", NOW)
    beads[0] = beads[0].evolve(evidence=(other, *beads[0].evidence))
    assert [(entry.request, entry.evidence.verdict) for entry in verdicts(beads)] == [
        ("a", "fail"),
        ("b", "pass"),
        ("a", "error"),
    ]


FAILURES = {
    "the same test twice": ["x", "x"],
    "one of them twice": ["x y", "y z"],
    "other tests": ["x", "y"],
    "then one of them again": ["x", "y", "y"],
    "not known which": ["", ""],
    "not known which the second time": ["x", ""],
    "always others": [f"x{n}" for n in range(FAILURES_MAX)],
}
CONFIRMED = {"other tests": False}


@pytest.mark.parametrize("case", FAILURES)
def test_what_confirms_a_failure(case: str) -> None:
    (request,) = log([("a", "t", "fail", tests) for tests in FAILURES[case]])
    said = queue.said("main", [request], "g", "e", NOW)
    assert (len(said) >= 2) == CONFIRMED.get(case, True)
    assert len(counting(request.evidence, ())) == len(FAILURES[case]), "where it does not matter all count"


def test_a_flake_is_a_tree_that_contradicts_itself_under_one_gate_in_one_environment() -> None:
    runs: list[Run] = [
        ("a", "good", "fail", "x y"),
        ("a", "good", "pass", ""),
        ("b", "bad", "fail", "z"),
        ("b", "bad", "fail", "z"),
        ("c", "other", "fail", "x"),
        ("c", "other", "fail", "w"),
        ("d", "fine", "pass", ""),
        ("d", "fine", "error", ""),
        ("e", "silent", "fail", ""),
        ("e", "silent", "pass", ""),
    ]
    beads = log(runs)
    found = {flake.test: flake for flake in flakes(beads)}
    assert {*found} == {"x", "y", "w", ""}
    at = [NOW + timedelta(minutes=minute) for minute in (0, 4)]
    assert found["x"] == Flake("x", "make test", 2, 2, ("a", "c"), *at)
    assert next(iter(found)) == "x", "the most frequent first"
    assert flake_rate(beads) == FlakeRate(4, 7)
    assert flake_rate([]).rate == 0.0
    split = [*log(runs[:1]), *log(runs[1:2], gate="another"), *log(runs[1:2], environment="another")]
    assert flakes(split) == [], "another gate says nothing about this one, nor does another place"
    assert flake_rate(split) == FlakeRate(0, 2)


FLAKY = """\
if test -e parts/flaky; then
    n=$(ls "$MEET" | wc -l)
    touch "$MEET/$n"
    test $n -lt 2 && printf '=== short test summary info ===\\nFAILED test_clock.py::test_%s - late\\n' $n && exit 1
fi
exit 0
"""


def test_who_fails_at_other_tests_each_time_is_not_sent_back(tmp_path: Path, environ: dict[str, str]) -> None:
    (tmp_path / "meet").mkdir()
    one = Queue(tmp_path, 1, {**environ, "MEET": str(tmp_path / "meet")})
    commit(one.repository, {"check.sh": FLAKY}, "Another gate")
    one.submit("flaky")
    happened = one.run()
    one.refinery.close()
    assert one.ended("landed") == {"flaky"}, happened
    one.assert_green()
    beads = list(one.store.snapshot().submitted())
    assert [flake.test for flake in flakes(beads)] == ["test_clock.py::test_1", "test_clock.py::test_0"]
    assert flake_rate(beads).failures == 2


def test_the_step_that_sends_back_has_the_failing_tests_and_not_the_rest(
    tmp_path: Path, environ: dict[str, str]
) -> None:
    one = Queue(tmp_path, 1, environ)
    (tmp_path / "said").write_text(recorded("pytest"))
    check = f"seq 30000; test ! -e parts/bad || {{ cat {tmp_path}/said; seq 3; exit 1; }}"
    commit(one.repository, {"check.sh": check}, "Another gate")
    one.submit("bad")
    one.run()
    one.refinery.close()
    assert one.ended("rejected") == {"bad"}
    (step,) = [b for b in one.store.snapshot() if b.issue_type == "step"]
    assert "E       ValueError: no such day: 31" in step.description
    assert "FAILED tests/test_slugs.py::test_words[a b-a-b] - Assert" in step.description
    assert len(step.description) < 4500
    assert "\n29999\n" not in step.description


def test_a_verdict_holds_for_another_refinery_and_not_in_another_environment(
    tmp_path: Path, environ: dict[str, str]
) -> None:
    one = Queue(tmp_path, 1, environ)
    one.submit("a")
    (one.repository / "parts/a").write_text("mine, and in the way\n")
    first = [line for line in one.run() if line.startswith("gate ")]
    assert len(first) == 1
    assert "cannot follow" in one.refinery.halted
    # Started again, where all is as before; and then where the commands would see something else.
    for environment, runs in ((environ, 0), ({**environ, "LANG": "C"}, 1), (environ, 0)):
        one.refinery = replace(one.refinery, environ=environment)
        assert len([line for line in one.run() if line.startswith("gate ")]) == runs
        assert one.ended(None) == {"a"}
    (one.repository / "parts/a").unlink()
    assert [line[:6] for line in one.run()] == ["landed"]
    one.refinery.close()
