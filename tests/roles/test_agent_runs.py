"""A program that speaks as a coding agent does, run by a polecat: what is stored of it, and what the doctor says."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from beads import Bead
from beads.model import Usage
from cli.main import town
from tests.towns import SETTINGS, assert_settled, make_town, molecule, pour, run, snapshot

# Works, or reviews; tells what it used; and leaves a cache behind.
AGENT = """\
import json, os, pathlib, sys

def say(**line):
    print(json.dumps(line), flush=True)

prompt = sys.stdin.read()
key = pathlib.Path(os.environ["CLAUDE_CONFIG_DIR"], ".credentials.json")
session = next(a.partition("=")[2] for a in sys.argv if a.startswith(("--session-id=", "--resume=")))
say(type="system", subtype="init", session_id=session, model="claude-sonnet-4-5")
said = "It is done."
if "How to answer" in prompt:
    said = json.dumps({"verdict": "approve", "summary": "It is kind.", "cost": 99})
elif key.read_text() == "the key" and os.environ["HOME"] in str(key):
    pathlib.Path("parts/voice").write_text("ok\\n")
used = {"input_tokens": 900, "cache_read_input_tokens": 300, "output_tokens": 40}
say(type="result", subtype="success", is_error=False, result=said, usage=used, total_cost_usd=0.25)
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A town where that program works, and reviews what it did."""
    (tmp_path / "agent.py").write_text(AGENT)
    key = Path.home() / ".claude/.credentials.json"
    key.parent.mkdir()
    key.write_text("the key")
    command = json.dumps([sys.executable, str(tmp_path / "agent.py")])
    table = f'[agents.it]\nruntime = "claude"\ncommand = {command}\n[review]\nagent = "it"\n'
    return make_town(tmp_path, SETTINGS.replace("[town]\n", '[town]\nagent = "it"\n') + table)


def only_step(repository: Path) -> Bead:
    (step,) = [bead for bead in snapshot(repository) if bead.issue_type == "step"]
    return step


def test_what_an_agent_tells_is_stored(repository: Path) -> None:
    pour(repository, molecule("voice", "", limits='{ review = "Is it kind?" }'))
    run(repository, "up", "--until-idle")
    assert_settled(repository, landed=1)
    step = only_step(repository)
    (attempt,) = step.attempts
    assert attempt.usage == Usage(input=1200, cached=300, output=40)
    assert (attempt.cost, attempt.model, attempt.ending) == (0.25, "claude-sonnet-4-5", "finished")
    assert len(attempt.session) == 36
    (review,) = [e for e in step.evidence if e.subject == "review: Is it kind?"]
    # What it cost is what its events say, not what it wrote into its verdict.
    assert (review.verdict, review.detail, review.cost) == ("pass", "It is kind.", 0.25)


def test_the_doctor_says_what_there_is_of_each_agent(tmp_path: Path) -> None:
    table = '[agents.a]\nruntime = "goose"\n[agents.b]\nruntime = "claude"\n'
    repository = make_town(tmp_path, SETTINGS + table)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/claude").write_text("#!/bin/sh\necho 2.7.1 '(Claude Code)'\n")
    (tmp_path / "bin/claude").chmod(0o755)
    (Path.home() / ".claude").mkdir()
    (Path.home() / ".claude/.credentials.json").touch()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{tmp_path}/bin", prepend=":")
        patch.setenv("ANTHROPIC_API_KEY", "planted")
        done = CliRunner().invoke(town, ["-C", str(repository), "doctor"])
    assert "agent a: 'goose' is not on the PATH; get it from https://" in done.output
    assert "agent a: our adapter has not been run for real" in done.output
    assert "agent a: none of these is there: $ANTHROPIC_API_KEY" not in done.output
    assert f"agent b: {tmp_path}/bin/claude" in done.output
    assert "agent b: version 2.7.1; our adapter was tried with " in done.output
    assert "agent b: has $ANTHROPIC_API_KEY, ~/.claude/.credentials.json" in done.output
    assert "planted" not in done.output
