"""What a person wants to know at a glance, derived from the store alone: right on any clone.

What of it needs a person is in ``roles/inbox.py``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import islice

from beads import graph
from beads.model import Bead
from beads.spending import Books, books
from beads.store import Snapshot
from roles import routing
from roles.inbox import inbox
from roles.proposal import counted
from roles.settings import Settings

ROWS_MAX = 50
"""How many units of work that stand in one way are told of in words; the rest is counted."""

_STANDING: tuple[graph.Kind, ...] = ("needs_person", "running", "queued", "ready", "blocked", "deferred")

WAYS_MAX = 4
"""How many ways on are told of what needs a person."""


@dataclass(frozen=True)
class Row:
    """One unit of work: the bead, where it stands, and what its history amounts to.

    Attributes:
        bead: the molecule, or the plain bead.
        state: who acts next, and why.
        steps: how many steps are closed, of how many.
        attempts: how often a worker began on it.
        deaths: how many workers died on it.
        reworks: how often the Refinery sent it back.
        evidence: how many pieces of evidence its steps have.
        commit: the commit it landed as; empty before.
    """

    bead: Bead
    state: graph.State
    steps: tuple[int, int]
    attempts: int
    deaths: int
    reworks: int
    evidence: int
    commit: str


def rows(snapshot: Snapshot, now: datetime, settings: Settings | None = None) -> list[Row]:
    """Every unit of work that a polecat can do, in the order it was made.

    Without ``settings`` nothing is said of what only those tell: whether an agent may begin on what is ready.
    """
    known = books(snapshot, now) if settings else Books()
    units = [b for b in snapshot if b.issue_type not in graph.UNLISTED]
    found = [_row(snapshot, bead, now) for bead in units if graph.workable(snapshot, bead)]
    if settings:
        found = [_routed(row, snapshot, known, now, settings) for row in found]
    return sorted(found, key=lambda row: (row.bead.created_at, graph.natural(row.bead.id)))


def _row(snapshot: Snapshot, bead: Bead, now: datetime) -> Row:
    steps = graph.steps(snapshot, bead)
    requests = graph.merge_requests(snapshot, bead)
    landed = next((r.merge.landed for r in requests if r.merge and r.merge.landed), "")
    return Row(
        bead=bead,
        state=graph.state(snapshot, bead, now),
        steps=(sum(s.closed for s in steps), len(steps)),
        attempts=sum(len(s.attempts) for s in steps),
        deaths=sum(len(graph.deaths(s)) for s in steps),
        reworks=graph.reworks(snapshot, bead),
        evidence=sum(len(s.evidence) for s in steps),
        commit=landed,
    )


def _routed(row: Row, snapshot: Snapshot, known: Books, now: datetime, settings: Settings) -> Row:
    """The row, with what the agents' caps and providers say of a unit that is ready."""
    if row.state.kind != "ready":
        return row
    return replace(row, state=routing.stands(routing.of(settings, known, snapshot, row.bead, now), row.state))


def in_words(snapshot: Snapshot, settings: Settings, now: datetime) -> str:
    """How the town stands: the work that is not closed, and what waits for a person.

    Of each way to stand the first are told of, and no bead but those is looked at.
    """
    known, counts = books(snapshot, now), snapshot.counts(now)
    lines = [_line(_routed(_row(snapshot, bead, now), snapshot, known, now, settings)) for bead in _some(snapshot, now)]
    said = [f"{number} {kind.replace('_', ' ')}" for kind, number in sorted(counts["state"].items())]
    lines.append(f"in all: {', '.join(said) or 'nothing'}; {counts['outcome'].get('landed', 0)} landed")
    for item in islice(inbox(snapshot, now, settings).items, ROWS_MAX):
        ways = "; ".join(map(str, item.ways[:WAYS_MAX]))
        lines.append(f"needs a person: {item.bead_id}: {item.reason}: {ways}")
    return "\n".join(lines)


def _some(snapshot: Snapshot, now: datetime) -> Iterator[Bead]:
    """Some of the work that stands in each way, what is ready in the order in which it is taken up."""
    for kind in _STANDING:
        found = snapshot.ready(now) if kind == "ready" else snapshot.standing(kind, now)
        yield from islice((bead for bead in found if bead.issue_type not in graph.UNLISTED), ROWS_MAX)


def _line(row: Row) -> str:
    bead = row.bead
    work = f"steps {row.steps[0]}/{row.steps[1]}, {counted(row.attempts, 'attempt')}"
    return f"{bead.id} [{row.state.kind}] priority {bead.priority}, {work}: {bead.title} ({row.state.reason})"
