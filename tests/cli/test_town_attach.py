"""``town attach``: real processes, a real terminal, and what is left when they are killed."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
from pathlib import Path

import pytest

from beads import Bead, graph
from beads.errors import Refused
from cli.config import open_site
from refinery.git import Identity
from roles.attach import ByHand, Handed
from roles.polecat import Polecat
from roles.runtimes import RUNTIMES, plain
from roles.task import Launch, Order, Runtime
from tests.towns import TOWN, make_town, molecule, pour, prepare, run, settings_with, snapshot, until
from tests.world import git


def of(repository: Path, kind: str) -> Bead:
    (found,) = [bead for bead in snapshot(repository) if bead.issue_type == kind]
    return found


def root_of(repository: Path) -> str:
    return of(repository, "molecule").id


@pytest.fixture
def stuck(tmp_path: Path) -> Path:
    """A town whose only molecule has failed as often as it may."""
    repository = make_town(tmp_path)
    pour(repository, molecule("m", "echo bad > parts/m", "grep ok parts/m"))
    run(repository, "polecat", "run", ok=[7])
    return repository


def test_a_person_brings_to_an_end_what_an_agent_could_not(stuck: Path) -> None:
    line = "cat parts/m > seen; echo ok > parts/m; echo $BEADTOWN_BEAD >> seen"
    done = run(stuck, "--json", "attach", root_of(stuck), "--done", "--", line)
    told = json.loads(done.stdout)
    assert told["end"] == "submitted"
    assert told["step"] == of(stuck, "step").id
    assert told["criteria"] == ["run: grep ok parts/m"]
    assert [found["verdict"] for found in told["evidence"]] == ["fail"]
    branch = told["branch"]
    assert git(stuck, "show", f"{branch}:seen") == f"bad\n{root_of(stuck)}"
    assert git(stuck, "log", "-1", "--format=%an <%ae>, %cn", branch) == "Test Person <test@example.org>, beadtown"
    # What they did was no attempt, and is proven all the same.
    step = of(stuck, "step")
    assert [a.end for a in step.attempts] == ["unmet"] * 3
    assert (step.outcome, step.evidence[-1].verdict) == ("done", "pass")
    run(stuck, "up", "--until-idle")
    assert of(stuck, "molecule").outcome == "landed"


def test_what_does_not_hold_is_kept_and_given_back(stuck: Path) -> None:
    done = run(stuck, "attach", root_of(stuck), "--done", "--", "echo better > parts/m", ok=[7])
    assert "does not hold: run: grep ok parts/m: exit 1" in done.stderr
    assert of(stuck, "molecule").lease is None
    assert not list(stuck.parent.glob("worktrees/[!.]*"))
    again = run(stuck, "attach", root_of(stuck), "--", "cat", "parts/m")
    assert again.stdout.splitlines()[-2:] == [
        "better",
        f"gave {root_of(stuck)} back; `town attach {root_of(stuck)}` takes it again",
    ]
    assert run(stuck, "attach", root_of(stuck), "--", "exit 3", ok=[3]).stderr == ""


def test_a_molecule_with_a_person_is_nobody_elses(stuck: Path) -> None:
    prepare(stuck, "retry", root_of(stuck))
    line = "echo mine > parts/mine; touch ../../here; until [ -f ../../go ]; do sleep 0.05; done"
    person = subprocess.Popen([*TOWN, "attach", root_of(stuck), "--", line], cwd=stuck, stdout=subprocess.DEVNULL)
    until((stuck.parent / "here").exists)
    lease = of(stuck, "molecule").lease
    assert lease is not None
    assert lease.worker == f"test-person-{person.pid}"
    assert "is held by test-person" in run(stuck, "polecat", "run", root_of(stuck), ok=[4]).stderr
    refused = run(stuck, "attach", root_of(stuck), "--", "true", ok=[4])
    assert f"`town attach {root_of(stuck)} --take` asks it" in refused.stderr
    (stuck.parent / "go").touch()
    assert person.wait() == 0
    assert of(stuck, "molecule").lease is None
    assert git(stuck, "show", f"refs/beads/salvage/{root_of(stuck)}/{lease.epoch}:parts/mine") == "mine"


def test_a_polecat_is_asked_to_let_go(tmp_path: Path) -> None:
    repository = make_town(tmp_path)
    pour(repository, molecule("slow", f"echo half > half; exec sleep 60.{os.getpid()}"))
    polecat = subprocess.Popen([*TOWN, "polecat", "run"], cwd=repository, stdout=subprocess.DEVNULL)
    until(lambda: [path for path in tmp_path.glob("worktrees/*/half") if path.read_text()])
    root = root_of(repository)
    done = run(repository, "attach", root, "--take", "--", "cat half; pgrep -f 'sleep 60.'$PPID || true")
    assert "half" in done.stdout.splitlines()
    assert polecat.wait() == 0
    (attempt,) = of(repository, "step").attempts
    assert (attempt.end, attempt.reason) == ("stopped", "asked to stop")
    assert of(repository, "molecule").epoch == 2


def test_killed_while_attached_the_witness_saves_the_edits(stuck: Path) -> None:
    line = f"echo mine > parts/mine; touch ../../here; exec sleep 60.{os.getpid()}"
    person = subprocess.Popen([*TOWN, "attach", root_of(stuck), "--", line], cwd=stuck, stdout=subprocess.DEVNULL)
    until((stuck.parent / "here").exists)
    person.kill()
    person.wait()
    said = run(stuck, "witness", "tick").stdout
    assert f"test-person-{person.pid} died; uncommitted work is in" in said
    # What they had started would be at work in somebody else's files.
    assert subprocess.run(["pgrep", "-f", f"sleep 60.{os.getpid()}"], check=False, capture_output=True).stdout == b""
    assert of(stuck, "molecule").lease is None
    # A dead one needs no --take, and its work tree is as it was.
    assert "mine" in run(stuck, "attach", root_of(stuck), "--", "cat parts/mine").stdout


def test_a_worker_is_no_person(stuck: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BEADTOWN_MARKER", "town/nux")
    assert "only a person can" in run(stuck, "attach", root_of(stuck), "--", "true", ok=[5]).stderr


def test_without_a_terminal_there_has_to_be_a_command(stuck: Path) -> None:
    done = subprocess.run(
        [*TOWN, "attach", root_of(stuck)],
        cwd=stuck,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "Give a command after --" in done.stderr
    assert of(stuck, "molecule").lease is None


def test_at_a_terminal_there_is_a_shell(stuck: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHELL", "/bin/sh")
    monkeypatch.setenv("PS1", "prompt> ")
    monkeypatch.setenv("NO_COLOR", "1")
    process, terminal = pty.fork()
    if process == 0:
        os.chdir(stuck)
        os.execvp(TOWN[0], [*TOWN, "attach", root_of(stuck)])
    shown = b""

    def say(after: bytes, text: bytes) -> None:
        nonlocal shown
        while after not in shown:
            shown += os.read(terminal, 4096)
        os.write(terminal, text)

    say(b"prompt> ", b"echo ok > parts/m\n")
    # Ctrl-C is for what runs in the shell.
    say(b"parts/m\r\nprompt> ", b"sleep 60\n")
    until(lambda: b"sleep" in subprocess.run(["ps", "-A", "-o", "args"], check=True, capture_output=True).stdout)
    os.write(terminal, b"\x03")
    say(b"sleep 60\r\n^C", b"\nexit\n")
    say(b"and submit it? [y/N]", b"y\n")
    say(b" submitted: head", b"")
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) in (0, -signal.SIGHUP)
    text = shown.decode()
    assert f"{root_of(stuck)} Do m" in text
    assert f"polecat/{root_of(stuck)}" in text
    assert "- run: grep ok parts/m" in text
    assert of(stuck, "step").outcome == "done"


def test_the_agents_conversation_is_handed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def launch(order: Order) -> Launch:
        return Launch(["true"], environ={"AGENT_HOME": str(order.home)})

    told = Runtime("plain", launch, plain.silent, resumes=True, chooses=True, at_terminal=("resume", "{session}"))
    monkeypatch.setitem(RUNTIMES, "plain", told)
    repository = make_town(tmp_path, settings_with(["my-agent"]))
    pour(repository, molecule("m", "", "grep ok parts/m"))
    site = open_site(repository)
    assert Polecat(site, "nux", lambda: False).run(None).end == "unmet"
    given: list[Handed] = []

    def take(handed: Handed, _: object) -> bool:
        given.append(handed)
        return False

    person = Identity("Ana", "ana@example.org")
    result = ByHand(site, "ana-1", lambda: False, person=person, hand=take).run(root_of(repository))
    assert (result.end, result.reason) == ("stopped", "given back")
    (handed,) = given
    assert handed.argv == ("my-agent", "resume", handed.session)
    assert (handed.agent, len(handed.session)) == ("fake", 36)
    assert handed.surroundings == {"AGENT_HOME": str(site.home(root_of(repository), "fake"))}
    assert "AGENT_HOME" not in handed.environ
    assert handed.environ["BEADTOWN_MARKER"].endswith("/ana-1")


def test_what_is_queued_cannot_be_taken(tmp_path: Path) -> None:
    repository = make_town(tmp_path)
    pour(repository, molecule("m", "echo ok > parts/m"))
    run(repository, "polecat", "run")
    with pytest.raises(Refused, match=r"cannot be claimed: .*place 1 in the merge queue"):
        ByHand(open_site(repository), "ana", lambda: False, person=Identity("a", "b"), hand=lambda *_: True).run(
            root_of(repository)
        )
    assert graph.queue(snapshot(repository))
