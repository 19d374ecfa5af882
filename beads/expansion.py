"""From a formula and values to a plan of one molecule, whose steps remember where each is written.

Every step says what it needs. A step that is dropped, or repeated for no value, is not there, and what needed it needs
what it needed. The steps of an included formula are in its place: they begin when it may, and what needs it needs
their last ones.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from beads.defaults import NO_DEFAULTS, Defaults
from beads.errors import NotFound
from beads.formula import ITEM, Formula, InvalidValue, Remark, Variable, instance, settle
from beads.plan import Molecule, Plan, PlannedCriterion, Step, check_acyclic, check_plan, nearest
from beads.quoting import spots
from beads.template import Misplaced, Value, fill, names

if TYPE_CHECKING:
    from beads.lines import Place
    from beads.toml import Document

Find = Callable[[str], Formula]
"""Finds a formula by its name; raises NotFound."""

STEPS_MAX = 100_000
"""How many steps a formula may become: formulas that include each other twice would double each time."""

NEEDS_MAX = 200_000
"""How many needs they may have: a group that waits for a group is as many as both sizes multiplied."""

_NOT_OF_A_STEP = {"needs", "for_each", "when", "include", "vars"}


class Drawn(NamedTuple):
    """A step, and where its template is written."""

    step: Step
    document: Document
    place: Place


@dataclass(frozen=True)
class _Scope:
    """A formula with values in the place where it is expanded.

    Attributes:
        formula: the formula.
        values: of its variables.
        chain: the names of the formulas that led here, itself last.
        prefix: what its steps' ids begin with.
        first: what a step needs that needs nothing in it.
    """

    formula: Formula
    values: Mapping[str, Value]
    chain: tuple[str, ...]
    prefix: str = ""
    first: tuple[str, ...] = ()


class _Instance(NamedTuple):
    """A template with the value of its list that it stands for; ``there`` unless its condition drops it."""

    id: str
    values: Mapping[str, Value]
    there: bool


def expand(
    formula: Formula,
    given: Mapping[str, Sequence[str]],
    find: Find,
    name: str = "",
    defaults: Defaults = NO_DEFAULTS,
) -> Plan:
    """The plan that a formula makes.

    Args:
        formula: the formula.
        given: the texts given for its variables.
        find: finds the formulas that it includes.
        name: the plan's name; otherwise it follows from the formula's and from what is given.
        defaults: the shell line and the criteria of steps that have none. They may have the formula's variables, and
            ``{{id}}`` and ``{{title}}`` of the step.

    Raises:
        InvalidInput: a variable cannot have its value, or is missing, or the defaults cannot be filled in.
        InvalidDocument: what is made of the formula is no plan; names the file, line and key of the template.
    """
    values = settle(formula, given)
    return _Expansion(find, defaults).plan(formula, values, instance(formula, given, name))


def sample(formula: Formula, find: Find, criteria: Sequence[PlannedCriterion]) -> Plan:
    """A plan with something for each variable and every step, to see what would be wrong with any.

    Raises:
        InvalidDocument: as :func:`expand` does.
    """
    values = {name: _something(name, variable) for name, variable in formula.vars.items()}
    return _Expansion(find, Defaults(criteria=criteria), every=True).plan(formula, values, formula.formula)


def _something(name: str, variable: Variable) -> Value:
    one = next(iter(variable.choices), name)
    return variable.value or ((one,) if variable.several else one)


def remarks(formula: Formula) -> Iterator[Remark]:
    """What is not wrong with a formula, and will be in the way of somebody."""
    yield from formula.remarks
    bare = [index for index, step in enumerate(formula.steps) if not step.include and not step.criteria]
    if bare:
        problem = "is missing: nothing tells whether it is done"
        if len(bare) > 1:
            problem = f"is missing, the first of {len(bare)}: nothing tells whether these steps are done"
        yield formula.remark(("steps", bare[0], "criteria"), problem, "Pour it with --criterion 'run: …'.")
    yield from _surrounded(formula, ("rework",), formula.rework)
    for index, step in enumerate(formula.steps):
        place: Place = ("steps", index)
        lines = [("run",), *(("criteria", n, "run") for n, _ in enumerate(step.criteria))]
        for key, line in zip(lines, (step.run, *(c.get("run", "") for c in step.criteria)), strict=True):
            yield from _surrounded(formula, (*place, *key), line)


def _surrounded(formula: Formula, place: Place, line: object) -> Iterator[Remark]:
    for spot in spots(line) if isinstance(line, str) else ():
        if spot.where and (spot.name in formula.vars or spot.name == ITEM):
            problem = f"{{{{{spot.name}}}}} stands {spot.where}, where only a plain word can be put"
            yield formula.remark(place, problem, "A value is quoted by itself where nothing is around it.")


@dataclass
class _Expansion:
    """The work of one expansion.

    Attributes:
        find: finds the formulas that are included.
        defaults: the shell line and the criteria of steps that have none.
        every: whether conditions are left aside.
        needs: how many needs there are so far.
        made: how many steps.
        found: the included formulas by name, so that each is read once.
    """

    find: Find
    defaults: Defaults
    every: bool = False
    needs: int = 0
    made: int = 0
    found: dict[str, Formula] = field(default_factory=dict)

    def plan(self, formula: Formula, values: Mapping[str, Value], name: str) -> Plan:
        """The plan of this name."""
        drawn, _ = self.steps(_Scope(formula, values, (formula.formula,)))
        if not drawn:
            hint = "Each was dropped by its `when`, or its list is empty; give other values."
            raise formula.fault(("steps",), "leave nothing to do", hint)
        document, _ = formula.written(())
        # What is not given stays so, in order that defaults are a plan's.
        said = formula.model_fields_set - {"formula", "description", "vars", "steps"}
        facts: dict[str, Any] = {key: _filled(formula, (), key, getattr(formula, key), values) for key in said}
        steps = tuple(one.step for one in drawn)
        molecule = document.check(Molecule, {**facts, "id": formula.formula, "steps": steps})
        description = _filled(formula, (), "description", formula.description, values)
        plan = document.check(Plan, {"plan": name, "description": description, "molecules": (molecule,)})

        def origin(place: Place) -> tuple[Document, Place]:
            inner = place[2:]
            if inner[:1] != ("steps",) or len(inner) < 2:
                return formula.written(inner)
            one = drawn[int(inner[1])]
            # The needs are all written out; those of the file may be others, in another order.
            return one.document, (*one.place, *inner[2 : 3 if inner[2:3] == ("needs",) else None])

        plan._origin = origin
        check_plan(plan)
        return plan

    def steps(self, scope: _Scope) -> tuple[list[Drawn], tuple[str, ...]]:
        """The steps of a formula, and the ids of its last ones."""
        formula = scope.formula
        instances = [self._instances(scope, index) for index in range(len(formula.steps))]
        wanted = _Needs(scope, instances)
        drawn: dict[int, list[Drawn]] = {}
        for index in wanted.order():
            template = formula.steps[index]
            drawn[index] = []
            last: dict[str, None] = {}
            before: dict[str, None] = {}
            for one in instances[index]:
                needs = wanted.ends(index, one.values)
                self._count(formula, index, len(needs))
                some, ends = self._made(scope, index, one, needs) if one.there else ([], ())
                drawn[index] += some
                wanted.end(one.id, ends if some else needs)
                last.update(dict.fromkeys(ends if some else ()))
                before.update(dict.fromkeys(needs))
            wanted.end(template.id, tuple(last or before or wanted.ends(index, scope.values)))
        found = [one for index in range(len(formula.steps)) for one in drawn[index]]
        needed = {need for one in found for need in one.step.needs or ()}
        return found, tuple(one.step.id for one in found if one.step.id not in needed) or scope.first

    def _made(
        self, scope: _Scope, index: int, one: _Instance, needs: tuple[str, ...]
    ) -> tuple[list[Drawn], tuple[str, ...]]:
        """The steps that an instance is, and the ids of the last of them."""
        if scope.formula.steps[index].include:
            return self._include(scope, index, one, needs)
        return [self._draw(scope, index, one, needs)], (scope.prefix + one.id,)

    def _instances(self, scope: _Scope, index: int) -> list[_Instance]:
        template = scope.formula.steps[index]
        if not template.for_each:
            return [self._instance(scope, index, template.id, scope.values)]
        items = scope.values[template.for_each]
        named = ITEM in names(template.id)
        return [
            self._instance(
                scope, index, template.id if named else f"{template.id}-{number}", {**scope.values, ITEM: item}
            )
            for number, item in enumerate(items, start=1)
        ]

    def _instance(self, scope: _Scope, index: int, name: str, values: Mapping[str, Value]) -> _Instance:
        condition = scope.formula.steps[index].condition()
        there = self.every or condition is None or condition.holds(values)
        return _Instance(_filled(scope.formula, ("steps", index), "id", name, values), values, there)

    def _draw(self, scope: _Scope, index: int, one: _Instance, needs: tuple[str, ...]) -> Drawn:
        formula, template = scope.formula, scope.formula.steps[index]
        document, place = formula.written(("steps", index))
        facts: dict[str, Any] = {
            key: _filled(formula, ("steps", index), key, getattr(template, key), one.values)
            for key in template.model_fields_set - _NOT_OF_A_STEP
        }
        about = {**one.values, "id": one.id, "title": facts.get("title", "")}
        if not facts.get("criteria"):
            if not self.defaults.criteria:
                hint = "A step closes only when its criteria hold; give it some, or pour with --criterion 'run: …'."
                raise formula.fault(("steps", index, "criteria"), "is missing", hint)
            facts["criteria"] = self.defaults.checks(about)
        # A step that names the runtime of commands and has none is a question to a person, and nothing else.
        if self.defaults.run and not facts.get("run") and facts.get("agent") != "command":
            facts["run"] = self.defaults.line(about)
        step = document.check(Step, {**facts, "id": scope.prefix + one.id, "needs": needs}, place)
        return Drawn(step, document, place)

    def _include(
        self, scope: _Scope, index: int, one: _Instance, needs: tuple[str, ...]
    ) -> tuple[list[Drawn], tuple[str, ...]]:
        formula, template = scope.formula, scope.formula.steps[index]
        place: Place = ("steps", index)
        chain = (*scope.chain, template.include)
        if template.include in scope.chain:
            ring = " → ".join(chain[scope.chain.index(template.include) :])
            raise formula.fault((*place, "include"), f"leads back to itself: {ring}", "Take one of these away.")
        inner = self._found(formula, (*place, "include"), template.include)
        said = {
            name: _filled(formula, (*place, "vars"), name, value, one.values, "")
            for name, value in template.vars.items()
        }
        try:
            given = {name: (text,) if isinstance(text, str) else text for name, text in said.items()}
            values = settle(inner, given, "NAME = VALUE to its vars", loose=self.every)
        except InvalidValue as error:
            where: Place = (*place, "vars", error.variable) if error.variable else (*place, "vars")
            raise formula.fault(where, error.message, error.hint) from error
        return self.steps(_Scope(inner, values, chain, f"{scope.prefix}{one.id}-", needs))

    def _found(self, formula: Formula, place: Place, name: str) -> Formula:
        try:
            if name not in self.found:
                self.found[name] = self.find(name)
        except NotFound as error:
            raise formula.fault(place, error.message, error.hint) from error
        return self.found[name]

    def _count(self, formula: Formula, index: int, needs: int) -> None:
        self.made += 1
        self.needs += needs
        if self.made > STEPS_MAX:
            raise formula.fault(("steps", index), f"make more than {STEPS_MAX} steps", "Pour it in parts.")
        if self.needs > NEEDS_MAX:
            problem = f"these steps have more than {NEEDS_MAX} needs, as each of many needs each of many"
            raise formula.fault(("steps", index, "needs"), problem, "Put a step between the two groups.")


class _Needs:
    """What the steps of a formula need: by the ids that a template or one of its steps has."""

    def __init__(self, scope: _Scope, instances: Sequence[Sequence[_Instance]]) -> None:
        self._scope = scope
        self._steps = scope.formula.steps
        self._ends: dict[str, tuple[str, ...]] = {}
        self._index = {step.id: index for index, step in enumerate(self._steps)}
        self._owner = {one.id: index for index, some in enumerate(instances) for one in some} | self._index
        self._joined: dict[tuple[str, ...], tuple[str, ...]] = {}
        self._instances = instances

    def order(self) -> list[int]:
        """The templates by their indexes, what is needed before what needs it."""
        needs: dict[str, list[str]] = {}
        for index, step in enumerate(self._steps):
            several = ITEM in names(" ".join(step.needs or ()))
            values = [one.values for one in self._instances[index]] if several else [self._scope.values]
            found = {self._owner[name] for some in values for name in self._names(index, some)}
            needs[step.id] = [self._steps[other].id for other in sorted(found)]
        return [self._index[name] for name in check_acyclic(self._scope.formula, ("steps",), needs)]

    def ends(self, index: int, values: Mapping[str, Value]) -> tuple[str, ...]:
        """The ids of the steps that a template needs with these values."""
        wanted = self._names(index, values)
        if wanted not in self._joined:
            found = itertools.chain.from_iterable(self._ends[name] for name in wanted)
            self._joined[wanted] = tuple(dict.fromkeys(found)) or self._scope.first
        return self._joined[wanted]

    def end(self, name: str, ends: tuple[str, ...]) -> None:
        """Say which steps one needs that needs ``name``."""
        self._ends[name] = ends

    def _names(self, index: int, values: Mapping[str, Value]) -> tuple[str, ...]:
        step = self._steps[index]
        if step.needs is None:
            return (self._steps[index - 1].id,) if index else ()
        return tuple(
            name for position, need in enumerate(step.needs) for name in self._name(index, position, need, values)
        )

    def _name(self, index: int, position: int, need: str, values: Mapping[str, Value]) -> Iterable[str]:
        place = ("steps", index, "needs")
        if ITEM not in values and ITEM in names(need):
            # As it is written it is the whole group; and for an empty list there is nobody who needs.
            return [need] if need in self._index else []
        name = _filled(self._scope.formula, place, position, need, values)
        if name not in self._owner:
            problem = f"there is no step {name!r} in this formula"
            raise self._scope.formula.fault((*place, position), problem, nearest(name, self._index))
        return [name]


def _filled(
    formula: Formula, place: Place, at: str | int, value: Any, values: Mapping[str, Value], key: str | None = None
) -> Any:
    """What stands at ``at`` below ``place``, with values; an error says where."""
    try:
        return fill(value, str(at) if key is None else key, values)
    except Misplaced as error:
        raise formula.fault((*place, at, *error.key), error.problem, error.hint) from error
