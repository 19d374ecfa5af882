"""What pouring a plan would do, and doing so in one transaction.

The decisions are pure functions of a plan and the state. :func:`propose` writes nothing; :func:`accept` decides
again on the state it finds, so that it may be repeated, and refuses to end work that the proposal did not show.

What an earlier version of the plan left unfinished is dealt with when its molecule is poured in a new version. An
older version that nobody is at is closed as superseded. One that a worker holds or that is in the queue is left to
land, and the new one waits for it: taking work away from a worker is a person's decision. What waited for the older
version waits for the new one instead. Molecules that the plan dropped are shown and left alone. What a molecule says
that it ``replaces`` is dealt with as an older version of it, whoever made it.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from beads import graph
from beads.errors import InvalidInput, LostRace
from beads.lines import Place
from beads.model import Bead, Dependency, Terms
from beads.ops import Close, Create, Depend, Operation
from beads.plan import SUPERSEDES, Molecule, Plan, pour, read_plan, source_of
from beads.store import Decision, Snapshot, Store, Written
from refinery.gate import SETTINGS_FILE
from roles.settings import Settings


@dataclass(frozen=True)
class Item:
    """One molecule of a plan as beads.

    Attributes:
        wanted: the molecule as the plan has it.
        molecule: its bead, as it is or would be in the store.
        steps: those of its steps.
        there: the bead that is in the store already; None when the molecule is new.
        drift: in words, what the plan says otherwise than the store about a bead that is there.
    """

    wanted: Molecule
    molecule: Bead
    steps: tuple[Bead, ...]
    there: Bead | None
    drift: tuple[str, ...] = ()


@dataclass(frozen=True)
class Older:
    """A molecule that an earlier version of the plan made and that is not closed, or one that a molecule replaces.

    Attributes:
        bead: the molecule as it is in the store.
        successor: the id of the bead that the plan now has in its place; None when the plan dropped it.
        busy: whether a worker holds it or it is in the merge queue.
    """

    bead: Bead
    successor: str | None
    busy: bool

    @property
    def settled(self) -> bool:
        """Whether it was dealt with before: it is marked as superseded, and its successor waits for it."""
        return Dependency(on=self.successor or self.bead.id, type=SUPERSEDES) in self.bead.dependencies

    @property
    def ends(self) -> bool:
        """Whether accepting closes it."""
        return bool(self.successor) and not (self.busy or self.settled or self.bead.closed)


@dataclass(frozen=True)
class Proposal:
    """What pouring a plan would do; nothing of it is written.

    Attributes:
        plan: the plan that was read.
        items: its molecules, in the order of the file.
        older: what earlier versions of the plan left unfinished.
        poured: its beads, as they come out of the state in which it was made.
        seen: the commit of that state.
    """

    plan: Plan
    items: tuple[Item, ...]
    older: tuple[Older, ...]
    poured: tuple[Create, ...]
    seen: str

    @property
    def new(self) -> tuple[Item, ...]:
        """The molecules that are not in the store yet."""
        return tuple(item for item in self.items if item.there is None)

    @property
    def ending(self) -> frozenset[str]:
        """The ids of the older versions that accepting closes."""
        return frozenset(o.bead.id for o in self.older if o.ends)


def propose(text: bytes, source: str, store: Store, actor: str, settings: Settings | None = None) -> Proposal:
    """Read a plan and say what pouring it would do.

    Args:
        text: the plan document.
        source: its name for messages.
        store: where it would be poured; only read.
        actor: who asks.
        settings: those of the town that is to work on it; None when nobody knows.

    Raises:
        InvalidDocument: the plan does not say what it must, needs a bead that is not there, or asks for an agent or a
            review that the town does not have; with line, key and the nearest known word.
    """
    return propose_plan(read_plan(text, source), store, actor, settings)


def propose_plan(plan: Plan, store: Store, actor: str, settings: Settings | None = None) -> Proposal:
    """As :func:`propose`, for a plan that was read or made already."""
    if settings is not None:
        _check_hands(plan, settings)
    snapshot = store.snapshot()
    poured = _pour(plan, snapshot, store, actor)
    _check_replaced(plan, snapshot)
    items, left = _items(plan, poured, snapshot), older(plan, poured, snapshot)
    return Proposal(plan, tuple(items), tuple(left), tuple(poured), snapshot.commit)


def accept(proposal: Proposal, store: Store, actor: str, also: Decision = lambda _: ()) -> Written:
    """Pour the plan of a proposal in one transaction; doing so again changes nothing.

    Args:
        proposal: what was shown.
        store: where.
        actor: who accepts.
        also: what else is to be done in the same transaction; may raise what keeps all of it from being done.

    Raises:
        InvalidDocument: a bead that the plan needs is no longer there.
        LostRace: it would end work that the proposal did not show, poured since by somebody else.
        Refused: a bead that waits for an older version cannot wait for the new one, which waits for it.
    """

    def decide(snapshot: Snapshot) -> Sequence[Operation]:
        same = snapshot.commit == proposal.seen
        poured = proposal.poured if same else _pour(proposal.plan, snapshot, store, actor)
        operations = supersede(proposal.plan, poured, snapshot)
        unseen = [o.id for o in operations if isinstance(o, Close) and o.id not in proposal.ending]
        if unseen:
            raise LostRace(
                f"{unseen[0]}, another version of the plan {proposal.plan.plan!r}, was poured in the meantime",
                "Look at the plan again before you accept it.",
            )
        # Only what is new, so that the history says what happened and not what was asked for.
        new = (create for create in poured if snapshot.get(create.bead.id) is None)
        return [*new, *operations, *also(snapshot)]

    return store.commit(actor, decide, _subject(proposal))


def _subject(proposal: Proposal) -> str:
    new = proposal.new
    steps = sum(len(item.steps) for item in new)
    return f"pour plan {proposal.plan.plan}: {counted(len(new), 'molecule')}, {counted(steps, 'step')}"


def counted(number: int, noun: str) -> str:
    """So many of them, in words."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _pour(plan: Plan, snapshot: Snapshot, store: Store, actor: str) -> list[Create]:
    # Asking for a relation reads the whole state once; asking for each bead alone would open its trees each time.
    snapshot.unclosed()
    return pour(plan, snapshot.prefix, actor, store.clock.now(), snapshot.get)


def _check_replaced(plan: Plan, view: graph.View) -> None:
    """Refuse to take the place of what is not there, or is done."""
    for index, molecule in enumerate(plan.molecules):
        for number, name in enumerate(molecule.replaces):
            bead, place = view.get(name), ("molecules", index, "replaces", number)
            if bead is None or bead.deleted:
                raise plan.fault(place, f"there is no bead {name!r}", "`bead list` shows what there is.")
            if not graph.is_unit(bead) or bead.issue_type in graph.UNLISTED:
                raise plan.fault(place, f"{name} is a {bead.issue_type}, and no work of its own")
            if bead.outcome in ("landed", "done"):
                raise plan.fault(place, f"{name} is {bead.outcome} already", "What is still wrong is new work.")


def _check_hands(plan: Plan, settings: Settings) -> None:
    """Refuse what nobody in the town could do or judge."""
    for index, molecule in enumerate(plan.molecules):
        place: Place = ("molecules", index)
        _check_agent(plan, (*place, "agent"), settings, molecule.agent, ())
        for number, step in enumerate(molecule.work()):
            at: Place = (*place, "steps", number) if molecule.steps else place
            _check_agent(plan, (*at, "agent"), settings, step.agent, ())
            _check_agent(plan, (*at, "capabilities"), settings, step.agent or molecule.agent, step.capabilities)
            asking = next((n for n, criterion in enumerate(step.criteria) if criterion.review), None)
            if asking is not None and not (settings.review.models or settings.review.agent):
                hint = f"Name a model or an agent in [review] of {SETTINGS_FILE}."
                raise plan.fault((*at, "criteria", asking, "review"), "is asked, and nobody is there to review", hint)


def _check_agent(plan: Plan, place: Place, settings: Settings, name: str, capabilities: Collection[str]) -> None:
    try:
        settings.agent_for(name, capabilities)
    except InvalidInput as error:
        raise plan.fault(place, error.message, error.hint) from error


def _items(plan: Plan, poured: Sequence[Create], view: graph.View) -> Iterator[Item]:
    beads = iter([create.bead for create in poured])
    for molecule in plan.molecules:
        root = next(beads)
        steps = tuple(itertools.islice(beads, len(molecule.work())))
        there = view.get(root.id)
        drift = (line for bead in (root, *steps) for line in _drift(bead, view.get(bead.id))) if there else ()
        yield Item(molecule, there or root, steps, there, tuple(drift))


def _drift(wanted: Bead, there: Bead | None) -> Iterator[str]:
    """What may be changed on a bead at any time, and differs; pouring leaves it as it is."""
    if there is None or there.closed:
        return
    steering = {"attempts": "attempts_max"} if wanted.issue_type == "step" else {"priority": "priority"}
    for key, field in {"agent": "agent", "terms": "terms", **steering}.items():
        said, found = getattr(wanted, field), getattr(there, field)
        if said != found:
            yield f"{key} of {there.id} is {_quoted(found)} in the store, {_quoted(said)} in the plan"
    missing = sorted(set(wanted.labels) - set(there.labels))
    if missing:
        yield f"{there.id} lacks the labels {', '.join(missing)} in the store"


def _quoted(value: object) -> str:
    return f"'{value or ''}'" if isinstance(value, Terms | None) else repr(value)


def older(plan: Plan, poured: Iterable[Create], view: graph.View) -> list[Older]:
    """What earlier versions of the plan left in the store unfinished, and what it replaces, in the order of the ids."""
    roots = {create.bead.source: create.bead.id for create in poured if create.bead.issue_type == "molecule"}
    start, current = source_of(plan.plan, ""), set(roots.values())
    found = {b.id: b for b in view.unclosed() if b.issue_type == "molecule" and b.source.startswith(start)}
    named = {name: roots[source_of(plan.plan, m.id)] for m in plan.molecules for name in m.replaces}
    found |= {name: bead for name in named if (bead := view.get(name)) is not None and not bead.deleted}
    return [
        Older(bead, named.get(bead.id) or roots.get(bead.source), _busy(view, bead))
        for bead in sorted(found.values(), key=lambda b: graph.natural(b.id))
        if bead.id not in current
    ]


def _busy(view: graph.View, bead: Bead) -> bool:
    return bead.lease is not None or any(not request.closed for request in graph.merge_requests(view, bead))


def supersede(plan: Plan, poured: Sequence[Create], view: graph.View) -> list[Operation]:
    """What is to be done, after the beads were created, about the older versions of their molecules.

    An older version that nobody is at is closed as superseded. One that a worker holds or that is in the queue is
    left to land, and the new one waits for it: taking work away from a worker is a person's decision. What waited
    for the older version waits for the new one instead. Molecules that the plan dropped are left alone.
    """
    replaced = {o.bead.id: o for o in older(plan, poured, view) if o.successor and not o.settled}
    sources = {create.bead.id: create.bead.source for create in poured}
    leave: dict[Operation, None] = {}
    enter: dict[Operation, None] = {}
    for waiting, successor in itertools.chain(_by_name(plan, poured, view), _by_edge(replaced, view)):
        if waiting.id not in replaced and not waiting.closed and not _busy(view, waiting):
            enter[Depend(id=waiting.id, on=successor)] = None
            gone = {old.bead.id for old in replaced.values() if old.successor == successor and not old.busy}
            same = (n for n in waiting.needs if n != successor)
            former = (n for n in same if n in gone or _source(view, n) == sources[successor])
            leave.update((Depend(id=waiting.id, on=need, remove=True), None) for need in former)
    # All old edges go before any new one comes, since together they could make a cycle that neither plan has.
    return [*leave, *(operation for old in replaced.values() for operation in _retire(old)), *enter]


def _source(view: graph.View, bead_id: str) -> str:
    bead = view.get(bead_id)
    return bead.source if bead else ""


def _retire(old: Older) -> Iterator[Operation]:
    successor = old.successor or ""
    yield Depend(id=old.bead.id, on=successor, type=SUPERSEDES)
    if old.busy:
        yield Depend(id=successor, on=old.bead.id)
    elif not old.bead.closed:
        # Its steps stay as they are, so that reopening it brings back work that is still to be proven.
        yield Close(id=old.bead.id, outcome="superseded", reason=f"superseded by {successor}")


def _by_name(plan: Plan, poured: Iterable[Create], view: graph.View) -> Iterator[tuple[Bead, str]]:
    """Molecules of the plan that were there before, each with those it needs that are new."""
    roots = {create.bead.source: create.bead.id for create in poured}
    for molecule in plan.molecules:
        there = view.get(roots[source_of(plan.plan, molecule.id)])
        for need in molecule.needs if there else ():
            target = roots.get(source_of(plan.plan, need))
            if there and target and view.get(target) is None:
                yield there, target


def _by_edge(replaced: Mapping[str, Older], view: graph.View) -> Iterator[tuple[Bead, str]]:
    """Beads of any kind that wait for an older version, each with what takes its place."""
    for old in replaced.values():
        for waiting in view.dependents(old.bead.id):
            if old.bead.id in waiting.needs and old.successor:
                yield waiting, old.successor
