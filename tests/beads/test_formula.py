from __future__ import annotations

import contextlib
import json
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beads import Store
from beads.catalogue import BUILT_IN, Catalogue, Shelf
from beads.errors import InvalidDocument, InvalidInput, NotFound, TownError
from beads.expansion import expand, remarks, sample
from beads.formula import Formula, InvalidValue, instance, read_formula
from beads.plan import Molecule, Plan, PlannedCriterion, read_plan
from beads.toml import Document, dumps
from roles.proposal import accept, propose_plan
from tests.world import commit, git

HEAD = """\
formula = "f"
title = "Do {{what}}"
goal = "{{what}} is done."

[vars.what]
default = "it"

[vars.area]
default = "core"
choices = ["core", "ui"]

[vars.files]
default = ["a.py", "b c.py"]
"""

PLAIN = """
[[steps]]
id = "one"
title = "First {{what}}"
criteria = [{ file = "one" }]

[[steps]]
id = "two"
title = "Second"
criteria = [{ file = "two" }]

[[steps]]
id = "three"
title = "Third"
criteria = [{ file = "three" }]
"""


def read(text: str, source: str = "f.toml") -> Formula:
    document = Document(text.encode(), source)
    return read_formula(document, document.read())


def expanded(text: str, others: Mapping[str, str] | None = None, **given: str | Sequence[str]) -> Molecule:
    return planned(text, others, **given).molecules[0]


def planned(text: str, others: Mapping[str, str] | None = None, **given: str | Sequence[str]) -> Plan:
    values = {name: (value,) if isinstance(value, str) else value for name, value in given.items()}
    return expand(read(text), values, finder(others or {}))


def finder(others: Mapping[str, str]) -> Any:
    def find(name: str) -> Formula:
        if name not in others:
            raise NotFound(f"there is no formula {name!r}", "Known: none.")
        return read(others[name], f"{name}.toml")

    return find


def needs(molecule: Molecule) -> dict[str, tuple[str, ...] | None]:
    return {step.id: step.needs for step in molecule.steps}


def step(name: str, more: str = "") -> str:
    return f'\n[[steps]]\nid = "{name}"\ntitle = "Do {name}"\ncriteria = [{{ file = "x" }}]\n{more}\n'


def changed(text: str, old: str, new: str) -> str:
    assert text.count(old) == 1, f"{old!r} is there {text.count(old)} times"
    return text.replace(old, new)


# ── Values and where they go ────────────────────────────────────────────────────────────────────────────────────


def test_a_formula_becomes_a_plan_of_one_molecule() -> None:
    plan = planned(HEAD + PLAIN, what="that")
    (molecule,) = plan.molecules
    assert (molecule.id, molecule.title, molecule.goal) == ("f", "Do that", "that is done.")
    assert [step.title for step in molecule.steps] == ["First that", "Second", "Third"]
    assert needs(molecule) == {"one": (), "two": ("one",), "three": ("two",)}


def test_everything_a_plan_has_may_be_in_a_formula_with_values() -> None:
    text = changed(
        HEAD,
        "goal =",
        'priority = 0\nlabels = ["x-{{area}}"]\nagent = "claude"\nbudget = 9.5\nrework = "redo {{what}}"\ngoal =',
    )
    more = 'description = "See {{what}}."\nrun = "make {{what}}"\nagent = "nux"\nattempts = 9\nbest_of = 2\n'
    criteria = (
        'criteria = [{ run = "test {{what}}", exit = 1, timeout = 60 }, '
        '{ file = "{{area}}/x", matches = "^{{what}}$" }, { diff = ["{{area}}/**", "{{files}}"], lines = 9 }]\n'
    )
    molecule = expanded(text + f'[[steps]]\nid = "{{{{area}}}}-one"\ntitle = "T"\n{more}{criteria}', what="a.b c")
    assert (molecule.priority, molecule.labels, molecule.agent, molecule.rework) == (
        0,
        ("x-core",),
        "claude",
        "redo 'a.b c'",
    )
    (one,) = molecule.steps
    assert (molecule.budget, one.best_of) == (9.5, 2)
    assert (one.id, one.description, one.run, one.agent, one.attempts) == (
        "core-one",
        "See a.b c.",
        "make 'a.b c'",
        "nux",
        9,
    )
    assert [str(criterion) for criterion in one.criteria] == [
        "run: test 'a.b c' (exit 1) (within 60 s)",
        r"file: core/x matches ^a\.b\ c$",
        "diff: core/** a.py b c.py (at most 9 lines)",
    ]


@settings(max_examples=60)
@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=40).filter(str.strip))
def test_any_text_is_data_wherever_it_goes(value: str) -> None:
    molecule = expanded(HEAD + PLAIN + step("four", 'run = "printf %s {{what}}"'), what=value)
    assert molecule.title == f"Do {value}"
    assert subprocess.check_output(["sh", "-c", molecule.steps[-1].run]).decode() == value


@pytest.mark.parametrize(
    "given,variable,said,hint",
    [
        ({"waht": ["x"]}, "waht", "f has no variable 'waht'", "Did you mean 'what'?"),
        ({"area": ["uo"]}, "area", "area cannot be 'uo'", "Did you mean 'ui'?"),
        ({"area": ["ui", "core"]}, "area", "area is given 2 times", "Give it once."),
        ({"size": ["12x"]}, "size", "size cannot be '12x'", "It must match [0-9]+ in full."),
        ({"size": [""]}, "size", "size is given without a value", ""),
        ({"what": ["a\0"]}, "what", "NUL", ""),
        ({"what": ["x"]}, "", "f needs values for size, name", "size (How big.); name (not described)"),
    ],
)
def test_values_that_cannot_be_are_named_with_what_to_do(
    given: Mapping[str, Sequence[str]], variable: str, said: str, hint: str
) -> None:
    required = (
        '[vars.size]\nrequired = true\npattern = "[0-9]+"\ndescription = "How big."\n[vars.name]\nrequired = true\n'
    )
    filled = {"size": ["1"], "name": ["n"], **given} if variable else given
    with pytest.raises(InvalidValue) as caught:
        expand(read(HEAD + required + PLAIN), filled, finder({}))
    assert caught.value.variable == variable
    assert said in caught.value.message
    assert hint in caught.value.hint


def test_a_list_is_given_value_by_value_or_line_by_line() -> None:
    text = HEAD + step("s", 'for_each = "files"').replace("Do s", "{{item}}")
    for said in (["x", "y"], ["x\ny\n"], ["x", "\n\ny"]):
        assert [one.title for one in expanded(text, files=said).steps] == ["x", "y"]
    assert planned(text, files=["x", "y"]).plan == planned(text, files=["x\ny\n"]).plan


# ── Steps that are there or not, once or often ──────────────────────────────────────────────────────────────────


def test_for_each_makes_a_step_for_each_value_and_who_needs_it_needs_all() -> None:
    text = HEAD + step("a") + step("m", 'for_each = "files"\nrun = "edit {{item}}"') + step("z")
    molecule = expanded(text)
    assert needs(molecule) == {"a": (), "m-1": ("a",), "m-2": ("a",), "z": ("m-1", "m-2")}
    assert [one.run for one in molecule.steps[1:3]] == ["edit a.py", "edit 'b c.py'"]


def test_an_id_with_the_item_in_it_is_not_numbered_and_can_be_needed_alone() -> None:
    text = (
        HEAD
        + step("m-{{item}}", 'for_each = "files"')
        + step("t-{{item}}", 'for_each = "files"\nneeds = ["m-{{item}}"]')
    )
    all_of = step("z", 'needs = ["m-{{item}}"]')
    assert needs(expanded(text + all_of, files=["a", "b"])) == {
        "m-a": (),
        "m-b": (),
        "t-a": ("m-a",),
        "t-b": ("m-b",),
        "z": ("m-a", "m-b"),
    }


def test_what_needed_a_step_that_is_not_there_needs_what_that_needed() -> None:
    text = HEAD + step("a") + step("b", 'when = "{{area}} == ui"') + step("c", 'for_each = "files"') + step("d")
    assert needs(expanded(text)) == {"a": (), "c-1": ("a",), "c-2": ("a",), "d": ("c-1", "c-2")}
    assert needs(expanded(text, files=[""])) == {"a": (), "d": ("a",)}
    assert needs(expanded(text, area="ui", files=[""])) == {"a": (), "b": ("a",), "d": ("b",)}


def test_steps_may_need_what_is_written_below_them() -> None:
    text = HEAD + step("a", 'needs = ["b"]\nwhen = "!{{what}}"') + step("c", 'needs = ["a"]') + step("b", "needs = []")
    assert needs(expanded(text)) == {"c": ("b",), "b": ()}


def test_a_value_of_the_list_may_be_left_out_by_a_condition() -> None:
    text = HEAD + step("m", 'for_each = "files"\nwhen = "{{item}} != a.py"') + step("z")
    assert needs(expanded(text)) == {"m-2": (), "z": ("m-2",)}


@pytest.mark.parametrize(
    "when,there",
    [
        ("{{what}}", True),
        ("!{{what}}", False),
        ("{{no}}", False),
        ("! {{ no }}", True),
        ("{{none}}", False),
        ("{{files}}", True),
        ("{{area}} == core", True),
        ("{{area}}==core", True),
        ("{{area}} != core", False),
        ("{{area}} == ", False),
        ("{{what}} == {{what}}", True),
    ],
)
def test_conditions(when: str, there: bool) -> None:
    variables = '[vars.no]\ndefault = "false"\n[vars.none]\n'
    text = HEAD + variables + step("a", f'when = "{when}"') + step("b")
    assert ("a" in needs(expanded(text))) == there


def test_a_formula_that_leaves_nothing_to_do_is_refused() -> None:
    with pytest.raises(InvalidDocument) as caught:
        expanded(HEAD + step("a", 'when = "!{{what}}"') + step("b", 'for_each = "files"'), files=[""])
    assert (caught.value.line, caught.value.key) == (15, "steps")
    assert "leave nothing to do" in caught.value.problem


# ── Formulas in formulas ────────────────────────────────────────────────────────────────────────────────────────

LINT = """\
formula = "lint"
title = "Lint"
goal = "Lint."

[vars.path]
required = true
description = "What to look at."

[[steps]]
id = "format"
title = "Format {{path}}"
criteria = [{ run = "fmt {{path}}" }]
needs = []

[[steps]]
id = "types"
title = "Types of {{path}}"
criteria = [{ run = "types {{path}}" }]
needs = []
"""


def include(name: str, formula: str, more: str = "") -> str:
    return f'\n[[steps]]\nid = "{name}"\ninclude = "{formula}"\n{more}\n'


def test_the_steps_of_an_included_formula_are_in_its_place() -> None:
    text = HEAD + step("a") + include("lint", "lint", 'vars = { path = "{{area}} x" }') + step("z")
    molecule = expanded(text, {"lint": LINT})
    assert needs(molecule) == {"a": (), "lint-format": ("a",), "lint-types": ("a",), "z": ("lint-format", "lint-types")}
    assert molecule.steps[1].title == "Format core x"
    assert molecule.steps[1].criteria[0].run == "fmt 'core x'"


def test_an_included_formula_may_be_repeated_and_left_out() -> None:
    again = include("l", "lint", 'for_each = "files"\nwhen = "{{item}} != a.py"\nvars = { path = "{{item}}" }')
    molecule = expanded(HEAD + step("a") + again + step("z"), {"lint": LINT})
    assert needs(molecule) == {"a": (), "l-2-format": ("a",), "l-2-types": ("a",), "z": ("l-2-format", "l-2-types")}


def test_a_list_is_handed_on_whole() -> None:
    inner = HEAD.replace('"f"', '"inner"') + step("m", 'for_each = "files"')
    found = expanded(
        HEAD + include("i", "inner", 'vars = { files = "{{files}}" }'), {"inner": inner}, files=["1", "2", "3"]
    )
    assert list(needs(found)) == ["i-m-1", "i-m-2", "i-m-3"]


def test_what_is_wrong_in_an_included_formula_is_named_in_its_file() -> None:
    wrong = changed(LINT, 'run = "types {{path}}"', 'rnu = "types"')
    with pytest.raises(InvalidDocument) as caught:
        expanded(HEAD + include("l", "lint", 'vars = { path = "x" }'), {"lint": wrong})
    assert (caught.value.source, caught.value.line, caught.value.key) == ("lint.toml", 18, "steps[1].criteria[0].rnu")
    assert "unknown key 'rnu'" in caught.value.problem
    assert caught.value.hint == "Did you mean 'run'?"


def test_formulas_that_lead_back_to_themselves_are_refused_with_the_chain() -> None:
    one = LINT.replace('"lint"', '"one"') + include("x", "two", 'vars = { path = "p" }')
    two = LINT.replace('"lint"', '"two"') + include("y", "one", 'vars = { path = "p" }')
    with pytest.raises(InvalidDocument) as caught:
        expanded(HEAD + include("i", "one", 'vars = { path = "p" }'), {"one": one, "two": two})
    assert (caught.value.source, caught.value.key) == ("two.toml", "steps[2].include")
    assert caught.value.problem == "leads back to itself: one → two → one"


def test_formulas_that_double_each_time_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("beads.expansion.STEPS_MAX", 1_000)
    others = {
        f"d{n}": HEAD.replace('"f"', f'"d{n}"') + include("a", f"d{n + 1}") + include("b", f"d{n + 1}")
        for n in range(20)
    }
    others["d20"] = HEAD + PLAIN
    with pytest.raises(InvalidDocument, match="more than 1000 steps"):
        expanded(others["d0"], others)


# ── What is refused, with line and key ──────────────────────────────────────────────────────────────────────────

BOTH = HEAD + PLAIN
REFUSED: dict[str, tuple[str, int, str, str, str]] = {
    "unknown key": (changed(BOTH, "goal", "gaol"), 3, "gaol", "unknown key 'gaol'", "'goal'"),
    "unknown key of a variable": (
        changed(BOTH, "choices", "choises"),
        10,
        "vars.area.choises",
        "unknown key",
        "'choices'",
    ),
    "unknown key of a step": (
        changed(BOTH, 'title = "Second"', 'titel = "S"'),
        22,
        "steps[1].titel",
        "unknown",
        "'title'",
    ),
    "unknown key of a criterion": (
        changed(BOTH, 'file = "two"', 'flie = "two"'),
        23,
        "steps[1].criteria[0].flie",
        "unknown key",
        "'file'",
    ),
    "a step without a title": (changed(BOTH, 'title = "Second"', ""), 20, "steps[1].title", "is missing", ""),
    "a name that is not declared": (
        changed(BOTH, 'title = "Second"', 'title = "{{waht}}"'),
        22,
        "steps[1].title",
        "{{waht}} is not declared",
        "'what'",
    ),
    "a name that is not declared in the goal": (
        changed(BOTH, "{{what}} is done.", "{{it}} is."),
        3,
        "goal",
        "{{it}} is not declared",
        "Known: what, area, files.",
    ),
    "a name that is not declared in a criterion": (
        changed(BOTH, 'file = "two"', 'file = "{{x}}"'),
        23,
        "steps[1].criteria[0].file",
        "{{x}} is not declared",
        "",
    ),
    "the item without a list": (
        changed(BOTH, '"Second"', '"{{item}}"'),
        22,
        "steps[1].title",
        "{{item}} is not declared",
        "",
    ),
    "a variable that is named as the item": (
        changed(BOTH, "[vars.area]", "[vars.item]"),
        8,
        "vars.item",
        "is the name of what for_each gives",
        "",
    ),
    "a variable that is no name": (changed(BOTH, "[vars.area]", "[vars.a-b]"), 8, "vars.a-b", "must be letters", ""),
    "a variable that is no table": (
        'formula = "f"\ntitle = "t"\ngoal = "g"\nvars = { x = "y" }\n' + PLAIN,
        4,
        "vars.x",
        "must be a table, not 'y'",
        "",
    ),
    "a default that is no text": (
        changed(BOTH, '"it"', "3"),
        6,
        "vars.what.default",
        "a text or an array of texts",
        "",
    ),
    "a default that cannot be": (
        changed(BOTH, 'default = "core"', 'default = "cor"'),
        9,
        "vars.area.default",
        "cannot be 'cor'",
        "'core'",
    ),
    "a default of what is required": (
        changed(BOTH, '"it"', '"it"\nrequired = true'),
        6,
        "vars.what.default",
        "is never used",
        "",
    ),
    "a default of a list that is none": (
        changed(BOTH, '"it"', '"it"\nlist = true'),
        6,
        "vars.what.default",
        "must be an array",
        "",
    ),
    "a pattern that is none": (changed(BOTH, '"it"', '"it"\npattern = "("'), 7, "vars.what.pattern", "regular", ""),
    "no steps": (HEAD, 0, "steps", "is missing", ""),
    "an empty list of steps": (changed(HEAD, "goal", "steps = []\ngoal"), 3, "steps", "at least one step", ""),
    "two steps of one id": (changed(BOTH, 'id = "two"', 'id = "one"'), 21, "steps[1].id", "already, on line 16", ""),
    "a need that is not there": (
        BOTH + step("d", 'needs = ["one", "tow"]'),
        34,
        "steps[3].needs[1]",
        "there is no step 'tow'",
        "'two'",
    ),
    "a need with a name that is not declared": (
        BOTH + step("d", 'needs = ["{{x}}"]'),
        34,
        "steps[3].needs[0]",
        "{{x}} is not declared",
        "",
    ),
    "a cycle": (
        changed(BOTH, 'title = "First {{what}}"', 'title = "F"\nneeds = ["three"]'),
        18,
        "steps[0].needs",
        "makes a cycle: one → three → two → one",
        "Remove one",
    ),
    "a cycle of steps that are not there": (
        BOTH + step("x", 'needs = ["y"]\nwhen = "!{{what}}"') + step("y", 'when = "!{{what}}"'),
        34,
        "steps[3].needs",
        "makes a cycle: x → y → x",
        "",
    ),
    "a list that is none": (
        BOTH + step("d", 'for_each = "area"'),
        34,
        "steps[3].for_each",
        "'area' is not a variable that is a list",
        "list = true",
    ),
    "a list that is not declared": (
        BOTH + step("d", 'for_each = "file"'),
        34,
        "steps[3].for_each",
        "'file'",
        "'files'",
    ),
    "a condition that is none": (
        BOTH + step("d", 'when = "area == ui"'),
        34,
        "steps[3].when",
        "is no condition",
        "Write",
    ),
    "a condition that never holds": (
        BOTH + step("d", 'when = "{{area}} == iu"'),
        34,
        "steps[3].when",
        "area is never 'iu'",
        "'ui'",
    ),
    "a condition that compares a list": (
        BOTH + step("d", 'when = "{{files}} == x"'),
        34,
        "steps[3].when",
        "files is a list",
        "empty",
    ),
    "a title beside an include": (
        BOTH + include("i", "lint", 'title = "T"'),
        33,
        "steps[3].title",
        "cannot stand beside include",
        "",
    ),
    "values without an include": (BOTH + step("d", 'vars = { x = "1" }'), 34, "steps[3].vars", "needs an include", ""),
    "an include of nothing": (BOTH + include("i", "lnt"), 32, "steps[3].include", "there is no formula 'lnt'", ""),
    "an include without its values": (
        BOTH + include("i", "lint"),
        30,
        "steps[3].vars",
        "lint needs a value for path",
        "vars",
    ),
    "an include with an unknown value": (
        BOTH + include("i", "lint", 'vars = { paht = "x" }'),
        33,
        "steps[3].vars.paht",
        "lint has no variable 'paht'",
        "'path'",
    ),
    "quotes around what has to be quoted": (
        BOTH + step("d", "run = \"echo '{{files}}'\""),
        34,
        "steps[3].run",
        "inside single quotes",
        "Take the quotes away",
    ),
    "a step without criteria": (
        changed(BOTH, 'criteria = [{ file = "two" }]', ""),
        20,
        "steps[1].criteria",
        "is missing",
        "--criterion",
    ),
    "criteria that hold when nothing is done": (
        changed(BOTH, 'file = "two"', 'diff = ["two"]'),
        23,
        "steps[1].criteria",
        "holds when nothing is done",
        "",
    ),
    "ids that meet": (
        BOTH + step("m", 'for_each = "files"') + step("m-2"),
        37,
        "steps[4].id",
        "'m-2' is the id of another one already",
        "",
    ),
    "an id that cannot be one": (
        BOTH + step("m-{{item}}", 'for_each = "files"'),
        31,
        "steps[3].id",
        "not 'm-a.py'",
        "",
    ),
    "a title that is empty with these values": (
        changed(changed(BOTH, '"it"', '""'), "First {{what}}", "{{what}}"),
        17,
        "steps[0].title",
        "one line",
        "",
    ),
    "a list where one text is": (
        changed(BOTH, 'file = "two"', 'file = "{{files}}/x"'),
        23,
        "steps[1].criteria[0].file",
        "is a list",
        "for_each",
    ),
    "an agent": (changed(BOTH, "goal", "agent = 3\ngoal"), 3, "agent", "string, not 3", ""),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused_with_line_and_key(case: str) -> None:
    text, line, key, problem, hint = REFUSED[case]
    with pytest.raises(InvalidDocument) as caught:
        expanded(text, {"lint": LINT})
    error = caught.value
    assert (error.line, error.key) == (line, key), error.message
    assert problem in error.problem
    assert hint in error.hint
    assert error.source == "f.toml"


@settings(max_examples=200)
@given(st.data())
def test_no_text_does_anything_but_read_or_be_refused(data: st.DataObject) -> None:
    lines = (BOTH + step("m", 'for_each = "files"\nwhen = "{{item}} != x"') + include("i", "lint")).splitlines()
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(lines) - 1))
        other = data.draw(st.sampled_from(lines) | st.text(max_size=20) | st.just(""))
        lines[at : at + data.draw(st.integers(0, 2))] = [other]
    with contextlib.suppress(InvalidInput):
        expanded("\n".join(lines), {"lint": LINT})


# ── The same again, and something else ──────────────────────────────────────────────────────────────────────────


def test_other_values_are_another_plan_and_the_same_are_the_same() -> None:
    one, two = planned(BOTH, what="a"), planned(BOTH, what="b")
    assert one.plan.startswith("f-")
    assert len(one.plan) == len("f-") + 6
    assert one.plan == planned(BOTH, what="a").plan != two.plan
    assert planned(BOTH).plan == "f"
    assert planned(changed(BOTH, '"it"', '"that"'), area="ui").plan == planned(BOTH, area="ui").plan


def test_a_name_that_is_asked_for_is_the_plans() -> None:
    assert expand(read(BOTH), {"what": ["x"]}, finder({}), "mine").plan == "mine"
    with pytest.raises(InvalidInput, match="'a b' cannot be the name of the plan") as caught:
        instance(read(BOTH), {}, "a b")
    assert "--name" in caught.value.hint
    with pytest.raises(InvalidInput, match="up to 64"):
        planned(changed(BOTH, '"f"', f'"{"f" * 60}"'), what="x")


def test_pouring_again_does_nothing_other_values_make_another_and_an_edit_supersedes(repo: Path) -> None:
    store = Store.init(repo, "founder")

    def pour(text: str, **given: str) -> tuple[str, bool]:
        proposal = propose_plan(planned(text, None, **given), store, "mayor")
        return proposal.items[0].molecule.id, accept(proposal, store, "mayor").changed

    first, changed_first = pour(BOTH, what="a")
    assert (changed_first, pour(BOTH, what="a")) == (True, (first, False))
    other, _ = pour(BOTH, what="b")
    edited, _ = pour(changed(BOTH, '"Second"', '"The second"'), what="a")
    assert len({first, other, edited}) == 3
    snapshot = store.snapshot()
    assert snapshot.need(first).outcome == "superseded"
    assert not snapshot.need(other).closed
    # The person said the same, and the formula means something else by it now.
    before, _ = pour(BOTH, area="ui")
    pour(changed(BOTH, '"it"', '"that"'), area="ui")
    assert store.snapshot().need(before).outcome == "superseded"


def test_what_is_expanded_is_a_plan_that_can_be_written_and_read() -> None:
    plan = planned(BOTH + step("m", 'for_each = "files"\nrun = "x {{item}}"'), what="a\tb's".replace("\t", " "))
    text = dumps(json.loads(json.dumps(plan.model_dump(exclude_defaults=True))))
    assert read_plan(text, "plan.toml").molecules == plan.molecules


def test_ten_thousand_steps_are_expanded_without_looking_for_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr("beads.lines.places", lambda *args: asked.append(args))
    text = HEAD + step("a") + step("m", 'for_each = "files"\nrun = "sed -i s/a/b/ {{item}}"') + step("z")
    started = time.perf_counter()
    molecule = expanded(text, files=[f"src/a file {n}.py" for n in range(10_000)])
    # About one second; the bound says only that it does not grow with the square.
    assert time.perf_counter() - started < 20
    assert len(molecule.steps) == 10_002
    assert len(molecule.steps[-1].needs or ()) == 10_000
    assert not asked


def test_many_that_wait_for_many_are_refused() -> None:
    text = HEAD + step("m", 'for_each = "files"') + step("n", 'for_each = "files"')
    with pytest.raises(InvalidDocument) as caught:
        expanded(text, files=[str(n) for n in range(1000)])
    assert (caught.value.line, caught.value.key) == (21, "steps[1].needs")
    assert "each of many needs each of many" in caught.value.problem
    assert caught.value.hint == "Put a step between the two groups."


# ── Looking without values ──────────────────────────────────────────────────────────────────────────────────────

FILLER = [PlannedCriterion(run="true")]


def test_a_sample_has_every_step_and_needs_no_values() -> None:
    variables = '[vars.name]\nrequired = true\npattern = "[0-9]+"\n[vars.more]\nlist = true\nrequired = true\n'
    text = (
        HEAD
        + variables
        + step("a", 'when = "{{area}} == ui"')
        + step("m", 'for_each = "more"').replace('criteria = [{ file = "x" }]', "")
    )
    formula = read(text)
    (molecule,) = sample(formula, finder({}), FILLER).molecules
    assert list(needs(molecule)) == ["a", "m-1"]
    (remark,) = remarks(formula)
    assert str(remark) == "f.toml:27: steps[1].criteria: is missing: nothing tells whether it is done"
    assert "--criterion" in remark.hint


def test_a_sample_does_not_ask_what_values_may_be() -> None:
    inner = changed(LINT, "required = true", 'required = true\npattern = "[0-9]+"')
    outer = read(HEAD + include("i", "lint", 'vars = { path = "{{what}}" }'))
    assert len(sample(outer, finder({"lint": inner}), FILLER).molecules[0].steps) == 2
    with pytest.raises(InvalidDocument) as caught:
        expand(outer, {}, finder({"lint": inner}))
    assert (caught.value.line, caught.value.key) == (18, "steps[0].vars.path")
    assert caught.value.problem == "path cannot be 'it'"


def test_what_stands_in_quotes_is_remarked_on() -> None:
    formula = read(HEAD + step("a", "run = \"echo '{{what}}'\""))
    (remark,) = remarks(formula)
    assert (remark.line, remark.key) == (19, "steps[0].run")
    assert "stands inside single quotes" in remark.problem


# ── Where formulas are found ────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def shelves(tmp_path: Path) -> tuple[Path, Path]:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    for directory in (ours, theirs):
        directory.mkdir()
    return ours, theirs


def test_the_first_directory_that_has_a_name_decides(shelves: tuple[Path, Path]) -> None:
    ours, theirs = shelves
    (ours / "x.formula.toml").write_text(BOTH)
    (theirs / "x.toml").write_text("formula =")
    (theirs / "y.toml").symlink_to(ours / "x.formula.toml")
    (theirs / "bugfix.toml").write_text(changed(BOTH, '"f"', '"bugfix"'))
    (theirs / "no.toml.orig").write_text("")
    (theirs / "a b.toml").write_text("")
    catalogue = Catalogue([Shelf("ours", ours), Shelf("theirs", theirs), Shelf("none", ours / "none")])
    found = {entry.name: entry.origin for entry in catalogue.entries()}
    assert found.items() >= {"x": "ours", "y": "theirs", "bugfix": "theirs", "release": "built-in"}.items()
    assert "a b" not in found
    assert catalogue.find("y").formula == catalogue.find("x").formula == "f"
    (ours / "x.toml").write_text(changed(BOTH, '"f"', '"plain"'))
    assert catalogue.find("x").formula == "plain"
    assert catalogue.entry("x") in catalogue.entries()


@pytest.mark.parametrize("name", ["../ours/x", "/etc/passwd", "", "a b", "x\n", ".x", "x" * 65])
def test_a_name_is_no_path(shelves: tuple[Path, Path], name: str) -> None:
    ours, theirs = shelves
    (ours / "x.toml").write_text(BOTH)
    with pytest.raises(NotFound, match="there is no formula"):
        Catalogue([Shelf("theirs", theirs)]).find(name)


def test_what_cannot_be_read_says_so(shelves: tuple[Path, Path]) -> None:
    ours, _ = shelves
    (ours / "gone.toml").symlink_to(ours / "nowhere")
    (ours / "directory.toml").mkdir()
    (ours / "plan.toml").write_text(
        'plan = "p"\n' + step("a").replace("steps", "molecules").replace("title", "goal = 'g'\ntitle")
    )
    (ours / "broken.toml").write_bytes(b"formula = \xff")
    catalogue = Catalogue([Shelf("ours", ours)])
    for name, said in {
        "gone": "leads to no file",
        "directory": "cannot be read: Is a directory",
        "plan": "plan.toml:1: plan: begins a plan",
        "broken": "broken.toml:1: not UTF-8",
    }.items():
        assert name in [entry.name for entry in catalogue.entries()]
        with pytest.raises(TownError, match=said):
            catalogue.find(name)


# ── Those that come with us ─────────────────────────────────────────────────────────────────────────────────────

NAMES = sorted(path.stem for path in BUILT_IN.directory.iterdir())


@pytest.mark.parametrize("name", NAMES)
def test_each_that_comes_with_us_is_right(name: str) -> None:
    formula = Catalogue().find(name)
    assert formula.formula == name
    assert list(remarks(formula)) == []
    assert len(sample(formula, Catalogue().find, ()).molecules[0].steps) == len(formula.steps)
    assert all(variable.description.endswith(".") for variable in formula.vars.values())
    assert "\n" not in formula.description


def holds(name: str, repository: Path, **given: str) -> list[str]:
    """The steps of a formula of ours whose criteria hold in a work tree; ``diff`` is not looked at."""
    (molecule,) = expand(Catalogue().find(name), {k: [v] for k, v in given.items()}, Catalogue().find).molecules
    return [one.id for one in molecule.steps if all(_holds(criterion, repository) for criterion in one.criteria)]


def _holds(criterion: PlannedCriterion, repository: Path) -> bool:
    if criterion.kind == "run":
        return (
            subprocess.run(["sh", "-c", criterion.run], cwd=repository, check=False, capture_output=True).returncode
            == 0
        )
    if criterion.kind == "file":
        path = repository / criterion.file
        return path.is_file() and criterion.matches.replace("\\", "") in path.read_text()
    return True


def test_a_bug_is_reproduced_by_a_test_that_fails_without_the_fix(repo: Path) -> None:
    commit(repo, {"add.sh": "echo $(($1 - $2))\n"}, "A bug")
    git(repo, "switch", "--quiet", "--create", "topic")
    given = {"summary": "It's wrong", "test": 'sh "tests/it adds.sh"', "test_file": "tests/it adds.sh"}
    assert holds("bugfix", repo, **given) == []
    (repo / "tests").mkdir()
    test = repo / "tests" / "it adds.sh"
    test.write_text("true\n")
    assert holds("bugfix", repo, **given) == ["fix"], "a test that passes anyway shows nothing"
    test.write_text('test "$(sh add.sh 1 2)" = 3\n')
    assert holds("bugfix", repo, **given) == ["reproduce"]
    (repo / "add.sh").write_text("echo $(($1 + $2))\n")
    assert holds("bugfix", repo, **given) == ["reproduce", "fix"]
    commit(repo, {}, "Fixed")
    assert holds("bugfix", repo, **given, suite="true") == ["reproduce", "fix", "suite"]


def test_tests_of_a_feature_have_to_be_written(repo: Path) -> None:
    git(repo, "switch", "--quiet", "--create", "topic")
    given = {"summary": "It greets", "test": "test -e greet", "test_file": "a test", "docs": "README.md"}
    assert holds("feature", repo, **given) == []
    (repo / "a test").write_text("test -e greet\n")
    assert holds("feature", repo, **given) == ["tests"]
    commit(repo, {"greet": "", "README.md": "It greets.\n"}, "Done")
    assert holds("feature", repo, **given) == ["tests", "implement", "docs"]


def test_a_refactoring_changes_something_and_no_tests(repo: Path) -> None:
    commit(repo, {"code": "a\n", "tests/code": "b\n"}, "Code")
    git(repo, "switch", "--quiet", "--create", "topic")
    given = {"summary": "Shorter", "test": "true"}
    assert holds("refactor", repo, **given) == []
    (repo / "code").write_text("c\n")
    assert holds("refactor", repo, **given) == ["refactor"]
    (repo / "tests" / "code").write_text("c\n")
    assert holds("refactor", repo, **given) == []


def test_a_codemod_is_run_on_each_file(repo: Path) -> None:
    commit(repo, {"a b": "old\n", "c": "old\n"}, "Code")
    given = {"files": "a b\nc", "change": 'sed -i.bak s/old/new/ "$1"', "check": '! grep -q old "$1"', "test": "true"}
    assert holds("codemod-per-file", repo, **given) == ["test"]
    (molecule,) = expand(
        Catalogue().find("codemod-per-file"), {k: [v] for k, v in given.items()}, Catalogue().find
    ).molecules
    subprocess.run(["sh", "-c", molecule.steps[0].run], cwd=repo, check=True)
    assert holds("codemod-per-file", repo, **given) == ["file-1", "test"]
    assert (repo / "a b").read_text() == "new\n"


def test_an_upgrade_a_page_and_a_release_are_seen_in_their_files(repo: Path) -> None:
    upgrade = {"package": "left-pad", "version": "1.2.0", "file": "requirements.txt", "test": "true"}
    assert holds("dependency-upgrade", repo, **upgrade) == ["adapt"]
    (repo / "requirements.txt").write_text("left-pad==1.2.0\n")
    assert holds("dependency-upgrade", repo, **upgrade) == ["edit", "adapt"]
    assert holds("dependency-upgrade", repo, **upgrade, upgrade="true") == ["upgrade", "adapt"]
    page = {"summary": "how to begin", "page": "README.md", "check": "true"}
    assert holds("docs", repo, **page) == ["check"]
    (repo / "README.md").write_text("Begin so.\n")
    assert holds("docs", repo, **page) == ["write", "check"]
    release = {"version": "1.4.0", "version_files": "README.md", "test": "true", "build": "true"}
    assert holds("release", repo, **release) == ["test", "build"]
    (repo / "README.md").write_text("Version 1.4.0\n")
    (repo / "CHANGELOG.md").write_text("## 1.4.0\n")
    assert holds("release", repo, **release) == ["version-1", "changelog", "test", "build"]
