"""What a person wants to know at a glance, derived from the store alone: right on any clone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from beads import graph
from beads.model import Bead
from beads.proof import asked
from beads.spending import Books, books
from beads.store import Snapshot
from roles import routing
from roles.proposal import counted
from roles.settings import Settings

ROWS_MAX = 150
"""How many molecules are told of in words; the rest is counted."""


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
        until: the moment before which its agents are not asked, or may not be paid; None when there is none.
        command: what helps, where it is the agents that a person has to see to.
    """

    bead: Bead
    state: graph.State
    steps: tuple[int, int]
    attempts: int
    deaths: int
    reworks: int
    evidence: int
    commit: str
    until: datetime | None = None
    command: str = ""


@dataclass(frozen=True)
class Need:
    """Something that waits for a person: what, why, and the command that helps."""

    bead_id: str
    reason: str
    command: str


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
    step = graph.next_step(snapshot, bead)
    parked = step is not None and graph.parked(step) is not None
    state = graph.state(snapshot, bead, now)
    return Row(
        bead=bead,
        state=state,
        steps=(sum(s.closed for s in steps), len(steps)),
        attempts=sum(len(s.attempts) for s in steps),
        deaths=sum(len(graph.deaths(s)) for s in steps),
        reworks=graph.reworks(snapshot, bead),
        evidence=sum(len(s.evidence) for s in steps),
        commit=landed,
        until=graph.deferred_until(snapshot, bead) if state.kind == "deferred" and parked else None,
    )


def _routed(row: Row, snapshot: Snapshot, known: Books, now: datetime, settings: Settings) -> Row:
    """The row, with what the agents' caps and providers say of a unit that is ready."""
    if row.state.kind != "ready":
        return row
    found = routing.of(settings, known, snapshot, row.bead, now)
    state = routing.stands(found, row.state)
    until = found.until if isinstance(found, routing.Wait) else None
    return replace(row, state=state, until=until, command=found.command if isinstance(found, routing.Ask) else "")


def put_off(found: list[Row]) -> list[Need]:
    """What of these rows goes on by itself, at a time that is known."""
    late = [row for row in found if row.until is not None]
    return [Need(row.bead.id, row.state.reason, "town up goes on with it then") for row in late]


def needs(snapshot: Snapshot, found: list[Row]) -> list[Need]:
    """What of these rows waits for a person."""
    stuck = [row for row in found if row.state.kind == "needs_person"]
    return [Need(row.bead.id, row.state.reason, row.command or _remedy(snapshot, row.bead)) for row in stuck]


def _remedy(snapshot: Snapshot, bead: Bead) -> str:
    """The command that brings a bead forward again, or ends it."""
    step = graph.next_step(snapshot, bead)
    if step is not None and asked(step):
        said = f"town approve {bead.id}, town reject {bead.id} --reason WHY, or town answer {bead.id} TEXT"
        return f"{said}; git diff main...polecat/{bead.id}"
    if step is not None and graph.out_of_tries(step):
        return f"town retry {bead.id}"
    spent = graph.overdrawn(snapshot, bead, step) if step is not None else ""
    if spent:
        return f"bead update {spent} --budget N"
    gone = next((blocker.id for blocker in graph.blockers(snapshot, bead) if blocker.closed), None)
    return f"bead dep remove {bead.id} {gone}" if gone else f"bead close {bead.id} --outcome cancelled --reason WHY"


def in_words(snapshot: Snapshot, settings: Settings, now: datetime) -> str:
    """How the town stands: all work that is not closed, and what waits for a person."""
    found = rows(snapshot, now, settings)
    unclosed = [row for row in found if not row.bead.closed]
    lines = [
        f"{row.bead.id} [{row.state.kind}] priority {row.bead.priority}, steps {row.steps[0]}/{row.steps[1]}, "
        f"{counted(row.attempts, 'attempt')}: {row.bead.title} ({row.state.reason})"
        for row in unclosed[:ROWS_MAX]
    ]
    if len(unclosed) > ROWS_MAX:
        lines.append(f"and {len(unclosed) - ROWS_MAX} more")
    ended = sum(row.bead.outcome == "landed" for row in found)
    lines.append(f"{counted(len(unclosed), 'molecule')} not closed, {ended} landed")
    lines += [f"needs a person: {need.bead_id}: {need.reason}: {need.command}" for need in needs(snapshot, found)]
    return "\n".join(lines)
