"""``town queue``: what it shows, and what a person decides with it, in one town where nothing needs to run."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from beads import Store
from beads.liveness import Presence
from beads.model import Bead, Criterion, Evidence, MergeRequest, milliseconds
from beads.ops import Create, Intend, Judge, Land
from cli.main import town
from refinery.gate import gate_of
from refinery.git import Git
from refinery.underway import Run, Underway, tell
from tests.beads.strategies import part_of
from tests.towns import make_town
from tests.world import commit, git

Town = Callable[..., str]


class Queue:
    """A town with merge requests that nobody made."""

    def __init__(self, repository: Path) -> None:
        self.repository = repository
        self.store = Store.open(repository)
        self.head = git(repository, "rev-parse", "main")
        self.gate = gate_of(Git(repository, os.environ), self.head).digest()
        self.now = milliseconds(self.store.clock.now()) - timedelta(hours=1)

    def run(self, *args: str, code: int = 0) -> str:
        done = CliRunner().invoke(town, ["-C", str(self.repository), "--actor", "ada", "queue", *args])
        assert done.exit_code == code, f"{args} ended with {done.exit_code}:\n{done.stdout}\n{done.stderr}"
        return done.stderr if code else done.stdout

    def rows(self) -> dict[str, Any]:
        return {row["id"].removesuffix(".m1"): row for row in json.loads(self.run("--json"))}

    def submit(self, name: str) -> None:
        self.now += timedelta(seconds=1)

        def make(bead_id: str, kind: str, **fields: Any) -> Bead:
            both = {"created_at": self.now, "updated_at": self.now}
            return Bead.model_validate({"id": bead_id, "title": f"Do {name}", "issue_type": kind, **both, **fields})

        molecule = make(name, "molecule", criteria=(Criterion(run="true"),))
        merge = MergeRequest(molecule=name, branch=f"polecat/{name}", head=self.head, base=self.head)
        request = make(f"{name}.m1", "merge-request", merge=merge, dependencies=part_of(name))
        self.store.commit("test", [Create(bead=molecule), Create(bead=request)])

    def judge(self, name: str, verdict: str, tree: str = "t", output: str = "") -> None:
        self.now += timedelta(seconds=1)
        said = {"id": f"{name} {self.now}", "subject": "gate: sh check.sh", "verdict": verdict, "detail": "exit 1"}
        more = {"gate": self.gate, "tree": tree, "seconds": 60.0, "output": output, "at": self.now}
        evidence = Evidence.model_validate({**said, **more})
        self.store.commit("refinery", [Judge(id=f"{name}.m1", evidence=evidence)])


@pytest.fixture
def queue(tmp_path: Path) -> Queue:
    return Queue(make_town(tmp_path))


def test_what_is_in_the_queue_and_when_it_lands(queue: Queue) -> None:
    assert queue.run() == "the queue is empty\n"
    assert queue.run("--json") == "[]\n"
    queue.submit("a")
    queue.submit("b")
    queue.judge("b", "fail", output="test_x failed")
    rows = queue.rows()
    assert (rows["a"]["place"], rows["a"]["state"], rows["a"]["why"], rows["a"]["lands"]) == (
        1,
        "queued",
        "is next",
        None,
    )
    assert rows["b"]["why"] == "the gate: fail, exit 1"
    for _ in range(3):
        queue.judge("a", "pass")
    rows = queue.rows()
    assert rows["a"]["lands"]["earliest"] <= rows["a"]["lands"]["latest"]
    shown = queue.run()
    assert "60 s" in shown
    assert "test_x failed" in shown, "the log of what did not pass is shown"
    name = f"refinery-{os.getpid()}"
    with Presence(queue.store.directory / "workers", name):
        run = Run(what="b.m1 and the 1 before it", members=("a.m1", "b.m1"), since=queue.store.clock.now())
        tell(queue.store.directory, Underway(by=name, runs=(run,)))
        rows = queue.rows()
        assert (rows["a"]["state"], rows["a"]["with"]) == ("testing", ["b.m1"])
        assert "with b.m1, since" in queue.run()
    assert queue.rows()["a"]["state"] == "queued", "who tested it is dead"


def test_to_the_front_out_of_the_queue_and_once_more(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "abc":
        queue.submit(name)
    assert "c is queued: c.m1: place 1" in queue.run("bump", "c", "--reason", "the release waits")
    assert list(queue.rows()) == ["c", "a", "b"]
    assert "already" in queue.run("bump", "c.m1")
    assert queue.rows()["c"]["why"] == "put to the front by ada"
    assert "to the front: c.m1: the release waits" in git(queue.repository, "log", "--format=%s", "refs/beads/main")

    said = queue.run("drop", "a.m1", "--reason", "not before Monday")
    assert "a is needs person: ada took it out of the merge queue: not before Monday" in said
    assert "withdrawn already" in queue.run("drop", "a", "--reason", "again")
    told = json.loads(CliRunner().invoke(town, ["-C", str(queue.repository), "inbox", "--json"]).stdout)
    (item,) = told["items"]
    assert (item["kind"], item["id"]) == ("withdrawn", "a")
    assert item["ways"][0]["command"] == "town queue retry a.m1"
    assert "a is queued: a.m2: place 3" in queue.run("retry", "a.m1", "--reason", "it is Monday")
    assert "already" in queue.run("retry", "a.m1")
    assert json.loads(queue.run("retry", "b", "--json"))["changed"] is True
    assert "already" in queue.run("retry", "b")

    assert "there is no bead 'zz'" in queue.run("bump", "zz", code=3)
    molecule = Bead(id="d", title="Do d", issue_type="molecule", created_at=queue.now, updated_at=queue.now)
    queue.store.commit("test", [Create(bead=molecule)])
    assert "d has no merge request" in queue.run("retry", "d", code=5)
    queue.store.commit("test", [Intend(ids=("b.m1",), commit=queue.head), Land(ids=("b.m1",), commit=queue.head)])
    assert "over, landed" in queue.run("drop", "b", "--reason", "too late", code=5)
    monkeypatch.setenv("BEADTOWN_MARKER", "clone/nux")
    for args in (["bump", "c"], ["drop", "c", "--reason", "mine first"], ["retry", "c"]):
        assert "only a person can" in queue.run(*args, code=5)
    assert "c.m1" in queue.run(), "looking is everybody's"


def test_what_is_about_to_land_is_withdrawn_only_when_main_has_moved(queue: Queue) -> None:
    queue.submit("a")
    git(queue.repository, "checkout", "--quiet", "--detach")
    landing = git(commit(queue.repository, {"parts/a": "ok\n"}, "Land a"), "rev-parse", "HEAD")
    git(queue.repository, "checkout", "--quiet", "main")
    queue.store.commit("refinery", [Intend(ids=("a.m1",), commit=landing)])
    assert queue.rows()["a"]["why"] == f"is to land as {landing[:12]}"
    assert "about to land" in queue.run("drop", "a", "--reason", "no", code=5)
    git(queue.repository, "merge", "--quiet", "--ff-only", landing)
    assert "has landed as" in queue.run("drop", "a", "--reason", "no", code=5)
    git(queue.repository, "reset", "--quiet", "--hard", queue.head)
    commit(queue.repository, {"parts/z": "ok\n"}, "Somebody else's")
    assert "withdrawn" in queue.run("drop", "a", "--reason", "no")


def test_what_the_queue_has_done(queue: Queue) -> None:
    assert json.loads(queue.run("--stats", "--json"))["landed"] == 0
    assert "landed" in queue.run("--stats")
    for name in "abc":
        queue.submit(name)
        queue.judge(name, "fail", tree=name)
        queue.judge(name, "pass", tree=name)
    queue.store.commit("refinery", [Land(ids=("a.m1", "b.m1"), commit=queue.head)])
    found = json.loads(queue.run("--stats", "--json", "--days", "1"))
    assert (found["landed"], found["runs"], found["runs_per_landing"], found["flakes"]["rate"]) == (2, 4, 2.0, 0.5)
    assert "2.00 per landing" in queue.run("--stats")
