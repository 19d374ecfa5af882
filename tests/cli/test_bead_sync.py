"""``bead sync`` and ``bead claim`` with a remote, as they are typed."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli.clone import clone_name, known_name
from tests.beads.clones import make_hub
from tests.cli.commands import Beads
from tests.world import git, make_repository


@pytest.fixture
def hub(tmp_path: Path) -> Path:
    return make_hub(tmp_path)


def clone(hub: Path, name: str) -> Beads:
    path = make_repository(hub.parent / name)
    git(path, "remote", "add", "origin", str(hub))
    return Beads(path)


@pytest.fixture
def ada(hub: Path) -> Beads:
    """A clone with a bead, in a store that nobody shares yet."""
    found = clone(hub, "ada")
    found.run("init")
    found.create("One", "--id", "bt-1")
    return found


def test_a_store_is_shared(ada: Beads, hub: Path) -> None:
    assert ada.run("sync") == "0 beads received, 1 sent, origin refs/beads/main"
    bob = clone(hub, "bob")
    assert bob.run("sync") == "1 beads received, 0 sent, origin refs/beads/main"
    bob.run("update", "bt-1", "--title", "Two")
    said = bob.json("sync")
    commit = git(bob.repository, "rev-parse", "refs/beads/main")
    assert said == {"remote": "origin", "ref": "refs/beads/main", "commit": commit, "received": 0, "sent": 1}
    ada.run("sync")
    assert ada.show("bt-1")["title"] == "Two"
    assert ada.json("log")[0]["commit"] == commit


def test_remote_and_ref_are_remembered(ada: Beads, hub: Path) -> None:
    git(ada.repository, "remote", "rename", "origin", "other")
    git(ada.repository, "remote", "add", "third", "nowhere")
    said = ada.run("sync", code=3)
    assert "Name it with --remote. There are other, third." in said
    ada.run("sync", "--remote", "other", "--ref", "refs/heads/beads")
    assert git(ada.repository, "config", "beadtown.remote") == "other"
    assert git(ada.repository, "config", "beadtown.remoteRef") == "refs/heads/beads"
    assert git(hub, "rev-parse", "refs/heads/beads")
    assert ada.run("sync").endswith("other refs/heads/beads")


def test_what_failed_is_not_remembered(ada: Beads) -> None:
    said = ada.run("sync", "--remote", "nowhere", code=6)
    assert said.startswith("error: the remote 'nowhere' cannot be read: fatal: 'nowhere' does not appear to be")
    assert "beadtown" not in git(ada.repository, "config", "--list")
    assert "is not a full ref name" in ada.run("sync", "--ref", "beads", code=2)
    assert "is not a remote" in ada.run("sync", "--remote", "-x", code=2)


def test_two_stores(ada: Beads, hub: Path) -> None:
    ada.run("sync")
    eve = clone(hub, "eve")
    eve.run("init", "--prefix", "eve")
    eve.create("Hers", "--id", "eve-1")
    said = eve.run("sync", code=5)
    assert "were begun independently" in said
    assert "bead sync --adopt" in said
    assert eve.run("sync", "--adopt").startswith("1 beads received, 1 sent")
    assert {bead["id"] for bead in eve.json("list")} == {"bt-1", "eve-1"}


def test_without_a_remote_a_claim_is_local(ada: Beads) -> None:
    ada.run("claim", "bt-1", "--as", "nux")
    assert ada.show("bt-1")["lease"]["site"] == ""


def test_with_a_remote_a_claim_counts_once_it_is_there(ada: Beads, hub: Path) -> None:
    ada.run("sync", "--remote", "origin")
    bob = clone(hub, "bob")
    bob.run("sync", "--remote", "origin")
    (held,) = ada.json("claim", "bt-1", "--as", "nux")
    assert held["epoch"] == 1
    assert bob.run("claim", "bt-1", "--as", "nux", code=4).startswith("error: bt-1 is held by nux")
    assert bob.json("claim", "--next") == []
    # Not by the same name in another clone, either.
    assert "nux of this clone does not hold bt-1" in bob.run("close", "bt-1", "--as", "nux", "--epoch", "1", code=4)
    ada.run("close", "bt-1", "--as", "nux", "--epoch", "1")
    ada.run("sync")
    bob.run("sync")
    assert bob.show("bt-1")["status"] == "closed"


def test_a_claim_without_the_remote_is_none(ada: Beads, hub: Path) -> None:
    ada.run("sync", "--remote", "origin")
    hub.rename(hub.with_name("moved"))
    assert ada.run("claim", "bt-1", "--as", "nux", code=6).startswith("error: the remote 'origin' cannot be read")
    assert "lease" not in ada.show("bt-1")


def test_town_toml_may_name_the_remote(ada: Beads) -> None:
    (ada.repository / "town.toml").write_text('[store]\nremote = "origin"\nremote_ref = "refs/heads/beads"\n')
    assert ada.run("sync").endswith("origin refs/heads/beads")
    ada.run("claim", "bt-1", "--as", "nux")
    name = known_name(ada.repository / ".git/beads")
    assert ada.show("bt-1")["lease"]["site"] == f"{name}/shell"
    (ada.repository / "town.toml").write_text('[store]\nremote = "https://example.org/x"\n')
    assert "town.toml:2: store.remote" in ada.run("claim", "bt-1", code=2)


def test_a_clone_keeps_its_name_and_a_copy_has_another(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    assert known_name(first) == ""
    name = clone_name(first)
    assert name
    assert clone_name(first) == known_name(first) == name
    assert "/" not in name
    second.mkdir()
    (second / "clone").write_bytes((first / "clone").read_bytes())
    assert known_name(second) == ""
    assert clone_name(second) != name
    assert [path.name for path in second.iterdir()] == ["clone"]
