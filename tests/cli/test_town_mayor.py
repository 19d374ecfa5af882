"""``town mayor`` as people and scripts use it, with a program that thinks in a few milliseconds."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from beads import Bead
from beads.errors import LostRace
from cli.config import open_site
from cli.main import bead, town
from cli.session import Session
from cli.slash import hear
from cli.talk import Talk
from roles import conversation
from tests.towns import SETTINGS, TOWN, make_town, snapshot
from tests.world import commit, git

# Thinks: the last section but one of what it is told is what it is asked.
AGENT = """\
import json, sys

def molecule(name, line):
    criteria = [{"run": f"grep -q '^ok' parts/{name}"}]
    step = {"id": "add", "title": f"Write {name}", "run": line, "criteria": criteria}
    return {"id": name, "title": f"Add {name}", "goal": f"parts/{name} is ok", "steps": [step]}

asked = sys.stdin.read().rpartition("# What you are asked\\n")[2].partition("\\n\\n# How to answer")[0]
word, _, name = asked.partition(" ")
plan = {"plan": "parts", "molecules": [molecule(name, f"printf 'ok\\\\n' > parts/{name}")]}
if word == "add":
    said = {"say": f"One part, {name}.", "plan": plan}
elif word == "first":
    plan["molecules"][0]["steps"][0]["criteria"] = [{"run": "test -s parts/first"}]
    said = {"say": "As you like.", "plan": plan}
elif word == "hurry":
    said = {"say": "Sooner, then.", "changes": [{"do": "priority", "id": name, "priority": 0, "reason": "asked for"}]}
elif word == "which":
    said = {"say": "That depends.", "questions": ["Which one?"]}
else:
    said = {"say": f"You said: {asked}"}
print(json.dumps(said))
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    (tmp_path / "agent.py").write_text(AGENT)
    command = json.dumps([sys.executable, str(tmp_path / "agent.py")])
    return make_town(
        tmp_path, f'{SETTINGS}[mayor]\nagent = "it"\n[agents.it]\nruntime = "plain"\ncommand = {command}\n'
    )


def say(repository: Path, *args: str, stdin: str = "", code: int = 0, command: str = "mayor") -> str:
    """Run it in this process; what it printed, with what it complained of where that is not nothing."""
    done = CliRunner().invoke(town, ["-C", str(repository), command, *args], input=stdin)
    assert done.exit_code == code, f"{args} ended with {done.exit_code}, not {code}\n{done.output}"
    return done.output


def as_json(repository: Path, *args: str, code: int = 0, command: str = "mayor") -> dict[str, Any]:
    done = CliRunner().invoke(town, ["-C", str(repository), command, *args, "--json"])
    assert done.exit_code == code, done.output
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


def molecules(repository: Path) -> list[Bead]:
    return [bead for bead in snapshot(repository) if bead.issue_type == "molecule"]


# ── Once ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_question_is_answered(repository: Path) -> None:
    assert say(repository, "How", "is", "it?") == "mayor: You said: How is it?\n\n"


def test_a_plan_waits_for_a_yes(repository: Path) -> None:
    shown = say(repository, "add beta", code=7)
    assert "mayor: One part, beta." in shown
    assert "waits for your yes" in shown
    assert "1 step by command: costs nothing" in shown
    assert molecules(repository) == []
    found = as_json(repository, "--continue", code=7)
    proposal = found["proposal"]
    assert proposal["molecules"][0]["title"] == "Add beta"
    assert [part["by"] == "mayor" for part in found["parts"]] == [False, True, True]
    shown = say(repository, proposal["id"], command="approve")
    assert "transaction " in shown
    assert [bead.title for bead in molecules(repository)] == ["Add beta"]
    assert "done already" in say(repository, proposal["id"], command="approve", code=4)
    assert "nothing is proposed" in say(repository, found["conversation"], command="approve", code=5)


def test_the_same_request_again_is_the_same_one(repository: Path) -> None:
    first = as_json(repository, "add beta", code=7)
    assert as_json(repository, "add beta", code=7) == first


def another(repository: Path, name: str) -> str:
    """What another clone has proposed at the same time, now that it is known here; its id."""
    site = open_site(repository)
    found = conversation.thread(site.store.snapshot(), name)
    assert found.proposal is not None
    text = found.proposal.description.replace("Add beta", "Add something else").replace("beta is ok", "x is ok")
    before = replace(found, parts=tuple(part for part in found.parts if part.issue_type != "proposal"))
    operations = conversation.reply(before, "bt", (), "Or:", site.clock.now(), proposal=("else", text))
    made = site.store.commit("mayor", operations).beads[-1]
    assert made is not None
    return made.id


def test_the_proposal_that_is_named_is_the_one_that_is_accepted(repository: Path) -> None:
    found = as_json(repository, "add beta", code=7)
    other = another(repository, found["conversation"])
    assert as_json(repository, "--continue", code=7)["proposal"]["id"] == other
    say(repository, found["proposal"]["id"], command="approve")
    assert [bead.title for bead in molecules(repository)] == ["Add beta"]
    assert "superseded already" in say(repository, other, command="approve", code=4)


def test_the_proposal_that_is_named_is_the_one_that_is_refused(repository: Path) -> None:
    found = as_json(repository, "add beta", code=7)
    other = another(repository, found["conversation"])
    say(repository, found["proposal"]["id"], "--reason", "no", command="reject")
    assert snapshot(repository).need(found["proposal"]["id"]).outcome == "rejected"
    assert not snapshot(repository).need(other).closed


def test_a_message_is_nothing_to_say_yes_to(repository: Path) -> None:
    found = as_json(repository, "add beta", code=7)
    message = found["parts"][1]["id"]
    assert "nothing to say yes or no to" in say(repository, message, command="approve", code=5)
    assert "nothing to say yes or no to" in say(repository, message, "--reason", "no", command="reject", code=5)
    assert molecules(repository) == []


@pytest.mark.parametrize("line", ["/accept", "/refuse no"])
def test_what_was_not_shown_is_neither_accepted_nor_refused(
    repository: Path, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found = as_json(repository, "add beta", code=7)
    session = Session()
    session.directory, session.named = repository, "Ada"
    talk = Talk(session, open_site(repository), trying=False)
    talk.conversation = found["conversation"]
    talk.show()
    other = another(repository, found["conversation"])
    capsys.readouterr()
    with pytest.raises(LostRace, match="had not been shown"):
        hear(talk, line)
    assert "Add something else" in capsys.readouterr().out
    assert molecules(repository) == []
    hear(talk, line)
    assert snapshot(repository).need(other).closed


def test_yes_accepts_it_at_once(repository: Path) -> None:
    shown = say(repository, "add beta", "--yes")
    assert "Accepted. In the store now:" in shown
    assert [bead.title for bead in molecules(repository)] == ["Add beta"]
    assert say(repository, "--continue", "--yes") == ""


def test_yes_does_not_accept_what_proves_nothing(repository: Path) -> None:
    shown = say(repository, "first beta", "--yes", code=7)
    assert "it would close with nothing done" in shown
    assert molecules(repository) == []
    say(repository, "--continue", "--yes", "--no-try")
    assert [bead.title for bead in molecules(repository)] == ["Add beta"]


def test_a_question_of_the_mayor_is_answered_in_words(repository: Path) -> None:
    asked = say(repository, "which part", code=7)
    assert "That depends.\n1. Which one?" in asked
    (question,) = [b for b in snapshot(repository) if b.issue_type == "message" and not b.closed]
    shown = say(repository, question.id, "add beta", command="answer", code=7)
    assert "One part, beta." in shown
    assert snapshot(repository).need(question.id).close_reason == "answered"


def test_a_no_ends_a_proposal(repository: Path) -> None:
    proposal = as_json(repository, "add beta", code=7)["proposal"]["id"]
    assert say(repository, proposal, "--reason", "not now", command="reject") == f"refused {proposal}\n"
    assert molecules(repository) == []
    assert snapshot(repository).need(proposal).close_reason == "not now"
    assert say(repository, "--continue") == ""


def test_changes_are_shown_and_made(repository: Path) -> None:
    say(repository, "add beta", "--yes")
    (bead,) = molecules(repository)
    shown = say(repository, f"hurry {bead.id}", code=7)
    assert f"- {bead.id} Add beta: priority 0 instead of 2: asked for" in shown
    say(repository, "--continue", "--yes")
    assert molecules(repository)[0].priority == 0


# ── Lines ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_lines_are_said_one_after_the_other(repository: Path) -> None:
    shown = say(repository, stdin="add beta\nadd gamma\n/plan\n/inbox\n/accept\n/town\n")
    assert "One part, beta." in shown
    assert "proposal  bt-" in shown
    assert [bead.title for bead in molecules(repository)] == ["Add gamma"]
    assert "Add gamma (next step" in shown
    assert "in all: " in shown


def test_what_is_planned_is_changed_and_the_conversation_knows(repository: Path) -> None:
    say(repository, "add beta", "--yes")
    (bead,) = molecules(repository)
    shown = say(repository, stdin=f"/priority {bead.id} 1\n/show {bead.id}\n/cancel {bead.id} nobody needs it\n")
    assert "goal:\n  parts/beta is ok" in shown
    assert shown.count("\ntransaction ") == 2
    (bead,) = molecules(repository)
    assert (bead.priority, bead.outcome, bead.close_reason) == (1, "cancelled", "nobody needs it")
    texts = [b.description for b in snapshot(repository) if b.issue_type == "message"]
    assert f"I changed {bead.id}: priority 1." in texts
    assert f"I changed {bead.id}: cancelled: nobody needs it." in texts


@pytest.mark.parametrize(
    "line, code, words",
    [
        ("/nothing", 2, "/help shows what there is"),
        ("/priority", 2, "ID N: how urgent it is"),
        ("/priority bt-none 9", 2, "ID N"),
        ("/priority bt-none 1", 3, "there is no bead 'bt-none'"),
        ("/cancel bt-none", 2, "ID WHY"),
        ("/show bt-none", 3, "there is no bead 'bt-none'"),
        ("/accept", 5, "nothing is proposed"),
        ("/refuse", 5, "nothing is proposed"),
        ("/edit", 5, "nothing is proposed"),
    ],
)
def test_what_cannot_be_done_says_why(repository: Path, line: str, code: int, words: str) -> None:
    before = snapshot(repository).commit
    assert words in say(repository, stdin=f"{line}\n", code=code)
    assert snapshot(repository).commit == before


def test_an_edit_that_is_no_plan_is_refused_and_kept(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    editor = repository.parent / "editor.py"
    editor.write_text(
        "import pathlib, sys\npath = pathlib.Path(sys.argv[1])\ntext = path.read_text()\n"
        "path.write_text(text.replace('title = \"Add beta\"', 'titel = \"Add beta\"'))\n"
    )
    monkeypatch.setenv("VISUAL", f"{sys.executable} {editor}")
    proposal = as_json(repository, "add beta", code=7)["proposal"]["id"]
    shown = say(repository, stdin="/edit\nn\n", code=7)
    assert "unknown key 'titel'" in shown
    assert not snapshot(repository).need(proposal).closed


def test_a_new_one_ends_the_one_before(repository: Path) -> None:
    say(repository, "add beta", code=7)
    shown = say(repository, stdin="/new\nHello\n")
    assert "You said: Hello" in shown
    found = [bead for bead in snapshot(repository) if bead.issue_type == "conversation"]
    assert sorted(bead.status for bead in found) == ["closed", "open"]


def test_a_conversation_goes_on_in_another_clone(repository: Path) -> None:
    git(repository.parent, "init", "--quiet", "--bare", "hub.git")
    git(repository, "remote", "add", "origin", str(repository.parent / "hub.git"))
    path = repository / "town.toml"
    path.write_text(path.read_text() + '[store]\nremote = "origin"\n')
    commit(repository, {"town.toml": path.read_text()}, "Share the store")
    git(repository, "push", "--quiet", "origin", "main")
    say(repository, "which part", code=7)
    other = repository.parent / "other"
    git(repository.parent, "clone", "--quiet", "--branch", "main", str(repository.parent / "hub.git"), str(other))
    done = CliRunner().invoke(bead, ["-C", str(other), "sync"])
    assert done.exit_code == 0, done.output
    shown = say(other, "--continue", "add beta", code=7)
    assert "One part, beta." in shown
    say(other, "--continue", "--yes")
    # What was said there is known here, and what was accepted is accepted.
    assert say(repository, "--continue", "Thanks").endswith("mayor: You said: Thanks\n\n")
    texts = [b.description for b in snapshot(repository) if b.issue_type == "message"]
    assert "add beta" in texts
    assert [b.title for b in molecules(repository)] == ["Add beta"]


# ── Without ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_without_anything_that_thinks_it_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = make_town(tmp_path)
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-secret")
    before = snapshot(repository).commit
    shown = say(repository, "Add a part", code=2)
    assert "town.toml names nothing that could think for the Mayor" in shown
    assert "$ANTHROPIC_API_KEY is set" in shown
    assert 'model = "anthropic/' in shown
    assert "town mayor --plan" in shown
    assert "sk-secret" not in shown
    assert snapshot(repository).commit == before
    assert "in all: nothing" in say(repository, stdin="/town\n")


def test_a_budget_that_cannot_be_held_is_refused(repository: Path) -> None:
    path = repository / "town.toml"
    path.write_text(path.read_text().replace("[mayor]\n", "[mayor]\nbudget = 1.0\n"))
    assert "[mayor] budget cannot be held" in say(repository, "add beta", code=2)


@pytest.mark.parametrize(
    "args, words",
    [
        (["--plan", "x.toml", "add"], "no part of a conversation"),
        (["--var", "a=b", "add"], "are for --plan"),
        (["--in", "bt-none", "hello"], "there is no conversation 'bt-none'"),
    ],
)
def test_what_does_not_go_together(repository: Path, args: list[str], words: str) -> None:
    assert words in say(repository, *args, code=3 if "--in" in args else 2)


def test_nobody_but_a_person_asks_or_accepts(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    proposal = as_json(repository, "add beta", code=7)["proposal"]["id"]
    monkeypatch.setenv("BEADTOWN_MARKER", "clone/nux")
    before = snapshot(repository).commit
    assert "only a person" in say(repository, "add gamma", "--yes", code=5)
    assert "only a person" in say(repository, proposal, command="approve", code=5)
    assert snapshot(repository).commit == before


def test_criteria_of_a_file_are_tried_when_asked_for(repository: Path) -> None:
    plan = repository.parent / "plan.toml"
    plan.write_text(
        'plan = "p"\n[[molecules]]\nid = "a"\ntitle = "A"\ngoal = "a"\nrun = "true"\n'
        'criteria = [{ run = "test -s parts/first" }]\n'
    )
    shown = say(repository, "--plan", str(plan), "--try", "--yes")
    assert "it would close with nothing done" in shown
    assert len(molecules(repository)) == 1


# ── At a terminal ────────────────────────────────────────────────────────────────────────────────────────────


class Terminal:
    """A person at a terminal."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.seen = ""

    def type(self, text: str) -> None:
        os.write(self._descriptor, text.encode())

    def interrupt(self, text: str) -> None:
        """Type Ctrl-C until something is shown: Python misses one that comes just before it waits for a line."""
        self.type("\x03")
        self.until(text, again="\x03")

    def until(self, text: str, seconds: float = 60.0, again: str = "") -> None:
        """Read on until something is shown that was not yet; what comes after it is still to be seen.

        Where nothing is shown for a second, ``again`` is typed.
        """
        deadline = time.monotonic() + seconds
        while text not in self.seen:
            wait = min(1.0, deadline - time.monotonic()) if again else deadline - time.monotonic()
            ready, _, _ = select.select([self._descriptor], [], [], max(0.0, wait))
            if not ready and again and time.monotonic() < deadline:
                self.type(again)
                continue
            assert ready, f"{text!r} was not shown:\n{self.seen}"
            data = os.read(self._descriptor, 1 << 16)
            self.seen += data.decode(errors="replace")
            if b"\x1b[6n" in data:
                # Where the cursor is, which prompt_toolkit asks a terminal.
                os.write(self._descriptor, b"\x1b[1;1R")
        self.seen = self.seen.partition(text)[2]


@contextmanager
def at_terminal(repository: Path, *args: str) -> Iterator[Terminal]:
    """``town ARGS`` at a terminal; it has to end well when the block does."""
    process, descriptor = pty.fork()
    if process == 0:
        # What runs the tests may ignore it, as a shell has its jobs in the background do.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.chdir(repository)
        os.execvpe(TOWN[0], [*TOWN, *args], {**os.environ, "TERM": "xterm"})
    terminal = Terminal(descriptor)
    yield terminal
    try:
        while os.read(descriptor, 1 << 16):
            pass
    except OSError:
        pass
    _, status = os.waitpid(process, 0)
    os.close(descriptor)
    assert status == 0


def test_a_person_talks_at_a_terminal(repository: Path) -> None:
    with at_terminal(repository, "mayor") as terminal:
        terminal.until("Say what you want done.")
        terminal.until("mayor>")
        terminal.type("tell\x1b\rme\r")
        terminal.until("You said: tell")
        terminal.until("mayor>")
        terminal.type("/nothing\r")
        terminal.until("/help shows what there is.")
        terminal.until("mayor>")
        terminal.type("never mind\x03")
        terminal.until("mayor>")
        terminal.type("/pl\t")
        terminal.until("/plan")
        terminal.type("\x15add beta\r")
        terminal.until("waits for your yes")
        terminal.until("mayor>")
        terminal.type("/accept\r")
        terminal.until("transaction ")
        terminal.until("mayor>")
        terminal.type("\x04")
    assert [bead.title for bead in molecules(repository)] == ["Add beta"]
    said = [b.description for b in snapshot(repository) if b.issue_type == "message"]
    assert "tell\nme" in said
    assert "never mind" not in said
    history = repository / ".git/beads/mayor-history"
    assert history.stat().st_mode & 0o077 == 0
    assert "add beta" in history.read_text()


def test_a_conversation_goes_on_where_it_was(repository: Path) -> None:
    say(repository, "add beta", code=7)
    with at_terminal(repository, "mayor") as terminal:
        terminal.until("Going on with ")
        terminal.until("waits for your yes")
        terminal.until("mayor>")
        terminal.type("/refuse not now\r")
        terminal.until("refused ")
        terminal.until("mayor>")
        terminal.type("/quit\r")
    assert molecules(repository) == []
    assert git(repository, "log", "-1", "--format=%s", "refs/beads/main").startswith("no to ")
