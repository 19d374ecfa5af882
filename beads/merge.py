"""Merge what two clones made of one bead, field by field. Pure, and never a conflict for a person.

Each field is merged three-way: a side that left it as it was in the base gives way to the other one. Where both
changed it, the greater value wins, in an order of the field's own that looks at nothing but the value. No clock
decides, because of two machines the one whose clock is wrong would win each time, and because only so it makes no
difference in which order many clones are merged. What a person wrote and did not win stays as a comment.

For one base the merge is commutative, associative and idempotent.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple, TypeVar

from beads.model import Attempt, Bead, Comment, Dependency, Evidence, Fact, Lease, MergeRequest, same_holder

T = TypeVar("T")

AUTHOR = "sync"
"""Who is named as the author of the comments that keep what did not win."""

_WORK = ("title", "description", "run", "criteria", "seal")
_TEXTS = ("issue_type", "rework", "agent", "source", "created_by")
_KEPT = ("title", "description", "run", "criteria", "rework", "close_reason")

_OUTCOMES = ("cancelled", "rejected", "superseded", "done", "deleted", "landed")
_STATUSES = ("open", "in_progress", "deferred", "closed")
_ENDS = (None, "stopped", "died", "parked", "handed_off", "asked", "unmet", "satisfied")


def merge(base: Bead | None, a: Bead | None, b: Bead | None, accepted: Lease | None = None) -> Bead | None:
    """What a bead is when two histories of the store are joined.

    Args:
        base: the bead where the histories parted; None when it was made on each side for itself.
        a: one side; None when it is not there, which is nobody's decision, because deleting leaves a tombstone.
        b: the other side. Exchanging the two changes nothing.
        accepted: the lease that the remote has. Of two rival leases it wins; the other holder is fenced.
    """
    if a is None or b is None:
        return a or b
    if base is not None and base.deleted:
        # Only somebody who meant to takes a deletion back; whoever left it alone has nothing to say.
        there = [side for side in (a, b) if _grave(side) != _grave(base)] or [a]
        if len(there) == 1 and there[0].deleted:
            return _joined(there[0], base, a, b)
        if not any(side.deleted for side in there):
            # Joined before they are merged: a comment that keeps what did not win is dated by when the bead was made.
            return _Merge(None, *(_joined(side, base, a, b) for side in (there[0], there[-1]))).bead(accepted)
    graves = [side for side in (a, b) if side.deleted]
    if graves:
        return _joined(max(graves, key=_grave), base, a, b)
    return _Merge(base, a, b).bead(accepted)


def _grave(bead: Bead) -> str:
    grows = ("epoch", "updated_at", "created_at")
    return _mark({name: value for name, value in bead if name not in grows}) if bead.deleted else ""


def _joined(bead: Bead, *others: Bead | None) -> Bead:
    """A bead as it is, but with what only grows, or is older, from the others."""
    everyone = [other for other in others if other is not None]
    return bead.evolve(
        epoch=max(other.epoch for other in everyone),
        updated_at=max(other.updated_at for other in everyone),
        created_at=min(other.created_at for other in everyone),
    )


class _Life(NamedTuple):
    """Whether a bead is over, and how: one decision, which is not to be mixed from two."""

    status: str
    outcome: str | None
    closed_at: datetime | None
    close_reason: str

    @classmethod
    def of(cls, bead: Bead) -> _Life:
        # What is held is in progress, whatever it says; or that would be news to whoever merges it with itself.
        status = "in_progress" if bead.status == "open" and bead.lease else bead.status
        return cls(status, bead.outcome, bead.closed_at, bead.close_reason)

    @property
    def rank(self) -> tuple[int, int]:
        return _STATUSES.index(self.status), _OUTCOMES.index(self.outcome) if self.outcome else -1


class _Merge:
    """One merge of two beads that are both there and not deleted."""

    def __init__(self, base: Bead | None, a: Bead, b: Bead) -> None:
        self.base, self.a, self.b = base, a, b

    def bead(self, accepted: Lease | None) -> Bead:
        a, b = self.a, self.b
        life = self._life()
        lease = None if life.status == "closed" else self._lease(accepted)
        if lease is not None and life.status == "open":
            life = life._replace(status="in_progress")
        facts: dict[str, Any] = {
            "id": a.id,
            **self._work(),
            **{name: self._pick(name, _length) for name in _TEXTS},
            **life._asdict(),
            "priority": self._pick("priority", lambda number: -number),
            "terms": self._pick("terms", lambda terms: terms is not None),
            "attempts_max": self._pick("attempts_max", lambda number: number),
            "defer_until": self._pick("defer_until", lambda until: until is not None),
            "created_at": self._pick("created_at", lambda moment: -moment.timestamp()),
            "updated_at": self._pick("updated_at", lambda moment: moment.timestamp()),
            "epoch": max(a.epoch, b.epoch, self.base.epoch if self.base else 0),
            "lease": lease,
            "assignee": self._assignee(life, lease),
            "merge": self._pick("merge", _progress),
            "labels": sorted(self._set("labels", str, str)),
            "dependencies": self._set("dependencies", _edge, _mark),
            "attempts": self._set("attempts", _try, _started, _ended),
            "evidence": self._set("evidence", _mark, _seen),
        }
        extra = self._extra()
        facts["comments"] = self._comments({**facts, **extra})
        return Bead.model_validate({**extra, **facts})

    def _was(self, name: str) -> Any:
        """A field's value in the base; of a bead that was not there, what everything starts with."""
        if self.base is not None:
            return getattr(self.base, name)
        field = Bead.model_fields[name]
        return _NOTHING if field.is_required() else field.default

    def _pick(self, name: str, rank: Callable[[Any], Any]) -> Any:
        return _three_way(self._was(name), getattr(self.a, name), getattr(self.b, name), rank)

    def _work(self) -> dict[str, Any]:
        """What is to be done. Under a seal it is one value, or the digest would no longer be that of the goal (I3)."""
        sealed = {_mark(_work_of(side)): _work_of(side) for side in (self.a, self.b) if _intact(side)}
        if self.base is not None and _intact(self.base):
            was = _work_of(self.base)
            # Changing a goal behind its seal, or taking the seal away, is not a change that counts.
            a, b = (_work_of(side) if _intact(side) else was for side in (self.a, self.b))
            return dict(_three_way(was, a, b, lambda _: 0))
        if sealed:
            return sealed[max(sealed)]
        return {name: self._pick(name, _length) for name in _WORK}

    def _began(self) -> _Life:
        return _Life.of(self.base) if self.base else _NEW

    def _life(self) -> _Life:
        was = self._began()
        a, b = _Life.of(self.a), _Life.of(self.b)
        if was.outcome == "landed":
            # What is on main is a fact, whatever anybody says later.
            a, b = (side if side.outcome == "landed" else was for side in (a, b))
        return _Life(*_three_way(was, a, b, lambda life: life.rank))

    def _lease(self, accepted: Lease | None) -> Lease | None:
        """Who holds it. Moving a lease's end is no change of the holder, so that giving back wins over renewing."""
        was = self.base.lease if self.base else None
        sides = [self.a.lease, self.b.lease]
        changed = [lease for lease in sides if not same_holder(lease, was)]
        held = [lease for lease in changed if lease is not None]
        if changed and not held:
            return None
        best = max(held, key=lambda lease: _claim_rank(lease, accepted)) if held else was
        ends = [lease.until for lease in (was, *sides) if lease is not None and same_holder(lease, best)]
        return best.model_copy(update={"until": max(ends)}) if best else None

    def _assignee(self, life: _Life, lease: Lease | None) -> str:
        """Claiming assigns, so a new holder brings the assignee along; and so does whoever closes a bead."""
        sides = [self.a, self.b]
        if life.status == "closed" and life != self._began():
            sides = [side for side in sides if _Life.of(side) == life]
        elif lease is not None and not same_holder(lease, self.base.lease if self.base else None):
            sides = [side for side in sides if same_holder(side.lease, lease)]
        else:
            found: str = self._pick("assignee", _length)
            return found
        return max((side.assignee for side in sides), key=_order(_length))

    def _set(
        self,
        name: str,
        key: Callable[[Any], Any],
        place: Callable[[Any], Any],
        rank: Callable[[Any], Any] = lambda _: 0,
    ) -> list[Any]:
        """What is in a tuple, told apart by ``key``: the base's items in their order, then new ones by ``place``."""
        return _united(self._was(name), getattr(self.a, name), getattr(self.b, name), key, place, rank)

    def _extra(self) -> dict[str, Any]:
        """The keys that this version does not know."""
        was, a, b = ((side.model_extra if side else None) or {} for side in (self.base, self.a, self.b))
        found: dict[str, Any] = {}
        for name in {**a, **b}:
            values = [_Marked(_mark(side[name]), side[name]) if name in side else None for side in (was, a, b)]
            value = _three_way(values[0], values[1], values[2], lambda marked: _length(marked.value))
            if value is not None:
                found[name] = value.value
        return found

    def _comments(self, facts: Mapping[str, Any]) -> list[Comment]:
        """Everybody's comments, and in some more what was written and did not win."""
        was = self.base.comments if self.base else ()
        old = {comment.id for comment in was}
        born = facts["created_at"]
        sides = [
            [c if c.id in old or c.author != AUTHOR else c.model_copy(update={"created_at": born}) for c in comments]
            for comments in (self.a.comments, self.b.comments)
        ]
        names = sorted({*_KEPT, *(self.a.model_extra or {}), *(self.b.model_extra or {})})
        lost = [
            _kept(name, value, born)
            for name in names
            for value in (_value(self.a, name), _value(self.b, name))
            if value and _mark(value) not in (_mark(facts.get(name)), _mark(_value(self.base, name)))
        ]
        found = _united(was, [*sides[0], *lost], [*sides[1], *lost], _mark, _said, lambda _: 0)
        # One that came back from a merge with a third clone as the winner is not lost.
        won = {_kept(name, facts[name], born).id for name in names if facts.get(name)} - old
        return [comment for comment in found if comment.author != AUTHOR or comment.id not in won]


_NOTHING = object()
_NEW = _Life("open", None, None, "")


class _Marked(NamedTuple):
    """A value that is compared by its text, in which 1 and true are two things."""

    mark: str
    value: Any

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Marked) and self.mark == other.mark

    def __hash__(self) -> int:
        return hash(self.mark)


def _three_way(was: Any, a: Any, b: Any, rank: Callable[[Any], Any]) -> Any:
    """The side that changed; of two that did, the greater one, and taking away wins over everything."""
    if a in (was, b):
        return b
    if b == was:
        return a
    if was is not None and (a is None or b is None):
        return None
    return max(a, b, key=_order(rank))


def _order(rank: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A total order: by rank, and what is of one rank by its text."""
    return lambda value: (value is not None, value is not None and rank(value), _mark(value))


def _united(
    was: Iterable[T],
    a: Iterable[T],
    b: Iterable[T],
    key: Callable[[T], Any],
    place: Callable[[T], Any],
    rank: Callable[[T], Any],
) -> list[T]:
    old, left, right = (_by_key(side, key, rank) for side in (was, a, b))
    found = {
        name: _three_way(old.get(name), left.get(name), right.get(name), rank) for name in {**old, **left, **right}
    }
    there = [found[name] for name in old if found[name] is not None]
    return there + sorted((v for name, v in found.items() if name not in old and v is not None), key=place)


def _by_key(items: Iterable[T], key: Callable[[T], Any], rank: Callable[[T], Any]) -> dict[Any, T]:
    found: dict[Any, T] = {}
    for item in items:
        name = key(item)
        found[name] = max(found[name], item, key=_order(rank)) if name in found else item
    return found


def _mark(value: Any) -> str:
    """A value as text: equal for equal values, and never equal otherwise."""
    return json.dumps(_plain(value), sort_keys=True, ensure_ascii=False)


def _plain(value: Any) -> Any:
    if isinstance(value, Bead | Fact):
        return _plain(value.model_dump())
    if isinstance(value, Mapping):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value if isinstance(value, str | bool | int | float | None) else f"{type(value).__name__} {value}"


def _length(value: Any) -> int:
    """The more was said, the more there is to lose."""
    return len(value) if isinstance(value, str) else len(_mark(value))


def _work_of(bead: Bead) -> dict[str, Any]:
    return {name: getattr(bead, name) for name in _WORK}


def _intact(bead: Bead) -> bool:
    return bool(bead.seal) and bead.seal == bead.digest()


def _claim_rank(lease: Lease, accepted: Lease | None) -> tuple[bool, int, float, str]:
    """The one that the remote has, then the one of the latest epoch, then the one that was first."""
    who = lease.model_copy(update={"until": lease.since})
    return same_holder(lease, accepted), lease.epoch, -lease.since.timestamp(), _mark(who)


def _progress(merge: MergeRequest) -> tuple[bool, bool]:
    return bool(merge.landed), bool(merge.landing)


def _edge(dependency: Dependency) -> tuple[str, str]:
    return dependency.on, dependency.type


def _try(attempt: Attempt) -> tuple[int, int, str, datetime]:
    return attempt.number, attempt.epoch, attempt.worker, attempt.started_at


def _ended(attempt: Attempt) -> int:
    return _ENDS.index(attempt.end)


def _started(attempt: Attempt) -> tuple[datetime, str]:
    return attempt.started_at, _mark(_try(attempt))


def _seen(evidence: Evidence) -> tuple[datetime, str]:
    return evidence.at, _mark(evidence)


def _said(comment: Comment) -> tuple[datetime, str]:
    return comment.created_at, _mark(comment)


def _value(bead: Bead | None, name: str) -> Any:
    if bead is None:
        return None
    return getattr(bead, name) if name in Bead.model_fields else (bead.model_extra or {}).get(name)


def _kept(name: str, value: Any, born: datetime) -> Comment:
    """A comment with a value that did not win. It says the same whoever merges, and is dated like the bead itself."""
    text = value if isinstance(value, str) else "\n".join(map(str, value)) if _listed(value) else _mark(value)
    digest = hashlib.sha256(f"{name}\0{_mark(value)}".encode(errors="surrogatepass")).hexdigest()[:12]
    said = f"Another clone had a different {name.replace('_', ' ')} here:\n\n{text}"
    return Comment(id=f"kept-{digest}", author=AUTHOR, text=said, created_at=born)


def _listed(value: Any) -> bool:
    return isinstance(value, Sequence) and all(isinstance(inner, Fact) for inner in value)
