"""A town whose agent tries to get out: the whole way through a polecat, its criteria and the gate."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from refinery import landlock
from tests.towns import (
    UNCONTAINED,
    assert_settled,
    make_town,
    molecule,
    pour,
    prepare,
    run,
    sandboxed,
    settings_with,
    snapshot,
)
from tests.world import git

# Tries, and says what came of it.
AGENT = """\
import json, os, pathlib, subprocess
outside, secret = map(pathlib.Path, PLACES)
came = {"key": len(os.environ.get("AGENT_KEY", "")), "other": len(os.environ.get("OTHER_KEY", ""))}
def attempt(name, what):
    try:
        came[name] = what() or "done"
    except OSError as error:
        came[name] = type(error).__name__
def git(*args):
    done = subprocess.run(["git", *args], capture_output=True, text=True)
    return done.stdout.strip() or ("done" if done.returncode == 0 else "refused")
attempt("write", lambda: (outside / "escaped").write_text("x"))
attempt("read", secret.read_text)
attempt("hook", lambda: pathlib.Path(git("rev-parse", "--git-common-dir"), "hooks/post-commit").write_text("x"))
came["log"], came["branch"] = git("log", "-1", "--format=%s", "main"), git("branch", "mine")
came["store"] = git("update-ref", "-d", "refs/beads/main")
came["commit"] = git("commit", "--allow-empty", "-qm", "mine")
pathlib.Path("came.json").write_text(json.dumps(came))
pathlib.Path("parts/agent").write_text("ok\\n")
"""

WITHOUT_KEYS = 'test -z "$AGENT_KEY$OTHER_KEY"'


@pytest.mark.parametrize("kind", ["bubblewrap", "landlock"])
def test_an_agent_that_tries_to_get_out(tmp_path: Path, home: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if landlock.refusal() if kind == "landlock" else not shutil.which("bwrap"):
        pytest.skip(f"{kind} does not work here")
    monkeypatch.setenv("AGENT_KEY", "of the agent")
    monkeypatch.setenv("OTHER_KEY", "of nobody here")
    secret, agent = home / ".ssh/id", tmp_path / "agent.py"
    secret.parent.mkdir()
    secret.write_text("planted")
    agent.write_text(AGENT.replace("PLACES", repr([str(tmp_path), str(secret)])))
    settings = settings_with(["python3", str(agent)], ["AGENT_KEY"])
    gate = f'commands = ["sh check.sh", {json.dumps(WITHOUT_KEYS)}, "! cat {secret}"]'
    settings = sandboxed(f'kind = "{kind}"', settings.replace('commands = ["sh check.sh"]', gate))
    repository = make_town(tmp_path, settings)
    pour(repository, molecule("agent", "", "grep ok parts/agent", WITHOUT_KEYS, f"! cat {secret}", "! git tag mine"))
    run(repository, "up", "--until-idle")
    assert_settled(repository, landed=1)
    came = json.loads((repository / "came.json").read_text())
    # Under Landlock, a file of which one knows is there and cannot be opened.
    denied = "FileNotFoundError" if kind == "bubblewrap" else "PermissionError"
    assert came.pop("read") == denied
    # What is written to a directory of the sandbox's own goes with it.
    assert came.pop("write") in (1, "OSError", "PermissionError")
    assert came.pop("hook") in ("OSError", "PermissionError")
    assert came == {
        # Not the keys themselves, which would be taken out of any file.
        "key": len("of the agent"),
        "other": 0,
        "log": "Begin",
        "branch": "refused",
        "store": "refused",
        "commit": "refused",
    }
    assert not (tmp_path / "escaped").exists()
    assert git(repository, "branch", "--list", "mine") == ""


def test_nothing_is_begun_where_nothing_can_contain_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = make_town(tmp_path, sandboxed('kind = "bubblewrap"'))
    pour(repository, molecule("m", "echo ok > parts/m"))
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("git", "sh"):
        (programs / name).symlink_to(str(shutil.which(name)))
    monkeypatch.setenv("PATH", str(programs))
    for command in (["polecat", "run"], ["refinery", "tick"], ["up", "--until-idle"]):
        done = run(repository, *command, ok=[5])
        assert "bwrap is not on the PATH" in done.stderr
        assert "Install bubblewrap, or set kind" in done.stderr
    assert not [bead for bead in snapshot(repository) if bead.lease or bead.attempts]
    assert "BAD sandbox" in " ".join(run(repository, "doctor", ok=[7]).stdout.split())
    (repository / "town.toml").write_text(UNCONTAINED)
    assert "can touch all that you can" in run(repository, "doctor").stdout
    prepare(repository, "polecat", "run")
