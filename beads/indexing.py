"""The index kept up to date: advanced by what changed, made anew when it is missing, old or damaged.

Whatever happens to it, the answers are those of the commit it says it is of. Processes that find it behind take turns
in bringing it up; a process that cannot write it has one of its own in memory.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from beads import chain, graph, spending
from beads.draft import Draft, related
from beads.errors import InvalidInput, NotFound, TownError
from beads.files import turn
from beads.git import Oid, Replaced, Repository
from beads.ids import natural, path_of, place_of
from beads.index import VERSION, Reader, connect, micros
from beads.model import Bead, read_bead
from beads.recent import Recent

_MAKING_SECONDS = 30.0
"""How long another process may stand still while it makes the index before others make their own, in memory."""

_BATCH = 2_000
"""How many changed beads are in memory at once."""

_CACHE_KIB = 64 * 1024
"""How much of the index is in memory while the whole of it is made; what does not fit has to be read again."""

TABLES = f"""{spending.TABLE}
CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE beads (
    n INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    place TEXT NOT NULL,
    oid BLOB NOT NULL,
    status TEXT, outcome TEXT, type TEXT, priority INTEGER, assignee TEXT, parent TEXT, created INTEGER,
    merge INTEGER, ended INTEGER, work INTEGER,
    kind TEXT, held INTEGER NOT NULL DEFAULT 0, deferred INTEGER NOT NULL DEFAULT 0, reason TEXT, waits TEXT,
    link TEXT,
    data BLOB NOT NULL
);
CREATE TABLE edges (target TEXT, source TEXT, PRIMARY KEY (target, source)) WITHOUT ROWID;
CREATE TABLE labels (label TEXT, at TEXT, n INTEGER, PRIMARY KEY (label, at, n)) WITHOUT ROWID;
CREATE TABLE trees (place INTEGER PRIMARY KEY, raw BLOB NOT NULL);
CREATE VIRTUAL TABLE words USING fts5 (title, body, content = '', detail = full);
CREATE TABLE counts (
    status TEXT, state TEXT, type TEXT, outcome TEXT, number INTEGER, PRIMARY KEY (status, state, type, outcome)
) WITHOUT ROWID;
"""

INDEXES = f"""{spending.INDEXES}
CREATE INDEX places ON beads (place);
CREATE INDEX unclosed ON beads (place) WHERE status <> 'closed';
CREATE INDEX statuses ON beads (status, place);
CREATE INDEX types ON beads (type, place) WHERE status <> 'closed';
CREATE INDEX ready ON beads (priority, created, place, held, deferred) WHERE kind = 'ready' AND work;
CREATE INDEX standing ON beads (kind, place) WHERE status <> 'closed';
CREATE INDEX timed ON beads (held, deferred) WHERE held > 0 OR deferred > 0;
CREATE INDEX parts ON beads (parent, place, status, merge, outcome) WHERE parent IS NOT NULL;
CREATE INDEX steps ON beads (parent, place) WHERE type = 'step';
CREATE INDEX steps_left ON beads (parent, place) WHERE type = 'step' AND status <> 'closed';
CREATE INDEX merges ON beads (parent, place) WHERE merge;
CREATE INDEX queue ON beads (place) WHERE merge AND status <> 'closed';
CREATE INDEX ended ON beads (ended) WHERE merge AND ended > 0;
CREATE INDEX assigned ON beads (assignee, place) WHERE assignee <> '' AND status <> 'closed';
"""

# How many beads there are of a kind, but for those whose state changes with the time.
_COUNTED = """SELECT status, ifnull(kind, ''), ifnull(beads.type, ''), ifnull(outcome, ''), {} FROM {}
WHERE held <= 0 AND deferred <= 0 GROUP BY 1, 2, 3, 4"""
COUNTS = f"INSERT INTO counts {_COUNTED.format('count(*)', 'beads')};"
_COUNT = f"""INSERT INTO counts {_COUNTED.format("? * count(*)", "json_each(?) CROSS JOIN beads ON beads.id = value")}
ON CONFLICT DO UPDATE SET number = number + excluded.number"""

SCHEMA = TABLES + INDEXES + COUNTS

_UPSERT = """INSERT INTO beads (id, place, oid, status, outcome, type, priority, assignee, parent, created, merge,
ended, work, kind, deferred, reason, waits, held, link, data)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE SET oid = excluded.oid, status = excluded.status, outcome = excluded.outcome,
type = excluded.type, priority = excluded.priority, assignee = excluded.assignee, parent = excluded.parent,
created = excluded.created, merge = excluded.merge, ended = excluded.ended, work = excluded.work,
kind = excluded.kind, deferred = excluded.deferred, reason = excluded.reason, waits = excluded.waits,
held = excluded.held, link = excluded.link, data = excluded.data"""

_FOUND_BY = (
    ("DELETE FROM edges WHERE target = ? AND source = ?", "INSERT OR IGNORE INTO edges VALUES (?, ?)"),
    ("DELETE FROM labels WHERE label = ? AND at = ? AND n = ?", "INSERT OR IGNORE INTO labels VALUES (?, ?, ?)"),
    (
        "INSERT INTO words (words, title, body, rowid) VALUES ('delete', ?, ?, ?)",
        "INSERT INTO words (title, body, rowid) VALUES (?, ?, ?)",
    ),
)
"""How to remove and how to add a row of what beads are found by: relations, labels, words.

None of them looks for the number of a bead itself: before a statement that reads one table and writes another one,
SQLite has everything written that was said before about words, and that takes ten times as long as to take them in.
"""

_STANDING = "UPDATE beads SET kind = ?, deferred = ?, reason = ?, waits = ? WHERE id = ?"


class Update(NamedTuple):
    """A bead that changed: what it was, what it is, and the blob it is in. None where it was not, or is no more."""

    id: str
    old: Bead | None
    new: Bead | None
    oid: Oid | None
    data: bytes


Standing = tuple[str | None, int, str | None, str | None]
"""Where a unit stands: the columns ``kind``, ``deferred``, ``reason`` and ``waits``."""

Standings = Mapping[str, Standing]
"""Where units stand, by id."""

_NOWHERE: Standing = (None, 0, None, None)


def standings(view: graph.View, updates: Iterable[Update]) -> Standings:
    """Where the units stand that changes may have moved.

    Args:
        view: the state after the changes.
        updates: the changes.
    """
    moved = graph.affected(view, ((update.old, update.new) for update in updates))
    return _standings(view, (bead for bead_id in moved if (bead := _readable(view, bead_id)) is not None))


def put(
    connection: sqlite3.Connection,
    updates: Sequence[Update],
    stands: Standings,
    trees: Sequence[Replaced],
    commit: Oid,
    known: Recent[bytes, Bead],
) -> None:
    """Put changes into the index; it is of ``commit`` afterwards. Inside a transaction of the caller's.

    Args:
        connection: to the index.
        updates: the beads that changed.
        stands: what :func:`standings` says of them.
        trees: those that changed, with what took their places.
        commit: what all that leads to.
        known: beads that were read before.
    """
    ids = {update.id for update in updates}
    with _counted(connection, stands.keys() | ids):
        _write(connection, updates, stands)
        _stand(connection, {bead_id: stands[bead_id] for bead_id in stands.keys() - ids})
    _keep(connection, trees)
    for update in updates:
        if update.new is not None and update.oid is not None:
            known.put(bytes.fromhex(update.oid), update.new)
    connection.execute("INSERT OR REPLACE INTO meta VALUES ('commit', ?)", (commit,))


@contextlib.contextmanager
def _counted(connection: sqlite3.Connection, ids: Collection[str]) -> Iterator[None]:
    """Keep the counts right while the rows of these beads change."""
    there = json.dumps([*ids])
    connection.execute(_COUNT, (-1, there))
    yield
    connection.execute(_COUNT, (1, there))


def _keep(connection: sqlite3.Connection, trees: Sequence[Replaced]) -> None:
    """Keep trees and the newest commit at hand: reading them from packs would cost more than what a command writes."""
    found = {place: tree.content for tree in trees if (place := place_of(tree.path)) is not None}
    there = ((place, content) for place, content in sorted(found.items()) if content is not None)
    # In place: of a large tree, in which little changes, SQLite writes only what does.
    connection.executemany("INSERT INTO trees VALUES (?, ?) ON CONFLICT DO UPDATE SET raw = excluded.raw", there)
    gone = ((place,) for place, content in found.items() if content is None)
    connection.executemany("DELETE FROM trees WHERE place = ?", gone)


def _write(connection: sqlite3.Connection, updates: Sequence[Update], stands: Standings) -> None:
    """Put the rows in, and what is found by way of them."""
    rows = (_row(update, stands.get(update.id, _NOWHERE)) for update in updates if update.oid is not None)
    connection.executemany(_UPSERT, rows)
    changed = [update for update in updates if _text_of(update.old) != _text_of(update.new)]
    sql = "SELECT beads.id, n FROM json_each(?) CROSS JOIN beads ON beads.id = value"
    numbers = dict(connection.execute(sql, (json.dumps([update.id for update in changed]),)))
    # One that is to go may never have come.
    changes = [(_found_by(u.old, n), _found_by(u.new, n)) for u in changed if (n := numbers.get(u.id)) is not None]
    for kind, (leave, enter) in enumerate(_FOUND_BY):
        connection.executemany(leave, (row for old, new in changes for row in old[kind] - new[kind]))
        connection.executemany(enter, (row for old, new in changes for row in new[kind] - old[kind]))
    spending.put(connection, ((update.old, update.new) for update in updates))
    connection.executemany("DELETE FROM beads WHERE id = ?", ((u.id,) for u in updates if u.oid is None))


def _row(update: Update, stands: Standing) -> tuple[object, ...]:
    bead, oid = update.new, bytes.fromhex(update.oid or "")
    if bead is None:
        # A file that is no bead has a place, so that whoever reads it is told.
        blank = (None,) * 9
        return (update.id, natural(update.id), oid, "open", *blank, *_NOWHERE, 0, None, update.data)
    if bead.closed:
        stands = ("closed" if graph.is_unit(bead) else None, 0, f"closed: {bead.outcome or 'done'}", None)
    return (
        bead.id,
        natural(bead.id),
        oid,
        bead.status,
        bead.outcome,
        bead.issue_type,
        bead.priority,
        bead.assignee,
        bead.parent,
        micros(bead.created_at),
        bead.merge is not None,
        micros(bead.closed_at),
        graph.is_unit(bead) and bead.issue_type not in graph.UNLISTED,
        *stands,
        micros(bead.lease.until if bead.lease else None),
        chain.summary(bead),
        update.data,
    )


def _text_of(bead: Bead | None) -> object:
    """All that :func:`_found_by` goes by."""
    return bead and (
        bead.dependencies,
        bead.labels,
        bead.title,
        bead.description,
        bead.run,
        bead.comments,
        bead.close_reason,
    )


def _found_by(bead: Bead | None, number: int) -> tuple[set[tuple[object, ...]], ...]:
    """What a bead is found by: the rows for its relations, its labels, and its words, as :data:`_FOUND_BY` has them."""
    if bead is None:
        return set(), set(), set()
    edges: set[tuple[object, ...]] = {(on, bead.id) for child, on in related(bead) if not child}
    # The title and the id count for more than everything else that somebody wrote.
    said = [bead.description, bead.run, *bead.labels, *(comment.text for comment in bead.comments), bead.close_reason]
    words = (f"{bead.title}\n{bead.id}", "\n".join(filter(None, said)), number)
    return edges, {(label, natural(bead.id), number) for label in bead.labels}, {words}


def _standings(view: graph.View, beads: Iterable[Bead]) -> Standings:
    found: dict[str, Standing] = {}
    for bead in beads:
        if graph.is_unit(bead) and not bead.closed:
            found[bead.id] = _NOWHERE
            # When something that it depends on cannot be read, whoever asks for it is told.
            with contextlib.suppress(TownError):
                state, until = graph.standing(view, bead), graph.deferred_until(view, bead)
                found[bead.id] = (state.kind, micros(until), state.reason, " ".join(state.waits_for))
    return found


def _stand(connection: sqlite3.Connection, stands: Standings) -> None:
    connection.executemany(_STANDING, ((*columns, bead_id) for bead_id, columns in stands.items()))


def _readable(view: graph.View, bead_id: str) -> Bead | None:
    with contextlib.suppress(TownError):
        return view.get(bead_id)
    return None


def advance(connection: sqlite3.Connection, repository: Repository, commit: Oid, known: Recent[bytes, Bead]) -> None:
    """Bring the index from the commit it is of to another one. Inside a transaction of the caller's.

    Raises:
        NotFound: the commit it is of is gone.
    """
    (old,) = connection.execute("SELECT value FROM meta WHERE key = 'commit'").fetchone()
    if old == commit:
        return
    view = Reader(connection, known)
    before, after = (repository.commit(oid) for oid in (old, commit))
    trees = [Replaced(None, after.raw)]
    for batch in _batches(_changed(repository, before.tree, after.tree, trees, view)):
        advance_by(connection, batch, trees, commit, known)
        trees.clear()
    _settings(connection, repository, after.tree)


def advance_by(
    connection: sqlite3.Connection,
    updates: Sequence[Update],
    trees: Sequence[Replaced],
    commit: Oid,
    known: Recent[bytes, Bead],
) -> None:
    """As :func:`put`, for changes that nobody has said yet where they leave the beads."""
    # What is no more, or no bead, has to be out of the way before anybody looks.
    gone = [update for update in updates if update.new is None]
    with _counted(connection, {update.id for update in gone}):
        _write(connection, gone, {})
    view = Draft(Reader(connection, known))
    for update in updates:
        if update.new is not None:
            view.put(update.new)
    there = [update for update in updates if update.new is not None]
    put(connection, there, standings(view, updates), trees, commit, known)


def make(connection: sqlite3.Connection, repository: Repository, commit: Oid) -> bytes:
    """Fill an empty database with the index of a commit; returns that's ``format.toml``."""
    known: Recent[bytes, Bead] = Recent()
    connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
    connection.executescript(f"{TABLES} BEGIN")
    head = repository.commit(commit)
    trees = [Replaced(None, head.raw)]
    count = 0
    for batch in _batches(_changed(repository, None, head.tree, trees)):
        _write(connection, batch, {})
        _keep(connection, trees)
        trees.clear()
        count += len(batch)
        # Beads lie all over the packs, which would be in memory as a whole in the end.
        repository.objects.unmap()
        repository.tell(f"making the index: {count:,} beads")
    # To sort what is there takes less than to put each into its place in turn. A script first ends the transaction.
    connection.executescript(f"{INDEXES} BEGIN")
    view = Reader(connection, known)
    last, count = "", 0
    while True:
        sql = "SELECT id, place FROM beads WHERE place > ? AND status <> 'closed' ORDER BY place LIMIT ?"
        rows = connection.execute(sql, (last, _BATCH)).fetchall()
        if not rows:
            break
        beads = (bead for bead_id, _ in rows if (bead := _readable(view, bead_id)) is not None)
        _stand(connection, _standings(view, beads))
        last = rows[-1][1]
        count += len(rows)
        repository.tell(f"making the index: where {count:,} beads stand")
    repository.tell("")
    connection.executescript(COUNTS)
    format_ = _settings(connection, repository, head.tree)
    connection.execute("INSERT INTO meta VALUES ('version', ?), ('commit', ?)", (VERSION, commit))
    return format_


def made(repository: Repository, commit: Oid) -> sqlite3.Connection:
    """An index of a commit that nobody else sees."""
    connection = connect(None)
    make(connection, repository, commit)
    return connection


def moved(
    connection: sqlite3.Connection, repository: Repository, commit: Oid, known: Recent[bytes, Bead]
) -> sqlite3.Connection:
    """A copy of an index that nobody else sees, brought to another commit.

    Raises:
        sqlite3.Error: the index is damaged.
        NotFound: the commit it is of is gone.
    """
    copy = connect(None)
    connection.backup(copy)
    copy.execute("BEGIN")
    advance(copy, repository, commit, known)
    copy.execute("COMMIT")
    return copy


def _settings(connection: sqlite3.Connection, repository: Repository, tree: Oid) -> bytes:
    oid = repository.find(tree, "format.toml")
    data = repository.read(oid) if oid else b""
    connection.execute("INSERT OR REPLACE INTO meta VALUES ('format', ?)", (data,))
    return data


def _changed(
    repository: Repository, before: Oid | None, after: Oid, trees: list[Replaced], view: Reader | None = None
) -> Iterator[Update]:
    """The beads that differ between two trees; ``view`` has those of the first one, and ``trees`` gets what differs."""
    for change in repository.changes(before, after, trees=trees):
        bead_id = _bead_at(change.path)
        if bead_id is not None:
            data = _content(repository, change.new)
            old = _readable(view, bead_id) if view else None
            yield Update(bead_id, old, _parsed(change.path, data), change.new, data)


def _content(repository: Repository, oid: Oid | None) -> bytes:
    """The content of a file; nothing for one that is gone, and for one that cannot be read, of which nobody is sure."""
    with contextlib.suppress(TownError):
        return b"" if oid is None else repository.read(oid)
    return b""


def _bead_at(path: str) -> str | None:
    """The id of the bead whose file this is; None for files that are no bead's, which `bead doctor` names."""
    bead_id = path.rsplit("/", 1)[-1].removesuffix(".toml")
    with contextlib.suppress(InvalidInput):
        return bead_id if path_of(bead_id) == path else None
    return None


def _parsed(path: str, data: bytes) -> Bead | None:
    """The bead that a file holds, if it holds one that belongs there."""
    with contextlib.suppress(TownError):
        bead = read_bead(data, path)
        return bead if path_of(bead.id) == path else None
    return None


def _batches(updates: Iterator[Update]) -> Iterator[list[Update]]:
    batch: list[Update] = []
    for update in updates:
        batch.append(update)
        if len(batch) >= _BATCH:
            yield batch
            batch = []
    yield batch


def catch_up(path: Path, repository: Repository, head: Callable[[], Oid], known: Recent[bytes, Bead]) -> None:
    """Bring the index in a file to the newest commit; make it anew when that is not possible.

    Raises:
        sqlite3.Error, OSError: it cannot be written.
    """
    if path.is_file():
        try:
            with contextlib.closing(connect(path)) as connection:
                connection.execute("BEGIN IMMEDIATE")
                (version,) = connection.execute("SELECT value FROM meta WHERE key = 'version'").fetchone()
                if version == VERSION:
                    advance(connection, repository, head(), known)
                    connection.execute("COMMIT")
                    return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode not in (sqlite3.SQLITE_ERROR,):
                # Busy, full, or not to be written: that is no reason to throw away what others use.
                raise
        except (sqlite3.DatabaseError, NotFound, TypeError):
            # Damaged, or of a commit that is gone, or without a word about itself.
            pass
    _replace(path, repository, head)


def _replace(path: Path, repository: Repository, head: Callable[[], Oid]) -> None:
    """Make the index anew beside the old one, and put it in its place. One process at a time does; others wait."""
    path.parent.mkdir(exist_ok=True)
    before, grown = _identity(path), _growth(path)
    with turn(path.with_name("indexer"), repository.clock, _MAKING_SECONDS, repository.objects.share) as ours:
        if ours is None:
            if _growth(path) == grown:
                raise BlockingIOError("another process is making the index, and stands still")
            repository.tell("waiting for the index, which another process is making")
            return
        if _identity(path) != before:
            # Somebody else made it while we waited.
            repository.tell("")
            return
        new = path.with_name(f"index.{os.getpid()}.new")
        try:
            # Nobody else makes one now: what is there was left by processes that were killed.
            for left in path.parent.glob("index.*.new*"):
                left.unlink(missing_ok=True)
            new.touch()
            with contextlib.closing(connect(new)) as connection:
                connection.execute("PRAGMA journal_mode = OFF")
                connection.execute("PRAGMA synchronous = OFF")
                make(connection, repository, head())
                connection.execute("PRAGMA journal_mode = WAL")
            for suffix in ("-wal", "-shm"):
                path.with_name(path.name + suffix).unlink(missing_ok=True)
            repository.objects.share(str(new))
            new.replace(path)
        finally:
            for suffix in ("", "-wal", "-shm", "-journal"):
                new.with_name(new.name + suffix).unlink(missing_ok=True)


def _growth(path: Path) -> dict[str, int]:
    """How large the indexes are that are being made."""
    found = {}
    for new in path.parent.glob("index.*.new"):
        with contextlib.suppress(FileNotFoundError):
            found[str(new)] = new.stat().st_size
    return found


def _identity(path: Path) -> tuple[int, int] | None:
    with contextlib.suppress(FileNotFoundError):
        found = path.stat()
        return found.st_ino, found.st_mtime_ns
    return None
