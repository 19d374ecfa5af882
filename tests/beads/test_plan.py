from __future__ import annotations

import codecs
import itertools
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import beads.plan
from beads import Bead, Criterion, Dependency, Store, graph
from beads.apply import Context, Draft, apply
from beads.errors import InvalidDocument
from beads.model import Terms, derived_id, read_bead, write_bead
from beads.ops import Create
from beads.plan import Plan, nearest, pour, read_plan, source_of
from beads.toml import dumps
from tests.world import ROOT, git

NOW = datetime(2026, 1, 2, 3, 4, 5, 678_901, tzinfo=UTC)
NOTHING: dict[str, Bead] = {}
EXAMPLE = (ROOT / "examples" / "plan.toml").read_bytes()

MINIMAL = """\
plan = "p"

[[molecules]]
id = "a"
title = "Do a"
goal = "a is done."
run = "make a"

  [[molecules.criteria]]
  run = "test -e a"
"""

CHAIN = """\
plan = "p"

[[molecules]]
id = "a"
title = "Do a"
goal = "a is done."

  [[molecules.steps]]
  id = "one"
  title = "First"

    [[molecules.steps.criteria]]
    file = "one"

  [[molecules.steps]]
  id = "two"
  title = "Second"

    [[molecules.steps.criteria]]
    file = "two"

  [[molecules.steps]]
  id = "three"
  title = "Third"

    [[molecules.steps.criteria]]
    file = "three"

[[molecules]]
id = "b"
title = "Do b"
goal = "b is done."
needs = ["a"]

  [[molecules.criteria]]
  file = "b"
"""


class Beads(dict[str, Bead]):
    """Beads by id: a view of a store, without one."""

    def children(self, bead_id: str) -> list[Bead]:
        return [b for b in self.values() if b.parent == bead_id]

    def steps(self, bead_id: str, *, unclosed: bool = False) -> list[Bead]:
        steps = (bead for bead in self.children(bead_id) if bead.issue_type == "step")
        return [bead for bead in steps if not (unclosed and bead.closed)]

    def merges(self, bead_id: str) -> list[Bead]:
        return [bead for bead in self.children(bead_id) if bead.merge is not None]

    def dependents(self, bead_id: str) -> list[Bead]:
        return [b for b in self.values() if bead_id in b.needs]

    def unclosed(self) -> list[Bead]:
        return [b for b in self.values() if not b.closed]

    def requests(self) -> list[Bead]:
        return [b for b in self.unclosed() if b.merge is not None]

    def ready(self, now: datetime) -> list[Bead]:
        return graph.ready(self, now)


def read(text: str) -> Plan:
    return read_plan(text.encode(), "plan.toml")


def poured(plan: Plan, there: Iterable[Bead] = (), now: datetime = NOW) -> list[Bead]:
    known = {bead.id: bead for bead in there}
    return [create.bead for create in pour(plan, "bt", "mayor", now, known.get)]


def by_source(beads: Iterable[Bead]) -> dict[str, Bead]:
    return {bead.source.removeprefix("plan:"): bead for bead in beads}


# ── What is read ────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_example_is_read_as_it_is_written() -> None:
    plan = read_plan(EXAMPLE, "examples/plan.toml")
    assert (plan.plan, plan.title) == ("add-slugs", "Readable addresses for every page")
    assert [molecule.id for molecule in plan.molecules] == ["slugify", "use-slugs", "drop-ids"]
    slugify, use, drop = plan.molecules
    assert [str(criterion) for criterion in slugify.criteria][1] == "file: text.py matches def slugify"
    assert use.needs == ("slugify",)
    assert use.priority == 1
    assert [(step.id, step.attempts) for step in use.steps] == [("address", 3), ("describe", 2)]
    assert use.steps[0].criteria[0].timeout == 60
    assert str(drop.criteria[0]) == "file: ids.csv is absent"


def test_a_step_comes_after_the_one_above_it_unless_it_says_otherwise() -> None:
    plan = read(CHAIN)
    assert plan.molecules[0].order() == {"one": (), "two": ("one",), "three": ("two",)}
    free = read(CHAIN.replace('title = "Third"', 'title = "Third"\n  needs = []'))
    assert free.molecules[0].order()["three"] == ()
    other = read(
        CHAIN.replace('title = "First"', 'title = "First"\n  needs = ["three", "three"]').replace(
            'title = "Third"', 'title = "Third"\n  needs = []'
        )
    )
    assert other.molecules[0].order() == {"one": ("three",), "two": ("one",), "three": ()}


def test_run_and_criteria_given_directly_are_one_step() -> None:
    short = read(MINIMAL)
    (step,) = short.molecules[0].work()
    assert (step.id, step.title, step.run) == ("a", "Do a", "make a")
    long = MINIMAL.replace('run = "make a"\n', '[[molecules.steps]]\nid = "a"\ntitle = "Do a"\nrun = "make a"\n')
    assert poured(short) == poured(read(long.replace("molecules.criteria", "molecules.steps.criteria")))


@pytest.mark.parametrize("mark", [b"", codecs.BOM_UTF8])
@pytest.mark.parametrize("ending", [b"\n", b"\r\n"])
def test_what_an_editor_does_to_lines_and_to_the_beginning_changes_nothing(mark: bytes, ending: bytes) -> None:
    text = mark + EXAMPLE.replace(b"\n", ending)
    assert poured(read_plan(text, "plan.toml")) == poured(read_plan(EXAMPLE, "plan.toml"))


def test_line_numbers_are_right_in_a_file_with_a_mark_and_crlf() -> None:
    text = codecs.BOM_UTF8 + MINIMAL.replace("goal", "gaol").replace("\n", "\r\n").encode()
    with pytest.raises(InvalidDocument) as caught:
        read_plan(text, "plan.toml")
    assert (caught.value.line, caught.value.key) == (6, "molecules[0].gaol")


# ── What is refused ─────────────────────────────────────────────────────────────────────────────────────────────


def changed(text: str, old: str, new: str) -> str:
    assert text.count(old) == 1, f"{old!r} is there {text.count(old)} times"
    return text.replace(old, new)


REFUSED: dict[str, tuple[str, int, str, str, str]] = {
    "unknown key of the plan": (
        changed(MINIMAL, 'plan = "p"', 'plan = "p"\ntitel = "P"'),
        2,
        "titel",
        "unknown key 'titel'",
        "'title'",
    ),
    "unknown key of a molecule": (
        changed(MINIMAL, "goal", "gaol"),
        6,
        "molecules[0].gaol",
        "unknown key 'gaol'",
        "'goal'",
    ),
    "unknown key of a step": (
        changed(CHAIN, 'title = "Second"', 'title = "Second"\n  atempts = 2'),
        18,
        "molecules[0].steps[1].atempts",
        "unknown key 'atempts'",
        "'attempts'",
    ),
    "unknown key of a criterion": (
        changed(MINIMAL, '  run = "test -e a"', '  run = "true"\n  time_out = 3'),
        11,
        "molecules[0].criteria[0].time_out",
        "unknown key 'time_out'",
        "'timeout'",
    ),
    "unknown table": (MINIMAL + "\n[[molecules.step]]\n", 12, "molecules[0].step", "unknown key 'step'", "'steps'"),
    "no name": ('[[molecules]]\nid = "a"', 0, "plan", "is missing", ""),
    "no molecules": ('plan = "p"', 0, "molecules", "is missing", ""),
    "an empty list of molecules": ('plan = "p"\nmolecules = []', 2, "molecules", "at least one molecule", ""),
    "no title": (changed(MINIMAL, 'title = "Do a"\n', ""), 3, "molecules[0].title", "is missing", ""),
    "no goal": (changed(MINIMAL, 'goal = "a is done."\n', ""), 3, "molecules[0].goal", "is missing", ""),
    "an empty goal": (changed(MINIMAL, "a is done.", "\\n "), 6, "molecules[0].goal", "must not be empty", ""),
    "a title of two lines": (changed(MINIMAL, "Do a", "Do\\na"), 5, "molecules[0].title", "one line", ""),
    "an empty title": (changed(MINIMAL, "Do a", " "), 5, "molecules[0].title", "one line", ""),
    "a name with a slash": (changed(MINIMAL, 'id = "a"', 'id = "a/b"'), 4, "molecules[0].id", "not 'a/b'", ""),
    "a name with a line feed": (changed(MINIMAL, 'id = "a"', 'id = "a\\n"'), 4, "molecules[0].id", "letters", ""),
    "a name that is too long": (changed(MINIMAL, '"p"', f'"{"p" * 65}"'), 1, "plan", "up to 64", ""),
    "a name that is no text": (changed(MINIMAL, '"p"', "3"), 1, "plan", "valid string, not 3", ""),
    "molecules that are one table": (changed(MINIMAL, "[[molecules]]", "[molecules]"), 3, "molecules", "array", ""),
    "a molecule that is no table": ('plan = "p"\nmolecules = ["a"]', 2, "molecules[0]", "a table, not 'a'", ""),
    "a criterion that is no table": (
        changed(MINIMAL, '\n  [[molecules.criteria]]\n  run = "test -e a"', 'criteria = ["test -e a"]'),
        8,
        "molecules[0].criteria[0]",
        "must be a table, not 'test -e a'",
        "",
    ),
    "needs that are one word": (changed(CHAIN, '["a"]', '"a"'), 33, "molecules[1].needs", "an array, not 'a'", ""),
    "needs that are numbers": (changed(CHAIN, '["a"]', "[1]"), 33, "molecules[1].needs[0]", "string, not 1", ""),
    "a priority in quotes": (
        changed(MINIMAL, "goal", 'priority = "1"\ngoal'),
        6,
        "molecules[0].priority",
        "integer, not '1'",
        "",
    ),
    "a priority that is true": (
        changed(MINIMAL, "goal", "priority = true\ngoal"),
        6,
        "molecules[0].priority",
        "integer, not True",
        "",
    ),
    "a priority out of range": (
        changed(MINIMAL, "goal", "priority = 5\ngoal"),
        6,
        "molecules[0].priority",
        "4, not 5",
        "",
    ),
    "no attempts": (
        changed(CHAIN, 'title = "Second"', 'title = "Second"\n  attempts = 0'),
        18,
        "molecules[0].steps[1].attempts",
        "1, not 0",
        "",
    ),
    "an empty label": (changed(MINIMAL, "goal", 'labels = ["x", ""]\ngoal'), 6, "molecules[0].labels[1]", "empty", ""),
    "an exit status in quotes": (
        MINIMAL + '  exit = "1"\n',
        11,
        "molecules[0].criteria[0].exit",
        "integer, not '1'",
        "",
    ),
    "an exit status that is true": (MINIMAL + "  exit = true\n", 11, "molecules[0].criteria[0].exit", "not True", ""),
    "an exit status there cannot be": (MINIMAL + "  exit = 256\n", 11, "molecules[0].criteria[0].exit", "255", ""),
    "a time limit without end": (MINIMAL + "  timeout = inf\n", 11, "molecules[0].criteria[0].timeout", "86400", ""),
    "a time limit that is no number": (MINIMAL + "  timeout = nan\n", 11, "molecules[0].criteria[0].timeout", "0", ""),
    "an absence that is a word": (
        changed(CHAIN, 'file = "b"', 'file = "b"\n  absent = "yes"'),
        37,
        "molecules[1].criteria[0].absent",
        "boolean, not 'yes'",
        "",
    ),
    "two kinds in one criterion": (
        MINIMAL + '  file = "a"\n',
        9,
        "molecules[0].criteria[0]",
        "exactly one of 'run', 'file', 'diff', 'review', 'approval'",
        "",
    ),
    "no kind in a criterion": (
        changed(MINIMAL, 'run = "test -e a"', "exit = 1"),
        9,
        "molecules[0].criteria[0]",
        "exactly one of",
        "",
    ),
    "a criterion outside the repository": (
        changed(CHAIN, 'file = "b"', 'file = "../b"'),
        35,
        "molecules[1].criteria[0]",
        "inside the repository",
        "",
    ),
    "a pattern that is none": (
        changed(CHAIN, 'file = "b"', 'file = "b"\n  matches = "("'),
        35,
        "molecules[1].criteria[0]",
        "not a regular expression",
        "",
    ),
    "an empty run of a molecule": (changed(MINIMAL, "make a", ""), 7, "molecules[0].run", "must not be empty", ""),
    "an empty run of a step": (
        changed(CHAIN, 'title = "First"', 'title = "First"\n  run = " \\t"'),
        11,
        "molecules[0].steps[0].run",
        "must not be empty",
        "",
    ),
    "an empty run of a criterion": (
        changed(MINIMAL, "test -e a", ""),
        10,
        "molecules[0].criteria[0].run",
        "must not be empty",
        "",
    ),
    "a run with a NUL": (changed(MINIMAL, "make a", "a\\u0000"), 7, "molecules[0].run", "NUL character", ""),
    "a file with a NUL": (
        changed(CHAIN, 'file = "b"', 'file = "b\\u0000"'),
        36,
        "molecules[1].criteria[0].file",
        "NUL character",
        "",
    ),
    "no criteria of a molecule": (
        MINIMAL[: MINIMAL.index("\n  [[")],
        3,
        "molecules[0].criteria",
        "is missing",
        "how one sees",
    ),
    "neither steps nor criteria": (
        changed(MINIMAL[: MINIMAL.index("\n  [[")], 'run = "make a"\n', ""),
        3,
        "molecules[0].steps",
        "is missing",
        "how one sees",
    ),
    "no criteria of a step": (
        changed(CHAIN, '\n    [[molecules.steps.criteria]]\n    file = "two"\n', ""),
        15,
        "molecules[0].steps[1].criteria",
        "is missing",
        "at least one",
    ),
    "criteria of a step that hold when nothing is done": (
        changed(CHAIN, '    file = "two"\n', '    diff = ["two"]\n'),
        19,
        "molecules[0].steps[1].criteria",
        "holds when nothing is done",
        "add a run or a file",
    ),
    "a diff that is no array": (
        changed(MINIMAL, '\n  run = "test -e a"', '\n  diff = "a"'),
        10,
        "molecules[0].criteria[0].diff",
        "must be an array",
        "",
    ),
    "a number of lines in words": (
        changed(MINIMAL, '\n  run = "test -e a"', '\n  diff = ["a"]\n  lines = "many"'),
        11,
        "molecules[0].criteria[0].lines",
        "integer",
        "",
    ),
    "run beside steps": (
        changed(CHAIN, 'goal = "a is done."', 'goal = "a is done."\nrun = "x"'),
        7,
        "molecules[0].run",
        "cannot stand beside steps",
        "into a step",
    ),
    "criteria beside steps": (
        changed(CHAIN, '\n[[molecules]]\nid = "b"', '\n[[molecules.criteria]]\nfile = "x"\n\n[[molecules]]\nid = "b"'),
        29,
        "molecules[0].criteria",
        "cannot stand beside steps",
        "into a step",
    ),
    "two molecules of one name": (
        changed(CHAIN, 'id = "b"', 'id = "a"'),
        30,
        "molecules[1].id",
        "already, on line 4",
        "its own",
    ),
    "two steps of one name": (
        changed(CHAIN, 'id = "three"', 'id = "one"'),
        23,
        "molecules[0].steps[2].id",
        "already, on line 9",
        "its own",
    ),
    "a step that needs nothing there is": (
        changed(CHAIN, 'title = "Third"', 'title = "Third"\n  needs = ["one", "tow"]'),
        25,
        "molecules[0].steps[2].needs[1]",
        "there is no step 'tow'",
        "'two'",
    ),
    "a step that needs one of another molecule": (
        changed(CHAIN, 'title = "Third"', 'title = "Third"\n  needs = ["b"]'),
        25,
        "molecules[0].steps[2].needs[0]",
        "there is no step 'b'",
        "one, two, three",
    ),
    "a need that cannot be an id": (
        changed(CHAIN, '["a"]', '["a b"]'),
        33,
        "molecules[1].needs[0]",
        "must be an id",
        "",
    ),
    "a molecule that needs itself": (
        changed(CHAIN, '["a"]', '["b"]'),
        33,
        "molecules[1].needs",
        "makes a cycle: b → b",
        "Remove one",
    ),
    "a cycle of molecules": (
        changed(CHAIN, 'goal = "a is done."', 'goal = "a is done."\nneeds = [\n  "b",\n]'),
        7,
        "molecules[0].needs",
        "makes a cycle: a → b → a",
        "Remove one",
    ),
    "a cycle of steps": (
        changed(CHAIN, 'title = "First"', 'title = "First"\n  needs = ["three"]'),
        11,
        "molecules[0].steps[0].needs",
        "makes a cycle: one → three → two → one",
        "Remove one",
    ),
    "a cycle of steps through one that says nothing": (
        changed(CHAIN, 'title = "Second"', 'title = "Second"\n  needs = ["three"]'),
        18,
        "molecules[0].steps[1].needs",
        "makes a cycle: two → three → two",
        "Remove one",
    ),
    "no TOML": (changed(MINIMAL, 'goal = "a', "goal = a"), 6, "", "Invalid value", ""),
    "a text without end": (changed(MINIMAL, 'done."', "done."), 6, "", "Illegal character", ""),
    "a key twice": (changed(MINIMAL, "goal", 'title = "x"\ngoal'), 6, "", "overwrite", ""),
    "a number nobody can read": (changed(MINIMAL, "goal", f"priority = {'9' * 5000}\ngoal"), 0, "", "number", ""),
    "nesting without end": (changed(MINIMAL, "goal", f"labels = {'[' * 5000}\ngoal"), 0, "", "too deep", ""),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused_with_line_and_key(case: str) -> None:
    text, line, key, problem, hint = REFUSED[case]
    with pytest.raises(InvalidDocument) as caught:
        read(text)
    error = caught.value
    assert (error.line, error.key) == (line, key), error.message
    assert problem in error.problem
    assert hint in error.hint
    assert error.message.startswith("plan.toml:" if line else "plan.toml: ")


@pytest.mark.parametrize("text,line", [(b'plan = "p"\ntitle = "\xe4"\n', 2), (codecs.BOM_UTF16_LE + b"p\0", 1)])
def test_what_is_not_utf8_is_refused(text: bytes, line: int) -> None:
    with pytest.raises(InvalidDocument, match="not UTF-8 text") as caught:
        read_plan(text, "plan.toml")
    assert caught.value.line == line


def test_the_lines_of_long_texts_are_counted() -> None:
    goal = 'goal = """\nid = "no"\n[[molecules]]\n\u2028\f\u0085\n"""'.replace("\f", "\\f")
    text = changed(changed(CHAIN, 'goal = "a is done."', goal), 'id = "b"', 'id = "a"')
    with pytest.raises(InvalidDocument) as caught:
        read(text)
    assert (caught.value.line, caught.value.key) == (34, "molecules[1].id")


@settings(max_examples=300)
@given(st.data())
def test_no_text_does_anything_but_read_or_be_refused(data: st.DataObject) -> None:
    lines = EXAMPLE.decode().splitlines()
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(lines) - 1))
        other = data.draw(st.sampled_from(lines) | st.text(max_size=20) | st.just(""))
        lines[at : at + data.draw(st.integers(0, 2))] = [other]
    text = "\n".join(lines)
    try:
        read(text)
    except InvalidDocument as error:
        line = error.line
    else:
        line = 0
    assert 0 <= line <= text.count("\n") + 2


def test_a_molecule_that_needs_nothing_there_is_names_the_nearest() -> None:
    plan = read(changed(CHAIN, '["a"]', '[\n  "a",\n  "aa",\n]'))
    with pytest.raises(InvalidDocument) as caught:
        poured(plan)
    assert (caught.value.line, caught.value.key) == (35, "molecules[1].needs[1]")
    assert "no molecule 'aa' here and no such bead" in caught.value.problem
    assert "'a'" in caught.value.hint


def test_a_hint_names_the_nearest_word_or_all_of_a_few() -> None:
    assert nearest("pyhton", ["python", "sh"]) == "Did you mean 'python'?"
    assert nearest("perl", ["python", "sh"]) == "Known: python, sh."
    assert nearest("perl", [f"x{n}" for n in range(30)]) == ""
    assert nearest("perl", []) == ""


# ── What is poured ──────────────────────────────────────────────────────────────────────────────────────────────


def test_molecules_and_steps_become_beads_in_the_order_of_the_file() -> None:
    beads = poured(read_plan(EXAMPLE, "plan.toml"))
    slugify, slugify_1, use, address, describe, drop, drop_1 = beads
    assert [bead.source for bead in beads] == [
        "plan:add-slugs/slugify",
        "plan:add-slugs/slugify/slugify",
        "plan:add-slugs/use-slugs",
        "plan:add-slugs/use-slugs/address",
        "plan:add-slugs/use-slugs/describe",
        "plan:add-slugs/drop-ids",
        "plan:add-slugs/drop-ids/drop-ids",
    ]
    assert [bead.issue_type for bead in beads] == ["molecule", "step", "molecule", "step", "step", "molecule", "step"]
    assert [address.id, describe.id] == [f"{use.id}.1", f"{use.id}.2"]
    assert (slugify_1.id, drop_1.id) == (f"{slugify.id}.1", f"{drop.id}.1")
    assert use.description.startswith("pages.address() gives")
    assert (use.priority, slugify.labels, describe.attempts_max) == (1, ("text",), 2)
    assert use.dependencies == (Dependency(on=slugify.id),)
    assert address.dependencies == (Dependency(on=use.id, type="parent-child"),)
    assert describe.dependencies == (Dependency(on=use.id, type="parent-child"), Dependency(on=address.id))
    assert drop_1.criteria == (Criterion(file="ids.csv", absent=True),)
    assert all(bead.seal == bead.digest() for bead in beads)
    assert {bead.created_by for bead in beads} == {"mayor"}


def test_everything_a_molecule_says_is_kept() -> None:
    text = changed(MINIMAL, "goal", 'labels = ["y", "x", "y"]\nagent = "claude"\nrework = "make again"\ngoal')
    root, step = poured(read(text))
    assert (root.labels, root.agent, root.rework) == (("x", "y"), "claude", "make again")
    # Whose agent a step has is not said twice: an empty one means the molecule's.
    assert (step.run, step.agent, step.rework) == ("make a", "", "")


def test_terms_of_steps_are_their_own_and_the_budget_of_a_molecule_is_its() -> None:
    text = changed(CHAIN, 'goal = "a is done."', 'goal = "a is done."\nbudget = 2.5')
    text = changed(text, 'title = "Second"', 'title = "Second"\n  best_of = 4\n  budget = 1.0')
    root, one, two, *_ = (create.bead for create in pour(read_plan(text.encode(), "p"), "bt", "ada", NOW, NOTHING.get))
    assert root.terms == Terms(budget=2.5)
    assert one.terms is None
    assert two.terms == Terms(budget=1.0, best_of=4)
    # Each of those that the best one is taken of may fail.
    assert (one.attempts_max, two.attempts_max) == (3, 4)


def test_the_ready_queue_follows_the_file() -> None:
    names = [f"m{n:02}" for n in range(30)]
    text = 'plan = "p"\n' + "".join(
        f'[[molecules]]\nid = "{name}"\ntitle = "{name}"\ngoal = "g"\n[[molecules.criteria]]\nfile = "{name}"\n'
        for name in names
    )
    beads = Beads({bead.id: bead for bead in poured(read(text))})
    assert [bead.title for bead in graph.ready(beads, NOW)] == names
    roots = [bead for bead in beads.values() if bead.issue_type == "molecule"]
    assert [bead.created_at - roots[0].created_at for bead in roots] == [timedelta(milliseconds=n) for n in range(30)]
    assert roots[0].created_at == NOW.replace(microsecond=678_000)


def test_what_is_poured_reads_back_from_the_store_as_it_is() -> None:
    beads = poured(read_plan(EXAMPLE, "plan.toml"))
    assert [read_bead(write_bead(bead), "x") for bead in beads] == beads


def test_a_need_may_be_a_bead_of_the_store() -> None:
    other = Bead(id="bt-other.1", title="Other", created_at=NOW, updated_at=NOW)
    plan = read(changed(CHAIN, '["a"]', '["bt-other.1", "a", "bt-other.1"]'))
    beads = by_source(poured(plan, [other]))
    assert beads["p/b"].needs == ("bt-other.1", beads["p/a"].id)


@pytest.mark.parametrize(
    "old,new",
    [
        ("Do a", "Do the a"),
        ("a is done.", "a is well done."),
        ('id = "two"', 'id = "zwei"'),
        ('title = "Second"', 'title = "2nd"'),
        ('title = "Second"', 'title = "Second"\n  description = "d"'),
        ('title = "Second"', 'title = "Second"\n  run = "true"'),
        ('title = "Second"', 'title = "Second"\n  needs = []'),
        ('file = "two"', 'file = "2"'),
        ('file = "two"', 'file = "two"\n    absent = true'),
        ('goal = "a is done."', 'goal = "a is done."\nrework = "true"'),
    ],
)
def test_other_work_is_another_bead_and_only_for_the_molecule_it_is_in(old: str, new: str) -> None:
    before, after = by_source(poured(read(CHAIN))), by_source(poured(read(changed(CHAIN, old, new))))
    assert before["p/a"].id != after["p/a"].id
    assert before["p/b"].id == after["p/b"].id


def test_other_needs_are_other_work() -> None:
    before, after = (
        by_source(poured(read(CHAIN))),
        by_source(poured(read(CHAIN.replace('needs = ["a"]', "needs = []")))),
    )
    assert before["p/a"].id == after["p/a"].id
    assert before["p/b"].id != after["p/b"].id


@pytest.mark.parametrize(
    "old,new",
    [
        ('goal = "a is done."', 'goal = "a is done."\npriority = 0\nlabels = ["x"]\nagent = "claude"'),
        ('title = "Second"', 'title = "Second"\n  needs = ["one"]\n  attempts = 9\n  agent = "claude"'),
        ('file = "two"', 'file = "two"\n    absent = false\n    timeout = 600'),
        ('goal = "a is done."', 'goal = "a is done."\nbudget = 2.5'),
        ('title = "Second"', 'title = "Second"\n  best_of = 4\n  budget = 1.0'),
        ('plan = "p"', '# A comment.\nplan = "p"\ntitle = "P"\ndescription = "d"'),
    ],
)
def test_what_may_be_changed_at_any_time_makes_no_other_bead(old: str, new: str) -> None:
    before, after = poured(read(CHAIN)), poured(read(changed(CHAIN, old, new)))
    assert [bead.id for bead in before] == [bead.id for bead in after]
    assert [bead.seal for bead in before] == [bead.seal for bead in after]


def test_the_order_and_number_of_molecules_do_not_change_their_ids() -> None:
    first, _, second = CHAIN.partition('\n[[molecules]]\nid = "b"')
    head, _, body = first.partition("\n")
    turned = f'{head}\n\n[[molecules]]\nid = "b"{second}{body}\n'
    assert {bead.id for bead in poured(read(CHAIN))} == {bead.id for bead in poured(read(turned))}


def test_plans_of_other_names_and_stores_of_other_prefixes_have_other_ids() -> None:
    plan = read(CHAIN)
    other = poured(read(changed(CHAIN, 'plan = "p"', 'plan = "q"')))
    assert {bead.id for bead in other}.isdisjoint(bead.id for bead in poured(plan))
    assert all(create.bead.id.startswith("x-") for create in pour(plan, "x", "mayor", NOW, NOTHING.get))


def test_an_id_that_an_unrelated_bead_has_grows() -> None:
    plan = read(CHAIN)
    wanted = poured(plan)
    stranger = Bead(id=wanted[0].id, title="Stranger", created_at=NOW, updated_at=NOW)
    grown = poured(plan, [stranger])
    assert grown[0].id[:-1] == wanted[0].id
    assert [bead.id for bead in grown[1:4]] == [f"{grown[0].id}.{n}" for n in (1, 2, 3)]
    assert grown[4].needs == (grown[0].id,)
    assert poured(plan, [stranger, *grown]) == grown
    further = Bead(id=grown[0].id, title="Stranger too", created_at=NOW, updated_at=NOW)
    assert len(poured(plan, [stranger, further])[0].id) == len(wanted[0].id) + 2


def test_an_id_grows_too_when_a_step_of_that_id_is_something_else() -> None:
    plan = read(CHAIN)
    wanted = poured(plan)
    tampered = wanted[2].evolve(title="Something else").sealed()
    assert poured(plan, [wanted[0], wanted[1], tampered])[0].id[:-1] == wanted[0].id


def test_two_molecules_whose_ids_collide_get_ids_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def colliding(prefix: str, *parts: str, length: int = 6) -> str:
        return derived_id(prefix, length=length) if length == 6 else derived_id(prefix, *parts, length=length)

    monkeypatch.setattr(beads.plan, "derived_id", colliding)
    plan = read(CHAIN)
    first = poured(plan)
    assert len({bead.id for bead in first}) == len(first)
    assert poured(plan, first) == first


def test_what_was_superseded_by_a_later_version_is_made_anew() -> None:
    plan = read(CHAIN)
    first = poured(plan)
    edited = poured(read(changed(CHAIN, "Do a", "Do the a")))
    marked = first[0].evolve(dependencies=(Dependency(on=edited[0].id, type="supersedes"),))
    again = poured(plan, [marked, *first[1:], *edited])
    assert again[0].id[:-1] == first[0].id
    assert poured(plan, [marked, *first[1:], *edited, *again]) == again


def test_what_a_person_superseded_with_something_else_is_not_made_anew() -> None:
    plan = read(CHAIN)
    first = poured(plan)
    other = Bead(id="bt-other", title="Other", created_at=NOW, updated_at=NOW)
    marked = first[0].evolve(dependencies=(Dependency(on=other.id, type="supersedes"),))
    assert [bead.id for bead in poured(plan, [marked, *first[1:], other])] == [bead.id for bead in first]


def test_a_source_names_plan_and_molecule() -> None:
    assert source_of("p", "a") == "plan:p/a"


# ── Any plan, any number of times ───────────────────────────────────────────────────────────────────────────────

_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
_commands = _texts.map(lambda text: "true " + text.replace("\0", ""))
_titles = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20).map(lambda text: "T" + text)
_criteria = st.lists(
    st.fixed_dictionaries({"run": _commands}, optional={"exit": st.integers(0, 255), "timeout": st.floats(1, 999)})
    | st.fixed_dictionaries({"file": st.sampled_from(["a", "b/c"])}, optional={"absent": st.booleans()})
    | st.fixed_dictionaries({"review": _commands})
    | st.fixed_dictionaries({"approval": _commands}),
    min_size=1,
    max_size=2,
)


@st.composite
def _graph(draw: st.DrawFn, names: list[str]) -> dict[str, list[str]]:
    """For each name the ones it needs, without cycles, but in no order the file could rely on."""
    order = draw(st.permutations(names))
    return {name: draw(st.lists(st.sampled_from(order[:n]), max_size=3)) if n else [] for n, name in enumerate(order)}


@st.composite
def _steps(draw: st.DrawFn) -> list[dict[str, Any]]:
    names = draw(st.lists(st.sampled_from(["one", "two", "three", "four"]), min_size=1, max_size=4, unique=True))
    needs = draw(st.none() | _graph(names))
    more = {"description": _texts, "run": _commands, "agent": st.just("command"), "attempts": st.integers(1, 9)}
    return [
        {
            "id": name,
            "title": draw(_titles),
            **draw(st.fixed_dictionaries({}, optional=more)),
            **({} if needs is None else {"needs": needs[name]}),
            "criteria": draw(_criteria),
        }
        for name in names
    ]


@st.composite
def documents(draw: st.DrawFn) -> bytes:
    """Any plan that is valid, as TOML."""
    names = draw(st.lists(st.from_regex(r"[a-z][a-z0-9_-]{0,5}", fullmatch=True), min_size=1, max_size=5, unique=True))
    needs = draw(_graph(names))
    more: Mapping[str, st.SearchStrategy[Any]] = {
        "priority": st.integers(0, 4),
        "labels": st.lists(st.sampled_from(["x", "y"]), max_size=3),
        "agent": st.just("command"),
        "rework": _commands,
    }
    short = st.fixed_dictionaries({"criteria": _criteria}, optional={"run": _commands})
    molecules = [
        {
            "id": name,
            "title": draw(_titles),
            "goal": "G" + draw(_texts),
            "needs": needs[name],
            **draw(st.fixed_dictionaries({}, optional=dict(more))),
            **draw(short | st.fixed_dictionaries({"steps": _steps()})),
        }
        for name in names
    ]
    return dumps({"plan": "any", "molecules": molecules})


@given(documents())
def test_any_plan_is_poured_whole_and_once(text: bytes) -> None:
    plan = read_plan(text, "plan.toml")
    first = poured(plan)
    assert len({bead.id for bead in first}) == len(first) == sum(1 + len(m.work()) for m in plan.molecules)
    assert all(bead.seal == bead.digest() for bead in first)
    assert [read_bead(write_bead(bead), "x") for bead in first] == first
    roots = {molecule.id: bead for molecule, bead in zip(plan.molecules, _roots(first), strict=True)}
    for molecule in plan.molecules:
        assert set(roots[molecule.id].needs) == {roots[need].id for need in molecule.needs}
    again = poured(plan, first, NOW + timedelta(days=1))
    assert [(b.id, b.source, b.seal, b.dependencies) for b in again] == [
        (b.id, b.source, b.seal, b.dependencies) for b in first
    ]


@given(documents())
def test_any_plan_may_be_applied_in_any_state_of_itself(text: bytes) -> None:
    creates = pour(read_plan(text, "plan.toml"), "bt", "mayor", NOW, NOTHING.get)
    draft = Draft(Beads())
    for create in (*creates, *creates):
        apply(create, draft, Context("mayor", NOW))
    assert set(draft.changed) == {create.bead.id for create in creates}
    for bead in _roots(draft.changed.values()):
        steps = graph.steps(draft, bead)
        seen: set[str] = set()
        for step in steps:
            assert seen.issuperset(step.needs)
            seen.add(step.id)


_refs = itertools.count()


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(text=documents(), times=st.integers(1, 3))
def test_any_plan_poured_into_a_store_any_number_of_times_is_there_once(repo: Path, text: bytes, times: int) -> None:
    store = Store.init(repo, "founder", ref=f"refs/beads/any-{next(_refs)}")
    plan = read_plan(text, "plan.toml")
    for turn in range(times):
        snapshot = store.snapshot()
        creates = pour(plan, snapshot.prefix, "mayor", store.clock.now(), snapshot.get)
        assert store.commit("mayor", creates).changed == (turn == 0)
    assert {bead.id for bead in store.snapshot()} == {bead.id for bead in poured(plan)}


@pytest.fixture
def pourer() -> Iterator[Callable[..., dict[str, Any]]]:
    """Lets processes pour together; see :mod:`tests.beads.pourer`."""
    command = [sys.executable, "-m", "tests.beads.pourer"]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        talk, listen = process.stdin, process.stdout

        def ask(**asked: object) -> dict[str, Any]:
            talk.write(json.dumps(asked, default=str) + "\n")
            talk.flush()
            said: dict[str, Any] = json.loads(listen.readline())
            return said

        yield ask
        talk.close()


def _said(beads: Iterable[Bead]) -> dict[str, object]:
    """What beads say but for when they were made."""
    return {b.id: b.evolve(created_at=NOW, updated_at=NOW) for b in beads}


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(text=documents(), lines=st.lists(st.just(0) | st.integers(1, 120), min_size=1, max_size=4))
def test_any_plan_poured_by_any_processes_however_they_are_killed_is_there_once(
    repo: Path, pourer: Callable[..., dict[str, Any]], text: bytes, lines: list[int]
) -> None:
    # What a power cut would do is another matter, and waiting for the disk makes this no better.
    git(repo, "config", "core.fsyncObjectFiles", "false")
    ref = f"refs/beads/any-{next(_refs)}"
    store = Store.init(repo, "founder", ref=ref)
    path = repo.parent / "any.toml"
    path.write_bytes(text)
    said = pourer(repository=repo, ref=ref, plan=path, lines=lines)
    assert said["strange"] == []
    plan = read_plan(text, "plan.toml")
    assert _said(store.snapshot()) == _said(poured(plan))
    # One transaction, whoever made it.
    assert git(repo, "rev-list", "--count", ref) == "2"
    if said["killed"] < len(lines):
        assert not said["changed"]


def _roots(beads: Iterable[Bead]) -> list[Bead]:
    return [bead for bead in beads if bead.issue_type == "molecule"]


# ── Ten thousand steps ──────────────────────────────────────────────────────────────────────────────────────────


def test_ten_thousand_steps_are_poured_without_looking_for_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr("beads.lines.places", lambda *args: asked.append(args))
    criterion = {"run": "test -e thing"}
    steps = [{"id": f"s{n}", "title": f"Step {n}", "run": "make", "criteria": [criterion]} for n in range(100)]
    names = [f"m{n}" for n in range(100)]
    text = dumps({"plan": "big", "molecules": [{"id": n, "title": n, "goal": n, "steps": steps} for n in names]})
    started = time.process_time()
    creates: list[Create] = pour(read_plan(text, "big.toml"), "bt", "mayor", NOW, NOTHING.get)
    # About one second; the bound says only that it does not grow with the square.
    assert time.process_time() - started < 20
    assert len(creates) == 10_100
    assert not asked


def test_a_chain_of_ten_thousand_molecules_is_no_cycle_and_a_ring_is() -> None:
    criteria = [{"file": "x"}]
    chain = [
        {"id": f"m{n}", "title": "t", "goal": "g", "needs": [f"m{n + 1}"] if n < 9999 else [], "criteria": criteria}
        for n in range(10_000)
    ]
    assert len(read_plan(dumps({"plan": "p", "molecules": chain}), "p").molecules) == 10_000
    chain[-1]["needs"] = ["m0"]
    with pytest.raises(InvalidDocument, match="cycle: m0 → m1 → m2") as caught:
        read_plan(dumps({"plan": "p", "molecules": chain}), "p")
    assert caught.value.key == "molecules[0].needs"
