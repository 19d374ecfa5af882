"""A Refinery that is ticked by hand, on a clock that never has to be waited for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from beads.clock import SystemClock
from refinery.processes import Job, Machine
from refinery.refinery import Refinery
from tests.refinery.yard import site_of, working
from tests.towns import until


class Leaping(SystemClock):
    """A clock that can be put forward."""

    def __init__(self) -> None:
        self._ahead = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self._ahead

    def leap(self) -> None:
        """Go to after all that is waited for."""
        self._ahead += 100.0


class Watched(Machine):
    """This machine, which knows whether anything runs."""

    def __init__(self) -> None:
        self._jobs: list[Job] = []

    def start(self, argv: Sequence[str], **how: Any) -> Job:
        self._jobs.append(super().start(argv, **how))
        return self._jobs[-1]

    @property
    def idle(self) -> bool:
        """Whether all that was started has ended."""
        return all(job.poll() is not None for job in self._jobs)


@contextmanager
def attended(repository: Path) -> Iterator[tuple[Refinery, Callable[[], list[str]]]]:
    """A Refinery, and how to have it do what there is to do by then, without waiting for a clock."""
    clock, machine = Leaping(), Watched()
    with working(site_of(repository, clock=clock, machine=machine)) as refinery:

        def tick() -> list[str]:
            until(lambda: machine.idle)
            clock.leap()
            return refinery.tick()

        yield refinery, tick
