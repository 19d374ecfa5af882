"""What is wrong with a store, found without changing it.

Whoever reads a damaged bead is told of that one; here every file is looked at, also those that are no bead's.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from beads.errors import TownError
from beads.git import Change, Oid, Repository
from beads.graph import PARTS
from beads.model import BLOCKING, Bead, path_of, read_bead

Kind = Literal["unreadable", "misplaced", "stray", "seal", "orphan", "missing", "cycle"]


_REPAIR = "`bead doctor --repair` puts it back."


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        kind: ``unreadable`` a file that cannot be read as a bead; ``misplaced`` a bead in another one's place;
            ``stray`` a file that is nobody's; ``seal`` a goal that was changed after it was sealed; ``orphan`` a
            step or a merge request that belongs to nothing; ``missing`` a dependency on what is not there; ``cycle``
            beads that wait for each other.
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
    graph = _Graph()
    findings: list[Finding] = []
    own: list[Finding] = []
    try:
        for change in repository.changes(None, repository.commit(commit).tree):
            found = _read(repository, change)
            if isinstance(found, Bead):
                graph.add(found)
                own += [*_seal(found), *_orphan(found)]
            elif found is not None:
                findings.append(found)
    except TownError as error:
        # A tree that is missing takes everything below it along, and the walk cannot go on.
        findings.append(Finding("unreadable", str(commit), error.message, error.hint))
    findings += [*own, *_missing(graph), *_cycles(graph)]
    return Examination(commit, graph.there.count(1), tuple(findings))


def _read(repository: Repository, change: Change) -> Bead | Finding | None:
    """The bead in a file, what is wrong with the file, or None for a file that is no bead's and belongs there."""
    path = change.path
    if path == "format.toml" or change.new is None:
        return None
    shown = f"`git log -p refs/beads/main -- {path}` shows what it was."
    if not (path.startswith("beads/") and path.endswith(".toml")):
        return Finding("stray", path, "no bead's file has this name", shown)
    restore = f"{shown} {_REPAIR}"
    try:
        bead = read_bead(repository.read(change.new), path)
    except TownError as error:
        return Finding("unreadable", path, error.message, restore)
    if path_of(bead.id) != path:
        return Finding("misplaced", path, f"holds bead {bead.id}, which belongs in {path_of(bead.id)}", restore)
    return bead


def _seal(bead: Bead) -> Iterator[Finding]:
    if bead.seal and not bead.deleted and bead.seal != bead.digest():
        problem = "its goal or criteria were changed after they were sealed"
        yield Finding("seal", bead.id, problem, f"`bead log {bead.id}` shows by whom. {_REPAIR}")


def _orphan(bead: Bead) -> Iterator[Finding]:
    """That nobody will ever work on it: what it is a part of does not say so, and it stands for nothing by itself."""
    hint = f"`bead close {bead.id} --outcome cancelled --reason WHY` ends it."
    if bead.closed:
        return
    if bead.issue_type in PARTS and bead.parent is None:
        yield Finding("orphan", bead.id, f"is a {bead.issue_type}, and a part of nothing", hint)
    elif bead.issue_type == "merge-request" and bead.merge is None:
        yield Finding("orphan", bead.id, "is a merge request, and does not say what to merge", hint)


def _missing(graph: _Graph) -> Iterator[Finding]:
    for bead_id, number in graph.numbers.items():
        for edge in range(graph.first[number], graph.last[number]):
            if not graph.there[graph.targets[edge]]:
                on, kind = graph.names[graph.targets[edge]], graph.names[graph.kinds[edge]].strip()
                hint = f"`bead dep remove {bead_id} {on} --type {kind}` takes it away."
                yield Finding("missing", bead_id, f"{kind} {on}, which is not there", hint)


def _cycles(graph: _Graph) -> Iterator[Finding]:
    """One finding for each ring of beads, whichever of them it is found from."""
    for numbers in graph.rings():
        ring = [graph.names[number] for number in numbers]
        path = " → ".join([*ring, ring[0]])
        hint = f"`bead dep remove {ring[0]} {ring[1] if len(ring) > 1 else ring[0]}` opens it."
        yield Finding("cycle", ring[0], f"waits for itself: {path}", hint)


class _Graph:
    """Which bead depends on which, in numbers: a million beads themselves would need gigabytes.

    Attributes:
        numbers: the number of each name: of a bead, of what a bead depends on, or of a type of dependency.
        names: the name of each number.
        there: for each number, whether there is a bead of that name.
        first: for each number, where its dependencies begin in ``targets`` and ``kinds``.
        last: likewise where they end.
        targets: what is depended on.
        kinds: and how.
    """

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}
        self.names: list[str] = []
        self.there = bytearray()
        self.first, self.last, self.targets, self.kinds = (array("l") for _ in range(4))

    def _number(self, name: str) -> int:
        number = self.numbers.setdefault(name, len(self.names))
        if number == len(self.names):
            self.names.append(name)
            self.there.append(0)
            self.first.append(0)
            self.last.append(0)
        return number

    def add(self, bead: Bead) -> None:
        """Put a bead in, with what it depends on."""
        number = self._number(bead.id)
        self.there[number] = 1
        self.first[number] = len(self.targets)
        for dependency in bead.dependencies:
            self.targets.append(self._number(dependency.on))
            # A type has a blank before it, as no id has.
            self.kinds.append(self._number(f" {dependency.type}"))
        self.last[number] = len(self.targets)

    def rings(self) -> Iterator[list[int]]:
        """A ring through each back edge of a depth-first walk; without recursion, because chains may be long."""
        blocking = {self.numbers.get(f" {kind}") for kind in BLOCKING}
        done, place, following = bytearray(len(self.names)), array("l", [0]) * len(self.names), array("l", self.first)
        for start in sorted(range(len(self.names)), key=self.names.__getitem__):
            path = [] if done[start] else [start]
            while path:
                here = path[-1]
                place[here] = len(path)
                edge = following[here]
                if edge == self.last[here]:
                    done[path.pop()] = 1
                    place[here] = 0
                    continue
                following[here] += 1
                target = self.targets[edge]
                if self.kinds[edge] not in blocking or not self.there[target]:
                    continue
                if place[target]:
                    yield path[place[target] - 1 :]
                elif not done[target]:
                    path.append(target)
