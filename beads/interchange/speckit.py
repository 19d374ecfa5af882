"""A Spec-Kit ``tasks.md`` as beads: what waits for what, and what proves a phase. Pure.

A phase is an epic, its tasks are beads of their own below it, and its checkpoint is a bead that waits for them: with
criteria, so a molecule of one step, where the file says what to run. What comes after the phase waits for that.
``docs/interchange.md`` says why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

from beads.errors import InvalidDocument, InvalidInput
from beads.interchange.bd import bead_of
from beads.interchange.merge import adopted, changes
from beads.interchange.row import Row, one_line
from beads.interchange.tasks import Outline, Phase, Task
from beads.model import Bead, Criterion, derived_id
from beads.touches import put_after

Lookup = Callable[[str], Bead | None]
"""Finds a bead of the store by its id."""


@dataclass(frozen=True)
class Origin:
    """Where the tasks come from.

    Attributes:
        source: the file's name, for errors.
        path: what the beads say where they come from.
        feature: what the tasks are about; ids follow from it and from theirs.
    """

    source: str
    path: str
    feature: str


def origin_of(path: Path | None, source: str, title: str) -> Origin:
    """What a file's tasks are about: the directory in ``specs``, or what the file calls itself.

    Args:
        path: where it is, absolute; None for standard input.
        source: its name for messages.
        title: what it calls itself.

    Raises:
        InvalidInput: nothing says it.
    """
    folder = path.parent if path else Path()
    if path and folder.parent.name == "specs":
        return Origin(source, f"specs/{folder.name}/{path.name}", folder.name)
    if not title and not folder.name:
        raise InvalidInput(f"{source} does not say what its tasks are about", "Begin it with `# Tasks: NAME`.")
    return Origin(source, path.name if path else "tasks.md", title or folder.name)


@dataclass
class Order:
    """Which tasks and checkpoints wait for which, by their names, and what could not be followed."""

    needs: dict[str, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, name: str, needs: Iterable[str]) -> None:
        """Let one wait for others, as well as for those it waits for already."""
        there = self.needs.setdefault(name, [])
        there.extend(need for need in dict.fromkeys(needs) if need not in there and need != name)


def poured(
    outline: Outline, origin: Origin, prefix: str, actor: str, now: datetime, known: Lookup
) -> tuple[list[Bead], list[str]]:
    """As :func:`beads_of`; what an import will change was updated now."""
    beads, notes = beads_of(outline, origin, prefix, actor, now, known)
    there = {bead.id: known(bead.id) for bead in beads}
    stale = {b.id for b in beads if changes(there[b.id], adopted(there[b.id], b).bead)}

    def renewed(bead_id: str) -> Bead | None:
        bead = there.get(bead_id)
        return bead.evolve(updated_at=max(now, bead.updated_at)) if bead and bead_id in stale else bead

    return beads_of(outline, origin, prefix, actor, now, renewed)[0], notes


def beads_of(
    outline: Outline, origin: Origin, prefix: str, actor: str, now: datetime, known: Lookup
) -> tuple[list[Bead], list[str]]:
    """The beads of a file, and what in it could not be followed.

    Args:
        outline: what was read.
        origin: where it was read.
        prefix: what the store's ids start with.
        actor: who imports it.
        now: when.
        known: finds a bead of the store; what is there keeps its times.

    Raises:
        InvalidDocument: tasks wait for each other in a ring.
    """
    order = order_of(outline, origin)
    maker = _Maker(origin, prefix, actor, now, known, order.needs)
    beads: list[Bead] = []
    for phase in outline.phases:
        parent = maker.phase(phase)
        checks = [maker.checkpoint(phase, parent.id)] if phase.checks else []
        beads += [parent, *(maker.task(task, phase, parent.id) for task in phase.tasks), *checks]
    return beads, [*outline.notes, *order.notes]


def order_of(outline: Outline, origin: Origin) -> Order:
    """What waits for what in a file: a task by its id, a checkpoint by :func:`check_of`.

    Raises:
        InvalidDocument: tasks wait for each other in a ring.
    """
    order = Order()
    tasks = [task for phase in outline.phases for task in phase.tasks]
    for phase in outline.phases:
        _chain(phase, order)
    _explicit(tasks, order, origin)
    for phase in outline.phases:
        _share(phase.tasks, order)
    _raise_barriers(outline.phases, order)
    # Stories stand side by side, and may name one file, too.
    _share(tasks, order)
    try:
        TopologicalSorter(order.needs).prepare()
    except CycleError as error:
        lines = {task.id: task.line for phase in outline.phases for task in phase.tasks}
        ring = error.args[1][::-1]
        line = next((lines[name] for name in error.args[1] if name in lines), 0)
        problem = f"tasks wait for each other: {' → '.join(ring)}"
        raise InvalidDocument(origin.source, line, "", problem, "Remove a `(depends on …)`.") from error
    return order


def _raise_barriers(phases: Sequence[Phase], order: Order) -> None:
    """The barriers: a story waits for the last phase before the stories, any other phase for all before it."""
    base: list[str] = []
    stories: list[str] = []
    for phase in phases:
        before = base if phase.story else stories or base
        inside = {task.id for task in phase.tasks}
        waited = {need for name in inside for need in order.needs[name]}
        ends = [task.id for task in phase.tasks if task.id not in waited]
        if phase.checks:
            order.add(check_of(phase), ends)
            ends = [check_of(phase)]
        for task in phase.tasks:
            if inside.isdisjoint(order.needs[task.id]):
                order.add(task.id, before)
        base, stories = (base, [*stories, *ends]) if phase.story else (ends, [])


def _chain(phase: Phase, order: Order) -> None:
    """A task without ``[P]`` waits for all since the last one without; tests come before what they test."""
    chain: list[str] = []
    tests = [task.id for task in phase.tasks if task.section.lower().startswith("tests")]
    for task in phase.tasks:
        order.add(task.id, [*(tests if task.section and task.id not in tests else []), *([] if task.free else chain)])
        chain = [*chain, task.id] if task.free else [task.id]


def _explicit(tasks: Sequence[Task], order: Order, origin: Origin) -> None:
    ids = {task.id for task in tasks}
    for task in tasks:
        order.add(task.id, (need for need in task.needs if need in ids))
        missing = [need for need in task.needs if need not in ids]
        order.notes += [
            f"{origin.source}:{task.line}: {task.id} depends on {need}, which is not there" for need in missing
        ]


def _share(tasks: Sequence[Task], order: Order) -> None:
    """Chain the tasks that name one file: whatever ``[P]`` says, they cannot be done side by side."""
    last: dict[str, str] = {}
    for task in tasks:
        put_after(order.needs, task.id, [last[path] for path in task.paths if path in last])
        last.update(dict.fromkeys(task.paths, task.id))


def check_of(phase: Phase) -> str:
    """The name of a phase's checkpoint among the names of tasks."""
    return f"checkpoint {phase.key}"


@dataclass(frozen=True)
class _Maker:
    origin: Origin
    prefix: str
    actor: str
    now: datetime
    known: Lookup
    needs: Mapping[str, Sequence[str]]

    def phase(self, phase: Phase) -> Bead:
        """The epic."""
        title = f"{self.origin.feature}: {phase.title}" if phase.title else self.origin.feature
        return self._bead(f"phase {phase.key}", title, phase.line, phase, {"issue_type": "epic", **_about(phase)})

    def task(self, task: Task, phase: Phase, parent: str) -> Bead:
        """One task; ticked ones come in closed."""
        ended = {"status": "closed", "close_reason": f"ticked in {self.origin.path}"} if task.done else {}
        facts = {"description": f"{task.id}: {task.text}", "labels": list(task.labels), **ended}
        return self._bead(task.id, task.text, task.line, phase, facts, parent)

    def checkpoint(self, phase: Phase, parent: str) -> Bead:
        """What is looked at when the tasks are done; closed where that was no command and they all are."""
        done = not phase.commands and all(task.done for task in phase.tasks)
        ended = {"status": "closed", "close_reason": f"all ticked in {self.origin.path}"} if done else {}
        facts = {**_about(phase), **ended}
        bead = self._bead(check_of(phase), f"Checkpoint: {phase.title}", phase.checks[-1][2], phase, facts, parent)
        criteria = tuple(Criterion(run=command) for command in phase.commands)
        return bead.evolve(criteria=criteria).sealed() if criteria else bead

    def _bead(self, name: str, title: str, line: int, phase: Phase, facts: dict[str, Any], parent: str = "") -> Bead:
        """A bead by way of a row, so that importing it again merges as it does for any other file."""
        there = self.known(self._id(name))
        parents = [{"depends_on_id": parent, "type": "parent-child"}] if parent else []
        row = {
            "id": self._id(name),
            "title": one_line(title),
            "priority": phase.priority,
            "created_at": (there.created_at if there else self.now).isoformat(),
            "created_by": there.created_by if there else self.actor,
            "updated_at": (there.updated_at if there else self.now).isoformat(),
            "dependencies": [*parents, *({"depends_on_id": self._id(on)} for on in self.needs.get(name, ()))],
            **{key: value for key, value in facts.items() if value},
        }
        if facts.get("status") == "closed":
            row["closed_at"] = ((there and there.closed_at) or self.now).isoformat()
        return bead_of(Row(row, self.origin.source, line)).evolve(source=f"{self.origin.path}:{line}")

    def _id(self, name: str) -> str:
        return derived_id(self.prefix, "speckit", self.origin.feature, name, length=8)


def _about(phase: Phase) -> dict[str, Any]:
    said = "\n\n".join(f"{name}: {text}" for name, text, _ in phase.said)
    return {"description": said, "labels": [phase.story] if phase.story else []}
