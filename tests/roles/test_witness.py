"""The Witness and a polecat that lives and does not move; who dies is found out about in the tests of kills."""

from __future__ import annotations

import dataclasses
import os
import signal
from datetime import datetime, timedelta
from pathlib import Path

from beads import liveness
from beads.clock import Clock, SystemClock
from cli.config import open_site
from refinery.processes import start
from roles import witness
from tests.towns import TOWN, make_town, molecule, pour, processes, snapshot, until


class Later:
    """The system's clock, as far ahead as it is told."""

    def __init__(self) -> None:
        self.ahead = 0.0
        self._real: Clock = SystemClock()

    def now(self) -> datetime:
        return self._real.now() + timedelta(seconds=self.ahead)

    def monotonic(self) -> float:
        return self._real.monotonic() + self.ahead

    def sleep(self, seconds: float) -> None:
        self._real.sleep(seconds)


def test_a_polecat_that_is_stopped_is_killed_in_the_time_that_is_set_and_its_work_goes_on(tmp_path: Path) -> None:
    repository = make_town(tmp_path)
    pour(repository, molecule("slow", "echo begun > parts/draft; sleep 1000"))
    clock = Later()
    site = dataclasses.replace(open_site(repository), clock=clock)
    (bead,) = snapshot(repository).ready(clock.now())
    job = start(
        [*TOWN, "polecat", "run", bead.id, "--as", "nux"],
        cwd=repository,
        environ=site.environ,
        log=tmp_path / "nux.log",
        timeout=600,
        marker=site.marker("nux"),
        clock=SystemClock(),
    )
    with job:
        until(lambda: any("sleep 1000" in line for line in processes(repository)))
        until(lambda: len((site.workers / "nux").read_text().splitlines()) == 2)
        os.kill(int(liveness.note(site.workers, "nux")), signal.SIGSTOP)
        limit = site.settings.town.stall
        clock.ahead = limit / 2
        assert witness.tick(site) == []
        clock.ahead = limit + 60
        (line,) = witness.tick(site)
        assert line.startswith(f"took {bead.id} back: nux did not move for 6")
        assert "uncommitted work is in" in line
        assert not any("sleep 1000" in line for line in processes(repository))
        exit = job.wait()
        assert (exit.kind, exit.signal) == ("signalled", signal.SIGKILL)
    free = snapshot(repository).need(bead.id)
    assert (free.lease, free.epoch) == (None, 1)
