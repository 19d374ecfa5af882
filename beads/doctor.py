"""What is wrong with a store, found without changing it.

Whoever reads a damaged bead is told of that one; here every file is looked at, also those that are no bead's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from beads.errors import TownError
from beads.git import Change, Oid, Repository
from beads.model import BLOCKING, Bead, path_of, read_bead

Kind = Literal["unreadable", "misplaced", "stray", "seal", "missing", "cycle"]


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        kind: ``unreadable`` a file that cannot be read as a bead; ``misplaced`` a bead in another one's place;
            ``stray`` a file that is nobody's; ``seal`` a goal that was changed after it was sealed; ``missing``
            a dependency on what is not there; ``cycle`` beads that wait for each other.
        where: the bead, or the file when it is no bead.
        problem: what is wrong, in a sentence.
        hint: what to do about it.
    """

    kind: Kind
    where: str
    problem: str
    hint: str


@dataclass(frozen=True)
class Examination:
    """What was looked at, and what was found."""

    commit: Oid
    beads: int
    findings: tuple[Finding, ...]


def examine(repository: Repository, commit: Oid) -> Examination:
    """Look at every file of the store at ``commit``."""
    beads: dict[str, Bead] = {}
    findings: list[Finding] = []
    try:
        for change in repository.changes(None, repository.commit(commit).tree):
            found = _read(repository, change)
            if isinstance(found, Bead):
                beads[found.id] = found
            elif found is not None:
                findings.append(found)
    except TownError as error:
        # A tree that is missing takes everything below it along, and the walk cannot go on.
        findings.append(Finding("unreadable", str(commit), error.message, error.hint))
    findings += [*_seals(beads.values()), *_missing(beads), *_cycles(beads)]
    return Examination(commit, len(beads), tuple(findings))


def _read(repository: Repository, change: Change) -> Bead | Finding | None:
    """The bead in a file, what is wrong with the file, or None for a file that is no bead's and belongs there."""
    path = change.path
    if path == "format.toml" or change.new is None:
        return None
    restore = f"`git log -p refs/beads/main -- {path}` shows what it was."
    if not (path.startswith("beads/") and path.endswith(".toml")):
        return Finding("stray", path, "no bead's file has this name", restore)
    try:
        bead = read_bead(repository.read(change.new), path)
    except TownError as error:
        return Finding("unreadable", path, error.message, restore)
    if path_of(bead.id) != path:
        return Finding("misplaced", path, f"holds bead {bead.id}, which belongs in {path_of(bead.id)}", restore)
    return bead


def _seals(beads: Iterable[Bead]) -> Iterator[Finding]:
    for bead in beads:
        if bead.seal and not bead.deleted and bead.seal != bead.digest():
            problem = "its goal or criteria were changed after they were sealed"
            yield Finding("seal", bead.id, problem, f"`bead log {bead.id}` shows by whom.")


def _missing(beads: Mapping[str, Bead]) -> Iterator[Finding]:
    for bead in beads.values():
        for dependency in bead.dependencies:
            if dependency.on not in beads:
                hint = f"`bead dep remove {bead.id} {dependency.on} --type {dependency.type}` takes it away."
                yield Finding("missing", bead.id, f"{dependency.type} {dependency.on}, which is not there", hint)


def _cycles(beads: Mapping[str, Bead]) -> Iterator[Finding]:
    """One finding for each ring of beads, whichever of them it is found from."""
    edges = {b.id: [d.on for d in b.dependencies if d.type in BLOCKING and d.on in beads] for b in beads.values()}
    for ring in _rings(edges):
        path = " → ".join([*ring, ring[0]])
        hint = f"`bead dep remove {ring[0]} {ring[1] if len(ring) > 1 else ring[0]}` opens it."
        yield Finding("cycle", ring[0], f"waits for itself: {path}", hint)


def _rings(edges: Mapping[str, list[str]]) -> Iterator[list[str]]:
    """A ring through each back edge of a depth-first walk; without recursion, because chains may be long."""
    done: set[str] = set()
    for start in sorted(edges):
        path: list[str] = []
        place: dict[str, int] = {}
        stack = [] if start in done else [(start, iter(edges[start]))]
        while stack:
            here, rest = stack[-1]
            if here not in place:
                place[here] = len(path)
                path.append(here)
            target = next(rest, None)
            if target is None:
                stack.pop()
                done.add(path.pop())
                del place[here]
            elif target in place:
                yield path[place[target] :]
            elif target not in done:
                stack.append((target, iter(edges[target])))
