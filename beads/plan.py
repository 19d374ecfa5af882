"""Plans: TOML documents that list molecules, read with line and key, and poured into beads.

Pouring is pure and has no memory. A molecule's id follows from the plan's name, its own name and what its work
is, so that pouring twice changes nothing, and pouring an edited plan makes new beads only for the molecules whose
work was edited. What the work is: title, goal, ``rework``, ``needs`` as written, and the steps with their criteria.
Priority, labels, agent, budget and attempts are no part of it; they may be changed on the bead at any time. Nor is
what it is expected to touch, which only helps to plan and is not kept.

An edit leaves a bead behind that the plan no longer asks for; a ``supersedes`` dependency from it to its successor
says so, as in ``bd``, and the Mayor writes it. The plan poured last rules: when an edit is taken back, what was
superseded is not revived but made anew, under an id that has grown by one.
"""

from __future__ import annotations

import difflib
import hashlib
import itertools
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING, Annotated, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, PrivateAttr, StrictBool, StrictFloat, StrictInt

from beads.create import Create
from beads.criteria import ONLY_LIMITS, only_limit
from beads.errors import InvalidDocument, InvalidInput
from beads.model import BEST_OF_MAX, Bead, Criterion, Dependency, Fact, Terms, check_id, derived_id, milliseconds
from beads.toml import Document, dumps
from beads.touches import check_pattern

if TYPE_CHECKING:
    from beads.lines import Place

Item = TypeVar("Item")
Lookup = Callable[[str], Bead | None]
"""Finds a bead of the store by its id."""

SUPERSEDES = "supersedes"
"""The dependency of an older version on the bead that took its place."""

_ID_LENGTH = 6
_NAME_LENGTH_MAX = 64


def check_name(text: str) -> str:
    """``text`` if it can be the name of a plan, a molecule or a step; a ValueError otherwise."""
    if len(text) > _NAME_LENGTH_MAX or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", text):
        raise ValueError(f"must be up to {_NAME_LENGTH_MAX} letters, digits, '_' and '-'")
    return text


def _title(text: str) -> str:
    if not text.strip() or len(text) > 500 or any(ord(c) < 32 for c in text):
        raise ValueError("must be one line of text, up to 500 characters")
    return text


def _filled(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be empty")
    return text


def _sayable(text: str) -> str:
    if "\0" in text:
        raise ValueError("holds a NUL character, which no command can be given")
    return text


def _needed(text: str) -> str:
    try:
        return check_id(text)
    except InvalidInput as error:
        raise ValueError("must be an id of this plan or of a bead") from error


def _array(value: object) -> object:
    if not isinstance(value, list | tuple):
        # A TypeError would be the name for it, but pydantic tells only a ValueError's place.
        raise ValueError("must be an array")
    return value


def in_table(value: object) -> object:
    """Let pass what a table may be."""
    if not isinstance(value, dict | Fact):
        raise ValueError("must be a table")
    return value


Name = Annotated[str, AfterValidator(check_name)]
Title = Annotated[str, AfterValidator(_title)]
Words = Annotated[str, AfterValidator(_filled)]
Command = Annotated[str, AfterValidator(_filled), AfterValidator(_sayable)]
Needed = Annotated[str, AfterValidator(_needed)]
Pattern = Annotated[str, AfterValidator(check_pattern)]
Array = Annotated[tuple[Item, ...], BeforeValidator(_array)]
Tables = Array[Annotated[Item, BeforeValidator(in_table)]]


class PlannedCriterion(Criterion):
    """A criterion as a person writes it: types are not guessed, and a ``run`` that is given says something."""

    run: Command = ""
    exit: StrictInt = Field(0, ge=0, le=255)
    timeout: StrictFloat = Field(600.0, gt=0, le=86_400)
    file: Annotated[str, AfterValidator(_sayable)] = ""
    absent: StrictBool = False
    diff: Array[Annotated[str, AfterValidator(_sayable)]] = ()
    lines: StrictInt | None = Field(None, ge=0)
    review: Annotated[str, AfterValidator(_sayable)] = ""
    approval: Annotated[str, AfterValidator(_sayable)] = ""


class Step(Fact):
    """``[[molecules.steps]]``: one thing to do, and how one sees that it is done.

    Attributes:
        id: its name, unique in the molecule.
        title: one line.
        description: what an agent should know besides.
        run: the shell line that does it, for the command runtime.
        agent: who does it; empty means the molecule's.
        needs: the steps it comes after; the one above it when not given.
        attempts: how often it is tried before a person is asked.
        model: the model that its agent is to use; empty for the agent's own.
        timeout: seconds that one attempt may take; the agent's when not given.
        budget: US dollars that all of it may cost; no limit of its own when not given.
        capabilities: what its agent must be able to do, in the words of ``town.toml``.
        best_of: how many attempts are made from the same beginning, of which the best one is taken.
        criteria: what must hold before it may close.
    """

    id: Name
    title: Title
    description: str = ""
    run: Command = ""
    agent: str = ""
    needs: Array[str] | None = None
    attempts: StrictInt = Field(3, ge=1)
    model: str = ""
    timeout: StrictFloat | None = Field(None, gt=0, le=86_400)
    budget: StrictFloat | None = Field(None, gt=0)
    capabilities: Array[Words] = ()
    best_of: StrictInt | None = Field(None, ge=2, le=BEST_OF_MAX)
    criteria: Tables[PlannedCriterion] = ()

    def terms(self) -> Terms | None:
        """On what terms it is worked on; None when nothing is said of them."""
        said = {name: getattr(self, name) for name in Terms.model_fields}
        return Terms.model_validate(said) if any(said.values()) else None


class Molecule(Fact):
    """``[[molecules]]``: the unit of claim, branch and merge request.

    Attributes:
        id: its name, unique in the plan.
        title: one line.
        goal: what is to be true in the end.
        needs: the molecules of this plan, or beads of the store, that must have landed before it starts.
        touches: patterns of the paths that its work is expected to change; see :func:`beads.touches.ordered`.
        priority: 0 is the most urgent, 4 the least.
        labels: words to find it by.
        agent: who does it; empty means the default.
        budget: US dollars that all its steps may cost together; no limit of its own when not given.
        rework: the shell line for the command runtime when it was sent back; empty means the ``run`` lines again.
        replaces: beads of the store that it takes the place of: they are closed as superseded, and what waited for
            them waits for it.
        run: short for one step: its command.
        criteria: short for one step: its criteria.
        steps: the steps, in the order they are done unless their ``needs`` say otherwise.
    """

    id: Name
    title: Title
    goal: Words
    needs: Array[Needed] = ()
    touches: Array[Pattern] = ()
    priority: StrictInt = Field(2, ge=0, le=4)
    labels: Array[Words] = ()
    agent: str = ""
    budget: StrictFloat | None = Field(None, gt=0)
    rework: Annotated[str, AfterValidator(_sayable)] = ""
    replaces: Array[Needed] = ()
    run: Command = ""
    criteria: Tables[PlannedCriterion] = ()
    steps: Tables[Step] = ()

    def work(self) -> tuple[Step, ...]:
        """The steps; ``run`` and ``criteria`` given directly are one step of the molecule's own name and title."""
        if self.steps:
            return self.steps
        return (Step.model_construct(id=self.id, title=self.title, run=self.run, criteria=self.criteria),)

    def order(self) -> dict[str, tuple[str, ...]]:
        """Which steps each step comes right after."""
        found: dict[str, tuple[str, ...]] = {}
        above: tuple[str, ...] = ()
        for step in self.work():
            found[step.id] = above if step.needs is None else tuple(dict.fromkeys(step.needs))
            above = (step.id,)
        return found


class Written(Fact):
    """What a document says; it remembers the document, so that what is wrong can be shown where it is written."""

    _document: Document = PrivateAttr(default_factory=lambda: Document(b"", "plan"))
    _origin: Callable[[Place], tuple[Document, Place]] | None = PrivateAttr(None)

    def written(self, place: Place) -> tuple[Document, Place]:
        """Where ``place`` comes from: a document, and the place in it that has it or that it was made of."""
        return self._origin(place) if self._origin else (self._document, place)

    def fault(self, place: Place, problem: str, hint: str = "") -> InvalidDocument:
        """The error to raise for what is wrong at ``place``."""
        document, origin = self.written(place)
        return document.fault(origin, problem, hint)


class Plan(Written):
    """A whole plan.

    Attributes:
        plan: its name. Plans of one name are versions of one plan.
        title: one line about all of it.
        description: what it is for.
        molecules: the units of work, in the order in which equally urgent ones are taken.
    """

    plan: Name
    title: str = ""
    description: str = ""
    molecules: Tables[Molecule]


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint that names the known word most like ``word``, or all of them when none is like it and they are few."""
    words = list(known)
    near = difflib.get_close_matches(word, words, n=1, cutoff=0.5)
    if near:
        return f"Did you mean {near[0]!r}?"
    return f"Known: {', '.join(words)}." if 0 < len(words) <= 20 else ""


def read_plan(text: bytes, source: str) -> Plan:
    """Read a plan and check everything that can be checked without the store.

    Raises:
        InvalidDocument: names ``source``, line and key, and where a word is unknown the nearest known one.
    """
    document = Document(text, source)
    plan = document.check(Plan, document.read())
    plan._document = document
    check_plan(plan)
    return plan


def write_plan(plan: Plan) -> bytes:
    """The plan as a file has it; what it leaves out is left out."""
    return dumps(plan.model_dump(mode="json", exclude_defaults=True, exclude_none=True))


def check_plan(plan: Plan) -> None:
    """Check what no key shows alone.

    Raises:
        InvalidDocument: as :func:`read_plan` does.
    """
    if not plan.molecules:
        raise plan.fault(("molecules",), "must have at least one molecule")
    check_unique(plan, ("molecules",), [molecule.id for molecule in plan.molecules])
    for index, molecule in enumerate(plan.molecules):
        _check_molecule(plan, ("molecules", index), molecule)
    names = {molecule.id for molecule in plan.molecules}
    local = {molecule.id: tuple(n for n in molecule.needs if n in names) for molecule in plan.molecules}
    check_acyclic(plan, ("molecules",), local)


def _check_molecule(plan: Plan, place: Place, molecule: Molecule) -> None:
    if molecule.steps:
        both = next((key for key in ("run", "criteria") if getattr(molecule, key)), None)
        if both:
            raise plan.fault((*place, both), "cannot stand beside steps", "Move it into a step.")
        _check_steps(plan, (*place, "steps"), molecule)
    elif not molecule.criteria:
        missing = "criteria" if molecule.run else "steps"
        hint = "Say how one sees that the work is done: [[molecules.criteria]], or steps that each have criteria."
        raise plan.fault((*place, missing), "is missing", hint)
    else:
        _check_telling(plan, (*place, "criteria"), molecule.criteria)


def _check_steps(plan: Plan, place: Place, molecule: Molecule) -> None:
    check_unique(plan, place, [step.id for step in molecule.steps])
    names = dict.fromkeys(step.id for step in molecule.steps)
    for index, step in enumerate(molecule.steps):
        if not step.criteria:
            hint = "A step closes only when its criteria hold; give it at least one [[molecules.steps.criteria]]."
            raise plan.fault((*place, index, "criteria"), "is missing", hint)
        _check_telling(plan, (*place, index, "criteria"), step.criteria)
        for position, need in enumerate(step.needs or ()):
            if need not in names:
                where = (*place, index, "needs", position)
                raise plan.fault(where, f"there is no step {need!r} in this molecule", nearest(need, names))
    check_acyclic(plan, place, molecule.order())


def _check_telling(plan: Plan, place: Place, criteria: Sequence[Criterion]) -> None:
    """Refuse what would hold before anything was done."""
    if only_limit(criterion.kind for criterion in criteria):
        raise plan.fault(place, "holds when nothing is done", ONLY_LIMITS)


def check_unique(written: Written, place: Place, ids: Sequence[str]) -> None:
    """Refuse two of one id among the tables at ``place``."""
    first: dict[str, int] = {}
    for index, name in enumerate(ids):
        if name in first:
            (here, _), (there, origin) = (written.written((*place, n, "id")) for n in (index, first[name]))
            line = there.line(origin)
            where = f"on line {line}" if there is here else f"at {there.source}:{line}"
            problem = f"{name!r} is the id of another one already, {where}"
            raise written.fault((*place, index, "id"), problem, "Give each an id of its own.")
        first[name] = index


def check_acyclic(written: Written, place: Place, needs: Mapping[str, Sequence[str]]) -> list[str]:
    """Refuse a ring among the tables at ``place``; returns their ids with what each needs before it."""
    try:
        return list(TopologicalSorter(needs).static_order())
    except CycleError as error:
        # It lists who is needed before who needs; people read it the other way, from where the file begins.
        ring: list[str] = error.args[1][:0:-1]
        position = {name: index for index, name in enumerate(needs)}
        start = min(range(len(ring)), key=lambda i: position[ring[i]])
        ring = [*ring[start:], *ring[: start + 1]]
        problem = f"makes a cycle: {' → '.join(ring)}"
        raise written.fault((*place, position[ring[0]], "needs"), problem, "Remove one of these needs.") from error


def pour(plan: Plan, prefix: str, actor: str, now: datetime, known: Lookup) -> list[Create]:
    """The beads of a plan: each molecule followed by its steps, in the order of the file.

    What is in the store already is among them, and creating it again changes nothing.

    Args:
        plan: what to pour.
        prefix: what the store's ids start with.
        actor: who pours.
        now: when; each molecule is a millisecond younger than the one above it, so that they are taken in order.
        known: finds a bead of the store.

    Raises:
        InvalidDocument: a molecule needs something that neither the plan nor the store has.
    """
    moment = milliseconds(now)
    families: list[list[Bead]] = []
    taken: set[str] = set()
    for index, molecule in enumerate(plan.molecules):
        stamp = moment + timedelta(milliseconds=index)
        digest = _digest(molecule)
        ids = (
            derived_id(prefix, "plan", plan.plan, molecule.id, digest, length=length)
            for length in itertools.count(_ID_LENGTH)
        )
        # An id that an unrelated bead has by chance grows until it is free, in the same way every time.
        drawn = (_family(plan, molecule, bead_id, actor, stamp) for bead_id in ids if bead_id not in taken)
        families.append(next(family for family in drawn if _fits(family, known)))
        taken.add(families[-1][0].id)
    roots = {molecule.id: family[0].id for molecule, family in zip(plan.molecules, families, strict=True)}
    for index, (root, *_) in enumerate(families):
        families[index][0] = root.evolve(dependencies=_edges(plan, index, roots, known))
    return [Create(bead=bead) for family in families for bead in family]


def _digest(molecule: Molecule) -> str:
    """What the work is, in one word; see the top of this file for what is left out, and why."""
    order = molecule.order()
    steps = [
        [s.id, s.title, s.description, s.run, sorted(order[s.id]), [_plain(c) for c in s.criteria]]
        for s in molecule.work()
    ]
    work = [molecule.title, molecule.goal, molecule.rework, sorted(set(molecule.needs)), steps]
    return hashlib.sha256(json.dumps(work, sort_keys=True).encode()).hexdigest()


def _plain(criterion: Criterion) -> dict[str, object]:
    # Without defaults, so that a field added in a later version leaves the ids of today's plans as they are.
    return criterion.model_dump(exclude_defaults=True)


def _family(plan: Plan, molecule: Molecule, bead_id: str, actor: str, stamp: datetime) -> list[Bead]:
    """The bead of a molecule, still without what it needs, and those of its steps."""
    source = source_of(plan.plan, molecule.id)
    root = Bead(
        id=bead_id,
        title=molecule.title,
        issue_type="molecule",
        priority=molecule.priority,
        description=molecule.goal,
        rework=molecule.rework,
        agent=molecule.agent,
        terms=Terms(budget=molecule.budget) if molecule.budget else None,
        labels=tuple(sorted(set(molecule.labels))),
        source=source,
        created_at=stamp,
        created_by=actor,
        updated_at=stamp,
    )
    steps, order = molecule.work(), molecule.order()
    ids = {step.id: f"{bead_id}.{number}" for number, step in enumerate(steps, start=1)}
    parent = Dependency(on=bead_id, type="parent-child")
    before = {step_id: Dependency(on=ids[step_id]) for step_id in dict.fromkeys(itertools.chain(*order.values()))}
    # What a plan says was checked when it was read, and to check ten thousand steps once more takes a second.
    blank = root.evolve(issue_type="step", rework="", labels=(), terms=None)
    return [root.sealed()] + [
        blank.evolve(
            id=ids[step.id],
            title=step.title,
            description=step.description,
            run=step.run,
            agent=step.agent,
            source=f"{source}/{step.id}",
            terms=step.terms(),
            # Each of those that the best one is taken of may fail before a person is asked.
            attempts_max=max(step.attempts, step.best_of or 0),
            dependencies=(parent, *(before[need] for need in order[step.id])),
            criteria=tuple(_ANY.model_copy(update=dict(criterion)) for criterion in step.criteria),
        ).sealed()
        for step in steps
    ]


# What a planned criterion is copied into, all of it, since the store knows no planned ones.
_ANY = Criterion(run="true")


def source_of(plan: str, molecule: str) -> str:
    """What the ``source`` of a molecule's bead says; its steps' go on with ``/`` and their names."""
    return f"plan:{plan}/{molecule}"


def _fits(family: Sequence[Bead], known: Lookup) -> bool:
    """Whether these ids are free, or taken by these very beads, not yet superseded."""
    root = known(family[0].id)
    if root is None:
        return True
    heirs = (known(d.on) for d in root.dependencies if d.type == SUPERSEDES)
    if any(heir is not None and heir.source == root.source for heir in heirs):
        return False
    there = ((bead, known(bead.id)) for bead in family)
    return all(found is None or (found.source, found.seal) == (bead.source, bead.seal) for bead, found in there)


def _edges(plan: Plan, index: int, roots: Mapping[str, str], known: Lookup) -> tuple[Dependency, ...]:
    targets: dict[str, None] = {}
    for position, need in enumerate(plan.molecules[index].needs):
        if need not in roots and known(need) is None:
            place = ("molecules", index, "needs", position)
            raise plan.fault(place, f"there is no molecule {need!r} here and no such bead", nearest(need, roots))
        targets[roots.get(need, need)] = None
    return tuple(Dependency(on=target) for target in targets)
