"""``town demo``: the main job on a small real package, with everything that goes wrong in real life happening.

Nothing is staged by printing. The commands are the ones a user types; one polecat is really killed, one step
really fails, two molecules really clash; and what is said at the end is read back from the store.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from beads import Snapshot, Store, graph, liveness
from beads.clock import SystemClock
from beads.errors import TownError
from beads.model import Attempt
from cli.config import this_host
from refinery.containment import trials
from refinery.gate import SETTINGS_FILE
from roles.status import Row, rows

SLOW = "Write the almanac"
"""The molecule whose polecat is killed half way."""

_HALF_WAY = "textkit/almanac/month_05.txt"
_POLL_SECONDS = 0.01


@dataclass
class Demo:
    """One demonstration in one directory.

    Attributes:
        directory: empty; everything happens below it.
        command: what runs ``town``, absolute.
        say: told what to show, a line or a block at a time.
    """

    directory: Path
    command: Sequence[str]
    say: Callable[[str], None]

    @property
    def repository(self) -> Path:
        """Where the package is."""
        return self.directory / "textkit"

    def run(self) -> bool:
        """Set up, run the town, show what came of it; whether all of it landed and everything promised happened."""
        self._make_repository()
        self._town("init")
        self._town("mayor", "--plan", "plan.toml", "--yes")
        killer = threading.Thread(target=self._kill_half_way, daemon=True)
        killer.start()
        self._town("up", "--until-idle")
        return self._show()

    def _make_repository(self) -> None:
        shutil.copytree(
            Path(__file__).parent / "repository", self.repository, ignore=shutil.ignore_patterns("__pycache__")
        )
        (self.repository / "gitignore").rename(self.repository / ".gitignore")
        if all(trial.reason for trial in trials(this_host())):
            # Nothing can contain anything here, and what the demonstration runs came with us.
            with (self.repository / SETTINGS_FILE).open("a") as file:
                file.write('\n[sandbox]\nkind = "none"\n')
        self._git("init", "-q", "-b", "main")
        self._git("config", "user.name", "Demo")
        self._git("config", "user.email", "demo@example.org")
        self._git("add", ".")
        self._git("commit", "-q", "-m", "textkit: one function and its test")

    def _environ(self) -> dict[str, str]:
        """The commands of the plan say ``python3``: it is to be the one that runs this."""
        return {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"}

    def _git(self, *args: str) -> str:
        done = subprocess.run(
            ["git", *args], cwd=self.repository, env=self._environ(), capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise TownError(f"git {' '.join(args)} failed: {done.stderr.strip()}")
        return done.stdout.rstrip()

    def _town(self, *args: str) -> None:
        self.say(f"$ town {' '.join(args)}")
        process = subprocess.Popen(
            [*self.command, *args],
            cwd=self.repository,
            env=self._environ(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert process.stdout is not None, "it was asked for"
        for line in process.stdout:
            self.say(f"  {line.rstrip()}")
        if process.wait() not in (0, 7):
            raise TownError(
                f"town {args[0]} ended with exit status {process.returncode}", f"Look into {self.directory}."
            )

    def _kill_half_way(self) -> None:
        """SIGKILL the polecat of the slow molecule as soon as its work tree shows that it is half way."""
        store = Store.open(self.repository)
        slow = next(bead for bead in store.snapshot() if bead.title == SLOW)
        while not list(self.directory.glob(f"worktrees/*/{_HALF_WAY}")):
            time.sleep(_POLL_SECONDS)
        lease = store.snapshot().need(slow.id).lease
        if lease is None:
            return
        pid = int(liveness.note(store.directory / liveness.WORKERS, lease.worker))
        os.kill(pid, signal.SIGKILL)
        self.say(f"  demo: kill -9 {pid} ({lease.worker} is half way through {slow.id})")

    def _show(self) -> bool:
        store = Store.open(self.repository)
        snapshot = store.snapshot()
        found = rows(snapshot, SystemClock().now())
        self.say("\n$ git log --graph --first-parent --format='%h %s' main")
        self.say(self._git("log", "--graph", "--first-parent", "--format=%h %s", "main"))
        self.say("\n$ git log -12 --format='%h %<(16,trunc)%an %s' beads/main")
        self.say(self._git("log", "-12", "--format=%h %<(16,trunc)%an %s", "beads/main"))
        self.say("")
        self.say(table(found))
        happened = events(snapshot, found)
        self.say("\n".join(f"{'yes' if seen else 'NO '}  {what}" for what, seen in happened.items()))
        self.say(f"\nEverything is in {self.repository}; look around with git log, bead list, town status.")
        return all(happened.values())


def table(found: list[Row]) -> str:
    """Molecule → attempts → evidence → landed commit."""
    lines = [f"{'molecule':<11} {'title':<27} {'attempts':>8} {'evidence':>8} {'sent back':>9}  landed as"]
    lines += [
        f"{row.bead.id:<11} {row.bead.title:<27} {row.attempts:>8} {row.evidence:>8} {row.reworks:>9}  "
        f"{row.commit[:10] or row.state.reason}"
        for row in found
    ]
    return "\n".join(lines)


def events(snapshot: Snapshot, found: list[Row]) -> dict[str, bool]:
    """What the demonstration promises, and whether the store shows that it happened."""
    steps = [step for row in found for step in graph.steps(snapshot, row.bead)]
    rejected = [bead.close_reason for bead in snapshot if bead.outcome == "rejected"]
    attempts = [attempt for step in steps for attempt in step.attempts]
    return {
        f"{len(found)} of {len(found)} molecules landed": bool(found) and all(row.commit for row in found),
        f"up to {at_once(attempts)} polecats worked at the same time": at_once(attempts) > 1,
        "a step failed its criteria, and passed with the failure as input": any(
            [a.end for a in step.attempts][:2] == ["unmet", "satisfied"] for step in steps
        ),
        "a polecat was killed, its work salvaged, and another went on from there": any(
            graph.deaths(step) and step.closed for step in steps
        ),
        "two molecules, green alone and red together: the second was sent back": any("red" in r for r in rejected),
        "a textual conflict was sent back and resolved": any("conflict" in r for r in rejected),
    }


def at_once(attempts: Sequence[Attempt]) -> int:
    """How many of these attempts went on at one and the same moment, at most."""
    return max(
        (sum(a.started_at <= b.started_at < (a.ended_at or b.started_at) for a in attempts) for b in attempts),
        default=0,
    )


def make_directory() -> Path:
    """A new empty directory for a demonstration."""
    return Path(tempfile.mkdtemp(prefix="beadtown-demo-"))
