"""Transactions on a real repository: all or nothing, in order, readable with plain Git."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from beads import graph
from beads.doctor import examine
from beads.errors import InvalidInput, LostRace, NotFound, Refused, TownError, Unreadable
from beads.git import Oid
from beads.index import Choice
from beads.model import Bead, Dependency, path_of, write_bead
from beads.ops import Claim, Close, Create, Depend, Label, Operation, Release, Reopen, Say, Update
from beads.store import REF, Snapshot, Store, settings_of
from beads.toml import dumps, loads
from tests.beads.clocks import Virtual
from tests.beads.scratch import scratch
from tests.beads.strategies import NOW, bead, needs, part_of
from tests.world import git, unpack


@pytest.fixture
def store(repo: Path, clock: Virtual) -> Store:
    """A store with three beads."""
    store = Store.init(repo, "ada", clock=clock)
    store.commit("ada", [Create(bead=bead(f"bt-{number}")) for number in range(3)])
    return store


def history(store: Store) -> list[Oid]:
    head = store.repository.head(store.ref)
    assert head is not None
    return [commit.oid for commit in store.repository.history(head)]


def fresh(store: Store) -> Snapshot:
    """The newest state as Git has it, whatever the index says."""
    return Store.open(store.repository.common).snapshot_at(store.snapshot().commit)


def content(snapshot: Snapshot) -> dict[str, tuple[Bead, list[Bead], list[Bead]]]:
    """Everything that a snapshot says of each bead, and of what only others speak of."""
    ids = {found.id for found in snapshot} | {d.on for found in snapshot for d in found.dependencies}
    return {
        bead_id: (snapshot.need(bead_id), list(snapshot.children(bead_id)), list(snapshot.dependents(bead_id)))
        if snapshot.get(bead_id)
        else (bead("missing"), list(snapshot.children(bead_id)), list(snapshot.dependents(bead_id)))
        for bead_id in ids
    }


# --- transactions ----------------------------------------------------------------------------------------------


def test_what_was_written_is_in_git(store: Store, repo: Path) -> None:
    written = store.commit("nux <nux@example.org>", [Claim(id="bt-1", worker="nux", site="here")])
    assert written.changed
    assert (written.beads[0], written.snapshot.get("bt-1")) == (fresh(store).get("bt-1"),) * 2
    path = path_of("bt-1")
    assert git(repo, "show", f"{REF}:{path}").encode() + b"\n" == write_bead(fresh(store).need("bt-1"))
    assert git(repo, "log", "-1", "--format=%an|%ae|%cn|%at|%s", REF) == (
        f"nux|nux@example.org|nux|{int(NOW.timestamp())}|claim bt-1: nux, epoch 1"
    )
    assert git(repo, "diff", "--name-only", f"{REF}^", REF) == path
    assert "fatal" not in git(repo, "fsck", "--strict")


def test_a_transaction_is_one_commit(store: Store, repo: Path) -> None:
    before = history(store)
    with store.transaction("ada", "clean up") as tx:
        tx.add(Label(id="bt-0", add=("x",)), Say(id="bt-1", text="Hm."))
        tx.add(Say(id="bt-1", text="Hm!"), Close(id="bt-0"))
    assert tx.written is not None
    assert [found and found.id for found in tx.written.beads] == ["bt-0", "bt-1", "bt-1", "bt-0"]
    assert tx.written.beads[0] == tx.written.beads[3] == fresh(store).get("bt-0")
    assert len(fresh(store).need("bt-1").comments) == 2
    assert history(store)[1:] == before
    assert git(repo, "log", "-1", "--format=%B", REF) == (
        "clean up\n\nlabel bt-0: +x\ncomment bt-1\ncomment bt-1\nclose bt-0 as done\n\n"
        "Bead: bt-0\nBead: bt-1\nActor: ada\nOperation: label\nOperation: comment\nOperation: close\n"
    )


def test_what_changes_nothing_is_no_commit(store: Store) -> None:
    before = history(store)
    written = store.commit("ada", [Label(id="bt-0", remove=("x",)), Reopen(id="bt-1")])
    assert (written.changed, [found and found.id for found in written.beads]) == (False, ["bt-0", "bt-1"])
    assert not store.commit("ada", []).changed
    assert not store.commit("ada", [Claim(worker="nux", workable=True)]).changed
    assert history(store) == before


def test_one_refusal_refuses_all(store: Store) -> None:
    before, objects = history(store), sorted((store.repository.common / "objects").rglob("*"))
    with pytest.raises(NotFound, match="bt-9"):
        store.commit("ada", [Say(id="bt-0", text="x"), Say(id="bt-9", text="y")])
    with pytest.raises(ZeroDivisionError), store.transaction("ada") as tx:
        tx.add(Say(id="bt-0", text=str(1 // 0)))
    assert tx.written is None
    with pytest.raises(InvalidInput, match="not Unicode"):
        store.commit("\udcff", [Say(id="bt-0", text="x")])
    assert history(store) == before
    assert sorted((store.repository.common / "objects").rglob("*")) == objects


def test_a_decision_is_made_on_the_newest_state(store: Store) -> None:
    other = Store.open(store.repository.common)
    other.snapshot()
    store.commit("ada", [Say(id="bt-0", text="first")])

    def decide(snapshot: Snapshot) -> Sequence[Operation]:
        return [Say(id="bt-0", text=f"after {len(snapshot.need('bt-0').comments)}")]

    other.commit("nux", decide)
    assert [comment.text for comment in fresh(store).need("bt-0").comments] == ["first", "after 1"]


def test_the_loser_of_a_race_decides_anew(store: Store, clock: Virtual) -> None:
    seen: list[int] = []
    other = Store.open(store.repository.common, clock)

    def decide(snapshot: Snapshot) -> Sequence[Operation]:
        seen.append(len(snapshot.need("bt-0").comments))
        if len(seen) < 4:
            other.commit("nux", [Say(id="bt-0", text=f"{len(seen)}")])
        return [Say(id="bt-0", text="mine")]

    assert store.commit("ada", decide).changed
    assert seen == [0, 1, 2, 3]
    assert [comment.text for comment in fresh(store).need("bt-0").comments] == ["1", "2", "3", "mine"]


def test_the_loser_of_a_claim_is_told_so(store: Store, clock: Virtual) -> None:
    other = Store.open(store.repository.common, clock)

    def decide(snapshot: Snapshot) -> Sequence[Operation]:
        if snapshot.need("bt-0").lease is None:
            other.commit("nux", [Claim(id="bt-0", worker="nux")])
        return [Claim(id="bt-0", worker="ada")]

    with pytest.raises(LostRace, match="held by nux"):
        store.commit("ada", decide)


def test_who_always_loses_gives_up(store: Store) -> None:
    ends = history(store)[:2]
    before = write_bead(store.snapshot().need("bt-0"))

    def decide(snapshot: Snapshot) -> Sequence[Operation]:
        assert store.repository.swap(REF, snapshot.commit, ends[ends[0] == snapshot.commit])
        return [Create(bead=bead("bt-9"))]

    with pytest.raises(LostRace, match="moved 200 times"):
        store.commit("ada", decide)
    store.repository.swap(REF, store.repository.head(REF), ends[0])
    assert write_bead(fresh(store).need("bt-0")) == before
    assert fresh(store).get("bt-9") is None


def test_a_ref_that_is_deleted_meanwhile_does_not_come_back(store: Store, repo: Path) -> None:
    def decide(_: Snapshot) -> Sequence[Operation]:
        git(repo, "update-ref", "-d", REF)
        return [Say(id="bt-0", text="x")]

    with pytest.raises(NotFound, match="is gone"):
        store.commit("ada", decide)
    assert git(repo, "for-each-ref", "refs/beads") == ""
    with pytest.raises(NotFound, match="no store at refs/beads/main"):
        Store.open(repo)


def test_a_file_system_without_locks_will_do(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: int, __: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    assert store.commit("ada", [Create(bead=bead(f"bt-x{number}")) for number in range(99)]).changed
    assert len(fresh(store)) == 102


@pytest.mark.parametrize("prefix", ["b", "bt", "x9"])
def test_what_the_format_says_is_read_without_a_parser_as_with_one(prefix: str) -> None:
    said = dumps({"format": 1, "store": "0kz3", "prefix": prefix})
    assert settings_of(said) == loads(said, "format.toml") == settings_of(b"# another one's\n" + said)


def test_a_thousand_beads_are_one_pack(store: Store, repo: Path) -> None:
    before = set((repo / ".git/objects/pack").iterdir())
    store.commit("ada", [Create(bead=bead(f"bt-x{number}")) for number in range(1000)])
    packs = set((repo / ".git/objects/pack").iterdir()) - before
    assert sorted(path.suffix for path in packs) == [".idx", ".pack"]
    assert len(fresh(store)) == 1003
    git(repo, "fsck", "--strict")
    counted = dict(line.split(": ") for line in git(repo, "count-objects", "-v").splitlines())
    assert counted["garbage"] == "0"
    message = git(repo, "log", "-1", "--format=%B", REF)
    assert message.startswith("create bt-x0: The work of bt-x0 (and 999 more)\n\n")
    assert message.count("\nBead: ") == 100


def test_a_clock_that_goes_back_loses_nothing(store: Store, clock: Virtual, repo: Path) -> None:
    moments = [NOW - timedelta(days=days) for days in (1, 400, 20_400, 36_000, 0)]
    for number, moment in enumerate(moments):
        clock.moment = moment
        store.commit("ada", [Say(id="bt-0", text=f"{number}")])
    found = fresh(store).need("bt-0")
    assert [(comment.text, comment.created_at) for comment in found.comments] == [
        (f"{number}", moment) for number, moment in enumerate(moments)
    ]
    assert found.updated_at == NOW
    assert len(git(repo, "rev-list", REF).splitlines()) == 7
    git(repo, "fsck", "--strict")


def test_time_is_kept_in_milliseconds(store: Store, clock: Virtual) -> None:
    clock.moment = datetime(2026, 5, 6, 7, 8, 9, 123_987, tzinfo=UTC)
    store.commit("ada", [Say(id="bt-0", text="x")])
    assert fresh(store).need("bt-0").comments[0].created_at == clock.moment.replace(microsecond=123_000)


# --- the history -----------------------------------------------------------------------------------------------

_HOSTILE = [
    "Bead: bt-666", "Actor: eve", "Operation: land", "---", "--- a/x", "-rf", "# x", "", " ", "\x00", "\u2028", "\x85",
    "\x1b[2J", "é", "x" * 600, "<eve@x>", "<a\0b>", "<", ">", ".", "fixup! x", "\t:", "\r", "(cherry picked from x)",
]  # fmt: skip
_lines = st.lists(st.sampled_from(_HOSTILE), max_size=5).map("\n".join)


@given(_lines, _lines, _lines)
@example("ada", "--- a/x", "x")
@example("ada", "---", "Actor: eve")
@example("x <a\0b>\nActor: eve", "", "\n\nActor: eve")
@settings(max_examples=15)
def test_nobody_forges_a_trailer(actor: str, reason: str, words: str) -> None:
    title = " ".join(c for c in words if c.isprintable())[:400] + "."
    operations: list[Operation] = [Update(id="bt-0", title=title), Close(id="bt-1", force=True, reason=f"{words}!")]
    with scratch() as repo:
        store = Store.init(repo, actor)
        store.commit(actor, [Create(bead=bead("bt-0")), Create(bead=bead("bt-1"))], reason)
        store.commit(actor, operations, reason)
        git(repo, "fsck", "--strict")
        raw = git(repo, "log", "-1", "--format=%B", REF)
        subject, name, address = git(repo, "log", "-1", "--format=%s%n%an%n%ae", REF).split("\n")
    assert subject == raw.split("\n")[0]
    assert subject.isprintable()
    assert subject.strip()
    assert name
    assert address.isprintable()
    parsed = git(Path(), "interpret-trailers", "--parse", stdin=raw).splitlines()
    assert parsed[:2] == ["Bead: bt-0", "Bead: bt-1"]
    assert parsed[2].startswith("Actor:")
    assert parsed[3:] == ["Operation: update", "Operation: close"]


@pytest.mark.parametrize(
    "actor,author",
    [
        ("nux", "nux <nux@beadtown.invalid>"),
        ("Nux W <nux@example.org>", "Nux W <nux@example.org>"),
        ("polecat nux", "polecat nux <polecat-nux@beadtown.invalid>"),
        ("", "unknown <unknown@beadtown.invalid>"),
        ("<>", "unknown <unknown@beadtown.invalid>"),
        ("eve\nActor: ada <e\0ve@x>", "eve Actor: ada <eve-Actor--ada@beadtown.invalid>"),
        ("\udcff", "unknown <unknown@beadtown.invalid>"),
        ("Zoë", "Zoë <Zo-@beadtown.invalid>"),
    ],
)
def test_the_author_is_the_actor(store: Store, repo: Path, actor: str, author: str) -> None:
    store.commit(actor, [Label(id="bt-0", add=("x",))])
    assert git(repo, "log", "-1", "--format=%an <%ae>", REF) == author
    git(repo, "fsck", "--strict")


def test_the_subject_of_one_operation_is_the_operation(store: Store, repo: Path) -> None:
    store.commit("ada", [Create(bead=bead("bt-9", title="Fix it"))])
    store.commit("ada", [Claim(id="bt-9", worker="nux")])
    store.commit("ada", [Release(id="bt-9", worker="nux", epoch=1, reason="tired")], "  \n")
    assert git(repo, "log", "-3", "--format=%s", REF).splitlines() == [
        "release bt-9: tired",
        "claim bt-9: nux, epoch 1",
        "create bt-9: Fix it",
    ]


# --- snapshots -------------------------------------------------------------------------------------------------


def test_a_snapshot_does_not_change(store: Store) -> None:
    before = store.snapshot()
    said = content(before)
    store.commit("ada", [Depend(id="bt-0", on="bt-1"), Close(id="bt-2"), Create(bead=bead("bt-3"))])
    assert content(before) == said
    assert content(store.snapshot()) != said


def test_only_what_changed_is_read_again(store: Store) -> None:
    assert len(store.snapshot()) == 3
    oid = store.repository.find(store.repository.commit(store.snapshot().commit).tree, path_of("bt-2"))
    assert oid is not None
    unpack(store.repository.common)
    (store.repository.common / "objects" / oid[:2] / oid[2:]).unlink()
    # Some of these transactions need no relations, and must not forget what was read before them.
    for number in range(3):
        store.commit("ada", [Say(id="bt-0", text=f"{number}")])
    assert len(store.snapshot()) == 3
    assert store.snapshot().children("bt-2") == []
    with pytest.raises(Unreadable, match=oid):
        list(fresh(store))


def test_one_bead_is_read_without_the_others(store: Store) -> None:
    oid = store.repository.find(store.repository.commit(store.snapshot().commit).tree, path_of("bt-2"))
    assert oid is not None
    unpack(store.repository.common)
    (store.repository.common / "objects" / oid[:2] / oid[2:]).unlink()
    assert fresh(store).need("bt-1").id == "bt-1"
    other = Store.open(store.repository.common)
    assert other.commit("nux", [Say(id="bt-1", text="x"), Label(id="bt-0", add=("y",))]).changed
    assert other.commit("nux", [Create(bead=bead("bt-7", dependencies=needs("bt-1")))]).changed


@pytest.mark.parametrize("text", ["nothing", "../x", "a/b", "", "x" * 1000, "\ud800", "-rf"], ids=ascii)
@pytest.mark.parametrize("loaded", [False, True])
def test_what_is_not_there_is_none(store: Store, text: str, loaded: bool) -> None:
    snapshot = fresh(store)
    assert not loaded or len(snapshot)
    assert snapshot.get(text) is None
    with pytest.raises(NotFound):
        snapshot.need(text)
    assert list(snapshot.children(text)) == list(snapshot.dependents(text)) == []
    assert snapshot.row(text, NOW) is None
    assert list(snapshot.rows(Choice(assignee=text, text="anything"), NOW)) == []


def test_relations_have_each_bead_once_and_in_order(store: Store) -> None:
    twice = (*needs("bt-0"), Dependency(on="bt-0", type="related"))
    parts = [bead(f"bt-0.{n}", issue_type="step", dependencies=part_of("bt-0")) for n in (10, 9, 1)]
    store.commit("ada", [Create(bead=bead("bt-9", dependencies=twice)), *(Create(bead=part) for part in parts)])
    for snapshot in (store.snapshot(), fresh(store)):
        assert [found.id for found in snapshot.children("bt-0")] == ["bt-0.1", "bt-0.9", "bt-0.10"]
        assert [found.id for found in snapshot.dependents("bt-0")] == ["bt-9"]
        assert [found.id for found in snapshot] == ["bt-0", "bt-0.1", "bt-0.9", "bt-0.10", "bt-1", "bt-2", "bt-9"]


def test_a_store_of_a_later_format_is_refused_every_time(store: Store) -> None:
    repository, head = store.repository, store.snapshot().commit
    files = {"format.toml": b"format = 2\n"}
    later = repository.write(None, files, parents=(head,), author="a <b>", when=NOW, message="x")
    repository.swap(REF, head, later)
    for _ in range(3):
        with pytest.raises(Unreadable, match="has format 2, this program reads 1"):
            store.snapshot()
        with pytest.raises(Unreadable, match="has format 2"):
            store.commit("ada", [Say(id="bt-0", text="x")])
    assert repository.head(REF) == later


def test_a_store_says_what_its_ids_start_with(store: Store, repo: Path) -> None:
    assert store.snapshot().prefix == "bt"
    assert Store.init(repo, "ada", prefix="other").snapshot().prefix == "bt", "it was there already"
    elsewhere = Store.init(repo, "ada", prefix="x1", ref="refs/beads/other")
    assert (elsewhere.snapshot().prefix, len(elsewhere.snapshot())) == ("x1", 0)
    assert set(store.snapshot().settings()) == {"format", "store", "prefix"}


@pytest.mark.parametrize("prefix", ["", "BT", "1a", "a-b", "a.b", "../x", "a" * 17, "é"])
def test_a_prefix_is_a_short_word(repo: Path, prefix: str) -> None:
    with pytest.raises(InvalidInput, match="must be 1 to 16"):
        Store.init(repo, "ada", prefix=prefix)


# --- what another program may have put there ---------------------------------------------------------------------

GARBAGE = {
    "another one's place": (path_of("bt-5"), write_bead(bead("bt-6"))),
    "not TOML": (path_of("bt-5"), b"<<<<<<< HEAD\n"),
    "not a bead": (path_of("bt-5"), b"x = 1\n"),
    "not text": (path_of("bt-5"), b"\xff\xfe"),
}

STRAYS = {
    "wrong place": ("beads/00/00/bt-5.toml", write_bead(bead("bt-5"))),
    "hostile id": ("beads/00/00/x.toml", write_bead(bead("bt-5")).replace(b"bt-5", b"../x")),
    "no bead's name": ("beads/README.md", b"# Beads\n"),
    "no text's name": (b"beads/\xff.toml".decode(errors="surrogateescape"), b""),
    "a directory": (f"{path_of('bt-5')}/x.toml", write_bead(bead("bt-5"))),
}


@pytest.mark.parametrize("name", GARBAGE)
def test_garbage_is_refused_in_words_and_hides_nothing_else(store: Store, name: str) -> None:
    path = pull(store, *GARBAGE[name])
    for snapshot in (store.snapshot(), fresh(store)):
        for _ in range(2):
            with pytest.raises(TownError) as caught:
                list(snapshot)
            assert "beads/" in caught.value.message
        assert snapshot.need("bt-1").id == "bt-1"
    is_kept(store, path)


@pytest.mark.parametrize("name", STRAYS)
def test_what_is_no_beads_file_is_left_where_it_is_and_hides_nothing(store: Store, name: str) -> None:
    path = pull(store, *STRAYS[name])
    for snapshot in (store.snapshot(), fresh(store)):
        assert [found.id for found in snapshot] == ["bt-0", "bt-1", "bt-2"]
    assert examine(store.repository, store.snapshot().commit).findings
    is_kept(store, path)


def pull(store: Store, path: str, data: bytes) -> str:
    """Put a file into the store as another program might have."""
    repository, head = store.repository, store.snapshot().commit
    tree = repository.commit(head).tree
    pulled = repository.write(tree, {path: data}, parents=(head,), author="a <b>", when=NOW, message="x")
    assert repository.swap(REF, head, pulled)
    return path


def is_kept(store: Store, path: str) -> None:
    """A file is still there after a transaction that has nothing to do with it."""
    assert store.commit("ada", [Say(id="bt-1", text="x")]).changed
    assert store.repository.find(store.repository.commit(store.snapshot().commit).tree, path) is not None


def test_a_bead_that_a_pulled_history_has_no_more_is_gone(store: Store) -> None:
    store.commit("ada", [Depend(id="bt-0", on="bt-1"), Depend(id="bt-2", on="bt-1")])
    repository, head = store.repository, store.snapshot().commit
    assert [found.id for found in store.snapshot().dependents("bt-1")] == ["bt-0", "bt-2"]
    tree = repository.commit(head).tree
    files = {change.path: repository.read(change.new) for change in repository.changes(None, tree) if change.new}
    del files[path_of("bt-2")]
    without = repository.write(None, files, parents=(head,), author="a <b>", when=NOW, message="x")
    repository.swap(REF, head, without)
    assert [found.id for found in store.snapshot()] == ["bt-0", "bt-1"]
    assert [found.id for found in store.snapshot().dependents("bt-1")] == ["bt-0"]
    assert content(store.snapshot()) == content(fresh(store))


def test_what_else_is_in_the_tree_is_kept(store: Store) -> None:
    repository, head = store.repository, store.snapshot().commit
    files = {"README.md": b"hello", "other/deep/file": b"\xff", "beads-not": b""}
    extended = repository.write(
        repository.commit(head).tree, files, parents=(head,), author="a <b>", when=NOW, message="x"
    )
    repository.swap(REF, head, extended)
    store.commit("ada", [Say(id="bt-1", text="x")])
    assert len(fresh(store)) == 3
    tree = repository.commit(fresh(store).commit).tree
    assert {path: repository.read(oid) for path in files if (oid := repository.find(tree, path))} == files


# --- against a model -------------------------------------------------------------------------------------------

_NAMES = ["bt-a", "bt-b", "bt-c", "bt-a.1", "bt-a.2"]
_names = st.sampled_from(_NAMES)


class Model(RuleBasedStateMachine):
    """The store beside a dictionary that is told the same."""

    def __init__(self) -> None:
        super().__init__()
        self.place = Path(tempfile.mkdtemp())
        self.clock = Virtual()
        self.beads: dict[str, Bead] = {}
        self.commits = 1

    @initialize()
    def begin(self) -> None:
        git(self.place, "init", "--quiet")
        self.store = Store.init(self.place, "ada", clock=self.clock)

    def teardown(self) -> None:
        shutil.rmtree(self.place)

    def do(self, bead_id: str, operation: Operation, **changes: object) -> None:
        """Do it; the dictionary says whether it can be done, and what it changes."""
        there = self.beads.get(bead_id)
        if there is None:
            with pytest.raises(NotFound):
                self.store.commit("ada", [operation])
            return
        after = there.evolve(**changes)
        if after != there:
            self.commits += 1
            self.beads[bead_id] = after.evolve(updated_at=max(self.clock.moment, there.updated_at))
        assert self.store.commit("ada", [operation]).changed == (after != there)

    @rule(bead_id=_names, part=st.booleans())
    def create(self, bead_id: str, part: bool) -> None:
        dependencies = part_of("bt-a") if part and "." in bead_id else ()
        made = bead(bead_id, created_at=self.clock.moment, updated_at=self.clock.moment, dependencies=dependencies)
        there = self.beads.get(bead_id)
        if there is not None and there.evolve(updated_at=made.updated_at) != made:
            with pytest.raises(Refused):
                self.store.commit("ada", [Create(bead=made)])
        else:
            assert self.store.commit("ada", [Create(bead=made)]).changed == (there is None)
            self.commits += there is None
            self.beads.setdefault(bead_id, made)

    @rule(bead_id=_names, title=st.sampled_from(["x", "y"]), priority=st.integers(0, 4))
    def update(self, bead_id: str, title: str, priority: int) -> None:
        self.do(bead_id, Update(id=bead_id, title=title, priority=priority), title=title, priority=priority)

    @rule(bead_id=_names, add=st.sampled_from(["x", "y"]), remove=st.sampled_from(["x", "y", "z"]))
    def label(self, bead_id: str, add: str, remove: str) -> None:
        there = self.beads.get(bead_id)
        labels = tuple(sorted({*(there.labels if there else ()), add} - {remove}))
        self.do(bead_id, Label(id=bead_id, add=(add,), remove=(remove,)), labels=labels)

    @rule(bead_id=_names, on=_names, remove=st.booleans())
    def depend(self, bead_id: str, on: str, remove: bool) -> None:
        operation = Depend(id=bead_id, on=on, remove=remove)
        there = self.beads.get(bead_id)
        edge = needs(on)
        rest = tuple(d for d in there.dependencies if (d,) != edge) if there else ()
        if there is None or remove:
            self.do(bead_id, operation, dependencies=rest)
        elif on not in self.beads or bead_id in self.upstream(on):
            with pytest.raises(TownError):
                self.store.commit("ada", [operation])
        else:
            self.do(
                bead_id, operation, dependencies=there.dependencies if edge[0] in there.dependencies else rest + edge
            )

    def upstream(self, bead_id: str) -> set[str]:
        found, grown = {bead_id}, True
        while grown:
            more = {d.on for i in found if i in self.beads for d in self.beads[i].dependencies}
            grown = not more <= found
            found |= more
        return found

    @rule(bead_id=_names)
    def close_and_reopen(self, bead_id: str) -> None:
        there = self.beads.get(bead_id)
        if there is not None and there.closed:
            self.do(bead_id, Reopen(id=bead_id), status="open", outcome=None, closed_at=None, close_reason="")
        else:
            moment = self.clock.moment
            outcome = {"status": "closed", "outcome": "cancelled", "closed_at": moment, "lease": None}
            self.do(bead_id, Close(id=bead_id, outcome="cancelled"), **outcome)

    @rule(bead_id=_names, worker=st.sampled_from(["nux", "ada"]))
    def claim_or_release(self, bead_id: str, worker: str) -> None:
        there = self.beads.get(bead_id)
        if there is not None and there.lease is not None:
            release = Release(id=bead_id, worker=there.lease.worker, epoch=there.epoch)
            self.do(bead_id, release, lease=None, status="open", assignee="")
            return
        try:
            claimed = self.store.commit("ada", [Claim(id=bead_id, worker=worker)]).beads[0]
        except TownError:
            waits = there is not None and any(not self.beads[on].closed for on in there.needs if on in self.beads)
            assert there is None or there.closed or waits
            return
        assert there is not None
        assert claimed is not None
        assert claimed.lease is not None
        assert (claimed.epoch, claimed.lease.worker) == (there.epoch + 1, worker)
        self.beads[bead_id] = claimed
        self.commits += 1

    @rule(first=_names, second=_names)
    def two_at_once(self, first: str, second: str) -> None:
        operations = [Say(id=first, text="one"), Say(id=second, text="two"), Say(id=second, text="two")]
        if {first, second} <= self.beads.keys():
            written = self.store.commit("ada", operations)
            self.commits += written.changed
            for found in written.beads:
                assert found is not None
                self.beads[found.id] = found
        else:
            with pytest.raises(NotFound):
                self.store.commit("ada", operations)

    @rule(seconds=st.sampled_from([0.001, 60.0, -5.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.moment += timedelta(seconds=seconds)

    @rule(warm=st.booleans())
    def another_process(self, warm: bool) -> None:
        self.store = Store.open(self.place, clock=self.clock)
        assert not warm or len(self.store.snapshot()) == len(self.beads)

    @rule(task=st.sampled_from([("pack-refs", "--all"), ("repack", "-adq"), ("gc", "--quiet"), ("prune-packed",)]))
    def git_tidies_up(self, task: tuple[str, ...]) -> None:
        git(self.place, *task)

    @invariant()
    def they_say_the_same(self) -> None:
        snapshot = self.store.snapshot()
        assert {found.id: found for found in snapshot} == self.beads
        assert content(snapshot) == content(fresh(self.store))
        assert len(history(self.store)) == self.commits
        assert [found.id for found in graph.ready(snapshot, self.clock.moment)] == [
            found.id for found in graph.ready(fresh(self.store), self.clock.moment)
        ]


Model.TestCase.settings = settings(max_examples=12, stateful_step_count=25)
TestModel = Model.TestCase


def test_a_store_that_lives_long_does_not_keep_what_it_wrote(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("beads.recent.MOST", 20)
    for number in range(50):
        store.commit("ada", [Create(bead=bead(f"bt-y{number}")), Say(id="bt-0", text=f"{number}")])
    assert len(store._known) <= 2 * 20
    assert len(store.snapshot()) == 53
