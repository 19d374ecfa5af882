"""The history of a store and of one bead, as it is read back from Git."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from beads import Bead, Store
from beads.errors import NotFound
from beads.git import Commit, Oid
from beads.history import Difference, differences, history_of, transactions
from beads.model import Comment, Criterion, Dependency, path_of
from beads.ops import Close, Create, Label, Say, Update
from tests.world import git


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
    assert {d.field for d in differences(None, new)} >= {"title", "priority"}
    assert "issue_type" not in {d.field for d in differences(None, new)}


def test_a_large_transaction_is_one_entry(store: Store) -> None:
    store.commit("nux", [Create(bead=make(store, f"bt-{number}")) for number in range(300)])
    newest = next(itertools.islice(transactions(store.repository, store.snapshot().commit), 1))
    assert len(newest.beads) == 100
    (entry,) = history_of(store.repository, store.snapshot().commit, "bt-299")
    assert entry.what == "create bt-0: Do bt-0 (and 299 more)"
