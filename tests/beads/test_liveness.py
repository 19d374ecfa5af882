"""Who lives is asked of the kernel: a name is held exactly as long as its process is there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from beads import liveness
from beads.errors import InvalidInput, LostRace
from beads.liveness import Presence

HOLD = "import sys; from pathlib import Path; from beads.liveness import Presence; "
HOLD += "p = Presence(Path(sys.argv[1]), sys.argv[2]); print('held', flush=True); sys.stdin.read()"


def hold(directory: Path, name: str) -> subprocess.Popen[str]:
    """A process that holds a name until its standard input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(directory), name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_name_lives_as_long_as_its_process(tmp_path: Path) -> None:
    assert not liveness.alive(tmp_path, "nux")
    process = hold(tmp_path, "nux")
    assert liveness.alive(tmp_path, "nux")
    assert liveness.note(tmp_path, "nux") == str(process.pid)
    with pytest.raises(LostRace, match=f"nux is running already .process {process.pid}."):
        Presence(tmp_path, "nux")
    liveness.forget(tmp_path, "nux")
    assert liveness.names(tmp_path) == ["nux"]
    process.kill()
    process.communicate()
    assert not liveness.alive(tmp_path, "nux")
    with Presence(tmp_path, "nux"):
        assert liveness.alive(tmp_path, "nux")
    assert list(tmp_path.iterdir()) == []


KILLED = "import os, sys; from pathlib import Path; from beads.liveness import Presence; real = os.link\n"
KILLED += "os.link = lambda *names: (sys.argv[3] == 'after' and real(*names), os.kill(os.getpid(), 9))\n"
KILLED += "Presence(Path(sys.argv[1]), sys.argv[2])"


@pytest.mark.parametrize("moment", ["before", "after"])
def test_who_is_killed_while_taking_a_name_leaves_nothing_to_the_next(tmp_path: Path, moment: str) -> None:
    for name in ("nux", "ace"):
        assert subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), name, moment], check=False).returncode == -9
    assert [path.name[:5] for path in tmp_path.glob(".*")] == [".ace."]
    assert liveness.names(tmp_path) == (["ace", "nux"] if moment == "after" else [])
    Presence(tmp_path, "slit").close()
    assert list(tmp_path.glob(".*")) == []
    for name in liveness.names(tmp_path):
        liveness.forget(tmp_path, name)
    assert list(tmp_path.iterdir()) == []


def test_a_dead_workers_file_is_removed_by_forgetting(tmp_path: Path) -> None:
    process = hold(tmp_path, "slit")
    process.kill()
    process.communicate()
    assert liveness.names(tmp_path) == ["slit"]
    liveness.forget(tmp_path, "slit")
    liveness.forget(tmp_path, "slit")
    assert list(tmp_path.iterdir()) == []
    assert liveness.names(tmp_path / "not there") == []
    assert liveness.note(tmp_path, "slit") == ""


def test_a_file_is_never_seen_unlocked_while_its_process_lives(tmp_path: Path) -> None:
    """The Witness kills what is marked with the name of a dead worker: it must not see a starting one as dead."""
    churn = "import sys; from pathlib import Path; from beads.liveness import Presence\n"
    churn += "for n in range(300): Presence(Path(sys.argv[1]), f'w-{n}').close()\nprint('done')"
    process = subprocess.Popen([sys.executable, "-c", churn, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    while process.poll() is None:
        for name in liveness.names(tmp_path):
            alive = liveness.alive(tmp_path, name)
            # Gone by now is as good; there and unlocked is what must not be.
            assert alive or name not in liveness.names(tmp_path)
    out, _ = process.communicate()
    assert out == "done\n"


def test_a_name_cannot_lead_elsewhere(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="not a bead id"):
        Presence(tmp_path, "../x")
