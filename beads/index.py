"""The cache of the store in one SQLite file: answers in milliseconds, however many beads there are. Reads only.

It is derived from the ref and from nothing else: it says in the same SQL transaction which commit it is of, deleting
it loses nothing, and ``beads/indexing.py`` makes it anew when it is damaged. Opening it and answering must cost a
short command next to nothing, so that what a bead is (``beads/model.py``) is imported when one is asked for.
"""

from __future__ import annotations

import contextlib
import heapq
import json
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from beads.choice import KIND, MAY_STAND_SO, PART_STANDS_SO, conditions, match
from beads.choice import Choice as Choice
from beads.errors import Unreadable
from beads.ids import natural, path_of, place_of
from beads.objects import raw
from beads.recent import Recent

if TYPE_CHECKING:
    from beads.git import Oid
    from beads.model import Bead

VERSION = 7
"""The version of the tables; a file of another one is made anew."""

BUSY_SECONDS = 3.0
"""How long another process's write to the index is waited for."""

_SEVERAL = 10
"""How many trees are asked for at once, and not one by one."""

_ROWS_MAX = 8
_IDLE_MAX = 4
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_RANKED_MAX = 2_000
"""Of how many beads that hold the words the best are looked for: to compare them takes a look at each."""

_ROW = f"SELECT id, oid, data, {KIND} AS stands, reason, waits"


class Row(NamedTuple):
    """A bead as the index keeps it.

    Attributes:
        id: its id.
        oid: the id of the blob it is in.
        data: that blob.
        kind: where it stands, as :class:`graph.State` says; None for parts, which stand where their molecule does.
        reason: why; empty where that depends on other beads or on the time.
        waits: the ids of what it waits for, with blanks between them.
    """

    id: str
    oid: bytes
    data: bytes
    kind: str | None
    reason: str | None
    waits: str | None


class Part(NamedTuple):
    """A step as the index keeps it.

    Attributes:
        id: its id.
        data: the blob it is in.
        status: as it is stored.
        outcome: how it ended, if it did.
        link: what ``beads/chain.py`` says of it; None for a step that nobody has begun.
    """

    id: str
    data: bytes
    status: str
    outcome: str | None
    link: str | None


class Reader:
    """Every bead at one commit: a :class:`graph.View` on a transaction that sees nothing of what comes later.

    Args:
        connection: it is in a read transaction.
        known: beads that were read before, by the id of their blob.

    Attributes:
        mend: gives another connection to the same state when this one turns out to be damaged.
    """

    def __init__(self, connection: sqlite3.Connection, known: Recent[bytes, Bead]) -> None:
        self._connection = connection
        self._known = known
        self._answers: Recent[tuple[str, tuple[object, ...]], list[Any]] = Recent()
        self._here: Recent[str, tuple[bytes, Bead] | tuple[None, None]] = Recent()
        self._alone: Recent[str, bool] = Recent()
        self.mend: Callable[[], sqlite3.Connection] | None = None

    def get(self, bead_id: str) -> Bead | None:
        """The bead of that id, or None."""
        found = self._here.get(bead_id)
        if found is not None:
            return found[1]
        for row in self._stream("SELECT id, oid, data FROM beads WHERE id = ?", (bead_id,)):
            return self._bead(*row)
        self._here.put(bead_id, (None, None))
        return None

    def children(self, bead_id: str) -> list[Bead]:
        """The beads whose parent it is, in the order of their ids."""
        return list(self._parts(bead_id))

    def steps(self, bead_id: str, *, unclosed: bool = False) -> Iterator[Bead]:
        """Those of the children that are steps, in the order of their ids."""
        return self._parts(bead_id, "AND type = 'step'" + (" AND status <> 'closed'" if unclosed else ""))

    def merges(self, bead_id: str) -> list[Bead]:
        """Those of the children that are merge requests, in the order of their ids."""
        return list(self._parts(bead_id, "AND merge"))

    def _parts(self, bead_id: str, which: str = "") -> Iterator[Bead]:
        # To say where a bead stands takes several looks at its parts, and most have none.
        alone = self._alone.get(bead_id)
        if alone is None:
            alone = not list(self._stream("SELECT 1 FROM beads WHERE parent = ? LIMIT 1", (bead_id,)))
            self._alone.put(bead_id, alone)
        if alone:
            return iter(())
        return self._beads(f"SELECT id, oid, data FROM beads WHERE parent = ? {which} ORDER BY place", (bead_id,))

    def dependents(self, bead_id: str) -> list[Bead]:
        """The beads that depend on it in any other way, in the order of their ids."""
        # Most have one or none, for which SQLite need not make ready to sort.
        found = self._all("SELECT id, oid, data FROM edges JOIN beads ON id = source WHERE target = ?", (bead_id,))
        return [self._bead(*row) for row in sorted(found, key=lambda row: natural(row[0]))]

    def unclosed(self) -> Iterator[Bead]:
        """Every bead that is not closed, in the order of the ids."""
        return self._beads("SELECT id, oid, data FROM beads WHERE status <> 'closed' ORDER BY place")

    def poured(self, plan: str) -> list[Bead]:
        """The molecules that versions of a plan have made, in the order of their ids. Looks at every molecule."""
        start = f"plan:{plan}/"
        sql = "SELECT id, oid, data FROM beads WHERE type = 'molecule' AND instr(data, ?) ORDER BY place"
        found = self._beads(sql, (f'source = "{start}'.encode(),))
        return [bead for bead in found if bead.source.startswith(start)]

    def requests(self) -> list[Bead]:
        """The merge requests that are not closed."""
        sql = "SELECT id, oid, data FROM beads WHERE merge AND status <> 'closed' ORDER BY place"
        return [self._bead(*row) for row in self._all(sql)]

    def submitted(self) -> Iterator[Bead]:
        """Every merge request, closed ones too."""
        return self._beads("SELECT id, oid, data FROM beads WHERE merge ORDER BY place")

    def ended(self, since: datetime | None = None, limit: int = -1) -> Iterator[Bead]:
        """The merge requests that were closed, the last one first; with ``since`` only those closed from then on."""
        sql = "SELECT id, oid, data FROM beads WHERE merge AND ended > 0 AND ended >= ? ORDER BY ended DESC LIMIT ?"
        return self._beads(sql, (micros(since), limit))

    def ready(self, now: datetime) -> Iterator[Bead]:
        """The beads a worker or a person may take at ``now``, best first."""
        return (self._bead(row.id, row.oid, row.data) for row in self.ready_rows(now))

    def __iter__(self) -> Iterator[Bead]:
        """Every bead, in the order of the ids."""
        return self._beads("SELECT id, oid, data FROM beads ORDER BY place")

    def __len__(self) -> int:
        return int(self._all("SELECT count(*) FROM beads")[0][0])

    # Answers that need no bead to be read.

    def ready_rows(self, now: datetime, limit: int | None = None) -> Iterator[Row]:
        """The rows of what may be taken at ``now``, best first."""
        sql = f"{_ROW} FROM beads WHERE kind = 'ready' AND work AND held <= :now AND deferred <= :now "
        sql += "ORDER BY priority, created, place LIMIT :limit"
        return map(Row._make, self._stream(sql, {"now": micros(now), "limit": -1 if limit is None else limit}))

    def rows(self, choice: Choice, now: datetime) -> Iterator[Row]:
        """The rows of what was asked for: the best match first where words were, else in the order of the ids.

        Of more than two thousand beads with these words the best of two thousand come. Where a part of a molecule
        stands is not kept, so that a choice of a state lets through all parts that could stand so, and the limit is
        the caller's to keep then.
        """
        values: dict[str, Any] = {"now": micros(now), "limit": -1 if choice.limit is None else choice.limit}
        those = " AND ".join(conditions(choice, values))
        if choice.state is None:
            return self._chosen(choice, those, values)
        values |= {"state": choice.state, "limit": -1}
        units = f"{KIND} = :state AND {MAY_STAND_SO.get(choice.state, 'kind = :state')}"
        if choice.text:
            return self._chosen(choice, f"{those} AND ({units} OR {PART_STANDS_SO})", values)
        # Each comes in the order of an index, where one condition for both would take a look at every bead.
        found = self._chosen(choice, f"{those} AND {units}", values)
        if choice.limit is not None:
            some = list(islice(found, choice.limit))
            found = iter(some)
            if some and len(some) == choice.limit:
                # There may be hundreds of thousands of parts, none of which stands so. Those further on are too late.
                values |= {"last": natural(some[-1].id)}
                those += " AND place < :last"
        parts = self._chosen(choice, f"{those} AND {PART_STANDS_SO}", values)
        return heapq.merge(found, parts, key=lambda row: natural(row.id))

    def _chosen(self, choice: Choice, conditions: str, values: dict[str, Any]) -> Iterator[Row]:
        source, order = "beads", "place"
        if choice.text:
            values["text"] = match(choice.text)
            hits = f"words CROSS JOIN beads ON n = words.rowid WHERE words MATCH :text AND {conditions}"
            hits = f"SELECT n AS hit, rank AS good FROM {hits} LIMIT {_RANKED_MAX}"
            source, order, conditions = f"({hits}) CROSS JOIN beads ON n = hit", "good, place", "TRUE"
        elif choice.labels:
            source, order = "labels CROSS JOIN beads USING (n)", "at"
            conditions += " AND label = :label0" + (" AND at > :after" if choice.after is not None else "")
        sql = f"{_ROW} FROM {source} WHERE {conditions} ORDER BY {order} LIMIT :limit"
        return map(Row._make, self._stream(sql, values))

    def standing(self, kind: str, now: datetime) -> Iterator[Bead]:
        """The units that stand so at ``now``, in the order of the ids; what waits for itself is ``blocked`` here."""
        which = f"{KIND} = :state AND {MAY_STAND_SO.get(kind, 'kind = :state')} AND status <> 'closed'"
        values = {"now": micros(now), "state": kind}
        return self._beads(f"SELECT id, oid, data FROM beads WHERE {which} ORDER BY place", values)

    def waits(self, now: datetime) -> dict[str, list[str]]:
        """What each unit that is blocked at ``now`` waits for; their beads are not looked at."""
        sql = f"SELECT id, waits FROM beads WHERE kind = 'blocked' AND status <> 'closed' AND {KIND} = 'blocked'"
        return {bead_id: (waits or "").split() for bead_id, waits in self._stream(sql, {"now": micros(now)})}

    def counts(self, now: datetime) -> dict[str, dict[str, int]]:
        """How many beads there are of each status, state, type and outcome; deleted ones do not count.

        A state is where a unit stands: parts of molecules are not counted among them.
        """
        sql = f"""SELECT status, {KIND}, type, outcome, 1 FROM beads WHERE held > 0 OR deferred > 0
        UNION ALL SELECT * FROM counts"""
        found: dict[str, dict[str, int]] = {"status": {}, "state": {}, "type": {}, "outcome": {}}
        for *whats, number in self._all(sql, {"now": micros(now)}):
            for counts, what in zip(found.values(), whats, strict=True):
                if what and number and whats[-1] != "deleted":
                    counts[what] = counts.get(what, 0) + number
        return found

    def progress(self, bead_id: str) -> tuple[int, int]:
        """How many parts a bead has, and how many of them are closed; merge requests do not count."""
        sql = "SELECT count(*), total(status = 'closed') FROM beads WHERE parent = ? AND NOT merge"
        total, closed = self._all(f"{sql} AND outcome IS NOT 'deleted'", (bead_id,))[0]
        return int(total), int(closed)

    def dependent_count(self, bead_id: str) -> int:
        """How many beads are related to this one."""
        sql = "SELECT (SELECT count(*) FROM edges WHERE target = :id) + (SELECT count(*) FROM beads WHERE parent = :id)"
        return int(self._all(sql, {"id": bead_id})[0][0])

    def parts(self, bead_id: str) -> Iterator[Part]:
        """The steps of a molecule, in the order of their ids; deleted ones left out."""
        sql = "SELECT id, data, status, outcome, link FROM beads WHERE parent = ? AND type = 'step'"
        return map(Part._make, self._stream(f"{sql} AND outcome IS NOT 'deleted' ORDER BY place", (bead_id,)))

    def part_ids(self, bead_id: str) -> list[str]:
        """The ids of the beads whose parent it is."""
        return [row[0] for row in self._stream("SELECT id FROM beads WHERE parent = ? ORDER BY place", (bead_id,))]

    def ids(self, beginning: str = "", limit: int = -1) -> list[tuple[str, bytes]]:
        """The ids that begin so, and their blobs."""
        # Every character of an id comes before a tilde.
        sql = "SELECT id, data FROM beads WHERE id >= ? AND id < ? AND outcome IS NOT 'deleted' ORDER BY id LIMIT ?"
        return self._all(sql, (beginning, f"{beginning}~", limit))

    def row(self, bead_id: str, now: datetime) -> Row | None:
        """The row of a bead."""
        found = self._all(f"{_ROW} FROM beads WHERE id = :id", {"id": bead_id, "now": micros(now)})
        return Row._make(found[0]) if found else None

    def tree(self, path: str | None) -> bytes | None:
        """The content of one of the store's trees, or without a path of its newest commit.

        Whether it is what was written is for the caller to find out, who knows its id.
        """
        found = list(self._stream("SELECT raw FROM trees WHERE place = ?", (place_of(path),)))
        return cast("bytes", found[0][0]) if found else None

    def near(self, paths: Iterable[str]) -> Callable[[str | None], bytes | None]:
        """:meth:`tree`, for one who goes to these files and asks for all that is on the way there."""
        places = {place: above for above in {path.rpartition("/")[0] for path in paths} if (place := place_of(above))}
        if len(places) < _SEVERAL:
            return self.tree
        sql = "SELECT place, raw FROM json_each(?) CROSS JOIN trees ON place = value"
        there = {places[place]: raw for place, raw in self._stream(sql, (json.dumps(sorted(places)),))}
        return lambda path: (there.get(path) if path else None) or self.tree(path)

    def blob(self, bead_id: str) -> Oid | None:
        """The id of the blob that a bead is in."""
        here = self._here.get(bead_id)
        if here is not None:
            return cast("Oid", here[0].hex()) if here[0] is not None else None
        found = self._all("SELECT oid FROM beads WHERE id = ?", (bead_id,))
        return cast("Oid", found[0][0].hex()) if found else None

    def select(self, sql: str, values: Mapping[str, object]) -> list[Any]:
        """All rows of an answer, for what knows tables of its own (``beads/spending.py``)."""
        return self._all(sql, values)

    def strangers(self, ids: Sequence[str]) -> frozenset[str]:
        """Those of the ids that no bead has, and that no bead names; asked of many at once."""
        sql = """SELECT value FROM json_each(?) WHERE NOT EXISTS (SELECT 1 FROM beads WHERE id = value)
        AND NOT EXISTS (SELECT 1 FROM beads WHERE parent = value)
        AND NOT EXISTS (SELECT 1 FROM edges WHERE target = value)"""
        return frozenset(row[0] for row in self._stream(sql, (json.dumps(ids),)))

    def _beads(self, sql: str, values: Any = ()) -> Iterator[Bead]:
        return (self._bead(*row) for row in self._stream(sql, values))

    def _all(self, sql: str, values: Any = ()) -> list[Any]:
        """All rows of an answer, which is the same however often it is asked for."""
        key = (sql, tuple(values.values()) if isinstance(values, dict) else values)
        found = self._answers.get(key)
        if found is None:
            found = list(self._stream(sql, values))
            if len(found) <= _ROWS_MAX:
                self._answers.put(key, found)
        return found

    def _stream(self, sql: str, values: Any = ()) -> Iterator[Any]:
        given = 0
        try:
            for row in self._connection.execute(sql, values):
                given += 1
                yield row
            return
        except UnicodeEncodeError:
            # What is no text, such as an argument that is no UTF-8, is in no bead.
            return
        except sqlite3.DatabaseError as error:
            self._mend(error)
        # The same question of the same state has the same answer, of which a part was given.
        yield from islice(self._connection.execute(sql, values), given, None)

    def _mend(self, error: object) -> None:
        """Go on with another connection to the same state, for once."""
        if self.mend is None:
            raise Damaged(f"the index cannot be read: {error}", "Remove it; it is made anew.")
        mend, self.mend = self.mend, None
        self._connection = mend()
        self._answers.clear()
        self._here.clear()
        self._alone.clear()

    def _bead(self, bead_id: str, oid: bytes, data: Any) -> Bead:
        bead = self._known.get(oid)
        if bead is None:
            if not data:
                raise Unreadable(f"{path_of(bead_id)} cannot be read: object {oid.hex()} is missing", "Run `git fsck`.")
            # Not what Git has is not what anybody wrote.
            if not isinstance(data, bytes) or raw(b"blob", data).oid != oid.hex():
                self._mend(f"the row of {bead_id} is damaged")
                [row] = self._all("SELECT id, oid, data FROM beads WHERE id = ?", (bead_id,))
                return self._bead(*row)
            from beads.model import read_bead

            bead = read_bead(data, path_of(bead_id))
            self._known.put(oid, bead)
        if bead.id != bead_id:
            raise Unreadable(f"{path_of(bead_id)} holds bead {bead.id}, which belongs elsewhere", "Run `bead doctor`.")
        self._here.put(bead_id, (oid, bead))
        return bead


class Damaged(Unreadable):
    """The index is not as it was written."""


def micros(moment: datetime | None) -> int:
    """A moment as a number to compare: microseconds since 1970; 0 for none."""
    if moment is None:
        return 0
    since = moment - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


class Index:
    """The file with the index, and the connections to it.

    Args:
        path: where it is, or is to be.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._name = str(path)
        self._idle: list[sqlite3.Connection] = []
        self._writer: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None

    def pin(self) -> tuple[sqlite3.Connection, dict[str, Any]] | None:
        """A connection that sees the index as it is now and goes on to, and what it says of itself.

        That is which ``commit`` it is of, and that commit's ``format.toml``. None when there is no index that can be
        read. Give the connection back with :meth:`release`.
        """
        try:
            here = os.stat(self._name)
        except OSError:
            return None
        if (here.st_dev, here.st_ino) != self._file:
            # It was made anew, by us or by another process.
            self.close()
            self._file = here.st_dev, here.st_ino
        connection: sqlite3.Connection | None = None
        with contextlib.suppress(sqlite3.DatabaseError):
            connection = self._idle.pop() if self._idle else connect(self.path)
            connection.execute("BEGIN")
            said = dict(connection.execute("SELECT key, value FROM meta"))
            if said.get("version") == VERSION and "commit" in said and "format" in said:
                return connection, said
        if connection is not None:
            connection.close()
        return None

    @contextlib.contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction that writes, committed when the block ends without an error.

        Raises:
            sqlite3.Error: it cannot be written, or somebody else has done so for too long.
        """
        connection = self._writer
        if connection is None:
            # One that was just read with knows the tables already.
            connection = self._writer = self._idle.pop() if self._idle else connect(self.path)
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
            connection.execute("COMMIT")
        except BaseException:
            connection.rollback()
            raise

    def release(self, connection: sqlite3.Connection) -> None:
        """Take back a connection that was pinned."""
        with contextlib.suppress(sqlite3.Error):
            connection.rollback()
            if len(self._idle) < _IDLE_MAX:
                self._idle.append(connection)
                return
        connection.close()

    def discard(self) -> None:
        """Throw the index away; it is made anew at the next look."""
        with contextlib.suppress(OSError):
            self.path.unlink()

    def close(self) -> None:
        """Close the connections that nobody uses."""
        while self._idle:
            self._idle.pop().close()
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def connect(path: Path | None) -> sqlite3.Connection:
    """A connection to the index at ``path``, or to an empty one that nobody else sees.

    Raises:
        sqlite3.Error: there is none, or it cannot be opened.
    """
    if path is None:
        # In memory, and in a temporary file when it becomes larger than what SQLite keeps there.
        return _connect("")
    uri = path.absolute().as_uri()
    connection = _connect(f"{uri}?mode=rw")
    try:
        # Not waiting for the disk: after a power cut it may be of an older commit, and goes on from there.
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA wal_autocheckpoint = 4000")
        connection.execute("PRAGMA journal_size_limit = 32000000")
        connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchone()
    except sqlite3.OperationalError:
        connection.close()
        # Where nothing can be written, not even a journal, what is there can still be read.
        connection = _connect(f"{uri}?mode=ro&immutable=1")
    return connection


def _connect(place: str) -> sqlite3.Connection:
    return sqlite3.connect(place, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False, uri=True)
