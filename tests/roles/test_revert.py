"""Taking back what has landed, in a town where what landed was put there by the queue's own functions."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from beads import Store, graph
from beads.model import Bead, Criterion, Dependency, MergeRequest, milliseconds
from beads.ops import Close, Create, Intend, Land, Withdraw
from cli.main import town
from refinery.git import Git, Identity
from refinery.merge import Request, land, stack
from tests.beads.strategies import needs, part_of
from tests.towns import SETTINGS, make_town, run, settings_with
from tests.world import commit, git

WHO = Identity("beadtown refinery", "refinery@beadtown.invalid")


class Landed:
    """A town in which things have landed, several at once or one by one."""

    def __init__(self, place: Path, settings: str = SETTINGS) -> None:
        self.repository = make_town(place, settings)
        self.store = Store.open(self.repository)
        self.git = Git(self.repository, os.environ)
        self.now = milliseconds(self.store.clock.now())

    def land(self, *changes: tuple[str, dict[str, str]], after: dict[str, Sequence[Dependency]] | None = None) -> str:
        """Land these together, each a molecule with files; the commit of main."""
        base, beads, requests = git(self.repository, "rev-parse", "main"), [], []
        for name, files in changes:
            git(self.repository, "checkout", "--quiet", "--detach", base)
            head = git(commit(self.repository, files, f"Do {name}"), "rev-parse", "HEAD")
            beads += self._beads(name, head, base, (after or {}).get(name, ()))
            requests.append(Request(f"{name}.m1", f"Do {name}", head, name))
        git(self.repository, "checkout", "--quiet", "main")
        top = stack(self.git, base, requests, WHO, self.now).candidates[-1]
        assert len(top.members) == len(changes)
        assert land(self.git, "main", top)
        git(self.repository, "reset", "--quiet", "--hard", "main")
        ids = tuple(request.id for request in requests)
        made = [Create(bead=bead) for bead in beads]
        self.store.commit("test", [*made, Intend(ids=ids, commit=top.commit), Land(ids=ids, commit=top.commit)])
        return top.commit

    def _beads(self, name: str, head: str, base: str, after: Sequence[Dependency]) -> list[Bead]:
        def make(bead_id: str, kind: str, **fields: Any) -> Bead:
            both = {"created_at": self.now, "updated_at": self.now}
            return Bead.model_validate({"id": bead_id, "title": f"Do {name}", "issue_type": kind, **both, **fields})

        merge = MergeRequest(molecule=name, branch="b", head=head, base=base)
        return [
            make(name, "molecule", dependencies=tuple(after)),
            make(f"{name}.m1", "merge-request", merge=merge, dependencies=part_of(name)),
        ]

    def call(self, *args: str) -> Result:
        return CliRunner().invoke(town, ["-C", str(self.repository), "--actor", "Ada <ada@x.y>", "revert", *args])

    def revert(self, *args: str) -> dict[str, Any]:
        done = self.call(*args, "--json")
        assert done.exit_code == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def refused(self, *args: str, code: int) -> str:
        done = self.call(*args)
        assert done.exit_code == code, (done.stdout, done.stderr)
        return done.stderr

    def files(self, commit: str) -> set[str]:
        return set(git(self.repository, "ls-tree", "-r", "--name-only", commit).split())

    def head(self, request: str) -> str:
        merge = self.store.snapshot().need(request).merge
        assert merge is not None
        return merge.head


@pytest.fixture
def landed(tmp_path: Path) -> Landed:
    return Landed(tmp_path)


def test_one_of_those_that_landed_together_is_taken_back_alone_and_lands_through_the_gate(landed: Landed) -> None:
    landed.land(("bt-a", {"parts/a": "ok\n"}), ("bt-b", {"parts/b": "ok\n"}), ("bt-c", {"parts/c": "ok\n"}))
    landed.land(("bt-d", {"parts/d": "ok\n"}), after={"bt-d": needs("bt-b")})
    before = git(landed.repository, "rev-parse", "main")
    found = landed.revert("bt-b", "--reason", "it is slow")
    assert found["made"]
    assert (found["title"], found["conflicts"], found["dependents"]) == ('Revert "Do bt-b"', [], ["bt-d"])
    head = landed.head(found["request"])
    assert landed.files(head) == landed.files(before) - {"parts/b"}
    message = git(landed.repository, "show", "-s", "--format=%B", head)
    assert message.startswith('Revert "Do bt-b"\n\nit is slow\n\nThis takes back what ')
    assert (
        git(landed.repository, "show", "-s", "--format=%(trailers:key=Reverts-Bead,valueonly)", head).strip() == "bt-b"
    )
    assert git(landed.repository, "show", "-s", "--format=%an <%ae>", head) == "Ada <ada@x.y>"
    assert git(landed.repository, "status", "--porcelain") == "", "no work tree was touched"
    molecule = landed.store.snapshot().need(found["id"])
    assert molecule.dependencies == (Dependency(on="bt-b", type="discovered-from"),)
    assert graph.state(landed.store.snapshot(), molecule, landed.now).kind == "queued"

    # Twice is once, by whatever name.
    assert landed.revert("bt-b.m1") == {**found, "made": False}
    assert git(landed.repository, "for-each-ref", "refs/beads/request").count("\n") == 0

    run(landed.repository, "refinery", "tick")
    snapshot = landed.store.snapshot()
    assert snapshot.need(found["id"]).outcome == "landed"
    assert landed.files("main") == landed.files(before) - {"parts/b"}
    assert {e.tree for e in snapshot.need(found["request"]).evidence if e.verdict == "pass"} == {
        git(landed.repository, "rev-parse", "main^{tree}")
    }
    assert landed.revert("bt-b")["made"] is False

    # Taking that back brings it again, and then there are two ways to be told so.
    again = landed.revert(found["id"])
    assert again["title"] == 'Revert "Revert "Do bt-b""'
    assert "parts/b" in landed.files(landed.head(again["request"]))
    run(landed.repository, "refinery", "tick")
    assert "parts/b" in landed.files("main")
    assert f"`town revert {again['id']}`" in landed.refused("bt-b", code=5)


def test_a_commit_of_main_is_taken_back_whoever_made_it(landed: Landed) -> None:
    both = landed.land(("bt-a", {"parts/a": "ok\n"}), ("bt-b", {"parts/b": "ok\n"}))
    found = landed.revert(both)
    assert not {"parts/a", "parts/b"} & landed.files(landed.head(found["request"]))
    edges = landed.store.snapshot().need(found["id"]).dependencies
    assert {edge.on for edge in edges} == {"bt-a", "bt-b"}
    commit(landed.repository, {"parts/mine": "ok\n"}, "Mine, pushed by hand")
    mine = landed.revert("HEAD")
    assert mine["title"] == 'Revert "Mine, pushed by hand"'
    assert "parts/mine" not in landed.files(landed.head(mine["request"]))
    assert "parts/a" in landed.files(landed.head(mine["request"]))


def test_where_main_has_changed_since_somebody_has_to_resolve_it(landed: Landed) -> None:
    landed.land(("bt-a", {"shared.txt": "top\nfrom a\n"}))
    landed.land(("bt-b", {"shared.txt": "top\nfrom a, and b\n"}))
    found = landed.revert("bt-a")
    assert (found["request"], found["conflicts"]) == (None, ["shared.txt"])
    snapshot = landed.store.snapshot()
    (step,) = graph.steps(snapshot, snapshot.need(found["id"]))
    assert "Conflicts: shared.txt" in step.description
    lines = [criterion.run for criterion in step.criteria]
    assert "git grep" in lines[0]
    assert lines[1:] == ["sh check.sh"]
    assert "<<<<<<<" in git(landed.repository, "show", f"polecat/{found['id']}:shared.txt")
    assert graph.state(snapshot, snapshot.need(found["id"]), landed.now).kind == "ready"
    assert landed.revert("bt-a")["made"] is False


def test_what_a_person_takes_back_may_change_protected_paths(tmp_path: Path) -> None:
    protected = SETTINGS.replace("[gate]\n", '[gate]\nprotected = ["tests/**"]\n')
    landed = Landed(tmp_path, protected)
    landed.land(("bt-a", {"tests/a": "x\n"}))
    found = landed.revert("bt-a")
    run(landed.repository, "refinery", "tick")
    assert landed.store.snapshot().need(found["id"]).outcome == "landed"


def test_what_cannot_be_taken_back_says_why(landed: Landed, monkeypatch: pytest.MonkeyPatch) -> None:
    landed.land(("bt-a", {"parts/a": "ok\n"}))
    root = git(landed.repository, "rev-list", "--max-parents=0", "main")
    assert "first commit" in landed.refused(root, code=5)
    assert "no bead and no commit" in landed.refused("no-such-thing", code=3)
    assert "no bead and no commit" in landed.refused("../..", code=3)
    git(landed.repository, "checkout", "--quiet", "-b", "side")
    side = git(commit(landed.repository, {"x": "y\n"}, "Aside"), "rev-parse", "HEAD")
    git(landed.repository, "checkout", "--quiet", "main")
    assert "is not on main" in landed.refused(side, code=5)
    open_ = Bead(id="bt-o", title="o", criteria=(Criterion(run="true"),), created_at=landed.now, updated_at=landed.now)
    landed.store.commit("test", [Create(bead=open_)])
    assert "bt-o has not landed" in landed.refused("bt-o", code=5)
    git(landed.repository, "rm", "--quiet", "parts/a")
    commit(landed.repository, {}, "Delete it by hand")
    assert "nothing of bt-a any more" in landed.refused("bt-a", code=5)
    monkeypatch.setenv("BEADTOWN_MARKER", "clone/nux")
    assert "only a person can" in landed.refused("bt-a", code=5)


def test_one_that_was_given_up_is_asked_for_anew(landed: Landed) -> None:
    landed.land(("bt-a", {"parts/a": "ok\n"}))
    first = landed.revert("bt-a")
    landed.store.commit("ada", [Withdraw(id=first["request"], reason="after all not")])
    assert landed.revert("bt-a")["id"] == first["id"], "it waits for a person to say what becomes of it"
    landed.store.commit("ada", [Close(id=first["id"], outcome="cancelled", reason="no")])
    second = landed.revert("bt-a")
    assert second["made"]
    assert second["id"] != first["id"]


@pytest.mark.slow
def test_conflicts_are_resolved_by_an_agent_and_land(tmp_path: Path) -> None:
    resolve = "printf 'top\\nfrom b alone\\n' > shared.txt"
    landed = Landed(tmp_path, settings_with(["sh", "-c", resolve]))
    landed.land(("bt-a", {"shared.txt": "top\nfrom a\n"}))
    landed.land(("bt-b", {"shared.txt": "top\nfrom a, and b\n"}))
    found = landed.revert("bt-a")
    run(landed.repository, "up", "--until-idle")
    assert landed.store.snapshot().need(found["id"]).outcome == "landed"
    assert git(landed.repository, "show", "main:shared.txt") == "top\nfrom b alone"
    assert git(landed.repository, "for-each-ref", "refs/heads/polecat", "refs/beads/request") == ""
