"""Time, as a value that is passed in: the one file that asks the operating system what time it is.

Everything below ``cli/`` takes a :class:`Clock`, so that a simulation can run on a virtual one.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol


def milliseconds(moment: datetime) -> datetime:
    """The moment in UTC, without what is finer than a millisecond: what the store keeps."""
    return moment.astimezone(UTC).replace(microsecond=moment.microsecond // 1000 * 1000)


class Clock(Protocol):
    """What the store and the roles need to know of time."""

    def now(self) -> datetime:
        """The wall clock, aware, in UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds that only grow, for measuring how long something takes."""
        ...

    def sleep(self, seconds: float) -> None:
        """Wait that many seconds."""
        ...


class SystemClock:
    """The real clock."""

    def now(self) -> datetime:
        """The wall clock, aware, in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds since an arbitrary point, never going back."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Block this thread that many seconds."""
        time.sleep(seconds)
