"""``town flakes``: the tests that failed for nothing, in a table and as JSON."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner

from beads import Store
from beads.ops import Create
from cli.main import town
from tests.cli.commands import Beads
from tests.refinery.test_verdicts import Run, log


def ask(repository: Path, *args: str) -> str:
    done = CliRunner().invoke(town, ["-C", str(repository), "flakes", *args])
    assert done.exit_code == 0, done.stderr
    return done.stdout


def test_flakes(beads: Beads) -> None:
    assert ask(beads.repository) == "no test is known to fail for nothing (0 runs)\n"
    runs: list[Run] = [("bt-a.m1", "good", "fail", "t.py::x\x1b[31m t.py::y"), ("bt-a.m1", "good", "pass", "")]
    runs += [("bt-b.m1", "other", "fail", "t.py::y"), ("bt-b.m1", "other", "pass", "")]
    Store.open(beads.repository).commit("test", [Create(bead=bead) for bead in log(runs)])
    said = ask(beads.repository).splitlines()
    assert [line.split() for line in said] == [
        ["2", "2", "2026-01-02", "t.py::y", "make", "test"],
        ["1", "1", "2026-01-02", "t.py::x", "make", "test"],
        ["2", "of", "4", "runs", "on", "good", "trees", "failed", "for", "nothing:", "50.0%"],
    ]
    assert ask(beads.repository, "--limit", "1").splitlines()[1] == "and 1 more"
    found = json.loads(ask(beads.repository, "--json"))
    assert [(one["test"], one["failures"], one["requests"]) for one in found["flakes"]] == [
        ("t.py::y", 2, ["bt-a.m1", "bt-b.m1"]),
        ("t.py::x", 1, ["bt-a.m1"]),
    ]
    assert (found["failures"], found["runs"], found["rate"]) == (2, 4, 0.5)
    assert json.loads(ask(beads.repository, "--json", "--since", "2026-02-01"))["flakes"] == []
