"""An agent's program that thinks for the Mayor: what it is told, what it can touch, and what becomes of its answers."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from beads.errors import InvalidInput, Refused
from beads.spending import costs
from cli.config import open_site
from roles import mayor
from roles.agent_brain import AgentBrain
from roles.brain import NoAnswer
from roles.conversation import Thread
from roles.mayor import Mayor
from roles.site import Site
from tests.towns import SETTINGS, UNCONTAINED, assert_nothing_left, make_town
from tests.world import git

# Answers as Claude Code does, with what a file beside it says, one line after the other; and tries to write.
AGENT = """\
import json, os, pathlib, sys

def say(**line):
    print(json.dumps(line), flush=True)

prompt = sys.stdin.read()
place = pathlib.Path(os.environ["CLAUDE_CONFIG_DIR"])
count = len(list(place.glob("prompt-*")))
(place / f"prompt-{count}").write_text(prompt)
session = next(a.partition("=")[2] for a in sys.argv if a.startswith(("--session-id=", "--resume=")))
resumed = any(a.startswith("--resume=") for a in sys.argv)
say(type="system", subtype="init", session_id=session, model="claude-sonnet-4-5")
try:
    pathlib.Path("parts/owned").write_text("x")
    wrote = "wrote"
except OSError as error:
    wrote = "read-only"
answers = json.loads(pathlib.Path(__file__).with_name("answers.json").read_text())
said = answers[min(count, len(answers) - 1)].replace("WROTE", wrote).replace("RESUMED", str(resumed))
used = {"input_tokens": 900, "cache_read_input_tokens": 300, "output_tokens": 40}
say(type="result", subtype="success", is_error=False, result=said, usage=used, total_cost_usd=0.25)
"""


def make(tmp_path: Path, *answers: str, settings: str = SETTINGS, more: str = "") -> Site:
    (tmp_path / "agent.py").write_text(AGENT)
    (tmp_path / "answers.json").write_text(json.dumps(answers))
    (Path.home() / ".claude").mkdir(exist_ok=True)
    command = json.dumps([sys.executable, str(tmp_path / "agent.py"), str(tmp_path / "answers.json")])
    table = f'[mayor]\nagent = "it"\n{more}[agents.it]\nruntime = "claude"\ncommand = {command}\n'
    return open_site(make_town(tmp_path, settings + table))


def ask(site: Site, text: str) -> Thread:
    name = mayor.hear(site.store, "Ada", text)
    return Mayor(site, AgentBrain(site, "it"), lambda _: None).answer(name)


def test_its_answer_is_taken_and_nothing_that_it_wrote(tmp_path: Path) -> None:
    site = make(tmp_path, 'I looked.\n{"say": "I WROTE."}')
    before = git(site.git.directory, "for-each-ref", "refs/heads", "refs/beads/salvage")
    found = ask(site, "How is it?")
    assert found.parts[-1].description == "I wrote."
    assert git(site.git.directory, "for-each-ref", "refs/heads", "refs/beads/salvage") == before
    assert git(site.git.directory, "status", "--short") == ""
    (line,) = costs(site.store.snapshot(), "agent")
    assert (line.what, line.cost, line.input, line.output) == ("(mayor)", 0.25, 1200, 40)
    assert_nothing_left(site.git.directory)


def test_what_is_wrong_with_an_answer_is_told_in_the_same_conversation(tmp_path: Path) -> None:
    site = make(tmp_path, "Fine.", '{"say": "RESUMED"}')
    found = ask(site, "How is it?")
    assert found.parts[-1].description == "True"
    told = next(site.homes.rglob("prompt-1")).read_text()
    assert "That cannot be used: there is no JSON object in it" in told
    assert "How is it?" not in told
    (line,) = costs(site.store.snapshot(), "agent")
    assert line.cost == 0.5


def test_an_answer_that_never_fits_is_given_up(tmp_path: Path) -> None:
    site = make(tmp_path, '{"say": "Done.", "accept": "bt-1"}')
    with pytest.raises(NoAnswer, match="accept"):
        ask(site, "How is it?")
    assert len(list(site.homes.rglob("prompt-*"))) == 4
    assert [b for b in site.store.snapshot() if b.issue_type not in ("conversation", "message")] == []
    assert_nothing_left(site.git.directory)


def test_its_tries_together_have_one_budget(tmp_path: Path) -> None:
    site = make(tmp_path, "Fine.", more="budget = 0.5\n")
    with pytest.raises(NoAnswer, match="budget"):
        ask(site, "How is it?")
    assert len(list(site.homes.rglob("prompt-*"))) == 2


def test_without_a_sandbox_it_is_not_asked(tmp_path: Path) -> None:
    site = make(tmp_path, '{"say": "Fine."}', settings=UNCONTAINED)
    with pytest.raises(Refused, match="is not asked without a sandbox"):
        AgentBrain(site, "it").check()


def test_what_runs_commands_cannot_think(tmp_path: Path) -> None:
    site = make(tmp_path, "")
    with pytest.raises(InvalidInput, match="cannot think"):
        AgentBrain(site, "command").check()
