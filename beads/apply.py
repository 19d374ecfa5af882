"""What each operation does to the beads it meets. Pure.

Applying an operation checks its preconditions against the state it finds, so that the loser of a race decides
anew instead of replaying. Operations of a lease's holder are fenced by its epoch (I2); closing asks for proof (I3).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from beads import graph
from beads.errors import Fenced, InvalidInput, LostRace, NotFound, Refused
from beads.model import (
    BLOCKING,
    Attempt,
    AttemptEnd,
    Bead,
    Comment,
    Dependency,
    Evidence,
    Fact,
    Lease,
    MergeRequest,
    Outcome,
    check_id,
)
from beads.ops import (
    Begin,
    Claim,
    Close,
    Create,
    Depend,
    Finish,
    Held,
    Intend,
    Judge,
    Label,
    Land,
    Operation,
    Release,
    Renew,
    Reopen,
    Say,
    SendBack,
    Submit,
    Update,
)


@dataclass(frozen=True)
class Context:
    """Who acts, and when."""

    actor: str
    now: datetime


class Draft:
    """A view with changes on top: what the operations of one transaction see of each other."""

    def __init__(self, base: graph.View) -> None:
        self._base = base
        self.changed: dict[str, Bead] = {}

    def get(self, bead_id: str) -> Bead | None:
        """The bead as changed so far."""
        return self.changed.get(bead_id) or self._base.get(bead_id)

    def need(self, bead_id: str) -> Bead:
        """The bead as changed so far.

        Raises:
            NotFound: there is none.
        """
        bead = self.get(check_id(bead_id))
        if bead is None:
            raise NotFound(f"there is no bead {bead_id!r}", "`bead list` shows what there is.")
        return bead

    def put(self, bead: Bead) -> None:
        """Add or replace a bead."""
        self.changed[bead.id] = bead

    def children(self, bead_id: str) -> Sequence[Bead]:
        """As :meth:`graph.View.children`."""
        return self._merged(self._base.children(bead_id), lambda b: b.parent == bead_id)

    def dependents(self, bead_id: str) -> Sequence[Bead]:
        """As :meth:`graph.View.dependents`."""
        return self._merged(self._base.dependents(bead_id), lambda b: any(d.on == bead_id for d in b.dependencies))

    def unclosed(self) -> Iterable[Bead]:
        """As :meth:`graph.View.unclosed`."""
        return self._merged(self._base.unclosed(), lambda b: not b.closed)

    def _merged(self, base: Iterable[Bead], wanted: Callable[[Bead], bool]) -> list[Bead]:
        found = {bead.id: bead for bead in base if bead.id not in self.changed}
        found.update((bead.id, bead) for bead in self.changed.values() if wanted(bead))
        return sorted(found.values(), key=lambda bead: graph.natural(bead.id))


def apply(operation: Operation, draft: Draft, context: Context) -> Bead | None:
    """Do one operation on the draft.

    Returns the bead it is about, whether or not it changed; None for a claim that found nothing ready.

    Raises:
        TownError: a precondition does not hold; the class says which kind. The draft may then be half
            changed and must be thrown away.
    """
    handler = _HANDLERS[type(operation)]
    bead: Bead | None = handler(operation, draft, context)
    return bead


def describe(operation: Operation, bead: Bead | None) -> str:
    """One line for the history: what ``operation`` did, in plain words, without what every line would say."""
    match operation:
        case Claim():
            return f"claim {bead.id}: {operation.worker}, epoch {bead.epoch}" if bead else "claim nothing: none ready"
        case Begin():
            return f"begin {operation.id}: {operation.worker}, attempt {len(bead.attempts) if bead else 1}"
        case Finish():
            return f"attempt at {operation.id} ended {operation.end}: {operation.reason or operation.worker}"
        case Release():
            return f"release {operation.id}: {operation.reason or operation.worker}"
        case Close():
            return f"close {operation.id} as {operation.outcome}: {operation.reason or 'criteria hold'}"
        case Submit():
            return f"submit {operation.id}: {operation.head[:12]} as {bead.id if bead else '?'}"
        case Judge():
            return f"gate {operation.evidence.verdict} for {operation.id}: tree {operation.evidence.tree[:12]}"
        case Intend():
            return f"about to land {', '.join(operation.ids)} as {operation.commit[:12]}"
        case Land():
            return f"landed {', '.join(operation.ids)} as {operation.commit[:12]}"
        case SendBack():
            return f"send back {operation.id}: {operation.reason}"
        case Create():
            return f"create {operation.bead.id}: {operation.bead.title}"
        case _:
            return f"{operation.op} {operation.id}"


def _put(draft: Draft, context: Context, old: Bead | None, new: Bead) -> Bead:
    """Write ``new`` when it says anything that ``old`` does not."""
    if new == old:
        return new
    stamped = new.evolve(updated_at=max(context.now, new.updated_at))
    draft.put(stamped)
    return stamped


def _create(op: Create, draft: Draft, context: Context) -> Bead:
    there = draft.get(op.bead.id)
    if there is not None:
        if (there.source, there.seal) == (op.bead.source, op.bead.seal) and there.source:
            return there
        raise Refused(f"bead {op.bead.id} exists already: {there.title}", "Choose another id, or update that one.")
    if any(draft.get(need) and graph.closes_cycle(draft, op.bead.id, need) for need in op.bead.needs):
        raise Refused(f"{op.bead.id} would wait for itself", "Remove one of its dependencies.")
    return _put(draft, context, None, op.bead)


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
    return _put(draft, context, bead, Bead.model_validate({**dict(bead), **changes}))


def _label(op: Label, draft: Draft, context: Context) -> Bead:
    bead = draft.need(op.id)
    labels = tuple(sorted((set(bead.labels) | set(op.add)) - set(op.remove)))
    return _put(draft, context, bead, bead.evolve(labels=labels))


def _depend(op: Depend, draft: Draft, context: Context) -> Bead:
    bead = draft.need(op.id)
    edge = Dependency(on=op.on, type=op.type)
    rest = tuple(d for d in bead.dependencies if d != edge)
    if op.remove:
        return _put(draft, context, bead, bead.evolve(dependencies=rest))
    draft.need(op.on)
    if op.type in BLOCKING and graph.closes_cycle(draft, op.id, op.on):
        raise Refused(f"{op.id} cannot wait for {op.on}: that would be a cycle", f"See `bead dep tree {op.on}`.")
    return bead if edge in bead.dependencies else _put(draft, context, bead, bead.evolve(dependencies=(*rest, edge)))


def _say(op: Say, draft: Draft, context: Context) -> Bead:
    bead = draft.need(op.id)
    key = f"{context.actor}\0{context.now.isoformat()}\0{op.text}"
    comment = Comment(
        id=hashlib.sha256(key.encode()).hexdigest()[:12], author=context.actor, text=op.text, created_at=context.now
    )
    known = {c.id for c in bead.comments}
    comments = bead.comments if comment.id in known else (*bead.comments, comment)
    return _put(draft, context, bead, bead.evolve(comments=comments))


def _claim(op: Claim, draft: Draft, context: Context) -> Bead | None:
    if op.id is None:
        choice = (b for b in graph.ready(draft, context.now) if not op.workable or graph.workable(draft, b))
        best = next(choice, None)
        return None if best is None else _lease(best, op, draft, context)
    bead = draft.need(op.id)
    lease = bead.lease
    if lease and lease.worker == op.worker and lease.site == op.site:
        return bead
    if lease and lease.until > context.now:
        raise LostRace(f"{bead.id} is held by {lease.worker} since {lease.since:%H:%M:%S} UTC, epoch {lease.epoch}")
    seen = graph.state(draft, bead.evolve(lease=None), context.now)
    if graph.molecule_of(draft, bead).id != bead.id or seen.kind != "ready":
        raise Refused(f"{bead.id} cannot be claimed: {seen.reason}", f"`bead why {bead.id}` says more.")
    return _lease(bead, op, draft, context)


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
    return _put(draft, context, bead, held)


def _check_seals(draft: Draft, molecule: Bead) -> None:
    """Refuse work on a goal that was changed behind the seal's back (I3)."""
    for bead in (molecule, *graph.steps(draft, molecule)):
        if bead.seal and bead.seal != bead.digest():
            raise Refused(
                f"the goal or criteria of {bead.id} were changed after they were sealed",
                f"`bead log {bead.id}` shows by whom; pour a new bead that supersedes it.",
            )


def _guard(op: Held, draft: Draft) -> tuple[Bead, Bead]:
    """The bead an operation is about and its molecule, if the caller still holds the lease (fencing)."""
    bead = draft.need(op.id)
    molecule = graph.molecule_of(draft, bead)
    lease = molecule.lease
    if lease is None or (lease.worker, lease.epoch) != (op.worker, op.epoch):
        now = (
            f"{lease.worker} holds it under epoch {lease.epoch}"
            if lease
            else f"nobody holds it, epoch {molecule.epoch}"
        )
        raise Fenced(f"{op.worker} no longer holds {molecule.id} under epoch {op.epoch}: {now}")
    return bead, molecule


def _renew(op: Renew, draft: Draft, context: Context) -> Bead:
    _, molecule = _guard(op, draft)
    until = context.now + timedelta(seconds=op.seconds)
    lease = molecule.lease and molecule.lease.model_copy(update={"until": until})
    return _put(draft, context, molecule, molecule.evolve(lease=lease))


def _release(op: Release, draft: Draft, context: Context) -> Bead:
    bead = draft.need(op.id)
    if bead.lease is None and bead.epoch == op.epoch:
        return bead
    _, molecule = _guard(op, draft)
    for step in graph.steps(draft, molecule):
        _end_attempt(draft, context, step, op.end, op.reason)
    return _give_back(draft, context, draft.need(molecule.id))


def _give_back(draft: Draft, context: Context, molecule: Bead) -> Bead:
    return _put(draft, context, molecule, molecule.evolve(lease=None, status="open", assignee=""))


def _begin(op: Begin, draft: Draft, context: Context) -> Bead:
    step, _ = _guard(op, draft)
    if step.closed:
        raise Refused(f"step {step.id} is closed already")
    running = step.attempts[-1] if step.attempts else None
    if running and running.end is None and running.epoch == op.epoch:
        return step
    if len(graph.failed(step)) >= step.attempts_max:
        raise Refused(
            f"all {step.attempts_max} attempts at {step.id} are used up", f"`town retry {step.id}` gives more."
        )
    attempt = Attempt(
        number=len(step.attempts) + 1,
        epoch=op.epoch,
        worker=op.worker,
        runtime=op.runtime,
        started_at=context.now,
    )
    return _put(draft, context, step, step.evolve(attempts=(*step.attempts, attempt)))


def _end_attempt(draft: Draft, context: Context, step: Bead, end: AttemptEnd, reason: str) -> Bead:
    if not step.attempts or step.attempts[-1].end is not None:
        return step
    ended = step.attempts[-1].model_copy(update={"end": end, "reason": reason, "ended_at": context.now})
    return _put(draft, context, step, step.evolve(attempts=(*step.attempts[:-1], ended)))


def _finish(op: Finish, draft: Draft, context: Context) -> Bead:
    step, _ = _guard(op, draft)
    step = _end_attempt(draft, context, step, op.end, op.reason)
    return _put(draft, context, step, step.evolve(evidence=_united(step.evidence, op.evidence)))


def _united(there: tuple[Evidence, ...], more: Iterable[Evidence]) -> tuple[Evidence, ...]:
    known = {e.id for e in there}
    return there + tuple(e for e in more if e.id not in known)


def _close(op: Close, draft: Draft, context: Context) -> Bead:
    bead = draft.need(op.id)
    if bead.closed:
        return bead
    molecule = graph.molecule_of(draft, bead)
    decided = op.force or op.outcome in ("rejected", "cancelled", "superseded")
    if op.worker or (molecule.lease is not None and not decided):
        _guard(Held(id=op.id, worker=op.worker or context.actor, epoch=op.epoch or molecule.epoch or 1), draft)
    _check_closable(op, draft, bead)
    bead = _end_attempt(draft, context, bead, "satisfied", "")
    reason = f"forced by {context.actor}: {op.reason}" if op.force else op.reason
    return _put(draft, context, bead, _closed(bead, op.outcome, reason, context, op.evidence))


def _closed(bead: Bead, outcome: Outcome, reason: str, context: Context, more: Iterable[Evidence] = ()) -> Bead:
    return bead.evolve(
        status="closed",
        outcome=outcome,
        close_reason=reason,
        closed_at=context.now,
        evidence=_united(bead.evidence, more),
        lease=None,
    )


def _check_closable(op: Close, draft: Draft, bead: Bead) -> None:
    """Done is proven (I3): work closes as done only when each criterion passed on one and the same tree."""
    if op.force and not op.reason.strip():
        raise Refused(f"closing {bead.id} by force needs a reason", "Add --reason.")
    if op.force or op.outcome in ("rejected", "cancelled", "superseded"):
        return
    if bead.issue_type == "merge-request" or op.outcome == "landed":
        raise Refused(f"only the Refinery lands {bead.id}", "`town queue` shows where it stands.")
    _check_seals(draft, bead)
    unproven = [str(c) for c in bead.criteria if not _proven(str(c), op.evidence)]
    trees = {evidence.tree for evidence in op.evidence}
    if unproven or len(trees) > 1:
        what = unproven[0] if unproven else "the evidence is of different trees"
        raise Refused(
            f"{bead.id} cannot close: not proven: {what}",
            f"Let a polecat evaluate it (`town polecat run {graph.molecule_of(draft, bead).id}`), "
            "or decide yourself with --force --reason.",
        )
    open_steps = [s.id for s in graph.steps(draft, bead) if not s.closed and s.id != bead.id]
    if open_steps:
        raise Refused(f"{bead.id} cannot close: step {open_steps[0]} is open")


def _proven(criterion: str, evidence: Iterable[Evidence]) -> bool:
    return any(e.subject == criterion and e.verdict == "pass" for e in evidence)


def _reopen(op: Reopen, draft: Draft, context: Context) -> Bead:
    bead = draft.need(op.id)
    if bead.outcome == "landed":
        raise Refused(f"{bead.id} has landed on main", "Create a new bead for what is still wrong.")
    if not bead.closed:
        return bead
    return _put(draft, context, bead, bead.evolve(status="open", outcome=None, closed_at=None, close_reason=""))


def _submit(op: Submit, draft: Draft, context: Context) -> Bead:
    requests = graph.merge_requests(draft, draft.need(op.id))
    # A head that was rejected may be asked for again: main, or luck, may have been what was wrong.
    there = next((r for r in requests if r.merge and r.merge.head == op.head and r.outcome != "rejected"), None)
    if there is not None:
        return there
    _, molecule = _guard(op, draft)
    left = graph.next_step(draft, molecule)
    if left is not None and left.id != molecule.id:
        raise Refused(f"{molecule.id} cannot be submitted: step {left.id} is open")
    if op.head == op.base:
        done = _closed(molecule, "done", "the goal already held on main", context)
        return _put(draft, context, molecule, done)
    number = len(requests) + 1
    request = Bead(
        id=f"{molecule.id}.m{number}",
        title=molecule.title,
        issue_type="merge-request",
        priority=molecule.priority,
        created_at=context.now,
        created_by=context.actor,
        updated_at=context.now,
        dependencies=(Dependency(on=molecule.id, type="parent-child"),),
        merge=MergeRequest(molecule=molecule.id, branch=op.branch, head=op.head, base=op.base),
    )
    _give_back(draft, context, molecule)
    return _put(draft, context, None, request)


def _request(draft: Draft, bead_id: str) -> tuple[Bead, MergeRequest]:
    bead = draft.need(bead_id)
    if bead.merge is None:
        raise InvalidInput(f"{bead_id} is not a merge request")
    return bead, bead.merge


def _judge(op: Judge, draft: Draft, context: Context) -> Bead:
    bead, _ = _request(draft, op.id)
    return _put(draft, context, bead, bead.evolve(evidence=_united(bead.evidence, (op.evidence,))))


def _intend(op: Intend, draft: Draft, context: Context) -> Bead | None:
    last: Bead | None = None
    for bead_id in op.ids:
        bead, merge = _request(draft, bead_id)
        if bead.closed:
            raise LostRace(f"merge request {bead_id} is closed already: {bead.outcome}")
        meant = merge.model_copy(update={"landing": op.commit})
        last = _put(draft, context, bead, bead.evolve(merge=meant))
    return last


def _land(op: Land, draft: Draft, context: Context) -> Bead | None:
    last: Bead | None = None
    for bead_id in op.ids:
        bead, merge = _request(draft, bead_id)
        if bead.outcome != "landed":
            done = merge.model_copy(update={"landed": op.commit})
            reason = f"landed as {op.commit[:12]}"
            bead = _put(draft, context, bead, _closed(bead, "landed", reason, context).evolve(merge=done))
            molecule = draft.need(merge.molecule)
            _put(draft, context, molecule, _closed(molecule, "landed", reason, context))
        last = bead
    return last


def _send_back(op: SendBack, draft: Draft, context: Context) -> Bead:
    bead, merge = _request(draft, op.id)
    if bead.closed:
        return bead
    if draft.get(op.step.id) is None:
        _put(draft, context, None, op.step)
    molecule = draft.need(merge.molecule)
    _put(draft, context, molecule, molecule.evolve(status="open"))
    return _put(draft, context, bead, _closed(bead, "rejected", op.reason, context))


_HANDLERS: dict[type[Fact], Any] = {
    Create: _create,
    Update: _update,
    Label: _label,
    Depend: _depend,
    Say: _say,
    Claim: _claim,
    Renew: _renew,
    Release: _release,
    Begin: _begin,
    Finish: _finish,
    Close: _close,
    Reopen: _reopen,
    Submit: _submit,
    Judge: _judge,
    Intend: _intend,
    Land: _land,
    SendBack: _send_back,
}
