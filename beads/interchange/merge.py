"""What becomes of a bead when a file speaks of it again: a three-way merge, field by field. Pure.

What was edited here since the last import stays, and what was changed in the file is taken. Where both were done ours
stays, and the conflict is told, also by the next import of that file. A bead that was never imported has no last
import; the older of the two sides then stands for it, so that whatever the younger one says is an edit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from beads.draft import Draft
from beads.interchange.bd import OURS, SCALARS, edges_of, edits, printed, row_of
from beads.interchange.kept import KEY, Kept, digest, same
from beads.interchange.row import Row
from beads.model import Bead, Comment, Dependency

Item = TypeVar("Item")

# Each field that may conflict, with the fields that go along with it and the keys that show whether it was edited.
_GROUPS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "title": (("title",), ("title",)),
    "description": (("description",), ("description", "value")),
    "status": (("status", "outcome", "closed_at", "close_reason"), ("status", "closed_at", "close_reason")),
    "priority": (("priority",), ("priority",)),
    "issue_type": (("issue_type",), ("issue_type",)),
    "assignee": (("assignee",), ("assignee",)),
    "defer_until": (("defer_until",), ("defer_until",)),
}


@dataclass(frozen=True)
class Adopted:
    """A bead after an import, and its fields that stayed as they are here although the file changed them."""

    bead: Bead
    conflicts: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Base:
    """The state of a bead that both sides started from."""

    kept: Kept
    labels: tuple[str, ...]
    dependencies: tuple[Dependency, ...]

    @classmethod
    def of(cls, there: Bead, new: Bead) -> _Base:
        kept = Kept.of(there)
        if kept is not None:
            said = Row({key: kept.exact.get(key) for key in ("labels", "dependencies")})
            implied = (Dependency(on=kept.parent, type="parent-child"),) if kept.parent else ()
            return cls(kept, tuple(said.texts("labels")), (*edges_of(said), *implied))
        older = there if there.updated_at < new.updated_at else new
        row = printed(older)
        seen = {key: digest(row[key]) for key in SCALARS if key in row}
        return cls(Kept(seen), older.labels, older.dependencies)


def bring(draft: Draft, new: Bead) -> Bead:
    """Bring what a file says of a bead into a draft; its times are those of the file."""
    there = draft.get(new.id)
    after = adopted(there, new).bead
    if changes(there, after):
        draft.put(after)
    return after


def adopted(there: Bead | None, new: Bead) -> Adopted:
    """What an import makes of a bead.

    A deleted bead stays deleted. Goal and parts of a sealed one stay, and what is held, in the merge queue or to be
    proven is not closed, opened or given to somebody by a file.

    Args:
        there: the bead that is there, if any.
        new: what the file says of it.
    """
    if there is None or there.deleted:
        return Adopted(there or new)
    if KEY not in (there.model_extra or {}) and same(row_of(there), row_of(new)):
        return Adopted(there)
    base, said = _Base.of(there, new), Kept.of(new) or Kept()
    fields, conflicts = _fields(there, new, base.kept, said)
    kept = _kept(base.kept, said, conflicts)
    if new.source and new.criteria != there.criteria:
        conflicts = (*conflicts, "criteria")
    # Validated anew, because extra keys that the file no longer has must go.
    facts = {name: getattr(there, name) for name in Bead.model_fields}
    return Adopted(
        Bead.model_validate({**facts, **fields, **_lists(there, new, base), **_rest(there, new), KEY: kept.table()}),
        conflicts,
    )


def changes(there: Bead | None, after: Bead) -> bool:
    """Whether two beads differ in anything that is stored; 1, 1.0 and true are three values."""
    return there is None or there != after or not same(there.model_extra, after.model_extra)


def _fields(there: Bead, new: Bead, base: Kept, said: Kept) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The fields with one value, and the names of those that both sides changed."""
    here, locked = edits(there, base), _locked(there)
    taken: dict[str, Any] = {}
    conflicts: list[str] = []
    for name, (fields, keys) in _GROUPS.items():
        wanted = {field: getattr(new, field) for field in fields}
        if name == "issue_type" and there.issue_type in OURS and said.exact.get(name) == there.issue_type:
            continue
        if all(getattr(there, field) == value for field, value in wanted.items()):
            continue
        if name not in locked and here.isdisjoint(keys):
            taken |= wanted
        elif any(base.seen.get(key) != said.seen.get(key) for key in keys):
            conflicts.append(name)
    return {**taken, **_stamps(there, new, "updated_at" in here)}, tuple(conflicts)


def _stamps(there: Bead, new: Bead, edited: bool) -> dict[str, Any]:
    made = {} if Kept.of(there) is None else {"created_at": new.created_at, "created_by": new.created_by}
    updated = max(there.updated_at, new.updated_at) if edited else new.updated_at
    return {**made, "updated_at": updated, "source": new.source or there.source}


def _locked(bead: Bead) -> set[str]:
    """The fields that no file may change."""
    goal = {"title", "description"} if bead.seal else set()
    ours = bead.seal or bead.criteria or bead.lease or bead.merge or bead.issue_type in OURS
    return goal | {"status", "issue_type", "assignee"} if ours else goal


def _lists(there: Bead, new: Bead, base: _Base) -> dict[str, Any]:
    def edge(dependency: Dependency) -> tuple[str, str]:
        return dependency.type, dependency.on

    edges = _merged(base.dependencies, there.dependencies, new.dependencies, edge)
    # A comment is never taken back here, so what was imported and is not in the file was taken back there.
    imported = [comment for comment in there.comments if Kept.of(comment) is not None]
    return {
        "labels": _merged(base.labels, there.labels, new.labels, str),
        "dependencies": there.dependencies if there.seal else edges,
        "comments": _merged(imported, there.comments, new.comments, _comment_id),
    }


def _comment_id(comment: Comment) -> str:
    return comment.id


def _merged(
    base: Sequence[Item], ours: Sequence[Item], theirs: Sequence[Item], key: Callable[[Item], Any]
) -> tuple[Item, ...]:
    """The elements that both sides have or one side added, in their order and then ours."""
    known, here, there = ({key(item) for item in side} for side in (base, ours, theirs))
    left = [item for item in theirs if key(item) in here or key(item) not in known]
    left += [item for item in ours if key(item) not in there and key(item) not in known]
    # The order alone is no reason to change anything.
    return tuple(ours) if sorted(left, key=key) == sorted(ours, key=key) else tuple(left)


def _rest(there: Bead, new: Bead) -> dict[str, Any]:
    """The extra keys: those of the file, and those that never were in one."""
    old, row = Kept.of(there) or Kept(), printed(there)
    mine = {key: value for key, value in (there.model_extra or {}).items() if key not in old.also}
    # The criteria of a bead go out as a text, which must not come back beside them.
    theirs = {
        key: value
        for key, value in (new.model_extra or {}).items()
        if key in mine or not same(row.get(key), value) or key in old.also
    }
    return mine | theirs


def _kept(base: Kept, said: Kept, conflicts: Sequence[str]) -> Kept:
    """What is kept of the row; of a field in conflict still what the last import said, so that it stays one."""
    keys = {key for name in conflicts for key in _GROUPS[name][1]}

    def mixed(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
        return {k: v for k, v in new.items() if k not in keys} | {k: v for k, v in old.items() if k in keys}

    without = {key for key in said.without if key not in keys} | {key for key in base.without if key in keys}
    return replace(
        said,
        seen=mixed(dict(base.seen), dict(said.seen)),
        exact=mixed(dict(base.exact), dict(said.exact)),
        without=tuple(without),
    )
