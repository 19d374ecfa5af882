"""Formulas: TOML templates of one molecule, with variables, read with line and key.

A formula is checked as far as that is possible without values: every key, every name between double braces, every
condition. What it says with values is :mod:`beads.expansion`'s to find out.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from pydantic import AfterValidator, BeforeValidator, Field, PrivateAttr, StrictBool, StrictFloat, StrictInt

from beads.errors import InvalidInput
from beads.model import Fact
from beads.plan import Array, Name, Tables, Written, check_name, check_unique, in_table, nearest
from beads.template import Condition, Misplaced, Value, condition, names, undeclared
from beads.toml import Document

if TYPE_CHECKING:
    from beads.lines import Place

ITEM = "item"
"""What stands for one value of the list that a step is repeated for."""

_STEP_OF_INCLUDE = frozenset({"id", "include", "vars", "needs", "when", "for_each"})


class InvalidValue(InvalidInput):
    """A formula was given a value that it cannot have, or not given one that it must have.

    Attributes:
        variable: what the value was for; empty when several are missing.
    """

    def __init__(self, variable: str, message: str, hint: str = "") -> None:
        super().__init__(message, hint)
        self.variable = variable


class Remark(NamedTuple):
    """Something in a file that has no effect, or another one than its author may think."""

    source: str
    line: int
    key: str
    problem: str
    hint: str = ""

    def __str__(self) -> str:
        return (
            f"{self.source}:{self.line}: {self.key}: {self.problem}" if self.line else f"{self.source}: {self.problem}"
        )


def _identifier(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", text):
        raise ValueError("must be letters, digits and '_', and not begin with a digit")
    if text == ITEM:
        raise ValueError("is the name of what for_each gives")
    return text


def _expression(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"is not a regular expression: {error}") from error
    return text


def _texts(value: object) -> object:
    if isinstance(value, str) or (isinstance(value, list | tuple) and all(isinstance(one, str) for one in value)):
        return value
    raise ValueError("must be a text or an array of texts")


Texts = Annotated[str | tuple[str, ...], BeforeValidator(_texts)]


class Variable(Fact):
    """``[vars.NAME]``: what a person may say to a formula, and what is said when they do not.

    Attributes:
        description: what it is.
        default: its value when none is given; a list makes it one that takes several.
        required: whether a value has to be given.
        choices: its values can only be these.
        pattern: its values must match this regular expression in full.
        list: whether it takes several values.
    """

    description: str = ""
    default: Texts | None = None
    required: StrictBool = False
    choices: Array[str] = ()
    pattern: Annotated[str, AfterValidator(_expression)] = ""
    list: StrictBool = False

    @property
    def several(self) -> bool:
        """Whether its value is a list."""
        return self.list or isinstance(self.default, tuple)

    @property
    def value(self) -> Value:
        """Its value when none is given."""
        return (() if self.several else "") if self.default is None else self.default

    def problem(self, text: str) -> tuple[str, str] | None:
        """What is wrong with one value and what to do about it; None when it can have it."""
        if self.choices and text not in self.choices:
            return f"cannot be {text!r}", nearest(text, self.choices)
        if self.pattern and not re.fullmatch(self.pattern, text):
            return f"cannot be {text!r}", f"It must match {self.pattern} in full."
        return None


class StepTemplate(Fact):
    """``[[steps]]``: what becomes a step of the plan, several, or none.

    Attributes:
        id: its name, unique in the formula.
        title: one line.
        description: what an agent should know besides.
        run: the shell line that does it, for the command runtime.
        agent: who does it.
        needs: the steps it comes after; the one above it when not given.
        attempts: how often it is tried before a person is asked.
        model: the model that its agent is to use.
        timeout: seconds that one attempt may take.
        budget: US dollars that all of it may cost.
        capabilities: what its agent must be able to do.
        best_of: how many attempts are made, of which the best one is taken.
        criteria: what must hold before it may close; checked when it has become a step.
        for_each: the list variable that it is repeated for.
        when: the condition under which it is there.
        include: the formula whose steps are in this place.
        vars: the values of that one's variables.
    """

    id: str
    title: str = ""
    description: str = ""
    run: str = ""
    agent: str = ""
    needs: Array[str] | None = None
    attempts: StrictInt = Field(3, ge=1)
    model: str = ""
    timeout: StrictFloat | None = None
    budget: StrictFloat | None = None
    capabilities: Array[str] = ()
    best_of: StrictInt | None = None
    criteria: Tables[dict[str, Any]] = ()
    for_each: str = ""
    when: str = ""
    include: str = ""
    vars: dict[str, Texts] = {}

    def condition(self) -> Condition | None:
        """When it is there; None for always."""
        return condition(self.when) if "when" in self.model_fields_set else None


class Formula(Written):
    """A whole formula.

    Attributes:
        formula: its name.
        title: the molecule's title.
        goal: what is to be true in the end.
        description: what it is for.
        priority: of the molecule, as in a plan.
        labels: words to find the molecule by.
        agent: who does it.
        budget: US dollars that all of it may cost.
        rework: the shell line for the command runtime when it was sent back.
        vars: the variables.
        steps: the templates of the steps.
    """

    formula: Name
    title: str
    goal: str
    description: str = ""
    priority: StrictInt = Field(2, ge=0, le=4)
    labels: Array[str] = ()
    agent: str = ""
    budget: StrictFloat | None = None
    rework: str = ""
    vars: dict[Annotated[str, AfterValidator(_identifier)], Annotated[Variable, BeforeValidator(in_table)]] = {}
    steps: Tables[StepTemplate]
    _kind: str = PrivateAttr("formula")
    _lenient: bool = PrivateAttr(False)
    _remarks: tuple[Remark, ...] = PrivateAttr(())

    @property
    def kind(self) -> str:
        """What its author calls it: ``formula``, or a type of another program's."""
        return self._kind

    @property
    def remarks(self) -> tuple[Remark, ...]:
        """What was found in it, when it was read, that has no effect here."""
        return self._remarks

    @property
    def lenient(self) -> bool:
        """Whether a name that is not declared is left as it is."""
        return self._lenient

    @property
    def source(self) -> str:
        """The name of its file, for messages."""
        return self._document.source

    def remark(self, place: Place, problem: str, hint: str = "") -> Remark:
        """A remark about what is written at ``place``."""
        error = self.fault(place, problem, hint)
        return Remark(error.source, error.line, error.key, problem, hint)

    def known(self, step: StepTemplate) -> Collection[str]:
        """The names that a step may have between double braces."""
        return (*self.vars, ITEM) if step.for_each else tuple(self.vars)


def read_formula(document: Document, data: dict[str, Any]) -> Formula:
    """Read a formula and check what can be checked without values and without other formulas.

    Args:
        document: where it is written.
        data: what it says.

    Raises:
        InvalidDocument: with line, key, and the nearest known word.
    """
    formula = document.check(Formula, data)
    formula._document = document
    check_formula(formula)
    return formula


def check_formula(formula: Formula) -> None:
    """Check what no key shows alone.

    Raises:
        InvalidDocument: as :func:`read_formula` does.
    """
    for name, variable in formula.vars.items():
        _check_variable(formula, ("vars", name), variable)
    _check_names(formula, (), formula.model_dump(exclude={"vars", "steps"}), formula.vars)
    if not formula.steps:
        raise formula.fault(("steps",), "must have at least one step")
    check_unique(formula, ("steps",), [step.id for step in formula.steps])
    ids = {step.id for step in formula.steps}
    for index, step in enumerate(formula.steps):
        _check_step(formula, ("steps", index), step, ids)


def _check_variable(formula: Formula, place: Place, variable: Variable) -> None:
    if variable.default is None:
        return
    if variable.required:
        raise formula.fault((*place, "default"), "is never used", "A variable is required or has a default.")
    if variable.list and isinstance(variable.default, str):
        raise formula.fault((*place, "default"), "must be an array, since it is a list", "Write […].")
    for text in (variable.default,) if isinstance(variable.default, str) else variable.default:
        wrong = variable.problem(text)
        if wrong:
            raise formula.fault((*place, "default"), *wrong)


def _check_names(formula: Formula, place: Place, value: object, known: Iterable[str]) -> None:
    declared = list(known)
    for key, name in undeclared(value, declared) if not formula.lenient else ():
        hint = nearest(name, declared) or f"Declare it: [vars.{name}]."
        raise formula.fault((*place, *key), f"{{{{{name}}}}} is not declared", hint)


def _check_step(formula: Formula, place: Place, step: StepTemplate, ids: Collection[str]) -> None:
    written = step.model_dump(include=step.model_fields_set - {"needs"})
    if "include" in written:
        other = next((key for key in written if key not in _STEP_OF_INCLUDE), None)
        if other:
            raise formula.fault(
                (*place, other), "cannot stand beside include", "Say it in the formula that is included."
            )
    elif "vars" in written:
        raise formula.fault((*place, "vars"), "needs an include", "The formula's own variables are at its [vars].")
    if "for_each" in written:
        _check_list(formula, (*place, "for_each"), step.for_each)
    for position, need in enumerate(step.needs or ()):
        if need not in ids:
            _check_names(formula, (*place, "needs", position), need, formula.known(step))
    _check_names(formula, place, written, formula.known(step))
    if "when" in written:
        _check_condition(formula, (*place, "when"), step)


def _check_list(formula: Formula, place: Place, name: str) -> None:
    lists = [other for other, variable in formula.vars.items() if variable.several]
    if name not in lists:
        hint = f"Say list = true in [vars.{name}]." if name in formula.vars else nearest(name, lists)
        raise formula.fault(place, f"{name!r} is not a variable that is a list", hint)


def _check_condition(formula: Formula, place: Place, step: StepTemplate) -> None:
    try:
        found = condition(step.when)
    except Misplaced as error:
        raise formula.fault(place, error.problem, error.hint) from error
    variable = formula.vars.get(found.name)
    if variable is None or found.operator not in ("==", "!="):
        return
    if variable.several:
        raise formula.fault(place, f"{found.name} is a list, which equals no text", "Ask only whether it is empty.")
    if variable.choices and not names(found.text) and found.text not in ("", *variable.choices):
        raise formula.fault(place, f"{found.name} is never {found.text!r}", nearest(found.text, variable.choices))


def settle(
    formula: Formula, given: Mapping[str, Sequence[str]], how: str = "--var NAME=VALUE", loose: bool = False
) -> dict[str, Value]:
    """The value of every variable.

    Args:
        formula: whose variables.
        given: the texts given for each; those for a list are split where their lines end.
        how: how values are given, for messages.
        loose: whether a value may be anything, because it only stands for one.

    Raises:
        InvalidValue: a value cannot be had, one that must be is not given, or there is no such variable.
    """
    for name in given:
        if name not in formula.vars:
            hint = nearest(name, formula.vars) or f"The formula {formula.formula!r} has no variables."
            raise InvalidValue(name, f"{formula.formula} has no variable {name!r}", hint)
    missing = [name for name, variable in formula.vars.items() if variable.required and not given.get(name)]
    if missing:
        said = "; ".join(f"{name} ({formula.vars[name].description.strip() or 'not described'})" for name in missing)
        wanted = f"a value for {', '.join(missing)}" if len(missing) == 1 else f"values for {', '.join(missing)}"
        raise InvalidValue("", f"{formula.formula} needs {wanted}", f"Add {how} for each: {said}.")
    values = {name: variable.value for name, variable in formula.vars.items()}
    return {**values, **{name: _value(name, formula.vars[name], found, loose) for name, found in given.items()}}


def _value(name: str, variable: Variable, given: Sequence[str], loose: bool = False) -> Value:
    if not variable.several and len(given) != 1:
        raise InvalidValue(name, f"{name} is given {len(given)} times, and is not a list", "Give it once.")
    found = [line for text in given for line in text.split("\n") if line] if variable.several else given
    if variable.required and not any(found):
        raise InvalidValue(name, f"{name} is given without a value", variable.description)
    for text in found:
        wrong = None if loose else variable.problem(text)
        if wrong:
            raise InvalidValue(name, f"{name} {wrong[0]}", wrong[1])
        if "\0" in text:
            raise InvalidValue(name, f"{name} holds a NUL character, which no command can be given", "Remove it.")
    return tuple(found) if variable.several else found[0]


def instance(formula: Formula, given: Mapping[str, Sequence[str]], name: str = "") -> str:
    """The name of the plan that a formula makes with these values; with none, the formula's own.

    It follows from what is given and not from defaults, so that a default that changes is an edit of the same plan.

    Args:
        formula: the formula.
        given: the texts given for its variables.
        name: the name that was asked for instead.

    Raises:
        InvalidInput: it cannot be one.
    """
    if given and not name:
        said = sorted((key, _value(key, formula.vars[key], found)) for key, found in given.items())
        name = f"{formula.formula}-{hashlib.sha256(json.dumps(said).encode()).hexdigest()[:6]}"
    try:
        return check_name(name or formula.formula)
    except ValueError as error:
        problem = f"{name!r} cannot be the name of the plan: it {error}"
        raise InvalidInput(problem, "Give it another one with --name.") from error


def words(value: Value) -> str:
    """A value for people: a list's texts with commas between them."""
    return value if isinstance(value, str) else ", ".join(value)
