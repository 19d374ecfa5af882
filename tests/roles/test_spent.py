"""What an attempt has cost is stored, though its worker did not live to say it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from beads.model import Usage
from tests.towns import TOWN, make_town, molecule, pour, run, sandboxed, settings_with, snapshot, until

AGENT = """\
import json, time
for line in ({"id": "s1", "model": "big"}, {"in": 700, "out": 40}, {"text": "half way"}, {"in": 300, "out": 10}):
    print(json.dumps(line), flush=True)
while True:
    time.sleep(1)
"""

EVENTS = """\
prices = { input = 10, output = 100 }
[agents.fake.events]
session = "id"
model = "model"
text = "text"
input = "in"
output = "out"
counts = "line"
"""


def test_what_a_killed_polecats_agent_had_told_is_kept(tmp_path: Path) -> None:
    (tmp_path / "agent.py").write_text(AGENT)
    settings = settings_with([sys.executable, f"{tmp_path}/agent.py"]).replace('"plain"', '"jsonl"') + EVENTS
    repository = make_town(tmp_path, sandboxed(f'read = ["{tmp_path}"]', settings))
    pour(repository, molecule("m", ""))
    polecat = subprocess.Popen([*TOWN, "polecat", "run", "--as", "nux"], cwd=repository)
    logs = repository / ".git/beads/logs"
    until(lambda: any('"input": 1000' in file.read_text() for file in logs.glob("*/*.events")))
    polecat.kill()
    polecat.wait()
    run(repository, "witness", "tick")
    (step,) = [bead for bead in snapshot(repository) if bead.issue_type == "step"]
    (attempt,) = step.attempts
    assert (attempt.end, attempt.ending, attempt.session, attempt.model) == ("died", "cancelled", "s1", "big")
    assert (attempt.usage, attempt.cost) == (Usage(input=1000, output=50), 0.015)
    assert attempt.note == "half way"
