"""Clones and what they have in common: through real remotes, against races, kills, and remotes of every kind."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beads import heartbeat, sync
from beads.errors import Fenced, InvalidInput, LostRace, NotFound, Refused, TownError, Unreadable
from beads.git import Oid, Repository
from beads.history import history_of, transactions
from beads.model import Criterion, path_of
from beads.ops import Begin, Claim, Close, Create, Delete, Depend, Label, Release, Renew, Say, Update
from beads.remote import Remote, check_ref
from tests.beads.clocks import Virtual
from tests.beads.clones import IDS, Clone, anything, make_hub, said
from tests.beads.racer import race
from tests.beads.scratch import scratch
from tests.beads.strategies import NOW, bead
from tests.world import ROOT, git, unpack

# `BEADTOWN_SYNC_EXAMPLES=500` looks longer than there is time for each time.
EXAMPLES = int(os.environ.get("BEADTOWN_SYNC_EXAMPLES", "2"))


@pytest.fixture
def hub(tmp_path: Path) -> Path:
    return make_hub(tmp_path)


@pytest.fixture
def ada(hub: Path, tmp_path: Path) -> Clone:
    """A clone whose store is on the remote."""
    clone = Clone.make(hub, "ada", tmp_path).begin()
    clone.sync()
    return clone


@pytest.fixture
def bob(ada: Clone, hub: Path, tmp_path: Path) -> Clone:
    """Another clone of the same store."""
    assert ada.head
    clone = Clone.make(hub, "bob", tmp_path)
    clone.sync()
    return clone


def settle(clones: Sequence[Clone]) -> None:
    """Let everybody sync until nobody has news."""
    for _ in range(2):
        for clone in clones:
            clone.sync()
    assert len({clone.head for clone in clones}) == 1
    git(clones[0].path, "fsck", "--strict", "--no-dangling")


def test_the_first_push_makes_the_ref_and_a_new_clone_gets_the_store(hub: Path, tmp_path: Path) -> None:
    ada, bob = (Clone.make(hub, name, tmp_path) for name in ("ada", "bob"))
    ada.begin()
    done = ada.sync()
    assert (done.received, done.sent) == (0, len(IDS))
    assert git(hub, "rev-parse", "refs/beads/main") == ada.head == done.commit
    done = bob.sync()
    assert (done.received, done.sent) == (len(IDS), 0)
    assert bob.head == ada.head
    assert bob.sync() == sync.Synced(done.commit, 0, 0)


def test_nothing_anywhere(hub: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="neither here nor on origin"):
        Clone.make(hub, "ada", tmp_path).sync()


def test_who_only_follows_makes_no_commit(ada: Clone, bob: Clone) -> None:
    ada.do(Label(id="bt-1", add=("x",)))
    ada.sync()
    bob.sync()
    assert bob.head == ada.head
    assert bob.get("bt-1").labels == ("x",)


def test_two_histories_become_one_that_says_so(ada: Clone, bob: Clone) -> None:
    ada.do(Update(id="bt-1", priority=0), Label(id="bt-2", add=("x",)))
    bob.do(Update(id="bt-1", title="New"), Label(id="bt-3", add=("y",)))
    theirs = ada.sync().commit
    ours = bob.head
    done = bob.sync()
    ada.sync()
    assert ada.head == bob.head == done.commit
    assert (done.received, done.sent) == (2, 2)
    found = bob.get("bt-1")
    assert (found.priority, found.title) == (0, "New")
    commit = bob.store.repository.commit(done.commit)
    assert commit.parents == (ours, theirs)
    assert commit.message.splitlines() == [
        "sync with origin: 2 beads from there, 1 of them changed here, too",
        "",
        "Bead: bt-1",
        "Actor: bob",
        "Operation: sync",
    ]


def test_the_history_has_what_came_in_from_the_side(ada: Clone, bob: Clone) -> None:
    ada.do(Update(id="bt-1", priority=0))
    bob.do(Update(id="bt-1", title="New"))
    bob.do(Label(id="bt-2", add=("y",)))
    for clone in (ada, bob, ada):
        clone.sync()
    repository, head = ada.store.repository, cast("Oid", ada.head)
    assert {entry.actor for entry in transactions(repository, head)} == {"ada", "bob"}
    assert len(list(transactions(repository, head))) == int(git(ada.path, "rev-list", "--count", "refs/beads/main"))
    for bead_id in ("bt-1", "bt-2", "bt-3"):
        listed = git(ada.path, "log", "--format=%H", "refs/beads/main", "--", path_of(bead_id)).split()
        assert {entry.commit for entry in history_of(repository, head, bead_id)} == set(listed)
    whole = {entry.what: {d.field for d in entry.differences} for entry in history_of(repository, head, "bt-1")}
    assert whole["update bt-1: priority"] == {"priority"}
    assert whole["update bt-1: title"] == {"title"}
    # What the merge itself changed is what neither side had.
    (own,) = (fields for what, fields in whole.items() if what.startswith("sync with origin"))
    assert own == set()


def test_what_was_deleted_is_not_brought_back(ada: Clone, bob: Clone) -> None:
    bob.do(Say(id="bt-1", text="still here"), Update(id="bt-1", title="Edited for days"))
    ada.do(Delete(id="bt-1"), Depend(id="bt-2", on="bt-3"))
    settle([ada, bob])
    assert bob.get("bt-1").deleted
    ada.do(Depend(id="bt-2", on="bt-3", remove=True))
    bob.do(Label(id="bt-2", add=("x",)))
    settle([bob, ada])
    assert bob.get("bt-2").dependencies == ()
    assert len(ada.store.snapshot()) == len(IDS)


@pytest.mark.parametrize("count", [2, pytest.param(3, marks=pytest.mark.slow), pytest.param(5, marks=pytest.mark.slow)])
@settings(max_examples=EXAMPLES)
@given(seed=st.integers(0, 2**32))
def test_clones_converge_whatever_they_do_in_whatever_order(count: int, seed: int) -> None:
    chance = random.Random(seed)
    with scratch() as place:
        hub = make_hub(place)
        clones = [Clone.make(hub, f"clone-{number}", place) for number in range(count)]
        clones[0].begin().sync()
        for clone in clones:
            clone.sync()
        everything: set[str] = set()
        for serial in range(8 * count):
            clone = chance.choice(clones)
            anything(clone, chance, serial)
            everything |= said(clone)
            if chance.random() < 0.3:
                chance.choice(clones).sync()
        settle(clones)
        assert said(clones[0]) == everything


@pytest.mark.slow
@settings(max_examples=EXAMPLES)
@given(seed=st.integers(0, 2**32))
def test_clones_converge_without_a_centre(seed: int) -> None:
    """Everybody takes over from anybody, so that histories cross and have several common ancestors."""
    chance = random.Random(seed)
    with scratch() as place:
        clones = [Clone.make("nowhere", f"clone-{number}", place) for number in range(3)]
        clones[0].begin()
        for clone in clones[1:]:
            clone.peek(clones[0])
        everything: set[str] = set()
        for serial in range(24):
            clone = chance.choice(clones)
            anything(clone, chance, serial)
            everything |= said(clone)
            if chance.random() < 0.5:
                one, other = chance.sample(clones, 2)
                one.peek(other)
        one, other, third = clones
        for clone, whom in ((one, other), (third, one), (one, third), (other, third)):
            clone.peek(whom)
        assert len({clone.head for clone in clones}) == 1
        assert said(one) == everything


def test_criss_cross_is_the_same_from_either_side(ada: Clone, bob: Clone) -> None:
    ada.do(Update(id="bt-1", title="Ada's"), Label(id="bt-1", add=("a",)))
    bob.do(Update(id="bt-1", title="Bob's one"), Label(id="bt-1", add=("b",)))
    heads = ada.head, bob.head
    ada.peek(bob)
    git(bob.path, "fetch", "--quiet", str(ada.path), f"{heads[0]}:refs/heads/x")
    remote = Remote(Repository(bob.path), str(ada.path), environ=os.environ)
    sync.integrate(bob.store, remote, heads[0], "bob")
    assert ada.head != bob.head
    assert ada.tree == bob.tree
    ada.do(Update(id="bt-1", title="Again by ada"), Label(id="bt-1", remove=("b",)))
    bob.do(Update(id="bt-1", priority=0), Label(id="bt-1", remove=("a",), add=("c",)))
    assert len(git(ada.path, "merge-base", "--all", *_both(ada, bob)).split()) == 2
    ada.peek(bob)
    found = ada.get("bt-1")
    assert (found.title, found.priority, found.labels) == ("Again by ada", 0, ("c",))


def _both(ada: Clone, bob: Clone) -> tuple[str, str]:
    git(ada.path, "fetch", "--quiet", str(bob.path), "refs/beads/main")
    return str(ada.head), str(bob.head)


@pytest.mark.slow
def test_a_clone_that_was_offline_for_long(ada: Clone, bob: Clone) -> None:
    for number in range(60):
        ada.do(Say(id=IDS[number % 6], text=f"ada {number}"))
        bob.do(Say(id=IDS[number % 6], text=f"bob {number}"), Label(id="bt-1", add=(f"l{number}",)))
    settle([bob, ada])
    assert len(said(ada)) == 120
    assert len(ada.get("bt-1").labels) == 60


# What remotes say no to.


def hook(hub: Path, name: str, script: str) -> None:
    path = hub / "hooks" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


ONLY_BRANCHES = (
    'while read old new ref; do case $ref in refs/heads/*) ;; *) echo "only branches!" >&2; exit 1;; esac; done'
)


def test_a_remote_that_forbids_the_ref_is_said_so_and_another_ref_does(hub: Path, tmp_path: Path) -> None:
    ada = Clone.make(hub, "ada", tmp_path).begin()
    hook(hub, "pre-receive", ONLY_BRANCHES)
    before = ada.head
    with pytest.raises(
        Unreadable, match=r"refuses refs/beads/main: .*pre-receive hook declined.* only branches!"
    ) as found:
        ada.sync()
    assert "bead sync --ref refs/heads/beads" in found.value.hint
    assert "hook" in found.value.hint
    assert ada.head == before
    ada.ref = "refs/heads/beads"
    ada.sync()
    bob = Clone.make(hub, "bob", tmp_path)
    bob.ref = ada.ref
    bob.sync()
    assert bob.head == ada.head == git(hub, "rev-parse", "refs/heads/beads")
    held = ada.claim("bt-1", "nux")
    assert held is not None
    sync.renew(ada.store, ada.remote, held)
    assert git(hub, "for-each-ref", "refs/heads/beads-worker") != ""


@pytest.mark.parametrize("setting", ["transfer.hideRefs", "receive.hideRefs"])
def test_a_remote_that_hides_the_ref_is_said_so(hub: Path, tmp_path: Path, setting: str) -> None:
    ada = Clone.make(hub, "ada", tmp_path).begin()
    git(hub, "config", setting, "refs/beads")
    with pytest.raises(Unreadable, match="hidden ref") as found:
        ada.sync()
    assert setting in found.value.hint
    assert "--ref refs/heads/beads" in found.value.hint


def test_an_update_hook_is_named(ada: Clone, hub: Path) -> None:
    hook(hub, "update", "echo 'closed on Sundays' >&2; exit 1")
    ada.do(Label(id="bt-1", add=("x",)))
    with pytest.raises(Unreadable, match=r"hook declined.*closed on Sundays"):
        ada.sync()


def test_a_remote_that_is_not_there(ada: Clone, hub: Path) -> None:
    hub.rename(hub.with_name("moved"))
    ada.do(Label(id="bt-1", add=("x",)))
    before = ada.head
    with pytest.raises(Unreadable, match="the remote 'origin' cannot be read: fatal: "):
        ada.sync()
    assert ada.head == before


@pytest.mark.parametrize("name", ["", "--upload-pack=touch x", "-x", "a\nb"])
def test_what_is_no_remote(ada: Clone, name: str) -> None:
    with pytest.raises(InvalidInput, match="is not a remote"):
        Remote(ada.store.repository, name, environ={})


@pytest.mark.parametrize(
    "ref", ["main", "refs/x", "refs/heads/a b", "refs/heads/../x", "refs/heads/-x", "refs/heads/a.lock"]
)
def test_what_is_no_ref(ref: str) -> None:
    with pytest.raises(InvalidInput, match="is not a full ref name"):
        check_ref(ref)


# What remotes may have that is not to be taken.


def plant(clone: Clone, files: dict[str, bytes]) -> None:
    """Put files into the remote's store that no program of ours has written."""
    store = clone.store
    head = cast("Oid", clone.head)
    tree = store.repository.commit(head).tree
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(10_000)
    new = store.repository.write(tree, files, parents=(head,), author="m <m@x>", when=NOW, message="planted\n")
    sys.setrecursionlimit(limit)
    git(clone.path, "push", "--quiet", "--force", "origin", f"{new}:refs/beads/main")


GOOD = b'id = "bt-new"\ntitle = "x"\ncreated_at = 2026-01-01T00:00:00Z\nupdated_at = 2026-01-01T00:00:00Z\n'


@pytest.mark.parametrize(
    "path,data,says",
    [
        (path_of("bt-1"), b"title = ", path_of("bt-1")),
        (path_of("bt-1"), b'id = "bt-1"\n', "title: Field required"),
        (path_of("bt-1"), GOOD, "belongs elsewhere"),
        ("beads/bt-new.toml", GOOD, "belongs elsewhere"),
        ("readme.md", b"hello", "readme.md"),
        (path_of("bt-new"), b"#" * (sync.BEAD_BYTES_MAX + 1), "has 16777217 bytes"),
        ("format.toml", b"format = 2\n", "format 2, this program reads 1"),
        ("format.toml", b"format = \n", "format.toml:1"),
        ("/".join(["d"] * 1500), GOOD, "recursion depth"),
    ],
)
@pytest.mark.parametrize("ahead", [True, False])
def test_what_is_wrong_is_refused_and_nothing_changes(
    ada: Clone, bob: Clone, path: str, data: bytes, says: str, ahead: bool
) -> None:
    if ahead:
        bob.do(Label(id="bt-2", add=("x",)))
    before = bob.head
    plant(ada, {path: data})
    with pytest.raises(Unreadable, match="origin") as found:
        bob.sync()
    assert says in found.value.message
    assert bob.head == before
    if "format 2" in says:
        assert found.value.hint == "Update beadtown."
    bob.do(Label(id="bt-3", add=("y",)))


def test_a_ref_that_is_no_store(ada: Clone) -> None:
    tree = git(ada.path, "mktree")
    code = git(ada.path, "commit-tree", tree, "-m", "code")
    git(ada.path, "push", "--quiet", "origin", f"{code}:refs/heads/main")
    ada.ref = "refs/heads/main"
    with pytest.raises(Unreadable, match=r"is no store: it has no format\.toml"):
        ada.sync()


def test_a_missing_object_is_named(ada: Clone, bob: Clone) -> None:
    bob.do(Label(id="bt-1", add=("x",)))
    ada.do(Label(id="bt-1", add=("y",)))
    ada.sync()
    blob = git(bob.path, "rev-parse", f"refs/beads/main:{path_of('bt-1')}")
    unpack(bob.path / ".git")
    (bob.path / ".git/objects" / blob[:2] / blob[2:]).unlink()
    before = bob.head
    with pytest.raises(TownError, match=f"object {blob} is missing"):
        bob.sync()
    assert bob.head == before


def test_a_shallow_clone_of_the_store_is_said_so(ada: Clone, bob: Clone, tmp_path: Path) -> None:
    ada.do(Label(id="bt-1", add=("x",)))
    ada.sync()
    eve = Clone.make(f"file://{tmp_path / 'hub.git'}", "eve", tmp_path)
    git(eve.path, "fetch", "--quiet", "--depth=1", "origin", "refs/beads/main:refs/beads/main")
    eve.do(Label(id="bt-2", add=("y",)))
    bob.do(Label(id="bt-3", add=("y",)))
    bob.sync()
    eve.sync()
    settle([eve, ada, bob])
    assert [bob.get(f"bt-{number}").labels for number in (1, 2, 3)] == [("x",), ("y",), ("y",)]


# Two stores.


def test_two_stores_are_not_mixed_unless_that_is_asked_for(ada: Clone, hub: Path, tmp_path: Path) -> None:
    eve = Clone.make(hub, "eve", tmp_path).begin("bt-1", "bt-eve")
    eve.do(Update(id="bt-1", title="Eve's first"), Say(id="bt-1", text="mine"))
    before = eve.head
    with pytest.raises(Refused, match="were begun independently") as found:
        eve.sync()
    assert "--adopt" in found.value.hint
    assert eve.head == before
    eve.sync(adopt=True)
    settle([ada, eve])
    assert {one.id for one in ada.store.snapshot()} == {*IDS, "bt-eve"}
    assert ada.store.snapshot().settings() == eve.store.snapshot().settings()
    assert git(eve.path, "show", f"{before}:format.toml") != git(eve.path, "show", "refs/beads/main:format.toml")
    both = ada.get("bt-1")
    # Of two titles the longer one wins, and the other is not lost.
    assert both.title == "The work of bt-1"
    assert {comment.text for comment in both.comments} == {
        "mine",
        "Another clone had a different title here:\n\nEve's first",
    }


# Claims.


def test_a_claim_is_on_the_remote_when_it_counts(ada: Clone, bob: Clone) -> None:
    held = ada.claim("bt-1", "nux")
    assert held is not None
    assert held.lease is not None
    with pytest.raises(LostRace, match="bt-1 is held by nux"):
        bob.claim("bt-1", "fox")
    # The same name in another clone is somebody else, and again in the same clone it is the same.
    with pytest.raises(LostRace):
        bob.claim("bt-1", "nux")
    assert ada.claim("bt-1", "nux") == held
    assert {one.id for one in (bob.claim(None) for _ in range(5)) if one} == {*IDS} - {"bt-1"}
    assert bob.claim(None) is None


def test_the_loser_of_a_race_hears_who_has_it(ada: Clone, bob: Clone, hub: Path) -> None:
    # Bob's claim reaches the remote between ada's look and ada's push.
    started = hub.parent / "started"
    hook(hub, "pre-receive", f"test -e {started} && exit 0; touch {started}; cd {bob.path}; exec {_python(_CLAIM)}")
    with pytest.raises(LostRace, match="bt-1 is held by fox of bob, epoch 1: the remote had that claim first"):
        ada.claim("bt-1", "nux")
    lease = ada.get("bt-1").lease
    assert lease is not None
    assert (lease.worker, ada.get("bt-1").epoch) == ("fox", 1)


_CLAIM = "from tests.beads.clones import *; Clone(Path('.').resolve(), 'bob').claim('bt-1', 'fox')"


def _python(code: str) -> str:
    unset = "unset GIT_DIR GIT_QUARANTINE_PATH GIT_OBJECT_DIRECTORY GIT_ALTERNATE_OBJECT_DIRECTORIES;"
    return f'sh -c "{unset} PYTHONPATH={ROOT} {sys.executable} -c \\"{code}\\" </dev/null >&2"'


@pytest.mark.parametrize("how", ["hook", "gone"])
def test_a_claim_that_the_remote_does_not_take_is_given_back(ada: Clone, hub: Path, how: str) -> None:
    # The remote can be read, and breaks when it is written to.
    script = "exit 1" if how == "hook" else f"mv {hub}/HEAD {hub}/gone; exit 1"
    hook(hub, "pre-receive", script)
    with pytest.raises(Unreadable, match="bt-1 was not claimed: the remote 'origin'"):
        ada.claim("bt-1", "nux")
    found = ada.get("bt-1")
    assert (found.lease, found.status, found.epoch) == (None, "open", 1)


def test_many_clones_claim_and_each_bead_has_one_winner(hub: Path, tmp_path: Path) -> None:
    clones = [Clone.make(hub, f"clone-{number}", tmp_path) for number in range(4)]
    clones[0].begin().sync()
    for clone in clones[1:]:
        clone.sync()
    won = cast("list[list[str]]", race([start("claim", clone) for clone in clones]))
    assert sorted(bead_id for ids in won for bead_id in ids) == IDS
    settle(clones)
    for clone, ids in zip(clones, won, strict=True):
        for bead_id in ids:
            found = clones[0].get(bead_id)
            assert found.lease is not None
            assert (found.lease.worker, found.lease.site) == (clone.name, clone.name)


@pytest.mark.slow
def test_processes_of_one_clone_sync_at_once(ada: Clone, bob: Clone) -> None:
    told = cast("list[list[str]]", race([start("sync", clone) for clone in (ada, ada, bob)]))
    settle([ada, bob])
    assert said(ada) == {text for texts in told for text in texts}


def start(role: str, clone: Clone) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.beads.clones", role, str(clone.path), clone.name],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


# Fencing.


@pytest.mark.parametrize("names", [("nux", "fox"), ("nux", "nux")])
def test_of_two_that_claimed_offline_one_is_fenced(ada: Clone, bob: Clone, names: tuple[str, str]) -> None:
    ada.do(Create(bead=bead("bt-w", criteria=(Criterion(run="true"),))))
    settle([ada, bob])
    for clone, worker in zip((ada, bob), names, strict=True):
        clone.do(Claim(id="bt-w", worker=worker, site=clone.name))
        clone.do(Begin(id="bt-w", worker=worker, epoch=1, runtime="command"))
    ada.sync()
    settle([bob, ada])
    first, second = names
    with pytest.raises(Fenced, match=f"{first} .*holds it under epoch 1"):
        bob.do(Renew(id="bt-w", worker=second, epoch=1))
    with pytest.raises(Fenced):
        bob.do(Close(id="bt-w", worker=second, epoch=1))
    ada.do(Renew(id="bt-w", worker=first, epoch=1))
    ada.do(Release(id="bt-w", worker=first, epoch=1))
    assert {attempt.end for attempt in ada.get("bt-w").attempts} <= {"stopped", "died"}
    with pytest.raises(Fenced):
        bob.do(Say(id="bt-2", text="on"), Renew(id="bt-w", worker=second, epoch=1))


def at(clone: Clone, moment: datetime) -> Clone:
    return Clone(clone.path, clone.name, Virtual(moment))


def test_a_zombie_is_fenced_after_another_clone_took_over(ada: Clone, bob: Clone) -> None:
    held = at(ada, NOW).claim("bt-1", "nux")
    assert held is not None
    later = NOW + timedelta(hours=2)
    taken = at(bob, later).claim("bt-1", "fox")
    assert taken is not None
    assert taken.epoch == 2
    zombie = at(ada, later)
    zombie.do(Label(id="bt-1", add=("mine",)))
    # It has not heard yet, and its write is of no consequence; once it has, it is told.
    zombie.do(Renew(id="bt-1", worker="nux", epoch=1))
    zombie.sync()
    with pytest.raises(Fenced, match="nux no longer holds bt-1 under epoch 1: fox holds it under epoch 2"):
        zombie.do(Close(id="bt-1", worker="nux", epoch=1))
    lease = zombie.get("bt-1").lease
    assert lease is not None
    assert (lease.worker, lease.epoch) == ("fox", 2)


def test_a_sign_of_life_holds_a_lease_and_leaves_no_history(ada: Clone, bob: Clone, hub: Path) -> None:
    held = at(ada, NOW).claim("bt-1", "nux")
    assert held is not None
    later = at(ada, NOW + timedelta(minutes=50))
    for _ in range(3):
        renewed = later.store.commit("nux", [Renew(id="bt-1", worker="nux", epoch=1)]).beads[0]
        assert renewed is not None
        sync.renew(later.store, later.remote, renewed)
    # Only the sign of life has reached the remote, once and with nothing behind it.
    (ref,) = git(hub, "for-each-ref", "--format=%(refname)", "refs/beads/worker").split()
    assert ref == f"refs/beads/worker/{heartbeat.ref_name('nux', 'ada')}"
    assert git(hub, "rev-list", "--count", ref) == "1"
    with pytest.raises(LostRace, match="held by nux"):
        at(bob, NOW + timedelta(minutes=90)).claim("bt-1", "fox")
    taken = at(bob, NOW + timedelta(minutes=120)).claim("bt-1", "fox")
    assert taken is not None
    assert taken.epoch == 2


def test_signs_of_life_of_strangers_say_nothing() -> None:
    good = "nux is alive\n\nWorker: nux\nSite: s\nLease: bt-1 1 2026-01-01T00:00:00+00:00\n"
    key = heartbeat.Key("bt-1", 1, "nux", "s")
    junk = ["", "Lease: bt-1 x y", "Worker: a\nLease: bt-1 1 2026-01-01T00:00:00", "Lease:  ", "\x00\xff"]
    assert set(heartbeat.read([good, *junk])) == {key}


# Kills.

_STEPS = ["fetch", "integrate", "push", "_count"]


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("step", _STEPS)
def test_a_kill_in_the_middle_is_gone_on_from(ada: Clone, bob: Clone, step: str, before: bool) -> None:
    ada.do(Say(id="bt-1", text="one"))
    ada.sync()
    bob.do(Say(id="bt-1", text="two"))
    child = os.fork()
    if child == 0:
        where: object = Remote if step in ("fetch", "push") else sync
        real = cast("Callable[..., object]", getattr(where, step))

        def killed(*args: object, **more: object) -> object:
            if not before:
                real(*args, **more)
            os.kill(os.getpid(), signal.SIGKILL)
            return None

        setattr(where, step, killed)
        bob.sync()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert status == signal.SIGKILL
    bob.do(Say(id="bt-1", text="three"))
    settle([bob, ada])
    assert said(ada) == {"one", "two", "three"}
    assert [comment.text for comment in ada.get("bt-1").comments].count("two") == 1


def test_a_lock_file_that_a_killed_fetch_left_blocks_nobody(ada: Clone, bob: Clone) -> None:
    ada.do(Say(id="bt-1", text="one"))
    ada.sync()
    lock = bob.path / ".git/refs/beads/remotes/origin/main.lock"
    lock.touch()
    bob.sync()
    assert bob.head == ada.head
    assert not lock.exists()


def test_others_may_be_faster_for_a_while(ada: Clone, bob: Clone, hub: Path) -> None:
    # The first pushes lose, as if somebody had been there just before.
    count = hub.parent / "count"
    hook(hub, "update", f"echo x >> {count}; test $(wc -l < {count}) -gt 2 || git update-ref refs/beads/main $2^")
    ada.do(Create(bead=bead("bt-new")))
    with pytest.raises(TownError):
        ada.sync()
    count.write_text("x\nx\nx\nx\n")
    ada.sync()
    bob.sync()
    assert bob.get("bt-new").id == "bt-new"
