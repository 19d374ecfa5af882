"""The index: whatever happens to it, the answers are those of Git."""

from __future__ import annotations

import fcntl
import sqlite3
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beads import graph, indexing, spending
from beads.git import Repository
from beads.history import undoing
from beads.index import Choice, Reader, connect, micros
from beads.indexing import SCHEMA, Update, advance_by
from beads.model import (
    BLOCKING,
    Attempt,
    Bead,
    Criterion,
    Dependency,
    Evidence,
    Lease,
    MergeRequest,
    Usage,
    write_bead,
)
from beads.objects import Oid, raw
from beads.ops import Begin, Claim, Close, Create, Depend, Label, Release, Say
from beads.ops import Update as UpdateBead
from beads.recent import Recent
from beads.store import Store
from tests.beads.clocks import Virtual
from tests.beads.clones import Clone, make_hub
from tests.beads.strategies import NOW, OUTCOMES, STATUSES, Beads, bead, needs, part_of

# --- kept up to date -------------------------------------------------------------------------------------------

_few = st.sampled_from(["a", "b", "c", "a.1", "a.2", "b.m1", "a.10"])
_types = st.sampled_from([*sorted(BLOCKING), "parent-child", "blocks", "related"])
_edges = st.lists(st.builds(Dependency, on=_few, type=_types), max_size=3).map(tuple)
_moments = st.sampled_from([NOW - timedelta(days=1), NOW, NOW + timedelta(hours=1), NOW + timedelta(days=1)])
_words = st.sampled_from(["", "alpha beta", "BETA gamma", "naïve ä-ö", 'quo"ted (x OR y)'])
_money = st.none() | st.sampled_from([0.0, 0.25, 1.5])
_attempts = st.lists(
    st.builds(
        Attempt,
        number=st.integers(1, 2),
        epoch=st.just(1),
        worker=st.just("w"),
        runtime=st.sampled_from(["claude", "local"]),
        model=st.sampled_from(["", "big"]),
        started_at=_moments,
        ended_at=st.none() | _moments,
        ending=st.sampled_from([None, "finished", "quota", "provider_unavailable", "limits"]),
        until=st.none() | _moments,
        cost=_money,
        budget=_money,
        usage=st.none() | st.builds(Usage, input=st.integers(0, 9), cached=st.integers(0, 9), output=st.integers(0, 9)),
    ),
    max_size=3,
).map(tuple)
_evidence = st.lists(
    st.builds(
        Evidence,
        id=st.sampled_from("xyz"),
        subject=st.sampled_from(["review: kind?", "run: true"]),
        verdict=st.sampled_from(["pass", "error"]),
        digest=st.sampled_from(["", "sha256:0"]),
        cost=_money,
        at=_moments,
    ),
    max_size=2,
).map(tuple)
_TYPES = ["task", "molecule", "step", "step", "merge-request", "epic", "message", "proposal"]
_fields = st.fixed_dictionaries(
    {"dependencies": _edges, "status": st.sampled_from(STATUSES)},
    optional={
        "issue_type": st.sampled_from(_TYPES),
        "outcome": st.sampled_from([None, *OUTCOMES]),
        "priority": st.integers(0, 2),
        "created_at": _moments,
        "defer_until": _moments,
        "lease": st.builds(
            Lease, worker=st.just("w"), epoch=st.just(1), site=st.just("s"), since=st.just(NOW), until=_moments
        ),
        "merge": st.just(MergeRequest(molecule="a", branch="b", head="c", base="d")),
        "criteria": st.just((Criterion(run="true"),)),
        "labels": st.lists(st.sampled_from(["x", "y"]), unique=True, max_size=2).map(tuple),
        "assignee": st.sampled_from(["ada", "nux"]),
        "description": _words,
        "seal": st.just("sha256:wrong"),
        "attempts": _attempts,
        "evidence": _evidence,
    },
)
_transactions = st.lists(st.dictionaries(_few, st.none() | _fields, max_size=3), max_size=5)


def _update(bead_id: str, old: Bead | None, new: Bead | None) -> Update:
    data = write_bead(new) if new else b""
    return Update(bead_id, old, new, raw(b"blob", data).oid if new else None, data)


def _indexed(transactions: list[dict[str, Any]]) -> tuple[Reader, Beads]:
    """An index that was kept up to date through these transactions, and what it must answer like."""
    connection, view, known = connect(None), Beads(), Recent[bytes, Bead]()
    connection.executescript(SCHEMA)
    for number, said in enumerate(transactions):
        new = {bead_id: None if fields is None else bead(bead_id, **fields) for bead_id, fields in said.items()}
        updates = [_update(bead_id, view.get(bead_id), found) for bead_id, found in new.items()]
        advance_by(connection, updates, [], Oid(f"{number:040}"), known)
        view = Beads(found for found in {**view.beads, **new}.values() if found is not None)
    return Reader(connection, Recent()), view


@given(_transactions, _moments)
def test_an_index_that_is_kept_up_to_date_answers_as_looking_at_everything_does(
    transactions: list[dict[str, Any]], now: datetime
) -> None:
    index, view = _indexed(transactions)
    assert list(index) == list(view)
    assert len(index) == len(view.beads)
    assert list(index.unclosed()) == list(view.unclosed())
    assert list(index.requests()) == list(view.requests())
    assert list(index.ready(now)) == graph.ready(view, now)
    for bead_id in ("a", "b", "c", "a.1", "gone", "\ud800"):
        assert index.get(bead_id) == view.get(bead_id)
        assert index.children(bead_id) == list(view.children(bead_id))
        assert index.merges(bead_id) == list(view.merges(bead_id))
        for unclosed in (False, True):
            assert list(index.steps(bead_id, unclosed=unclosed)) == list(view.steps(bead_id, unclosed=unclosed))
        assert index.dependents(bead_id) == list(view.dependents(bead_id))
    for row in index.rows(Choice(closed=True), now):
        found = view.beads[row.id]
        if not graph.is_unit(found):
            assert row.kind is None
            continue
        state = graph._state(view, found, now)
        assert row.kind == state.kind
        if state.kind in ("ready", "blocked", "needs_person", "closed"):
            assert (row.reason, tuple((row.waits or "").split())) == (state.reason, state.waits_for)


@given(_transactions, st.sampled_from(["alpha", "bet", "BETA", "NAIVE", 'quo"ted', "(x OR", "a.1", "zzz", "*"]))
def test_words_are_found_where_they_begin_words(transactions: list[dict[str, Any]], text: str) -> None:
    index, view = _indexed(transactions)
    there = {"alpha": "alpha", "bet": "beta", "BETA": "beta", "NAIVE": "naïve", "(x OR": "(x or"}
    found = {row.id for row in index.rows(Choice(text=text, closed=True), NOW)}
    for bead_ in view:
        if text in there and not bead_.deleted:
            assert (bead_.id in found) == (there[text] in bead_.description.casefold())
        elif text in ("zzz", "*"):
            assert bead_.id not in found


@given(_transactions, st.sampled_from([None, "open", "closed"]), st.sampled_from([None, "x"]), st.booleans())
def test_a_choice_is_what_all_its_conditions_hold_for(
    transactions: list[dict[str, Any]], status: str | None, label: str | None, closed: bool
) -> None:
    index, view = _indexed(transactions)
    choice = Choice(status=status, labels=(label,) if label else (), assignee="ada", closed=closed, after="a", limit=2)
    expected = [
        found.id
        for found in view
        if found.assignee == "ada"
        and status in (None, found.status)
        and (label is None or label in found.labels)
        and (closed or status == "closed" or not found.closed)
        and not found.deleted
        and graph.natural(found.id) > graph.natural("a")
    ]
    assert [row.id for row in index.rows(choice, NOW)] == expected[:2]


@given(
    _transactions,
    st.sampled_from(get_args(graph.Kind)),
    st.sampled_from(["", "alpha"]),
    _moments,
    st.sampled_from([None, 0, 1, 2, 3]),
)
def test_a_choice_of_a_state_leaves_out_none_that_stands_so(
    transactions: list[dict[str, Any]], kind: str, text: str, now: datetime, limit: int | None
) -> None:
    index, view = _indexed(transactions)
    rows = list(index.rows(Choice(state=kind, text=text, limit=limit), now))
    there = [found for found in view if not found.deleted and text in found.description]
    expected = [found.id for found in there if graph._state(view, found, now).kind == kind]
    found = [row.id for row in rows if graph._state(view, view.beads[row.id], now).kind == kind]
    if text:
        assert sorted(found) == sorted(expected)
    else:
        assert found[:limit] == expected[:limit]
    assert {row.kind for row in rows} <= {kind, None}


@pytest.mark.parametrize("kind", ["ready", "blocked"])
def test_to_find_the_first_that_stand_so_the_parts_after_them_are_not_looked_at(kind: str) -> None:
    def effort(molecules: int) -> int:
        """How much SQLite does to find five, in its own instructions."""
        ids = [f"b{number}" for number in range(1, 11)]
        said: dict[str, Any] = {bead_id: {"dependencies": needs("a")} if kind == "blocked" else {} for bead_id in ids}
        for number in range(molecules):
            said[f"m{number}"] = {"issue_type": "molecule", "status": "deferred"}
            said |= {f"m{number}.{n}": {"issue_type": "step", "dependencies": part_of(f"m{number}")} for n in (1, 2)}
        index, _ = _indexed([{"a": {}, **said}])
        count = 0

        def tick() -> int:
            nonlocal count
            count += 1
            return 0

        index._connection.set_progress_handler(tick, 1)
        assert len([row for row in index.rows(Choice(state=kind, limit=5), NOW) if row.kind == kind][:5]) == 5
        return count

    assert effort(10) == effort(100)


@given(_transactions, _moments)
def test_counts_and_progress_are_those_of_the_beads(transactions: list[dict[str, Any]], now: datetime) -> None:
    index, view = _indexed(transactions)
    there = [found for found in view if not found.deleted]
    counts = index.counts(now)
    assert counts["status"] == Counter(found.status for found in there)
    assert counts["type"] == Counter(found.issue_type for found in there)
    assert counts["outcome"] == Counter(found.outcome for found in there if found.outcome)
    assert counts["state"] == Counter(graph._state(view, found, now).kind for found in there if graph.is_unit(found))
    parts = [found for found in there if found.parent == "a" and found.merge is None]
    assert index.progress("a") == (len(parts), sum(found.closed for found in parts))


def _what(item: spending.Item, by: spending.By) -> str:
    day = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=item.at)).date()
    return str(day) if by == "day" else str(getattr(item, by))


@given(_transactions, st.sampled_from(get_args(spending.By)), st.none() | _moments)
def test_what_work_has_cost_is_what_the_beads_say(
    transactions: list[dict[str, Any]], by: spending.By, since: datetime | None
) -> None:
    index, view = _indexed(transactions)
    items = [item for found in view for item in spending.items(found)]
    assert Counter(map(tuple, index.select("SELECT * FROM spending", {}))) == Counter(map(tuple, items))
    chosen = [item for item in items if since is None or item.at >= micros(since)]
    expected = []
    for what in sorted({_what(item, by) for item in chosen}):
        some = [item for item in chosen if _what(item, by) == what]
        sent, cached, written, made = (
            sum(getattr(i, name) or 0 for i in some) for name in ("input", "cached", "written", "output")
        )
        reviews, unpriced = sum(item.review for item in some), sum(item.cost is None for item in some)
        cost = sum(item.cost or 0.0 for item in some)
        expected.append(spending.Cost(what, len(some) - reviews, reviews, sent, cached, written, made, cost, unpriced))
    assert spending.costs(index, by, since) == expected


@given(_transactions, st.booleans())
def test_what_is_done_has_taken_what_its_bead_says(transactions: list[dict[str, Any]], reviews: bool) -> None:
    index, view = _indexed(transactions)
    expected: dict[str, list[spending.Spent]] = {}
    for found in view:
        mine = sorted((i for i in spending.items(found) if i.review == reviews), key=lambda item: item.at)
        if mine and found.closed and found.outcome in ("done", "landed"):
            cost = sum(item.cost or 0.0 for item in mine) if all(i.cost is not None for i in mine) else None
            known = all(item.input is not None and item.output is not None for item in mine)
            tokens = sum((item.input or 0) + (item.output or 0) for item in mine) if known else None
            expected.setdefault(mine[0].agent, []).append(spending.Spent(cost, tokens))
    for agent in {item.agent for found in view for item in spending.items(found) if item.review == reviews}:
        assert Counter(spending.of_done(index, agent, 1000)) == Counter(expected.get(agent, []))


@given(_transactions, _moments)
def test_the_books_are_those_of_the_beads(transactions: list[dict[str, Any]], now: datetime) -> None:
    index, view = _indexed(transactions)
    items = [item for found in view for item in spending.items(found)]
    books = spending.books(index, now)
    today = [item for item in items if item.at >= micros(spending.day_of(now))]
    assert set(books.today) == {item.agent for item in today}
    for agent, day in books.today.items():
        mine = [item for item in today if item.agent == agent]
        assert day.cost == sum(item.cost or 0.0 for item in mine)
        assert day.tokens == sum((item.input or 0) + (item.output or 0) for item in mine)
    held = {found.id for found in view if found.lease}
    running = [i for i in items if i.ended == 0 and i.ending is None and i.molecule in held]
    assert sorted((one.agent, one.molecule) for one in books.running) == sorted((i.agent, i.molecule) for i in running)
    for agent in ("claude", "local"):
        mine = [item for item in items if item.agent == agent]
        served = max((item.at for item in mine if item.ending == "finished"), default=None)
        waits = [i for i in mine if i.until and i.until > micros(now)]
        waits = [i for i in waits if served is None or max(i.at, i.ended) >= served]
        until = books.parked[agent].until if agent in books.parked else None
        assert micros(until) == max((i.until for i in waits if i.until), default=0)


# --- damaged ---------------------------------------------------------------------------------------------------


@pytest.fixture
def store(repo: Path) -> Store:
    """A store with an index and something in it."""
    store = Store.init(repo, "ada")
    made = [bead("e", issue_type="epic"), bead("e.1", dependencies=part_of("e")), bead("b", dependencies=needs("e.1"))]
    store.commit("ada", [Create(bead=one) for one in made])
    store.commit("ada", [Say(id="b", text="hear, hear"), Label(id="b", add=("x",))])
    assert index_of(store).is_file()
    return store


def index_of(store: Store) -> Path:
    return store.directory / "index.db"


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[100:4000] = bytes(byte ^ 0x55 for byte in data[100:4000])
    path.write_bytes(data)


def _execute(sql: str) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        with sqlite3.connect(path) as connection:
            connection.executescript(sql)

    return damage


def _directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGE: dict[str, Callable[[Path], object]] = {
    "nothing there": lambda path: path.unlink(),
    "garbage": lambda path: path.write_bytes(b"garbage" * 1000),
    "empty": lambda path: path.write_bytes(b""),
    "cut off": lambda path: path.write_bytes(path.read_bytes()[:5000]),
    "flipped": _flip,
    "a directory": _directory,
    "another version": _execute("UPDATE meta SET value = 99 WHERE key = 'version'"),
    "no version": _execute("DELETE FROM meta"),
    "no such table": _execute("DROP TABLE meta"),
    "no such table, later": _execute("DROP TABLE beads"),
    "a commit that is gone": _execute(f"UPDATE meta SET value = '{'1' * 40}' WHERE key = 'commit'"),
    "a row that is not the bead": _execute("UPDATE beads SET data = replace(data, 'work', 'play') WHERE id = 'b'"),
    "a tree that is none": _execute("UPDATE trees SET raw = x'00'"),
}


def _answers(store: Store) -> list[object]:
    snapshot = store.snapshot()
    ready = [found.id for found in snapshot.ready(NOW + timedelta(days=9999))]
    words = [row.id for row in snapshot.rows(Choice(text="hear"), NOW)]
    return [list(snapshot), ready, words, snapshot.children("e"), snapshot.dependents("e.1"), snapshot.get("b")]


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_index_is_made_anew_and_nobody_notices(store: Store, name: str) -> None:
    expected = _answers(store)
    store._index.close()
    for suffix in ("-wal", "-shm"):
        assert not index_of(store).with_name(f"index.db{suffix}").exists(), "somebody still has it open"
    DAMAGE[name](index_of(store))
    other = Store.open(store.repository.common)
    assert _answers(other) == expected
    assert other.commit("nux", [Claim(worker="nux", id="e.1")]).beads[0]
    assert other.commit("nux", [Depend(id="b", on="e"), UpdateBead(id="e", priority=0)]).changed
    found = _answers(Store.open(store.repository.common))
    index_of(store).unlink() if name != "a directory" else None
    assert _answers(Store.open(store.repository.common)) == found


def _content(path: Path) -> dict[str, list[Any]]:
    """Everything in an index, whatever order it was put in."""
    columns = {
        "beads": "id, place, oid, status, outcome, type, parent, kind, held, deferred, reason, waits, data",
        "edges": "*",
        "trees": "*",
        "counts WHERE number > 0": "*",
        "spending": "*",
        "labels JOIN beads USING (n)": "label, at, id",
    }
    with closing(sqlite3.connect(path)) as connection:
        return {
            name: sorted(connection.execute(f"SELECT {said} FROM {name}"), key=str) for name, said in columns.items()
        }


@pytest.mark.parametrize("batch", [2, 1000])
def test_it_is_the_same_made_anew_kept_up_to_date_and_brought_up_to_date(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    monkeypatch.setattr(indexing, "_BATCH", batch)
    with closing(sqlite3.connect(index_of(store))) as connection, closing(sqlite3.connect(tmp_path / "old")) as copy:
        connection.backup(copy)
    store.commit("nux", [Claim(worker="nux", id="e.1"), UpdateBead(id="e", priority=0), Label(id="b", remove=("x",))])
    store.commit("nux", [Begin(id="e.1", worker="nux", epoch=1, runtime="claude", cost=0.5)])
    store.commit("nux", [Release(id="e.1", worker="nux", epoch=1)])
    steps = [bead(f"e.{n}", issue_type="step", dependencies=part_of("e"), labels=("y",)) for n in range(2, 8)]
    store.commit("ada", [Create(bead=step) for step in steps])
    store.commit("ada", [Close(id="e.3", force=True, reason="over"), Depend(id="e", on="b", type="related")])
    store._index.close()
    kept = _content(index_of(store))
    index_of(store).write_bytes((tmp_path / "old").read_bytes())
    assert Store.open(store.repository.common).snapshot().need("e.3").closed
    assert _content(index_of(store)) == kept
    index_of(store).unlink()
    assert Store.open(store.repository.common).snapshot().need("e.3").closed
    assert _content(index_of(store)) == kept


def test_what_two_clones_have_spent_is_known_in_both_once_they_have_met(tmp_path: Path) -> None:
    hub = make_hub(tmp_path)
    ada, bob = (Clone.make(hub, name, tmp_path) for name in ("ada", "bob"))
    ada.begin()
    ada.sync()
    bob.sync()
    for clone, bead_id, cost in ((ada, "bt-1", 0.25), (bob, "bt-2", 0.5)):
        clone.do(Claim(id=bead_id, worker=clone.name, site=clone.name))
        clone.do(Begin(id=bead_id, worker=clone.name, epoch=1, runtime="claude", cost=cost))
    for clone in (ada, bob, ada):
        clone.sync()
    for clone in (ada, bob):
        (found,) = spending.costs(clone.store.snapshot(), "agent")
        assert (found.what, found.attempts, found.cost) == ("claude", 2, 0.75)
        assert [one.molecule for one in spending.books(clone.store.snapshot(), NOW).running] == ["bt-1", "bt-2"]


def test_undoing_what_was_done_with_a_bead_takes_back_no_cost(store: Store) -> None:
    store.commit("nux", [Claim(id="e.1", worker="nux")])
    store.commit("nux", [Begin(id="e.1", worker="nux", epoch=1, runtime="claude", cost=0.5)])
    store.commit("nux", [Release(id="e.1", worker="nux", epoch=1)])
    closed = store.commit("ada", [Close(id="e.1", outcome="cancelled", reason="no")]).snapshot
    back = undoing(store.repository, closed.commit, closed, closed.commit)
    assert back is not None
    store.commit("ada", [back])
    assert not store.snapshot().need("e.1").closed
    assert [one.cost for one in spending.costs(store.snapshot(), "molecule")] == [0.5]


def test_an_index_that_says_less_than_git_has_loses_nothing(store: Store) -> None:
    store._index.close()
    _execute("UPDATE beads SET oid = x'00', data = x'00' WHERE id = 'b'")(index_of(store))
    other = Store.open(store.repository.common)
    assert other.commit("nux", [Label(id="b", add=("y",))]).changed
    assert other.snapshot().need("b").labels == ("x", "y")
    assert len(other.snapshot().need("b").comments) == 1


def test_it_is_thrown_away_while_somebody_reads_it(store: Store) -> None:
    before = store.snapshot()
    index_of(store).unlink()
    Store.open(store.repository.common).commit("nux", [Say(id="e", text="x")])
    assert before.need("e").comments == ()
    assert len(store.snapshot().need("e").comments) == 1
    assert store.commit("ada", [Say(id="e", text="y")]).changed
    assert len(Store.open(store.repository.common).snapshot().need("e").comments) == 2


def test_a_snapshot_sees_nothing_of_what_comes_later(store: Store) -> None:
    before = store.snapshot()
    said = _answers(store)
    other = Store.open(store.repository.common)
    for number in range(5):
        other.commit("nux", [Say(id="b", text=f"{number}")])
    ready = [found.id for found in before.ready(NOW + timedelta(days=9999))]
    assert [list(before), ready] == said[:2]


@pytest.mark.parametrize("kind", ["task", "step"])
def test_to_close_one_of_many_parts_none_of_the_others_is_read(store: Store, kind: str) -> None:
    parts = [bead(f"m.{n}", issue_type=kind, dependencies=part_of("m")) for n in range(1, 200)]
    store.commit("ada", [Create(bead=bead("m", issue_type="molecule")), *(Create(bead=part) for part in parts)])
    other = Store.open(store.repository.common)
    other.commit("ada", [Close(id="m.1", force=True, reason="over")])
    other.commit("ada", [Close(id="m", force=True, reason="over")])
    assert other.snapshot().need("m").closed
    assert len(other._known) < 10


def test_the_past_is_the_newest_state_and_what_differs(store: Store) -> None:
    store.commit("ada", [Create(bead=bead(f"g{number}")) for number in range(50)])
    head, before = store.snapshot().commit, _answers(store)
    store.commit("nux", [Claim(worker="nux", id="e.1"), UpdateBead(id="e", title="anew"), Create(bead=bead("f"))])
    other = Store.open(store.repository.common)
    past = other.snapshot_at(head)
    assert len(other._known) < 10
    assert list(past) == before[0]
    assert (past.children("e"), past.dependents("e.1"), past.get("f")) == (*before[3:5], None)
    index_of(store).unlink()
    assert list(Store.open(store.repository.common).snapshot_at(head)) == before[0]


def test_who_waits_for_it_is_told_how_far_it_is(store: Store) -> None:
    told: list[str] = []
    store.repository.tell = told.append
    count = len(store.snapshot())
    assert told == []
    store._index.discard()
    assert len(store.snapshot()) == count
    assert told[0] == f"making the index: {count} beads"
    assert told[-1] == ""


def test_who_makes_it_does_not_keep_all_packs_in_memory(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexing, "_BATCH", 1)
    other = Store.open(store.repository.common)
    mapped = list[int]()
    other.repository.tell = lambda _: mapped.append(len(other.repository.objects._packs))
    store._index.discard()
    assert list(other.snapshot()) == list(store.snapshot_at(store.head()))
    assert mapped[:3] == [0, 0, 0]


@pytest.mark.parametrize("grows", [True, False])
def test_another_one_that_makes_it_is_waited_for_as_long_as_it_gets_on(store: Store, grows: bool) -> None:
    clock, told, sizes = Virtual(), list[str](), list[int]()
    waiting = Store(Repository(store.repository.common, clock), clock)
    waiting.repository.tell = told.append
    store._index.discard()
    new = store.directory / "index.1.new"
    with (store.directory / "indexer").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)

        def get_on() -> None:
            if clock.elapsed > 200:
                fcntl.flock(lock, fcntl.LOCK_UN)
            elif grows and int(clock.elapsed) > len(sizes):
                sizes.append(new.write_bytes(bytes(int(clock.elapsed))))

        clock.meanwhile = get_on
        assert [bead.id for bead in waiting.snapshot()] == [bead.id for bead in store.snapshot_at(waiting.head())]
    assert clock.elapsed > 200 if grows else 30 <= clock.elapsed < 31
    assert ("waiting for the index, which another process is making" in told) == grows
