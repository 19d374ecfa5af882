"""A Spec-Kit ``tasks.md`` as a plan: a molecule for each open task, and one for each checkpoint with commands. Pure.

The order is the one that an import has (``beads/interchange/speckit.py``); a task that is left out, and a checkpoint
in prose, are replaced by what they waited for. A file that its tasks tick, and main as it grows, must not make other
work of what was poured: where the store has a task already, it is asked what was decided about it then.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

from beads.defaults import Defaults
from beads.errors import InvalidDocument, InvalidInput
from beads.interchange.row import one_line
from beads.interchange.speckit import Origin, check_of, order_of, origin_of
from beads.interchange.tasks import Outline, Phase, Task, commands, read
from beads.model import Bead
from beads.plan import SUPERSEDES, Molecule, Plan, PlannedCriterion, check_name, check_plan, source_of
from beads.toml import Document, dotted
from beads.touches import PATTERN_MAX

if TYPE_CHECKING:
    from pydantic import BaseModel

    from beads.lines import Place
    from beads.template import Value

Model = TypeVar("Model", bound="BaseModel")

_DONE = ("landed", "done")
_AIMS = ("Goal", "Purpose")
_CHECKS = ("Independent Test", "Checkpoint")


@dataclass(frozen=True)
class TaskList:
    """A ``tasks.md`` that was read: where it comes from, its text, and what it says."""

    origin: Origin
    text: bytes
    outline: Outline


class Made(NamedTuple):
    """What an earlier version of a plan has made of a task.

    Attributes:
        molecule: its bead.
        step: the bead of its only step; None where somebody has deleted it.
        needs: the names of the molecules that it waited for.
    """

    molecule: Bead
    step: Bead | None
    needs: tuple[str, ...]


class Poured(Protocol):
    """What this module asks of a state of the store."""

    def poured(self, plan: str) -> Iterable[Bead]:
        """The molecules that versions of a plan have made."""
        ...

    def get(self, bead_id: str) -> Bead | None:
        """The bead of that id, or None."""
        ...


def read_tasks(text: bytes, path: Path, source: str, known_as: str = "") -> TaskList:
    """Read a ``tasks.md``.

    Args:
        text: what is in it.
        path: where it is, absolute.
        source: its name for messages.
        known_as: its path in the repository, for whoever does a task; where it is in none, its name has to do.

    Raises:
        InvalidDocument: it is no UTF-8, has no task, or two of one id.
    """
    if b"\0" in text:
        line = text.count(b"\n", 0, text.index(b"\0")) + 1
        raise InvalidDocument(source, line, "", "holds a NUL character, which no command can be given", "Remove it.")
    try:
        outline = read(text.decode(), source)
    except UnicodeDecodeError as error:
        raise InvalidDocument(source, text.count(b"\n", 0, error.start) + 1, "", "not UTF-8 text") from error
    origin = origin_of(path, source, outline.title)
    return TaskList(replace(origin, path=known_as or origin.path), text, outline)


def plan_name(tasks: TaskList, name: str = "") -> str:
    """The name of the plan: the one asked for, or the feature's as far as it can be one.

    Raises:
        InvalidInput: the one asked for cannot be a name.
    """
    feature = tasks.origin.feature
    slug = re.sub(r"[^A-Za-z0-9_-]+", "-", feature).strip("-_")[:64]
    try:
        return check_name(name or slug or f"tasks-{hashlib.sha256(feature.encode()).hexdigest()[:6]}")
    except ValueError as error:
        problem = f"{name!r} cannot be the name of the plan: it {error}"
        raise InvalidInput(problem, "Give it another one with --name.") from error


def made_by(view: Poured, plan: str) -> dict[str, Made]:
    """The newest version of each molecule that a plan has made, by its name in the plan."""
    newest: dict[str, Bead] = {}
    for bead in view.poured(plan):
        heirs = (view.get(d.on) for d in bead.dependencies if d.type == SUPERSEDES)
        if any(heir is not None and heir.source == bead.source for heir in heirs):
            continue
        there = newest.get(bead.source)
        if there is None or there.created_at < bead.created_at:
            newest[bead.source] = bead
    start = source_of(plan, "")
    found: dict[str, Made] = {}
    for source, bead in newest.items():
        needed = (view.get(need) for need in bead.needs)
        needs = tuple(need.source.removeprefix(start) if need else "" for need in needed)
        found[source.removeprefix(start)] = Made(bead, view.get(f"{bead.id}.1"), needs)
    return found


def plan_from(
    tasks: TaskList, name: str, defaults: Defaults, on_main: Callable[[str], bool], made: Mapping[str, Made]
) -> tuple[Plan, list[str]]:
    """The plan that a ``tasks.md`` is, and what in the file could not be followed.

    Args:
        tasks: the file.
        name: the plan's name; see :func:`plan_name`.
        defaults: the shell line of every task, and the criteria of those for which the file names no command. They may
            have ``{{id}}``, ``{{title}}``, ``{{paths}}``, ``{{story}}`` and ``{{phase}}``.
        on_main: whether there is a file of that path on main.
        made: what the store has of this plan; see :func:`made_by`.

    Raises:
        InvalidDocument: tasks wait for each other in a ring, or for some nothing tells whether they are done.
        InvalidInput: the defaults cannot be filled in.
    """
    order = order_of(tasks.outline, tasks.origin)
    maker = _Maker(tasks, defaults, on_main, made)
    found = list(maker.molecules())
    if not found:
        raise InvalidDocument(tasks.origin.source, 0, "", "all tasks are ticked", "Add what is left to do.")
    document = _Listing(tasks.text, tasks.origin.source, [(one.name, one.line) for one in found])
    maker.check(found)
    names = {one.graph: one.name for one in found}
    derived = dict(_contracted(order.needs, names))
    there = frozenset(names.values())
    kept = {one.name: _needs_then(one, made, there) for one in found}
    needs = {one.name: derived[one.graph] if kept[one.name] is None else kept[one.name] for one in found}
    if _ring(needs):
        needs = {one.name: derived[one.graph] for one in found}
    molecules = tuple(
        document.check(Molecule, {**one.facts, "needs": needs[one.name]}, ("molecules", index))
        for index, one in enumerate(found)
    )
    facts = {"title": tasks.outline.title, "description": f"The tasks of {tasks.origin.path}."}
    plan = document.check(Plan, {"plan": name, **facts, "molecules": molecules})
    plan._document = document
    check_plan(plan)
    return plan, [*tasks.outline.notes, *order.notes]


class _Item(NamedTuple):
    """A molecule to be: its name in the order and in the plan, the line it is on, and what it says."""

    graph: str
    name: str
    line: int
    facts: dict[str, Any]


@dataclass(frozen=True)
class _Maker:
    tasks: TaskList
    defaults: Defaults
    on_main: Callable[[str], bool]
    made: Mapping[str, Made]

    def molecules(self) -> Iterator[_Item]:
        """The tasks that are open, or were done in this plan, and the checkpoints that have commands."""
        named: set[str] = set()
        taken: set[str] = set()
        for phase in self.tasks.outline.phases:
            for task in phase.tasks:
                if not task.done or task.id in self.made:
                    item = _Item(task.id, task.id, task.line, self._task(task, phase, named))
                    if not task.done or self._is_made(item):
                        yield item
                named.update(task.files)
            if phase.commands:
                name = _free(f"checkpoint-{re.sub('[^A-Za-z0-9_-]+', '-', phase.key).strip('-')}", taken)
                yield _Item(check_of(phase), name, phase.checks[-1][2], self._checkpoint(name, phase))

    def check(self, found: Sequence[_Item]) -> None:
        """Refuse tasks of which nobody could tell whether they are done."""
        bare = [(one.name, one.line) for one in found if not one.facts["criteria"]]
        if not bare:
            return
        (first, line), *others = bare
        more = ", ".join(f"{name} (line {line})" for name, line in others)
        problem = f"nothing tells whether it is done{f', nor of {more}' if more else ''}"
        hint = (
            "Say how one sees it: --criterion 'run: COMMAND', in which {{id}}, {{title}} and {{paths}} are the task's; "
            "or name a command in the task, in backticks."
        )
        raise InvalidDocument(self.tasks.origin.source, line, first, problem, hint)

    def _task(self, task: Task, phase: Phase, named: set[str]) -> dict[str, Any]:
        values: dict[str, Value] = {
            "id": task.id,
            "title": task.text,
            "paths": task.files,
            "story": task.story,
            "phase": phase.title,
        }
        own = tuple(PlannedCriterion(run=command) for command in commands(task.text))
        files = tuple(PlannedCriterion(file=path) for path in self._created(task, named))
        try:
            run, more = self.defaults.line(values), () if own else self.defaults.checks(values)
        except InvalidInput as error:
            raise InvalidDocument(self.tasks.origin.source, task.line, task.id, error.message, error.hint) from error
        return {
            **self._facts(task.id, one_line(task.text), f"{task.id}: {task.text}", phase, _AIMS),
            "labels": task.labels,
            "touches": tuple(path for path in task.files if len(path) <= PATTERN_MAX),
            "criteria": (*files, *own, *more),
            **({"run": run} if run else {}),
        }

    def _checkpoint(self, name: str, phase: Phase) -> dict[str, Any]:
        """What proves a phase. It has no line of its own: there is something to do only where it does not hold."""
        about = "All tasks of the phase are done, and together they hold."
        facts = self._facts(name, one_line(f"Checkpoint: {phase.title or 'all tasks'}"), about, phase)
        criteria = tuple(PlannedCriterion(run=command) for command in phase.commands)
        return {**facts, "labels": (phase.story,) if phase.story else (), "criteria": criteria}

    def _facts(
        self, name: str, title: str, text: str, phase: Phase, which: Sequence[str] = (*_AIMS, *_CHECKS)
    ) -> dict[str, Any]:
        said = [f"{key}: {text}" for key, text, _ in phase.said if key in which]
        about = f"Phase: {phase.title}" if phase.title else ""
        where = f"It is from {self.tasks.origin.path}; what stands beside that file describes the feature."
        goal = "\n".join(filter(None, (text, "", about, *said, "", where)))
        return {"id": name, "title": title, "goal": goal, "priority": phase.priority}

    def _created(self, task: Task, named: set[str]) -> Iterator[str]:
        """The files that a task is to create: no task before it names them, and they are not on main.

        Main has them once the task has landed, so that what was decided when it was poured is left to stand.
        """
        made = self.made.get(task.id)
        criteria = made.step.criteria if made and made.step else ()
        files = {criterion.file for criterion in criteria if criterion.file}
        for path in task.makes:
            if path in named:
                continue
            known = made is not None and path in made.molecule.description
            if path in files or (not known and not self.on_main(path)):
                yield path

    def _is_made(self, item: _Item) -> bool:
        """Whether a task has been done in this plan as it stands here, so that what needs it stays as it is."""
        made = self.made.get(item.name)
        return made is not None and made.molecule.outcome in _DONE and _same(made, item.facts)


def _same(made: Made, facts: Mapping[str, Any]) -> bool:
    """Whether the work is what it was when it was poured."""
    if made.step is None:
        return False
    there = [criterion.model_dump(exclude_defaults=True) for criterion in made.step.criteria]
    wanted = [criterion.model_dump(exclude_defaults=True) for criterion in facts["criteria"]]
    said = (made.molecule.title, made.molecule.description, made.step.run, there)
    return said == (facts["title"], facts["goal"], facts.get("run", ""), wanted)


def _needs_then(item: _Item, made: Mapping[str, Made], names: frozenset[str]) -> tuple[str, ...] | None:
    """What a task needed that is done, where that can still be said; its place among new tasks is of no account."""
    there = made.get(item.name)
    if there is None or there.molecule.outcome not in _DONE or not _same(there, item.facts):
        return None
    return there.needs if names.issuperset(there.needs) else None


def _contracted(needs: Mapping[str, Sequence[str]], names: Mapping[str, str]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """What each one needs among those that are named, through all that is not."""
    found: dict[str, tuple[str, ...]] = {}
    for one in TopologicalSorter(needs).static_order():
        through = ((names[need],) if need in names else found[need] for need in needs.get(one, ()))
        found[one] = tuple(dict.fromkeys(name for some in through for name in some))
        yield one, found[one]


def _ring(needs: Mapping[str, Sequence[str] | None]) -> bool:
    try:
        TopologicalSorter({name: some or () for name, some in needs.items()}).prepare()
    except CycleError:
        return True
    return False


def _free(name: str, taken: set[str]) -> str:
    """The name, or another one where it is taken."""
    name = name[:56]
    found, number = name, 2
    while found in taken:
        found, number = f"{name}-{number}", number + 1
    taken.add(found)
    return found


class _Listing(Document):
    """A list of tasks as the document that a plan is written in: a molecule is on its task's line."""

    def __init__(self, text: bytes, source: str, molecules: Sequence[tuple[str, int]]) -> None:
        super().__init__(text, source)
        self._molecules = molecules

    def line(self, place: Place) -> int:
        """The line of the task that ``place`` is about; 0 for what is about all of them."""
        return self._about(place)[1]

    def fault(self, place: Place, problem: str, hint: str = "") -> InvalidDocument:
        """The error to raise for what is wrong with a task."""
        name, line = self._about(place)
        return InvalidDocument(self.source, line, dotted((name, *place[2:])) if name else "", problem, hint)

    def check(self, model: type[Model], data: dict[str, Any], prefix: Place = ()) -> Model:
        """A value of ours; what does not fit is the task's that stands there."""
        try:
            return super().check(model, data, prefix)
        except InvalidDocument as error:
            raise self.fault(prefix, error.problem, error.hint) from error

    def _about(self, place: Place) -> tuple[str, int]:
        index = place[1] if len(place) > 1 and place[0] == "molecules" else None
        return self._molecules[index] if isinstance(index, int) else ("", 0)
