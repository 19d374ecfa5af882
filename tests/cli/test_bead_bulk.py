"""Many changes at once, and everything taken out."""

from __future__ import annotations

import json
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.cli.commands import PROGRAM, Beads
from tests.world import git

PLAN = """\
plan = "add-slugs"

[[molecules]]
id = "slugify"
title = "Add slugify()"
goal = "text.slugify() turns any title into a URL slug."

  [[molecules.steps]]
  id = "implement"
  title = "Write slugify"
  run = "true"

    [[molecules.steps.criteria]]
    run = "pytest -q"

[[molecules]]
id = "use"
title = "Use slugs"
goal = "The router uses them."
needs = ["slugify"]
run = "true"

  [[molecules.criteria]]
  file = "router.py"
"""


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    path = tmp_path / "plan.toml"
    path.write_text(PLAN)
    return path


def test_a_plan_is_poured_once(beads: Beads, plan: Path) -> None:
    poured = beads.json("pour", str(plan))
    assert [bead["issue_type"] for bead in poured] == ["molecule", "step", "molecule", "step"]
    assert all(bead["seal"] for bead in poured)
    assert [bead["title"] for bead in beads.json("ready")] == ["Add slugify()"]
    head = git(beads.repository, "rev-parse", "refs/beads/main")
    assert [bead["id"] for bead in beads.json("pour", str(plan))] == [bead["id"] for bead in poured]
    assert git(beads.repository, "rev-parse", "refs/beads/main") == head


def test_an_edited_plan_supersedes(beads: Beads, plan: Path) -> None:
    old = beads.json("pour", str(plan))[0]["id"]
    plan.write_text(PLAN.replace("Add slugify()", "Add a better slugify()"))
    new = beads.run("pour", str(plan)).split("\t")[0]
    assert new != old
    assert beads.show(old)["outcome"] == "superseded"


def test_a_plan_with_a_mistake_is_refused_with_its_line(beads: Beads, plan: Path) -> None:
    plan.write_text(PLAN.replace('needs = ["slugify"]', 'needs = ["slugfy"]'))
    said = beads.run("pour", str(plan), code=2)
    assert f"error: {plan}:20: molecules[1].needs" in said
    assert "Did you mean 'slugify'?" in said


def test_a_batch_is_one_transaction(beads: Beads) -> None:
    one = beads.create("One")
    operations = [
        {"op": "create", "bead": {"id": "bt-doc", "title": "Manual", "priority": 1, "criteria": [{"run": "true"}]}},
        {"op": "create", "bead": {"title": "Without an id"}},
        {"op": "create", "bead": {"title": "Without an id"}},
        {"op": "label", "id": "bt-doc", "add": ["docs"]},
        {"op": "update", "id": "bt-doc", "description": "two\u2028lines\r\n"},
        {"op": "depend", "id": "bt-doc", "on": one},
        {"op": "comment", "id": one, "text": "first"},
        {"op": "claim", "id": one, "worker": "nux"},
        {"op": "close", "id": one, "worker": "nux", "epoch": 1},
        {"op": "claim", "worker": "nux", "id": "bt-doc"},
        {"op": "release", "id": "bt-doc", "worker": "nux", "epoch": 1},
        {"op": "reopen", "id": one},
    ]
    before = int(git(beads.repository, "rev-list", "--count", "refs/beads/main"))
    lines = "\n\n".join(json.dumps(operation, ensure_ascii=False) for operation in operations)
    found = beads.json("batch", "-", stdin=lines)
    assert len(found) == len(operations)
    assert found[0]["labels"] == ["docs"]
    assert found[0]["description"] == "two\u2028lines\r\n"
    assert found[1]["id"] != found[2]["id"]
    assert int(git(beads.repository, "rev-list", "--count", "refs/beads/main")) == before + 1
    assert beads.show(one)["status"] == "open"


def test_the_example_of_a_batch_can_be_pasted(beads: Beads, environ: dict[str, str]) -> None:
    typed = beads.run("batch", "--help").partition("operations.jsonl\n")[2].partition("\n\n")[0]
    script = f'bead() {{ {shlex.join(PROGRAM)} "$@"; }}\n{typed}'
    said = subprocess.check_output(["sh", "-c", script], cwd=beads.repository, env=environ, text=True)
    assert said == "2 operations, done as one transaction\n"
    assert beads.show("bt-doc")["labels"] == ["docs"]


def test_a_batch_can_be_a_file_and_empty(beads: Beads, tmp_path: Path) -> None:
    path = tmp_path / "batch.jsonl"
    path.write_text('{"op": "claim", "worker": "nux"}\n')
    assert beads.json("batch", str(path)) == [None]
    path.write_text("\n\n")
    assert beads.run("batch", str(path)) == "0 operations, nothing changed: everything was so already"
    path.write_bytes(b"\xff\n")
    assert f"{path} is not UTF-8: byte 0 is 0xff" in beads.run("batch", str(path), code=2)


@pytest.mark.parametrize(
    "line,code,said",
    [
        ("{", 2, ":2: not JSON: "),
        ("[]", 2, ":2: 'a line without an object' is not an operation"),
        ('{"a":' * 5000, 2, ":2: not JSON: nested too deep"),
        ('{"op": "creat"}', 2, ":2: 'creat' is not an operation that a batch may have\nhint: Write"),
        ('{"op": "land", "ids": ["bt-a"], "commit": "c"}', 2, ":2: 'land' is not an operation that a batch may have"),
        (
            '{"op": "update", "id": "bt-one", "titel": "x"}',
            2,
            ":2: titel: unknown key 'titel'\nhint: Did you mean 'title'?",
        ),
        ('{"op": "update", "id": "bt-one", "model": "x"}', 2, ":2: model: unknown key 'model'"),
        ('{"op": "update", "id": "../x"}', 2, ":2: id: '../x' is not a bead id"),
        ('{"op": "update", "id": "bt-no", "priority": 1}', 3, ":2: there is no bead 'bt-no'"),
        ('{"op": "depend", "id": "bt-one", "on": "bt-one", "type": "A b"}', 2, ":2: type: "),
        ('{"op": "depend", "id": "bt-one", "on": "bt-one"}', 5, ":2: bt-one cannot wait for bt-one"),
        ('{"op": "create", "title": "x"}', 2, ":2: create takes a bead and nothing else"),
        (
            '{"op": "create", "bead": {"titel": "x"}}',
            2,
            ":2: 'titel' cannot be given to a new bead\nhint: Did you mean 'title'?",
        ),
        ('{"op": "create", "bead": {"title": "x", "seal": "y"}}', 2, ":2: 'seal' cannot be given to a new bead"),
        ('{"op": "create", "bead": {"title": "x", "status": "closed"}}', 2, ":2: 'status' cannot be given"),
        ('{"op": "create", "bead": {"title": ""}}', 2, ":2: title: "),
        ('{"op": "create", "bead": {"id": "bt-one", "title": "x"}}', 5, ":2: bead bt-one exists already"),
        ('{"op": "close", "id": "bt-proof"}', 5, ":2: bt-proof cannot close: not proven"),
        ('{"op": "close", "id": "bt-proof", "evidence": [{"id": "e"}]}', 5, ":2: evidence cannot be given"),
        ('{"op": "close", "id": "bt-one", "outcome": "landed"}', 5, ":2: only the Refinery lands"),
        ('{"op": "release", "id": "bt-one", "worker": "nux", "epoch": 3}', 4, ":2: nux no longer holds"),
    ],
)
def test_a_bad_line_is_named_and_nothing_is_done(beads: Beads, line: str, code: int, said: str) -> None:
    beads.create("One", "--id", "bt-one")
    beads.create("Proof", "--id", "bt-proof", "--criterion", "run: true")
    head = git(beads.repository, "rev-parse", "refs/beads/main")
    good = '{"op": "label", "id": "bt-one", "add": ["x"]}'
    assert f"error: standard input{said}" in beads.run("batch", "-", stdin=f"{good}\n{line}\n{good}\n", code=code)
    assert git(beads.repository, "rev-parse", "refs/beads/main") == head


def test_the_export_has_a_line_for_each_bead(beads: Beads, tmp_path: Path) -> None:
    one = beads.create("One", "-p", "0", "-l", "x")
    two = beads.create("Two", "--needs", one)
    beads.run("close", two)
    lines = [json.loads(line) for line in beads.run("export").splitlines()]
    assert {line["id"] for line in lines} == {one, two}
    found = next(line for line in lines if line["id"] == two)
    assert found["dependencies"] == [{"issue_id": two, "depends_on_id": one, "type": "blocks"}]
    assert found.items() >= {"status": "closed", "outcome": "done", "issue_type": "task"}.items()
    assert next(line for line in lines if line["id"] == one)["priority"] == 0
    assert not any(value in (None, "", [], {}) for line in lines for value in line.values())
    out = tmp_path / "beads.jsonl"
    assert beads.run("export", "-o", str(out)) == ""
    assert [json.loads(line) for line in out.read_text().splitlines()] == lines
