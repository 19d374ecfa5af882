"""Runs of the gate in their places: in order and at once, what one leaves for the next, and what cannot be judged."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from beads.clock import Clock, SystemClock
from beads.errors import Unreadable
from beads.model import Evidence
from refinery import gaterun, slots
from refinery.containment import Kind, Sandbox, trials
from refinery.failures import failing
from refinery.gate import Gate, environment_digest
from refinery.gaterun import GateRun
from refinery.git import Git
from refinery.processes import THIS_MACHINE, strays
from refinery.view import Host
from refinery.workshop import Workshop
from tests.beads.clocks import Virtual
from tests.refinery.test_failures import PYTEST, RECORDED
from tests.towns import until
from tests.world import environment, git, make_repository

CLOCK = SystemClock()


class Yard:
    """A repository and the places in which gates run on its main."""

    def __init__(self, place: Path) -> None:
        (place / "home").mkdir()
        self.environ = environment(place / "home")
        self.repository = make_repository(place / "project", {"file": "tracked\n", ".gitignore": "cache/\n*.log\n"})
        self.workshop = Workshop(Git(self.repository, self.environ), place / "trees")
        common = self.repository / ".git"
        host = Host(place / "home", tuple(Path(part) for part in self.environ["PATH"].split(os.pathsep)))
        self.sandbox = Sandbox("none", host, common, common / "beads")
        self.logs = place / "logs"
        self.main = git(self.repository, "rev-parse", "HEAD")
        self.marker = f"test {place}"

    def run(self, gate: Gate, slot: int = 0, marker: str = "", clock: Clock = CLOCK) -> GateRun:
        """A run that has been started."""
        head, marker = git(self.repository, "rev-parse", "HEAD"), marker or self.marker
        rooms = slots.Slots(self.workshop, self.sandbox, THIS_MACHINE, marker)
        places, refused = rooms.prepare(slot, gate.places, head, gate.keep, self.main)
        found = GateRun(
            gate=gate,
            commit=head,
            tree=git(self.repository, "rev-parse", "HEAD^{tree}"),
            places=places,
            environ=self.environ,
            sandbox=self.sandbox,
            log=self.logs / "run",
            marker=marker,
            clock=clock,
            by="refinery",
            refused=refused,
        )
        found.poll()
        return found

    def verdict(self, *commands: str, slot: int = 0, **fields: object) -> Evidence:
        """What comes of a whole run."""
        found = self.run(Gate.model_validate({"commands": commands, "timeout": 30.0, **fields}), slot)
        until(found.poll)
        verdict = found.poll()
        assert verdict is not None
        return verdict


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    yard = Yard(tmp_path_factory.mktemp("yard"))
    yield yard
    slots.clear(yard.workshop)
    assert [path.name for path in yard.workshop.root.glob("[!.]*")] == []
    assert not (yard.workshop.root / ".gates").exists()
    assert strays(yard.marker) == []


@pytest.fixture
def yard(shared: Yard) -> Iterator[Yard]:
    """The shared one; no process of a test may go on in it."""
    yield shared
    assert strays(shared.marker) == []


# ── In order, and at once ────────────────────────────────────────────────────────────────────────────────────


def test_in_order_each_finds_what_those_before_it_left_and_the_first_red_ends_it(yard: Yard) -> None:
    assert yard.verdict("echo 1 > built", "test -e built").verdict == "pass"
    red = yard.verdict("echo 1 > built", "test -e missing", f"touch {yard.logs}/third")
    assert (red.verdict, red.subject, red.detail) == ("fail", "gate: test -e missing", "exit 1")
    assert not (yard.logs / "third").exists()


def test_at_once_each_is_in_a_place_of_its_own_and_all_must_pass(yard: Yard, tmp_path: Path) -> None:
    meet = f'touch {tmp_path}/$BEADTOWN_SLOT; while test "$(ls {tmp_path} | wc -l)" -lt 3; do sleep 0.01; done; '
    wrote = meet + f'echo mine > file; echo "$PWD $TMPDIR" > {tmp_path}/$BEADTOWN_SLOT'
    passed = yard.verdict(wrote, f"{wrote} # again", f"{wrote} # and again", slot=1, parallel=True)
    assert passed.verdict == "pass", passed.output
    assert passed.subject.count(" # ") == 2, "all are named"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["3", "4", "5"], "slot 0 may have 0, 1 and 2"
    said = [path.read_text().split() for path in tmp_path.iterdir()]
    assert len({directory for directory, _ in said}) == len({temporary for _, temporary in said}) == 3


def test_at_once_the_first_red_decides_and_ends_the_others(yard: Yard, tmp_path: Path) -> None:
    waits = f"echo $$ > {tmp_path}/pid.new && mv {tmp_path}/pid.new {tmp_path}/pid; exec sleep 1000"
    fails = f"while test ! -e {tmp_path}/pid; do sleep 0.01; done; echo why; exit 3"
    red = yard.verdict(waits, fails, f"{waits} # too", parallel=True)
    assert (red.verdict, red.subject, red.detail) == ("fail", f"gate: {fails}", "exit 3")
    assert red.output == "why"
    assert not psutil.pid_exists(int((tmp_path / "pid").read_text()))


def test_each_has_its_own_time(yard: Yard, tmp_path: Path, clock: Virtual) -> None:
    waits = "touch {0}/began-{1}; while test ! -e {0}/end-{1}; do sleep 0.01; done"
    run = yard.run(Gate(commands=(waits.format(tmp_path, 1), waits.format(tmp_path, 2)), timeout=30.0), clock=clock)
    for number in (1, 2):
        until(lambda: run.poll() or [*tmp_path.glob(f"began-{number}")])  # noqa: B023 - It is called here and now.
        clock.sleep(20.0)
        (tmp_path / f"end-{number}").touch()
    until(run.poll)
    found = run.poll()
    assert found is not None
    assert (found.verdict, found.seconds >= 40) == ("pass", True)
    late = yard.verdict("true", "exec sleep 1000", timeout=0.2, parallel=True)
    assert (late.verdict, late.subject) == ("error", "gate: exec sleep 1000")


def test_a_verdict_names_its_gate_and_its_surroundings(yard: Yard) -> None:
    one = Gate(commands=("a", "b"))
    changes: list[dict[str, object]] = [{"commands": ("b", "a")}, {"parallel": True}, {"keep": ("cache",)}]
    changes += [{"timeout": 5.0}, {"network": True}]
    others = [one.model_copy(update=change) for change in changes]
    assert len({gate.digest() for gate in (one, *others)}) == 6
    assert one.digest() == one.model_copy(update={"slots": 4, "protected": ("town.toml", "tests/**")}).digest()
    here = yard.verdict("true", slot=0).environment
    assert here == yard.verdict("true", slot=1).environment == environment_digest(yard.environ, "none")
    assert here == environment_digest({**yard.environ, "TMPDIR": "/elsewhere"}, "none")
    assert here != environment_digest({**yard.environ, "IMAGE": "new"}, "none")


# ── What one run leaves for the next ─────────────────────────────────────────────────────────────────────────

LITTER = """\
echo changed > file; mkdir -p cache/deep "sub dir" locked; echo 1 > cache/deep/a; echo 1 > other.log
echo 1 > 'sub dir/x'; echo 1 > locked/x; chmod 0500 locked; git init -q nested; echo 1 > nested/x
ln -s / root; echo 1 > "$TMPDIR/left"
"""
CLEAN = """\
ls -A && test "$(ls -A | sort | tr '\\n' ' ')" = "$EXPECTED"
test $? = 0 && test "$(cat file)" = tracked && test -z "$(ls -A "$TMPDIR")"
"""


def holds(yard: Yard, expected: str, keep: Sequence[str] = ()) -> bool:
    """Whether the next run finds just that, and all else as it was committed."""
    found = yard.verdict(f'EXPECTED="{expected}"\n{CLEAN}', keep=keep)
    return found.verdict == "pass"


@pytest.mark.parametrize("ending", ["true", "false"])
def test_nothing_is_left_but_what_is_declared_to_be_kept(yard: Yard, ending: str) -> None:
    assert yard.verdict(f"{LITTER}{ending}", keep=["cache"]).verdict == ("pass" if ending == "true" else "fail")
    assert holds(yard, ".git .gitignore cache file ", keep=["cache"])
    assert holds(yard, ".git .gitignore file ")


@pytest.mark.parametrize("ending", ["kill -KILL $$", "exec sleep 1000", "exit 127"])
def test_after_a_run_that_did_not_come_to_its_end_nothing_is_kept(yard: Yard, ending: str) -> None:
    assert yard.verdict(f"{LITTER}{ending}", keep=["cache"], timeout=0.5).verdict == "error"
    assert holds(yard, ".git .gitignore file ", keep=["cache"])


@pytest.mark.parametrize("way, kept", [("", True), ("trap '' TERM; ", False)])
def test_what_is_cancelled_keeps_only_where_it_ended_when_asked(yard: Yard, way: str, kept: bool) -> None:
    line = f"{way}{LITTER}while :; do sleep 0.01; done"
    run = yard.run(Gate(commands=(line,), keep=("cache",)))
    (place,) = run.places
    until((place.directory / "other.log").exists)
    run.cancel()
    assert holds(yard, f".git .gitignore {'cache ' if kept else ''}file ", keep=["cache"])


def test_what_a_killed_refinery_left_running_is_ended_before_its_place_is_used(yard: Yard, tmp_path: Path) -> None:
    line = f"echo $$ > {tmp_path}/pid; {LITTER}while :; do echo 1 > file; sleep 0.01; done"
    run = yard.run(Gate(commands=(line,), keep=("cache",)), marker=f"{yard.marker} killed")
    until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
    assert strays(f"{yard.marker} killed")
    assert holds(yard, ".git .gitignore file ", keep=["cache"])
    assert strays(f"{yard.marker} killed") == []
    run.cancel()


# ── What is stored of it ─────────────────────────────────────────────────────────────────────────────────────


def test_what_is_stored_is_about_the_tests_that_failed_and_the_same_in_each_slot(yard: Yard) -> None:
    place = "$PWD/tests/test_slugs.py"
    line = f"yes compiling | head -n 20000; cat {RECORDED}/pytest.txt; echo {place}:24; exit 1"
    one, other = (yard.verdict(line, slot=slot) for slot in (0, 1))
    assert one.output == other.output
    assert len(one.output) <= gaterun.OUTPUT_MAX
    assert failing(one.output) == PYTEST
    assert "ValueError: no such day: 31" in one.output
    assert one.output.endswith("\ntests/test_slugs.py:24")


# ── What cannot be judged ────────────────────────────────────────────────────────────────────────────────────

DOUBTFUL = {
    "there is no such program": "no-such-program-here",
    "it cannot be executed": "./file",
    "it is killed": "kill -KILL $$",
    "what it runs is killed": "sh -c 'kill -KILL $$'; exit $?",
    "what it runs is killed, as make says it": "(kill -KILL $$); exit 137",
    "it takes too long": "exec sleep 1000",
    "it has a limit of its own": "timeout 0.1 sleep 1000",
    "the disk is full": "echo 'cp: error writing x: No space left on device'; exit 1",
    "nothing can be started": "echo 'sh: 1: Cannot fork'; exit 2",
    "no tests, and exit 0": "echo 'Ran 0 tests in 0.000s'",
    "no tests, and exit 5": "echo '=== no tests ran in 0.01s ==='; exit 5",
    "nothing but skipped ones": "cd . && echo '2 skipped in 0.01s' && : pytest",
    "a runner that says nothing": ": pytest",
}


@pytest.mark.parametrize("case", DOUBTFUL)
def test_in_doubt_nothing_passes_and_nobody_is_accused(yard: Yard, case: str) -> None:
    found = yard.verdict(DOUBTFUL[case], "true", timeout=0.3 if case == "it takes too long" else 30.0)
    assert found.verdict == "error", found
    assert found.subject == f"gate: {DOUBTFUL[case]}"


def test_success_that_is_only_claimed_is_none(yard: Yard) -> None:
    claims = "echo '=== 9 passed in 0.01s ==='; echo OK; exit 1"
    assert yard.verdict(claims).verdict == "fail"


def test_a_log_that_cannot_be_written_is_no_verdict_about_anybody(yard: Yard) -> None:
    (yard.logs / "run-2.log").unlink(missing_ok=True)
    (yard.logs / "run-2.log").mkdir(parents=True)
    for parallel in (False, True):
        found = yard.verdict("true", "false", parallel=parallel)
        assert (found.verdict, found.subject) == ("error", "gate: false")
        assert "run-2.log" in found.detail
    (yard.logs / "run-2.log").rmdir()


def test_what_cannot_be_checked_out_is_its_own_fault_where_main_can_be(tmp_path: Path) -> None:
    yard = Yard(tmp_path)
    blob = git(yard.repository, "rev-parse", "HEAD:file")
    git(yard.repository, "update-index", "--add", "--cacheinfo", f"100644,{blob},{'x' * 300}")
    git(yard.repository, "commit", "--quiet", "--message", "A name that no file can have")
    found = yard.verdict("true", "true")
    assert (found.verdict, found.subject) == ("error", "gate: true")
    assert found.detail.startswith("cannot be checked out: ")
    yard.main = git(yard.repository, "rev-parse", "HEAD")
    with pytest.raises(Unreadable):
        yard.verdict("true")
    git(yard.repository, "reset", "--quiet", "--hard", "HEAD^")
    assert yard.verdict("true").verdict == "pass"


@pytest.mark.parametrize("kind", ["bubblewrap", "landlock"])
def test_in_a_sandbox_there_is_a_place_for_temporary_files_as_well(shared: Yard, kind: Kind) -> None:
    sandbox = replace(shared.sandbox, choice=kind)
    if next(trial.reason for trial in trials(sandbox.host) if trial.kind == kind):
        pytest.skip(f"{kind} does not work here")
    yard = copy(shared)
    yard.sandbox = sandbox
    yard.environ = {**shared.environ, "TMPDIR": "/no/such/directory"}
    line = 'test ! -e "$TMPDIR/x" && touch "$TMPDIR/x" && echo "$BEADTOWN_SLOT"; exit 3'
    for _ in range(2):
        found = yard.verdict(line)
        assert (found.verdict, found.output) == ("fail", "0")


def test_the_work_tree_of_a_branch_that_is_called_like_a_slot_is_left_alone(tmp_path: Path) -> None:
    yard = Yard(tmp_path)
    mine = yard.workshop.open("gate-x", "work", "HEAD")
    (mine.path / "edit").write_text("not saved yet\n")
    assert yard.verdict("true").verdict == "pass"
    slots.clear(yard.workshop)
    assert [tree.path.name for tree in yard.workshop.all()] == ["gate-x"]
    assert (mine.path / "edit").read_text() == "not saved yet\n"
