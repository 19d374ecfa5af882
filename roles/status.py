"""What a person wants to know at a glance, derived from the store alone: right on any clone."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from beads import graph
from beads.model import Bead
from beads.proof import asked
from beads.store import Snapshot


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


@dataclass(frozen=True)
class Need:
    """Something that waits for a person: what, why, and the command that helps."""

    bead_id: str
    reason: str
    command: str


def rows(snapshot: Snapshot, now: datetime) -> list[Row]:
    """Every unit of work that a polecat can do, in the order it was made."""
    units = [b for b in snapshot if b.issue_type not in graph.UNLISTED]
    found = [_row(snapshot, bead, now) for bead in units if graph.workable(snapshot, bead)]
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


def needs(snapshot: Snapshot, found: list[Row]) -> list[Need]:
    """What of these rows waits for a person."""
    stuck = [row for row in found if row.state.kind == "needs_person"]
    return [Need(row.bead.id, row.state.reason, _remedy(snapshot, row.bead)) for row in stuck]


def _remedy(snapshot: Snapshot, bead: Bead) -> str:
    """The command that brings a bead forward again, or ends it."""
    step = graph.next_step(snapshot, bead)
    if step is not None and asked(step):
        return f"town approve {bead.id}, or town reject {bead.id} --reason WHY; git diff main...polecat/{bead.id}"
    if step is not None and graph.out_of_tries(step):
        return f"town retry {bead.id}"
    if step is not None and graph.over_budget(step):
        return f"bead update {step.id} --budget N"
    gone = next((blocker.id for blocker in graph.blockers(snapshot, bead) if blocker.closed), None)
    return f"bead dep remove {bead.id} {gone}" if gone else f"bead close {bead.id} --outcome cancelled --reason WHY"
