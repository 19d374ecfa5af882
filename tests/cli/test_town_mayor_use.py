"""``town mayor`` where something is missing, empty, too much, or interrupted."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from beads import Bead
from cli.config import open_site
from cli.main import bead
from roles import offers
from tests.cli.test_town_mayor import AGENT, as_json, at_terminal, molecules, say
from tests.towns import SETTINGS, TOWN, assert_nothing_left, make_town, snapshot, until
from tests.world import git

# Says that it has begun, by a file in its work tree, and then never ends.
SLOW = "import pathlib, signal\npathlib.Path('begun').touch()\nsignal.pause()\n"

# Proposes a plan, and it is trying that plan which has begun, and never ends.
TRIED = """\
import json
step = {"id": "a", "title": "A", "run": "true", "criteria": [{"run": "touch begun; exec sleep 1000"}]}
molecule = {"id": "a", "title": "A", "goal": "a", "steps": [step]}
print(json.dumps({"say": "So:", "plan": {"plan": "p", "molecules": [molecule]}}))
"""


def make(path: Path, agent: str) -> Path:
    (path / "agent.py").write_text(agent)
    command = json.dumps([sys.executable, str(path / "agent.py")])
    return make_town(path, f'{SETTINGS}[mayor]\nagent = "it"\n[agents.it]\nruntime = "plain"\ncommand = {command}\n')


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return make(tmp_path, AGENT)


def messages(repository: Path) -> list[Bead]:
    return [bead for bead in snapshot(repository) if bead.issue_type == "message"]


@pytest.mark.parametrize(
    "args, code, words",
    [
        ([""], 2, "nothing is said"),
        (["  ", "\n"], 2, "nothing is said"),
        (["--continue"], 3, "no conversation of "),
        (["--continue", "add beta"], 3, "no conversation of "),
        (["--continue", "--in", "bt-x", "add beta"], 2, "two conversations"),
        (["/accept"], 2, "/accept is a command at the prompt"),
        (["x" * 100_001], 2, "100001 characters are said at once"),
    ],
)
def test_what_cannot_be_meant_is_not_said(repository: Path, args: list[str], code: int, words: str) -> None:
    before = snapshot(repository).commit
    assert words in say(repository, *args, code=code)
    assert snapshot(repository).commit == before


@pytest.mark.parametrize("text", ["/usr/lib is missing", "-x", "--yes"])
def test_what_begins_with_a_sign_is_a_request_all_the_same(repository: Path, text: str) -> None:
    assert say(repository, "--", text) == f"mayor: You said: {text}\n\n"


def test_bytes_that_are_no_text_are_said_as_far_as_they_are(repository: Path) -> None:
    done = subprocess.run([*TOWN, "mayor", b"caf\xe9"], cwd=repository, capture_output=True, stdin=subprocess.DEVNULL)
    assert (done.returncode, done.stdout) == (0, b"mayor: You said: caf?\n\n"), done.stderr


@pytest.mark.parametrize("args", [["hello"], [], ["--plan", "p.toml"]])
def test_without_standard_input_it_does_what_it_can(repository: Path, args: list[str]) -> None:
    (repository / "p.toml").write_text(
        'plan = "p"\n[[molecules]]\nid = "a"\ntitle = "A"\ngoal = "a"\nrun = "true"\ncriteria = [{ run = "true" }]\n'
    )
    line = ["sh", "-c", 'exec "$@" <&-', "sh", *TOWN, "mayor", *args]
    done = subprocess.run(line, cwd=repository, capture_output=True, text=True)
    assert done.returncode == (2 if "--plan" in args else 0), done.stderr
    assert ("nobody is here to accept" in done.stderr) == ("--plan" in args)
    assert ("You said: hello" in done.stdout) == ("hello" in args)


PROPOSED = (
    'plan = "x"\n[[molecules]]\nid = "a"\ntitle = "A"\ngoal = "a"\nrun = "true"\ncriteria = [{ run = "false" }]\n'
)


@pytest.mark.parametrize(
    "args",
    [
        ["create", "add gamma", "--type", "message", "--parent", "CONVERSATION"],
        ["create", "A", "--type", "proposal", "--parent", "CONVERSATION", "--description", PROPOSED],
        ["create", "A", "--type", "conversation"],
        ["update", "PROPOSAL", "--description", PROPOSED],
        ["close", "PROPOSAL"],
        ["comment", "CONVERSATION", "Well"],
        ["undo"],
        ["batch", "-"],
        ["import", "-"],
    ],
)
def test_no_worker_has_a_word_in_it(repository: Path, monkeypatch: pytest.MonkeyPatch, args: list[str]) -> None:
    found = as_json(repository, "add beta", code=7)
    monkeypatch.setenv("BEADTOWN_MARKER", "clone/nux")
    names = {"CONVERSATION": found["conversation"], "PROPOSAL": found["proposal"]["id"]}
    row = {"id": "bt-x", "title": "X", "issue_type": "message", "status": "open", "created_at": "2026-01-01T00:00:00Z"}
    stdin = json.dumps({"op": "close", "id": names["PROPOSAL"]} if args[0] == "batch" else row)
    before = snapshot(repository).commit
    whole = ["--actor", "mayor", *(names.get(arg, arg) for arg in args)]
    done = CliRunner().invoke(bead, ["-C", str(repository), *whole], input=stdin)
    assert "only a person can change what is said" in done.output
    assert done.exit_code == 5
    assert snapshot(repository).commit == before


def test_a_worker_files_a_bead_as_before(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BEADTOWN_MARKER", "clone/nux")
    done = CliRunner().invoke(bead, ["-C", str(repository), "create", "Mend it"])
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize("editor", ["false", "nowhere-to-be-found"])
def test_an_editor_that_does_not_work_ends_nothing(
    repository: Path, monkeypatch: pytest.MonkeyPatch, editor: str
) -> None:
    monkeypatch.setenv("VISUAL", editor)
    proposal = as_json(repository, "add beta", code=7)["proposal"]["id"]
    assert "Name an editor that works in $VISUAL or $EDITOR" in say(repository, stdin="/edit\n", code=2)
    with at_terminal(repository, "mayor") as terminal:
        terminal.until("waits for your yes")
        terminal.until("mayor>")
        terminal.type("/edit\r")
        terminal.until("Name an editor that works")
        terminal.until("mayor>")
        terminal.type("\x04")
    assert not snapshot(repository).need(proposal).closed


@pytest.mark.parametrize("agent, by_lines", [(SLOW, False), (SLOW, True), (TRIED, False)])
def test_interrupted_in_a_script_it_ends_and_leaves_nothing(tmp_path: Path, agent: str, by_lines: bool) -> None:
    repository = make(tmp_path, agent)
    args = ["mayor"] if by_lines else ["mayor", "one"]
    process = subprocess.Popen(
        [*TOWN, *args],
        cwd=repository,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stdin is not None
    process.stdin.write("one\ntwo\n")
    process.stdin.flush()
    until(lambda: any(tmp_path.rglob("_rehearsal-*/begun")))
    process.send_signal(signal.SIGINT)
    _, complaints = process.communicate(timeout=60)
    assert process.returncode == 130, complaints
    assert complaints.strip() == "error: interrupted"
    assert [message.description for message in messages(repository)] == ["one"]
    assert_nothing_left(repository)
    assert list(tmp_path.rglob("_rehearsal-*")) == []


def test_interrupted_at_a_terminal_it_goes_on(tmp_path: Path) -> None:
    repository = make(tmp_path, SLOW)
    with at_terminal(repository, "mayor") as terminal:
        terminal.until("mayor>")
        terminal.type("one\r")
        until(lambda: any(tmp_path.rglob("_rehearsal-*/begun")))
        terminal.type("\x03")
        terminal.until("Stopped. What you said is kept")
        terminal.until("mayor>")
        terminal.type("\x04")
    assert [message.status for message in messages(repository)] == ["open"]
    assert molecules(repository) == []
    assert_nothing_left(repository)


@pytest.mark.parametrize("line", ["/priority {} 0", "/cancel {} nobody needs it"])
def test_what_is_over_is_not_changed(repository: Path, line: str) -> None:
    say(repository, "add beta", "--yes", "--no-try")
    (molecule,) = molecules(repository)
    say(repository, stdin=f"/cancel {molecule.id} first\n")
    before = snapshot(repository).commit
    assert "is cancelled already" in say(repository, stdin=line.format(molecule.id) + "\n", code=5)
    assert "no work of its own" in say(repository, stdin=line.format(f"{molecule.id}.1") + "\n", code=5)
    assert snapshot(repository).commit == before


def test_why_somebody_accepts_is_on_record(repository: Path) -> None:
    proposal = as_json(repository, "add beta", code=7)["proposal"]["id"]
    say(repository, proposal, "--reason", "as we said on Monday", command="approve")
    assert any(message.description.startswith("as we said on Monday\n\nAccepted.") for message in messages(repository))


def test_ctrl_c_at_a_question_of_ours_goes_back_to_the_prompt(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    editor = repository.parent / "editor.py"
    editor.write_text("import pathlib, sys\npathlib.Path(sys.argv[1]).write_text('nothing')\n")
    monkeypatch.setenv("VISUAL", f"{sys.executable} {editor}")
    as_json(repository, "add beta", code=7)
    with at_terminal(repository, "mayor") as terminal:
        terminal.until("mayor>")
        terminal.type("/edit\r")
        terminal.until("Edit it again?")
        terminal.interrupt("Stopped.")
        terminal.until("mayor>")
        terminal.type("\x04")


def test_yes_accepts_nothing_as_long_as_the_mayor_asks(repository: Path) -> None:
    say(repository, "add beta", code=7)
    assert "has a question for you" in say(repository, "--continue", "which part", "--yes", code=7)
    assert molecules(repository) == []


# ── Two clones ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def other(repository: Path) -> Path:
    """A second clone, which knows what has been said so far; each goes on alone until :func:`meet`."""
    hub = repository.parent / "hub.git"
    git(repository.parent, "init", "--quiet", "--bare", str(hub))
    git(repository, "remote", "add", "origin", str(hub))
    git(repository, "push", "--quiet", "origin", "main")
    as_json(repository, "add beta", code=7)
    synced(repository)
    path = repository.parent / "other"
    git(repository.parent, "clone", "--quiet", "--branch", "main", str(hub), str(path))
    synced(path)
    return path


def synced(repository: Path) -> None:
    done = CliRunner().invoke(bead, ["-C", str(repository), "sync"])
    assert done.exit_code == 0, done.output


def meet(one: Path, other: Path) -> None:
    for clone in (one, other, one):
        synced(clone)
    assert snapshot(one).commit == snapshot(other).commit


def test_what_two_clones_accept_is_poured_once(repository: Path, other: Path) -> None:
    say(repository, "--continue", "--yes", "--no-try")
    say(other, "--continue", "--yes", "--no-try")
    meet(repository, other)
    (molecule,) = molecules(repository)
    assert (molecule.title, molecule.status) == ("Add beta", "open")
    assert [b.outcome for b in snapshot(repository) if b.issue_type == "proposal"] == ["done"]
    assert say(other, "--continue", "--yes") == ""


def test_what_one_clone_accepts_and_the_other_refines_waits_with_what_it_would_end(
    repository: Path, other: Path
) -> None:
    say(repository, "--continue", "--yes", "--no-try")
    say(other, "--continue", "first beta", code=7)
    meet(repository, other)
    shown = say(repository, "--continue", "--no-try", code=7)
    (molecule,) = molecules(repository)
    assert f"supersedes: {molecule.id}" in shown
    say(repository, "--continue", "--yes", "--no-try")
    assert sorted(b.outcome or "open" for b in molecules(repository)) == ["open", "superseded"]


def test_what_one_clone_accepts_and_the_other_refuses_is_work(repository: Path, other: Path) -> None:
    say(repository, "--continue", "--yes", "--no-try")
    (proposal,) = [b.id for b in snapshot(other) if b.issue_type == "proposal"]
    say(other, proposal, "--reason", "no", command="reject")
    meet(repository, other)
    assert len(molecules(other)) == 1
    assert snapshot(other).need(proposal).closed
    said = [b.description for b in messages(other)]
    assert "No: no" in said
    assert any(text.startswith("Accepted.") for text in said)
    assert say(other, "--continue", "--yes") == ""


def test_what_two_clones_accept_in_two_versions_is_both(repository: Path, other: Path) -> None:
    say(repository, "--continue", "--yes", "--no-try")
    site = open_site(other)
    (proposal,) = [b for b in snapshot(other) if b.issue_type == "proposal"]
    offers.amend(site, proposal.id, proposal.description.replace("is ok", "is better"), "Bob")
    say(other, "--continue", "--yes", "--no-try")
    meet(repository, other)
    assert [b.outcome for b in molecules(repository)] == [None, None]
    assert say(repository, "--continue", "--yes") == ""


def test_what_begins_with_a_slash_is_said_after_a_space(repository: Path) -> None:
    assert "begin with a space" in say(repository, stdin="/usr/lib is missing\n", code=2)
    assert "You said: /usr/lib is missing" in say(repository, stdin=" /usr/lib is missing\n")


def test_what_two_clones_ask_at_once_is_answered_in_both_and_nothing_waits(repository: Path, other: Path) -> None:
    say(repository, "--continue", "hello", code=7)
    say(other, "--continue", "which part", code=7)
    meet(repository, other)
    shown = say(repository, "--continue", "add gamma", code=7)
    assert "One part, gamma." in shown
    state = snapshot(repository)
    waiting = [b.issue_type for b in state if not b.closed and b.issue_type in ("message", "proposal")]
    assert waiting == ["proposal"]
    meet(repository, other)
    say(other, "--continue", "--yes", "--no-try")
    assert [b.title for b in molecules(other)] == ["Add gamma"]


def test_what_is_said_in_a_conversation_that_another_clone_ended_can_be_ended(repository: Path, other: Path) -> None:
    say(repository, stdin="/new\n")
    say(other, "--continue", "add gamma", code=7)
    meet(repository, other)
    (conversation,) = [b.id for b in snapshot(other) if b.issue_type == "conversation"]
    assert "One part, gamma." in say(other, "--in", conversation, "--json", code=7)
    (proposal,) = [b.id for b in snapshot(other) if b.issue_type == "proposal" and not b.closed]
    say(other, proposal, "--reason", "no", command="reject")
    assert [b.issue_type for b in snapshot(other) if not b.closed] == []
