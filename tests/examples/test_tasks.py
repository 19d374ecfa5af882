"""The list of tasks over this repository: as a plan, and worked off in a clone of it by a town without a model."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from beads import Bead
from beads.defaults import Defaults
from beads.interchange.tasklist import plan_from, plan_name, read_tasks
from beads.plan import Plan, PlannedCriterion
from tests.towns import assert_green, assert_nothing_left, assert_proven, contained, run, snapshot
from tests.world import ROOT, git

LIST = ROOT / "examples" / "tasks" / "tasks.md"
PAGES = "python3 examples/tasks/pages.py"
WORDS = ["--run", f"{PAGES} write {{{{paths}}}}", "--criterion", f"run: {PAGES} check {{{{paths}}}}"]


def planned() -> Plan:
    tasks = read_tasks(LIST.read_bytes(), LIST, LIST.name)
    defaults = Defaults(f"{PAGES} write {{{{paths}}}}", (PlannedCriterion(run=f"{PAGES} check {{{{paths}}}}"),))
    plan, notes = plan_from(tasks, plan_name(tasks), defaults, lambda path: (ROOT / path).exists(), {})
    assert notes == []
    return plan


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """This repository as it is committed, with a town in it."""
    if not (ROOT / ".git").exists():
        pytest.skip("this is no repository to clone")
    path = tmp_path / "project"
    git(tmp_path, "clone", "--quiet", "--depth", "1", f"file://{ROOT}", str(path))
    git(path, "checkout", "--quiet", "-B", "main")
    git(path, "remote", "remove", "origin")
    for branch in git(path, "for-each-ref", "--format=%(refname:short)", "refs/heads").split():
        if branch != "main":
            git(path, "branch", "--quiet", "-D", branch)
    run(path, "init", "--gate", f"{PAGES} check")
    settings = path / "town.toml"
    settings.write_text(contained(settings.read_text().replace("polecats = 2 ", "polecats = 3 ")))
    git(path, "commit", "--quiet", "--all", "--allow-empty", "--message", "Three at once")
    return path


def molecules(repository: Path) -> dict[str, Bead]:
    """The molecules by their names in the plan."""
    return {bead.source.rpartition("/")[2]: bead for bead in snapshot(repository) if bead.issue_type == "molecule"}


def assert_in_order(repository: Path) -> None:
    """Whatever a task needs was on main when work on it began."""
    state = snapshot(repository)
    requests = {bead.merge.molecule: bead.merge for bead in state if bead.merge and bead.outcome == "landed"}
    for bead in state:
        for need in bead.needs if bead.id in requests else ():
            if need in requests:
                ancestor = ("merge-base", "--is-ancestor", requests[need].landed, requests[bead.id].base)
                git(repository, *ancestor)


def test_the_list_is_a_plan_over_this_repository() -> None:
    plan = planned()
    tasks = [molecule for molecule in plan.molecules if molecule.run]
    assert len(tasks) >= 30
    needs = {molecule.id: set(molecule.needs) for molecule in plan.molecules}
    # Both name the same page, whatever [P] says; and a story waits for no other.
    assert needs["T017"] == {"T006"}
    assert needs["T019"] == {"checkpoint-2"}
    assert needs["T035"] == {"T032", "T034"}
    assert needs["T037"] == {"checkpoint-3", "checkpoint-4", "checkpoint-5"}
    for molecule in tasks:
        sources = [word for word in molecule.title.replace(";", "").split() if word.endswith(".py")]
        assert all((ROOT / source).is_file() for source in sources), molecule.title
        assert any(criterion.kind == "run" for criterion in molecule.criteria)


def test_a_page_says_what_its_source_says(tmp_path: Path) -> None:
    def pages(*words: str, ok: bool = True) -> str:
        command = [sys.executable, str(ROOT / "examples" / "tasks" / "pages.py"), *words]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert (done.returncode == 0) == ok, done.stdout + done.stderr
        return done.stdout

    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "README.md").write_text("# Documentation\n")
    (tmp_path / "beads").mkdir()
    (tmp_path / "beads" / "a.py").write_text('"""Does a.\n\nAnd more."""\n\n\ndef f():\n    """Does f."""\n')
    (tmp_path / "beads" / "b.py").write_text('"""Does b."""\n\nfrom beads.a import f\n')
    page = "docs/modules/beads/a.md"
    assert "is not there" in pages("check", page, ok=False)
    pages("write", "beads/a.py", page)
    assert "# beads.a\n\nDoes a.\n\nAnd more.\n\n## For others\n\n* `f`: Does f.\n" in (tmp_path / page).read_text()
    pages("check", page)
    assert "does not say who uses" in pages("check-users", page, ok=False)
    pages("write", page, "beads/a.py")
    assert (tmp_path / page).read_text().endswith("## Used by\n\n`beads.b`\n")
    pages("write", "docs/modules/README.md")
    pages("write", "beads/b.py", "docs/modules/beads/b.md")
    pages("check")
    assert "is not what its source says" in pages("check", "docs/modules/README.md", ok=False)
    pages("write", "docs/README.md")
    assert "* [beads.b](modules/beads/b.md)\n" in (tmp_path / "docs" / "README.md").read_text()
    (tmp_path / "beads" / "a.py").write_text('"""Does nothing."""\n')
    assert pages("check", ok=False) == f"{page} is not what its source says\n"


@pytest.mark.slow
def test_the_first_phases_are_worked_off_in_a_clone(clone: Path) -> None:
    path = clone / "examples" / "tasks" / "tasks.md"
    path.write_text(path.read_text().partition("- [ ] T004")[0] + "\n**Checkpoint**: `" + PAGES + " check` passes\n")
    given = ["mayor", "--plan", "examples/tasks/tasks.md", *WORDS, "--yes"]
    shown = run(clone, *given).stdout
    assert "4 molecules, 4 steps: 4 new" in shown
    assert "It is from examples/tasks/tasks.md;" in shown
    run(clone, "up", "--until-idle")
    outcomes = {name: bead.outcome for name, bead in molecules(clone).items()}
    assert outcomes == {"T001": "landed", "T002": "landed", "T003": "landed", "checkpoint-2": "done"}
    assert_in_order(clone)
    assert "nothing changed" in run(clone, *given).stdout


@pytest.mark.slow
def test_the_whole_list_is_worked_off_in_a_clone(clone: Path) -> None:
    given = ["mayor", "--plan", "examples/tasks/tasks.md", *WORDS, "--yes"]
    names = [molecule.id for molecule in planned().molecules]
    assert f"{len(names)} molecules, {len(names)} steps: {len(names)} new" in run(clone, *given).stdout
    assert "nothing changed" in run(clone, *given).stdout
    run(clone, "up", "--until-idle")

    found = molecules(clone)
    assert {name: bead.outcome for name, bead in found.items()} == {
        name: "done" if name.startswith("checkpoint") else "landed" for name in names
    }
    assert json.loads(run(clone, "status", "--json").stdout)["needs_person"] == []
    state = snapshot(clone)
    assert_green(clone, state)
    assert_proven(state)
    assert_in_order(clone)
    assert_nothing_left(clone)
    # What is on main is what this project's own tests ask of its documentation.
    assert git(clone, "status", "--porcelain") == ""
    tests = ["tests/test_docs.py", "-k", "index or lead", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *tests], cwd=clone, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
    pages = {str(page.relative_to(clone)) for page in (clone / "docs" / "modules").rglob("*.md")}
    assert pages == {c.file for molecule in planned().molecules for c in molecule.criteria if c.file}

    head = git(clone, "rev-parse", "refs/beads/main")
    assert "nothing changed" in run(clone, *given).stdout
    path = clone / "examples" / "tasks" / "tasks.md"
    path.write_text(path.read_text().replace("- [ ] T0", "- [x] T0"))
    assert "nothing changed" in run(clone, *given).stdout
    assert git(clone, "rev-parse", "refs/beads/main") == head
