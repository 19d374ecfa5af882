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
import functools
import hashlib
import os
import re
import sqlite3
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple, Self

from beads.clock import Clock, SystemClock, milliseconds
from beads.errors import InvalidInput, LostRace, NotFound, Unreadable
from beads.files import recover, turn
from beads.git import Oid, Replaced, Repository, Stale, blob_id
from beads.ids import derived_id, path_of
from beads.index import Index, Reader
from beads.recent import Recent
from beads.sweeping import unswept

if TYPE_CHECKING:
    from beads.draft import Draft
    from beads.heartbeat import Renewed
    from beads.indexing import Standings, Update
    from beads.model import Bead, Lease
    from beads.ops import Operation
    from beads.packing import Packed

REF = "refs/beads/main"
FORMAT = 1
"""The version of the tree's layout; a store of a newer one is refused, never guessed at."""

PACKS_MAX = 50
"""From this many packs of ours on a writer puts the small ones into one. Git finds more of them too many, too."""

_TRIES_MAX = 200
_TOLD_MAX = 100
_CATCH_UP_MAX = 50
_MANY = 10
_WRITER_WAIT_SECONDS = 10.0

Decision = Callable[["Snapshot"], "Sequence[Operation]"]


class Snapshot(Reader):
    """Every bead at one commit of the store; immutable, and as old as it was when it was taken.

    It answers from the index, in a transaction that ends with it: what others write meanwhile does not show.
    """

    def __init__(self, commit: Oid, format_: bytes, connection: sqlite3.Connection, known: Recent[bytes, Bead]) -> None:
        super().__init__(connection, known)
        self.commit = commit
        self._format = format_

    def need(self, bead_id: str) -> Bead:
        """The bead of that id.

        Raises:
            NotFound: there is none.
        """
        bead = self.get(bead_id)
        if bead is None:
            raise NotFound(f"there is no bead {bead_id!r}", "`bead list` shows what there is.")
        return bead

    def settings(self) -> Mapping[str, object]:
        """What ``format.toml`` says: ``format``, ``store`` and ``prefix``.

        Raises:
            Unreadable: the store is of another version.
        """
        return settings_of(self._format)

    @property
    def prefix(self) -> str:
        """What this store's ids start with."""
        return str(self.settings().get("prefix", "bt"))


class Written:
    """What a transaction left: the state after it, and the bead each operation was about, in order.

    Attributes:
        beads: what the operations were about; None for a claim that found nothing.
        changed: whether a commit was made; where every effect already held there is none.
    """

    def __init__(self, store: Store, beads: tuple[Bead | None, ...], *, changed: bool) -> None:
        self._store = store
        self.beads = beads
        self.changed = changed

    @functools.cached_property
    def snapshot(self) -> Snapshot:
        """The newest state when it is first asked for: that after the transaction, or a later one."""
        return self._store.snapshot()


class _Published(NamedTuple):
    """A transaction that the index does not have yet; where it leaves the beads may not be known."""

    before: Oid
    commit: Oid
    updates: Sequence[Update]
    standings: Standings | None
    trees: Sequence[Replaced]


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

    Attributes:
        site: what this clone is called in leases; empty when there is only one.
        renewed, lives: see :class:`beads.fencing.Context`.
    """

    def __init__(self, repository: Repository, clock: Clock, ref: str = REF) -> None:
        self.repository = repository
        self.clock = clock
        self.ref = ref
        # One file for each store that a repository has, and hardly any has two.
        other = "" if ref == REF else "-" + hashlib.sha1(ref.encode(), usedforsecurity=False).hexdigest()[:8]
        self._index = Index(self.directory / f"index{other}.db")
        self._known: Recent[bytes, Bead] = Recent()
        self._format: bytes | None = None
        self._past: Snapshot | None = None
        self.site = ""
        self.renewed: Callable[[], Renewed] = dict
        self.lives: Callable[[Lease], bool] = lambda _: False

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
                f"there is no store at {ref} in {store.repository.common}",
                "`town init` or `bead init` begins one, `bead sync` brings that of a remote.",
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
            from beads.toml import dumps

            now = milliseconds(store.clock.now())
            name = derived_id("store", now.isoformat(), str(store.repository.common), str(os.getpid()), length=12)
            commit = store.repository.write(
                None,
                {"format.toml": dumps({"format": FORMAT, "store": name, "prefix": prefix})},
                parents=(),
                author=author_of(actor),
                when=now,
                message=message_of("begin the store", actor, ["init"]),
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
        for _ in range(_CATCH_UP_MAX):
            found = self._pin()
            if found is not None:
                return found
            try:
                self._catch_up()
            except (sqlite3.Error, OSError):
                break
        return self.snapshot_at(self.head())

    def _made_anew(self, commit: Oid) -> sqlite3.Connection:
        """An index of one's own, instead of one that is damaged, which is thrown away."""
        from beads.indexing import made

        self._index.discard()
        return made(self.repository, commit)

    def snapshot_at(self, commit: Oid) -> Snapshot:
        """The state at one commit: that of the newest one and what differs, or read whole where there is no index."""
        from beads.indexing import made

        if self._past is None or self._past.commit != commit:
            connection = self._moved(commit) or made(self.repository, commit)
            ((format_,),) = connection.execute("SELECT value FROM meta WHERE key = 'format'")
            self._past = self._checked(Snapshot(commit, format_, connection, self._known))
        return self._past

    def _moved(self, commit: Oid) -> sqlite3.Connection | None:
        from beads.indexing import moved

        pinned = self._index.pin()
        if pinned is None:
            return None
        try:
            # Whoever asks for the commit that it is of has found no use for it.
            return None if pinned[1]["commit"] == commit else moved(pinned[0], self.repository, commit, self._known)
        except (sqlite3.Error, Unreadable, NotFound):
            return None
        finally:
            self._index.release(pinned[0])

    def _pin(self) -> Snapshot | None:
        """The newest state, if the index has it."""
        head = self.head()
        pinned = self._index.pin()
        if pinned is None:
            return None
        connection, said = pinned
        commit = Oid(said["commit"])
        snapshot = Snapshot(commit, said["format"], connection, self._known)
        weakref.finalize(snapshot, self._index.release, connection).atexit = False
        snapshot.mend = functools.partial(self._made_anew, commit)
        # It may be ahead of what we saw of the ref before.
        return self._checked(snapshot) if commit == head or commit == self.head() else None

    def _checked(self, snapshot: Snapshot) -> Snapshot:
        if snapshot._format != self._format:
            snapshot.settings()
            self._format = snapshot._format
        return snapshot

    def _catch_up(self) -> None:
        from beads.indexing import catch_up

        catch_up(self._index.path, self.repository, self.head, self._known)

    def head(self) -> Oid:
        """The newest commit; raises NotFound when the ref is gone."""
        head = self.repository.head(self.ref)
        if head is None:
            raise NotFound(f"the store's ref {self.ref} is gone", "`git fsck --unreachable` may find where it was.")
        return head

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
        with self.turn(), unswept():
            for _ in range(_TRIES_MAX):
                written = self._try(actor, operations, reason)
                if written is not None:
                    break
            else:
                raise LostRace(f"{self.ref} moved {_TRIES_MAX} times while writing", "Try again.")
        if len(self.repository.objects.own) >= PACKS_MAX:
            from beads.packing import begin

            # Whoever finds the mess has it tidied up; if that cannot be done the next one tries.
            with contextlib.suppress(Unreadable):
                begin(self.repository)
        return written

    def pack(self, *, show: bool = False) -> Packed:
        """Put all packs of the store, and what is loose of it, into one; small ones are by themselves now and then.

        Args:
            show: let Git show on the terminal how far it is.

        Raises:
            Unreadable: there is no Git to do it, or it cannot.
        """
        from beads.packing import pack

        return pack(self.repository, self.head(), show=show)

    def _try(self, actor: str, operations: Sequence[Operation] | Decision, reason: str) -> Written | None:
        from beads.apply import Context, apply
        from beads.describe import describe
        from beads.draft import Draft

        snapshot = self.snapshot()
        decided = operations(snapshot) if callable(operations) else operations
        context = Context(actor, milliseconds(self.clock.now()), self.site, self.renewed, self.lives)
        new = [operation.bead.id for operation in decided if operation.op == "create"]
        # Of one or two it is not worth a question of its own.
        draft = Draft(snapshot, snapshot.strangers(new) if len(new) >= _MANY else ())
        beads = tuple(apply(operation, draft, context) for operation in decided)
        if not draft.changed:
            return Written(self, beads, changed=False)
        lines = [describe(operation, bead) for operation, bead in zip(decided[:_TOLD_MAX], beads, strict=False)]
        message = _message(actor, reason, lines, decided, sorted(draft.changed))
        published = self._publish(snapshot, draft, actor, context.now, message)
        if published is None:
            return None
        beads = tuple(bead and draft.get(bead.id) for bead in beads)
        # As long as somebody reads an old state of the index, what is new can only be put behind it.
        del snapshot, draft
        self._index_it(published)
        return Written(self, beads, changed=True)

    def _publish(self, snapshot: Snapshot, draft: Draft, actor: str, now: datetime, message: str) -> _Published | None:
        """Write the next state and move the ref to it; None when somebody else was first."""
        from beads.indexing import Update, standings
        from beads.model import write_bead

        files = {bead_id: write_bead(bead) for bead_id, bead in draft.changed.items()}
        paths = {bead_id: path_of(bead_id) for bead_id in files}
        trees: list[Replaced] = []
        try:
            with self.repository.helped(snapshot.near(paths.values())):
                commit = self.repository.write(
                    self.repository.commit(snapshot.commit).tree,
                    {paths[bead_id]: data for bead_id, data in files.items()},
                    parents=(snapshot.commit,),
                    author=author_of(actor),
                    when=now,
                    message=message,
                    was={path: None if draft.is_new(i) else snapshot.blob(i) for i, path in paths.items()},
                    trees=trees,
                )
        except Stale:
            # What the index says is not what Git has, and Git is right.
            self._index.discard()
            return None
        if not self.repository.swap(self.ref, snapshot.commit, commit):
            return None
        updates = [Update(i, draft.before(i), draft.changed[i], blob_id(data), data) for i, data in files.items()]
        found: Standings | None = None
        with contextlib.suppress(sqlite3.Error, Unreadable):
            found = standings(draft, updates)
        return _Published(snapshot.commit, commit, updates, found, trees)

    def _index_it(self, published: _Published) -> None:
        """Put what was published into the index, if nobody was there first; the next look mends what goes wrong."""
        from beads.indexing import put

        with contextlib.suppress(sqlite3.Error, Unreadable), self._index.writing() as connection:
            before, after, updates, stands, trees = published
            said = connection.execute("SELECT value FROM meta WHERE key = 'commit'").fetchone()
            if said == (before,) and stands is not None:
                put(connection, updates, stands, trees, after, self._known)

    def forget(self) -> None:
        """Throw the index away; it is only a cache, and made anew at the next look."""
        self._index.discard()

    def sweep(self) -> None:
        """Clear away the lock files of writers that were killed. They block nobody for long, but are litter."""
        with self.turn():
            self.repository.sweep()

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """This clone's writers take turns with it; whoever moves the ref without :meth:`commit` should, too.

        Only an optimisation: when a live writer holds it for too long we go on without, because the
        compare-and-swap is what keeps the store whole.

        Raises:
            Unreadable: nothing can be written here.
        """
        writer, share = self.directory / "writer", self.repository.objects.share
        with contextlib.ExitStack() as held:
            try:
                ledger = held.enter_context(turn(writer, self.clock, _WRITER_WAIT_SECONDS, share))
                if ledger is not None:
                    recover(self.repository.common / self.ref, ledger)
            except OSError as error:
                raise Unreadable(f"the store in {self.directory} cannot be written: {error}") from error
            self.repository.ledger = ledger
            self.repository.objects.held = None if ledger is None else str(writer)
            try:
                yield
            finally:
                self.repository.ledger = self.repository.objects.held = None


def _message(actor: str, reason: str, lines: list[str], operations: Sequence[Operation], ids: list[str]) -> str:
    """A commit message a person can read and ``git interpret-trailers`` can parse."""
    more = f" (and {len(operations) - 1} more)" if len(operations) > 1 else ""
    # A line that starts with three dashes would end the message for `git interpret-trailers`.
    subject = one_line(reason).lstrip("- ") or one_line(lines[0]) + more
    body = "".join(f"{one_line(line)}\n" for line in lines) + "\n" if len(lines) > 1 else ""
    undone = [o.commit for o in operations if o.op == "restore"]
    return message_of(f"{subject}\n\n{body}".rstrip("\n"), actor, [o.op for o in operations], ids, undone)


def message_of(
    text: str, actor: str, operations: Iterable[str], beads: Sequence[str] = (), undoes: Iterable[str] = ()
) -> str:
    """The message of a commit of the store: what happened, and the trailers that say so to a program."""
    trailers = [f"Bead: {bead_id}" for bead_id in beads[:_TOLD_MAX]] + [f"Actor: {one_line(actor)}"]
    trailers += [f"Operation: {name}" for name in dict.fromkeys(operations)]
    trailers += [f"Undoes: {commit}" for commit in undoes]
    return f"{text}\n\n" + "\n".join(trailers) + "\n"


def settings_of(data: bytes) -> Mapping[str, object]:
    """What a ``format.toml`` says.

    Raises:
        Unreadable: it is of another version of the format.
    """
    # As `Store.init` writes it, which needs no parser; importing that would cost a short command a tenth of its time.
    plain = re.fullmatch(rb'format = (\d+)\nstore = "([\w-]+)"\nprefix = "(\w+)"\n', data, re.ASCII)
    if plain:
        number, store, prefix = plain.groups()
        found: dict[str, object] = {"format": int(number), "store": store.decode(), "prefix": prefix.decode()}
    else:
        from beads.toml import loads

        found = loads(data, "format.toml")
    if found.get("format") != FORMAT:
        raise Unreadable(
            f"the store has format {found.get('format')!r}, this program reads {FORMAT}", "Update beadtown."
        )
    return found


def one_line(text: str) -> str:
    """One line without control characters, so that no text can pass for a trailer."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:500]


def author_of(actor: str) -> str:
    """``actor`` as Git writes an author; a bare name gets an address that says what it is."""
    name = re.sub(r"[<>]", "", one_line(actor).split("<")[0]).strip() or "unknown"
    given = re.search(r"<([^<>\s]+)>", one_line(actor))
    return f"{name} <{given.group(1) if given else re.sub(r'[^A-Za-z0-9._-]', '-', name) + '@beadtown.invalid'}>"
