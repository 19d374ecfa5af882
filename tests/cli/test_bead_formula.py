"""Formulas on the command line: found, looked at, checked, and poured."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.cli.commands import Beads, process
from tests.towns import make_town, run
from tests.world import git

HOTFIX = """\
formula = "hotfix"
title = "Hotfix: {{summary}}"
goal = "{{summary}} is no more."
description = \"\"\"
Repair at once.

And quickly.
\"\"\"

[vars.summary]
description = "What is wrong."
required = true

[vars.files]
list = true
default = ["a.py"]

[vars.kind]
default = "minor"
choices = ["minor", "major"]

[[steps]]
id = "edit"
title = "Edit {{item}}"
for_each = "files"
run = "edit {{item}}"
criteria = [{ run = "check {{item}}" }]

[[steps]]
id = "tell"
title = "Tell everybody"
when = "{{kind}} == major"
criteria = [{ file = "NEWS" }]
"""


@pytest.fixture
def hotfix(beads: Beads) -> Path:
    """A formula of the repository."""
    path = beads.repository / ".beads" / "formulas" / "hotfix.toml"
    path.parent.mkdir(parents=True)
    path.write_text(HOTFIX)
    return path


# ── list ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_formulas_are_listed_with_where_they_are_from(beads: Beads, hotfix: Path, home: Path) -> None:
    for place, name in [
        (".config/beadtown/formulas", "mine"),
        (".beads/formulas", "old"),
        (".beads/formulas", "hotfix"),
    ]:
        (home / place).mkdir(parents=True, exist_ok=True)
        (home / place / f"{name}.formula.toml").write_text(HOTFIX.replace("hotfix", name))
    lines = [line.split("\t") for line in beads.run("formula", "list").splitlines()]
    assert ["hotfix", "formula", "repository", "2", "Repair at once."] in lines
    assert [line[0] for line in lines if line[2] == "user"] == ["mine", "old"]
    assert {line[0] for line in lines if line[2] == "built-in"} >= {"bugfix", "feature", "release"}
    (row,) = [row for row in beads.json("formula", "list") if row["name"] == "hotfix"]
    assert row == {
        "name": "hotfix",
        "type": "formula",
        "origin": "repository",
        "path": str(hotfix),
        "steps": 2,
        "description": "Repair at once.",
        "error": None,
    }


def test_what_cannot_be_read_is_listed_as_such(beads: Beads, hotfix: Path) -> None:
    hotfix.with_name("gone.toml").symlink_to("nowhere")
    hotfix.with_name("broken.toml").write_text("formula = ")
    found = {line.split("\t")[0]: line for line in beads.run("formula", "list").splitlines()}
    assert f"damaged\trepository\t\t{hotfix.with_name('gone.toml')} leads to no file" in found["gone"]
    assert f"{hotfix.with_name('broken.toml')}:1: " in found["broken"]
    assert "hotfix" in found


def test_there_are_formulas_outside_of_a_repository(tmp_path: Path, environ: dict[str, str]) -> None:
    done = process("formula", "list", cwd=tmp_path, environ=environ)
    assert b"bugfix\tformula\tbuilt-in" in done.stdout
    assert not done.stderr


def test_names_are_completed(beads: Beads, hotfix: Path, environ: dict[str, str]) -> None:
    for words, position in [("bead formula show hot", 3), ("bead pour hot", 2), ("bead formula check bugfix hot", 4)]:
        asked = {**environ, "_BEAD_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(position)}
        done = process(cwd=beads.repository, environ=asked)
        assert done.stdout == b"plain,hotfix\n", hotfix
    asked = {**environ, "_BEAD_COMPLETE": "bash_complete", "COMP_WORDS": "bead pour ./pl", "COMP_CWORD": "2"}
    assert process(cwd=beads.repository, environ=asked).stdout == b"file,./pl\n"


# ── show ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_formula_is_shown_with_its_variables_and_templates(beads: Beads, hotfix: Path) -> None:
    said = beads.run("formula", "show", "hotfix")
    assert f"formula     hotfix\ntype        formula\nfile        {hotfix}\n" in said
    assert "  summary\trequired\t\tWhat is wrong.\n  files\ta.py\tlist \t\n  kind\tminor\tminor|major \t" in said
    assert "  edit: Edit {{item}}\n      run: edit {{item}}\n      for each: files\n" in said
    assert "when: {{kind}} == major" in said


def test_with_its_values_the_plan_is_shown(beads: Beads, hotfix: Path) -> None:
    said = beads.run("formula", "show", str(hotfix), "--var", "summary=It's slow", "--var", "files=b c")
    assert '  title = "Hotfix: It\'s slow"' in said
    assert "  run = \"edit 'b c'\"" in said
    found = beads.json("formula", "show", "hotfix", "--var", "summary=s", "--var", "kind=major")
    assert [step["id"] for step in found["plan"]["molecules"][0]["steps"]] == ["edit-1", "tell"]
    assert [(one["name"], one["default"]) for one in found["variables"]] == [
        ("summary", None), ("files", ["a.py"]), ("kind", "minor")
    ]  # fmt: skip
    assert beads.json("formula", "show", "hotfix")["plan"] is None
    assert "hotfix needs a value for summary" in beads.run("formula", "show", "hotfix", "--var", "kind=major", code=2)


@pytest.mark.parametrize(
    "args,code,said",
    [
        (["show", "hotfx"], 3, "there is no formula 'hotfx'\nhint: Did you mean 'hotfix'? `bead formula list`"),
        (["show", "../x"], 3, "there is no file ../x"),
        (["show", "x.toml"], 3, "there is no file x.toml"),
        (
            ["show", "hotfix", "--var", "summary"],
            2,
            "'summary' is no variable with a value\nhint: Write --var NAME=VALUE.",
        ),
        (["show", "hotfix", "--var", "sumary=x"], 2, "hotfix has no variable 'sumary'\nhint: Did you mean 'summary'?"),
    ],
)
def test_what_cannot_be_shown(beads: Beads, hotfix: Path, args: list[str], code: int, said: str) -> None:
    assert hotfix.exists()
    assert f"error: {said}" in beads.run("formula", *args, code=code)


# ── check ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_all_that_are_found_are_checked(beads: Beads, hotfix: Path) -> None:
    said = beads.run("formula", "check").splitlines()
    assert said[0] == "bugfix: ok"
    assert "hotfix: ok" in said
    hotfix.write_text(HOTFIX.replace("Tell everybody", "Tell {{everybody}}"))
    with pytest.raises(AssertionError, match="ended with 2"):
        beads.run("formula", "check")


def test_what_is_wrong_and_what_is_in_the_way_is_below_each(
    repo: Path, tmp_path: Path, environ: dict[str, str]
) -> None:
    wrong, warned = tmp_path / "wrong.toml", tmp_path / "warned.toml"
    wrong.write_text(HOTFIX.replace('when = "{{kind}} == major"', 'when = "{{kind}} == mayor"'))
    warned.write_text(HOTFIX.replace('criteria = [{ file = "NEWS" }]', "run = \"say '{{summary}}'\""))
    done = process("formula", "check", str(wrong), str(warned), "bugfix", "nothing", cwd=repo, environ=environ)
    assert done.returncode == 2
    assert not done.stderr
    said = done.stdout.decode()
    assert (
        f"{wrong}: wrong\n  error: {wrong}:32: steps[1].when: kind is never 'mayor'\n    Did you mean 'major'?\n"
        in said
    )
    assert f"{warned}: ok with warnings\n  warning: {warned}:29: steps[1].criteria: is missing: nothing tells" in said
    assert f"  warning: {warned}:33: steps[1].run: {{{{summary}}}} stands inside single quotes" in said
    assert "bugfix: ok\nnothing: wrong\n  error: there is no formula 'nothing'" in said


def test_one_in_json_is_listed_and_refused_by_name(beads: Beads, hotfix: Path) -> None:
    old = hotfix.with_name("old.formula.json")
    old.write_text('{"formula": "old", "version": 1, "steps": [{"id": "a", "title": "A"}]}')
    (row,) = [row for row in beads.json("formula", "list") if row["name"] == "old"]
    assert "is JSON" in row["error"]
    for what in ("old", str(old)):
        assert "is JSON, and a formula is written in TOML" in beads.run("formula", "show", what, code=2)


def test_checks_are_answered_in_json(beads: Beads, hotfix: Path, environ: dict[str, str]) -> None:
    (fine,) = beads.json("formula", "check", "hotfix")
    assert fine == {"name": "hotfix", "path": str(hotfix), "verdict": "ok", "error": None, "warnings": []}
    hotfix.write_text(HOTFIX.replace("goal", "gaol"))
    done = process("formula", "check", "hotfix", "--json", cwd=beads.repository, environ=environ)
    assert done.returncode == 2
    assert b'"verdict": "wrong"' in done.stdout
    assert b'"line": 3,\n      "key": "gaol"' in done.stdout


def test_a_plan_may_be_checked_too(beads: Beads) -> None:
    assert beads.run("formula", "check", "/dev/null", code=2) == ""
    path = beads.repository / "plan.toml"
    path.write_text('plan = "p"\n[[molecules]]\nid = "a"\ntitle = "A"\ngoal = "g"\ncriteria = [{ file = "a" }]\n')
    assert beads.run("formula", "check", str(path)) == f"{path}: ok"


SHINY = """\
formula = "shiny"
type = "workflow"
version = 1
[vars.feature]
required = true
[[steps]]
id = "design"
title = "Design {{feature}}"
acceptance = "A page says how."
[[steps]]
id = "implement"
title = "Implement {{feature}}"
needs = ["design"]
"""


def test_gas_towns_are_listed_checked_and_poured_with_criteria(beads: Beads, hotfix: Path) -> None:
    hotfix.with_name("shiny.formula.toml").write_text(SHINY)
    hotfix.with_name("more.formula.toml").write_text('formula = "more"\nversion = 1\nextends = ["shiny"]\n')
    lines = beads.run("formula", "list").splitlines()
    assert "shiny\tworkflow\trepository\t2\t" in lines
    said = beads.run("formula", "check", "more")
    place = f"{hotfix.with_name('shiny.formula.toml')}:10: steps[1].criteria"
    assert said.startswith(f"more: ok with warnings\n  warning: {place}: is missing")
    assert "\n    Pour it with --criterion" in said
    (warning,) = beads.json("formula", "show", "shiny", "--var", "feature=x")["warnings"]
    assert warning["key"] == "steps[1].criteria"
    assert "steps[1].criteria: is missing" in beads.run("pour", "more", "--var", "feature=x", code=2)
    poured = beads.json("pour", "more", "--var", "feature=slow motion", "--criterion", "run: make test")
    assert [bead["title"] for bead in poured] == ["more", "Design slow motion", "Implement slow motion"]
    assert poured[1]["criteria"][0]["review"] == "Does this hold: A page says how."


# ── pour ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_formula_is_poured_once_for_the_same_values(beads: Beads, hotfix: Path) -> None:
    values = ["--var", "summary=It's slow", "--var", "files=a b.py\nc.py", "--var", "files=d"]
    poured = beads.json("pour", "hotfix", *values)
    assert [bead["title"] for bead in poured] == ["Hotfix: It's slow", "Edit a b.py", "Edit c.py", "Edit d"]
    assert poured[1]["run"] == "edit 'a b.py'"
    assert all(bead["seal"] for bead in poured)
    head = git(beads.repository, "rev-parse", "refs/beads/main")
    assert [bead["id"] for bead in beads.json("pour", str(hotfix), *values)] == [bead["id"] for bead in poured]
    assert git(beads.repository, "rev-parse", "refs/beads/main") == head
    other = beads.json("pour", "hotfix", "--var", "summary=It leaks")
    assert other[0]["id"] != poured[0]["id"]
    assert beads.show(poured[0]["id"])["status"] == "open"


def test_an_edited_formula_supersedes(beads: Beads, hotfix: Path) -> None:
    old = beads.json("pour", "hotfix", "--var", "summary=s")[0]["id"]
    hotfix.write_text(HOTFIX.replace("is no more", "is gone"))
    new = beads.json("pour", "hotfix", "--var", "summary=s")[0]["id"]
    assert new != old
    assert beads.show(old)["outcome"] == "superseded"


def test_a_dry_run_shows_what_would_be_poured(beads: Beads, hotfix: Path) -> None:
    assert hotfix.exists()
    head = git(beads.repository, "rev-parse", "refs/beads/main")
    said = beads.run("pour", "hotfix", "--var", "summary=s", "--name", "mine", "--dry-run")
    assert said.startswith("plan mine\n    Repair at once.\n")
    assert "hotfix: Hotfix: s  [new]" in said
    assert "        run: edit a.py\n        done when: run: check a.py" in said
    assert len(beads.json("pour", "hotfix", "--var", "summary=s", "--dry-run")) == 2
    assert git(beads.repository, "rev-parse", "refs/beads/main") == head


def test_criteria_can_be_given_to_steps_that_have_none(beads: Beads, hotfix: Path) -> None:
    hotfix.write_text(HOTFIX.replace('criteria = [{ run = "check {{item}}" }]', ""))
    said = beads.run("pour", "hotfix", "--var", "summary=s", code=2)
    assert f"error: {hotfix}:22: steps[0].criteria: is missing\nhint: A step closes only" in said
    given = ["--criterion", "run: make test", "--criterion", "diff: src/**"]
    poured = beads.json("pour", "hotfix", "--var", "summary=s", "--var", "kind=major", *given)
    assert [bead["acceptance_criteria"] for bead in poured] == [
        "",
        "- run: make test\n- diff: src/**",
        "- file: NEWS exists",
    ]
    assert "is not a criterion" in beads.run("pour", "hotfix", "--criterion", "x", code=2)
    assert "--criterion 'file: ../x'" in beads.run("pour", "hotfix", "--criterion", "file: ../x", code=2)


def test_a_file_is_a_plan_or_a_formula_by_what_it_says(beads: Beads, tmp_path: Path) -> None:
    plan, formula = tmp_path / "one", tmp_path / "two.toml"
    plan.write_text('plan = "p"\n[[molecules]]\nid = "a"\ntitle = "A"\ngoal = "g"\ncriteria = [{ file = "a" }]\n')
    formula.write_text(HOTFIX)
    assert [bead["title"] for bead in beads.json("pour", str(plan))] == ["A", "A"]
    assert beads.json("pour", str(formula), "--var", "summary=s")[0]["title"] == "Hotfix: s"
    said = beads.run("pour", str(plan), "--var", "summary=s", code=2)
    assert f"{plan} is a plan, and --var, --name, --criterion and --run are for" in said


def test_a_directory_of_a_formulas_name_is_not_in_its_way(beads: Beads, monkeypatch: pytest.MonkeyPatch) -> None:
    (beads.repository / "docs").mkdir()
    monkeypatch.chdir(beads.repository)
    poured = beads.json("pour", "docs", "--var", "summary=how", "--var", "page=docs/x.md")
    assert poured[0]["title"] == "Describe: how"


def test_a_file_includes_its_neighbours_before_others(beads: Beads, hotfix: Path, tmp_path: Path) -> None:
    assert hotfix.exists()
    outer = tmp_path / "outer.toml"
    outer.write_text(
        'formula = "outer"\ntitle = "t"\ngoal = "g"\n'
        '[[steps]]\nid = "i"\ninclude = "hotfix"\nvars = { summary = "s" }\n'
    )
    assert len(beads.json("pour", str(outer), "--dry-run")) == 2
    (tmp_path / "hotfix.toml").write_text(HOTFIX.replace("Edit {{item}}", "Change {{item}}"))
    assert beads.json("pour", str(outer), "--dry-run")[1]["title"] == "Change a.py"


@pytest.mark.slow
def test_ten_thousand_steps_are_poured_without_a_look_at_each_pair(beads: Beads, hotfix: Path) -> None:
    assert hotfix.exists()
    files = "\n".join(f"src/file {number}.py" for number in range(10_000))
    # By looking at each pair of steps this would take minutes.
    poured = beads.json("pour", "hotfix", "--var", "summary=s", "--var", f"files={files}", "--var", "kind=major")
    assert len(poured) == 10_002
    assert len(poured[-1]["dependencies"]) == 10_001


def test_the_mayor_takes_formulas(tmp_path: Path) -> None:
    repository = make_town(tmp_path)
    values = ["--var", "summary=how to begin", "--var", "page=BEGIN.md"]
    done = run(repository, "mayor", "--plan", "docs", *values, "--yes")
    assert "Describe: how to begin" in done.stdout
    assert "poured" in done.stdout
    assert "nothing changed" in run(repository, "mayor", "--plan", "docs", *values, "--yes").stdout
    formula = tmp_path / "f.toml"
    formula.write_text(HOTFIX.replace("goal", 'agent = "clade"\ngoal', 1))
    done = run(repository, "mayor", "--plan", str(formula), "--var", "summary=s", "--yes", ok=[2])
    assert f"{formula}:3: agent: there is no agent 'clade'" in done.stderr


def test_the_examples_of_pour_can_be_pasted(beads: Beads) -> None:
    typed = beads.run("pour", "--help").partition("--dry-run\n")[2].partition("\n\n")[0]
    script = typed.replace("bead pour", "printf '%s\\n'")
    said = subprocess.check_output(["sh", "-c", script], cwd=beads.repository, text=True)
    assert 'change=sed -i s/old/new/ "$1"\n' in said
