"""What it takes to take a transaction back. Pure.

Bead by bead and field by field, what the transaction changed becomes what it was. A field that was changed again
since is nobody's to overwrite: then nothing is taken back. Some things go by the rules of the operations that they
have: a claim is taken back by a release, a close by reopening, a create by deleting. A lease is never given back,
an epoch never goes back, and attempts and evidence stay, because they happened.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import datetime
from graphlib import CycleError, TopologicalSorter
from typing import Any

from beads import graph
from beads.draft import Draft
from beads.errors import Fenced, Refused
from beads.model import BLOCKING, Bead, Lease, same_holder
from beads.ops import Changed, Delete, Operation, Release, Reopen, Restore

FINAL: Mapping[str, tuple[str, str]] = {
    "init": ("it began the store", ""),
    "repair": ("what it replaced was damaged", "`bead show --at` shows what was there before."),
    "renew": ("a worker counts on the time it was given", "`bead release` ends a lease early."),
    "release": ("a lease is only ever given under a new epoch", "`bead claim` takes the bead again."),
    "begin": ("an attempt is counted when it starts", "`town retry` allows more attempts."),
    "spend": ("what an attempt has come to is a fact", "`bead comment` can say what is wrong with it."),
    "finish": ("what an attempt found is a fact", "`bead comment` can say what is wrong with it."),
    "answer": ("what a person said is a fact", "`town approve`, `reject` and `answer` can say otherwise."),
    "submit": ("the work is in the merge queue", "`town queue drop` takes it out."),
    "judge": ("a verdict of the gate is a fact", "The gate judges again when the candidate changes."),
    "intend": ("main may have moved already", "`town queue` shows where it stands."),
    "land": ("it is on main", "Create a new bead for what is wrong with it."),
    "send-back": ("the Refinery has seen the work fail", "Mend it, and it is submitted again."),
    "bump": ("what a person said is a fact", "`town queue bump` puts another one to the front, behind it."),
    "withdraw": ("the request is over", "`town queue retry` asks for the same once more."),
    "again": ("it may have been tried again already", "`town queue drop` takes it out of the queue."),
}
"""The operations that are not taken back: why not, and what can be done instead."""

_STAYS = frozenset({"id", "updated_at", "epoch", "attempts", "evidence", "lease"})

_MEMBERS: Mapping[str, Callable[[Any], object]] = {
    "labels": lambda label: label,
    "dependencies": lambda dependency: (dependency.type, dependency.on),
    "comments": lambda comment: comment.id,
}
"""The fields whose members come and go one by one, and what makes two of them the same member."""

_ABSENT = object()


def overtaken(change: Changed, there: Bead) -> tuple[str, ...]:
    """The fields that the transaction changed and that were changed again since: they cannot be taken back."""
    if _settled(change, there):
        return ()
    if there.deleted != change.after.deleted:
        return ("outcome",)
    if there.lease and _given(change) and not same_holder(there.lease, _given(change)):
        # Whoever holds it now is no matter of fields: the release is fenced.
        return ()
    if _gone(change.before) or change.after.deleted:
        return _changed_since(change.after, there)
    return _result(change, there)[1]


def restore(op: Restore, draft: Draft, now: datetime, do: Callable[[Operation], object]) -> Bead | None:
    """Do it on the draft; the first bead it is about, if there is one.

    Args:
        op: what to take back.
        draft: the state, which may be half changed after an error.
        now: when.
        do: applies another operation to the same draft.

    Raises:
        Refused: something of it cannot be taken back.
        Fenced: somebody else holds what was claimed.
    """
    before = {change.after.id: _there(draft, change) for change in op.beads}
    # A molecule before its steps, and whatever else is a part of something after what it is a part of.
    changes = sorted(op.beads, key=lambda change: (_parent(change) in before, graph.natural(change.after.id)))
    left = [change for change in changes if not _settled(change, before[change.after.id])]
    for change in left:
        _check(change, before[change.after.id])
        if _gone(change.before):
            _check_alone(draft, change, before)
    for change in left:
        lease, now_held = _given(change), before[change.after.id].lease
        if lease and now_held and not same_holder(lease, now_held):
            raise Fenced(
                f"{lease.worker} no longer holds {change.after.id} under epoch {lease.epoch}: "
                f"{now_held.worker} holds it under epoch {now_held.epoch}"
            )
        if lease and now_held:
            do(Release(id=change.after.id, worker=lease.worker, epoch=lease.epoch, reason=f"undo of {op.commit[:12]}"))
    for change in left:
        there = draft.changed.get(change.after.id, before[change.after.id])
        _take_back(change, there, draft, now, do, f"undo of {op.commit[:12]}")
    for change in left:
        _check_result(draft, before[change.after.id], change)
    _check_cycles(draft, [change.after.id for change in left])
    return draft.get(op.beads[0].after.id) if op.beads else None


def _take_back(
    change: Changed, there: Bead, draft: Draft, now: datetime, do: Callable[[Operation], object], reason: str
) -> None:
    if _gone(change.before):
        # Its parts are in the transaction, too, as was checked.
        do(Delete(id=there.id, reason=change.before.close_reason if change.before else reason, cascade=True))
        result = change.before.evolve(epoch=there.epoch) if change.before else _there(draft, change)
    elif change.after.deleted and change.before is not None:
        result = _released(change.before).evolve(epoch=max(there.epoch, change.before.epoch))
    else:
        result, _ = _result(change, there)
        if there.closed and not result.closed:
            do(Reopen(id=there.id))
    if _changed_since(result, there):
        draft.put(result.evolve(updated_at=max(now, there.updated_at)))


def _there(draft: Draft, change: Changed) -> Bead:
    found = draft.get(change.after.id)
    return draft.need(change.after.id) if found is None else found


def _gone(bead: Bead | None) -> bool:
    return bead is None or bead.deleted


def _parent(change: Changed) -> str | None:
    bead = change.before if change.after.deleted else change.after
    return bead.parent if bead else None


def _settled(change: Changed, there: Bead) -> bool:
    """Whether a bead that was created is gone already, or one that was deleted is back."""
    if _gone(change.before):
        return there.deleted
    return change.after.deleted and not there.deleted


# --- fields ------------------------------------------------------------------------------------------------------


def _result(change: Changed, there: Bead) -> tuple[Bead, tuple[str, ...]]:
    """A bead that was changed with the fields as they were, and those that cannot be because of later changes."""
    assert change.before is not None, "a created bead is deleted"
    before, after = change.before, change.after
    if not same_holder(before.lease, after.lease):
        there = _released(there) if same_holder(there.lease, _given(change)) else there
        before, after = _released(before), _released(after)
    was, did, now = dict(before), dict(after), dict(there)
    fields = dict(now)
    lost = []
    for name in [name for name in {**was, **did} if name not in _STAYS]:
        sides = [facts.get(name, _ABSENT) for facts in (was, did, now)]
        value, overtaken = _back(name, *sides)
        fields[name] = value
        if overtaken:
            lost.append(name)
    kept = {name: value for name, value in fields.items() if value is not _ABSENT}
    return Bead.model_validate(kept), tuple(lost)


def _back(name: str, was: Any, did: Any, now: Any) -> tuple[Any, bool]:
    """The value of a field when ``was`` → ``did`` is taken back, and whether it was changed again since."""
    if did in (was, now):
        return (now if did == was else was), False
    if now == was or name not in _MEMBERS:
        return now, now != was
    members, lost = _members_back(_MEMBERS[name], was, did, now)
    return (tuple(sorted(members)) if name == "labels" else members), lost


def _members_back(
    key: Callable[[Any], object], was: Iterable[Any], did: Iterable[Any], now: Iterable[Any]
) -> tuple[tuple[Any, ...], bool]:
    before, after, there = ({key(member): member for member in side} for side in (was, did, now))
    touched = {k for k in {**before, **after} if before.get(k) != after.get(k)}
    lost = any(there.get(k) not in (before.get(k), after.get(k)) for k in touched)
    found = {k: member for k, member in there.items() if k not in touched}
    found |= {k: before[k] for k in touched if k in before}
    order = [k for k in there if k in found]
    place = 0
    for k in before:
        # What comes back comes after the last of those that were before it.
        if k in order:
            place = order.index(k) + 1
        elif k in found:
            order.insert(place, k)
            place += 1
    return tuple(found[k] for k in order), lost


def _changed_since(then: Bead, now: Bead) -> tuple[str, ...]:
    """The fields that differ, but for what every change moves on and nothing moves back."""
    was, is_now = dict(then), dict(now)
    names = [name for name in {**was, **is_now} if name not in ("updated_at", "epoch")]
    return tuple(name for name in names if was.get(name, _ABSENT) != is_now.get(name, _ABSENT))


# --- leases ------------------------------------------------------------------------------------------------------


def _given(change: Changed) -> Lease | None:
    """The lease that the transaction gave."""
    before = change.before.lease if change.before else None
    return None if same_holder(before, change.after.lease) else change.after.lease


def _released(bead: Bead) -> Bead:
    if bead.lease is None:
        return bead
    return bead.evolve(lease=None, assignee="", status="open" if bead.status == "in_progress" else bead.status)


# --- rules -------------------------------------------------------------------------------------------------------


def _check(change: Changed, there: Bead) -> None:
    """Refuse what is never taken back, and what was changed again since."""
    before, after = change.before, change.after
    if (after.merge or (before and before.merge)) and not (before and after.deleted != before.deleted):
        raise Refused(f"{after.id} is a merge request, which only the Refinery changes", "`town queue` shows it.")
    if before and not before.deleted and not after.deleted:
        renewed = before.lease != after.lease and same_holder(before.lease, after.lease)
        if renewed or (before.lease and not after.lease and not after.closed):
            reason, hint = FINAL["renew" if renewed else "release"]
            raise Refused(f"the lease of {after.id} cannot be taken back: {reason}", hint)
        if before.seal != after.seal:
            raise Refused(f"the seal of {after.id} is not taken back", "Pour a new bead that supersedes it.")
    fields = overtaken(change, there)
    if fields:
        raise Refused(
            f"{fields[0]} of {after.id} was changed again since",
            f"`bead log {after.id}` shows by whom; nothing is done.",
        )


def _check_alone(draft: Draft, change: Changed, ids: Collection[str]) -> None:
    """Refuse to delete what something else was built on since."""
    others = list(draft.children(change.after.id))
    if change.before is None:
        others += draft.dependents(change.after.id)
    for other in others:
        if other.id not in ids and other.merge is None:
            raise Refused(
                f"{other.id} depends on {change.after.id}, and was not made with it",
                f"`bead delete {change.after.id}` deletes it all the same.",
            )


def _check_result(draft: Draft, there: Bead, change: Changed) -> None:
    """Refuse a result that no operation would have allowed."""
    result = _there(draft, change)
    if result.outcome != there.outcome and "landed" in (result.outcome, there.outcome):
        raise Refused(f"{result.id} has landed on main", "Create a new bead for what is still wrong.")
    if result.deleted:
        return
    if result.seal and result.seal != result.digest() and (there.deleted or there.seal == there.digest()):
        raise Refused(f"the goal and criteria of {result.id} are sealed", "Pour a new bead that supersedes it.")
    above = [d.on for d in result.dependencies if d.type == "parent-child"]
    if there.issue_type == "step" and there.seal and there.parent not in (None, result.parent):
        raise Refused(
            f"{result.id} is sealed as a part of {there.parent}", f"`bead close {result.id} --force` gives it up."
        )
    if there.deleted and any(_gone(draft.get(on)) for on in above):
        raise Refused(f"{above[0]}, which {result.id} is a part of, was deleted", f"Bring {above[0]} back first.")
    if result.closed and not there.closed and not there.deleted:
        _check_over(draft, result, change)


def _check_over(draft: Draft, bead: Bead, change: Changed) -> None:
    """Refuse to close again what was worked on since it was reopened."""
    molecule = graph.molecule_of(draft, bead)
    if molecule.lease is not None:
        raise Refused(f"{molecule.id} is held by {molecule.lease.worker}", "Wait for it, or close it with --force.")
    if any(not request.closed for request in graph.merge_requests(draft, molecule)):
        raise Refused(f"{molecule.id} is in the merge queue", "Wait how it ends.")
    then = change.after
    if (bead.attempts, bead.evidence, bead.criteria) != (then.attempts, then.evidence, then.criteria):
        raise Refused(f"{bead.id} was worked on since it was reopened", f"`bead close {bead.id}` closes it.")
    left = graph.step_left(draft, bead)
    if left is not None and bead.outcome == "done":
        raise Refused(f"{bead.id} cannot close: step {left.id} is open")


def _check_cycles(draft: Draft, ids: Collection[str]) -> None:
    """Refuse to bring a dependency back that would make beads wait for themselves."""
    waits: dict[str, list[str]] = {}
    stack = list(ids)
    while stack:
        here = stack.pop()
        if here not in waits:
            bead = draft.get(here)
            waits[here] = [d.on for d in bead.dependencies if d.type in BLOCKING] if bead else []
            stack += waits[here]
    try:
        TopologicalSorter(waits).prepare()
    except CycleError as error:
        ring = error.args[1]
        # What waits for itself already is for `bead doctor` to say.
        if not set(ring).isdisjoint(ids):
            raise Refused(
                f"{ring[0]} would wait for itself: {' → '.join(ring)}", "Remove one of these dependencies first."
            ) from error
