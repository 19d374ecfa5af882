"""Many processes and one store: nothing is lost, nothing is won twice, and a full disk breaks nothing."""

from __future__ import annotations

import os
from pathlib import Path
from typing import cast

import pytest

from beads.ops import Create, Label, Say
from beads.store import REF, Store
from tests.beads.racer import race, start
from tests.beads.strategies import NOW, bead
from tests.world import git

# `make faults` makes it harder.
LONG = os.environ.get("FAULTS") == "all"
WRITERS = [f"writer-{number}" for number in range(16 if LONG else 5)]
BEADS = 200 if LONG else 24


@pytest.fixture
def store(repo: Path) -> Store:
    """A store with some beads."""
    store = Store.init(repo, "ada")
    store.commit("ada", [Create(bead=bead(f"bt-{number}")) for number in range(BEADS)])
    return store


def sound(store: Store, commits: int) -> None:
    """The history is one line of that many commits, and Git finds nothing wrong with it."""
    repo = store.repository.common
    assert git(repo, "rev-list", "--count", REF) == git(repo, "rev-list", "--count", "--first-parent", REF)
    assert git(repo, "rev-list", "--count", REF) == str(commits)
    git(repo, "fsck", "--strict", "--no-dangling")
    assert [path.name for path in repo.rglob("*") if path.name.endswith((".lock", ".keep"))] == []
    assert [path.name for path in (repo / "objects").rglob("tmp_*")] == []


@pytest.mark.parametrize("how", ["in turns", "unlocked"])
def test_each_bead_is_claimed_by_exactly_one(store: Store, repo: Path, how: str) -> None:
    won = cast("list[list[str]]", race([start("claim", repo, name, how) for name in WRITERS]))
    winners = {bead_id: name for name, ids in zip(WRITERS, won, strict=True) for bead_id in ids}
    assert sum(map(len, won)) == len(winners) == BEADS
    for found in store.snapshot():
        assert found.lease is not None
        assert (found.id, found.lease.worker, found.epoch) == (found.id, winners[found.id], 1)
    sound(store, 2 + BEADS)


@pytest.mark.parametrize("count,how", [(50 if LONG else 20, "in turns"), (5, "unlocked")])
def test_no_comment_is_lost_while_git_tidies_up(store: Store, repo: Path, count: int, how: str) -> None:
    processes = [start("say", repo, name, how, str(count)) for name in WRITERS]
    tidying = ["pack-refs --all --prune", "gc --quiet", "repack -adq", "prune-packed --quiet"]

    def tidy() -> None:
        for task in tidying * (3 if LONG else 2):
            git(repo, *task.split())

    said = cast("list[list[str]]", race(processes, tidy))
    comments = [comment.text for comment in store.snapshot().need("bt-0").comments]
    assert sorted(comments) == sorted(text for texts in said for text in texts)
    for texts in said:
        assert [text for text in comments if text in texts] == texts, "each one's are in order"
    sound(store, 2 + len(WRITERS) * count)


@pytest.mark.parametrize("how", ["in turns", "unlocked"])
def test_each_transaction_is_undone_exactly_once(store: Store, repo: Path, how: str) -> None:
    before = [found.evolve(updated_at=NOW) for found in store.snapshot()]
    for number in range(20):
        store.commit("zoe", [Label(id=f"bt-{number % 3}", add=(f"label-{number}",))])
    won = cast("list[list[str]]", race([start("undo", repo, "zoe", how) for _ in range(4)]))
    undone = [commit for commits in won for commit in commits]
    assert len(undone) == len(set(undone)) == 20
    assert [found.evolve(updated_at=NOW) for found in store.snapshot()] == before
    sound(store, 2 + 20 + 20)


def test_several_that_begin_the_store_begin_one(repo: Path) -> None:
    begun = cast("list[list[str]]", race([start("init", repo, name) for name in WRITERS]))
    assert len({store for [store] in begun}) == 1
    store = Store.open(repo)
    assert store.snapshot().settings()["store"] == begun[0][0]
    sound(store, 1)


@pytest.mark.parametrize("size", ["big", "many"])
def test_a_full_disk_is_said_so_and_breaks_nothing(store: Store, repo: Path, size: str) -> None:
    before = store.snapshot()
    [found] = race([start("write", repo, size)])
    kind, message, hint = cast("list[str]", found)
    assert kind == "Unreadable"
    assert message == f"the store in {repo / '.git'} cannot be written: [Errno 27] File too large"
    assert hint == "Free space or mend permissions."
    assert store.repository.head(REF) == before.commit
    assert len(Store.open(repo).snapshot()) == BEADS
    sound(store, 2)
    # Once there is room, the same goes through.
    assert store.commit("ada", [Say(id="bt-0", text="x" * 100_000)]).changed
