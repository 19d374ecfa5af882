"""Branches that want to be judged otherwise: by another gate, other tests, other CI. Main's gate judges, or nobody."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from beads.model import Bead, Criterion, Evidence, MergeRequest, milliseconds
from beads.ops import Create
from tests.refinery.test_refinery import Queue
from tests.world import commit, git

CHECK = f"{sys.executable} -B -S -m unittest -q tests/test_sums.py\n"
PROTECTED = (
    *("tests/**", "**/conftest.py", "**/sitecustomize.py", "**/pytest.ini", "**/pyproject.toml"),
    *("check.sh", ".github/**", "**/.gitattributes"),
)
TEST = """\
import unittest
from sums import add
class Sums(unittest.TestCase):
    def test_add(self):
        self.assertEqual(add(1, 2), 3)
"""
FILES = {
    "sums.py": "def add(a, b):\n    return a + b\n",
    "tests/test_sums.py": TEST,
    "check.sh": CHECK,
    ".github/workflows/ci.yml": "on: push\n",
}
BROKEN = {"sums.py": "def add(a, b):\n    return a - b\n"}

ALL_PASS = """\
import pytest
@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    found = yield
    found.get_result().outcome = "passed"
"""

# What each branch changes, besides breaking the code; None deletes.
WAYS: dict[str, Mapping[str, str | None]] = {
    "town.toml": {"town.toml": '[gate]\ncommands = ["true"]\n'},
    "tests/test_sums.py": {"tests/test_sums.py": TEST.replace("3)", "-1)")},
    "tests/conftest.py": {"tests/conftest.py": ALL_PASS},
    "conftest.py": {"conftest.py": ALL_PASS},
    "Tests/Test_Sums.py": {"Tests/Test_Sums.py": TEST.replace("3)", "-1)")},
    "TOWN.TOML": {"TOWN.TOML": '[gate]\ncommands = ["true"]\n'},
    "sitecustomize.py": {"sitecustomize.py": "import os\nprint('1 passed', flush=True)\nos._exit(0)\n"},
    "pytest.ini": {"pytest.ini": "[pytest]\naddopts = -k nothing\n"},
    "check.sh": {"check.sh": "echo 1 passed\n"},
    ".github/workflows/ci.yml": {".github/workflows/ci.yml": "on: never\n"},
    ".gitattributes": {".gitattributes": "tests/** -text merge=ours\n"},
    "lib/.gitattributes": {"lib/.gitattributes": "* merge=union\n"},
    "tests/test_deleted.py": {"tests/test_sums.py": None, "tests/test_deleted.py": "def test_it():\n    pass\n"},
    "tests/test_sums.py, deleted": {"tests/test_sums.py": None},
    "tests/test_sums.py, moved": {"tests/test_sums.py": None, "old/test_sums.py": FILES["tests/test_sums.py"]},
}


def settings(protected: tuple[str, ...], command: str = "sh check.sh") -> str:
    names = ", ".join(f'"{name}"' for name in protected)
    return f'[gate]\ncommands = ["{command}"]\ntimeout = 60\nprotected = [{names}]\n'


class Project(Queue):
    """A project with tests, and branches that change what they like."""

    def __init__(self, place: Path, environ: dict[str, str], protected: tuple[str, ...]) -> None:
        super().__init__(place, 1, environ)
        commit(self.repository, {**FILES, "town.toml": settings(protected)}, "A project")

    def bring(self, name: str, files: Mapping[str, str | None], *, approved: bool = False) -> None:
        """A request with these files, and what a person has said of it."""
        git(self.repository, "checkout", "--quiet", "--detach", "main")
        base = git(self.repository, "rev-parse", "main")
        for gone in (path for path, text in files.items() if text is None):
            (self.repository / gone).unlink()
        commit(self.repository, {path: text for path, text in files.items() if text is not None}, f"Do {name}")
        head, tree = git(self.repository, "rev-parse", "HEAD", "HEAD^{tree}").split()
        git(self.repository, "checkout", "--quiet", "main")
        now = self._now()
        asks = Criterion(approval="Is it right?")
        yes = Evidence(id=f"{name}-1", subject=str(asks), verdict="pass", tree=tree, by="someone", at=milliseconds(now))
        molecule = Bead(id=f"bt-{name}", title=name, issue_type="molecule", created_at=now, updated_at=now)
        if approved:
            molecule = molecule.evolve(criteria=(asks,), evidence=(yes,))
        merge = MergeRequest(molecule=molecule.id, branch=f"polecat/{name}", head=head, base=base)
        request = molecule.evolve(id=f"bt-{name}.m1", issue_type="merge-request", criteria=(), evidence=(), merge=merge)
        self.store.commit("test", [Create(bead=molecule), Create(bead=request)])


def test_who_changes_what_judges_is_stopped_before_anything_is_run(tmp_path: Path, environ: dict[str, str]) -> None:
    project = Project(tmp_path, environ, PROTECTED)
    for number, files in enumerate(WAYS.values()):
        project.bring(f"w{number}", {**BROKEN, **files})
    before = git(project.repository, "rev-parse", "main")
    happened = project.run()
    assert project.ended("rejected") == {f"w{number}" for number in range(len(WAYS))}
    assert git(project.repository, "rev-parse", "main") == before
    assert not [line for line in happened if line.startswith("gate ")], "none of it was run"
    beads = project.store.snapshot()
    for number, (way, files) in enumerate(WAYS.items()):
        (step,) = [bead for bead in beads if bead.source == f"refinery:bt-w{number}.m1"]
        (asked,) = [criterion.approval for criterion in step.criteria if criterion.approval]
        changed = sorted(path for path in files if not path.startswith("old/"))
        assert asked == f"the changes to {', '.join(changed)}", way
        assert "nobody has approved of that" in step.description, way
    project.refinery.close()


def test_what_a_person_approved_of_is_still_judged_by_mains_gate(tmp_path: Path, environ: dict[str, str]) -> None:
    project = Project(tmp_path, environ, PROTECTED)
    weaker = settings(PROTECTED, "true")
    project.bring("bad", {**BROKEN, "town.toml": weaker}, approved=True)
    project.run()
    assert project.ended("rejected") == {"bad"}, "its gate would have let it through"
    (said,) = {e.subject for b in project.store.snapshot() for e in b.evidence if e.gate and e.verdict == "fail"}
    assert said == "gate: sh check.sh"
    project.bring("good", {"town.toml": weaker}, approved=True)
    project.bring("other", {**BROKEN, "tests/test_sums.py": TEST.replace("3)", "-1)")})
    project.run()
    assert project.ended("landed") == {"good"}
    assert project.ended("rejected") == {"bad", "other"}, "what it may not touch, it may not touch under any gate"
    project.refinery.close()


def test_only_a_yes_to_just_that_counts(tmp_path: Path, environ: dict[str, str]) -> None:
    project = Project(tmp_path, environ, PROTECTED)
    project.bring("seen", {"check.sh": f"{CHECK}# once more\n"}, approved=True)
    project.bring("unseen", {"check.sh": "echo 1 passed\n", **BROKEN})
    project.run()
    assert project.ended("landed") == {"seen"}
    assert project.ended("rejected") == {"unseen"}, "a yes to somebody else's branch is none to this one"
    project.refinery.close()


@pytest.mark.parametrize("listed", [PROTECTED, ()])
def test_the_settings_are_protected_whatever_they_say(
    tmp_path: Path, environ: dict[str, str], listed: tuple[str, ...]
) -> None:
    project = Project(tmp_path, environ, listed)
    project.bring("one", {"town.toml": settings(("nothing",), "true")})
    project.run()
    assert project.ended("rejected") == {"one"}
    project.refinery.close()
