"""What `bead pour`, `bead formula` and `town mayor` are given: a plan or a formula, with values for its variables."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from cli.bead_write import criterion_facts
from cli.session import Session, asked

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from beads.catalogue import Catalogue
    from beads.defaults import Defaults
    from beads.formula import Formula
    from beads.interchange.tasklist import TaskList
    from beads.plan import Plan, PlannedCriterion

Function = TypeVar("Function", bound=Callable[..., Any])


class FormulaName(click.ParamType):  # type: ignore[type-arg]  # As in cli/session.py.
    """A formula's name or a file, completed from what is found by name and from the files there are."""

    name = "formula"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """The names that start so; where there is none, files."""
        del param
        from click.shell_completion import CompletionItem

        from beads.errors import TownError

        try:
            entries = catalogue_of(ctx.ensure_object(Session)).entries()
        except TownError:
            entries = []
        found = [CompletionItem(entry.name) for entry in entries if entry.name.startswith(incomplete)]
        return found or [CompletionItem(incomplete, type="file")]


FORMULA = FormulaName()


@dataclass(frozen=True)
class Given:
    """What was said besides which formula.

    Attributes:
        variables: the texts given for each variable.
        name: the plan's name; empty for the one that follows from the rest.
        criteria: those of steps that have none.
        run: the shell line of steps that have none.
    """

    variables: Mapping[str, tuple[str, ...]]
    name: str = ""
    criteria: tuple[PlannedCriterion, ...] = ()
    run: str = ""

    @property
    def defaults(self) -> Defaults:
        """What steps get that say nothing themselves."""
        from beads.defaults import Defaults

        return Defaults(self.run, self.criteria)


def variables_option(function: Function) -> Function:
    """``--var``, as the argument ``variables``."""
    say = "A variable's value; again for each value of a list."
    return click.option("--var", "variables", metavar="NAME=VALUE", multiple=True, help=say)(function)


def pouring_options(function: Function) -> Function:
    """What can be said of what is poured, as the arguments ``variables``, ``name``, ``criteria`` and ``run``."""
    steps = "For steps that have no criteria; as with `bead create`."
    line = "For steps that have no line: what the command runtime does. {{id}}, {{title}}, {{paths}} are the task's."
    function = click.option("--run", metavar="COMMAND", default="", help=line)(function)
    function = click.option("--criterion", "criteria", metavar="'run: CMD'", multiple=True, help=steps)(function)
    function = click.option("--name", metavar="NAME", default="", help="The plan's name.")(function)
    return variables_option(function)


def given(variables: tuple[str, ...], name: str = "", criteria: tuple[str, ...] = (), run: str = "") -> Given:
    """What the options say.

    Raises:
        InvalidInput: one cannot be read.
    """
    from beads.errors import InvalidInput
    from beads.plan import PlannedCriterion

    said: dict[str, tuple[str, ...]] = {}
    for text in variables:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise InvalidInput(f"{text!r} is no variable with a value", "Write --var NAME=VALUE.")
        said[key.strip()] = (*said.get(key.strip(), ()), value)
    found = tuple(asked(PlannedCriterion, f"--criterion {text!r}", **criterion_facts(text)) for text in criteria)
    return Given(said, name, found, run)


def catalogue_of(session: Session) -> Catalogue:
    """The formulas of this work tree, of this user, and ours."""
    from beads.catalogue import Catalogue, Shelf

    start = session.start.resolve()
    tree = next((directory for directory in (start, *start.parents) if (directory / ".git").exists()), None)
    ours = [Shelf("repository", tree / ".beads" / "formulas")] if tree else []
    home = Path.home()
    config = Path(session.environ.get("XDG_CONFIG_HOME") or home / ".config") / "beadtown" / "formulas"
    return Catalogue([*ours, Shelf("user", config), Shelf("user", home / ".beads" / "formulas")])


def located(session: Session, what: str) -> tuple[Path, Catalogue]:
    """The file that a person means, by its path or by a formula's name, and where what it includes is looked for.

    Raises:
        NotFound: there is neither a file nor a formula.
    """
    catalogue = catalogue_of(session)
    path = Path(what)
    if path.is_file() or "/" in what or what.endswith((".toml", ".md")):
        return path, catalogue.beside(path)
    return catalogue.entry(what).path, catalogue


def plan_of(session: Session, what: str, given: Given) -> Plan:
    """The plan that a person means: a file's, or what a formula or a list of tasks makes of the values given.

    Raises:
        NotFound: there is neither a file nor a formula.
        InvalidInput: it is wrong, or its variables cannot have these values.
    """
    from beads.errors import InvalidInput
    from beads.interchange.tasklist import TaskList
    from beads.plan import Plan

    path, catalogue = located(session, what)
    found = catalogue.read(path)
    if isinstance(found, Plan):
        if given != Given({}):
            problem = f"{what} is a plan, and --var, --name, --criterion and --run are for what is made into one"
            raise InvalidInput(problem, "Leave them out.")
        return found
    if isinstance(found, TaskList):
        if given.variables:
            raise InvalidInput(f"{what} is a list of tasks, and --var is for formulas", "Leave it out.")
        return _plan_of_tasks(session, found, given)
    return plan_from(found, catalogue, given)


def _plan_of_tasks(session: Session, tasks: TaskList, given: Given) -> Plan:
    """The plan that a ``tasks.md`` is here and now; what in it could not be followed is told on standard error."""
    from beads.interchange import tasklist
    from cli.render import printable

    name = tasklist.plan_name(tasks, given.name)
    made = tasklist.made_by(session.store.snapshot(), name)
    on_main = _files_on_main(session).__contains__
    plan, notes = tasklist.plan_from(tasks, name, given.defaults, on_main, made)
    for note in notes:
        click.echo(printable(f"note: {note}"), err=True)
    return plan


def _files_on_main(session: Session) -> frozenset[str]:
    """The files of the branch that landing is about; none before its first commit."""
    from cli.config import settings_of
    from refinery.git import Git

    settings = settings_of(session.start)
    branch = settings.town.branch if settings else "main"
    git = Git(session.store.repository.common, session.environ)
    listed = git.run("ls-tree", "-r", "-z", "--name-only", "--full-tree", branch, ok=(0, 128))
    return frozenset(listed.out.split("\0") if listed.status == 0 else ())


def plan_from(formula: Formula, catalogue: Catalogue, given: Given) -> Plan:
    """What a formula makes of the values given; raises as :func:`beads.expansion.expand` does."""
    from beads.expansion import expand

    return expand(formula, given.variables, catalogue.find, given.name, given.defaults)
