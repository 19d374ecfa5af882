"""A tasks.md as beads: barriers, paths, checkpoints, and what could not be read."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beads import graph
from beads.errors import InvalidDocument
from beads.interchange.merge import adopted, changes
from beads.interchange.speckit import Origin, poured
from beads.interchange.tasks import commands, read
from beads.model import Bead, read_bead, write_bead
from tests.beads.strategies import NOW, Beads

FEATURE = """\
# Tasks: Photo albums

## Format: `[ID] [P?] [Story] Description`

- **[P]**: Can run in parallel

## Phase 1: Setup (Shared Infrastructure)

**Purpose**: Project initialization

- [x] T001 Create project structure
- [X] T002 [P] Initialize pyproject.toml
- [ ] T003 [P] Configure the linter in `pyproject.toml`

## Phase 2: Foundational

- [ ] T004 Set up src/db.py
- [ ] T005 [P] Add src/auth.py for FR-001 and SC-002
- [ ] T006 Wire both

**Checkpoint**: `pytest -q tests/unit` passes

## Phase 3: User Story 1 - Albums (Priority: P1) 🎯 MVP

**Goal**: See albums
**Independent Test**: Run `albums list`, look at `src/albums.py`, then `pytest -q tests/us1`

### Tests for User Story 1

- [ ] T007 [P] [US1] Contract test in tests/us1/test_albums.py

### Implementation for User Story 1

- [ ] T008 [US1] [P] Album in src/models/album.py
- [ ] T009 [P] [US1] Photo in src/models/photo.py
- [ ] T010 [US1] Service in src/service.py (depends on T008, T009)

**Checkpoint**: Story 1 works

```markdown
- [ ] T900 An example
## Phase 9: No phase
```

<!--
- [ ] T901 A sample
-->

## Phase 4: User Story 2 - Sharing (Priority: P3)

- [ ] T011 [P] [US2] Share in src/share.py
- [ ] T012 [P] [US2] Share albums in src/models/album.py (depends on T008 and T999)

**Checkpoint**: Both stories work

## Phase N: Polish

* [ ] T1000 [P] Documentation per FR-003 (missing)
- [ ] TXXX From the template
- [ ] Buy milk

## Notes

- [P] tasks = different files
"""

ORIGIN = Origin("tasks.md", "specs/001-albums/tasks.md", "001-albums")


class Store:
    """What was imported so far."""

    def __init__(self) -> None:
        self.beads: dict[str, Bead] = {}
        self.now = NOW

    def bring(self, text: str) -> tuple[list[str], list[str]]:
        """Import; returns the ids that changed, and the notes."""
        self.now += timedelta(hours=1)
        found, notes = poured(read(text, "tasks.md"), ORIGIN, "bt", "ada", self.now, self.beads.get)
        changed = []
        for new in found:
            after = adopted(self.beads.get(new.id), new).bead
            if changes(self.beads.get(new.id), after):
                changed.append(new.id)
                self.beads[new.id] = read_bead(write_bead(after), "test")
        return changed, notes

    def __getitem__(self, name: str) -> Bead:
        """The task of that id, or the first bead whose title starts so."""
        return next(b for b in self.beads.values() if b.description.startswith(f"{name}: ") or b.title.startswith(name))

    def needs(self, name: str) -> set[str]:
        """What a bead waits for, in the words of the file."""
        found = (self.beads[need] for need in self[name].needs)
        return {b.description.split(":")[0] if b.description.startswith("T") else b.title for b in found}


@pytest.fixture
def store() -> Store:
    found = Store()
    found.bring(FEATURE)
    return found


def imported(*lines: str) -> Store:
    found = Store()
    found.bring("\n".join(lines))
    return found


def test_a_phase_is_an_epic_with_tasks_and_a_checkpoint(store: Store) -> None:
    kinds = [(b.issue_type, b.title.split(" (")[0]) for b in store.beads.values() if b.parent is None]
    assert kinds == [
        ("epic", "001-albums: Setup"),
        ("epic", "001-albums: Foundational"),
        ("epic", "001-albums: User Story 1 - Albums"),
        ("epic", "001-albums: User Story 2 - Sharing"),
        ("epic", "001-albums: Polish"),
    ]
    children = [b for b in store.beads.values() if b.parent == store["001-albums: User Story 1"].id]
    assert [b.description.split(":")[0] for b in children] == ["T007", "T008", "T009", "T010", "Goal"]
    assert store["001-albums: User Story 1"].description.startswith("Goal: See albums\n\nIndependent Test: Run")


def test_phases_are_barriers_and_stories_wait_for_the_foundation_only(store: Store) -> None:
    assert store.needs("T004") == {"T001", "T003"}
    assert store.needs("T005") == store.needs("T004")
    assert store.needs("Checkpoint: Foundational") == {"T006"}
    assert store.needs("T007") == {"Checkpoint: Foundational"}
    assert store.needs("T011") == {"Checkpoint: Foundational"}
    ends = {
        "Checkpoint: User Story 1 - Albums (Priority: P1) 🎯 MVP",
        "Checkpoint: User Story 2 - Sharing (Priority: P3)",
    }
    assert store.needs("T1000") == ends


def test_tests_come_before_what_they_test(store: Store) -> None:
    assert store.needs("T008") == {"T007"}
    assert store.needs("T010") == {"T007", "T008", "T009"}


def test_a_shared_path_is_a_chain_whatever_the_mark_says(store: Store) -> None:
    assert store.needs("T003") == {"T002"}
    assert store.needs("T012") == {"Checkpoint: Foundational", "T008"}
    assert store.needs("T006") == {"T004", "T005"}


@pytest.mark.parametrize(
    "one,other,chained",
    [
        ("in src/a.py", "in `src/a.py`.", True),
        ("in ./src/a.py:12", "(src/a.py)", True),
        ("in README.md", "of README.md", True),
        ("in docs/", "in docs/", False),
        ("in tests/unit", "in tests/unit", False),
        ("see https://example.org/a.py", "see https://example.org/a.py", False),
        ("use Node.js 1.2.3, e.g. now", "use Node.js 1.2.3, e.g. now", False),
        ("in src/a.py", "in src/b.py", False),
        ("in lib/src/a.py", "in src/a.py", False),
    ],
)
def test_what_is_a_path(one: str, other: str, chained: bool) -> None:
    found = imported("## Phase 1: A", f"- [ ] T001 [P] One {one}", f"- [ ] T002 [P] Two {other}")
    assert found.needs("T002") == ({"T001"} if chained else set())


def test_a_dependency_that_is_written_turns_the_order_of_a_path_round() -> None:
    found = imported("## Phase 1: A", "- [ ] T001 [P] One in a.py (depends on T002)", "- [ ] T002 [P] Two in a.py")
    assert (found.needs("T001"), found.needs("T002")) == ({"T002"}, set())


def test_tasks_that_wait_for_each_other_are_refused_with_their_ring() -> None:
    with pytest.raises(InvalidDocument) as caught:
        imported("## Phase 1: A", "- [ ] T001 One (depends on T002)", "- [ ] T002 Two")
    assert caught.value.message.startswith("tasks.md:")
    assert "T001 → T002 → T001" in caught.value.message or "T002 → T001 → T002" in caught.value.message


def test_commands_become_criteria_and_other_words_stay_words(store: Store) -> None:
    story = store["Checkpoint: User Story 1"]
    assert [c.run for c in story.criteria] == ["albums list", "pytest -q tests/us1"]
    assert story.seal == story.digest()
    assert graph.workable(Beads(store.beads.values()), story)
    assert store["Checkpoint: User Story 2"].criteria == ()
    assert "Both stories work" in store["Checkpoint: User Story 2"].description


@pytest.mark.parametrize(
    "text,found",
    [
        ("run `make`", ["make"]),
        ("`pytest tests/a.py` passes", ["pytest tests/a.py"]),
        ("`./check.sh --all`", ["./check.sh --all"]),
        ("Execute: `shop list --json`", ["shop list --json"]),
        ("`$ cargo test`", ["cargo test"]),
        ("the `User` model in `src/user.py`", []),
        ("`GET /albums` answers", []),
        ("run `shop <name>`", []),
        ("run `pytest tests/[name].py`", []),
        ("nothing", []),
    ],
)
def test_what_is_a_command(text: str, found: list[str]) -> None:
    assert list(commands(text)) == found


def test_ticked_tasks_come_in_closed(store: Store) -> None:
    assert [store[name].outcome for name in ("T001", "T002", "T003")] == ["done", "done", None]
    assert store["T001"].close_reason == "ticked in specs/001-albums/tasks.md"
    assert [b.title for b in graph.ready(Beads(store.beads.values()), NOW)] == [store["T003"].title]


@pytest.mark.parametrize("checkpoint,status", [("it works", "closed"), ("`make check` passes", "open")])
def test_a_checkpoint_of_ticked_tasks_is_passed_unless_it_can_be_proven(checkpoint: str, status: str) -> None:
    found = imported("## Phase 1: A", "- [x] T001 One", f"**Checkpoint**: {checkpoint}")
    assert found["Checkpoint: A"].status == status


def test_labels_source_and_priority(store: Store) -> None:
    assert store["T005"].labels == ("FR-001", "SC-002")
    assert store["T008"].labels == ("US1",)
    assert store["T1000"].labels == ("FR-003", "missing")
    line = FEATURE.split("\n").index(next(text for text in FEATURE.split("\n") if "T008" in text)) + 1
    assert store["T008"].source == f"specs/001-albums/tasks.md:{line}"
    assert [store[name].priority for name in ("T001", "T008", "T011", "T1000")] == [2, 1, 3, 2]


def test_what_could_not_be_read_is_told() -> None:
    _, notes = Store().bring(FEATURE)
    assert [note.split(": ", 1)[1] for note in notes] == [
        "not a task: - [ ] TXXX From the template",
        "not a task: - [ ] Buy milk",
        "T012 depends on T999, which is not there",
    ]
    assert all(note.startswith("tasks.md:") for note in notes)


def test_code_and_comments_hold_no_tasks(store: Store) -> None:
    assert not [b for b in store.beads.values() if "T90" in b.description or "No phase" in b.title]


def test_importing_again_changes_nothing(store: Store) -> None:
    assert store.bring(FEATURE)[0] == []


def test_an_edited_file_changes_what_was_edited(store: Store) -> None:
    edited = FEATURE.replace("[ ] T003", "[x] T003").replace("Set up src/db.py", "Set up src/base.py")
    changed, _ = store.bring(edited)
    assert set(changed) == {store["T003"].id, store["T004"].id}
    assert store["T003"].closed
    assert store["T004"].title == "Set up src/base.py"
    assert store["T004"].updated_at == store.now
    assert store.bring(edited)[0] == []


def test_what_was_done_here_stays_done(store: Store) -> None:
    done = store["T003"].evolve(status="closed", outcome="done", closed_at=NOW, close_reason="by hand")
    store.beads[done.id] = done
    assert store.bring(FEATURE)[0] == []
    assert store["T003"].close_reason == "by hand"


def test_a_sealed_checkpoint_keeps_its_criteria(store: Store) -> None:
    before = store["Checkpoint: Foundational"]
    found, _ = poured(read(FEATURE.replace("tests/unit", "tests/all"), "f"), ORIGIN, "bt", "ada", NOW, store.beads.get)
    new = next(b for b in found if b.id == before.id)
    after = adopted(before, new)
    assert after.bead.criteria == before.criteria
    assert after.conflicts == ("description", "criteria")


def test_a_task_keeps_its_bead_when_it_moves() -> None:
    one = imported("## Phase 1: A", "- [ ] T001 One")
    other = imported("## Phase 0: B", "- [ ] T000 Zero", "## Phase 2: A", "- [ ] T001 One")
    assert one["T001"].id == other["T001"].id


@pytest.mark.parametrize(
    "lines,said",
    [
        (["- [ ] T001 One", "- [ ] T001 Two"], "tasks.md:2: T001 is the id of the task on line 1, too"),
        (["# Tasks: Nothing", "- [ ] one"], "tasks.md: there is no task in it"),
    ],
)
def test_a_file_that_cannot_be_followed_is_refused(lines: Iterable[str], said: str) -> None:
    with pytest.raises(InvalidDocument) as caught:
        imported(*lines)
    assert caught.value.message == said


def test_phases_of_one_number_are_two() -> None:
    found = imported(
        "## Phase 1: A", "- [ ] T001 One", "## Phase 1: B", "- [ ] T002 Two", "## More", "- [ ] T003 Three"
    )
    assert [b.title for b in found.beads.values() if b.issue_type == "epic"] == [
        "001-albums: A",
        "001-albums: B",
        "001-albums: More",
    ]
    assert (found.needs("T002"), found.needs("T003")) == ({"T001"}, {"T002"})


LINES = st.one_of(
    st.sampled_from(
        [*FEATURE.split("\n"), "```", "<!--", "-->", "- [ ] T002 [P] x (depends on T004)", "###", "\ufeff#"]
    ),
    st.text(max_size=20),
)


@given(st.lists(LINES, max_size=25))
def test_any_text_is_read_or_refused(lines: list[str]) -> None:
    found = Store()
    try:
        found.bring("\n".join(lines))
    except InvalidDocument:
        return
    assert found.bring("\n".join(lines))[0] == []
    for bead in found.beads.values():
        assert not graph.closes_cycle(Beads(found.beads.values()), bead.id, "nothing")
        assert bead.id not in graph.waits_on(Beads(found.beads.values()), bead.id)
