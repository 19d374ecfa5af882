"""Clocks that jump, and workers that do not know what time it is: one holder at any time, and nothing is lost."""

from __future__ import annotations

import random
from datetime import timedelta
from pathlib import Path

import pytest

from beads.errors import Fenced, LostRace
from beads.model import Bead
from beads.ops import Claim, Close, Create, Release, Renew, Say
from beads.store import Store
from tests.beads.clocks import Virtual
from tests.beads.strategies import NOW, bead
from tests.faults.scenarios import command, done
from tests.world import git

HOURS = timedelta(hours=1)


@pytest.fixture
def store(repo: Path, clock: Virtual) -> Store:
    """A store with one bead, on a clock that is told what time it is."""
    store = Store.init(repo, "ada", clock=clock)
    store.commit("ada", [Create(bead=bead("bt-0"))])
    return store


def held(store: Store) -> Bead:
    return Store.open(store.repository.common, store.clock).snapshot().need("bt-0")


def take(store: Store, worker: str, seconds: float = 3600.0) -> int:
    """Claim the bead; the epoch that it is held under."""
    (claimed,) = store.commit(worker, [Claim(id="bt-0", worker=worker, seconds=seconds)]).beads
    assert claimed is not None
    return claimed.epoch


def test_a_lease_is_not_shorter_after_the_clock_went_back(store: Store, clock: Virtual) -> None:
    epoch = take(store, "nux")
    clock.moment -= 5 * HOURS
    with pytest.raises(LostRace):
        take(store, "zoe")
    store.commit("nux", [Renew(id="bt-0", worker="nux", epoch=epoch)])
    assert held(store).epoch == epoch
    store.commit("nux", [Close(id="bt-0", worker="nux", epoch=epoch)])
    assert held(store).closed


def test_a_lease_that_ended_by_a_clock_that_was_fast_is_still_fenced(store: Store, clock: Virtual) -> None:
    first = take(store, "nux")
    clock.moment += 2 * HOURS
    second = take(store, "zoe")
    assert second > first
    # The clock is set right again, and by it the first lease has not ended yet.
    clock.moment -= 2 * HOURS
    with pytest.raises(Fenced, match=f"no longer holds bt-0 under epoch {first}: zoe holds it under epoch {second}"):
        store.commit("nux", [Close(id="bt-0", worker="nux", epoch=first)])
    with pytest.raises(Fenced):
        store.commit("nux", [Renew(id="bt-0", worker="nux", epoch=first)])
    assert held(store).epoch == second


def test_whatever_the_clock_says_epochs_only_grow_and_one_holds_it(store: Store, clock: Virtual) -> None:
    chance = random.Random(0)
    epochs: dict[str, int] = {}
    highest = 0
    for _ in range(60):
        clock.moment = NOW + timedelta(minutes=chance.randrange(-600, 600))
        worker = chance.choice(["nux", "zoe", "ada"])
        try:
            if chance.random() < 0.6:
                epochs[worker] = take(store, worker)
                assert epochs[worker] >= highest
                highest = epochs[worker]
            elif worker in epochs:
                store.commit(worker, [Release(id="bt-0", worker=worker, epoch=epochs[worker])])
                assert epochs[worker] == highest, "who was overtaken cannot give back what is another's"
        except LostRace:
            continue
    assert held(store).epoch == highest > 5


def test_what_is_written_while_the_clock_goes_back_stays_in_order(store: Store, clock: Virtual, repo: Path) -> None:
    for number in range(20):
        clock.moment = NOW - number * HOURS
        store.commit("ada", [Say(id="bt-0", text=f"{number}"), Create(bead=bead(f"bt-x{number}"))])
        done(repo, "ready")
    texts = [comment.text for comment in held(store).comments]
    assert texts == [str(number) for number in range(20)]
    log = [entry for entry in done(repo, "log", "bt-0").out.splitlines() if entry.strip()]
    assert log
    assert "21 beads, 0 problems" in done(repo, "doctor").out
    git(repo, "fsck", "--strict", "--no-dangling")
    before = done(repo, "list", "--all", "--limit", "9999", "--json")
    for path in (repo / ".git" / "beads").glob("index.db*"):
        path.unlink()
    assert done(repo, "list", "--all", "--limit", "9999", "--json") == before


@pytest.mark.parametrize("year", [1970, 2038, 2106, 9990])
def test_a_clock_that_is_far_off_breaks_nothing(store: Store, clock: Virtual, repo: Path, year: int) -> None:
    clock.moment = NOW.replace(year=year)
    assert store.commit("ada", [Say(id="bt-0", text="then")]).changed
    take(store, "nux")
    clock.moment = NOW
    assert store.commit("ada", [Say(id="bt-0", text="now")]).changed
    assert [comment.text for comment in held(store).comments] == ["then", "now"]
    assert command(repo, "list", "--all").code == 0
    git(repo, "fsck", "--strict", "--no-dangling")
