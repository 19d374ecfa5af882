"""What the doctor can still say of a store that lost objects."""

from __future__ import annotations

from pathlib import Path

from beads import Bead, Dependency, Store
from beads.doctor import examine
from beads.model import path_of
from beads.ops import Close, Create
from tests.world import unpack


def test_a_lost_tree_is_a_finding_and_no_crash(repo: Path) -> None:
    store = Store.init(repo, "nux")
    now = store.clock.now()
    store.commit("nux", [Create(bead=Bead(id="bt-a", title="A", created_at=now, updated_at=now))])
    head = store.snapshot().commit
    shard = store.repository.find(store.repository.commit(head).tree, path_of("bt-a").rsplit("/", 1)[0])
    assert shard is not None
    unpack(repo / ".git")
    (repo / ".git" / "objects" / shard[:2] / shard[2:]).unlink()
    fresh = Store.open(repo)
    found = examine(fresh.repository, head)
    assert [(finding.kind, finding.where) for finding in found.findings] == [("unreadable", head)]
    assert shard in found.findings[0].problem
    assert found.beads == 0


def test_a_lost_file_does_not_hide_the_others(repo: Path) -> None:
    store = Store.init(repo, "nux")
    now = store.clock.now()
    beads = [Bead(id=f"bt-{name}", title=name, created_at=now, updated_at=now) for name in "abc"]
    store.commit("nux", [Create(bead=bead) for bead in beads])
    head = store.snapshot().commit
    blob = store.repository.find(store.repository.commit(head).tree, path_of("bt-b"))
    assert blob is not None
    unpack(repo / ".git")
    (repo / ".git" / "objects" / blob[:2] / blob[2:]).unlink()
    found = examine(Store.open(repo).repository, head)
    assert found.beads == 2
    assert [(finding.kind, finding.where) for finding in found.findings] == [("unreadable", path_of("bt-b"))]


def test_a_part_of_nothing_is_a_finding_until_it_is_closed(repo: Path) -> None:
    store = Store.init(repo, "nux")
    now = store.clock.now()
    step = Bead(id="bt-s", title="S", issue_type="step", created_at=now, updated_at=now)
    whole = Bead(id="bt-m", title="M", issue_type="molecule", created_at=now, updated_at=now)
    empty = step.evolve(id="bt-m.m1", issue_type="merge-request", dependencies=(part_of("bt-m"),))
    fine = step.evolve(id="bt-m.1", dependencies=(part_of("bt-m"),))
    store.commit("nux", [Create(bead=bead) for bead in (whole, step, fine, empty)])
    found = examine(store.repository, store.snapshot().commit).findings
    assert [(finding.kind, finding.where) for finding in found] == [("orphan", "bt-m.m1"), ("orphan", "bt-s")]
    store.commit("nux", [Close(id="bt-s", force=True, reason="nobody's"), Close(id="bt-m.m1", outcome="cancelled")])
    assert examine(store.repository, store.snapshot().commit).findings == ()


def part_of(bead_id: str) -> Dependency:
    return Dependency(on=bead_id, type="parent-child")
