"""A small town for tests: a repository with a gate that takes milliseconds, plans for it, and what must hold after."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil
from click.testing import CliRunner

from beads import Snapshot, Store
from cli.config import this_host
from cli.main import bead, town
from refinery.containment import trials
from tests.world import git, make_repository

# What is a process of its own when it is run: what works, waits, or looks at the machine it is on. All else only reads
# and writes the store.
_PROCESSES = frozenset({"up", "polecat", "witness", "refinery", "mayor", "attach", "demo", "doctor"})

TOWN = [sys.executable, "-P", "-c", "from cli.main import town; town()"]
BEAD = [sys.executable, "-P", "-c", "from cli.main import bead; bead()"]

CHECK = """\
set -e
# The gate: every part says ok, and no two parts claim the same name.
test -n "$(ls parts)"
for part in parts/*; do grep -q '^ok' "$part"; done
test -z "$(cat parts/* | grep '^name' | sort | uniq -d)"
"""

# Where nothing can contain anything, towns are tested without.
_KIND = 'kind = "none"\n' if all(trial.reason for trial in trials(this_host())) else ""

SETTINGS = f"""\
[sandbox]
{_KIND}
[town]
polecats = 3

[worktree]
root = "../worktrees"

[gate]
commands = ["sh check.sh"]
timeout = 20
"""


def sandboxed(lines: str, settings: str = SETTINGS) -> str:
    """Settings with these lines in their table about the sandbox."""
    without = settings.replace(_KIND, "") if "kind" in lines else settings
    return without.replace("[sandbox]\n", f"[sandbox]\n{lines}\n")


def contained(settings: str) -> str:
    """Settings that have no table about the sandbox, as a town can be run with where nothing can contain it."""
    return f"{settings}\n[sandbox]\n{_KIND}" if _KIND else settings


UNCONTAINED = sandboxed('kind = "none"')
"""The settings of a town whose workers can do as they like, as they could where nothing can contain them."""


def settings_with(command: Sequence[str], environment: Sequence[str] = ()) -> str:
    """The settings of a town whose default agent is that program."""
    table = f"command = {json.dumps(list(command))}\nenvironment = {json.dumps(list(environment))}"
    return SETTINGS.replace("[town]\n", '[town]\nagent = "fake"\n') + f'[agents.fake]\nruntime = "plain"\n{table}\n'


def make_town(path: Path, settings: str = SETTINGS) -> Path:
    """A repository with a gate and an empty store; returns its path."""
    files = {"check.sh": CHECK, "parts/first": "ok\n", "shared.txt": "top\n", "town.toml": settings}
    repository = make_repository(path / "project", files)
    prepare(repository, "init")
    return repository


def prepare(repository: Path, *args: str) -> None:
    """Run ``town ARGS`` there in this process, which saves the start of one where that is not what is tested."""
    done = _here(repository, TOWN, args)
    assert done.returncode == 0, f"{args} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"


def run(
    repository: Path, *args: str, ok: Sequence[int] = (0,), program: Sequence[str] = TOWN
) -> subprocess.CompletedProcess[str]:
    """Run ``town ARGS`` there and return what it said; fails when it ends otherwise than with ``ok``.

    What works or waits is a process of its own.
    """
    if not _PROCESSES.isdisjoint(args) or program not in (TOWN, BEAD):
        done = subprocess.run([*program, *args], cwd=repository, capture_output=True, text=True, check=False)
    else:
        done = _here(repository, program, args)
    assert done.returncode in ok, f"{args} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return done


def _here(repository: Path, program: Sequence[str], args: Sequence[str]) -> subprocess.CompletedProcess[str]:
    said = CliRunner().invoke(bead if program == BEAD else town, ["-C", str(repository), *args])
    return subprocess.CompletedProcess([*program, *args], said.exit_code, said.stdout, said.stderr)


def molecule(
    name: str, line: str, *criteria: str, needs: Sequence[str] = (), limits: str = "", **more: str | float
) -> str:
    """One molecule of one step as TOML; ``limits`` are criteria in TOML that come after those commands."""
    values: Mapping[str, object] = {
        "title": f"Do {name}",
        "goal": f"{name} is done.",
        **({"run": line} if line else {}),
        **more,
    }
    fields = "\n".join(f"{key} = {json.dumps(value)}" for key, value in values.items())
    held = ", ".join(f"{{ run = {json.dumps(c)} }}" for c in criteria or (f"test -f parts/{name}",))
    held += f", {limits}" if limits else ""
    return f"[[molecules]]\nid = {json.dumps(name)}\n{fields}\nneeds = {json.dumps(list(needs))}\ncriteria = [{held}]\n"


def part(name: str, *, seconds: float = 0.0, needs: Sequence[str] = ()) -> str:
    """A molecule that adds one good part, slowly or not."""
    slowly = f"sleep {seconds}; " if seconds else ""
    return molecule(name, f"{slowly}printf 'ok\\n' > parts/{name}", needs=needs)


def pour(repository: Path, *molecules: str) -> None:
    """Give the town a plan of these molecules."""
    path = repository.parent / "plan.toml"
    path.write_text('plan = "test"\n' + "\n".join(molecules))
    prepare(repository, "mayor", "--plan", str(path), "--yes")


def snapshot(repository: Path) -> Snapshot:
    """The newest state of the store."""
    return Store.open(repository).snapshot()


def assert_settled(repository: Path, landed: int) -> None:
    """What must hold after every run, however it was disturbed: I1, I3, I4, I5, and nothing left over."""
    state = snapshot(repository)
    molecules = [bead for bead in state if bead.issue_type == "molecule"]
    assert [bead.outcome for bead in molecules] == ["landed"] * landed
    trailers = git(repository, "log", "--format=%(trailers:key=Merge-Request,valueonly)", "main").split()
    requests = [bead.id for bead in state if bead.merge and bead.outcome == "landed"]
    assert Counter(trailers) == Counter(requests)
    assert len(requests) == landed
    assert_green(repository, state)
    assert_proven(state)
    assert_nothing_left(repository)
    git(repository, "fsck", "--no-dangling", "--strict")


def assert_green(repository: Path, state: Snapshot) -> None:
    """Every first-parent commit that the Refinery made has a stored green verdict for exactly its tree (I4)."""
    green = {e.tree for bead in state if bead.merge for e in bead.evidence if e.verdict == "pass"}
    made = git(repository, "log", "--first-parent", "--format=%T", "--author=refinery", "main").split()
    assert made
    assert set(made) <= green


def assert_proven(state: Snapshot) -> None:
    """Every closed step has evidence that each criterion passed, on one tree (I3)."""
    steps = [bead for bead in state if bead.issue_type == "step" and bead.outcome == "done"]
    assert steps
    for step in steps:
        passed = {(e.subject, e.tree) for e in step.evidence if e.verdict == "pass"}
        trees = {tree for _, tree in passed}
        assert any(all((str(c), tree) in passed for c in step.criteria) for tree in trees), step.id


def assert_nothing_left(repository: Path) -> None:
    """No work tree, branch, worker, lock or process is left over."""
    assert git(repository, "worktree", "list", "--porcelain").count("worktree ") == 1, git(
        repository, "worktree", "list"
    )
    assert git(repository, "for-each-ref", "--format=%(refname)", "refs/heads").split() == ["refs/heads/main"]
    assert [p.name for p in (repository / ".git/beads/workers").iterdir()] == []
    locks = [str(p.relative_to(repository)) for p in (repository / ".git").rglob("*.lock")]
    # What agent programs keep in their own homes is theirs.
    assert [name for name in locks if not name.startswith(".git/beads/homes/")] == []
    assert [p.name for p in (repository.parent / "worktrees").glob("[!.]*")] == []
    assert git(repository, "for-each-ref", "refs/beads/candidate", "refs/beads/request") == ""
    assert processes(repository) == []


def leaks(root: Path, secret: str) -> list[str]:
    """Where below ``root`` a secret is: in a file, a name, a link, or an object of Git's, compressed or not."""
    forms = [secret.encode(), json.dumps(secret)[1:-1].encode(), b64encode(secret.encode()).rstrip(b"=")[:-1]]
    found = []
    for at, directories, files in os.walk(root):
        for path in (Path(at, name) for name in (*directories, *files)):
            text = os.fsencode(path.name)
            if path.is_symlink():
                text += os.fsencode(path.readlink())
            elif path.is_file():
                text += path.read_bytes()
            found += [str(path)] if any(form in text for form in forms) else []
    for objects in root.rglob("objects"):
        if (objects.parent / "HEAD").is_file():
            args = ["git", "--git-dir", str(objects.parent), "cat-file", "--batch", "--batch-all-objects"]
            held = subprocess.run(args, capture_output=True, check=True).stdout
            assert held or not list(objects.glob("??/*"))
            found += [str(objects)] if any(form in held for form in forms) else []
    return found


def processes(repository: Path) -> list[str]:
    """The command lines of living processes that work in this town."""
    found = []
    for process in psutil.process_iter(["cwd", "cmdline"]):
        cwd = process.info["cwd"] or ""
        if cwd.startswith(str(repository.parent)):
            found.append(" ".join(process.info["cmdline"] or []))
    return found


def until(condition: Callable[[], object], seconds: float = 30) -> None:
    """Wait for something another process brings about."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)
