"""Rows of bd in and out: nothing is lost, nothing is done twice, and what was edited here stays."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from beads import graph
from beads.errors import InvalidDocument
from beads.interchange.bd import bead_of, name_in, row_of
from beads.interchange.jsonl import Document, read
from beads.interchange.kept import holds, same
from beads.interchange.merge import adopted, changes
from beads.interchange.row import Row, our_id, word
from beads.model import Bead, Criterion, Dependency, check_id, path_of, read_bead, write_bead
from beads.ops import Claim, Close, Create, Delete, Depend, Import, Label, Operation, Reopen, Say, Update
from beads.store import Store
from tests.beads.strategies import NOW, WORDS, bead, beads, needs
from tests.world import ROOT, git

SAMPLE = Path(__file__).with_name("bd-sample.jsonl")
CORPUS = ROOT.parent / "shared" / "corpora" / "bd-export.jsonl"

T1, T2 = "2026-01-01T00:00:00.000000001Z", "2026-02-01T00:00:00Z"
LATER = NOW + timedelta(days=400)


@pytest.fixture
def store(repo: Path) -> Store:
    return Store.init(repo, "ada")


def row(bead_id: str = "ex-1", **facts: Any) -> dict[str, Any]:
    """A row with that id, and with as little said as can be; a value of ``...`` leaves a key out."""
    said = {"title": "One", "status": "open", "priority": 2, "issue_type": "task", "created_at": T1, "updated_at": T1}
    return {k: v for k, v in {"id": bead_id, **said, **facts}.items() if v is not ...}


def edge(bead_id: str, on: str, kind: str = "blocks", **facts: Any) -> dict[str, Any]:
    return {"issue_id": bead_id, "depends_on_id": on, "type": kind, "created_at": T1, "created_by": "x", **facts}


def lines(*rows: dict[str, Any]) -> list[bytes]:
    return [json.dumps(one).encode() + b"\n" for one in rows]


def parse(*rows: dict[str, Any]) -> Document:
    return read(lines(*rows), "f.jsonl")


def one(**facts: Any) -> Bead:
    """The bead of a row, as it is read back from the store."""
    return stored(bead_of(Row(row(**facts), "f.jsonl", 1)))


def stored(found: Bead) -> Bead:
    return read_bead(write_bead(found), "test")


def bring(store: Store, source: Iterable[bytes]) -> bool:
    """Import a file; says whether anything was changed."""
    document = read(source, "f.jsonl")
    return store.commit("ada", [Import(bead=found) for found in document.beads], "import").changed


def put(store: Store, *rows: dict[str, Any]) -> bool:
    return bring(store, lines(*rows))


def do(store: Store, *operations: Operation) -> Bead | None:
    return store.commit("ada", operations).beads[-1]


def out(store: Store) -> dict[Any, dict[str, Any]]:
    """The rows of a store by id, those of memories by key."""
    snapshot = Store.open(store.repository.common).snapshot()
    rows = [row_of(found, name_in(snapshot.get)) for found in snapshot]
    return {found.get("id") or found.get("key"): found for found in rows}


def rows_of(path: Path) -> list[dict[str, Any]]:
    text = path.read_text("utf-8").removeprefix("\ufeff")
    return [json.loads(line) for line in text.split("\n") if line.strip()]


def differences(before: Iterable[dict[str, Any]], after: dict[Any, dict[str, Any]]) -> list[Any]:
    """The keys of each row that did not come back as they were."""
    pairs = [(old, after.get(old.get("id") or old.get("key"), {})) for old in before]
    return [
        (old.get("id"), key, old.get(key, ...), new.get(key, ...))
        for old, new in pairs
        for key in old.keys() | new.keys()
        if key not in old or key not in new or not same(old[key], new[key])
    ]


@pytest.mark.parametrize("path", [SAMPLE, CORPUS], ids=["sample", "corpus"])
def test_every_row_comes_back_as_it_was_and_twice_changes_nothing(store: Store, path: Path) -> None:
    if not path.exists():
        pytest.skip(f"{path} is not there")
    with path.open("rb") as file:
        assert bring(store, file)
    assert not differences(rows_of(path), out(store))
    head = git(store.repository.common, "rev-parse", store.ref)
    with path.open("rb") as file:
        assert not bring(Store.open(store.repository.common), file)
    assert git(store.repository.common, "rev-parse", store.ref) == head


def test_each_irregularity_means_something(store: Store) -> None:
    with SAMPLE.open("rb") as file:
        bring(store, file)
    snapshot = store.snapshot()
    found = {b.id: b for b in snapshot}
    status = {i.removeprefix("ex-"): b.status for i, b in found.items()}
    assert status["hook"] == "in_progress"
    later = ["blocked", "pinned", "custom", "deferred", "gate", "mol-abc", "wisp-1", "wisp-2"]
    assert {status[name] for name in later} == {"deferred"}
    outcomes = {i.removeprefix("ex-"): b.outcome for i, b in found.items() if b.closed and b.issue_type != "memory"}
    assert outcomes == {
        "1c77": "done",
        "06px": "deleted",
        "failed": "rejected",
        "wontfix": "rejected",
        "noclose": "done",
    }
    assert found["ex-197b.1"].parent == "ex-197b"
    assert found["ex-alien"].parent == "ex-197b"
    assert found["ex-alien"].issue_type == "bd-merge-request"
    assert found["ex-convoy"].issue_type == "convoy"
    assert [(d.on, d.gate) for d in found["ex-waits"].dependencies] == [
        ("ex-197b", "any-children"),
        ("ex-mol-abc", "all-children"),
    ]
    assert found["ex-child-of-odd"].parent == our_id("ex odd/id")
    assert found[our_id("ex odd/id")].title == "An id that is none of ours"
    assert len({comment.id for comment in found["ex-0vu3q"].comments}) == 3
    assert found["ex-197b"].labels == ("z", "a")
    assert (found["ex-odd"].priority, found["ex-odd"].status, len(found["ex-odd"].title)) == (4, "open", 500)
    assert {b.title for b in found.values() if b.issue_type == "memory"} == {"build", "odd"}
    assert graph.state(snapshot, found["ex-ring-a"], NOW).kind == "needs_person"
    assert "ex-wisp-1" not in [b.id for b in graph.ready(snapshot, LATER)]


def test_what_has_no_field_is_readable_in_git(store: Store) -> None:
    with SAMPLE.open("rb") as file:
        bring(store, file)
    text = git(store.repository.common, "show", f"{store.ref}:{path_of('ex-now')}")
    assert 'owner = "ada@example.org"' in text
    assert 'created_at = "2026-01-16T07:21:09.280348123Z"' in text
    assert r"big\": 12345678901234567890" in git(store.repository.common, "show", f"{store.ref}:{path_of('ex-meta')}")


EDITS: list[tuple[list[Operation], dict[str, Any]]] = [
    ([Update(id="ex-1", title="Two")], {"title": "Two"}),
    ([Update(id="ex-1", description="")], {"description": ...}),
    ([Update(id="ex-1", priority=0, assignee="bob")], {"priority": 0, "assignee": "bob"}),
    ([Update(id="ex-1", status="in_progress")], {"status": "in_progress"}),
    ([Close(id="ex-1", reason="fixed")], {"status": "closed", "close_reason": "fixed", "closed_at": ...}),
    ([Close(id="ex-1", outcome="rejected")], {"status": "closed", "close_reason": "rejected", "closed_at": ...}),
    ([Close(id="ex-1"), Reopen(id="ex-1")], {}),
    ([Label(id="ex-1", add=("new",), remove=("b",))], {"labels": ["c", "a", "new"]}),
    ([Label(id="ex-1", remove=("a", "b", "c"))], {"labels": ...}),
    ([Depend(id="ex-1", on="ex-2")], {"dependencies": [edge("ex-1", "ex-3", note=None), ..., ...]}),
    ([Depend(id="ex-1", on="ex-3", remove=True)], {"dependencies": [edge("ex-1", "external:a:b", "Odd type")]}),
    ([Say(id="ex-1", text="hello")], {"comments": ...}),
]


@pytest.mark.parametrize("operations,expected", EDITS)
def test_what_was_edited_wins_and_the_rest_stays(
    store: Store, operations: list[Operation], expected: dict[str, Any]
) -> None:
    said = {"id": 1, "issue_id": "ex-1", "author": "eve", "text": "x", "created_at": T1}
    facts = row(
        description="text",
        assignee=None,
        labels=["c", "a", "b"],
        dependencies=[edge("ex-1", "ex-3", note=None), edge("ex-1", "external:a:b", "Odd type")],
        comments=[said],
        metadata={"a": None},
        due_at="soon",
        closed_at="",
    )
    put(store, facts, row("ex-2"), row("ex-3"))
    do(store, *operations)
    found = out(store)["ex-1"]
    edited = {
        key
        for key in facts.keys() | found.keys()
        if not same(facts.get(key, ...) if key in facts else 0, found.get(key, 0))
    }
    assert edited == {*expected, "updated_at"}
    for key, value in expected.items():
        match key, value:
            case "dependencies", [first, *rest] if rest:
                assert found[key][0] == first
                assert found[key][2] == {"issue_id": "ex-1", "depends_on_id": "ex-2", "type": "blocks"}
            case "comments", _:
                assert [c["text"] for c in found[key]] == ["x", "hello"]
                assert found[key][0] == said
            case "closed_at", _:
                assert found[key] == found["updated_at"]
            case _ if value is ...:
                assert key not in found
            case _:
                assert found[key] == value


def test_a_newer_file_brings_what_changed_in_it(store: Store) -> None:
    put(store, row(title="Old", description="text", labels=["a", "b"], notes="n", dependencies=[edge("ex-1", "ex-2")]))
    do(store, Update(id="ex-1", description="edited here"), Label(id="ex-1", add=("mine",)), Say(id="ex-1", text="hi"))
    newer = row(
        title="New",
        description="text",
        status="closed",
        closed_at=T2,
        close_reason="done",
        updated_at=T2,
        labels=["b", "c"],
        design="d",
        dependencies=[edge("ex-1", "ex-3")],
    )
    assert put(store, newer)
    found = out(store)["ex-1"]
    assert found["description"] == "edited here"
    assert found["labels"] == ["b", "c", "mine"]
    assert [c["text"] for c in found["comments"]] == ["hi"]
    edited = {"description", "labels", "comments", "updated_at"}
    assert {k: v for k, v in found.items() if k not in edited} == {k: v for k, v in newer.items() if k not in edited}
    assert not put(store, newer)


def test_what_both_changed_stays_and_is_told_until_they_agree() -> None:
    there = stored(one(title="A", priority=1).evolve(title="B", updated_at=LATER))
    newer = one(title="C", priority=3, updated_at=T2)
    told = adopted(there, newer)
    assert (told.bead.title, told.bead.priority, told.conflicts) == ("B", 3, ("title",))
    assert adopted(stored(told.bead), newer) == told
    assert row_of(told.bead)["title"] == "B"
    agreed = adopted(told.bead, one(title="B", priority=3, updated_at=T2))
    assert not agreed.conflicts
    assert adopted(agreed.bead, one(title="D", priority=3, updated_at=T2)).bead.title == "D"


def test_an_older_file_after_a_newer_one_is_taken_as_it_is(store: Store) -> None:
    old, new = row(title="Old", comments=[]), row(title="New", updated_at=T2, owner="o", comments=None)
    for facts in (old, new, old):
        assert put(store, facts)
        assert not differences([facts], out(store))


@pytest.mark.parametrize("younger", [True, False])
def test_of_a_bead_that_was_never_imported_the_younger_side_wins(store: Store, younger: bool) -> None:
    do(store, Create(bead=bead("ex-1", title="Ours", description="d", labels=("a",), dependencies=needs("ex-9"))))
    do(store, Say(id="ex-1", text="said"))
    own = out(store)["ex-1"]
    assert not put(store, own)
    at = (LATER if younger else NOW - timedelta(days=1)).isoformat()
    put(store, {**own, "title": "Theirs", "status": "closed", "labels": [], "updated_at": at, "owner": "o"})
    found = store.snapshot().need("ex-1")
    assert (found.title, found.status) == (("Theirs", "closed") if younger else ("Ours", "open"))
    assert found.labels == (() if younger else ("a",))
    assert [c.text for c in found.comments] == ["said"]


def test_a_deleted_bead_is_not_brought_back(store: Store) -> None:
    put(store, row())
    do(store, Delete(id="ex-1", reason="a mistake"))
    assert not put(store, row(updated_at=T2, title="Again"))
    found = out(store)["ex-1"]
    assert (found["status"], found["delete_reason"], found["original_type"]) == ("tombstone", "a mistake", "task")
    put(store, row("ex-2", status="tombstone", title=...))
    assert not put(store, row("ex-2"))


def test_a_tombstone_in_the_file_deletes_unless_something_was_edited_here(store: Store) -> None:
    put(store, row(), row("ex-2"))
    do(store, Close(id="ex-2", reason="fixed"))
    tombs = [row(i, status="tombstone", deleted_at=T2, deleted_by="eve", updated_at=T2) for i in ("ex-1", "ex-2")]
    put(store, *tombs)
    assert not differences(tombs[:1], out(store))
    assert [store.snapshot().need(i).outcome for i in ("ex-1", "ex-2")] == ["deleted", "done"]


def test_work_of_the_town_is_not_closed_or_rewritten_by_a_file(store: Store) -> None:
    sealed = bead("ex-1", description="goal", criteria=(Criterion(run="true"),)).sealed()
    do(store, Create(bead=sealed), Create(bead=bead("ex-2")), Claim(id="ex-2", worker="nux"))
    do(store, Create(bead=bead("ex-3", issue_type="step")))
    at = LATER.isoformat()
    rows = [{**facts, "status": "closed", "title": "T", "updated_at": at} for facts in out(store).values()]
    assert rows[0]["acceptance_criteria"] == "- run: true"
    after = [adopted(store.snapshot().need(str(r["id"])), parse(r).beads[0]) for r in rows]
    assert [a.conflicts for a in after] == [("title", "status"), ("status",), ("status",)]
    assert after[0].bead.digest() == sealed.seal
    assert after[1].bead.lease is not None
    assert after[2].bead.issue_type == "step"
    assert "acceptance_criteria" not in (after[0].bead.model_extra or {})
    assert row_of(after[0].bead)["acceptance_criteria"] == "- run: true"


def test_our_criteria_are_told_after_the_prose(store: Store) -> None:
    put(store, row(acceptance_criteria="It works."))
    there = store.snapshot().need("ex-1").evolve(criteria=(Criterion(run="true"),))
    assert row_of(there)["acceptance_criteria"] == "It works.\n- run: true"


def test_a_bead_of_ours_has_a_row_without_what_only_we_know() -> None:
    ours = bead("bt-1", outcome="cancelled", status="closed", closed_at=NOW, close_reason="no", labels=("x",))
    assert row_of(ours.evolve(dependencies=(Dependency(on="a", type="waits-for", gate="any-children"),))) == {
        "id": "bt-1",
        "title": "The work of bt-1",
        "status": "closed",
        "priority": 2,
        "issue_type": "task",
        "created_at": "2026-01-02T03:04:05.678Z",
        "updated_at": "2026-01-02T03:04:05.678Z",
        "closed_at": "2026-01-02T03:04:05.678Z",
        "close_reason": "cancelled: no",
        "labels": ["x"],
        "dependencies": [
            {"issue_id": "bt-1", "depends_on_id": "a", "type": "waits-for", "metadata": '{"gate": "any-children"}'}
        ],
    }


@pytest.mark.parametrize(
    "reason,waited,outcome",
    [
        ("", True, "done"),
        ("done", True, "done"),
        ("Error handling added", False, "done"),
        ("Error handling added", True, "rejected"),
        ("ERROR: not ours", False, "rejected"),
        ("failed", False, "rejected"),
        ("Blocked by the vendor", False, "rejected"),
        ("Closing: Won't fix.\nSorry", False, "rejected"),
        ("was canceled", False, "rejected"),
    ],
)
def test_a_reason_with_a_word_of_failure(reason: str, waited: bool, outcome: str) -> None:
    waiting = row("ex-2", dependencies=[edge("ex-2", "ex-1", "conditional-blocks")] if waited else [])
    closed = row(status="closed", closed_at=T1, close_reason=reason)
    assert parse(closed, waiting).beads[0].outcome == outcome


def test_the_youngest_row_of_an_id_counts_and_a_tombstone_before_all() -> None:
    document = parse(row(title="A", updated_at=T2), row(title="B"), row("ex-2", status="tombstone"), row("ex-2"))
    assert [(b.title, b.deleted) for b in document.beads] == [("A", False), ("One", True)]
    assert [note.split(":")[1] for note in document.notes] == ["2", "4"]
    assert parse(row(), row()).beads == parse(row()).beads


@pytest.mark.parametrize(
    "line,said",
    [
        (b"{", ":2: not JSON: Expecting property name enclosed in double quotes at column 2"),
        (b"[", ":2: not JSON: Expecting value at column 2"),
        (b"[]", ":2: must be an object"),
        (b"\xff", ":2: not UTF-8: byte 0 is 0xff"),
        (b'{"id": "x", "title": "x", "a": NaN}', ":2: not JSON: NaN is no number"),
        (b'{"id": "x", "title": "x", "a": 1e999}', ":2: not JSON: 1e999 is no number"),
        (b'{"a": ' + b"[" * 100_000, ":2: not JSON: nested too deep"),
        (b'{"a": ' + b"1" * 5000 + b"}", ":2: not JSON: Exceeds the limit"),
        (b'{"title": "x"}', ":2: id: is missing"),
        (b'{"id": 5, "title": "x"}', ":2: id: must be a text, not 5"),
        (b'{"id": "x"}', ":2: title: is missing"),
        (b'{"id": "x", "title": ["x"]}', ':2: title: must be a text, not ["x"]'),
        (b'{"id": "x", "title": "x", "priority": "P1"}', ":2: priority: must be a whole number, not 'P1'"),
        (b'{"id": "x", "title": "x", "priority": true}', ":2: priority: must be a whole number, not true"),
        (b'{"id": "x", "title": "x", "created_at": "soon"}', ":2: created_at: 'soon' is not a moment"),
        (b'{"id": "x", "title": "x", "updated_at": "0001-01-01T00:00:00+05:00"}', ":2: updated_at: '0001-"),
        (b'{"id": "x", "title": "x", "labels": "a"}', ":2: labels: must be a list, not 'a'"),
        (b'{"id": "x", "title": "x", "labels": ["a", 1]}', ":2: labels[1]: must be a text, not 1"),
        (b'{"id": "x", "title": "x", "dependencies": [1]}', ":2: dependencies[0]: must be an object, not 1"),
        (b'{"id": "x", "title": "x", "dependencies": [{}]}', ":2: dependencies[0].depends_on_id: is missing"),
        (b'{"id": "x", "title": "x", "comments": [{"text": 1}]}', ":2: comments[0].text: must be a text, not 1"),
    ],
)
def test_a_line_that_is_no_row_is_named_with_its_key(line: bytes, said: str) -> None:
    with pytest.raises(InvalidDocument) as caught:
        read([*lines(row()), line, *lines(row("ex-2"))], "f.jsonl")
    assert caught.value.message.startswith(f"f.jsonl{said}")


def test_every_marker_of_a_merge_is_named() -> None:
    text = b"<<<<<<< HEAD\n%b||||||| base\n=======\n%b>>>>>>> other\n" % (lines(row())[0], lines(row())[0])
    with pytest.raises(InvalidDocument) as caught:
        read([*lines(row("ex-0")), *text.splitlines(keepends=True)], "f.jsonl")
    for marker in ("<<<<<<< on line 2", "||||||| on line 4", "======= on line 5", ">>>>>>> on line 7"):
        assert marker in caught.value.message


def test_two_ids_that_are_one_to_us_are_refused() -> None:
    with pytest.raises(InvalidDocument, match="on line 1 are one id to us"):
        parse(row("a/b"), row(our_id("a/b")))


@given(st.text(max_size=200))
def test_any_id_becomes_one_that_can_be(text: str) -> None:
    assert check_id(our_id(text))
    assert our_id(our_id(text)) == our_id(text)


@given(st.text(max_size=80))
def test_any_name_becomes_a_type(text: str) -> None:
    assert Dependency(on="a", type=word(text)).type == word(word(text))
    assert bead("a", issue_type=word(text, "_-")).issue_type


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text() | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
TIMES = st.sampled_from([T1, T2, "2025-11-02T18:33:31-08:00", "2026-01-12 02:16:00", "0001-01-01T00:00:00Z", "", None])
TEXTS = st.none() | st.text(max_size=20) | WORDS
FOREIGN_IDS = st.sampled_from(["ex-1", "ex-2", "ex-2.1", "ex odd", "external:a:b", "é", "a" * 200])
KEYS = st.sampled_from(
    ["notes", "design", "acceptance_criteria", "metadata", "source", "run", "imported", "model_extra", "value", "lease"]
)
EDGES = st.fixed_dictionaries(
    {
        "depends_on_id": FOREIGN_IDS,
        "type": st.sampled_from(["blocks", "parent-child", "parent_child", "waits-for", "X y"]),
    },
    optional={"metadata": JSON | st.just('{"gate":"any-children","spawner_id":"ex-2"}'), "created_at": TIMES},
)
SAID = st.fixed_dictionaries(
    {"id": st.integers() | TEXTS, "text": TEXTS},
    optional={"author": TEXTS, "created_at": TIMES, "issue_id": TEXTS, "imported": JSON, "extra": JSON},
)
ROWS = st.fixed_dictionaries(
    {"id": FOREIGN_IDS, "title": st.text(min_size=1, max_size=600) | WORDS},
    optional={
        "status": st.sampled_from(
            ["open", "closed", "tombstone", "hooked", "pinned", "blocked", "in_review", "", None]
        ),
        "priority": st.none() | st.integers(-2, 9),
        "issue_type": st.sampled_from(["task", "step", "merge-request", "gate", "Ünïcode", "", None]),
        **dict.fromkeys(("description", "assignee", "created_by", "close_reason", "delete_reason"), TEXTS),
        **dict.fromkeys(("created_at", "updated_at", "closed_at", "deleted_at", "defer_until"), TIMES),
        **dict.fromkeys(("ephemeral", "pinned"), st.booleans()),
        "labels": st.none() | st.lists(TEXTS.map(lambda text: text or "x"), max_size=3),
        "dependencies": st.none() | st.lists(EDGES, max_size=3),
        "comments": st.none() | st.lists(SAID, max_size=3),
    },
).flatmap(lambda facts: st.dictionaries(KEYS, JSON, max_size=4).map(lambda more: {**more, **facts}))


@given(ROWS, JSON)
@example(row(_type="issue"), None)
def test_any_row_comes_back_as_it_was(facts: dict[str, Any], anything: Any) -> None:
    facts = json.loads(json.dumps({**facts, "anything": anything}))
    found = stored(bead_of(Row(facts)))
    back = row_of(found, name_in({found.id: found}.get))
    assert not differences([facts], {facts["id"]: back})


@given(st.dictionaries(st.sampled_from(["key", "value", "id", "title", "created_by", "x"]), JSON, max_size=4))
def test_any_memory_comes_back_as_it_was(facts: dict[str, Any]) -> None:
    facts = json.loads(json.dumps({**facts, "_type": "memory"}))
    assert same(row_of(stored(bead_of(Row(facts)))), facts)


@given(beads())
def test_any_bead_of_ours_has_a_row_that_changes_nothing(found: Bead) -> None:
    own = json.loads(json.dumps(row_of(found), default=str))
    if own == row_of(found) and not found.model_extra:
        document = read([json.dumps(own).encode()], "f")
        assert adopted(found, document.beads[0]).bead == found


@given(ROWS, ROWS, st.sampled_from([None, "title", "description", "assignee"]), st.text(min_size=1, max_size=5))
def test_importing_again_changes_nothing_whatever_was_edited(
    first: dict[str, Any], second: dict[str, Any], field: str | None, text: str
) -> None:
    there = stored(bead_of(Row(json.loads(json.dumps({**first, "id": "ex-1"})))))
    clean = "".join(c for c in text if c.isprintable()).strip() or "x"
    edited = there.evolve(**{field: clean}) if field else there
    assert not changes(edited, adopted(edited, there).bead)
    new = bead_of(Row(json.loads(json.dumps({**second, "id": "ex-1"}))))
    after = adopted(edited, new)
    assert stored(after.bead) == after.bead
    assert not changes(after.bead, adopted(after.bead, new).bead)
    if field is None and not there.deleted:
        assert same(row_of(after.bead), row_of(new))
        assert not after.conflicts


@given(JSON)
def test_what_toml_is_said_to_hold_it_holds(value: Any) -> None:
    if holds(value):
        found = stored(bead("a").evolve(x=value))
        assert same((found.model_extra or {})["x"], value)
