"""``town init``: find out how the repository is tested, write ``town.toml`` onto main, make the store."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from beads.errors import NotFound, Refused
from beads.store import Store
from beads.toml import dumps
from refinery.gate import SETTINGS_FILE
from refinery.git import Git


@dataclass(frozen=True)
class Initialised:
    """What ``town init`` found and did, a line each."""

    lines: tuple[str, ...]


def initialise(git: Git, actor: str, gate: tuple[str, ...], prefix: str, commit: bool) -> Initialised:
    """Make a repository ready for the town; doing it again changes nothing.

    Args:
        git: Git in the main work tree.
        actor: who does it.
        gate: the gate's commands; none: found out from the files.
        prefix: what the store's ids start with.
        commit: whether to commit ``town.toml`` to main, which is where the Refinery reads the gate.

    Raises:
        NotFound: no commit yet, or no branch to call main.
        Refused: main is not checked out here, or no gate was given and none can be guessed.
    """
    branch = main_branch(git)
    lines = [_settings(git, branch, gate, commit)]
    there = git.resolve("refs/beads/main") is not None
    Store.init(git.directory, actor, prefix)
    lines.append("the store is at refs/beads/main" + (" already" if there else ""))
    return Initialised(tuple(lines))


def main_branch(git: Git) -> str:
    """The branch that landing is about: ``main``, else ``master``.

    Raises:
        NotFound: neither exists.
    """
    if git.resolve("HEAD") is None:
        raise NotFound(f"{git.directory} has no commit yet", "Make the first one: git add -A && git commit -m begin")
    for branch in ("main", "master"):
        if git.resolve(f"refs/heads/{branch}"):
            return branch
    raise NotFound("there is neither a branch 'main' nor 'master'", "Make one: git branch main")


def _settings(git: Git, branch: str, gate: tuple[str, ...], commit: bool) -> str:
    if git.resolve(f"refs/heads/{branch}:{SETTINGS_FILE}"):
        return f"{SETTINGS_FILE} is on {branch} already"
    checked_out = git.run("symbolic-ref", "--quiet", "HEAD", ok=(0, 1)).out.strip()
    if commit and checked_out != f"refs/heads/{branch}":
        raise Refused(
            f"{branch} is not checked out in {git.directory}",
            f"Run `git switch {branch}` first; or `town init --no-commit`, and bring {SETTINGS_FILE} there yourself.",
        )
    path = git.directory / SETTINGS_FILE
    if not path.exists():
        path.write_bytes(settings_text(branch, gate or guess_gate(git.directory)))
    if not commit:
        return f"wrote {SETTINGS_FILE}; the gate counts once it is on {branch}"
    git.run("add", "--", SETTINGS_FILE)
    git.run("commit", "--only", "-m", f"town: add {SETTINGS_FILE}", "--", SETTINGS_FILE)
    return f"wrote {SETTINGS_FILE} and committed it to {branch}"


def guess_gate(directory: Path) -> tuple[str, ...]:
    """How the project in ``directory`` is tested, by the files that are there.

    Raises:
        Refused: nothing that is known; a gate that is not there must never mean that all is well.
    """
    makefile = directory / "Makefile"
    package = directory / "package.json"
    if makefile.is_file() and "\ntest:" in "\n" + makefile.read_text(errors="replace"):
        return ("make test",)
    if package.is_file() and '"test"' in package.read_text(errors="replace"):
        return ("npm test",)
    if (directory / "Cargo.toml").is_file():
        return ("cargo test",)
    if (directory / "go.mod").is_file():
        return ("go test ./...",)
    if any((directory / name).exists() for name in ("pyproject.toml", "setup.py", "setup.cfg", "tests", "tox.ini")):
        return ("python3 -m pytest -q",)
    raise Refused(
        f"cannot tell how {directory} is tested", "Say it: town init --gate 'COMMAND' (repeat --gate for several)."
    )


def settings_text(branch: str, gate: tuple[str, ...]) -> bytes:
    """A first ``town.toml`` with what people change first, and why."""
    commands = dumps({"commands": list(gate)}).decode()
    return f"""\
# How the town works on this repository: versioned with it, read from main. Never a secret in here.

[town]
branch = {json.dumps(branch)}
polecats = 2        # how many work at once
agent = "command"   # who does a step that names nobody: one of [agents], or "command", the step's own `run` line

# What must pass before a commit may become {branch}. Run in a clean work tree of exactly that commit.
[gate]
{commands}timeout = 1800
# protected = ["tests/**", ".github/**"]   # a branch that changes one of these, or this file, needs your approval

# [worktree]
# setup = "make deps"   # run once in each new work tree
# network = true        # ... with the network, which criteria and the gate have not, unless they are given it

# [sandbox]
# write = ["~/.cache/pip"]   # what may be changed besides the work tree; of your home, nothing else is seen
# kind = "none"              # no sandbox, where there can be none

# [agents.claude]
# runtime = "claude"    # or codex, gemini, opencode, copilot, aider, mini, cursor, goose, amp

# [agents.other]
# runtime = "plain"     # any program that takes a prompt and edits the files where it is started
# command = ["other-agent", "--yes", "{{prompt}}"]
# environment = ["OTHER_API_KEY"]   # names only; the value stays in your environment
""".encode()
