"""The whole town, as real processes on a real repository: what lands, what is sent back, what waits for a person."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from beads.clock import SystemClock
from roles.town import _Waker
from tests.towns import (
    BEAD,
    TOWN,
    assert_nothing_left,
    assert_settled,
    make_town,
    molecule,
    part,
    pour,
    processes,
    run,
    snapshot,
    until,
)
from tests.world import commit, git


def test_a_plan_lands_in_order_and_leaves_nothing(tmp_path: Path) -> None:
    repository = make_town(tmp_path)
    pour(repository, part("a"), part("b"), part("c", needs=["a", "b"]))
    run(repository, "up", "--until-idle")
    assert_settled(repository, landed=3)
    assert (repository / "parts/c").read_text() == "ok\n"
    assert git(repository, "status", "--porcelain") == ""
    before = git(repository, "rev-parse", "main", "refs/beads/main")
    run(repository, "up", "--until-idle")
    assert git(repository, "rev-parse", "main", "refs/beads/main") == before


def test_the_second_attempt_gets_the_failure_as_input(tmp_path: Path) -> None:
    repository = make_town(tmp_path)
    line = "if grep -q 'wanted more'; then echo ok > parts/x; else echo no > parts/x; fi"
    pour(repository, molecule("x", line, "grep ok parts/x || { echo wanted more; false; }"))
    run(repository, "up", "--until-idle")
    assert_settled(repository, landed=1)
    (step,) = [bead for bead in snapshot(repository) if bead.issue_type == "step"]
    assert [attempt.end for attempt in step.attempts] == ["unmet", "satisfied"]
    assert "wanted more" in step.evidence[0].output


def test_criteria_that_cannot_hold_end_with_exit_7_and_a_list(tmp_path: Path) -> None:
    repository = make_town(tmp_path)
    pour(repository, part("good"), molecule("bad", "true", "test -f parts/never"), part("after", needs=["bad"]))
    done = run(repository, "up", "--until-idle", ok=[7])
    assert "failed 3 of 3 attempts" in done.stderr
    assert "town retry" in done.stderr
    states = {bead.title: bead.outcome for bead in snapshot(repository) if bead.issue_type == "molecule"}
    assert states == {"Do good": "landed", "Do bad": None, "Do after": None}
    bad = next(bead.id for bead in snapshot(repository) if bead.title == "Do bad")
    commit(repository, {"parts/never": "ok\n"}, "What was missing")
    run(repository, "retry", bad)
    run(repository, "up", "--until-idle")
    # The goal of one of them already held on main, so that nothing was left to land.
    outcomes = sorted(b.outcome or "open" for b in snapshot(repository) if b.issue_type == "molecule")
    assert outcomes == ["done", "landed", "landed"]
    assert_nothing_left(repository)


def test_green_alone_red_together_is_sent_back_and_lands(tmp_path: Path) -> None:
    repository = make_town(tmp_path)
    claim = "sleep 1; n=one; grep -q '^name one' parts/* && n=two; printf 'ok\\nname %s\\n' $n > parts/{}"
    pour(repository, *(molecule(name, claim.format(name)) for name in ("p", "q")))
    done = run(repository, "up", "--until-idle")
    assert "the gate is red with main" in done.stdout
    assert_settled(repository, landed=2)


def test_a_textual_conflict_is_sent_back_and_lands(tmp_path: Path) -> None:
    repository = make_town(tmp_path)
    add = "sleep 1; echo {0} >> shared.txt; echo ok > parts/{0}"
    pour(repository, *(molecule(n, add.format(n), f"grep -qx {n} shared.txt") for n in ("p", "q")))
    done = run(repository, "up", "--until-idle")
    assert "it conflicts with main in shared.txt" in done.stdout
    assert_settled(repository, landed=2)
    assert sorted((repository / "shared.txt").read_text().split()) == ["p", "q", "top"]


def test_a_dirty_checkout_is_never_overwritten(tmp_path: Path) -> None:
    repository = make_town(tmp_path)
    pour(repository, molecule("a", "echo more >> shared.txt; echo ok > parts/a"))
    (repository / "shared.txt").write_text("my own work\n")
    done = run(repository, "up", "--until-idle", ok=[7])
    assert "cannot follow" in done.stderr
    assert (repository / "shared.txt").read_text() == "my own work\n"
    assert not (repository / "parts/a").exists()
    git(repository, "checkout", "shared.txt")
    run(repository, "up", "--until-idle")
    assert_settled(repository, landed=1)


def test_edits_that_are_not_in_the_way_stay_and_do_not_stop_landing(tmp_path: Path) -> None:
    repository = make_town(tmp_path)
    pour(repository, part("a"))
    (repository / "shared.txt").write_text("my own work\n")
    (repository / "staged").write_text("staged\n")
    git(repository, "add", "staged")
    run(repository, "up", "--until-idle")
    assert git(repository, "status", "--porcelain") == " M shared.txt\nA  staged"
    assert (repository / "parts/a").read_text() == "ok\n"
    assert_settled(repository, landed=1)


def test_a_gate_that_cannot_run_lands_nothing(tmp_path: Path) -> None:
    repository = make_town(tmp_path)
    pour(repository, part("a"))
    text = (repository / "town.toml").read_text()
    commit(repository, {"town.toml": text.replace("sh check.sh", "no-such-program-here")}, "Break the gate")
    head = git(repository, "rev-parse", "main")
    done = run(repository, "up", "--until-idle", ok=[7])
    assert "could not be run" in done.stdout
    assert git(repository, "rev-parse", "main") == head
    commit(repository, {"town.toml": text}, "Mend the gate")
    run(repository, "up", "--until-idle")
    assert_settled(repository, landed=1)


def test_what_came_to_need_something_does_not_land_before_it(tmp_path: Path) -> None:
    repository = make_town(tmp_path)
    text = (repository / "town.toml").read_text()
    commit(repository, {"town.toml": text.replace("sh check.sh", "no-such-program-here")}, "Break the gate")
    pour(repository, part("early"), molecule("never", "true", "test -f parts/never"))
    run(repository, "up", "--until-idle", ok=[7])
    ids = {bead.title: bead.id for bead in snapshot(repository) if bead.issue_type == "molecule"}
    early, never = ids["Do early"], ids["Do never"]
    run(repository, "dep", "add", early, never, program=BEAD)
    commit(repository, {"town.toml": text}, "Mend the gate")
    run(repository, "up", "--until-idle", ok=[7])
    assert {bead.title: bead.outcome for bead in snapshot(repository) if bead.issue_type == "molecule"} == {
        "Do early": None,
        "Do never": None,
    }
    run(repository, "dep", "remove", early, never, program=BEAD)
    run(repository, "up", "--until-idle", ok=[7])
    outcomes = {bead.title: bead.outcome for bead in snapshot(repository) if bead.issue_type == "molecule"}
    assert outcomes == {"Do early": "landed", "Do never": None}


def test_a_second_town_is_refused(tmp_path: Path) -> None:
    repository = make_town(tmp_path)
    from beads.liveness import Presence

    with Presence(repository / ".git/beads", "town"):
        done = run(repository, "up", ok=[4])
    assert "running already" in done.stderr


def test_a_molecule_cancelled_in_the_queue_does_not_land(tmp_path: Path) -> None:
    repository = make_town(tmp_path)
    pour(repository, part("a"), part("b", needs=["a"]))
    run(repository, "polecat", "run")
    named = {bead.title: bead.id for bead in snapshot(repository) if bead.issue_type == "molecule"}
    a, b = named["Do a"], named["Do b"]
    head = git(repository, "rev-parse", "main")
    run(repository, "close", a, "--outcome", "cancelled", "--reason", "not wanted any more", program=BEAD)
    done = run(repository, "up", "--until-idle", ok=[7])
    assert f"bead dep remove {b} {a}" in done.stderr
    assert git(repository, "rev-parse", "main") == head
    assert_nothing_left(repository)
    run(repository, "dep", "remove", b, a, program=BEAD)
    run(repository, "up", "--until-idle")
    assert (repository / "parts/b").read_text() == "ok\n"


def test_a_town_asked_to_stop_gives_everything_back(tmp_path: Path) -> None:
    repository = make_town(tmp_path)
    pour(repository, molecule("slow", "touch begun; sleep 60"))
    town = subprocess.Popen([*TOWN, "up"], cwd=repository, stdout=subprocess.DEVNULL)
    until(lambda: list(tmp_path.glob("worktrees/*/begun")))
    run(repository, "stop")
    assert town.wait() == 0
    assert [bead.lease for bead in snapshot(repository)] == [None, None]
    assert processes(repository) == []
    assert list(tmp_path.glob("worktrees/[!.]*")) == []


@pytest.mark.parametrize("moments", [(0, 2), pytest.param((0, 1, 2, 3), marks=pytest.mark.slow)])
def test_ctrl_c_in_a_terminal_is_a_clean_stop(tmp_path: Path, moments: Sequence[int]) -> None:
    """A terminal sends SIGINT to the whole foreground group, whatever is going on in it."""
    repository = make_town(tmp_path)
    parts = 4 + len(moments)
    pour(repository, *(part(f"p{n}", seconds=0.1) for n in range(parts)))
    for number in moments:
        town = subprocess.Popen(
            [*TOWN, "up"],
            cwd=repository,
            start_new_session=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert town.stdout is not None
        lines = [town.stdout.readline() for _ in range(number + 2)]
        os.killpg(town.pid, signal.SIGINT)
        rest, _ = town.communicate()
        assert town.returncode == 0, "".join(lines) + rest
        assert processes(repository) == []
    run(repository, "up", "--until-idle")
    assert_settled(repository, landed=parts)


def test_a_broken_environment_does_not_spawn_for_ever(tmp_path: Path) -> None:
    repository = make_town(tmp_path)
    (repository / ".git/worktrees").write_text("a file where Git keeps its work trees\n")
    pour(repository, *(part(f"p{n}") for n in range(10)))
    done = run(repository, "up", "--until-idle", ok=[1])
    assert "failed 10 times in a row" in done.stderr
    assert [bead.lease for bead in snapshot(repository) if bead.lease] == []


def test_a_ref_that_moves_wakes_the_town(tmp_path: Path) -> None:
    repository, clock = make_town(tmp_path), SystemClock()
    # Again and again, because watching begins a moment after the start.
    line = "n=0; while git update-ref refs/beads/moved/$n main; do n=$((n + 1)); sleep 0.1; done"
    with (
        subprocess.Popen(["sh", "-c", line], cwd=repository) as mover,
        _Waker(repository / ".git/refs", clock) as waker,
    ):
        started = clock.monotonic()
        waker.wait(60.0, lambda: False)
        mover.kill()
    assert clock.monotonic() - started < 60.0
