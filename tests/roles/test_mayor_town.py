"""The Mayor's command with a scripted model behind a real HTTP server: from a request to what has landed."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from beads import Bead
from tests.providers import Fails, Provider, Uses, provider
from tests.towns import SETTINGS, TOWN, assert_nothing_left, make_town, run, snapshot, until
from tests.world import git

EDITOR = """\
import pathlib, sys
path = pathlib.Path(sys.argv[1])
path.write_text(path.read_text().replace("Add beta", "Add the beta"))
"""


def molecule(name: str, line: str, **more: object) -> dict[str, object]:
    criteria = [{"run": f"grep -q '^ok' parts/{name}"}]
    step = {"id": "add", "title": f"Write parts/{name}", "run": line, "criteria": criteria}
    return {"id": name, "title": f"Add {name}", "goal": f"parts/{name} is ok", "steps": [step], **more}


def good(name: str, **more: object) -> dict[str, object]:
    return molecule(name, f"printf 'ok\\n' > parts/{name}", touches=[f"parts/{name}"], **more)


def says(say: str, **more: object) -> Uses:
    return Uses((("answer", {"say": say, **more}),))


def mind(asked: dict[str, Any]) -> Uses:
    """What the scripted model says: it follows from what it is asked, so that it says the same when asked again."""
    prompt = next(m["content"] for m in asked["messages"] if m["role"] == "user")
    question = prompt.partition("# What you are asked\n")[2].partition("\n\n# ")[0]
    if not any(m["role"] == "tool" for m in asked["messages"]):
        return Uses((("list", {"path": "parts"}), ("town", {})))
    if question == "Add two parts":
        return says("Two are easily said.", questions=["What are they called?"])
    if question == "beta and gamma":
        plan = [good("beta"), molecule("gamma", "printf 'no\\n' > parts/gamma", needs=["beta"])]
        return says("One after the other.", plan={"plan": "parts", "title": "Two parts", "molecules": plan})
    if question.startswith("Find another way for "):
        failed = question.split()[4].rstrip(",")
        assert "nothing in it" in prompt or "exit 1" in prompt, prompt
        plan = [good("gamma", replaces=[failed])]
        return says("It wrote no.", plan={"plan": "again", "title": "Gamma again", "molecules": plan})
    return says(f"I do not know what {question!r} means.")


@pytest.fixture
def model() -> Iterator[Provider]:
    with provider(mind) as server:
        yield server


@pytest.fixture
def repository(tmp_path: Path, model: Provider, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-nobody")
    (tmp_path / "editor.py").write_text(EDITOR)
    monkeypatch.setenv("VISUAL", f"{sys.executable} {tmp_path / 'editor.py'}")
    table = f'[mayor]\nmodel = "openai/scripted"\napi_base = "{model.base}"\n'
    return make_town(tmp_path, SETTINGS + table)


def talk(repository: Path, *lines: str, ok: Sequence[int] = (0, 7)) -> str:
    """Type these lines to the Mayor; what it printed."""
    done = subprocess.run(
        [*TOWN, "mayor"], cwd=repository, input="\n".join(lines) + "\n", capture_output=True, text=True, check=False
    )
    assert done.returncode in ok, done.stdout + done.stderr
    return done.stdout


def said(repository: Path) -> list[tuple[str, str, str]]:
    """The whole conversation: of each part its type, how it ended, and its text."""
    found = [b for b in snapshot(repository) if b.issue_type in ("message", "proposal")]
    ordered = sorted(found, key=lambda b: b.created_at)
    return [(b.issue_type, b.outcome or b.status, b.description) for b in ordered]


def molecules(repository: Path) -> dict[str, Bead]:
    return {b.title: b for b in snapshot(repository) if b.issue_type == "molecule"}


EXPECTED = [
    ("message", "done", "Add two parts"),
    ("message", "done", "Two are easily said.\n1. What are they called?"),
    ("message", "done", "beta and gamma"),
    ("message", "done", "One after the other."),
    ("proposal", "superseded", "plan"),
    ("proposal", "done", "plan"),
    ("message", "done", "Accepted. In the store now:"),
    ("message", "done", "Find another way for"),
    ("message", "done", "It wrote no."),
    ("proposal", "done", "plan"),
    ("message", "done", "Accepted. In the store now:"),
]
"""What is in the conversation in the end, whatever happened: the beginnings of its texts."""


def assert_ended_well(repository: Path) -> None:
    found = said(repository)
    assert [(kind, how) for kind, how, _ in found] == [(kind, how) for kind, how, _ in EXPECTED]
    assert [text for (_, _, text), (*_, begin) in zip(found, EXPECTED, strict=True) if not text.startswith(begin)] == []
    outcomes = sorted((b.title, b.outcome) for b in snapshot(repository) if b.issue_type == "molecule")
    assert outcomes == [("Add gamma", "landed"), ("Add gamma", "superseded"), ("Add the beta", "landed")]
    assert git(repository, "show", "main:parts/gamma") == "ok"
    assert_nothing_left(repository)


def test_from_a_request_to_what_has_landed_and_what_failed_is_planned_anew(repository: Path) -> None:
    asked = run(repository, "mayor", "Add two parts", ok=(7,))
    assert "1. What are they called?" in asked.stdout
    assert "has a question for you" in asked.stderr
    assert molecules(repository) == {}
    shown = talk(repository, "beta and gamma", "/edit", "/accept")
    proposed, _, poured = shown.partition("waits for your yes")
    assert "touches: parts/beta" in shown
    assert "transaction " not in proposed
    assert "Add the beta" in poured
    assert "transaction " in poured
    assert sorted(molecules(repository)) == ["Add gamma", "Add the beta"]
    run(repository, "up", "--until-idle", ok=(7,))
    found = molecules(repository)
    assert (found["Add the beta"].outcome, found["Add gamma"].status) == ("landed", "open")
    talk(repository, f"/replan {found['Add gamma'].id}", "/accept")
    run(repository, "up", "--until-idle")
    assert_ended_well(repository)


class Killer:
    """Kills what talks to the Mayor at the moments at which something has just been said."""

    def __init__(self, repository: Path, model: Provider) -> None:
        self.repository = repository
        self.model = model

    def until_it_is_stored(self, *args: str, line: str = "", times: int = 1) -> None:
        """Say something, and be killed while the model thinks about it: when it is asked for the first time, and so on.

        Then go on, and be killed as soon as the answer is in the store.
        """
        before = len(said(self.repository))
        for number in range(1, times + 1):
            self._die_when_asked(number, args if number == 1 else ("mayor",), line if number == 1 else "")
            assert len(said(self.repository)) == before + 1
        self.once("")
        assert len(said(self.repository)) > before + 1

    def once(self, line: str) -> None:
        """Type something that changes the store, or nothing to go on, and be killed as soon as it has changed."""
        ref = self.repository / ".git/refs/beads/main"
        before = ref.read_bytes()
        process = self._start(("mayor",), line)
        until(lambda: ref.read_bytes() != before or process.poll() is not None, 60)
        process.kill()
        process.communicate()
        assert ref.read_bytes() != before

    def _die_when_asked(self, number: int, args: Sequence[str], line: str) -> None:
        asked = threading.Event()
        count = 0

        def deadly(question: dict[str, Any]) -> Uses | Fails:
            nonlocal count
            count += 1
            if count < number:
                return mind(question)
            asked.set()
            assert process.wait() == -signal.SIGKILL
            return Fails(500)

        self.model.answers = [deadly]
        process = self._start(args, line)
        assert asked.wait(60)
        process.kill()
        process.communicate()
        self.model.answers = [mind]

    def _start(self, args: Sequence[str], line: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*TOWN, *args], cwd=self.repository, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert process.stdin
        process.stdin.write(f"{line}\n" if line else "")
        process.stdin.close()
        process.stdin = None
        return process


@pytest.mark.slow  # LiteLLM is loaded seven times, which alone takes half a minute.
def test_killed_after_every_word_it_comes_to_the_same(repository: Path, model: Provider) -> None:
    killer = Killer(repository, model)
    killer.until_it_is_stored("mayor", "Add two parts", times=2)
    killer.until_it_is_stored("mayor", line="beta and gamma")
    killer.once("/edit")
    killer.once("/accept")
    # What is accepted is accepted: nothing is left to say yes to.
    run(repository, "mayor", "--continue", "--yes")
    run(repository, "up", "--until-idle", ok=(7,))
    failed = molecules(repository)["Add gamma"].id
    killer.until_it_is_stored("mayor", line=f"/replan {failed}")
    killer.once("/accept")
    run(repository, "up", "--until-idle")
    assert_ended_well(repository)
