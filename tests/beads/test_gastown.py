"""Formulas of Gas Town's dialect: every shape becomes steps, and what has no counterpart is named."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beads.defaults import Defaults
from beads.errors import InvalidDocument, InvalidInput, NotFound
from beads.expansion import expand, remarks, sample
from beads.formula import Formula, read_formula
from beads.interchange.gastown import is_foreign, read_foreign
from beads.plan import Molecule, PlannedCriterion
from beads.toml import Document, loads

FILLER = [PlannedCriterion(run="true")]

WORKFLOW = """\
description = "Ship {{thing}} with care."
formula = "ship"
type = "workflow"
version = 3

[[steps]]
id = "design"
title = "Design {{thing}}"
description = "Think."
acceptance = "A page says how."

[[steps]]
id = "build"
title = "Build it"
needs = ["design"]

[[steps]]
id = "side"
title = "On the side"

[vars]
[vars.thing]
description = "What is shipped"
required = true
"""

CONVOY = """\
formula = "look"
type = "convoy"
version = 1
description = "Look from all sides."

[inputs.problem]
description = "What it is about"
type = "string"
required = true

[inputs.scope]
type = "string"
default = "all"

[prompts]
base = "Hello {{.leg.focus}}"

[[legs]]
id = "speed"
title = "Speed"
focus = "How fast"
description = "Measure."

[[legs]]
id = "safety"
title = "Safety"

[synthesis]
title = "All of it"
description = "Read {{.output}}."
depends_on = ["speed", "safety"]
"""

EXPANSION = """\
formula = "twice"
type = "expansion"
version = 1
description = "Do it twice."

[vars]
tone = "kind"

[[template]]
id = "{target}.draft"
title = "Draft: {target.title}"
description = "Be {tone}. {target.description} {unknown}"

[[template]]
id = "{target}.final"
title = "Again"
needs = ["{target}.draft"]
acceptance = "It is good."
"""

ASPECT = """\
formula = "careful"
type = "aspect"
version = 1

[[advice]]
target = "build"
"""

CHILD = """\
formula = "child"
type = "workflow"
version = 1
extends = ["ship"]

[vars]
colour = "red"

[[steps]]
id = "build"
title = "Build it in {{colour}}"
needs = ["design"]

[[steps]]
id = "paint"
title = "Paint"
needs = ["build"]
"""

COMPOSED = """\
formula = "composed"
version = 1
extends = ["ship"]

[compose]
aspects = ["careful"]

[[compose.expand]]
target = "build"
with = "twice"
vars = { tone = "stern" }
"""

ALL = {"ship": WORKFLOW, "look": CONVOY, "twice": EXPANSION, "careful": ASPECT, "child": CHILD, "composed": COMPOSED}


def workflow(*steps: str, more: str = "") -> str:
    return f'formula = "w"\nversion = 1\n{more}\n' + "".join(f"\n[[steps]]\n{step}\n" for step in steps)


def read(text: str, others: Mapping[str, str] = ALL) -> Formula:
    def find(name: str) -> Document:
        if name not in others:
            raise NotFound(f"there is no formula {name!r}")
        return Document(others[name].encode(), f"{name}.toml")

    document = Document(text.encode(), "f.toml")
    assert is_foreign(document.read())
    return read_foreign(document, document.read(), find)


def molecule(text: str, **values: str) -> Molecule:
    given = {name: (value,) for name, value in values.items()}
    (found,) = expand(read(text), given, no_includes, defaults=Defaults(criteria=FILLER)).molecules
    return found


def no_includes(name: str) -> Formula:
    raise NotFound(name)


def needs(found: Molecule) -> dict[str, tuple[str, ...] | None]:
    return {step.id: step.needs for step in found.steps}


def remarked(text: str) -> list[str]:
    """What is remarked on, as line and key and problem, but for criteria, which these never have."""
    formula = read(text)
    sample(formula, no_includes, FILLER)
    found = (str(remark).partition(":")[2] for remark in remarks(formula) if not remark.key.endswith(".criteria"))
    return [text.replace(": ", " ", 1) for text in found]


# ── What becomes of each type ───────────────────────────────────────────────────────────────────────────────────


def test_a_workflow_is_a_molecule_whose_steps_wait_only_for_what_they_need() -> None:
    found = molecule(WORKFLOW, thing="a boat")
    assert (found.id, found.title, found.goal) == ("ship", "ship", "Ship a boat with care.")
    assert needs(found) == {"design": (), "build": ("design",), "side": ()}
    assert found.steps[0].title == "Design a boat"
    assert found.steps[0].description == "Think."
    # What is prose to its author is a question here, and somebody has to answer it.
    assert [str(criterion) for criterion in found.steps[0].criteria] == ["review: Does this hold: A page says how."]
    assert read(WORKFLOW).kind == "workflow"
    assert remarked(WORKFLOW) == []


def test_the_legs_of_a_convoy_stand_side_by_side_and_a_synthesis_comes_after_all() -> None:
    found = molecule(CONVOY, problem="It's slow")
    assert needs(found) == {"speed": (), "safety": (), "synthesis": ("speed", "safety")}
    assert found.goal == "Look from all sides.\n\n* problem: It's slow\n* scope: all"
    assert found.steps[0].description == "Focus: How fast\n\nMeasure."
    assert found.steps[2].description == "Read {{.output}}."
    assert remarked(CONVOY) == ["15 prompts: an agent is given the goal and its step, and no template of its own"]


def test_an_expansion_alone_is_done_to_a_target_of_that_name() -> None:
    found = molecule(EXPANSION)
    assert needs(found) == {"main-draft": (), "main-final": ("main-draft",)}
    assert (found.steps[0].title, found.steps[0].description) == ("Draft: twice", "Be kind. Do it twice. {unknown}")
    other = molecule(EXPANSION, target="poem", target_title="A poem", tone="dark", target_description="")
    assert (other.steps[0].id, other.steps[0].title) == ("poem-draft", "Draft: A poem")
    assert other.steps[0].description.startswith("Be dark.")


@pytest.mark.parametrize("text", [ASPECT, ASPECT.replace('type = "aspect"\n', "")])
def test_an_aspect_is_refused_by_name(text: str) -> None:
    with pytest.raises(InvalidDocument, match="an aspect changes the steps of other formulas") as caught:
        read(text)
    assert caught.value.key == "type"


def test_the_type_is_told_by_what_there_is() -> None:
    for text, kind in [(WORKFLOW, "workflow"), (CONVOY, "convoy"), (EXPANSION, "expansion")]:
        assert read(text.replace(f'type = "{kind}"\n', "")).kind == kind


# ── Formulas of formulas ────────────────────────────────────────────────────────────────────────────────────────


def test_what_extends_another_has_its_steps_and_replaces_those_of_one_id() -> None:
    found = molecule(CHILD, thing="x")
    assert needs(found) == {"design": (), "build": ("design",), "side": (), "paint": ("build",)}
    assert [step.title for step in found.steps] == ["Design x", "Build it in red", "On the side", "Paint"]
    with pytest.raises(InvalidDocument) as caught:
        expand(read(CHILD), {"thing": ["x"]}, no_includes)
    assert (caught.value.source, caught.value.line, caught.value.key) == ("ship.toml", 17, "steps[2].criteria")


def test_an_expansion_takes_the_place_of_a_step() -> None:
    after = COMPOSED.replace("[compose]", '[[steps]]\nid = "sell"\nneeds = ["build"]\n\n[compose]')
    found = molecule(after, thing="x")
    assert needs(found) == {
        "design": (),
        "build-draft": ("design",),
        "build-final": ("build-draft",),
        "side": (),
        "sell": ("build-final",),
    }
    assert found.steps[1].title == "Draft: Build it"
    assert found.steps[1].description.startswith("Be stern.")
    assert "6 compose.aspects: aspects are not applied" in remarked(COMPOSED)


def test_a_step_may_ask_for_an_expansion_itself_and_a_pattern_for_several() -> None:
    inline = workflow('id = "a"\nexpand = "twice"\nexpand_vars = { tone = "dry" }', 'id = "b"\nneeds = ["a"]')
    assert needs(molecule(inline)) == {"a-draft": (), "a-final": ("a-draft",), "b": ("a-final",)}
    several = (
        workflow('id = "x.1"', 'id = "x.2"\nneeds = ["x.1"]', 'id = "y"')
        + '[[compose.map]]\nselect = "x.*"\nwith = "twice"\n'
    )
    assert needs(molecule(several)) == {
        "x-1-draft": (),
        "x-1-final": ("x-1-draft",),
        "x-2-draft": ("x-1-final",),
        "x-2-final": ("x-2-draft",),
        "y": (),
    }


def test_branches_lie_between_two_steps() -> None:
    steps = [f'id = "{name}"' for name in "abcd"]
    rule = '[[compose.branch]]\nfrom = "a"\nsteps = ["b", "c"]\njoin = "d"\n'
    assert needs(molecule(workflow(*steps) + rule)) == {"a": (), "b": ("a",), "c": ("a",), "d": ("b", "c")}


# ── Steps ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_step_comes_after_its_parts_and_they_after_what_it_needs() -> None:
    text = workflow('id = "first"', 'id = "all"\ntype = "parallel"\nneeds = ["first"]', 'id = "last"\nneeds = ["all"]')
    text = text.replace(
        'needs = ["first"]', 'needs = ["first"]\n[[steps.children]]\nid = "p"\n[[steps.children]]\nid = "q"'
    )
    assert needs(molecule(text)) == {
        "first": (),
        "p": ("first",),
        "q": ("first",),
        "all": ("first", "p", "q"),
        "last": ("all",),
    }
    assert remarked(text) == ["10 steps[1].type: has no counterpart: a step is a step"]


def test_a_loop_is_its_body_again_and_again() -> None:
    body = '[[steps.loop.body]]\nid = "one"\ntitle = "Move {n}"\n[[steps.loop.body]]\nid = "two"\nneeds = ["one"]'
    text = workflow(
        'id = "a"',
        f'id = "l"\nneeds = ["a"]\n[steps.loop]\nrange = "3..4"\nvar = "n"\n{body}',
        'id = "z"\nneeds = ["l"]',
    )
    found = molecule(text)
    assert needs(found) == {
        "a": (),
        "l-iter1-one": ("a",),
        "l-iter1-two": ("l-iter1-one",),
        "l-iter2-one": ("l-iter1-two",),
        "l-iter2-two": ("l-iter2-one",),
        "z": ("l-iter2-two",),
    }
    assert [step.title for step in found.steps if step.id.endswith("one")] == ["Move 3", "Move 4"]
    assert len(molecule(text.replace('range = "3..4"', "count = 5")).steps) == 12
    until = text.replace('range = "3..4"', "until = \"a.status == 'done'\"\nmax = 3")
    assert len(molecule(until).steps) == 4
    assert remarked(until) == ["12 steps[1].loop.until: is not evaluated: the steps are done once"]


@pytest.mark.parametrize(
    "gate,asked,dropped",
    [
        ('{ type = "human", id = "the owner" }', "May this begin: Ship (the owner)", []),
        ('{ type = "mail", timeout = "1h" }', "May this begin: Ship", ["12 steps[1].gate.timeout"]),
    ],
)
def test_a_gate_that_a_person_opens_is_a_question_before_its_step(gate: str, asked: str, dropped: list[str]) -> None:
    text = workflow('id = "a"', f'id = "b"\ntitle = "Ship"\nneeds = ["a"]\ngate = {gate}', 'id = "c"\nneeds = ["b"]')
    found = molecule(text)
    assert needs(found) == {"a": (), "b-gate": ("a",), "b": ("b-gate",), "c": ("b",)}
    gated = found.steps[1]
    assert [str(criterion) for criterion in gated.criteria] == [f"approval: {asked}"]
    assert (gated.agent, gated.run) == ("command", "")
    assert [remark.partition(":")[0] for remark in remarked(text)] == dropped


@pytest.mark.parametrize("gate", ['{ type = "timer", timeout = "1h" }', '{ type = "conditional", condition = "x" }'])
def test_other_gates_are_remarked_on(gate: str) -> None:
    text = workflow(f'id = "a"\ngate = {gate}')
    assert remarked(text) == ["7 steps[0].gate: this kind of gate has no counterpart"]


@pytest.mark.parametrize(
    "condition,there",
    [
        ("{{x}}", True),
        ("!{{x}}", False),
        ("{{x}} == 'yes'", True),
        ('{{x}} != \\"yes\\"', False),
        ("{{x}} == no", False),
        ("{{unset}}", False),
        ("!{{unset}}", True),
    ],
)
def test_conditions_are_ours(condition: str, there: bool) -> None:
    text = workflow(f'id = "a"\ncondition = "{condition}"', 'id = "b"\nneeds = ["a"]', more='[vars]\nx = "yes"\n')
    assert ("a" in needs(molecule(text))) == there


def test_a_program_that_checks_is_a_criterion_and_attempts_are_counted() -> None:
    check = 'check = { mode = "exec", path = "./ok.sh", timeout = "1m30s" }'
    text = workflow(f'id = "a"\n[steps.ralph]\nmax_attempts = 5\n{check}', 'id = "b"\n[steps.retry]\nmax_attempts = 2')
    first, second = molecule(text).steps
    assert (str(first.criteria[0]), first.attempts, second.attempts) == ("run: ./ok.sh (within 90 s)", 5, 2)
    assert remarked(text) == []


def test_notes_are_told_and_both_kinds_of_needs_count() -> None:
    text = workflow(
        'id = "a"',
        'id = "b"\nnotes = "Mind."',
        'id = "c"\nneeds = ["a"]\ndepends_on = ["b", "a"]\nwaits_for = "children-of(a)"',
    )
    found = molecule(text)
    assert found.steps[1].description == "Mind."
    assert needs(found)["c"] == ("a", "b")


# ── Variables ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_variables_are_texts_or_tables() -> None:
    variables = (
        '[vars]\nplain = "p"\nodd-name = "o"\nnumber = 3\n[vars.choice]\nenum = ["x", "y"]\ndefault = ""\n'
        '[vars.match]\npattern = "[0-9]"\ntype = "int"\n[vars.both]\nrequired = true\ndefault = "b"\n'
        "[vars.n]\ndefault = 3\nunknown = 1\n[vars.used]\n[vars.unused]\n"
    )
    text = workflow('id = "a"\ntitle = "{{plain}} {{used}} {{odd-name}}"', more=variables)
    formula = read(text)
    assert {name: (one.value, one.required) for name, one in formula.vars.items()} == {
        "plain": ("p", False),
        "choice": ("", False),
        "match": ("", False),
        "both": ("b", False),
        "n": ("3", False),
        "used": ("", True),
        "unused": ("", False),
    }
    assert molecule(text, used="u", match="a1b").steps[0].title == "p u {{odd-name}}"
    with pytest.raises(InvalidInput, match="match cannot be 'ab'"):
        molecule(text, used="u", match="ab")
    assert remarked(text) == [
        "5 vars.odd-name: cannot be a variable's name here, and is left as it is",
        "6 vars.number: is neither a text nor a table",
        "12 vars.match.type: is not looked at: every value is a text",
        "14 vars.both.required: has no effect beside a default",
        "17 vars.n.default: is read as the text '3'",
        "18 vars.n.unknown: has no counterpart here",
    ]


def test_what_is_not_declared_is_left_as_it_is_with_a_remark() -> None:
    text = workflow(
        'id = "a"\ndescription = "{{#if x}} {{agent}} {{else}} {{agent}} {{.Go}}"', more='description = "{{what}}"'
    )
    assert molecule(text).steps[0].description == "{{#if x}} {{agent}} {{else}} {{agent}} {{.Go}}"
    assert remarked(text) == [
        "3 description: {{what}} is not declared, and left as it is",
        "7 steps[0].description: {{agent}} is not declared, and left as it is",
        "7 steps[0].description: {{else}} is not declared, and left as it is",
    ]


def test_title_and_goal_may_be_variables_of_these_names() -> None:
    text = workflow('id = "a"', more='[vars]\ntitle = "T"\ndesc = "D"')
    assert (molecule(text).title, molecule(text).goal) == ("T", "D")


# ── What has no counterpart ─────────────────────────────────────────────────────────────────────────────────────


def test_nothing_is_left_out_without_a_remark() -> None:
    step = (
        'id = "a"\npriority = 1\nlabels = ["x"]\ntags = ["y"]\nassignee = "me"\nparallel = true\ninteractive = true\n'
        'metadata = { k = "v" }\nwaits_for = "all-children"\nmade_up = 1'
    )
    more = (
        'pour = true\nphase = "vapor"\nreview_only = true\nmade_up = 1\nsquash = { trigger = "on_complete" }\n'
        "presets = {}\noutput = {}\npointcuts = []"
    )
    found = remarked(workflow(step, more=more) + '[[compose.gate]]\nbefore = "a"\ncondition = "x"\n')
    of_step = ["priority", "labels", "tags", "assignee", "parallel", "interactive", "metadata", "made_up"]
    of_all = ["pour", "phase", "review_only", "made_up", "squash", "presets", "output", "pointcuts"]
    keys = [line.split(" ")[1].rstrip(":") for line in found]
    assert keys == ["steps[0].waits_for", "compose.gate", *(f"steps[0].{key}" for key in of_step), *of_all]


# ── What is refused ─────────────────────────────────────────────────────────────────────────────────────────────

REFUSED: dict[str, tuple[str, int, str, str]] = {
    "an unknown type": (WORKFLOW.replace('"workflow"', '"workflw"'), 3, "type", "there is no type 'workflw'"),
    "no type that could be told": ('formula = "x"\nversion = 1\n', 0, "", "has neither steps nor legs nor a template"),
    "a name that is a table": ('version = 1\n[formula]\nname = "x"\n', 2, "formula", "must be the formula's name"),
    "no steps": ('formula = "x"\ntype = "workflow"\n', 0, "steps", "at least one step"),
    "no legs": ('formula = "x"\ntype = "convoy"\n', 0, "legs", "at least one leg"),
    "a step without an id": (workflow('title = "x"'), 5, "steps[0].id", "is missing"),
    "two steps of one id": (workflow('id = "a"', 'id = "a"'), 9, "steps[1].id", "already, on line 6"),
    "a need that is not there": (workflow('id = "a"\nneeds = ["b"]'), 7, "steps[0].needs[0]", "there is no step 'b'"),
    "a cycle": (workflow('id = "a"\nneeds = ["b"]', 'id = "b"\nneeds = ["a"]'), 7, "steps[0].needs", "a → b → a"),
    "needs that are a text": (workflow('id = "a"\nneeds = "b"'), 7, "steps[0].needs", "must be an array, not 'b'"),
    "a title that is a number": (workflow('id = "a"\ntitle = 3'), 7, "steps[0].title", "must be a text, not 3"),
    "steps that are a table": ('formula = "x"\nversion = 1\n[steps]\nid = "a"\n', 3, "steps", "must be an array"),
    "a leg that is not there": (
        CONVOY.replace('"safety"]', '"safty"]'),
        31,
        "synthesis.depends_on[1]",
        "no leg 'safty'",
    ),
    "a parent that is not there": (CHILD.replace('["ship"]', '["shp"]'), 4, "extends[0]", "there is no formula 'shp'"),
    "a parent that is itself": (CHILD.replace('["ship"]', '["child"]'), 4, "extends[0]", "child → child"),
    "an expansion of no step": (COMPOSED.replace('"build"', '"bild"'), 9, "compose.expand[0].target", "no step 'bild'"),
    "an expansion that is none": (
        COMPOSED.replace('"twice"', '"ship"'),
        8,
        "compose.expand[0]",
        "ship is no expansion",
    ),
    "a loop without an end": (
        workflow('id = "a"\nloop = { body = [{ id = "b" }] }'),
        7,
        "steps[0].loop.count",
        "how often",
    ),
    "a loop without a body": (workflow('id = "a"\nloop = { count = 2 }'), 7, "steps[0].loop.body", "at least one step"),
    "a range of names": (
        workflow('id = "a"\nloop = { range = "1..{n}", body = [{ id = "b" }] }'),
        7,
        "steps[0].loop.range",
        "how often",
    ),
    "a condition of another language": (
        workflow('id = "a"\ncondition = "a.status == 1"'),
        7,
        "steps[0].condition",
        "is no condition",
    ),
    "a default that is no choice": (
        workflow('id = "a"', more='[vars.x]\nenum = ["a"]\ndefault = "b"'),
        5,
        "vars.x.default",
        "cannot be 'b'",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused_with_line_and_key(case: str) -> None:
    text, line, key, problem = REFUSED[case]
    with pytest.raises(InvalidDocument) as caught:
        sample(read(text), no_includes, FILLER)
    assert (caught.value.line, caught.value.key) == (line, key), caught.value.message
    assert problem in caught.value.problem


def test_formulas_that_extend_each_other_are_refused_with_the_chain() -> None:
    others = {
        "a": CHILD.replace("child", "a").replace("ship", "b"),
        "b": CHILD.replace("child", "b").replace("ship", "a"),
    }
    with pytest.raises(InvalidDocument, match="a → b → a"):
        read(others["a"], others)


def test_steps_without_criteria_are_refused_when_poured_and_one_remark_when_looked_at() -> None:
    formula = read(WORKFLOW)
    with pytest.raises(InvalidDocument) as caught:
        expand(formula, {"thing": ["x"]}, no_includes)
    assert (caught.value.line, caught.value.key) == (17, "steps[2].criteria")
    assert "--criterion" in caught.value.hint
    (last,) = [remark for remark in remarks(formula) if remark.key.endswith("criteria")]
    assert "the first of 2" in last.problem


@pytest.mark.parametrize(
    "text,foreign",
    [
        (WORKFLOW, True),
        (CONVOY, True),
        ('formula = "x"\n[[steps]]\nid = "a"\n', True),
        ('formula = "x"\ntitle = "t"\n[[steps]]\nid = "a"\nacceptance = "b"\n', True),
        ('formula = "x"\ntitle = "t"\ngoal = "g"\n[[steps]]\nid = "a"\n', False),
        ('formula = "x"\n[[steps]]\nid = "a"\ncriteria = []\n', False),
        ('formula = "x"\ntitle = "t"\nsteps = 3\n', False),
    ],
)
def test_the_dialect_is_told_by_its_keys(text: str, foreign: bool) -> None:
    assert is_foreign(loads(text.encode(), "f.toml")) == foreign


@settings(max_examples=200)
@given(st.data())
def test_no_text_does_anything_but_read_or_be_refused(data: st.DataObject) -> None:
    text = data.draw(st.sampled_from([WORKFLOW, CONVOY, EXPANSION, CHILD, COMPOSED]))
    lines = text.splitlines()
    pool = [line for one in ALL.values() for line in one.splitlines()]
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(lines) - 1))
        other = data.draw(st.sampled_from(pool) | st.text(max_size=20) | st.just("x = 3"))
        lines[at : at + data.draw(st.integers(0, 2))] = [other]
    document = Document("\n".join(lines).encode(), "f.toml")

    def find(name: str) -> Document:
        return Document(ALL[name].encode(), name) if name in ALL else no_documents(name)

    with contextlib.suppress(InvalidInput):
        facts = document.read()
        if "formula" in facts:
            formula = read_foreign(document, facts, find) if is_foreign(facts) else read_formula(document, facts)
            sample(formula, no_includes, FILLER)


def no_documents(name: str) -> Document:
    raise NotFound(name)
