"""A key that an agent may see is planted, and told to everybody in every way: nothing that is kept has a byte of it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from beads import Bead
from refinery.redaction import REDACTED
from roles.acceptance import SECRETS
from tests.towns import (
    BEAD,
    SETTINGS,
    TOWN,
    assert_settled,
    leaks,
    make_town,
    part,
    pour,
    run,
    sandboxed,
    settings_with,
    snapshot,
    until,
)
from tests.world import git

KEY = 'sk-planted/+"4f1d2c3b5a69788796a5b4c3d2e1f0"'

# What every attempt does, and then each of them.
AGENT = """\
import base64, json, os, subprocess, sys, time
from pathlib import Path

key, attempt = os.environ["FAKE_KEY"], os.environ["BEADTOWN_ATTEMPT"]
told = sys.stdin.read()
for stream in (1, 2):
    os.write(stream, b"key: " + key[:9].encode())
    os.write(stream, key[9:].encode() + b"\\n")
    os.write(stream, json.dumps({"key": key}).encode() + b" " + base64.b64encode(key.encode()) + b"\\n")
"""

EVERYWHERE = """\
subprocess.run(["git", "init", "--quiet", "nested"], check=True)
at = f"a {key}/b"
Path(at).mkdir(parents=True)
files = ["config.json", "binary", "nested/inner", f"{at}/file", "sub/dir/deep", "shared.txt", "parts/agent"]
for file in files:
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    Path(file).write_bytes(b"ok\\0\\xff" + json.dumps({"key": key}).encode() + key.encode())
Path("link").symlink_to(f"/tmp/{key}")
"""


STEP = """
[[molecules]]
id = "agent"
title = "Work"
goal = "It works."

  [[molecules.steps]]
  id = "only"
  title = "Only"
  {terms}
  criteria = [{{ run = "{criterion}" }}]
"""


def town_with(path: Path, work: str, criterion: str = "test -f parts/agent", terms: str = "") -> Path:
    """A town with an agent that knows the key and does this. No sandbox keeps it from anything."""
    (path / "agent.py").write_text(AGENT + work)
    command = [sys.executable, "-I", "-S", str(path / "agent.py")]
    repository = make_town(path, sandboxed('kind = "none"', settings_with(command, ["FAKE_KEY"])))
    pour(repository, STEP.format(criterion=criterion, terms=terms))
    return repository


@pytest.fixture(autouse=True)
def planted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_KEY", KEY)


def step_of(repository: Path) -> Bead:
    (step,) = [bead for bead in snapshot(repository) if bead.issue_type == "step"]
    return step


def test_what_an_agent_tells_everybody_is_told_nobody(tmp_path: Path) -> None:
    """It writes the key into its files, then lets a criterion print it, then hangs, and then does its work."""
    work = f"""
with Path("prompts").open("a") as prompts:
    prompts.write(told)
if attempt == "1":
    {EVERYWHERE.strip().replace(chr(10), chr(10) + "    ")}
elif attempt == "2":
    for name in ("config.json", "binary", "link", "parts/agent"):
        Path(name).unlink()
    subprocess.run("rm -rf nested sub a*; git checkout -q shared.txt", shell=True, check=True)
    Path(".gitignore").write_text("cache\\n")
    Path("cache").write_text(key)
elif attempt == "3":
    time.sleep(600)
else:
    Path("parts/agent").write_text("ok\\n")
"""
    repository = town_with(tmp_path, work, "cat cache; grep ok parts/agent", "timeout = 8.0\n  attempts = 4")
    run(repository, "up", "--until-idle")
    assert_settled(repository, landed=1)
    assert leaks(tmp_path, KEY) == []
    assert not list((repository / ".git/beads/homes").iterdir())

    step = step_of(repository)
    first, second, third, last = step.attempts
    assert first.reason.startswith(f"{SECRETS}: took out the value of FAKE_KEY in a {REDACTED}")
    assert "the value of FAKE_KEY in config.json" in first.reason
    assert next(e.output for e in step.evidence if e.exit == 2).startswith(REDACTED)
    assert second.reason.endswith("exit 2")
    assert third.ending == "limits"
    assert third.reason.startswith("stopped at its time limit, after ")
    assert "; run: cat cache; " in third.reason
    assert last.end == "satisfied"
    assert "the value of FAKE_KEY in config.json" in (repository / "prompts").read_text()
    events = next((repository / ".git/beads/logs").rglob("*attempt-1.events")).read_text().splitlines()
    assert "took out the value of FAKE_KEY in config.json" in [json.loads(line).get("text") for line in events]
    log = next(path for path in (repository / ".git/beads/logs").rglob("*attempt-1.log"))
    assert log.read_text() == f'key: {REDACTED}\n{{"key": "{REDACTED}"}} {REDACTED}I=\n' * 2


def test_a_killed_polecat_leaves_no_key_once_it_is_laid_to_rest(tmp_path: Path) -> None:
    repository = town_with(tmp_path, EVERYWHERE + "Path('ready').touch(); time.sleep(600)")
    polecat = subprocess.Popen([*TOWN, "polecat", "run", "--as", "first"], cwd=repository)
    until(lambda: list(tmp_path.glob("worktrees/*/ready")))
    # While it works, it is in the work tree alone.
    assert leaks(repository, KEY) == []
    scratch = next((repository / ".git/beads/logs").rglob("*.scratch"))
    (scratch / "usage.json").write_text(KEY)
    polecat.kill()
    polecat.wait()
    run(repository, "witness", "tick")
    assert leaks(tmp_path, KEY) == []
    assert (scratch / "usage.json").read_text() == REDACTED
    root = step_of(repository).parent
    assert REDACTED in git(repository, "show", f"refs/beads/salvage/{root}/1:config.json")


def test_a_polecat_that_is_stopped_leaves_no_key(tmp_path: Path) -> None:
    said = f"subprocess.run([*{BEAD!r}, 'comment', os.environ['BEADTOWN_BEAD'], f'It is {{key}}.'], check=True)\n"
    repository = town_with(tmp_path, said + EVERYWHERE + "Path('ready').touch(); time.sleep(600)")
    polecat = subprocess.Popen([*TOWN, "polecat", "run"], cwd=repository, stdout=subprocess.DEVNULL)
    until(lambda: list(tmp_path.glob("worktrees/*/ready")))
    polecat.send_signal(signal.SIGTERM)
    polecat.wait()
    assert leaks(tmp_path, KEY) == []
    step = step_of(repository)
    [attempt] = step.attempts
    assert (attempt.end, attempt.ending) == ("stopped", "cancelled")
    [comment] = snapshot(repository).need(step.parent or "").comments
    assert comment.text == f"It is {REDACTED}."


def test_what_a_gate_prints_is_told_nobody(tmp_path: Path) -> None:
    settings = SETTINGS.replace('["sh check.sh"]', '["printenv FAKE_KEY; false"]\nenvironment = ["FAKE_KEY"]')
    repository = make_town(tmp_path, settings)
    pour(repository, part("one"))
    run(repository, "polecat", "run")
    town = subprocess.Popen([*TOWN, "up", "--until-idle"], cwd=repository, stdout=subprocess.DEVNULL)
    until(lambda: [e for bead in snapshot(repository) if bead.merge for e in bead.evidence])
    town.terminate()
    town.wait()
    assert leaks(tmp_path, KEY) == []
    [evidence] = next([*bead.evidence] for bead in snapshot(repository) if bead.merge)
    assert (evidence.verdict, evidence.output) == ("fail", REDACTED)


def test_homes_are_for_this_user_alone(tmp_path: Path) -> None:
    repository = town_with(tmp_path, "", "false", "attempts = 1")
    run(repository, "polecat", "run", ok=[7])
    homes = repository / ".git/beads/homes"
    made = [homes, *homes.glob("**/")]
    assert len(made) > 2
    assert {path.stat().st_mode & 0o777 for path in made} == {0o700}
