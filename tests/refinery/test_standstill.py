"""That nothing can land is stored: it is seen on any clone, and no longer once something can."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from beads import Store, graph
from refinery.queue import STANDS
from roles.inbox import Item, inbox
from tests.towns import assert_settled, make_town, part, pour, run, snapshot
from tests.world import commit, git


def items(repository: Path) -> list[Item]:
    return list(inbox(Store.open(repository).snapshot(), datetime.now(UTC)).items)


def told(repository: Path) -> list[tuple[str, str]]:
    found = sorted((e.at, e.verdict, e.detail) for b in snapshot(repository) for e in b.evidence if e.subject == STANDS)
    return [(verdict, detail) for _, verdict, detail in found]


def test_a_gate_that_cannot_be_run_is_told_on_every_clone(tmp_path: Path) -> None:
    repository = make_town(tmp_path)
    pour(repository, part("a"))
    run(repository, "polecat", "run")
    text = (repository / "town.toml").read_text()
    commit(repository, {"town.toml": text.replace("sh check.sh", "echo oh; no-such-program-here")}, "Break the gate")
    done = run(repository, "refinery", "tick", ok=[7])
    request = graph.queue(snapshot(repository))[0]
    reason = "nothing can land: the gate cannot judge main itself"
    assert f"needs a person: {request.id}: {reason}\n  `town queue` shows the log" in done.stderr

    git(tmp_path, "clone", "--quiet", str(repository), "other")
    git(tmp_path / "other", "fetch", "--quiet", "origin", "refs/beads/main:refs/beads/main")
    (here,), (there,) = items(repository), items(tmp_path / "other")
    assert here == there
    assert (here.kind, here.bead_id, here.reason) == ("queue", request.id, reason)
    assert "oh" in here.evidence[0].text
    assert reason.removeprefix("nothing can land: ") in git(repository, "log", "--format=%s", "refs/beads/main")

    # Another start looks again, and says the same only once.
    run(repository, "refinery", "tick", ok=[7])
    assert told(repository) == [("error", "the gate cannot judge main itself")]
    assert "untested" not in run(repository, "queue").stdout
    commit(repository, {"town.toml": text}, "Mend the gate")
    run(repository, "refinery", "tick")
    assert items(repository) == []
    assert "landed" in {bead.outcome for bead in snapshot(repository)}


def test_an_edit_in_the_way_is_told_and_no_longer_when_it_is_gone(tmp_path: Path) -> None:
    repository = make_town(tmp_path)
    pour(repository, part("a"))
    (repository / "parts/a").write_text("mine\n")
    run(repository, "up", "--until-idle", ok=[7])
    (item,) = items(repository)
    assert f"main is checked out in {repository} and cannot follow" in item.reason
    assert str(item.ways[0]).startswith("Commit, stash or remove that")
    (repository / "parts/a").unlink()
    run(repository, "up", "--until-idle")
    assert items(repository) == []
    assert_settled(repository, landed=1)


def test_what_lands_past_the_one_that_stopped_the_queue_says_so(tmp_path: Path) -> None:
    repository = make_town(tmp_path)
    check = (repository / "check.sh").read_text()
    commit(repository, {"check.sh": f"test ! -e parts/a || exit 127\n{check}"}, "Cannot judge a")
    pour(repository, part("a"), part("b"))
    for _ in range(2):
        run(repository, "polecat", "run")
    run(repository, "refinery", "tick", ok=[7])
    assert landed(repository) == {"Do b"}, "it went past the other one"
    (item,) = items(repository)
    (left,) = graph.queue(snapshot(repository))
    assert item.bead_id == left.id
    assert item.reason.startswith("nothing can land: the gate can judge main, but not")
    pour(repository, part("c"))
    run(repository, "polecat", "run")
    run(repository, "refinery", "tick", ok=[7])
    halted = "the gate can judge main, but not the first request in the queue on top of it"
    assert told(repository) == [("error", halted), ("pass", "moves again"), ("error", halted)]
    assert landed(repository) == {"Do b", "Do c"}


def landed(repository: Path) -> set[str]:
    """The titles of the molecules that have landed."""
    return {b.title for b in snapshot(repository) if b.issue_type == "molecule" and b.outcome == "landed"}
