"""Agents that lie: whatever they say and do, no step closes that is not done."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.towns import BEAD, make_town, pour, run, sandboxed, settings_with, snapshot
from tests.world import git

STEP = """
[[molecules]]
id = "shout"
title = "Shout"
goal = "text.shout() shouts."

  [[molecules.steps]]
  id = "implement"
  title = "Write shout()"
  attempts = 1

    [[molecules.steps.criteria]]
    run = "PYTEST_DISABLE_PLUGIN_AUTOLOAD=1 {python} -m pytest -q -p no:cacheprovider tests"

    [[molecules.steps.criteria]]
    diff = ["text.py"]
"""

TEST = "from text import shout\n\n\ndef test_shout():\n    assert shout('a') == 'A!'\n"

# What the agent does, after these lines.
BEGIN = """
import os, subprocess, sys
from pathlib import Path

def sh(line, **more):
    return subprocess.run(line, shell=True, text=True, capture_output=True, check=False, **more).stdout

def tell(line):
    command = [sys.executable, "-P", "-c", "from cli.main import bead; bead()", *line.split()]
    done = subprocess.run(command, text=True, capture_output=True, check=False)
    Path(sys.argv[0]).with_name("said").write_text(done.stderr)

test, easy = Path("tests/test_text.py"), "def test_shout():\\n    pass\\n"
whole = os.environ["BEADTOWN_BEAD"]
bead = f"{whole}.1"
"""

# Rewrites the bead behind the store's back, with plain Git.
FORGE = """
path = [line for line in sh("git ls-tree -r --name-only refs/beads/main").split() if line.endswith(f"/{bead}.toml")][0]
text = sh(f"git show refs/beads/main:{path}")
assert OLD in text
blob = sh("git hash-object -w --stdin", input=text.replace(OLD, NEW)).strip()
os.environ["GIT_INDEX_FILE"] = str(Path("index.tmp").resolve())
sh(f"git read-tree refs/beads/main && git update-index --cacheinfo 100644,{blob},{path}")
tree = sh("git write-tree").strip()
commit = sh(f"git -c user.name=x -c user.email=x@x commit-tree {tree} -p refs/beads/main -m forged").strip()
assert not sh(f"git update-ref refs/beads/main {commit} || echo failed")
Path("index.tmp").unlink()
"""

# What the agent does, and why it does not help.
LIES = {
    "says so": ("", "exit 1"),
    "edits the test": ("test.write_text(easy)", "changes tests/test_text.py"),
    "deletes the test": ("test.unlink()", "no tests were collected"),
    "puts another one there": (
        "test.unlink(); test.with_name('test_more.py').write_text(easy)",
        "changes tests/test_more.py, tests/test_text.py",
    ),
    "leaves in conftest": ("Path('conftest.py').write_text('import os\\nos._exit(0)\\n')", "without a word of a test"),
    "leaves with a smile": (
        "Path('conftest.py').write_text('import pytest\\npytest.exit(\"3 passed\", 0)\\n')",
        "exit 4",
    ),
    "leaves in the code": ("Path('text.py').write_text('import os\\nos._exit(0)\\n')", "without a word of a test"),
    "configures the tests away": (
        "Path('pytest.ini').write_text('[pytest]\\naddopts = --collect-only\\n')",
        "without a word of a test",
    ),
    "puts another pytest there": ("Path('pytest.py').write_text('print(\"1 passed\")\\n')", "changes pytest.py"),
    "commits it by itself": (
        "test.write_text(easy); sh('git add . && git -c user.name=x -c user.email=x@x commit -qm done')",
        "changes tests/test_text.py",
    ),
    "closes the step": ("tell(f'close {bead} --as liar --epoch 1 --reason done')", "cannot close: not proven"),
    "gives the step up": ("tell(f'close {bead} --outcome cancelled --reason done')", "cannot be cancelled"),
    "deletes the step": ("tell(f'delete {bead} --reason done')", "is held by liar"),
    "takes the step out": ("tell(f'dep remove {bead} {whole} --type parent-child')", "is sealed as a part"),
    "changes the goal": ("tell(f'update {bead} --title Nothing')", "is sealed"),
    "changes the criteria": (
        f"OLD, NEW = '-m pytest -q -p no:cacheprovider tests', '--version'\n{FORGE}",
        "exit 1",
    ),
}


def town_of(path: Path, work: str) -> Path:
    """A town with a test that fails, and an agent that does this; returns its path."""
    agent = path / "agent.py"
    agent.write_text(f"{BEGIN}\n{work}\nprint('Done. All tests pass.')\n")
    repository = make_town(path, sandboxed('kind = "none"', settings_with([sys.executable, str(agent)])))
    (repository / "tests").mkdir()
    (repository / "tests" / "test_text.py").write_text(TEST)
    (repository / "text.py").write_text("def shout(text):\n    return text\n")
    git(repository, "add", ".")
    git(repository, "commit", "--quiet", "--message", "a test that fails")
    pour(repository, STEP.format(python=sys.executable))
    return repository


@pytest.mark.parametrize("lie", LIES)
def test_no_lie_closes_a_step(tmp_path: Path, lie: str) -> None:
    work, problem = LIES[lie]
    repository = town_of(tmp_path, work)
    done = run(repository, "polecat", "run", "--as", "liar", ok=range(1, 8))
    step = next(bead for bead in snapshot(repository) if bead.issue_type == "step")
    assert not step.closed
    assert not any(bead.merge for bead in snapshot(repository))
    told = [attempt.reason for attempt in step.attempts] + [evidence.detail for evidence in step.evidence]
    said = tmp_path / "said"
    assert problem in "\n".join([*told, done.stderr, said.read_text() if said.exists() else ""])
    if lie == "changes the criteria":
        # Whoever comes next is told so before any work.
        run(repository, "retry", step.id)
        again = run(repository, "polecat", "run", str(step.parent), ok=range(1, 8))
        assert "were changed after they were sealed" in again.stderr
        assert step.id in run(repository, "doctor", program=BEAD, ok=range(1, 8)).stdout


def test_who_does_the_work_closes_the_step(tmp_path: Path) -> None:
    repository = town_of(
        tmp_path, "Path('text.py').write_text('def shout(text):\\n    return text.upper() + \"!\"\\n')"
    )
    run(repository, "polecat", "run", "--as", "liar")
    assert next(bead for bead in snapshot(repository) if bead.issue_type == "step").closed
