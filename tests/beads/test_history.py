"""The history of a store and of one bead, as it is read back from Git."""

from __future__ import annotations

import itertools
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beads import Bead, Operation, Snapshot, Store
from beads.doctor import examine
from beads.errors import NotFound, Refused, TownError, Unreadable
from beads.git import Commit, Oid
from beads.history import (
    Difference,
    deletion,
    differences,
    history_of,
    last_own,
    marked,
    resolve,
    transactions,
    undoing,
)
from beads.model import Comment, Criterion, Dependency, path_of
from beads.ops import Claim, Close, Create, Delete, Label, Release, Say, Update
from tests.beads.clocks import Virtual
from tests.beads.racer import Unlocked
from tests.beads.scratch import scratch
from tests.beads.strategies import NOW, bead, needs
from tests.beads.test_apply import TESTS, molecule, operations
from tests.world import commit, git


def make(store: Store, bead_id: str) -> Bead:
    now = store.clock.now()
    return Bead(id=bead_id, title=f"Do {bead_id}", created_at=now, updated_at=now)


@pytest.fixture
def store(repo: Path) -> Store:
    return Store.init(repo, "nux")


def test_a_transaction_says_who_what_and_when(store: Store) -> None:
    store.commit("Zoe <zoe@example.org>", [Create(bead=make(store, "bt-a")), Create(bead=make(store, "bt-b"))])
    newest, first = transactions(store.repository, store.snapshot().commit)
    assert newest.actor == "Zoe <zoe@example.org>"
    assert newest.what == "create bt-a: Do bt-a (and 1 more)"
    assert (newest.operations, newest.beads, newest.differences) == (("create",), ("bt-a", "bt-b"), ())
    assert abs((newest.when - store.clock.now()).total_seconds()) < 60
    assert (first.what, first.operations, first.actor) == ("begin the store", ("init",), "nux")


def test_the_history_of_a_bead_is_what_git_says(store: Store, repo: Path) -> None:
    store.commit("nux", [Create(bead=make(store, "bt-a"))])
    for number in range(5):
        store.commit("nux", [Create(bead=make(store, f"bt-{number}")), Label(id=f"bt-{number}", add=("x",))])
        store.commit("nux", [Update(id="bt-a", priority=number % 3), Say(id=f"bt-{number}", text="hm")])
    store.commit("nux", [Close(id="bt-a"), Close(id="bt-0")])
    found = list(history_of(store.repository, store.snapshot().commit, "bt-a"))
    assert [entry.commit for entry in found] == git(
        repo, "log", "--format=%H", store.ref, "--", path_of("bt-a")
    ).split()
    assert found[0].what.startswith("close bt-a as done")
    assert "bt-0" not in found[0].what
    assert {d.field for d in found[0].differences} == {"status", "outcome", "closed_at"}
    assert found[-1].what == "create bt-a: Do bt-a"


def test_it_stops_where_the_bead_was_made(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(20):
        store.commit("nux", [Create(bead=make(store, f"bt-{number}"))])
    read: list[Oid] = []
    real = store.repository.commit

    def counted(oid: Oid) -> Commit:
        read.append(oid)
        return real(oid)

    monkeypatch.setattr(store.repository, "commit", counted)
    assert len(list(history_of(store.repository, store.snapshot().commit, "bt-18"))) == 1
    assert len(read) <= 4


def test_a_bead_of_the_first_commit_is_found(store: Store) -> None:
    repository = store.repository
    bead = make(store, "bt-a")
    tree = {"format.toml": b"format = 1\n", path_of("bt-a"): b'id = "bt-a"\n'}
    only = repository.write(None, tree, parents=(), author="a <a@b>", when=bead.created_at, message="all at once\n")
    (entry,) = history_of(repository, only, "bt-a")
    # What is damaged has a history, too.
    assert (entry.what, entry.actor, entry.differences) == ("all at once", "a <a@b>", ())


def test_an_unknown_bead_has_no_history(store: Store) -> None:
    with pytest.raises(NotFound, match="there is no bead 'bt-a'"):
        next(history_of(store.repository, store.snapshot().commit, "bt-a"))


def test_words_of_a_title_cannot_pass_for_a_trailer(store: Store) -> None:
    bead = make(store, "bt-a").evolve(title="Actor: mallory")
    store.commit("nux", [Create(bead=bead)], reason="Actor: mallory")
    newest = next(transactions(store.repository, store.snapshot().commit))
    assert newest.actor == "nux"


def test_differences_are_in_words(store: Store) -> None:
    old = make(store, "bt-a")
    now = old.created_at
    new = old.evolve(
        priority=0,
        labels=("x",),
        dependencies=(Dependency(on="bt-b"),),
        criteria=(Criterion(run="true"),),
        comments=(Comment(id="c", author="nux", text="hm", created_at=now),),
        updated_at=now,
    )
    assert differences(old, new) == (
        Difference("priority", ("2",), ("0",)),
        Difference("labels", (), ("x",)),
        Difference("dependencies", (), ("blocks bt-b",)),
        Difference("criteria", (), ("run: true",)),
        Difference("comments", (), ("nux: hm",)),
    )
    assert differences(new, new) == ()
    again = new.evolve(criteria=(*new.criteria, *new.criteria))
    assert differences(new, again) == (Difference("criteria", (), ("run: true",)),)
    assert {d.field for d in differences(None, new)} >= {"title", "priority"}
    assert "issue_type" not in {d.field for d in differences(None, new)}


def test_a_large_transaction_is_one_entry(store: Store) -> None:
    store.commit("nux", [Create(bead=make(store, f"bt-{number}")) for number in range(300)])
    newest = next(itertools.islice(transactions(store.repository, store.snapshot().commit), 1))
    assert len(newest.beads) == 100
    (entry,) = history_of(store.repository, store.snapshot().commit, "bt-299")
    assert entry.what == "create bt-0: Do bt-0 (and 299 more)"


# --- naming a transaction ----------------------------------------------------------------------------------------


def test_a_revision_is_an_id_a_way_back_or_a_moment(repo: Path) -> None:
    clock = Virtual()
    store = Store.init(repo, "nux", clock=clock)
    for number in range(3):
        clock.moment = NOW + timedelta(days=number + 1)
        store.commit("nux", [Create(bead=make(store, f"bt-{number}"))])
    third, second, first, begun = git(repo, "log", "--format=%H", store.ref).split()
    meant = {
        third: third,
        second[:4]: second,
        second[:12].upper(): second,
        f"{third[:9]}~2": first,
        f"{third}~0": third,
        "~0": third,
        "~3": begun,
        "2026-01-04": first,
        "2026-01-04T03:04:05": second,
        "2026-01-05T03:04:05Z": third,
        "2026-01-05T03:04:05+01:00": second,
        "2999-01-01": third,
    }
    head = store.snapshot().commit
    assert {text: resolve(store.repository, head, text).oid for text in meant} == meant


@pytest.mark.parametrize(
    "revision, said",
    [
        ("~9", "the store's history begins later"),
        ("~999999999", "the store's history begins later"),
        ("0000000", "no commit of the store starts so"),
        ("2026-01-01", "there was no store yet at 2026-01-01"),
        ("yesterday", "hint: Give the id of a commit"),
        ("", "hint: Give the id of a commit"),
        ("HEAD", "hint: Give the id of a commit"),
        ("--all", "hint: Give the id of a commit"),
        ("abc", "hint: Give the id of a commit"),
    ],
)
def test_what_names_no_transaction_is_said_so(repo: Path, revision: str, said: str) -> None:
    store = Store.init(repo, "nux", clock=Virtual())
    with pytest.raises(NotFound) as refused:
        resolve(store.repository, store.snapshot().commit, revision)
    assert said in f"{refused.value.message}\nhint: {refused.value.hint}"


def test_a_commit_of_the_code_is_none_of_the_store(store: Store, repo: Path) -> None:
    commit(repo, {"format.toml": "store of wine = 1\n"}, "Not ours")
    for revision in (git(repo, "rev-parse", "HEAD"), git(repo, "rev-parse", "--short", "HEAD~1")):
        with pytest.raises(NotFound, match="no commit of the store starts so"):
            resolve(store.repository, store.snapshot().commit, revision)
    packed = store.snapshot().commit
    git(repo, "repack", "-adq")
    assert resolve(store.repository, packed, packed[:5]).oid == packed


# --- taking back -------------------------------------------------------------------------------------------------


def take_back(store: Store, target: str, actor: str = "nux") -> bool:
    """Undo a transaction; whether that changed anything."""

    def decide(snapshot: Snapshot) -> list[Operation]:
        restore = undoing(store.repository, snapshot.commit, snapshot, Oid(target))
        return [restore] if restore else []

    return store.commit(actor, decide).changed


def undo(store: Store, actor: str = "nux") -> str:
    """Undo what the actor did last; what it was."""
    head = store.snapshot()
    entry = last_own(store.repository, head.commit, head, actor)
    assert take_back(store, entry.commit, actor)
    return entry.what


def said(store: Store) -> list[str]:
    return [entry.what for entry in marked(transactions(store.repository, store.snapshot().commit))]


def test_each_undo_takes_back_the_one_before(store: Store) -> None:
    store.commit("nux", [Create(bead=make(store, "bt-a"))])
    store.commit("nux", [Label(id="bt-a", add=("x",))])
    store.commit("zoe", [Label(id="bt-a", add=("hers",))])
    store.commit("nux", [Update(id="bt-a", priority=0)])
    assert [undo(store), undo(store)] == ["update bt-a: priority", "label bt-a: +x"]
    now = store.snapshot().need("bt-a")
    assert (now.priority, now.labels) == (2, ("hers",))
    with pytest.raises(
        Refused, match=r"labels of bt-a was changed again since by zoe in [0-9a-f]{12} \(label bt-a: \+h"
    ):
        undo(store)
    assert undo(store, "zoe") == "label bt-a: +hers"
    assert undo(store) == "create bt-a: Do bt-a"
    with pytest.raises(NotFound, match="there is nothing by nux to undo"):
        undo(store)


def test_undoing_an_undo_does_it_again_and_then_it_can_be_undone_again(store: Store, repo: Path) -> None:
    store.commit("nux", [Create(bead=make(store, "bt-a"))])
    store.commit("nux", [Update(id="bt-a", priority=0)])
    target = store.snapshot().commit
    undo(store)
    undone = store.snapshot().commit
    assert git(repo, "log", "-1", "--format=%(trailers:key=Undoes,valueonly)", store.ref).strip() == target
    assert take_back(store, undone)
    assert store.snapshot().need("bt-a").priority == 0
    by = {entry.commit: entry.undone_by for entry in marked(transactions(store.repository, store.snapshot().commit))}
    assert (by[target], by[undone]) == ("", store.snapshot().commit)
    assert undo(store) == "update bt-a: priority"
    assert store.snapshot().need("bt-a").priority == 2


def test_what_is_undone_is_not_undone_again(store: Store) -> None:
    store.commit("nux", [Create(bead=make(store, "bt-a"))])
    store.commit("nux", [Update(id="bt-a", priority=0)])
    target = store.snapshot().commit
    assert take_back(store, target, "zoe")
    store.commit("zoe", [Update(id="bt-a", priority=0)])
    assert not take_back(store, target)
    assert store.snapshot().need("bt-a").priority == 0


def test_what_was_changed_back_since_is_passed_over(store: Store) -> None:
    store.commit("nux", [Create(bead=make(store, "bt-a")), Label(id="bt-a", add=("x",))])
    store.commit("nux", [Update(id="bt-a", priority=0)])
    store.commit("nux", [Label(id="bt-a", remove=("x",))])
    store.commit("zoe", [Label(id="bt-a", add=("x",))])
    assert undo(store) == "update bt-a: priority"


def test_the_last_transaction_is_refused_rather_than_an_older_one_undone(store: Store) -> None:
    store.commit("nux", [Create(bead=make(store, "bt-a"))])
    store.commit("nux", [Claim(id="bt-a", worker="nux")])
    store.commit("nux", [Release(id="bt-a", worker="nux", epoch=1)])
    with pytest.raises(Refused, match=r"\(release bt-a: nux\) cannot be undone: a lease is only ever given") as refused:
        undo(store)
    assert refused.value.hint == "`bead claim` takes the bead again."


def test_a_merge_is_passed_over_and_not_undone(store: Store, repo: Path) -> None:
    store.commit("nux", [Create(bead=make(store, "bt-a"))])
    head = store.snapshot().commit
    message = "sync\n\nActor: nux\nOperation: sync\n"
    tree, begun = f"{head}^{{tree}}", f"{head}~1"
    merge = git(repo, "commit-tree", tree, "-p", head, "-p", begun, "-m", message)
    git(repo, "update-ref", store.ref, merge)
    with pytest.raises(Refused, match="cannot be undone: it merges two histories"):
        take_back(store, merge)
    assert undo(store) == "create bt-a: Do bt-a"


def test_nobody_undoes_what_another_history_did(store: Store) -> None:
    with pytest.raises(NotFound, match="ffffffffffff is not in the history of this store"):
        take_back(store, "f" * 40)


def test_a_change_between_the_decision_and_the_write_is_decided_on_again(store: Store, repo: Path) -> None:
    store.commit("nux", [Create(bead=make(store, "bt-a"))])
    store.commit("nux", [Update(id="bt-a", priority=0)])
    target = store.snapshot().commit
    other = Unlocked.open(repo, Virtual())
    decided: list[object] = []

    def decide(snapshot: Snapshot) -> list[Operation]:
        restore = undoing(store.repository, snapshot.commit, snapshot, target)
        decided.append(restore)
        if len(decided) == 1:
            other.commit("zoe", [Update(id="bt-a", priority=4)])
        return [restore] if restore else []

    with pytest.raises(Refused, match="priority of bt-a was changed again since by zoe"):
        store.commit("nux", decide)
    assert len(decided) == 1
    assert store.snapshot().need("bt-a").priority == 4


def test_a_race_that_was_lost_to_the_same_undo_changes_nothing(store: Store, repo: Path) -> None:
    store.commit("nux", [Create(bead=make(store, "bt-a"))])
    store.commit("nux", [Update(id="bt-a", priority=0)])
    target = store.snapshot().commit
    other = Unlocked.open(repo, Virtual())

    def decide(snapshot: Snapshot) -> list[Operation]:
        restore = undoing(store.repository, snapshot.commit, snapshot, target)
        take_back(other, target)
        return [restore] if restore else []

    assert not store.commit("nux", decide).changed
    assert said(store)[0].startswith("undo ")
    assert said(store)[1] == "update bt-a: priority"


def test_a_transaction_of_many_is_undone_in_one(store: Store) -> None:
    beads = [make(store, f"bt-{number}").evolve(dependencies=needs(f"bt-{number - 1}")) for number in range(1, 300)]
    store.commit("nux", [Create(bead=make(store, "bt-0")), *(Create(bead=found) for found in beads)])
    assert undo(store) == "create bt-0: Do bt-0 (and 299 more)"
    assert all(found.deleted for found in store.snapshot())
    assert take_back(store, store.snapshot().commit)
    assert [found.needs for found in store.snapshot()] == [(), *(found.needs for found in beads)]


def test_who_deleted_a_bead_is_found(store: Store) -> None:
    store.commit("nux", [Create(bead=make(store, "bt-a"))])
    head = store.snapshot().commit
    assert deletion(store.repository, head, "bt-a") is None
    store.commit("zoe", [Delete(id="bt-a", reason="a duplicate")])
    found = deletion(store.repository, store.snapshot().commit, "bt-a")
    assert found is not None
    assert (found.actor, found.commit) == ("zoe", store.snapshot().commit)
    undo(store, "zoe")
    assert deletion(store.repository, store.snapshot().commit, "bt-a") is None


# --- damage ------------------------------------------------------------------------------------------------------


def damage(store: Store, bead_id: str, text: bytes = b"not a bead") -> Oid:
    """Commit that a file is damaged, as nobody but a person with Git can."""
    repository, head = store.repository, store.snapshot().commit
    broken = repository.write(
        repository.commit(head).tree,
        {path_of(bead_id): text},
        parents=(head,),
        author="eve <eve@example.org>",
        when=store.clock.now(),
        message="by hand\n",
    )
    assert repository.swap(store.ref, head, broken)
    return broken


def test_a_damaged_bead_keeps_nothing_else_from_being_undone(store: Store) -> None:
    store.commit("nux", [Create(bead=make(store, "bt-a")), Create(bead=make(store, "bt-b"))])
    store.commit("nux", [Update(id="bt-b", priority=0), Close(id="bt-b")])
    broken = damage(store, "bt-a")
    assert [entry.what for entry in history_of(store.repository, broken, "bt-a")] == ["by hand", "create bt-a: Do bt-a"]
    assert said(store)[0] == "by hand"
    store.commit("nux", [Update(id="bt-b", priority=1)])
    assert undo(store) == "update bt-b: priority"
    with pytest.raises(Unreadable, match=path_of("bt-a")):
        take_back(store, broken)


# --- anything at all ---------------------------------------------------------------------------------------------


@settings(max_examples=20)
@given(st.lists(st.tuples(st.lists(operations, min_size=1, max_size=3), st.sampled_from("ab")), max_size=12))
def test_whatever_was_undone_the_store_is_sound(history: list[tuple[list[Operation], str]]) -> None:
    with scratch() as place:
        clock = Virtual()
        store = Store.init(place, "ada", clock=clock)
        store.commit("ada", [Create(bead=found) for found in molecule().view])
        store.commit(
            "ada", [Create(bead=bead("a", criteria=(TESTS,))), Create(bead=bead("b", dependencies=needs("a")))]
        )
        for several, actor in history:
            clock.moment += timedelta(seconds=1)
            try:
                store.commit(actor, several)
            except TownError:
                continue
        problems = examine(store.repository, store.snapshot().commit).findings
        before = len(said(store))
        undone = 0
        for actor in "abba":
            try:
                undo(store, actor)
                undone += 1
            except TownError:
                continue
        assert len(said(store)) == before + undone
        assert {f for f in examine(store.repository, store.snapshot().commit).findings if f not in problems} == set()
