"""``town log`` and the progress of ``town polecat run``: with a scripted agent, real processes, and a real terminal."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from beads.model import Attempt, Usage
from cli.main import town
from cli.town_log import in_words
from roles.events import Acted, Began, Ended, Event, Said, Troubled, Used, as_line
from roles.logs import attempt_label, lines
from tests.towns import TOWN, make_town, molecule, pour, run, sandboxed, settings_with, snapshot, until

EVENTS: list[Event] = [
    Began("5e55", "big-model"),
    Said("I look\nat \x1b[31mit."),
    Acted("bash", "pytest -q", False),
    Used(Usage(input=12345, output=67), 0.0123),
    Troubled("try again"),
    Ended("finished", "done"),
]


def test_every_event_is_a_line_for_people() -> None:
    assert [in_words(event) for event in EVENTS] == [
        "began     big-model 5e55",
        "said      I look\n                    at \\x1b[31mit.",
        "acted     bash: pytest -q (failed)",
        "used      12,345 input, 67 output, $0.0123",
        "troubled  try again",
        "ended     finished: done",
    ]


def logged(tmp_path: Path, agent: str = "fake") -> tuple[Path, str, Attempt, Path]:
    """A town in which one attempt was made: the repository, the step, the attempt, and where its events are."""
    repository = make_town(tmp_path, settings_with(["sh", "-c", "cat > /dev/null; echo hello; echo ok > parts/m"]))
    pour(repository, molecule("m", "echo out; echo ok > parts/m", agent=agent))
    run(repository, "polecat", "run")
    (step,) = [bead for bead in snapshot(repository) if bead.issue_type == "step"]
    assert step.parent
    directory = repository / ".git/beads/logs" / step.parent
    return repository, step.id, step.attempts[0], directory / f"{attempt_label(step, step.attempts[0])}.events"


def said(repository: Path, *args: str, code: int = 0) -> str:
    done = CliRunner().invoke(town, ["-C", str(repository), "log", *args])
    assert done.exit_code == code, done.output
    return done.stderr if code else done.stdout


def test_the_log_of_an_attempt(tmp_path: Path) -> None:
    repository, step, attempt, path = logged(tmp_path)
    # What a plain program printed is all it told.
    assert said(repository, step) == f"attempt 1 at {step}: fake, by {attempt.worker}\nhello\nsatisfied\n"
    assert [json.loads(line) for line in said(repository, step.partition(".")[0], "--json").splitlines()] == [
        {"event": "output", "text": "hello"}
    ]
    # As of an agent whose program is of another kind; its last line is torn.
    (repository / "town.toml").write_text("[agents.other]\n[gate]\ncommands = ['true']\n")
    path.write_text("".join(as_line(event, "2026-01-02T03:04:05+00:00") + "\n" for event in EVENTS) + '{"at": "20')
    shown = said(repository, step, "--attempt", "1").splitlines()
    assert shown[1] == "03:04:05  began     big-model 5e55"
    assert shown[-2:] == ["03:04:05  ended     finished: done", "satisfied"]
    facts = [json.loads(line) for line in said(repository, step, "--json").splitlines()]
    assert [fact["event"] for fact in facts] == ["began", "said", "acted", "used", "troubled", "ended"]
    assert said(repository, step, "--output").splitlines()[1] == "hello"


def test_there_is_no_such_log(tmp_path: Path) -> None:
    repository, step, _, path = logged(tmp_path)
    assert f"attempt 7 at {step} was never made" in said(repository, step, "--attempt", "7", code=3)
    path.unlink()
    path.with_suffix(".log").unlink()
    assert f"there is no log of attempt 1 at {step} here" in said(repository, step, code=3)
    pour(repository, molecule("new", "true"))
    new = next(bead.id for bead in snapshot(repository) if bead.title == "Do new")
    assert f"nobody has begun with {new}" in said(repository, new, code=3)


def test_following_ends_with_the_attempt(tmp_path: Path) -> None:
    repository = make_town(tmp_path, sandboxed(f'read = ["{tmp_path}"]'))
    line = "echo first; until [ -f ../../go ]; do sleep 0.05; done; echo second; echo ok > parts/m"
    pour(repository, molecule("m", line))
    polecat = subprocess.Popen([*TOWN, "polecat", "run"], cwd=repository, stdout=subprocess.DEVNULL)
    until(lambda: any(bead.attempts for bead in snapshot(repository)))
    (step,) = [bead for bead in snapshot(repository) if bead.issue_type == "step"]
    log = subprocess.Popen([*TOWN, "log", step.id, "--follow"], cwd=repository, stdout=subprocess.PIPE, text=True)
    assert log.stdout is not None
    assert log.stdout.readline().startswith("attempt 1 at")
    assert log.stdout.readline() == "first\n"
    (tmp_path / "go").touch()
    rest, _ = log.communicate()
    assert rest == "second\nsatisfied\n"
    assert (log.returncode, polecat.wait()) == (0, 0)


def test_following_a_file_that_is_not_there_yet(tmp_path: Path) -> None:
    path = tmp_path / "log"
    looks: list[int] = []

    def write() -> None:
        with path.open("ab") as file:
            file.write([b"one\ntw", b"o\nthree"][len(looks)])
        looks.append(1)

    assert list(lines(path, lambda: len(looks) == 2, write)) == [b"one", b"two", b"three"]


@pytest.mark.parametrize("terminal", [True, False])
def test_a_polecat_by_hand_shows_its_progress_on_a_terminal_only(tmp_path: Path, terminal: bool) -> None:
    repository = make_town(tmp_path)
    pour(repository, molecule("m", "echo ok > parts/m"))
    ours, theirs = pty.openpty() if terminal else os.pipe()
    process = subprocess.Popen([*TOWN, "polecat", "run"], cwd=repository, stdout=theirs)
    os.close(theirs)
    shown = b""
    try:
        while chunk := os.read(ours, 4096):
            shown += chunk
    except OSError:
        # How a terminal says on Linux that its other side is closed.
        assert sys.platform != "darwin"
    os.close(ours)
    assert process.wait() == 0
    assert (b"ended     finished" in shown) == terminal
    assert b" submitted: head" in shown
