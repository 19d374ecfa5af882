"""Criteria that could keep a polecat for ever, and what the next attempt is told of those that do not hold."""

from __future__ import annotations

from pathlib import Path

from beads.model import Evidence
from cli.config import open_site
from roles.acceptance import feedback
from roles.polecat import Polecat
from tests.beads.strategies import NOW
from tests.refinery.test_failures import NOISE, recorded
from tests.towns import make_town, molecule, pour, snapshot


def test_an_expression_without_end_is_no_proof_and_holds_nobody_up(tmp_path: Path) -> None:
    repository = make_town(tmp_path)
    limits = "{ file = 'parts/m', matches = '^k$' }, { file = 'parts/m', matches = '^(a+)+$', timeout = 0.5 }"
    line = f"printf 'ok\\n{'a' * 64}b\\nk\\n' > parts/m"
    pour(repository, molecule("m", line, limits=limits))
    result = Polecat(open_site(repository), "nux", lambda: False).run()
    assert result.end == "unmet"
    (step,) = [bead for bead in snapshot(repository) if bead.issue_type == "step"]
    last = step.evidence[-3:]
    assert [(found.subject, found.verdict) for found in last] == [
        ("run: test -f parts/m", "pass"),
        ("file: parts/m matches ^k$", "pass"),
        ("file: parts/m matches ^(a+)+$", "error"),
    ]
    assert last[-1].detail == "looking for '^(a+)+$' took longer than 0.5 s"


def test_the_next_attempt_is_told_which_tests_failed_and_not_what_came_after() -> None:
    output = f"{recorded('unittest')}{NOISE[:8000]}"
    said = feedback(
        [Evidence(id="e", subject="run: make test", verdict="fail", detail="exit 2", output=output, at=NOW)]
    )
    assert said.startswith("run: make test\nexit 2\n")
    assert "ERROR: test_error (test_slugs.Slugs.test_error)" in said
    assert len(said) < 2100
