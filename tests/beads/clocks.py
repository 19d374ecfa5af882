"""A clock for tests: time passes only when somebody sleeps, and then something may happen."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from tests.beads.strategies import NOW


class Virtual:
    """A clock that stands still until it is told, or somebody sleeps.

    Attributes:
        elapsed: the seconds slept so far.
        moment: what the wall clock says.
        meanwhile: what happens in the world during each sleep.
    """

    def __init__(self, moment: datetime = NOW) -> None:
        self.elapsed = 0.0
        self.moment = moment
        self.meanwhile: Callable[[], object] = lambda: None

    def now(self) -> datetime:
        return self.moment

    def monotonic(self) -> float:
        return self.elapsed

    def sleep(self, seconds: float) -> None:
        self.elapsed += seconds
        self.moment += timedelta(seconds=seconds)
        self.meanwhile()
