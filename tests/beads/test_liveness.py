"""Who lives is asked of the kernel: a name is held exactly as long as its process is there."""

from __future__ import annotations

import subprocess
import sys
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest

from beads import Store, liveness
from beads.errors import Fenced, InvalidInput, LostRace
from beads.liveness import Presence
from beads.model import Bead
from beads.ops import Claim, Create, Release
from tests.beads.clocks import Virtual
from tests.beads.strategies import NOW
from tests.world import make_repository

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


def test_a_lease_that_ran_out_is_good_while_its_holder_lives(tmp_path: Path) -> None:
    """A clock that was set, or a machine that slept, gives nobody the work of a process that goes on."""
    clock = Virtual()
    store = Store.init(make_repository(tmp_path / "project"), "ann", clock=clock)
    store.site, workers = "here", store.directory / liveness.WORKERS
    store.lives = partial(liveness.lives, workers, "here")
    store.commit("ann", [Create(bead=Bead(id="bt-a", title="a", created_at=NOW, updated_at=NOW))])
    store.commit("nux", [Claim(id="bt-a", worker="nux", site="here")])
    process = hold(workers, "nux")
    clock.moment += timedelta(days=2)
    with pytest.raises(LostRace, match="bt-a is held by nux"):
        store.commit("ace", [Claim(id="bt-a", worker="ace", site="here")])
    with pytest.raises(Fenced):
        store.commit("ace", [Release(id="bt-a", worker="ace", epoch=1, end="died", reason="its lease ran out")])
    assert store.commit("ace", [Claim(worker="ace", site="here")]).beads == (None,)
    process.kill()
    process.communicate()
    (taken,) = store.commit("ace", [Claim(id="bt-a", worker="ace", site="here")]).beads
    assert taken is not None
    assert (taken.assignee, taken.epoch) == ("ace", 2)


def test_a_living_process_that_does_not_move_says_nothing(tmp_path: Path) -> None:
    with Presence(tmp_path, "nux", "process 1") as nux:
        assert liveness.silence(tmp_path, "nux", 1000.0) == 0.0
        nux.beat(1000.0)
        nux.beat(1000.0 + liveness.BEAT_SECONDS / 2)
        assert liveness.silence(tmp_path, "nux", 1010.0) == 10.0
        nux.beat(1009.0)
        assert liveness.silence(tmp_path, "nux", 1010.0) == 1.0
        # The clock began again with the machine.
        assert liveness.silence(tmp_path, "nux", 5.0) == 0.0
        assert liveness.note(tmp_path, "nux") == "process 1"
    assert liveness.silence(tmp_path, "nux", 5.0) == 0.0
