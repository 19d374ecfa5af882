"""Who changed what and when, read back from the commits of the store's ref. Only reads.

The ref is the audit log: every transaction is a commit, its message says who and what in trailers, and the trees
before and after it say the rest. What a person reads with ``git log -p refs/beads/main``, a program reads here.
"""

from __future__ import annotations

import functools
import heapq
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import islice, takewhile
from typing import Any

from beads import graph, undo
from beads.apply import Context, Draft, apply
from beads.errors import NotFound, Refused, TownError, Unreadable
from beads.git import Commit, Oid, Repository
from beads.model import Attempt, Bead, Comment, Dependency, Evidence, Lease, path_of, read_bead
from beads.ops import Changed, Restore
from beads.toml import loads

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
        undoes: the transaction that this one takes back; empty for any other.
        undone_by: the transaction that took this one back, where :func:`marked` says so.
    """

    commit: Oid
    when: datetime
    actor: str
    what: str
    operations: tuple[str, ...] = ()
    beads: tuple[str, ...] = ()
    differences: tuple[Difference, ...] = ()
    undoes: str = ""
    undone_by: str = ""


def transactions(repository: Repository, head: Oid) -> Iterator[Entry]:
    """Every transaction up to ``head``, on all sides of every merge, the newest first."""
    return map(_entry, commits(repository, head))


def commits(repository: Repository, head: Oid) -> Iterator[Commit]:
    """The commits of these transactions."""
    walk = _Walk(repository, head)
    for commit in walk:
        yield commit
        walk.follow(*commit.parents)


def history_of(repository: Repository, head: Oid, bead_id: str, most: int | None = None) -> Iterator[Entry]:
    """The transactions that changed one bead, the newest first, down to those that made it.

    Where two histories were merged and the bead came from one side as it is, that side is followed alone, as
    ``git log`` does; where it was merged itself, the merge is told too, with what neither side had.

    Args:
        repository: the store's.
        head: where to begin.
        bead_id: which bead.
        most: how many transactions are looked at, of any bead; None for all of them.

    Raises:
        NotFound: at ``head`` there is no such bead.
    """
    path, find = path_of(bead_id), _finder(repository)
    walk = _Walk(repository, head)
    for commit in islice(walk, most):
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


def marked(entries: Iterable[Entry]) -> Iterator[Entry]:
    """The same entries, newest first, with what took back those that are undone."""
    undone: dict[str, Oid] = {}
    for entry in entries:
        by = undone.get(entry.commit, "")
        if entry.undoes and not by:
            # One that was itself taken back takes nothing back.
            undone[entry.undoes] = entry.commit
        yield replace(entry, undone_by=by) if by else entry


def deletion(repository: Repository, head: Oid, bead_id: str) -> Entry | None:
    """The transaction that deleted a bead; None when it is not deleted."""
    for entry in history_of(repository, head, bead_id):
        for difference in entry.differences:
            if difference.field == "outcome":
                return entry if "deleted" in difference.added else None
    return None


def resolve(repository: Repository, head: Oid, revision: str) -> Commit:
    """The commit of the store that a person means.

    Args:
        repository: where the store is.
        head: its newest commit.
        revision: the id of a commit, or its first four digits or more; ``~2`` for two transactions before the
            newest, ``ID~2`` for two before that one; or a date or a moment in ISO 8601, in UTC when it does not say
            otherwise: then the last transaction that was made by then is meant.

    Raises:
        NotFound: there is no such commit, or more than one.
    """
    named = re.fullmatch(r"([0-9a-f]{4,64})?(?:~([0-9]{1,9}))?", revision.lower())
    if not named or not revision:
        return _made_by(repository, head, revision)
    start, back = _commit(repository, named[1]) if named[1] else head, int(named[2] or 0)
    found = next(islice(repository.history(start), back, None), None)
    if found is None:
        raise NotFound(
            f"there is no transaction {revision!r}: the store's history begins later", "`bead log` shows it."
        )
    return found


def _commit(repository: Repository, prefix: str) -> Oid:
    found = [oid for oid in repository.commits(prefix) if _is_ours(repository, oid)]
    if len(found) != 1:
        several = f"several commits start so: {', '.join(oid[:20] for oid in found[:5])}"
        problem = several if found else "no commit of the store starts so"
        raise NotFound(f"there is no transaction {prefix!r}: {problem}", "`bead log` shows their ids.")
    return found[0]


def _is_ours(repository: Repository, oid: Oid) -> bool:
    """Whether a commit is one of a store, and not of the code beside it."""
    try:
        settings = repository.find(repository.commit(oid).tree, "format.toml")
        return settings is not None and "store" in loads(repository.read(settings), "format.toml")
    except TownError:
        return False


def _made_by(repository: Repository, head: Oid, text: str) -> Commit:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        hint = "Give the id of a commit, ~2 for two before the newest, or a moment such as 2026-01-31T12:00Z."
        raise NotFound(f"there is no transaction {text[:80]!r}", hint) from None
    moment = moment.replace(tzinfo=moment.tzinfo or UTC)
    found = next((commit for commit in repository.history(head) if commit.when <= moment), None)
    if found is None:
        raise NotFound(f"there was no store yet at {text}", "`bead log` shows when it began.")
    return found


def changed(repository: Repository, commit: Oid) -> Iterator[Changed]:
    """The beads that a transaction changed, before and after it.

    Raises:
        Unreadable: one of them is damaged, or its file was removed, which no operation does.
    """
    new = repository.commit(commit)
    old = repository.commit(new.parents[0]).tree if new.parents else None
    for change in repository.changes(old, new.tree):
        if change.path.startswith("beads/"):
            if change.new is None:
                raise Unreadable(f"{commit[:12]} removed {change.path}", "Take it from the commit before with Git.")
            before = read_bead(repository.read(change.old), change.path) if change.old else None
            yield Changed(before=before, after=read_bead(repository.read(change.new), change.path))


def last_own(repository: Repository, head: Oid, view: graph.View, actor: str) -> Entry:
    """The newest transaction of ``actor`` that can be undone and of which something is left to undo.

    Merges, and what undoes something, are passed over.

    Args:
        repository: where the store is.
        head: its newest commit.
        view: the beads at ``head``.
        actor: who acted.

    Raises:
        NotFound: there is none.
        Refused: it cannot be undone, or not any more.
    """
    name = " ".join(actor.split())
    own = (entry for entry in marked(transactions(repository, head)) if entry.actor == name)
    for entry in (entry for entry in own if not entry.undoes and not entry.undone_by):
        if len(repository.commit(entry.commit).parents) == 1:
            draft = Draft(view)
            apply(_restoration(repository, head, view, entry), draft, Context(actor, entry.when))
            if draft.changed:
                return entry
    raise NotFound(f"there is nothing by {actor} to undo", "`bead log` shows who did what; name it with --transaction.")


def undoing(repository: Repository, head: Oid, view: graph.View, commit: Oid) -> Restore | None:
    """The operation that undoes a transaction; None when it is undone.

    Raises:
        NotFound: the history up to ``head`` has no such transaction.
        Refused: it cannot be undone, or not any more; says which bead and field, and who changed it since.
        Unreadable: a bead is damaged.
    """
    entry = next((entry for entry in marked(transactions(repository, head)) if entry.commit == commit), None)
    if entry is None:
        raise NotFound(f"{commit[:12]} is not in the history of this store", "`bead log` shows what is.")
    return None if entry.undone_by else _restoration(repository, head, view, entry)


def _restoration(repository: Repository, head: Oid, view: graph.View, entry: Entry) -> Restore:
    name = f"{entry.commit[:12]} ({entry.what})"
    if len(repository.commit(entry.commit).parents) > 1:
        raise Refused(f"{name} cannot be undone: it merges two histories", "Undo single transactions of it.")
    for operation in entry.operations:
        if operation in undo.FINAL:
            reason, hint = undo.FINAL[operation]
            raise Refused(f"{name} cannot be undone: {reason}", hint)
    beads = tuple(changed(repository, entry.commit))
    for change in beads:
        there = view.get(change.after.id)
        fields = undo.overtaken(change, there) if there else ()
        if fields:
            raise _overtaken(repository, head, entry, change.after.id, fields)
    return Restore(commit=entry.commit, what=entry.what, beads=beads)


def _overtaken(repository: Repository, head: Oid, entry: Entry, bead_id: str, fields: tuple[str, ...]) -> Refused:
    """That one of these fields was changed since, and by whom."""
    history = marked(history_of(repository, head, bead_id))
    since = list(takewhile(lambda later: later.commit != entry.commit, history))
    # What was undone again is seldom what stands in the way.
    since.sort(key=lambda later: bool(later.undoes or later.undone_by))
    found = [(later, difference.field) for later in since for difference in later.differences]
    later, field = next(((later, field) for later, field in found if field in fields), (None, fields[0]))
    by = f" by {later.actor} in {later.commit[:12]} ({later.what})" if later else ""
    return Refused(
        f"{entry.commit[:12]} ({entry.what}) cannot be undone: {field} of {bead_id} was changed again since{by}",
        f"Undo that first, or change {bead_id} as it should be.",
    )


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
            # Counted, because what came may say the same as what was there, such as a second try that failed alike.
            removed, added = (tuple((Counter(a) - Counter(b)).elements()) for a, b in ((was, now), (now, was)))
            found.append(Difference(field, removed, added))
    return tuple(found)


def _differences(repository: Repository, path: str, old: Oid | None, new: Oid | None) -> tuple[Difference, ...]:
    try:
        before, after = (read_bead(repository.read(oid), path) if oid else None for oid in (old, new))
    except Unreadable:
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
        undoes=(trailers.get("Undoes") or [""])[0],
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
