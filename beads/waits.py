"""What a bead waits for. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from beads.model import Bead, Dependency
from beads.view import View

_DONE = frozenset({"landed", "done", "superseded"})
_FAILED = frozenset({"rejected", "cancelled"})


def blockers(view: View, bead: Bead) -> list[Bead]:
    """The beads that ``bead`` still waits for; a missing target does not block.

    What a bead's parent waits for, it waits for as well.
    """
    found: dict[str, Bead] = {}
    seen: set[str] = set()
    here: Bead | None = bead
    while here is not None and here.id not in seen:
        seen.add(here.id)
        for dependency in here.dependencies:
            found.update((target.id, target) for target in _awaited(view, dependency))
        here = view.get(here.parent) if here.parent else None
    return list(found.values())


def _awaited(view: View, dependency: Dependency) -> Iterable[Bead]:
    """What one dependency still waits for."""
    match dependency.type:
        case "blocks":
            target = view.get(dependency.on)
            return [target] if target is not None and not _frees(target) else []
        case "conditional-blocks":
            target = view.get(dependency.on)
            return [target] if target is not None and not (target.deleted or target.outcome in _FAILED) else []
        case "waits-for":
            parts = view.children(dependency.on)
            if dependency.gate == "any-children" and any(part.closed for part in parts):
                return []
            return [part for part in parts if not part.closed]
        case _:
            return []


def _frees(target: Bead) -> bool:
    """Whether what waits for ``target`` may go on. A molecule frees when it landed, other beads when closed."""
    if not target.closed or target.deleted:
        return target.deleted
    return target.outcome in _DONE or not (target.issue_type == "molecule" or bool(target.criteria))


def awaited(view: View, request: Bead) -> list[str]:
    """The ids of what has to land before a merge request's molecule may."""
    molecule = view.get(request.merge.molecule) if request.merge else None
    return [needed.id for needed in blockers(view, molecule)] if molecule is not None else []
