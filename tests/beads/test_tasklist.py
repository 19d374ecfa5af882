"""A tasks.md as a plan: molecules, their order and criteria, and what stays as it was when file and main go on."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beads.defaults import Defaults
from beads.errors import InvalidDocument, InvalidInput
from beads.interchange.tasklist import Poured, made_by, plan_from, plan_name, read_tasks
from beads.model import Bead, Dependency
from beads.plan import SUPERSEDES, Molecule, Plan, PlannedCriterion, pour
from tests.beads.strategies import NOW

ALBUMS = """\
# Tasks: Photo albums

## Phase 1: Setup

**Purpose**: A place to work in

- [x] T001 Create pyproject.toml
- [ ] T002 [P] Create src/db.py
- [ ] T003 [P] Write the schema to src/schema.sql and the data to src/data.sql (FR-002)

**Checkpoint**: it looks right

## Phase 2: Foundational

- [ ] T004 Wire src/schema.sql into src/db.py
- [ ] T005 Explain it, see `docs/how.md`; `pytest -q tests/unit` passes

**Checkpoint**: `make unit` passes

## Phase 3: User Story 1 - Albums (Priority: P1) 🎯

**Goal**: See albums
**Independent Test**: Run `albums list`

- [ ] T006 [US1] Test src/albums.py in tests/test_albums.py
- [ ] T007 [P] [US1] Albums in src/albums.py
- [ ] T008 [P] [US1] Remove old/albums.py

## Phase 4: User Story 2 - Sharing (Priority: P3)

- [ ] T009 [US2] Share in src/share.py (depends on T001, T006)
- [ ] Buy milk
"""

CHECK = Defaults(criteria=(PlannedCriterion(run="make check"),))


class World(Poured):
    """A store and a main, as far as a list of tasks asks for them."""

    def __init__(self) -> None:
        self.beads: dict[str, Bead] = {}
        self.main: set[str] = set()
        self.now = NOW

    def poured(self, plan: str) -> Iterator[Bead]:
        return (bead for bead in self.beads.values() if bead.source.startswith(f"plan:{plan}/") and not bead.parent)

    def get(self, bead_id: str) -> Bead | None:
        return self.beads.get(bead_id)

    def plan(self, text: str, defaults: Defaults = CHECK, name: str = "") -> Plan:
        return self.noted(text, defaults, name)[0]

    def noted(self, text: str, defaults: Defaults = CHECK, name: str = "") -> tuple[Plan, list[str]]:
        tasks = read_tasks(text.encode(), Path("/p/specs/001-albums/tasks.md"), "tasks.md")
        name = plan_name(tasks, name)
        return plan_from(tasks, name, defaults, self.main.__contains__, made_by(self, name))

    def pour(self, text: str, defaults: Defaults = CHECK) -> list[str]:
        """Pour; returns the names of the molecules that are new."""
        self.now += timedelta(hours=1)
        made = []
        for create in pour(self.plan(text, defaults), "bt", "ada", self.now, self.beads.get):
            if create.bead.id not in self.beads:
                self.beads[create.bead.id] = create.bead
                made += [] if create.bead.parent else [create.bead.source.rpartition("/")[2]]
        return made

    def land(self, *names: str, files: Collection[str] = ()) -> None:
        for bead in [bead for bead in self.poured("001-albums") if bead.source.rpartition("/")[2] in names]:
            ended = {"status": "closed", "outcome": "landed", "closed_at": self.now}
            self.beads[bead.id] = bead.evolve(**ended)
        self.main.update(files)


@pytest.fixture
def world() -> World:
    return World()


def named(plan: Plan, name: str) -> Molecule:
    return next(molecule for molecule in plan.molecules if molecule.id == name)


def criteria(molecule: Molecule) -> list[str]:
    return [criterion.run or f"there: {criterion.file}" for criterion in molecule.criteria]


# ── What becomes of a file ───────────────────────────────────────────────────────────────────────────────────────


def test_each_open_task_is_a_molecule_of_one_step(world: World) -> None:
    plan, notes = world.noted(ALBUMS)
    assert (plan.plan, plan.title) == ("001-albums", "Photo albums")
    assert [molecule.id for molecule in plan.molecules] == [
        *("T002", "T003", "T004", "T005", "checkpoint-2"),
        *("T006", "T007", "T008", "checkpoint-3", "T009"),
    ]
    assert all(len(molecule.work()) == 1 for molecule in plan.molecules)
    albums = named(plan, "T007")
    assert (albums.title, albums.priority, albums.labels) == ("Albums in src/albums.py", 1, ("US1",))
    assert albums.goal.splitlines() == [
        "T007: Albums in src/albums.py",
        "Phase: User Story 1 - Albums (Priority: P1) 🎯",
        "Goal: See albums",
        "It is from specs/001-albums/tasks.md; what stands beside that file describes the feature.",
    ]
    assert named(plan, "T009").priority == 3
    assert named(plan, "T003").touches == ("src/schema.sql", "src/data.sql")
    assert notes == ["tasks.md:32: not a task: - [ ] Buy milk"]


def test_the_order_is_that_of_an_import_without_what_is_not_there(world: World) -> None:
    plan = world.plan(ALBUMS)
    assert {molecule.id: molecule.needs for molecule in plan.molecules} == {
        # What is ticked, and a checkpoint in prose, are waited for by nobody; what they waited for is.
        "T002": (),
        "T003": (),
        "T004": ("T002", "T003"),
        "T005": ("T004",),
        "checkpoint-2": ("T005",),
        "T006": ("checkpoint-2",),
        "T007": ("T006",),
        "T008": ("checkpoint-2",),
        "checkpoint-3": ("T007", "T008"),
        "T009": ("T006", "checkpoint-2"),
    }


def test_what_is_ticked_is_waited_for_through(world: World) -> None:
    plan = world.plan("# A\n- [ ] T001 One\n- [x] T002 Two\n- [X] T003 Three\n- [ ] T004 Four\n")
    assert [(molecule.id, molecule.needs) for molecule in plan.molecules] == [("T001", ()), ("T004", ("T001",))]


def test_a_task_is_proven_by_what_the_file_names_and_by_the_files_it_makes(world: World) -> None:
    world.main = {"src/data.sql", "docs/how.md"}
    plan = world.plan(ALBUMS)
    assert {molecule.id: criteria(molecule) for molecule in plan.molecules} == {
        "T002": ["there: src/db.py", "make check"],
        "T003": ["there: src/schema.sql", "make check"],
        # Both files are for others to make.
        "T004": ["make check"],
        "T005": ["pytest -q tests/unit"],
        "checkpoint-2": ["make unit"],
        # What is tested is not what is written.
        "T006": ["there: tests/test_albums.py", "make check"],
        "T007": ["make check"],
        "T008": ["make check"],
        "checkpoint-3": ["albums list"],
        "T009": ["there: src/share.py", "make check"],
    }


def test_tasks_that_nothing_proves_are_all_named_with_their_lines(world: World) -> None:
    with pytest.raises(InvalidDocument) as raised:
        world.plan(ALBUMS, Defaults())
    assert raised.value.message == (
        "tasks.md:15: T004: nothing tells whether it is done, nor of T007 (line 26), T008 (line 27)"
    )
    assert "--criterion 'run: COMMAND'" in raised.value.hint


def test_a_shell_line_and_criteria_get_at_the_task(world: World) -> None:
    given = Defaults(
        "tool {{id}} {{title}} {{paths}} {{story}} {{phase}}",
        (PlannedCriterion(run="check {{paths}}", timeout=5.0), PlannedCriterion(file="done/{{id}}")),
    )
    task = "Don't `rm -rf $HOME` in 'a.py'; \"see\" b/c.py"
    (molecule,) = world.plan(f"## Phase 1: It's $1\n- [ ] T001 [US2] {task}\n", given).molecules
    assert shlex.split(molecule.run) == ["tool", "T001", task, "a.py", "b/c.py", "US2", "It's $1"]
    assert criteria(molecule) == ["there: a.py", "check a.py b/c.py", "there: done/T001"]
    assert molecule.criteria[1].timeout == 5.0
    # A checkpoint is only looked at.
    assert named(world.plan(ALBUMS, Defaults("tool {{id}}", CHECK.criteria)), "checkpoint-2").run == ""


@pytest.mark.parametrize(
    "given,problem",
    [
        (Defaults("tool {{path}}", CHECK.criteria), r"--run has \{\{path\}\}.*"),
        (Defaults("tool '{{title}}'", CHECK.criteria), r"--run: \{\{title\}\} stands inside single quotes.*"),
        (Defaults("", (PlannedCriterion(run="x {{what}}"),)), r"--criterion has \{\{what\}\}.*"),
        (Defaults("", (PlannedCriterion(file="{{paths}}/x"),)), r"T002: --criterion: \{\{paths\}\} is a list.*"),
        (Defaults("", (PlannedCriterion(file="{{title}}"),)), r"T003: --criterion: file.* must be a path inside"),
    ],
)
def test_what_cannot_be_filled_in_is_refused(world: World, given: Defaults, problem: str) -> None:
    with pytest.raises(InvalidInput, match=problem):
        world.plan(ALBUMS.replace("Write the schema", "../write the schema"), given)


def test_what_is_wrong_with_a_task_is_told_with_its_line(world: World) -> None:
    plan = world.plan(ALBUMS)
    fault = plan.fault(("molecules", 3, "agent"), "is not known")
    assert fault.message == "tasks.md:16: T005.agent: is not known"
    with pytest.raises(InvalidDocument, match=r"^tasks\.md:2: T001\.criteria: holds when nothing is done"):
        world.plan("\n- [ ] T001 One\n", Defaults(criteria=(PlannedCriterion(diff=("src/**",)),)))
    with pytest.raises(InvalidDocument, match=r"^tasks\.md: all tasks are ticked"):
        world.plan("- [x] T001 One\n")
    with pytest.raises(InvalidDocument, match=r"^tasks\.md:2: not UTF-8"):
        read_tasks(b"\n\xff", Path("/x/tasks.md"), "tasks.md")
    with pytest.raises(InvalidDocument, match=r"^tasks\.md:2: holds a NUL"):
        read_tasks(b"\n- [ ] T001 Run `make \0x`", Path("/x/tasks.md"), "tasks.md")
    with pytest.raises(InvalidDocument, match=r"^tasks\.md:1: tasks wait for each other: T001 → T002 → T001"):
        world.plan("- [ ] T001 One (depends on T002)\n- [ ] T002 Two\n")


def test_the_name_of_the_plan_follows_from_the_feature() -> None:
    def name(title: str, asked: str = "", path: str = "/p/tasks.md") -> str:
        return plan_name(read_tasks(f"# Tasks: {title}\n- [ ] T001 One\n".encode(), Path(path), "t"), asked)

    assert name("Photo albums & more!") == "Photo-albums-more"
    assert name("Photo albums", path="/p/specs/002-albums/tasks.md") == "002-albums"
    assert name("Фото").startswith("tasks-")
    assert name("Фото") != name("Альбом")
    assert name("x", "mine") == "mine"
    with pytest.raises(InvalidInput, match=r"'a b' cannot be the name of the plan"):
        name("x", "a b")


def test_a_file_outside_of_the_repository_is_no_criterion(world: World) -> None:
    text = "- [ ] T001 Write to /etc/x.toml, ../up/y.toml and a/../../z.toml\n- [ ] T002 Write it to ./in/v.toml\n"
    plan = world.plan(text)
    assert [criteria(molecule) for molecule in plan.molecules] == [["make check"], ["there: in/v.toml", "make check"]]


# ── What stays as it was ─────────────────────────────────────────────────────────────────────────────────────────


def test_pouring_again_changes_nothing_however_far_it_has_come(world: World) -> None:
    assert len(world.pour(ALBUMS)) == 10
    assert world.pour(ALBUMS) == []
    # Main has by now what the tasks were to make, and lost what they were to remove.
    world.land("T002", "T003", files=["src/db.py", "src/schema.sql", "src/data.sql", "src/albums.py"])
    assert world.pour(ALBUMS) == []
    world.land("T004", "T005", "checkpoint-2")
    assert world.pour(ALBUMS) == []


def test_ticking_what_has_landed_changes_nothing(world: World) -> None:
    world.pour(ALBUMS)
    world.land("T002", "T003", files=["src/db.py", "src/schema.sql", "src/data.sql"])
    ticked = ALBUMS.replace("[ ] T002", "[x] T002").replace("[ ] T003", "[X] T003")
    assert world.pour(ticked) == []
    assert "T002" in [molecule.id for molecule in world.plan(ticked).molecules]
    # What nobody had done here is left out, and what waited for it does not any more.
    assert world.pour(ticked.replace("[ ] T004", "[x] T004")) == ["T005"]


def test_moved_lines_and_new_text_around_the_tasks_change_nothing(world: World) -> None:
    world.pour(ALBUMS)
    assert world.pour(ALBUMS.replace("## Phase", "\nSome words.\n\n## Phase")) == []


def test_an_edited_task_is_another_one_and_so_are_only_its_kin(world: World) -> None:
    world.pour(ALBUMS)
    world.land("T002", "T003", files=["src/db.py", "src/schema.sql", "src/data.sql"])
    assert world.pour(ALBUMS.replace("Share in src/share.py", "Share quickly in src/share.py")) == ["T009"]


def test_a_task_put_before_what_has_landed_makes_no_work_of_it(world: World) -> None:
    world.pour(ALBUMS)
    world.land("T002", "T003", "T004", files=["src/db.py", "src/schema.sql", "src/data.sql"])
    more = ALBUMS.replace("- [ ] T004", "- [ ] T010 Think first\n- [ ] T004")
    assert world.pour(more) == ["T010"]
    assert named(world.plan(more), "T010").needs == ("T002", "T003")
    # What has not begun waits for it.
    assert named(
        world.plan(more.replace("T010 Think", "T011 Plan").replace("- [ ] T005", "- [ ] T012 Stop\n- [ ] T005")), "T005"
    ).needs == ("T012",)


def test_a_task_that_landed_and_one_that_now_comes_after_it_make_no_ring(world: World) -> None:
    text = "- [ ] T001 [P] One\n- [ ] T002 Two\n"
    world.pour(text)
    world.land("T001", "T002")
    turned = "- [ ] T002 Two\n- [ ] T001 One, again\n"
    plan = world.plan(turned)
    assert [(molecule.id, molecule.needs) for molecule in plan.molecules] == [("T002", ()), ("T001", ("T002",))]


def test_a_file_that_goes_and_comes_makes_no_difference_to_what_was_poured(world: World) -> None:
    world.main = {"src/db.py"}
    world.pour(ALBUMS)
    assert criteria(named(world.plan(ALBUMS), "T002")) == ["make check"]
    world.main = set()
    assert world.pour(ALBUMS) == []
    assert world.pour(ALBUMS.replace("Create src/db.py", "Create src/db.py again")) == ["T002"]


def test_other_plans_and_what_was_superseded_say_nothing(world: World) -> None:
    world.pour(ALBUMS)
    (old,) = [bead for bead in world.poured("001-albums") if bead.source.endswith("/T002")]
    world.main = {"src/db.py"}
    assert made_by(world, "001") == {}
    heir = old.evolve(id="bt-heir", created_at=NOW + timedelta(days=1))
    world.beads["bt-heir"] = heir
    world.beads[old.id] = old.evolve(dependencies=(Dependency(on="bt-heir", type=SUPERSEDES),))
    assert made_by(world, "001-albums")["T002"].molecule.id == "bt-heir"


# ── Whatever a file says ─────────────────────────────────────────────────────────────────────────────────────────

WORDS = st.sampled_from(
    [
        "in src/a.py",
        "`pytest -q`",
        "to b.md,",
        "it's",
        "$(x)",
        "(depends on T001)",
        "(depends on T002)",
        "{{id}}",
        "ünï",
    ]
)
LINES = st.one_of(
    st.sampled_from(
        ["## Phase 1: A", "## Phase 2: User Story 1 - B (Priority: P1)", "**Checkpoint**: `make x`", "### Tests"]
    ),
    st.builds(
        lambda mark, number, tags, words: f"- [{mark}] T00{number} {tags}Do {' '.join(words)}",
        st.sampled_from(" x"),
        st.integers(1, 6),
        st.sampled_from(["", "[P] ", "[US1] ", "[P] [US1] "]),
        st.lists(WORDS, max_size=4),
    ),
)


@settings(max_examples=150)
@given(lines=st.lists(LINES, min_size=1, max_size=14), main=st.sets(st.sampled_from(["src/a.py", "b.md"])))
def test_whatever_a_file_says_it_is_a_plan_or_an_error_and_pouring_twice_is_pouring_once(
    lines: list[str], main: set[str]
) -> None:
    world, text = World(), "\n".join(lines)
    world.main = main
    defaults = Defaults("tool {{title}} {{paths}}", CHECK.criteria)
    try:
        first = world.pour(text, defaults)
    except InvalidDocument:
        return
    world.main = {"src/a.py", "b.md"} - main
    assert world.pour(text, defaults) == []
    world.land(*first)
    assert world.pour(text, defaults) == []
    for molecule in world.plan(text, defaults).molecules:
        shlex.split(molecule.run)
