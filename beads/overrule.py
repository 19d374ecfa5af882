"""What a person decides about a merge request: to the front, out of the queue, once more. Pure.

Each is kept as evidence on the request, with who said it and why; where its effect already holds, it changes nothing.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from beads import graph, lineup
from beads.change import closed, put
from beads.draft import Draft
from beads.errors import LostRace, Refused
from beads.fencing import Context
from beads.landing import asking, request_of
from beads.model import Bead, MergeRequest

if TYPE_CHECKING:
    from beads.ops import Again, Bump, Withdraw


def bump(op: Bump, draft: Draft, context: Context) -> Bead:
    """Put a request to the front."""
    bead, _ = request_of(draft, op.id)
    if bead.closed:
        raise Refused(f"{bead.id} is not in the queue: it is over, {bead.outcome}", f"`bead why {bead.id}` says more.")
    if lineup.last(bead, lineup.BUMP) is not None:
        return bead
    return _said(draft, context, bead, lineup.BUMP, op.reason, context.now)


def withdraw(op: Withdraw, draft: Draft, context: Context) -> Bead:
    """Take a request out of the queue."""
    bead, merge = request_of(draft, op.id)
    if bead.outcome == "cancelled":
        return bead
    if bead.closed:
        hint = f"`town revert {bead.id}` takes it back." if bead.outcome == "landed" else ""
        raise Refused(f"{bead.id} is not in the queue: it is over, {bead.outcome}", hint)
    if not op.reason.strip():
        raise Refused(f"withdrawing {bead.id} needs a reason, for whoever decides what becomes of it", "Add --reason.")
    if merge.landing and merge.landing != op.void:
        hint = f"Wait for it; `town revert {bead.id}` takes back what has landed."
        raise Refused(f"{bead.id} is about to land as {merge.landing[:12]}", hint)
    why = lineup.mark(bead, lineup.WITHDRAWN, "answered", op.reason, context.actor, context.now)
    over = closed(bead, "cancelled", f"withdrawn by {context.actor}: {op.reason}", context, (why,))
    return put(draft, context, bead, over)


def again(op: Again, draft: Draft, context: Context) -> Bead:
    """Have a request tried again, or ask for it once more."""
    bead, merge = request_of(draft, op.id)
    if bead.outcome == "landed":
        raise Refused(f"{bead.id} has landed on main", f"`town revert {bead.id}` takes it back.")
    if bead.closed:
        return _anew(op, draft, context, bead, merge)
    said = lineup.last(bead, lineup.AGAIN)
    wrong = [e.at for other in draft.requests() for e in other.evidence if e.verdict in ("fail", "error")]
    if said is not None and all(at <= said.at for at in wrong):
        return bead
    # Not before what it is about, also when a clock is behind.
    return _said(draft, context, bead, lineup.AGAIN, op.reason, max([context.now, *wrong]))


def _said(draft: Draft, context: Context, bead: Bead, subject: str, reason: str, at: datetime) -> Bead:
    said = lineup.mark(bead, subject, "answered", reason, context.actor, at)
    return put(draft, context, bead, bead.evolve(evidence=(*bead.evidence, said)))


def _anew(op: Again, draft: Draft, context: Context, over: Bead, merge: MergeRequest) -> Bead:
    """The same head as a new request."""
    molecule = draft.need(merge.molecule)
    requests = graph.merge_requests(draft, molecule)
    newest, source = requests[-1] if requests else over, f"refinery:{over.id}"
    if newest.id != over.id:
        if newest.merge and newest.merge.head == merge.head and not newest.closed:
            return newest
        raise Refused(f"{over.id} is over, and {newest.id} came after it", f"`town queue retry {newest.id}`?")
    if molecule.closed:
        raise Refused(f"{molecule.id} is closed: {molecule.outcome}", f"`bead reopen {molecule.id}` opens it again.")
    if molecule.lease is not None:
        raise LostRace(
            f"{molecule.id} is held by {molecule.lease.worker}, who works on what was wrong with it",
            f"`bead release {molecule.id} --as {molecule.lease.worker} --epoch {molecule.epoch}` ends that.",
        )
    mended = [step.id for step in draft.steps(molecule.id) if (step.source, step.outcome) == (source, "done")]
    if mended:
        raise Refused(f"{over.id} was mended since: step {mended[0]} is done", f"`bead why {molecule.id}` says more.")
    for step in list(draft.steps(molecule.id, unclosed=True)):
        if step.source != source:
            raise Refused(f"{molecule.id} is not done: step {step.id} is open", "It is submitted when that is done.")
        reason = f"{over.id} is tried again as it is, says {context.actor}"
        put(draft, context, step, closed(step, "cancelled", reason, context))
    made = asking(draft, context, molecule, over.title, (merge.branch, merge.head, merge.base))
    said = lineup.mark(made, lineup.AGAIN, "answered", op.reason or over.close_reason, context.actor, context.now)
    return put(draft, context, None, made.evolve(evidence=(said,)))
