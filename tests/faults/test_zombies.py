"""A worker that was stopped, and comes back when another one has its work: it is told so, and changes nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from beads.clock import SystemClock
from beads.ops import Claim, Create
from beads.store import Store
from tests.beads.clocks import Virtual
from tests.beads.strategies import bead
from tests.cli.commands import PROGRAM
from tests.faults.scenarios import done, state
from tests.world import ROOT

# It works, is stopped between two writes, and goes on with what it takes for its own.
_WORKER = """
import os, signal, sys
from pathlib import Path
from beads.errors import TownError
from beads.ops import Begin, Claim, Close, Release, Renew, Say
from beads.store import Store

store = Store.open(Path.cwd())
(claimed,) = store.commit("nux", [Claim(id="bt-0", worker="nux")]).beads
print(claimed.epoch, flush=True)
os.kill(os.getpid(), signal.SIGSTOP)
mine = {"id": "bt-0", "worker": "nux", "epoch": claimed.epoch}
for operation in Renew(**mine), Begin(**mine, runtime="command"), Close(**mine), Release(**mine):
    try:
        store.commit("nux", [Say(id="bt-0", text="still at it"), operation])
        print("written", flush=True)
    except TownError as error:
        print(type(error).__name__, error, flush=True)
"""


@pytest.fixture
def zombie(repo: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that claimed bt-0 and is stopped."""
    store = Store.init(repo, "ada")
    store.commit("ada", [Create(bead=bead("bt-0"))])
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", _WORKER]
    with subprocess.Popen(command, cwd=repo, env=environ, stdout=subprocess.PIPE, text=True) as process:
        _, status = os.waitpid(process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        yield process
        process.kill()


def test_a_worker_that_was_taken_for_dead_is_fenced(zombie: subprocess.Popen[str], repo: Path) -> None:
    later = Virtual(SystemClock().now() + timedelta(hours=2))
    (taken,) = Store.open(repo, later).commit("zoe", [Claim(id="bt-0", worker="zoe")]).beads
    assert taken is not None
    assert (taken.epoch, taken.assignee) == (2, "zoe")
    there = state(repo)
    zombie.send_signal(signal.SIGCONT)
    out, _ = zombie.communicate()
    epoch, *answers = out.splitlines()
    assert epoch == "1"
    reason = "Fenced nux no longer holds bt-0 under epoch 1: zoe holds it under epoch 2"
    assert [answer[: len(reason)] for answer in answers] == [reason] * 4
    assert state(repo) == there


def test_a_command_of_a_zombie_ends_with_4_and_says_why(repo: Path) -> None:
    done(repo, "init")
    done(repo, "create", "Work", "--id", "bt-0")
    done(repo, "claim", "bt-0", "--as", "nux")
    later = Virtual(SystemClock().now() + timedelta(hours=2))
    Store.open(repo, later).commit("zoe", [Claim(id="bt-0", worker="zoe")])
    there = state(repo)
    for args in ("close", "bt-0"), ("release", "bt-0"):
        ran = subprocess.run(
            [*PROGRAM, *args, "--as", "nux", "--epoch", "1"], cwd=repo, capture_output=True, text=True, check=False
        )
        assert ran.returncode == 4, ran
        assert "zoe holds it under epoch 2" in ran.stderr
    assert state(repo) == there
