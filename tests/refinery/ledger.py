"""What a merge queue did, read with plain Git from what it left: main, how it moved, and every state of the store."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from beads.errors import TownError
from beads.model import Bead, Evidence, read_bead
from refinery.gate import Gate, gate_of
from refinery.git import Git
from tests.world import git

REFINERY_EMAIL = "refinery@beadtown.invalid"


class State(NamedTuple):
    """A state of main: a commit of its first-parent history, and the requests and heads that it names."""

    commit: str
    tree: str
    parents: tuple[str, ...]
    email: str
    requests: tuple[str, ...]
    heads: tuple[str, ...]

    @property
    def is_landing(self) -> bool:
        """Whether the Refinery made it, or it says so."""
        return self.email == REFINERY_EMAIL or bool(self.requests)


class Edge(NamedTuple):
    """A bead before and after a commit of the store; None when it was not or is not there.

    Attributes:
        place: which commit of the store, counted from 0, with each one after those it builds on.
        merge: whether that commit puts two histories together.
    """

    place: int
    merge: bool
    before: Bead | None
    after: Bead | None


class Verdict(NamedTuple):
    """What the gate said, the request it is kept with, and the first commit of the store that has it."""

    place: int
    request: str
    evidence: Evidence


@dataclass(frozen=True)
class Ledger:
    """What a merge queue did.

    Attributes:
        repository: the clone that has the store.
        trunk: the repository that has the main that counts; the clone itself, or the remote that they land on.
        branch: what main is called there.
    """

    repository: Path
    trunk: Path
    branch: str
    states: tuple[State, ...]
    moves: tuple[tuple[str, str], ...]
    named: tuple[str, ...]
    edges: tuple[Edge, ...]
    _trees: dict[tuple[str, ...], str] = field(default_factory=dict)

    @cached_property
    def beads(self) -> Mapping[str, Bead]:
        """The beads as they are now."""
        files = git(self.repository, "ls-tree", "-r", "refs/beads/main", "beads/").splitlines()
        return {bead.id: bead for bead in _beads(self.repository, (line.split()[2] for line in files)).values()}

    @cached_property
    def requests(self) -> Mapping[str, list[Edge]]:
        """What happened to each merge request, in order."""
        found: dict[str, list[Edge]] = {}
        for edge in self.edges:
            bead = edge.after or edge.before
            if bead is not None and bead.merge is not None:
                found.setdefault(bead.id, []).append(edge)
        return found

    @cached_property
    def verdicts(self) -> tuple[Verdict, ...]:
        """Every verdict of the gate that was ever stored, once."""
        found: dict[tuple[str, str], Verdict] = {}
        for request, edges in self.requests.items():
            for edge in edges:
                for evidence in edge.after.evidence if edge.after else ():
                    if evidence.gate:
                        found.setdefault((request, evidence.id), Verdict(edge.place, request, evidence))
        return tuple(sorted(found.values(), key=lambda verdict: (verdict.place, verdict.evidence.at)))

    @cached_property
    def landings(self) -> tuple[State, ...]:
        """The states of main that the Refinery made, oldest first."""
        return tuple(state for state in self.states if state.is_landing)

    def gate(self, commit: str) -> Gate | None:
        """The gate that a state of main defines; None when it defines none."""
        try:
            return gate_of(Git(self.repository, _environ()), commit)
        except TownError:
            return None

    def merged(self, *commits: str) -> str:
        """The tree that merging the others into the first gives, one after another; empty when they do not merge."""
        if commits not in self._trees:
            self._trees[commits] = self._merge(commits)
        return self._trees[commits]

    def _merge(self, commits: tuple[str, ...]) -> str:
        tip, tree = commits[0], git(self.repository, "rev-parse", f"{commits[0]}^{{tree}}")
        objects = git(self.repository, "rev-parse", "--path-format=absolute", "--git-path", "objects")
        with tempfile.TemporaryDirectory() as place:
            # What is only looked at leaves nothing behind.
            extra = {"GIT_OBJECT_DIRECTORY": place, "GIT_ALTERNATE_OBJECT_DIRECTORIES": objects}
            at = Git(Path(place), _environ())
            where = {"GIT_DIR": str(Path(objects).parent), **extra}
            for commit in commits[1:]:
                done = at.run("merge-tree", "--write-tree", tip, commit, ok=(0, 1), extra=where)
                tree = done.out.splitlines()[0] if done.out else ""
                if done.status:
                    return ""
                who = {f"GIT_{role}_{what}": "x" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
                tip = at.line("commit-tree", tree, "-p", tip, "-p", commit, "-m", "x", extra={**where, **who})
        return tree

    def contains(self, commit: str, ancestor: str) -> bool:
        """Whether a commit has another one in its history."""
        done = Git(self.trunk, _environ()).run("merge-base", "--is-ancestor", ancestor, commit, ok=(0, 1, 128))
        return done.status == 0


def read(repository: Path, trunk: Path | None = None, branch: str = "main") -> Ledger:
    """The ledger of a clone that lands on its own main, or on that of ``trunk``."""
    trunk = trunk or repository
    if trunk != repository:
        git(repository, "fetch", "--quiet", str(trunk), f"+{branch}:refs/tests/trunk")
    states = tuple(_states(trunk, branch))
    every = git(trunk, "log", f"--format=%(trailers:key=Merge-Request,valueonly){_END}", f"refs/heads/{branch}")
    named = tuple(name for text in every.split(_END) for name in text.split())
    return Ledger(repository, trunk, branch, states, tuple(_moves(trunk, branch)), named, tuple(_edges(repository)))


_END = "\x1e"


def _environ() -> Mapping[str, str]:
    import os

    return os.environ


def _states(repository: Path, branch: str) -> Iterator[State]:
    values = "valueonly,separator=%x20"
    form = f"%H %T %ce %P%x1f%(trailers:key=Merge-Request,{values})%x1f%(trailers:key=Merge-Head,{values})"
    ref = f"refs/heads/{branch}"
    for line in git(repository, "log", "--first-parent", "--reverse", f"--format={form}", ref).splitlines():
        facts, requests, heads = line.split("\x1f")
        commit, tree, email, *parents = facts.split()
        yield State(commit, tree, tuple(parents), email, tuple(requests.split()), tuple(heads.split()))


def _moves(repository: Path, branch: str) -> Iterator[tuple[str, str]]:
    """How main moved, oldest first, by its reflog; nothing where Git keeps none."""
    common = Path(git(repository, "rev-parse", "--path-format=absolute", "--git-common-dir"))
    log = common / "logs/refs/heads" / branch
    for line in log.read_text().splitlines() if log.exists() else ():
        old, new = line.split(" ", 2)[:2]
        if old.strip("0") and new.strip("0") and old != new:
            yield old, new


_CHANGE = re.compile(r":\d+ \d+ ([0-9a-f]+) ([0-9a-f]+) [A-Z]\d*\tbeads/")


def _edges(repository: Path) -> Iterator[Edge]:
    """Every change of a bead, by the commits of the store, each after those it builds on."""
    log = (
        "log",
        "--reverse",
        "--topo-order",
        "-m",
        "--root",
        "--raw",
        "--no-abbrev",
        "--no-renames",
        "--format=@%H %P",
    )
    changes: list[tuple[int, bool, str, str]] = []
    places: dict[str, int] = {}
    merge = False
    for line in git(repository, *log, "refs/beads/main").splitlines():
        if line.startswith("@"):
            commit, *parents = re.sub(r" \(from .*", "", line[1:]).split()
            places.setdefault(commit, len(places))
            merge = len(parents) > 1
        elif found := _CHANGE.match(line):
            changes.append((len(places) - 1, merge, found[1], found[2]))
    beads = _beads(repository, {oid for _, _, *pair in changes for oid in pair if oid.strip("0")})
    for place, merge, old, new in changes:
        yield Edge(place, merge, beads.get(old), beads.get(new))


def _beads(repository: Path, blobs: Iterable[str]) -> dict[str, Bead]:
    asked = list(dict.fromkeys(blobs))
    answer = git(repository, "cat-file", "--batch", stdin="".join(f"{blob}\n" for blob in asked)) if asked else ""
    data, found = f"{answer}\n".encode("utf-8", "surrogateescape"), {}
    for blob in asked:
        head, _, rest = data.partition(b"\n")
        size = int(head.split()[2])
        found[blob] = read_bead(rest[:size], blob)
        data = rest[size + 1 :]
    return found
