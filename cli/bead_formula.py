"""``bead formula``: the templates that `bead pour` takes, as they are found, and whether they are right."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from cli import render
from cli.formulas import FORMULA, Given, catalogue_of, given, located, plan_from, variables_option
from cli.session import Session, group

if TYPE_CHECKING:
    from beads.catalogue import Catalogue, Entry
    from beads.errors import TownError
    from beads.formula import Formula, Remark
    from beads.plan import Plan


@group("formula")
def formula() -> None:
    """Look at formulas, which are templates of plans.

    `bead pour` fills one in. It is found by its name in .beads/formulas of this work tree, in your own
    ~/.config/beadtown/formulas and ~/.beads/formulas, and among those that come with this program, in this order.
    Gas Town's are read, too.

    \b
    Example:
      bead formula list
      bead formula show bugfix
    """


@formula.command("list")
@click.pass_obj
def formula_list(session: Session) -> None:
    """Print the formulas that are found by name.

    \b
    Example:
      bead formula list
    """
    catalogue = catalogue_of(session)
    rows = [_row(catalogue, entry) for entry in catalogue.entries()]
    if session.json:
        render.echo_json(rows)
        return
    render.echo_table(
        [
            (row["name"], row["type"], row["origin"], str(row["steps"]), row["description"])
            if row["error"] is None
            else (row["name"], ("damaged", "red"), row["origin"], "", (row["error"], "red"))
            for row in rows
        ],
        ("name", "type", "from", "steps", "description"),
    )


def _row(catalogue: Catalogue, entry: Entry) -> dict[str, Any]:
    from beads.errors import TownError

    row = {"name": entry.name, "type": "", "origin": entry.origin, "path": entry.path, "steps": 0, "description": ""}
    try:
        found = catalogue.formula(entry.path)
    except TownError as error:
        return {**row, "error": error.message}
    first = next(iter(found.description.strip().splitlines()), "")
    return {**row, "type": found.kind, "steps": len(found.steps), "description": first, "error": None}


@formula.command("show")
@click.argument("what", metavar="FORMULA", type=FORMULA)
@variables_option
@click.pass_obj
def formula_show(session: Session, what: str, variables: tuple[str, ...]) -> None:
    """Print a formula's variables and its steps.

    When every variable that must have a value has one, the plan is printed that it makes, as `bead pour` takes it.

    \b
    Example:
      bead formula show bugfix
      bead formula show bugfix --var "summary=Empty titles crash" --var "test=make test" \\
        --var test_file=tests/test_titles.py
    """
    path, catalogue = located(session, what)
    found = catalogue.formula(path)
    said = given(variables)
    missing = [name for name, one in found.vars.items() if one.required and name not in said.variables]
    plan = None if missing and not variables else plan_from(found, catalogue, _filler(said))
    if session.json:
        render.echo_json(_answer(found, path, plan))
        return
    render.fields([("formula", found.formula), ("type", found.kind), ("file", str(path))])
    render.paragraph("description", found.description)
    _echo_variables(found)
    if plan is None:
        _echo_templates(found)
    else:
        render.paragraph("plan", _text(plan))


def _filler(said: Given) -> Given:
    """What is said, with something in the place of criteria that are only given when a formula is poured."""
    return Given(said.variables, said.name, (_to_be_given(),))


def _to_be_given() -> Any:
    from beads.plan import PlannedCriterion

    return PlannedCriterion(run="false # give --criterion to `bead pour`")


def _answer(found: Formula, path: Path, plan: Plan | None) -> dict[str, Any]:
    from beads.expansion import remarks

    variables = [
        {"name": name, **one.model_dump(), "default": one.value if not one.required else None, "list": one.several}
        for name, one in found.vars.items()
    ]
    return {
        "formula": found.formula,
        "type": found.kind,
        "path": path,
        "title": found.title,
        "goal": found.goal,
        "description": found.description,
        "variables": variables,
        "steps": [step.model_dump(exclude_unset=True) for step in found.steps],
        "plan": None if plan is None else plan.model_dump(exclude_defaults=True),
        "warnings": list(remarks(found)),
    }


def _echo_variables(found: Formula) -> None:
    from beads.formula import words

    if not found.vars:
        return
    click.echo(f"\n{render.style('variables', 'bold')}")
    rows = [
        (
            f"  {name}",
            ("required", "yellow") if one.required else words(one.value),
            " ".join(
                [*(["list"] if one.several else []), *(["|".join(one.choices)] if one.choices else []), one.pattern]
            ),
            one.description,
        )
        for name, one in found.vars.items()
    ]
    render.echo_table(rows, ("name", "default", "values", "description"))


def _echo_templates(found: Formula) -> None:
    click.echo(f"\n{render.style('steps', 'bold')}")
    for step in found.steps:
        click.echo(render.printable(f"  {step.id}: {step.title or f'the steps of {step.include}'}"))
        said = step.model_dump(include={"for_each", "when", "needs", "run"}, exclude_unset=True)
        for key, value in said.items():
            text = ", ".join(value) if isinstance(value, list | tuple) else str(value)
            click.echo(render.printable(f"      {key.replace('_', ' ')}: {text}"))


def _text(plan: Plan) -> str:
    from beads.plan import write_plan

    return write_plan(plan).decode()


class Check(NamedTuple):
    """What was found in one file.

    Attributes:
        name: what was asked for.
        path: the file; None when there is none.
        remarks: what is in the way of nobody yet.
        error: what is wrong; None when nothing is.
    """

    name: str
    path: Path | None
    remarks: Sequence[Remark]
    error: TownError | None

    @property
    def verdict(self) -> str:
        """In words."""
        return "wrong" if self.error else "ok with warnings" if self.remarks else "ok"


@formula.command("check")
@click.argument("names", metavar="[FORMULA|FILE]...", nargs=-1, type=FORMULA)
@click.pass_context
def formula_check(context: click.Context, names: tuple[str, ...]) -> None:
    """Check formulas, those that you name or all that are found.

    Below each is what is wrong, and what has no effect or will be in somebody's way, with file, line and key. The
    exit code is 2 when one is wrong.

    \b
    Example:
      bead formula check
      bead formula check .beads/formulas/hotfix.toml --json
    """
    session = context.ensure_object(Session)
    found = list(_checked(session, names or [entry.name for entry in catalogue_of(session).entries()]))
    if session.json:
        render.echo_json([_check_answer(check) for check in found])
    else:
        for check in found:
            _echo_check(check)
    if any(check.error for check in found):
        context.exit(2)


def _checked(session: Session, names: Sequence[str]) -> Iterator[Check]:
    from beads.errors import TownError
    from beads.expansion import remarks, sample
    from beads.formula import Formula
    from beads.interchange.speckit import order_of
    from beads.interchange.tasklist import TaskList

    for name in names:
        path: Path | None = None
        try:
            path, catalogue = located(session, name)
            found = catalogue.read(path)
            if isinstance(found, TaskList):
                order_of(found.outline, found.origin)
            if not isinstance(found, Formula):
                yield Check(name, path, (), None)
                continue
            sample(found, catalogue.find, [_to_be_given()])
        except TownError as error:
            yield Check(name, path, (), error)
        else:
            yield Check(name, path, list(remarks(found)), None)


def _check_answer(check: Check) -> dict[str, Any]:
    from beads.errors import InvalidDocument

    error = check.error
    place = {"line": error.line, "key": error.key} if isinstance(error, InvalidDocument) else {}
    return {
        "name": check.name,
        "path": check.path,
        "verdict": check.verdict,
        "error": None if error is None else {"message": error.message, "hint": error.hint, **place},
        "warnings": check.remarks,
    }


def _echo_check(check: Check) -> None:
    colour = {"ok": "green", "wrong": "red"}.get(check.verdict, "yellow")
    click.echo(f"{render.printable(check.name)}: {render.style(check.verdict, colour)}")
    said = [("error", check.error.message, check.error.hint)] if check.error else []
    for kind, text, hint in [*said, *(("warning", str(remark), remark.hint) for remark in check.remarks)]:
        click.echo(render.printable(f"  {kind}: {text}" + (f"\n    {hint}" if hint else "")))
