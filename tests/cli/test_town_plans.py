"""What `town mayor --plan` takes besides our plans, from the file to what has landed: tasks.md, Gas Town's formulas."""

from __future__ import annotations

from pathlib import Path

import pytest

from beads import Bead
from tests.cli.commands import Beads, process
from tests.towns import assert_settled, make_town, run, snapshot
from tests.world import commit, git

TASKS = """\
# Tasks: Parts

## Phase 1: Setup

- [x] T001 Create parts/first
- [ ] T002 [P] Create parts/it.txt
- [ ] T003 [P] Add parts/us.txt and parts/them.txt

**Checkpoint**: `sh check.sh` passes

## Phase 2: User Story 1 - More (Priority: P1)

- [ ] T004 [US1] Don't stop: say so in parts/more.txt
- [ ] T005 [US1] Say it again in parts/more.txt; `sh -c 'grep -q again parts/more.txt'` passes

**Checkpoint**: it looks good
"""

# Files of the task get a line with its id; an id that begins a name twice over would be refused by the gate.
LINE = 'for path in {{paths}}; do grep -q ok "$path" || echo ok > "$path"; echo {{id}} {{title}} >> "$path"; done'


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    """A town's repository with a list of tasks in it."""
    repository = make_town(tmp_path)
    (repository / "specs/001-parts").mkdir(parents=True)
    (repository / "specs/001-parts/tasks.md").write_text(TASKS)
    return repository


def molecules(repository: Path) -> dict[str, Bead]:
    return {bead.source: bead for bead in snapshot(repository) if bead.issue_type == "molecule"}


def test_a_list_of_tasks_is_shown_poured_and_landed_in_its_order(tasks: Path) -> None:
    given = ["mayor", "--plan", "specs/001-parts/tasks.md", "--run", LINE, "--criterion", "run: test -d parts"]
    shown = run(tasks, *given, ok=(2,))
    assert "plan 001-parts: Parts" in shown.stdout
    assert "It is from specs/001-parts/tasks.md; what stands beside that file" in shown.stdout
    assert "done when: file: parts/us.txt" in shown.stdout
    assert "run: for path in parts/us.txt parts/them.txt; do" in shown.stdout
    assert "nobody is here to accept the plan" in shown.stderr
    assert molecules(tasks) == {}

    run(tasks, *given, "--yes")
    names = ["T002", "T003", "checkpoint-1", "T004", "T005"]
    assert set(molecules(tasks)) == {f"plan:001-parts/{name}" for name in names}
    run(tasks, "up", "--until-idle")
    found = molecules(tasks)
    # A checkpoint that holds has nothing to land.
    outcomes = {name: found[f"plan:001-parts/{name}"].outcome for name in names}
    assert outcomes == {name: "done" if name == "checkpoint-1" else "landed" for name in names}
    more = git(tasks, "show", "main:parts/more.txt").splitlines()
    assert more[:2] == ["ok", "T004 Don't stop: say so in parts/more.txt"]
    assert more[2].startswith("T005 Say it again in parts/more.txt; `sh -c 'grep")
    ends = {name: found[f"plan:001-parts/{name}"].closed_at for name in names}
    begun = {bead.parent: bead.attempts[0].started_at for bead in snapshot(tasks) if bead.attempts}
    for name, before in {"T004": "checkpoint-1", "T005": "T004"}.items():
        end = ends[before]
        assert end is not None
        assert begun[found[f"plan:001-parts/{name}"].id] >= end

    # Main has everything now, and what has landed may be ticked.
    assert "nothing changed" in run(tasks, *given, "--yes").stdout
    ticked = TASKS.replace("[ ] T002", "[x] T002").replace("[ ] T004", "[X] T004")
    commit(tasks, {"specs/001-parts/tasks.md": ticked}, "Tick")
    assert "nothing changed" in run(tasks, *given, "--yes").stdout


def test_what_a_list_of_tasks_lacks_is_named_with_its_lines(beads: Beads, environ: dict[str, str]) -> None:
    path = beads.repository / "tasks.md"
    path.write_text(TASKS + "- [ ] Buy milk\n- [ ] T006 Celebrate\n")
    said = beads.run("pour", str(path), code=2)
    assert f"error: {path}:18: T006: nothing tells whether it is done\n" in said
    assert "--criterion" in said
    said = beads.run("pour", str(path), "--criterion", "run: true", "--var", "x=y", code=2)
    assert f"{path} is a list of tasks, and --var is for formulas" in said
    said = beads.run("pour", str(path), "--criterion", "run: true", "--run", "do '{{title}}'", code=2)
    assert "--run: {{title}} stands inside single quotes" in said
    assert beads.json("list") == []
    poured = process("pour", "tasks.md", "--criterion", "run: true", cwd=beads.repository, environ=environ)
    assert poured.stderr == b"note: tasks.md:17: not a task: - [ ] Buy milk\n"
    assert len(beads.json("list", "--type", "molecule")) == 6
    assert "tasks.md: ok" in beads.run("formula", "check", str(path))
    assert "is a list of tasks" in beads.run("formula", "show", str(path), code=2)


def test_an_edited_task_supersedes_what_nobody_has_begun(beads: Beads) -> None:
    path = beads.repository / "tasks.md"
    path.write_text(TASKS)
    given = ["pour", str(path), "--criterion", "run: true"]
    before = {bead["title"]: bead["id"] for bead in beads.json(*given) if bead["issue_type"] == "molecule"}
    path.write_text(TASKS.replace("Add parts/us.txt", "Put parts/us.txt"))
    after = {bead["title"]: bead["id"] for bead in beads.json(*given) if bead["issue_type"] == "molecule"}
    assert after.keys() - before.keys() == {"Put parts/us.txt and parts/them.txt"}
    old = beads.show(before["Add parts/us.txt and parts/them.txt"])
    assert (old["status"], old["close_reason"].split()[0]) == ("closed", "superseded")
    assert {before[title] for title in before.keys() & after.keys()} <= set(after.values())


GAS_TOWN = """\
formula = "shiny"
type = "workflow"
version = 1

[vars.feature]
description = "What is built"
required = true

[vars.tone]
default = "loud"

[[steps]]
id = "design"
title = "Design {{feature}}"

[[steps]]
id = "implement"
title = "Implement {{feature}}, {{tone}}"
needs = ["design"]
acceptance = ""
check = { max_attempts = 2, check = { mode = "exec", path = "./done.sh" } }
"""


@pytest.mark.slow
def test_a_formula_of_gas_town_is_filled_in_poured_and_landed(tmp_path: Path) -> None:
    repository = make_town(tmp_path)
    done = "#!/bin/sh\ngrep -q Implement parts/implement\n"
    commit(repository, {"shiny.formula.toml": GAS_TOWN, "done.sh": done}, "A formula")
    (repository / "done.sh").chmod(0o755)
    commit(repository, {}, "It can be run")
    plan = ["mayor", "--plan", "shiny.formula.toml"]
    assert "shiny needs a value for feature" in run(repository, *plan, "--yes", ok=(2,)).stderr
    assert "steps[0].criteria: is missing" in run(repository, *plan, "--var", "feature=x", "--yes", ok=(2,)).stderr
    values = ["--var", "feature=it's $HOME", "--criterion", "file: parts/{{id}}"]
    line = ["--run", "(echo ok; echo {{title}}, {{feature}}) > parts/{{id}}"]
    shown = run(repository, *plan, *values, *line, "--yes").stdout
    assert "Implement it's $HOME, loud" in shown
    assert "done when: file: parts/design" in shown
    run(repository, "up", "--until-idle")
    assert_settled(repository, landed=1)
    assert git(repository, "show", "main:parts/design") == "ok\nDesign it's $HOME, it's $HOME"
    assert git(repository, "show", "main:parts/implement").endswith("Implement it's $HOME, loud, it's $HOME")
    assert "nothing changed" in run(repository, *plan, *values, *line, "--yes").stdout


def test_a_question_gets_no_line(beads: Beads) -> None:
    path = beads.repository / "gated.formula.toml"
    gate = 'gate = { type = "human", id = "the boss" }\n'
    path.write_text(GAS_TOWN.replace('needs = ["design"]\n', f'needs = ["design"]\n{gate}'))
    given = ["--var", "feature=x", "--criterion", "run: true", "--run", "do {{id}}"]
    poured = beads.json("pour", str(path), *given)
    assert [bead.get("run", "") for bead in poured] == ["", "do design", "", "do implement"]
