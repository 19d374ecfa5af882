"""The merge queue on a real repository, in this process: several slots, who is sent back, and who is only set aside."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from beads import Store, graph
from beads.clock import SystemClock
from beads.lineup import ASIDE
from beads.model import Bead, Criterion, MergeRequest
from beads.ops import Again, Bump, Create, Withdraw
from refinery import queue
from refinery.containment import Sandbox
from refinery.git import Git, Identity
from refinery.merge import land, stack
from refinery.refinery import Refinery
from refinery.styles import Style
from refinery.train import HEAD_ERRS
from refinery.view import Host
from refinery.workshop import Workshop
from tests.towns import until
from tests.world import commit, git, make_repository

CHECK = """\
grep -qs '^hangs' parts/* && exit 127
if [ -n "$MEET" ]; then
    touch "$MEET/$$"
    while [ "$(ls "$MEET" | wc -l)" -lt 3 ]; do sleep 0.01; done
fi
for part in parts/*; do grep -q '^ok' "$part" || exit 1; done
"""


class Queue:
    """A repository whose parts all have to say ok, a store with requests, and the Refinery of both."""

    def __init__(self, place: Path, slots: int, environ: dict[str, str]) -> None:
        gate = f'[gate]\ncommands = ["sh check.sh"]\ntimeout = 20\nslots = {slots}\nenvironment = ["MEET"]\n'
        files = {"check.sh": CHECK, "parts/first": "ok\n", "town.toml": gate}
        self.repository = make_repository(place / "project", files)
        self.store = Store.init(self.repository, "bt")
        self.clock = SystemClock()
        common = self.repository / ".git"
        host = Host(Path(environ["HOME"]), tuple(Path(part) for part in environ["PATH"].split(os.pathsep)))
        self.refinery = Refinery(
            store=self.store,
            git=Git(self.repository, environ),
            workshop=Workshop(Git(self.repository, environ), place / "trees"),
            branch="main",
            environ=environ,
            sandbox=Sandbox("none", host, common, common / "beads"),
            clock=self.clock,
            marker=f"test {place}",
            obtain=lambda _: None,
        )

    def submit(
        self, name: str, text: str = "ok\n", priority: int = 2, start: str = "main", more: tuple[str, str] = ("", "")
    ) -> None:
        """A molecule with a request that adds a part to main as it is or was, and maybe one more file."""
        git(self.repository, "checkout", "--quiet", "--detach", start)
        base = git(self.repository, "rev-parse", start)
        files = {f"parts/{name}": text, **({more[0]: more[1]} if more[0] else {})}
        commit(self.repository, files, f"Add {name}\n\nBead: bt-{name}")
        head = git(self.repository, "rev-parse", "HEAD")
        git(self.repository, "checkout", "--quiet", "main")
        now = self._now()

        def bead(bead_id: str, kind: str) -> Bead:
            title = f"Do {name}"
            return Bead(id=bead_id, title=title, issue_type=kind, priority=priority, created_at=now, updated_at=now)

        molecule = bead(f"bt-{name}", "molecule").evolve(criteria=(Criterion(run=f"test -f parts/{name}"),))
        merge = MergeRequest(molecule=molecule.id, branch=f"polecat/{name}", head=head, base=base)
        request = bead(f"bt-{name}.m1", "merge-request").evolve(merge=merge)
        self.store.commit("test", [Create(bead=molecule), Create(bead=request)])

    def _now(self) -> datetime:
        """Later than the last time it was asked."""
        self._asked = max(self.clock.now(), getattr(self, "_asked", self.clock.now()) + timedelta(seconds=1))
        return self._asked.replace(microsecond=0)

    def run(self) -> list[str]:
        """Tick until nothing happens any more; what happened."""
        happened: list[str] = []
        while True:
            lines = self.refinery.tick()
            happened += lines
            if self.refinery.busy:
                until(lambda: self.refinery.judged)
            elif not lines:
                return happened

    def ended(self, outcome: str | None) -> set[str]:
        """The names of those that ended so, or with None that wait."""
        beads = self.store.snapshot()
        return {b.merge.molecule.removeprefix("bt-") for b in beads if b.merge and b.outcome == outcome}

    def assert_green(self) -> None:
        """Every state of main that the Refinery made has a stored green verdict."""
        green = {e.tree for bead in self.store.snapshot() for e in bead.evidence if e.verdict == "pass"}
        assert (
            set(git(self.repository, "log", "--first-parent", "--format=%T", "--committer=refinery").split()) <= green
        )


@pytest.fixture
def one(tmp_path: Path, environ: dict[str, str]) -> Iterator[Queue]:
    queue = Queue(tmp_path, 1, environ)
    yield queue
    queue.refinery.close()


@pytest.fixture
def three(tmp_path: Path, environ: dict[str, str]) -> Iterator[Queue]:
    queue = Queue(tmp_path, 3, environ)
    yield queue
    queue.refinery.close()


def test_every_prefix_is_tested_at_once_where_there_are_slots(tmp_path: Path, environ: dict[str, str]) -> None:
    (tmp_path / "meet").mkdir()
    queue = Queue(tmp_path, 3, {**environ, "MEET": str(tmp_path / "meet")})
    for name in "abc":
        queue.submit(name)
    queue.run()
    queue.refinery.close()
    assert queue.ended("landed") == set("abc"), "each run waits until there are three"
    queue.assert_green()


@pytest.mark.parametrize("slots", ["one", "three"])
def test_the_bad_ones_are_sent_back_and_poison_nobody(slots: str, request: pytest.FixtureRequest) -> None:
    queue: Queue = request.getfixturevalue(slots)
    for name in "abcdefgh":
        queue.submit(name, "no\n" if name in "ad" else "ok\n")
    happened = queue.run()
    assert queue.ended("rejected") == {"a", "d"}
    assert queue.ended("landed") == set("bcefgh")
    assert not queue.ended(None)
    queue.assert_green()
    for name in "ad":
        (back,) = [b for b in queue.store.snapshot() if b.merge and b.merge.molecule == f"bt-{name}"]
        failed = [e.tree for e in back.evidence if e.verdict == "fail"]
        assert len(failed) > len(set(failed)), "it failed twice on one tree"
    controls = [line for line in happened if "the control of" in line]
    assert len(controls) <= 1, "what passes of the others is the control, once main is known to be green"


def test_one_that_cannot_be_judged_is_set_aside_until_the_others_have_landed(one: Queue) -> None:
    one.submit("a")
    one.submit("b", "hangs\n")
    one.submit("c", "no\n")
    one.submit("d")
    happened = one.run()
    assert one.ended("landed") == {"a", "d"}
    assert one.ended("rejected") == {"c"}
    assert one.ended(None) == {"b"}
    assert any(line.startswith("set bt-b.m1 aside") for line in happened)
    told = [e.detail for e in one.store.snapshot().need("bt-b.m1").evidence if e.subject == ASIDE]
    assert told == ["the gate can judge main, but not with it"]
    assert one.refinery.halted == HEAD_ERRS
    one.submit("e")
    one.run()
    assert one.ended("landed") == {"a", "d", "e"}, "it stands in nobody's way"
    assert one.refinery.halted == HEAD_ERRS


def test_what_is_set_aside_is_stored_until_a_person_has_it_tried_again(one: Queue) -> None:
    one.submit("a", "hangs\n")
    one.submit("b")
    one.run()
    assert one.ended("landed") == {"b"}

    def reason() -> str:
        snapshot = one.store.snapshot()
        return graph.state(snapshot, snapshot.need("bt-a.m1"), one.clock.now()).reason

    assert "set aside: the gate can judge main, but not with it" in reason()
    assert "set aside bt-a.m1" in git(one.repository, "log", "--format=%s", "refs/beads/main")
    # Another Refinery on the same store knows of it from there, and tries again because it was started.
    other = replace(one.refinery)
    other.tick()
    other.close()
    assert "set aside" not in reason()

    def runs() -> int:
        return sum(e.verdict == "error" for bead in one.store.snapshot() for e in bead.evidence if e.gate)

    one.run()
    known = runs()
    one.run()
    assert runs() == known, "what is known is not tried again"
    one.store.commit("ada", [Again(id="bt-a.m1", reason="it hung for another reason")])
    one.submit("c")
    one.run()
    assert runs() > known
    assert one.ended("landed") == {"b", "c"}


def test_what_was_convicted_can_be_asked_for_again_and_is_judged_anew(one: Queue) -> None:
    one.submit("a", "no\n")
    one.run()
    assert one.ended("rejected") == {"a"}
    one.store.commit("ada", [Again(id="bt-a.m1")])
    assert one.store.snapshot().need("bt-a.m2").merge
    failed = [line for line in one.run() if line.startswith("gate fail")]
    assert len(failed) == 2, "it fails twice again before it is sent back again"
    assert one.store.snapshot().need("bt-a.m2").outcome == "rejected"


def test_what_is_being_tested_is_given_up_only_for_what_is_urgent(one: Queue) -> None:
    one.submit("a")
    one.submit("b")
    one.refinery.tick()
    one.submit("early", priority=1)
    assert next(line for line in one.run() if line.startswith("landed")).startswith("landed bt-a.m1, bt-b.m1 as")
    one.submit("c")
    one.refinery.tick()
    one.submit("urgent", priority=0)
    landed = [line for line in one.run() if line.startswith("landed")]
    assert landed[0].startswith("landed bt-urgent.m1")
    one.submit("d")
    one.refinery.tick()
    one.submit("bumped", priority=4)
    one.store.commit("ada", [Bump(id="bt-bumped.m1")])
    landed = [line for line in one.run() if line.startswith("landed")]
    assert landed[0].startswith("landed bt-bumped.m1")
    assert one.ended("landed") == {"a", "b", "c", "d", "early", "urgent", "bumped"}


def test_what_is_withdrawn_while_it_is_tested_does_not_land(one: Queue) -> None:
    one.submit("a")
    one.submit("b")
    one.refinery.tick()
    one.store.commit("ada", [Withdraw(id="bt-a.m1", reason="not yet")])
    one.run()
    assert one.ended("landed") == {"b"}
    assert one.ended("cancelled") == {"a"}
    one.store.commit("ada", [Again(id="bt-a.m1")])
    one.run()
    assert one.ended("landed") == {"a", "b"}


def test_who_conflicts_is_told_what_the_others_did_there(one: Queue) -> None:
    one.submit("a", more=("parts/both", "ok from a\n"))
    one.run()
    main = git(one.repository, "rev-parse", "main")
    one.submit("b", start="main~1", more=("parts/both", "ok otherwise\n"))
    assert any(line.startswith("sent bt-b back: it conflicts with main in parts/both") for line in one.run())
    description = one.store.snapshot().need("bt-b.1").description
    assert "CONFLICT (add/add)" in description
    assert "main has there:\n- " in description
    assert " Add a (bt-a: Do a)" in description
    assert f"..{main[:12]} -- parts/both" in description
    assert "+ok from a" in description


@pytest.mark.parametrize("style", ["squash", "rebase"])
def test_a_style_lands_the_good_ones_and_survives_a_kill_before_the_record(style: Style, one: Queue) -> None:
    settings = (one.repository / "town.toml").read_text()
    commit(one.repository, {"town.toml": f'{settings}\n[merge]\nstyle = "{style}"\n'}, "Style")
    for name in "abc":
        one.submit(name, "no\n" if name == "b" else "ok\n")
    one.run()
    assert (one.ended("landed"), one.ended("rejected")) == (set("ac"), {"b"})
    one.assert_green()
    # What a Refinery leaves that is killed right after main has moved.
    one.submit("d")
    one.submit("e")
    at, waiting = Git(one.repository, dict(os.environ)), queue.requests(one.store.snapshot())
    who = Identity("beadtown refinery", "refinery@example.org")
    made = stack(at, git(one.repository, "rev-parse", "main"), waiting, who, one.clock.now(), style)
    assert land(at, "main", made.candidates[1])
    assert one.run() == [f"landed bt-d.m1, bt-e.m1 as {made.candidates[1].commit[:12]}"]
    said = git(one.repository, "log", "--format=%(trailers:key=Merge-Request,valueonly)", "main").split()
    assert sorted(said) == ["bt-a.m1", "bt-c.m1", "bt-d.m1", "bt-e.m1"]


def test_what_cannot_be_signed_stops_the_queue_and_convicts_nobody(one: Queue) -> None:
    one.submit("a")
    for key, value in {"gpg.format": "ssh", "commit.gpgSign": "true", "user.signingKey": "/nowhere"}.items():
        git(one.repository, "config", key, value)
    one.run()
    assert one.ended(None) == {"a"}
    assert one.refinery.halted.startswith("Git signs commits here, but cannot:")
    git(one.repository, "config", "commit.gpgSign", "false")
    one.run()
    assert one.ended("landed") == {"a"}
