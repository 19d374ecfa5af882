"""The store: read a snapshot, collect operations, publish them by compare-and-swap. The only writer.

One commit on one ref is one transaction. Its tree is the state, its message the audit log. A writer that loses
the race for the ref reads the new state and decides anew.

    >>> store = Store.open(Path("."))                                                  # doctest: +SKIP
    >>> store.snapshot().get("bt-7f3a9c").title                                        # doctest: +SKIP
    'Add slugify()'
    >>> store.commit("nux", [Claim(worker="nux")]).beads[0].epoch                       # doctest: +SKIP
    1
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from beads import graph
from beads.apply import Context, Draft, apply
from beads.clock import Clock, SystemClock
from beads.describe import describe
from beads.draft import related
from beads.errors import InvalidInput, LostRace, NotFound, Unreadable
from beads.git import Oid, Repository
from beads.model import Bead, derived_id, milliseconds, path_of, read_bead, write_bead
from beads.ops import Operation
from beads.toml import dumps, loads

REF = "refs/beads/main"
FORMAT = 1
"""The version of the tree's layout; a store of a newer one is refused, never guessed at."""

_TRIES_MAX = 200
_WRITER_WAIT_SECONDS = 10.0

Decision = Callable[["Snapshot"], Sequence[Operation]]


class Snapshot:
    """Every bead at one commit of the store; immutable. A :class:`graph.View`.

    Reading one bead opens three trees and a blob; asking for relations reads the whole state once, or, when
    there is an earlier snapshot that did, only what differs from it.
    """

    def __init__(self, repository: Repository, commit: Oid, earlier: Snapshot | None = None) -> None:
        self.commit = commit
        self._repository = repository
        self._tree = repository.commit(commit).tree
        # Nothing is gained from one that has not read the whole state either, but perhaps from the one before it.
        while earlier is not None and earlier._beads is None:
            earlier = earlier._earlier
        self._earlier: Snapshot | None = earlier
        self._beads: dict[str, Bead] | None = None
        self._related: dict[tuple[bool, str], list[str]] = {}

    def get(self, bead_id: str) -> Bead | None:
        """The bead of that id, or None."""
        if self._beads is not None:
            return self._beads.get(bead_id)
        try:
            path = path_of(bead_id)
        except InvalidInput:
            return None
        oid = self._repository.find(self._tree, path)
        return None if oid is None else self._parse(path, oid)

    def need(self, bead_id: str) -> Bead:
        """The bead of that id.

        Raises:
            NotFound: there is none.
        """
        bead = self.get(bead_id)
        if bead is None:
            raise NotFound(f"there is no bead {bead_id!r}", "`bead list` shows what there is.")
        return bead

    def __iter__(self) -> Iterator[Bead]:
        """Every bead, in the order of the ids."""
        return iter(sorted(self._all().values(), key=lambda bead: graph.natural(bead.id)))

    def __len__(self) -> int:
        return len(self._all())

    def children(self, bead_id: str) -> Sequence[Bead]:
        """The beads whose parent it is, in the order of their ids."""
        beads = self._all()
        return [beads[i] for i in self._related.get((True, bead_id), ())]

    def dependents(self, bead_id: str) -> Sequence[Bead]:
        """The beads that depend on it in any other way, in the order of their ids."""
        beads = self._all()
        return [beads[i] for i in self._related.get((False, bead_id), ())]

    def unclosed(self) -> Iterable[Bead]:
        """Every bead that is not closed."""
        return [bead for bead in self._all().values() if not bead.closed]

    def ready(self, now: datetime) -> Iterable[Bead]:
        """The beads a worker or a person may take at ``now``, best first."""
        return graph.ready(self, now)

    def settings(self) -> dict[str, object]:
        """What ``format.toml`` says: ``format``, ``store`` and ``prefix``."""
        oid = self._repository.find(self._tree, "format.toml")
        found: dict[str, object] = loads(self._repository.read(oid), "format.toml") if oid else {}
        if found.get("format") != FORMAT:
            raise Unreadable(
                f"the store has format {found.get('format')!r}, this program reads {FORMAT}", "Update beadtown."
            )
        return found

    @property
    def prefix(self) -> str:
        """What this store's ids start with."""
        return str(self.settings().get("prefix", "bt"))

    def _all(self) -> dict[str, Bead]:
        if self._beads is None:
            earlier = self._earlier
            beads = {} if earlier is None else dict(earlier._all())
            relations = {} if earlier is None else dict(earlier._related)
            before, after = self._differences(earlier)
            for bead in before:
                del beads[bead.id]
            beads.update((bead.id, bead) for bead in after)
            gone, come = _relations(before), _relations(after)
            for key in gone.keys() | come.keys():
                ids = {*relations.get(key, ())} - gone.get(key, set()) | come.get(key, set())
                relations[key] = sorted(ids, key=graph.natural)
            self._beads, self._related, self._earlier = beads, relations, None
        return self._beads

    def _differences(self, earlier: Snapshot | None) -> tuple[list[Bead], list[Bead]]:
        """The beads that the earlier snapshot has and this one has not, and the other way round."""
        before: list[Bead] = []
        after: list[Bead] = []
        for change in self._repository.changes(None if earlier is None else earlier._tree, self._tree):
            if change.path.startswith("beads/"):
                if earlier is not None and change.old is not None:
                    before.append(earlier._all()[change.path.rsplit("/", 1)[1].removesuffix(".toml")])
                if change.new is not None:
                    after.append(self._parse(change.path, change.new))
        return before, after

    def _parse(self, path: str, oid: Oid) -> Bead:
        bead = read_bead(self._repository.read(oid), path)
        if path_of(bead.id) != path:
            raise Unreadable(f"{path} holds bead {bead.id}, which belongs elsewhere", "Run `bead doctor`.")
        return bead


def _relations(beads: Iterable[Bead]) -> dict[tuple[bool, str], set[str]]:
    """Who is related to whom: as a child or otherwise, and to which bead → the beads that are."""
    found: dict[tuple[bool, str], set[str]] = {}
    for bead in beads:
        for relation in related(bead):
            found.setdefault(relation, set()).add(bead.id)
    return found


@dataclass(frozen=True)
class Written:
    """What a transaction left: the state after it, and the bead each operation was about, in order.

    ``changed`` says whether a commit was made; where every effect already held there is none.
    """

    snapshot: Snapshot
    beads: tuple[Bead | None, ...]
    changed: bool


class Transaction:
    """Operations collected to be published together, when the ``with`` block ends without an error.

    After that, :attr:`written` says what was published.
    """

    def __init__(self, store: Store, actor: str, reason: str) -> None:
        self._store = store
        self._actor = actor
        self._reason = reason
        self._operations: list[Operation] = []
        self.written: Written | None = None

    def add(self, *operations: Operation) -> None:
        """Put operations at the end."""
        self._operations.extend(operations)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is None:
            self.written = self._store.commit(self._actor, self._operations, self._reason)


class Store:
    """The issue store in one repository.

    Open it with :meth:`open` or :meth:`init`; the constructor does not look whether there is a store.

    Args:
        repository: where it lives.
        clock: what time it is.
        ref: the ref that holds it.
    """

    def __init__(self, repository: Repository, clock: Clock, ref: str = REF) -> None:
        self.repository = repository
        self.clock = clock
        self.ref = ref
        self._last: Snapshot | None = None

    @classmethod
    def open(cls, start: Path, clock: Clock | None = None, ref: str = REF) -> Store:
        """The store of the repository around ``start``.

        Raises:
            Unreadable: no repository.
            NotFound: the repository has no store.
        """
        store = cls(Repository(start, clock), clock or SystemClock(), ref)
        if store.repository.head(ref) is None:
            raise NotFound(
                f"there is no store at {ref} in {store.repository.common}", "Run `town init` or `bead init`."
            )
        return store

    @classmethod
    def init(cls, start: Path, actor: str, prefix: str = "bt", clock: Clock | None = None, ref: str = REF) -> Store:
        """Make the store of the repository around ``start``; one that is there is left as it is.

        Raises:
            InvalidInput: the prefix is not lower-case letters and digits.
        """
        if not re.fullmatch(r"[a-z][a-z0-9]{0,15}", prefix):
            raise InvalidInput(f"prefix {prefix!r} must be 1 to 16 lower-case letters and digits, a letter first")
        store = cls(Repository(start, clock), clock or SystemClock(), ref)
        if store.repository.head(ref) is None:
            now = milliseconds(store.clock.now())
            name = derived_id("store", now.isoformat(), str(store.repository.common), str(os.getpid()), length=12)
            commit = store.repository.write(
                None,
                {"format.toml": dumps({"format": FORMAT, "store": name, "prefix": prefix})},
                parents=(),
                author=_author(actor),
                when=now,
                message=f"begin the store\n\nActor: {_line(actor)}\nOperation: init\n",
            )
            # Losing this race means that there is a store now, which is what was asked for.
            store.repository.swap(ref, None, commit)
        return store

    @property
    def directory(self) -> Path:
        """Where this clone keeps what is not state: locks, logs, caches. Inside the common Git directory."""
        return self.repository.common / "beads"

    def snapshot(self) -> Snapshot:
        """The newest state."""
        head = self.repository.head(self.ref)
        if head is None:
            raise NotFound(f"the store's ref {self.ref} is gone", "`git fsck --unreachable` may find where it was.")
        return self.snapshot_at(head)

    def snapshot_at(self, commit: Oid) -> Snapshot:
        """The state at one commit of the store."""
        if self._last is None or self._last.commit != commit:
            snapshot = Snapshot(self.repository, commit, self._last)
            snapshot.settings()
            self._last = snapshot
        return self._last

    def transaction(self, actor: str, reason: str = "") -> Transaction:
        """Collect operations and publish them together: ``with store.transaction("nux", "…") as tx: tx.add(…)``."""
        return Transaction(self, actor, reason)

    def commit(self, actor: str, operations: Sequence[Operation] | Decision, reason: str = "") -> Written:
        """Publish operations, or what ``operations`` decides from the newest snapshot, as one transaction.

        Args:
            actor: who acts; becomes the author.
            operations: what to do, or a pure function that says so and is asked again after every lost race.
            reason: the subject of the commit; without one the operations describe themselves.

        Raises:
            TownError: a precondition does not hold on the newest state; nothing was written.
            LostRace: other writers were first, every time.
        """
        with self._writing():
            for _ in range(_TRIES_MAX):
                written = self._try(actor, operations, reason)
                if written is not None:
                    return written
        raise LostRace(f"{self.ref} moved {_TRIES_MAX} times while writing", "Try again.")

    def _try(self, actor: str, operations: Sequence[Operation] | Decision, reason: str) -> Written | None:
        snapshot = self.snapshot()
        decided = operations(snapshot) if callable(operations) else operations
        context = Context(actor, milliseconds(self.clock.now()))
        draft = Draft(snapshot)
        beads = tuple(apply(operation, draft, context) for operation in decided)
        if not draft.changed:
            return Written(snapshot, beads, changed=False)
        lines = [describe(operation, bead) for operation, bead in zip(decided, beads, strict=True)]
        commit = self.repository.write(
            self.repository.commit(snapshot.commit).tree,
            {path_of(bead.id): write_bead(bead) for bead in draft.changed.values()},
            parents=(snapshot.commit,),
            author=_author(actor),
            when=context.now,
            message=_message(actor, reason, lines, [o.op for o in decided], sorted(draft.changed)),
        )
        if not self.repository.swap(self.ref, snapshot.commit, commit):
            return None
        after = self.snapshot_at(commit)
        return Written(after, tuple(bead and draft.get(bead.id) for bead in beads), changed=True)

    def sweep(self) -> None:
        """Clear away the lock files of writers that were killed. They block nobody for long, but are litter."""
        with self._writing():
            self.repository.sweep()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Take turns with the other writers of this clone.

        Only an optimisation: the kernel lets go of a dead process's lock, and when a live one holds it for too
        long we go on without, because the compare-and-swap is what keeps the store whole.
        """
        try:
            self.directory.mkdir(exist_ok=True)
            handle = os.open(self.directory / "writer", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise Unreadable(f"the store in {self.directory} cannot be written: {error}") from error
        try:
            deadline = self.clock.monotonic() + _WRITER_WAIT_SECONDS
            while not _locked(handle) and self.clock.monotonic() < deadline:
                self.clock.sleep(0.002)
            yield
        finally:
            os.close(handle)


def _locked(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        # Some file systems know no such locks.
        return True
    return True


def _message(actor: str, reason: str, lines: list[str], operations: list[str], ids: list[str]) -> str:
    """A commit message a person can read and ``git interpret-trailers`` can parse."""
    more = f" (and {len(lines) - 1} more)" if len(lines) > 1 else ""
    # A line that starts with three dashes would end the message for `git interpret-trailers`.
    subject = _line(reason).lstrip("- ") or _line(lines[0]) + more
    body = "".join(f"{_line(line)}\n" for line in lines[:100]) + "\n" if len(lines) > 1 else ""
    trailers = [f"Bead: {i}" for i in ids[:100]] + [f"Actor: {_line(actor)}"]
    trailers += [f"Operation: {name}" for name in dict.fromkeys(operations)]
    return f"{subject}\n\n{body}" + "\n".join(trailers) + "\n"


def _line(text: str) -> str:
    """One line without control characters, so that no text can pass for a trailer."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:500]


def _author(actor: str) -> str:
    """``actor`` as Git writes an author; a bare name gets an address that says what it is."""
    name = re.sub(r"[<>]", "", _line(actor).split("<")[0]).strip() or "unknown"
    given = re.search(r"<([^<>\s]+)>", _line(actor))
    return f"{name} <{given.group(1) if given else re.sub(r'[^A-Za-z0-9._-]', '-', name) + '@beadtown.invalid'}>"
