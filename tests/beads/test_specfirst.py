"""The formulas that specify before anything is built: what each phase leaves is accepted, and what it lacks is not."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from beads.catalogue import Catalogue
from beads.errors import InvalidInput
from beads.expansion import expand
from beads.interchange.tasklist import read_tasks
from beads.plan import Molecule, PlannedCriterion
from tests.beads.specs import CONSTITUTION, FILES, NAME, SPEC, TASKS
from tests.world import commit, git


def molecule(name: str, /, **given: str) -> Molecule:
    """The molecule of a formula that comes with us."""
    catalogue = Catalogue()
    (found,) = expand(catalogue.find(name), {key: [text] for key, text in given.items()}, catalogue.find).molecules
    return found


def lacking(formula: Molecule, step: str, repository: Path) -> str:
    """What a step's criteria say is not there; empty when they hold. A person says yes, and diffs are not looked at."""
    (found,) = [one for one in formula.steps if one.id == step]
    return next((said for criterion in found.criteria if (said := _unmet(criterion, repository))), "")


def _unmet(criterion: PlannedCriterion, repository: Path) -> str:
    if criterion.kind == "run":
        done = subprocess.run(["sh", "-c", criterion.run], cwd=repository, check=False, capture_output=True, text=True)
        assert done.returncode < 126, done
        return "" if done.returncode == 0 else done.stdout + done.stderr or "nothing was printed"
    if criterion.kind == "file":
        path = repository / criterion.file
        text = path.read_text() if path.is_file() else None
        good = text is not None and re.search(criterion.matches, text, re.MULTILINE)
        return "" if good else f"{criterion.file}: {criterion.matches}"
    return ""


@pytest.fixture
def spec() -> Molecule:
    """The phases of one feature."""
    return molecule("spec", name=NAME, feature="Photos in albums.")


@pytest.fixture
def done(repo: Path) -> Path:
    """A repository in which all phases have been done."""
    commit(repo, {".specify/memory/constitution.md": CONSTITUTION}, "Principles")
    files = {path: text for files in FILES.values() for path, text in files.items()}
    return commit(repo, {f"specs/{NAME}/{path}": text for path, text in files.items()}, "All phases")


def test_phases_that_are_not_wanted_are_left_out(spec: Molecule) -> None:
    assert [step.id for step in spec.steps] == [*FILES]
    given = {"name": NAME, "feature": "x", "clarify": "false", "checklist": "false", "analyze": "false"}
    assert [step.id for step in molecule("spec", **given).steps] == ["specify", "settle", "plan", "tasks"]
    with pytest.raises(InvalidInput, match="name cannot be '1-a'"):
        molecule("spec", name="1-a", feature="x")


def test_each_phase_begins_with_nothing_and_holds_once_it_was_done(spec: Molecule, repo: Path) -> None:
    for step, files in FILES.items():
        if step not in ("clarify", "settle"):
            assert lacking(spec, step, repo) != "", step
        for path, text in files.items():
            (repo / "specs" / NAME / path).parent.mkdir(parents=True, exist_ok=True)
            (repo / "specs" / NAME / path).write_text(text)
        assert lacking(spec, step, repo) == "", step
        if git(repo, "status", "--porcelain"):
            commit(repo, {}, step)


def test_only_what_asks_a_person_has_an_approval_and_everything_stays_in_its_directory(spec: Molecule) -> None:
    for step in spec.steps:
        kinds = [criterion.kind for criterion in step.criteria]
        assert ("approval" in kinds) == (step.id == "clarify")
        assert "diff" in kinds


MARK = "[NEEDS CLARIFICATION: by what?]"


@pytest.mark.parametrize(
    "step,path,before,after,said",
    [
        (
            "specify",
            "spec.md",
            "### User Story 1 - Albums (Priority: P1)",
            "### Albums",
            "user story 2 stands where number 1 should",
        ),
        ("specify", "spec.md", "User Story 2 -", "User Story 3 -", "user story 3 stands where number 2 should"),
        ("specify", "spec.md", "FR-002", "FR-003", "FR-003 stands where number 2 should"),
        ("specify", "spec.md", "**SC-001**", "**Fast**", "there is no SC-1"),
        ("specify", "spec.md", "Photo albums", "[FEATURE NAME]", "1:# Feature Specification: [FEATURE NAME]"),
        ("specify", "spec.md", "**Given** ", "", "Given"),
        ("specify", "spec.md", "by name.", f"{MARK} {MARK} {MARK} {MARK}", MARK),
        ("clarify", "spec.md", "by name.", f"{MARK} {MARK} {MARK} {MARK} {MARK} {MARK}", MARK),
        ("clarify", "spec.md", "## Clarifications", "## Talk", "^## Clarifications"),
        ("settle", "spec.md", "by name.", MARK, MARK),
        ("checklist", "checklists/requirements.md", "[x] CHK002", "[ ] CHK002", "does not hold"),
        ("checklist", "checklists/requirements.md", "CHK002", "CHK003", "CHK number 2 is expected"),
        ("checklist", "checklists/requirements.md", "CHK002 Is", "Is", "CHK number 2 is expected"),
        ("checklist", "checklists/requirements.md", "- [x] CHK005", "- CHK005", "only 4 items"),
        ("plan", "plan.md", "**Testing**: sh", "**Testing**:\nsh", "Testing"),
        ("plan", "plan.md", "## Constitution Check", "## Check", "has no Constitution Check"),
        ("plan", "plan.md", "Standard library only", "It", "speak of the principle: Standard library only"),
        ("plan", "plan.md", "Python 3.11", MARK, MARK),
        ("plan", "research.md", "**Decision**: ", "", "Decision"),
        ("tasks", "tasks.md", "T003 [US2]", "T002 [US2]", "there are two tasks T002"),
        ("tasks", "tasks.md", "T003 [US2]", "T003", "no task is for user story 2"),
        ("tasks", "tasks.md", "T003 [US2] Export", "Export", "is no task: - [ ] Export"),
        ("tasks", "tasks.md", "- [ ] T004 Say", "- [ ] TXXX Say", "is no task: - [ ] TXXX"),
        ("tasks", "tasks.md", "**Checkpoint**: `sh check.sh` passes", "**Checkpoint**: it works", "Checkpoint"),
        ("tasks", "tasks.md", "## Phase", "### Part", "there are 0 phases and 4 tasks"),
        ("analyze", "analysis.md", "FR-002", "FR-001", "says nothing of FR-002"),
        ("analyze", "analysis.md", "## Findings", "## Good", "Findings"),
    ],
)
def test_what_a_phase_lacks_is_said(
    spec: Molecule, done: Path, step: str, path: str, before: str, after: str, said: str
) -> None:
    at = done / "specs" / NAME / path
    text = at.read_text()
    assert before in text
    assert lacking(spec, step, done) == ""
    at.write_text(text.replace(before, after))
    assert said in lacking(spec, step, done)


@pytest.mark.parametrize("step,marks", [("specify", 3), ("clarify", 5)])
def test_so_much_may_be_open(spec: Molecule, done: Path, step: str, marks: int) -> None:
    (done / "specs" / NAME / "spec.md").write_text(SPEC + f"\n{MARK}" * marks)
    assert lacking(spec, step, done) == ""
    assert MARK in lacking(spec, "settle", done)


def test_an_analysis_changes_nothing_else(spec: Molecule, done: Path) -> None:
    (done / "specs" / NAME / "analysis.md").write_text((done / "specs" / NAME / "analysis.md").read_text() + "More.\n")
    assert lacking(spec, "analyze", done) == ""
    (done / "specs" / NAME / "spec.md").write_text(SPEC + "\nMore.\n")
    assert lacking(spec, "analyze", done) == f" M specs/{NAME}/spec.md\n"
    git(done, "checkout", "--quiet", ".")
    (done / "albums.py").write_text("")
    assert lacking(spec, "analyze", done) == "?? albums.py\n"


def test_the_tasks_that_are_accepted_can_be_read(done: Path) -> None:
    read = read_tasks(TASKS.encode(), done / "specs" / NAME / "tasks.md", "tasks.md")
    assert read.outline.notes == ()
    assert read.origin.feature == NAME
    assert [phase.story for phase in read.outline.phases] == ["", "US1", "US2", ""]


@pytest.mark.parametrize(
    "before,after",
    [
        ("### Standard library only", "Standard library only"),
        ("MUST", "may"),
        ("**Version**: 1.0.0", "**Version**: 1"),
        ("Code MUST", "[PRINCIPLE 1] MUST"),
    ],
)
def test_a_constitution_has_principles_and_a_version_and_is_written(repo: Path, before: str, after: str) -> None:
    git(repo, "switch", "--quiet", "--create", "topic")
    formula = molecule("constitution", principles="No dependencies.")
    assert lacking(formula, "constitution", repo)
    path = repo / ".specify" / "memory" / "constitution.md"
    path.parent.mkdir(parents=True)
    path.write_text(CONSTITUTION.replace(before, after))
    assert lacking(formula, "constitution", repo)
    path.write_text(CONSTITUTION)
    assert lacking(formula, "constitution", repo) == ""
    # One that is on main already has to be amended.
    commit(repo, {}, "Principles")
    git(repo, "branch", "--force", "main", "topic")
    assert lacking(formula, "constitution", repo)
