"""``town demo`` does what it says, and the README shows what it prints."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.towns import TOWN, assert_nothing_left
from tests.world import ROOT, git

START = "<!-- demo -->\n```text\n"
CHECKS = [
    "8 of 8 molecules landed",
    "up to # polecats worked at the same time",
    "a step failed its criteria, and passed with the failure as input",
    "a polecat was killed, its work salvaged, and another went on from there",
    "two molecules, green alone and red together: the second was sent back",
    "a textual conflict was sent back and resolved",
]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """One run of the demonstration: where, and the lines it printed."""
    place = tmp_path_factory.mktemp("demo") / "here"
    done = subprocess.run([*TOWN, "demo", "--into", str(place)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return place, done.stdout.splitlines()


def kind(line: str) -> str:
    """A line without what differs from run to run: numbers, names, object ids, and how many went together."""
    line = re.sub(r"\b[0-9a-f]{7,40}\b", "#", line)
    line = re.sub(r"\b(?:[a-z]+-)?\d+-\d+\b", "#", line)
    line = re.sub(r"bt-\w+(?:\.m?\d+)?(?:, bt-\w+\.m\d+)*", "ID", line)
    line = re.sub(r"/\S+", "PATH", line)
    line = re.sub(r"polecat \w+\.\.", "polecat #", line)
    # Whether requests land one by one or together is a matter of timing.
    line = re.sub(r" and the \d+ before it", "", line)
    line = re.sub(r"^\* # (Merge ID|Land \d+ merge requests): .*", "* # landing", line)
    return " ".join(re.sub(r"\d+(?:\.\d+)?", "#", line).split())


def test_everything_promised_happened(demo: tuple[Path, list[str]]) -> None:
    _, lines = demo
    assert [kind(line) for line in lines if line.startswith(("yes ", "NO "))] == [f"yes {kind(c)}" for c in CHECKS]


def test_it_leaves_a_whole_repository_and_nothing_running(demo: tuple[Path, list[str]]) -> None:
    place, lines = demo
    repository = place / "textkit"
    assert str(repository) in lines[-1]
    assert_nothing_left(repository)
    git(repository, "fsck", "--no-dangling", "--strict")
    assert git(repository, "status", "--porcelain") == ""
    subprocess.run([sys.executable, "-m", "unittest", "-q"], cwd=repository, check=True, capture_output=True)
    assert "- `minutes`" in (repository / "README.md").read_text()


def test_the_readme_shows_what_it_prints(demo: tuple[Path, list[str]]) -> None:
    place, lines = demo
    # The demonstration shows the end of the store's log; which lines that are is a matter of timing, too.
    log = git(place / "textkit", "log", "--format=%h %<(16,trunc)%an %s", "refs/beads/main")
    text = (ROOT / "README.md").read_text()
    shown = text[text.index(START) + len(START) :].split("```")[0].splitlines()
    printed = {kind(line) for line in [*lines, *log.splitlines()]}
    assert len(shown) > 20
    assert [line for line in shown if line.strip() not in ("", "…") and kind(line) not in printed] == []
