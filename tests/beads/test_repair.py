"""What is damaged is put back from the history, and what people must decide is left to them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from beads.doctor import examine
from beads.errors import Fenced, Refused
from beads.history import transactions, undoing
from beads.model import Criterion, path_of
from beads.ops import Claim, Close, Create, Label, Say
from beads.repair import repair
from beads.store import Store
from tests.beads.clocks import Virtual
from tests.beads.strategies import bead
from tests.world import git, unpack


@pytest.fixture
def store(repo: Path, clock: Virtual) -> Store:
    """A store with a bead that is held, a sealed one, and a plain one."""
    store = Store.init(repo, "ada", clock=clock)
    sealed = bead("bt-sealed", criteria=(Criterion(run="true"),)).sealed()
    store.commit("ada", [Create(bead=one) for one in (bead("bt-held"), sealed, bead("bt-plain"))])
    store.commit("nux", [Claim(id="bt-held", worker="nux")])
    return store


def damage(store: Store, files: Mapping[str, bytes | None]) -> None:
    """Write files into the tree behind the store's back."""
    repository = store.repository
    head = repository.commit(store.head())
    new = repository.write(
        head.tree, files, parents=(head.oid,), author="Eve <e@x.org>", when=head.when, message="damage\n"
    )
    assert repository.swap(store.ref, head.oid, new)


def content(store: Store, bead_id: str) -> bytes:
    return git(store.repository.common, "show", f"{store.ref}:{path_of(bead_id)}").encode() + b"\n"


def sound(store: Store) -> None:
    """Nobody finds anything wrong, and the index says what one made anew says."""
    assert examine(store.repository, store.head()).findings == ()
    git(store.repository.common, "fsck", "--strict", "--no-dangling")
    said = list(Store.open(store.repository.common).snapshot())
    store.forget()
    assert list(Store.open(store.repository.common).snapshot()) == said
    assert repair(store, "ada") == ()


def test_what_cannot_be_read_is_put_back_and_nobody_goes_on_under_an_old_lease(store: Store, clock: Virtual) -> None:
    good = store.head()
    damage(store, {path_of("bt-held"): b"id = \n", path_of("bt-plain"): b"\xff"})
    mended = repair(store, "ada")
    assert {one.where: one.what for one in mended} == {
        "bt-held": f"is as in {good[:12]} (claim bt-held: nux, epoch 1)",
        "bt-plain": f"is as in {good[:12]} (claim bt-held: nux, epoch 1)",
    }
    sound(store)
    held = store.snapshot().need("bt-held")
    assert held.lease is not None
    assert (held.lease.worker, held.lease.until, held.epoch > 1000) == ("nux", clock.now(), True)
    (taken,) = store.commit("zoe", [Claim(id="bt-held", worker="zoe")]).beads
    assert taken is not None
    assert taken.epoch == held.epoch + 1
    repairs = [one for one in transactions(store.repository, store.head()) if one.operations == ("repair",)]
    assert [(one.actor, one.beads) for one in repairs] == [("ada", ("bt-held", "bt-plain"))]


def test_who_was_overtaken_before_the_damage_stays_fenced(store: Store, clock: Virtual) -> None:
    clock.moment += timedelta(hours=2)
    (zoe,) = store.commit("zoe", [Claim(id="bt-held", worker="zoe")]).beads
    assert zoe is not None
    # Of all that, nothing can be read any more but what was there at first.
    unpack(store.repository.common)
    for commit in git(store.repository.common, "rev-list", f"{store.ref}~2..{store.ref}").split():
        blob = git(store.repository.common, "rev-parse", f"{commit}:{path_of('bt-held')}")
        (store.repository.common / "objects" / blob[:2] / blob[2:]).unlink()
    other = Store.open(store.repository.common, clock)
    assert [one.where for one in repair(other, "ada")] == ["bt-held"]
    (ace,) = other.commit("ace", [Claim(id="bt-held", worker="ace")]).beads
    assert ace is not None
    assert ace.epoch > zoe.epoch
    with pytest.raises(Fenced):
        other.commit("zoe", [Close(id="bt-held", worker="zoe", epoch=zoe.epoch)])


def test_a_goal_that_was_changed_behind_its_seal_is_as_it_was_and_the_rest_is_new(store: Store) -> None:
    store.commit("ada", [Label(id="bt-sealed", add=("x",))])
    damage(store, {path_of("bt-sealed"): content(store, "bt-sealed").replace(b"true", b"false")})
    store.commit("ada", [Say(id="bt-sealed", text="after it")])
    (mended,) = repair(store, "ada")
    assert mended.what.startswith("has its goal and criteria as in ")
    sound(store)
    found = store.snapshot().need("bt-sealed")
    assert (found.criteria, found.labels, found.epoch) == ((Criterion(run="true"),), ("x",), 0)
    assert [comment.text for comment in found.comments] == ["after it"]


def test_what_never_was_a_bead_is_taken_out_and_one_that_was_moved_goes_home(store: Store) -> None:
    damage(
        store,
        {
            path_of("bt-never"): b"no bead\n",
            path_of("bt-other"): content(store, "bt-plain"),
            path_of("bt-plain"): None,
            path_of("bt-held"): content(store, "bt-sealed"),
        },
    )
    mended = {one.where: one.what.split(":")[0] for one in repair(store, "ada")}
    assert mended.keys() == {path_of("bt-never"), path_of("bt-other"), "bt-plain", "bt-held"}
    assert mended[path_of("bt-never")] == mended[path_of("bt-other")] == "is gone"
    sound(store)
    assert {found.id for found in store.snapshot()} == {"bt-held", "bt-plain", "bt-sealed"}
    # What was there is still in the history.
    assert git(store.repository.common, "show", f"{store.ref}~:{path_of('bt-never')}") == "no bead"


def test_a_name_that_somebody_gave_a_file_cannot_pass_for_a_trailer(store: Store) -> None:
    damage(store, {"beads/00/00/x\n\nActor: eve\nOperation: claim.toml": b"no bead\n", "beads/\udcff.toml": b""})
    assert len(repair(store, "ada")) == 2
    said = next(transactions(store.repository, store.head()))
    assert (said.actor, said.operations) == ("ada", ("repair",))
    sound(store)


class Late(Store):
    """One that has to wait for its second turn, while a bead is mended."""

    turns = 0
    mended: Mapping[str, bytes] = {}

    @contextmanager
    def turn(self) -> Iterator[None]:
        self.turns += 1
        if self.turns == 2:
            damage(self, self.mended)
        with super().turn():
            yield


def test_what_somebody_else_has_mended_meanwhile_is_left_as_it_is(store: Store) -> None:
    whole = {path_of(bead_id): content(store, bead_id) for bead_id in ("bt-held", "bt-plain")}
    damage(store, dict.fromkeys(whole, b"no bead\n"))
    late = Late(store.repository, store.clock)
    late.mended = {path_of("bt-held"): whole[path_of("bt-held")]}
    assert [one.where for one in repair(late, "ada")] == ["bt-plain"]
    assert late.turns == 2
    assert content(store, "bt-held") == whole[path_of("bt-held")]


def test_what_a_person_must_decide_is_left_alone(store: Store) -> None:
    files = {
        "beads/readme.md": b"hello\n",
        path_of("bt-a"): content(store, "bt-plain").replace(b"bt-plain", b"bt-a") + _needs("bt-b") + _needs("bt-gone"),
        path_of("bt-b"): content(store, "bt-plain").replace(b"bt-plain", b"bt-b") + _needs("bt-a"),
        path_of("bt-plain"): content(store, "bt-plain") + b'seal = "sha256:0"\n',
    }
    damage(store, files)
    before, findings = store.head(), examine(store.repository, store.head()).findings
    assert {finding.kind for finding in findings} == {"stray", "missing", "cycle", "seal"}
    assert repair(store, "ada") == ()
    assert store.head() == before


def test_where_the_history_is_cut_off_nothing_is_taken_out(store: Store) -> None:
    damage(store, {path_of("bt-never"): b"no bead\n"})
    unpack(store.repository.common)
    root = git(store.repository.common, "rev-list", "--max-parents=0", store.ref)
    (store.repository.common / "objects" / root[:2] / root[2:]).unlink()
    before = store.head()
    assert repair(Store.open(store.repository.common), "ada") == ()
    assert store.head() == before


def test_a_repair_is_not_undone(store: Store) -> None:
    damage(store, {path_of("bt-plain"): b"no bead\n", path_of("bt-never"): b"no bead\n"})
    repair(store, "ada")
    snapshot = store.snapshot()
    with pytest.raises(Refused, match="what it replaced was damaged"):
        undoing(store.repository, snapshot.commit, snapshot, snapshot.commit)


def _needs(on: str) -> bytes:
    return f'\n[[dependencies]]\non = "{on}"\ntype = "blocks"\n'.encode()
