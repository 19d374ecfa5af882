"""What the operations of the merge queue do: from a submitted head to main, or back. Pure."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING

from beads import graph
from beads.change import closed, give_back, put
from beads.draft import Draft
from beads.errors import InvalidInput, LostRace, Refused
from beads.fencing import Context, guard
from beads.model import Bead, Dependency, MergeRequest
from beads.proof import never_proven, united

if TYPE_CHECKING:
    from beads.ops import Intend, Judge, Land, SendBack, Submit


def submit(op: Submit, draft: Draft, context: Context) -> Bead:
    """Put a molecule into the queue, or close it where its head adds nothing."""
    bead = draft.need(op.id)
    requests = graph.merge_requests(draft, bead)
    # A head that was rejected or withdrawn may be asked for again: main, or luck, may have been what was wrong.
    there = next((r for r in requests if r.merge and r.merge.head == op.head and r.outcome in (None, "landed")), None)
    if there is not None:
        return there
    if bead.outcome == "done" and op.head == op.base:
        return bead
    _, molecule = guard(draft, context, op.id, op.worker, op.epoch)
    left = graph.next_step(draft, molecule)
    if left is not None and left.id != molecule.id:
        raise Refused(f"{molecule.id} cannot be submitted: step {left.id} is open")
    missing = never_proven(left) if left else ""
    if missing:
        raise Refused(f"{molecule.id} cannot be submitted: not proven: {missing}")
    if op.head == op.base:
        done = closed(molecule, "done", "the goal already held on main", context)
        return put(draft, context, molecule, done)
    request = asking(draft, context, molecule, molecule.title, (op.branch, op.head, op.base))
    give_back(draft, context, molecule)
    return put(draft, context, None, request)


def asking(draft: Draft, context: Context, molecule: Bead, title: str, what: tuple[str, str, str]) -> Bead:
    """A new merge request of a molecule, which is not in the draft yet; ``what`` are branch, head and base."""
    branch, head, base = what
    names = (f"{molecule.id}.m{number}" for number in count(len(graph.merge_requests(draft, molecule)) + 1))
    return Bead(
        id=next(name for name in names if draft.get(name) is None),
        title=title,
        issue_type="merge-request",
        priority=molecule.priority,
        created_at=context.now,
        created_by=context.actor,
        updated_at=context.now,
        dependencies=(Dependency(on=molecule.id, type="parent-child"),),
        merge=MergeRequest(molecule=molecule.id, branch=branch, head=head, base=base),
    )


def request_of(draft: Draft, bead_id: str) -> tuple[Bead, MergeRequest]:
    """A merge request and what it asks for.

    Raises:
        InvalidInput: that bead is none.
    """
    bead = draft.need(bead_id)
    if bead.merge is None:
        raise InvalidInput(f"{bead_id} is not a merge request")
    return bead, bead.merge


def judge(op: Judge, draft: Draft, context: Context) -> Bead:
    """Store a verdict of the gate."""
    bead, _ = request_of(draft, op.id)
    return put(draft, context, bead, bead.evolve(evidence=united(bead.evidence, (op.evidence,))))


def intend(op: Intend, draft: Draft, context: Context) -> Bead | None:
    """Store what main is about to become."""
    last: Bead | None = None
    for bead_id in op.ids:
        bead, merge = request_of(draft, bead_id)
        if bead.closed:
            raise LostRace(f"merge request {bead_id} is closed already: {bead.outcome}")
        meant = merge.model_copy(update={"landing": op.commit})
        last = put(draft, context, bead, bead.evolve(merge=meant))
    return last


def land(op: Land, draft: Draft, context: Context) -> Bead | None:
    """Close merge requests and their molecules as landed."""
    last: Bead | None = None
    for bead_id in op.ids:
        bead, merge = request_of(draft, bead_id)
        if bead.outcome != "landed":
            done = merge.model_copy(update={"landed": op.commit})
            reason = f"landed as {op.commit[:12]}"
            bead = put(draft, context, bead, closed(bead, "landed", reason, context).evolve(merge=done))
            molecule = draft.need(merge.molecule)
            put(draft, context, molecule, closed(molecule, "landed", reason, context))
        last = bead
    return last


def send_back(op: SendBack, draft: Draft, context: Context) -> Bead:
    """Close a merge request as rejected, and give its molecule a step more."""
    bead, _ = request_of(draft, op.id)
    if bead.closed:
        return bead
    if draft.get(op.step.id) is None:
        put(draft, context, None, op.step)
    return put(draft, context, bead, closed(bead, "rejected", op.reason, context))
