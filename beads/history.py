"""Who changed what and when, read back from the commits of the store's ref. Only reads.

The ref is the audit log: every transaction is a commit, its message says who and what in trailers, and the trees
before and after it say the rest. What a person reads with ``git log -p refs/beads/main``, a program reads here.
"""

from __future__ import annotations

import functools
import heapq
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from beads.errors import InvalidInput, NotFound, Unreadable
from beads.git import Commit, Oid, Repository
from beads.model import Attempt, Bead, Comment, Dependency, Evidence, Lease, path_of, read_bead

_UNTOLD = frozenset({"id", "updated_at"})

Find = Callable[[Oid, str], Oid | None]


@dataclass(frozen=True)
class Difference:
    """A field of a bead before and after: what went and what came, in words."""

    field: str
    removed: tuple[str, ...] = ()
    added: tuple[str, ...] = ()


@dataclass(frozen=True)
class Entry:
    """One transaction.

    Attributes:
        commit: its commit.
        when: the second it was made.
        actor: who acted.
        what: what happened, in plain words; in the history of one bead, to that bead.
        operations: the names of the operations it was made of.
        beads: the beads it changed, at most a hundred of them.
        differences: in the history of one bead, what of it changed.
    """

    commit: Oid
    when: datetime
    actor: str
    what: str
    operations: tuple[str, ...] = ()
    beads: tuple[str, ...] = ()
    differences: tuple[Difference, ...] = ()


def transactions(repository: Repository, head: Oid) -> Iterator[Entry]:
    """Every transaction up to ``head``, on all sides of every merge, the newest first."""
    walk = _Walk(repository, head)
    for commit in walk:
        yield _entry(commit)
        walk.follow(*commit.parents)


def history_of(repository: Repository, head: Oid, bead_id: str) -> Iterator[Entry]:
    """The transactions that changed one bead, the newest first, down to those that made it.

    Where two histories were merged and the bead came from one side as it is, that side is followed alone, as
    ``git log`` does; where it was merged itself, the merge is told too, with what neither side had.

    Raises:
        NotFound: at ``head`` there is no such bead.
    """
    path, find = path_of(bead_id), _finder(repository)
    walk = _Walk(repository, head)
    for commit in walk:
        here = find(commit.tree, path)
        if here is None and commit.oid == head:
            raise NotFound(f"there is no bead {bead_id!r}", "`bead list --all` shows what there is.")
        before = {parent: find(walk.read(parent).tree, path) for parent in commit.parents}
        same = next((parent for parent, blob in before.items() if blob == here), None)
        if same is not None:
            walk.follow(same)
            continue
        found = [_differences(repository, path, blob, here) for blob in before.values() or (None,)]
        told = set.intersection(*({difference.field for difference in sides} for sides in found))
        yield _entry(commit, bead_id, tuple(difference for difference in found[0] if difference.field in told))
        # Nothing is ever removed from the store, so before a commit that has not got it there is nothing to find.
        walk.follow(*(parent for parent, blob in before.items() if blob is not None))


class _Walk:
    """A walk from a commit backwards, the newest first; whoever walks says of each which parents to go on with."""

    def __init__(self, repository: Repository, head: Oid) -> None:
        self._repository = repository
        self._read: dict[Oid, Commit] = {}
        self._seen = {head}
        self._due: list[tuple[float, int, Oid]] = []
        self._push(head)

    def read(self, oid: Oid) -> Commit:
        """The commit of that id, which is read once."""
        if oid not in self._read:
            self._read[oid] = self._repository.commit(oid)
        return self._read[oid]

    def follow(self, *parents: Oid) -> None:
        """Come to these commits, too."""
        for oid in parents:
            if oid not in self._seen:
                self._seen.add(oid)
                self._push(oid)

    def _push(self, oid: Oid) -> None:
        # Of one second, what was found first is the newer one.
        heapq.heappush(self._due, (-self.read(oid).when.timestamp(), len(self._seen), oid))

    def __iter__(self) -> Iterator[Commit]:
        while self._due:
            oid = heapq.heappop(self._due)[2]
            yield self._read.pop(oid)


def differences(old: Bead | None, new: Bead | None) -> tuple[Difference, ...]:
    """What ``new`` says that ``old`` does not, and the other way round, field by field."""
    before, after = (_facts(bead) for bead in (old, new))
    if old is None:
        # What everything starts with is no news about a new bead.
        after = {name: value for name, value in after.items() if value != _default(name)}
    found = []
    for field in dict.fromkeys((*before, *after)):
        was, now = _words(before.get(field)), _words(after.get(field))
        if was != now and field not in _UNTOLD:
            removed, added = (tuple(w for w in a if w not in b) for a, b in ((was, now), (now, was)))
            found.append(Difference(field, removed, added))
    return tuple(found)


def _differences(repository: Repository, path: str, old: Oid | None, new: Oid | None) -> tuple[Difference, ...]:
    try:
        before, after = (read_bead(repository.read(oid), path) if oid else None for oid in (old, new))
    except (InvalidInput, Unreadable):
        # That a file was damaged is for `bead doctor` to say; the history goes on.
        return ()
    return differences(before, after)


def _finder(repository: Repository) -> Find:
    """A look-up of paths that opens each subtree once, however many commits share it."""

    @functools.lru_cache(maxsize=100_000)
    def below(tree: Oid, path: str) -> Oid | None:
        return repository.find(tree, path)

    def find(tree: Oid, path: str) -> Oid | None:
        # The two trees at the top differ in every commit; the two levels below them hardly ever.
        top, shard, rest = path.split("/", 2)
        subtree = repository.find(tree, f"{top}/{shard}")
        return None if subtree is None else below(subtree, rest)

    return find


def _entry(commit: Commit, bead_id: str = "", found: tuple[Difference, ...] = ()) -> Entry:
    subject, *body = commit.message.splitlines() or [""]
    # The trailers are the last paragraph; no line of a description can pass for one.
    start = max((number for number, line in enumerate(body) if not line), default=-1)
    trailers: dict[str, list[str]] = {}
    for line in body[start + 1 :]:
        name, _, value = line.partition(": ")
        trailers.setdefault(name, []).append(value)
    told = [line for line in body[: start + 1] if bead_id in re.split(r"[\s:,;]+", line)] if bead_id else []
    return Entry(
        commit=commit.oid,
        when=commit.when,
        actor=(trailers.get("Actor") or [commit.author])[0],
        what="; ".join(told) or subject,
        operations=tuple(trailers.get("Operation", ())),
        beads=tuple(trailers.get("Bead", ())),
        differences=found,
    )


def _facts(bead: Bead | None) -> dict[str, Any]:
    return dict(bead) | (bead.model_extra or {}) if bead else {}


def _default(name: str) -> Any:
    field = Bead.model_fields.get(name)
    return field.default if field else None


def _words(value: Any) -> tuple[str, ...]:
    """A field's value as the facts it holds; none for an empty one."""
    if isinstance(value, list | tuple):
        return tuple(_word(item) for item in value)
    return () if value is None or value == "" else (_word(value),)


def _word(item: Any) -> str:
    match item:
        case Dependency():
            return f"{item.type} {item.on}"
        case Comment():
            return f"{item.author}: {item.text}"
        case Lease():
            return f"{item.worker}, epoch {item.epoch}, until {item.until:%Y-%m-%d %H:%M:%S} UTC"
        case Attempt():
            return f"{item.number} by {item.worker}: {item.end or 'running'}"
        case Evidence():
            return f"{item.verdict} {item.subject}"
        case datetime():
            return f"{item:%Y-%m-%d %H:%M:%S} UTC"
        case _:
            return str(item)
