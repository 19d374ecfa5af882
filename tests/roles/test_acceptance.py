"""Criteria that could keep a polecat for ever."""

from __future__ import annotations

from pathlib import Path

from cli.config import open_site
from roles.polecat import Polecat
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
