"""What each operation does to the beads it meets. Pure.

Applying an operation checks its preconditions against the state it finds, so that the loser of a race decides
anew instead of replaying. Operations of a lease's holder are fenced by its epoch (I2); closing asks for proof (I3).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ValidationError

from beads import graph, landing, overrule
from beads.change import closed, give_back, put
from beads.draft import Draft
from beads.errors import InvalidInput, LostRace, Refused
from beads.fencing import Context, guard, until
from beads.model import (
    BLOCKING,
    Attempt,
    AttemptEnd,
    Bead,
    Comment,
    Dependency,
    Evidence,
    Lease,
)
from beads.proof import answer, answered_for, following, question, united, unproven
from beads.speech import SPEECH

if TYPE_CHECKING:
    from beads.ops import (
        Answer,
        Begin,
        Claim,
        Close,
        Create,
        Delete,
        Depend,
        Finish,
        Import,
        Label,
        Operation,
        Release,
        Renew,
        Reopen,
        Restore,
        Say,
        Spend,
        Update,
    )

__all__ = ["Context", "Draft", "apply"]


def apply(operation: Operation, draft: Draft, context: Context) -> Bead | None:
    """Do one operation on the draft.

    Returns the bead it is about, whether or not it changed; None for a claim that found nothing ready.

    Raises:
        TownError: a precondition does not hold; the class says which kind. The draft may then be half
            changed and must be thrown away.
    """
    handler = _HANDLERS[operation.op]
    bead: Bead | None = handler(operation, draft, context)
    return bead


def _create(op: Create, draft: Draft, context: Context) -> Bead:
    there = draft.get(op.bead.id)
    if there is not None:
        same = (there.source, there.seal) == (op.bead.source, op.bead.seal) and there.source
        if same or there.evolve(updated_at=op.bead.updated_at) == op.bead:
            return there
        raise Refused(f"bead {op.bead.id} exists already: {there.title}", "Choose another id, or update that one.")
    if draft.closes_cycle(op.bead):
        raise Refused(f"{op.bead.id} would wait for itself", "Remove one of its dependencies.")
    return put(draft, context, None, op.bead)


def _update(op: Update, draft: Draft, context: Context) -> Bead:
    bead = draft.need(op.id)
    changes = op.model_dump(exclude={"op", "id"}, exclude_none=True)
    covered = [k for k in ("title", "description") if k in changes and changes[k] != getattr(bead, k)]
    if bead.seal and covered:
        raise Refused(f"{covered[0]} of {bead.id} is sealed", "Close it as superseded and pour a new bead.")
    if op.status == "closed":
        raise Refused(f"{bead.id} cannot be closed by an update", f"Use `bead close {bead.id}`.")
    if bead.closed and op.status:
        raise Refused(f"{bead.id} is closed", f"Use `bead reopen {bead.id}`.")
    try:
        return put(draft, context, bead, Bead.model_validate({**dict(bead), **changes}))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise InvalidInput(f"{bead.id} cannot have that {first['loc'][0]}: {first['msg']}") from error


def _label(op: Label, draft: Draft, context: Context) -> Bead:
    bead = draft.need(op.id)
    labels = tuple(sorted((set(bead.labels) | set(op.add)) - set(op.remove)))
    return put(draft, context, bead, bead.evolve(labels=labels))


def _depend(op: Depend, draft: Draft, context: Context) -> Bead:
    bead = draft.need(op.id)
    edge = Dependency(on=op.on, type=op.type)
    # One that came from elsewhere may say more than that, and is still the same one.
    rest = tuple(d for d in bead.dependencies if (d.on, d.type) != (op.on, op.type))
    known = len(rest) < len(bead.dependencies)
    if op.remove:
        if bead.seal and op.type == "parent-child" and known:
            raise Refused(f"{bead.id} is sealed as a part of {op.on}", f"`bead close {bead.id} --force` gives it up.")
        return put(draft, context, bead, bead.evolve(dependencies=rest))
    draft.need(op.on)
    if op.type in BLOCKING and graph.closes_cycle(draft, op.id, op.on):
        raise Refused(f"{op.id} cannot wait for {op.on}: that would be a cycle", f"See `bead dep tree {op.on}`.")
    return bead if known else put(draft, context, bead, bead.evolve(dependencies=(*rest, edge)))


def _say(op: Say, draft: Draft, context: Context) -> Bead:
    bead = draft.need(op.id)
    key = f"{context.actor}\0{context.now.isoformat()}\0{op.text}".encode(errors="surrogatepass")
    comment = Comment(
        id=hashlib.sha256(key).hexdigest()[:12], author=context.actor, text=op.text, created_at=context.now
    )
    known = {c.id for c in bead.comments}
    comments = bead.comments if comment.id in known else (*bead.comments, comment)
    return put(draft, context, bead, bead.evolve(comments=comments))


def _claim(op: Claim, draft: Draft, context: Context) -> Bead | None:
    if op.id is None:
        unheld = (b for b in draft.ready(context.now) if b.lease is None or not _held(b, b.lease, context))
        # What an index takes for ready is looked at again before anybody works on it.
        sure = (b for b in unheld if graph.is_ready(draft, b, context.now))
        best = next((b for b in sure if not op.workable or graph.workable(draft, b)), None)
        return None if best is None else _lease(best, op, draft, context)
    bead = draft.need(op.id)
    lease = bead.lease
    if lease and lease.worker == op.worker and lease.site == op.site:
        return bead
    if lease and _held(bead, lease, context):
        raise LostRace(f"{bead.id} is held by {lease.worker} since {lease.since:%H:%M:%S} UTC, epoch {lease.epoch}")
    seen = graph.state(draft, bead, context.now)
    free = ("ready", "needs_person", "deferred") if op.hand else ("ready",)
    whole = graph.molecule_of(draft, bead).id == bead.id and bead.issue_type not in SPEECH
    if not whole or seen.kind not in free:
        raise Refused(f"{bead.id} cannot be claimed: {seen.reason}", f"`bead why {bead.id}` says more.")
    return _lease(bead, op, draft, context)


def _held(bead: Bead, lease: Lease, context: Context) -> bool:
    """Whether a lease is good, by what it says and what its worker has said since."""
    return until(bead.id, lease, context) > context.now


def _lease(bead: Bead, op: Claim, draft: Draft, context: Context) -> Bead:
    _check_seals(draft, bead)
    lease = Lease(
        worker=op.worker,
        epoch=bead.epoch + 1,
        site=op.site,
        since=context.now,
        until=context.now + timedelta(seconds=op.seconds),
    )
    held = bead.evolve(lease=lease, epoch=lease.epoch, status="in_progress", assignee=op.worker)
    return put(draft, context, bead, held)


def _check_seals(draft: Draft, molecule: Bead) -> None:
    """Refuse work on a goal that was changed behind the seal's back (I3)."""
    for bead in (molecule, *graph.steps(draft, molecule)):
        if bead.seal and bead.seal != bead.digest():
            raise Refused(
                f"the goal or criteria of {bead.id} were changed after they were sealed",
                f"`bead log {bead.id}` shows by whom; pour a new bead that supersedes it.",
            )


def _renew(op: Renew, draft: Draft, context: Context) -> Bead:
    _, molecule = guard(draft, context, op.id, op.worker, op.epoch)
    assert molecule.lease is not None, "guarded"
    until = max(molecule.lease.until, context.now + timedelta(seconds=op.seconds))
    lease = molecule.lease.model_copy(update={"until": until})
    return put(draft, context, molecule, molecule.evolve(lease=lease))


def _release(op: Release, draft: Draft, context: Context) -> Bead:
    molecule = graph.molecule_of(draft, draft.need(op.id))
    if molecule.lease is None and molecule.epoch == op.epoch:
        return molecule
    # One that ran out is taken back from wherever somebody notices.
    over = molecule.lease is not None and until(molecule.id, molecule.lease, context) <= context.now
    guard(draft, context._replace(site="") if over else context, op.id, op.worker, op.epoch)
    for step in graph.steps(draft, molecule):
        _end_attempts(draft, context, step, op.end, op.reason, op.worker)
    free = give_back(draft, context, draft.need(molecule.id))
    later = op.until is not None and (free.defer_until is None or free.defer_until < op.until)
    return put(draft, context, free, free.evolve(defer_until=op.until)) if later else free


def _begin(op: Begin, draft: Draft, context: Context) -> Bead:
    step, molecule = guard(draft, context, op.id, op.worker, op.epoch)
    if step.closed:
        raise Refused(f"step {step.id} is closed already")
    running = [attempt for attempt in step.attempts if attempt.end is None]
    if any((attempt.worker, attempt.epoch) == (op.worker, op.epoch) for attempt in running):
        return step
    if running:
        step = _end_attempts(draft, context, step, "died", f"the lease of {running[-1].worker} ran out")
    if len(graph.failed(step)) >= step.attempts_max:
        raise Refused(
            f"all {step.attempts_max} attempts at {step.id} are used up", f"`town retry {step.id}` gives more."
        )
    overdrawn = graph.overdrawn(draft, molecule, step)
    if overdrawn:
        hint = f"`bead update {overdrawn} --budget N` allows more."
        raise Refused(f"{overdrawn} {graph.over_budget(draft, draft.need(overdrawn))}", hint)
    if graph.used_up(step):
        raise Refused(f"{step.id} {graph.used_up(step)}", f"`bead why {step.id}` says more.")
    attempt = Attempt(
        number=len(step.attempts) + 1,
        epoch=op.epoch,
        worker=op.worker,
        runtime=op.runtime,
        model=op.model,
        session=op.session,
        started_at=context.now,
        cost=op.cost,
        budget=op.budget,
        tokens=op.tokens,
    )
    return put(draft, context, step, step.evolve(attempts=(*step.attempts, attempt)))


def _spend(op: Spend, draft: Draft, context: Context) -> Bead:
    step, _ = guard(draft, context, op.id, op.worker, op.epoch)
    told = {name: value for name, value in dict(op.report).items() if value not in (None, "")}

    def spent(attempt: Attempt) -> Attempt:
        mine = attempt.end is None and (attempt.worker, attempt.epoch) == (op.worker, op.epoch)
        return attempt.model_copy(update=told) if mine else attempt

    return put(draft, context, step, step.evolve(attempts=tuple(map(spent, step.attempts))))


def _end_attempts(draft: Draft, context: Context, step: Bead, end: AttemptEnd, reason: str, worker: str = "") -> Bead:
    """End what is running: that worker's as it ended, and what merging left of a fenced one's as a death."""
    if all(attempt.end is not None for attempt in step.attempts):
        return step

    def ended(attempt: Attempt) -> Attempt:
        if attempt.end is not None:
            return attempt
        own = worker in ("", attempt.worker)
        how = {"end": end, "reason": reason} if own else {"end": "died", "reason": f"{attempt.worker} was fenced"}
        return attempt.model_copy(update={**how, "ended_at": context.now})

    return put(draft, context, step, step.evolve(attempts=tuple(map(ended, step.attempts))))


def _finish(op: Finish, draft: Draft, context: Context) -> Bead:
    step, _ = guard(draft, context, op.id, op.worker, op.epoch)
    _check_answers(step, op.evidence)
    step = _end_attempts(draft, context, step, op.end, op.reason, op.worker)
    return put(draft, context, step, step.evolve(evidence=united(step.evidence, following(step, op.evidence))))


def _check_answers(step: Bead, evidence: Iterable[Evidence]) -> None:
    """Refuse a worker's word where a person's is asked for."""
    forged = answered_for(step, evidence)
    if forged:
        raise Refused(f"only a person can answer what {step.id} asks: {forged}", f"`town approve {step.id}` does.")


def _answer(op: Answer, draft: Draft, context: Context) -> Bead:
    step = draft.need(op.id)
    if not op.approved and not op.reason.strip():
        if op.approved is None:
            raise Refused(f"an answer to {step.id} needs words, for whoever goes on with it", "Say something.")
        raise Refused(f"rejecting {step.id} needs a reason, for whoever goes on with it", "Add --reason.")
    found = question(step)
    if step.closed or graph.molecule_of(draft, step).closed or found is None:
        raise Refused(f"nothing is asked about {step.id}", f"`bead why {step.id}` says where it stands.")
    if found.tree != op.tree:
        raise LostRace(f"{step.id} is asked about tree {found.tree[:12]} by now", "Look at it again.")
    there = answer(step, found.subject, found.tree)
    verdict: Literal["pass", "fail", "answered"] = (
        "answered" if op.approved is None else "pass" if op.approved else "fail"
    )
    if there and (there.verdict, there.detail, there.by) == (verdict, op.reason, context.actor):
        return step
    key = f"{found.subject}\0{found.tree}\0{context.actor}\0{context.now.isoformat()}\0{verdict}"
    said = Evidence(
        id=hashlib.sha256(key.encode(errors="surrogatepass")).hexdigest()[:12],
        subject=found.subject,
        verdict=verdict,
        detail=op.reason,
        tree=found.tree,
        commit=found.commit,
        by=context.actor,
        at=max(context.now, found.at),
    )
    return put(draft, context, step, step.evolve(evidence=united(step.evidence, (said,))))


def _close(op: Close, draft: Draft, context: Context) -> Bead:
    bead = draft.need(op.id)
    if bead.closed:
        return bead
    molecule = graph.molecule_of(draft, bead)
    if op.worker and not op.epoch:
        raise InvalidInput(f"{op.worker} does not say under which epoch to close {bead.id}")
    if op.worker or (molecule.lease is not None and not _decided(op)):
        guard(draft, context, op.id, op.worker or context.actor, op.epoch or molecule.epoch)
    _check_closable(op, draft, bead, molecule)
    _withdraw(op, draft, context)
    bead = _end_attempts(draft, context, bead, "satisfied", "", op.worker)
    reason = f"forced by {context.actor}: {op.reason}" if op.force else op.reason
    return put(draft, context, bead, closed(bead, op.outcome, reason, context, op.evidence))


def _decided(op: Close) -> bool:
    """Whether somebody decides that it is over, rather than claiming that it is done."""
    return op.force or op.outcome in ("rejected", "cancelled", "superseded")


def _withdraw(op: Close, draft: Draft, context: Context) -> None:
    """Take a molecule that closes out of the merge queue, or it would land all the same."""
    for request in graph.merge_requests(draft, draft.need(op.id)):
        if request.closed:
            continue
        if request.merge and request.merge.landing and not op.force:
            raise Refused(f"{op.id} is about to land as {request.merge.landing[:12]}", "Wait for it, or use --force.")
        put(draft, context, request, closed(request, "cancelled", f"{op.id} was closed as {op.outcome}", context))


def _check_closable(op: Close, draft: Draft, bead: Bead, molecule: Bead) -> None:
    """Done is proven (I3): work closes as done only when each criterion passed on one and the same tree."""
    if op.force and not op.reason.strip():
        raise Refused(f"closing {bead.id} by force needs a reason", "Add --reason.")
    if op.outcome == "deleted":
        raise InvalidInput(f"{bead.id} cannot be closed as deleted", f"`bead delete {bead.id}` deletes it.")
    if op.outcome == "landed" or (bead.issue_type == "merge-request" and not _decided(op)):
        raise Refused(f"only the Refinery lands {bead.id}", "`town queue` shows where it stands.")
    if _decided(op):
        if bead.issue_type == "step" and molecule.id != bead.id and not (molecule.closed or op.force):
            raise Refused(
                f"{bead.id} cannot be {op.outcome}: {molecule.id} is done only when each of its steps is",
                f"`bead close {molecule.id} --outcome {op.outcome}` gives up all of it; "
                "or decide with --force --reason.",
            )
        return
    _check_seals(draft, bead)
    _check_answers(bead, op.evidence)
    missing = unproven(bead, op.evidence)
    if missing:
        raise Refused(
            f"{bead.id} cannot close: not proven: {missing}",
            f"Let a polecat evaluate it (`town polecat run {molecule.id}`), or decide yourself with --force --reason.",
        )
    left = graph.step_left(draft, bead)
    if left is not None:
        raise Refused(f"{bead.id} cannot close: step {left.id} is open")


def _reopen(op: Reopen, draft: Draft, context: Context) -> Bead:
    bead = draft.need(op.id)
    if op.worker:
        guard(draft, context, op.id, op.worker, op.epoch)
    if bead.outcome == "landed":
        raise Refused(f"{bead.id} has landed on main", "Create a new bead for what is still wrong.")
    if not bead.closed:
        return bead
    if bead.merge is not None:
        raise Refused(
            f"merge request {bead.id} is over", f"Let {bead.merge.molecule} be worked on and submitted again."
        )
    molecule = graph.molecule_of(draft, bead)
    if molecule.closed and molecule.id != bead.id:
        raise Refused(f"{molecule.id}, which {bead.id} is a step of, is closed", f"Reopen {molecule.id} first.")
    if any(not request.closed for request in graph.merge_requests(draft, molecule)):
        raise Refused(f"{molecule.id}, which {bead.id} is a step of, is in the merge queue", "Wait how it ends.")
    return put(draft, context, bead, bead.evolve(status="open", outcome=None, closed_at=None, close_reason=""))


def _delete(op: Delete, draft: Draft, context: Context) -> Bead:
    gone, left = _bury(op, op.id, draft, context)
    # Without recursion, because parts of parts may be many levels deep.
    while left:
        left += _bury(op, left.pop(), draft, context)[1]
    return gone


def _bury(op: Delete, bead_id: str, draft: Draft, context: Context) -> tuple[Bead, list[str]]:
    """Delete one bead and its merge requests; its tombstone, and the parts that are to go next."""
    bead = draft.get(bead_id) or draft.need(bead_id)
    if bead.deleted:
        return bead, []
    if bead.outcome == "landed" or (bead.merge and bead.merge.landing):
        raise Refused(f"{bead.id} has landed on main, or is about to", "Its record stays.")
    molecule = graph.molecule_of(draft, bead)
    if molecule.lease is not None:
        raise Refused(f"{molecule.id} is held by {molecule.lease.worker}", f"Release it, or close {molecule.id} first.")
    if bead.issue_type == "merge-request" or (bead.seal and molecule.id != bead.id and not molecule.deleted):
        raise Refused(f"{bead.id} is a part of {molecule.id}", f"Delete {molecule.id} as a whole.")
    parts = draft.children(bead.id)
    others = [part.id for part in parts if not op.cascade and graph.molecule_of(draft, part).id != bead.id]
    if others:
        raise Refused(f"{others[0]} is a part of {bead.id}", "Delete it first, or all of them with --cascade.")
    for request in graph.merge_requests(draft, bead):
        put(draft, context, request, request.tombstone(op.reason, context.now))
    gone = put(draft, context, bead, bead.tombstone(op.reason, context.now))
    return gone, [part.id for part in reversed(parts) if part.merge is None]


def _restore(op: Restore, draft: Draft, context: Context) -> Bead | None:
    from beads import undo

    return undo.restore(op, draft, context.now, lambda operation: apply(operation, draft, context))


def _import(op: Import, draft: Draft, context: Context) -> Bead:
    # What reads other programs' rows is imported only by those who do.
    from beads.interchange.merge import bring

    del context
    return bring(draft, op.bead)


_HANDLERS: dict[str, Any] = {
    "create": _create,
    "import": _import,
    "update": _update,
    "label": _label,
    "depend": _depend,
    "comment": _say,
    "claim": _claim,
    "renew": _renew,
    "release": _release,
    "begin": _begin,
    "spend": _spend,
    "finish": _finish,
    "answer": _answer,
    "close": _close,
    "reopen": _reopen,
    "delete": _delete,
    "restore": _restore,
    "submit": landing.submit,
    "judge": landing.judge,
    "intend": landing.intend,
    "land": landing.land,
    "send-back": landing.send_back,
    "bump": overrule.bump,
    "withdraw": overrule.withdraw,
    "again": overrule.again,
}
