"""Files of other programs in and out, through the command line."""

from __future__ import annotations

import json
import os
import pty
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from cli.main import bead
from tests.cli.commands import PROGRAM, Beads
from tests.world import ROOT, git

SAMPLE = ROOT / "tests" / "beads" / "bd-sample.jsonl"
ROW = {"id": "ex-1", "title": "One", "status": "open", "created_at": "2026-01-01T00:00:00.000000001Z"}
TASKS = """\
# Tasks: Photo albums

## Phase 1: Setup

- [x] T001 Create pyproject.toml
- [ ] T002 [P] Add a linter
- [ ] no id

**Checkpoint**: `pytest -q` passes
"""


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "issues.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in (ROW, {**ROW, "id": "ex-2", "notes": "kept"})))
    return path


def head(beads: Beads) -> str:
    return git(beads.repository, "rev-parse", "refs/beads/main")


def test_an_import_is_one_commit_and_again_none(beads: Beads, rows: Path) -> None:
    before = head(beads)
    assert beads.run("import", str(rows)) == "2 created, 0 updated, 0 unchanged"
    assert git(beads.repository, "rev-parse", "refs/beads/main^") == before
    assert git(beads.repository, "log", "-1", "--format=%s", "refs/beads/main") == "import from issues.jsonl"
    after = head(beads)
    assert beads.run("import", str(rows)) == "0 created, 0 updated, 2 unchanged"
    assert head(beads) == after


def test_a_dry_run_changes_nothing(beads: Beads, rows: Path) -> None:
    before = head(beads)
    assert beads.run("import", "--dry-run", str(rows)) == "2 would be created, 0 would be updated, 0 unchanged"
    found = beads.json("import", "--dry-run", str(rows))
    assert found == {
        "created": ["ex-1", "ex-2"],
        "updated": [],
        "unchanged": 0,
        "notes": [],
        "conflicts": [],
        "dry_run": True,
    }
    assert head(beads) == before


def test_standard_input_and_what_was_edited_since(beads: Beads, rows: Path, tmp_path: Path) -> None:
    beads.run("import", "-", stdin=rows.read_bytes())
    beads.run("update", "ex-1", "--title", "Edited")
    beads.run("comment", "ex-2", "seen")
    newer = json.dumps({**ROW, "title": "Other", "priority": 0, "updated_at": "2036-01-01T00:00:00Z"})
    found = beads.json("import", "-", stdin=newer)
    assert found["updated"] == ["ex-1"]
    assert found["conflicts"] == [{"id": "ex-1", "fields": ["title"]}]
    shown = beads.show("ex-1")
    assert (shown["title"], shown["priority"]) == ("Edited", 0)
    assert "imported" not in json.dumps(beads.json("show", "ex-1", "ex-2"))
    out = tmp_path / "out.jsonl"
    assert beads.run("export", "--to", "bd", "-o", str(out)) == ""
    one, two = (json.loads(line) for line in out.read_text().splitlines())
    assert one["title"] == "Edited"
    assert one["created_at"] == ROW["created_at"]
    assert two["notes"] == "kept"
    assert [comment["text"] for comment in two["comments"]] == ["seen"]


def test_an_imported_dependency_can_be_taken_away_and_not_added_twice(beads: Beads, rows: Path) -> None:
    waits = [{"issue_id": "ex-2", "depends_on_id": "ex-1", "type": "waits-for", "metadata": '{"gate":"any-children"}'}]
    rows.write_text(
        "".join(json.dumps({**ROW, "id": i, "dependencies": d}) + "\n" for i, d in (("ex-1", []), ("ex-2", waits)))
    )
    beads.run("import", str(rows))
    beads.run("dep", "add", "ex-2", "ex-1", "--type", "waits-for")
    assert len(beads.show("ex-2")["dependencies"]) == 1
    beads.run("dep", "remove", "ex-2", "ex-1", "--type", "waits-for")
    assert beads.show("ex-2")["dependencies"] == []


def test_conflicts_and_notes_are_told(beads: Beads, rows: Path) -> None:
    beads.run("import", str(rows))
    beads.run("update", "ex-1", "--title", "Edited")
    rows.write_text("".join(json.dumps({**ROW, "title": title}) + "\n" for title in ("Two", "Three")))
    done = CliRunner().invoke(bead, ["-C", str(beads.repository), "import", str(rows)])
    assert done.exit_code == 0
    assert done.stderr.splitlines() == [
        f"note: {rows}:1: ex-1 is on line 2, too, and younger there",
        "conflict: ex-1: title: the file says otherwise; stays as it is here",
    ]


def test_prose_criteria_are_shown_under_their_name(beads: Beads) -> None:
    beads.run("import", "-", stdin=json.dumps({**ROW, "acceptance_criteria": "It works."}))
    assert beads.show("ex-1")["acceptance_criteria"] == "It works."
    assert "criteria" not in beads.show("ex-1")


def test_what_cannot_be_printed_comes_out_all_the_same(beads: Beads) -> None:
    beads.run("import", "-", stdin=json.dumps({**ROW, "x": "\ud800", "title": "a \u202e b"}))
    assert json.loads(beads.run("export", "--to", "bd")) == {**ROW, "x": "\ud800", "title": "a \u202e b"}


@pytest.mark.parametrize(
    "text,code,said",
    [
        ("<<<<<<< HEAD\n=======\n>>>>>>> x\n", 2, "<<<<<<< on line 1, ======= on line 2, >>>>>>> on line 3"),
        ('{"id": "ex-1"}\n', 2, "issues.jsonl:1: title: is missing"),
    ],
)
def test_a_file_that_is_wrong_imports_nothing(beads: Beads, rows: Path, text: str, code: int, said: str) -> None:
    before = head(beads)
    rows.write_text(f"{text}{json.dumps(ROW)}\n")
    assert said in beads.run("import", str(rows), code=code)
    assert head(beads) == before


def test_a_file_that_is_not_there_is_named(beads: Beads, tmp_path: Path) -> None:
    assert "no.jsonl cannot be read: No such file" in beads.run("import", str(tmp_path / "no.jsonl"), code=3)
    assert "cannot be read: Is a directory" in beads.run("import", str(tmp_path), code=3)


def test_tasks_of_a_feature(beads: Beads, tmp_path: Path) -> None:
    path = tmp_path / "specs" / "001-albums" / "tasks.md"
    path.parent.mkdir(parents=True)
    path.write_text(TASKS)
    found = beads.json("import", "--from", "speckit", str(path))
    assert found["notes"] == [f"{path}:7: not a task: - [ ] no id"]
    epic, first, second, check = (beads.show(i) for i in found["created"])
    assert epic["title"] == "001-albums: Setup"
    assert (first["status"], first["source"]) == ("closed", "specs/001-albums/tasks.md:5")
    assert [b["title"] for b in beads.json("ready")] == ["Add a linter"]
    assert check["acceptance_criteria"] == "- run: pytest -q"
    assert {d["depends_on_id"] for d in check["dependencies"]} == {epic["id"], first["id"], second["id"]}
    path.write_text("\n" + TASKS.replace("[ ] T002", "[X] T002"))
    again = beads.json("import", "--from", "speckit", str(path))
    assert (again["created"], again["conflicts"]) == ([], [])
    assert beads.show(second["id"])["status"] == "closed"
    assert beads.show(second["id"])["source"].endswith(":7")
    assert beads.json("import", "--from", "speckit", str(path))["unchanged"] == 4


def test_tasks_without_a_directory_are_known_by_their_title(beads: Beads) -> None:
    one = beads.json("import", "--from", "speckit", "-", stdin=TASKS)["created"]
    assert beads.show(one[0])["title"] == "Photo albums: Setup"
    assert beads.json("import", "--from", "speckit", "-", stdin=TASKS)["created"] == []
    nameless = TASKS.replace("# Tasks: Photo albums", "")
    assert "does not say what its tasks are about" in beads.run(
        "import", "--from", "speckit", "-", stdin=nameless, code=2
    )
    assert "is not UTF-8" in beads.run("import", "--from", "speckit", "-", stdin=b"\xff", code=2)


def test_somebody_at_a_terminal_sees_that_it_goes_on(beads: Beads, environ: dict[str, str]) -> None:
    ours, theirs = pty.openpty()
    command = [*PROGRAM, "import", str(SAMPLE)]
    done = subprocess.run(
        command, cwd=beads.repository, env=environ, stdout=subprocess.PIPE, stderr=theirs, check=True, text=True
    )
    os.close(theirs)
    said = os.read(ours, 65536).decode()
    os.close(ours)
    assert "reading" in said
    assert "writing 32 beads" in said
    assert done.stdout == "32 created, 0 updated, 0 unchanged\n"
