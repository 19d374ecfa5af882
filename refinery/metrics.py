"""What the merge queue has done in a stretch of time: how fast, how dear, and how often for nothing. Pure.

Everything follows from the requests that ended in it and the verdicts that are stored on them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from beads.model import Bead
from refinery.queue import outcomes
from refinery.verdicts import FlakeRate, flake_rate


@dataclass(frozen=True)
class Metrics:
    """What the queue has done.

    Attributes:
        since: from when on; when the first of these requests came, if that was later.
        until: until when.
        landed: how many requests landed.
        convicted: how many were sent back because the gate failed with them.
        sent_back: how many were sent back, for whatever reason.
        withdrawn: how many ended otherwise.
        runs: how many runs of the gate were spent on all of them.
        bound: the fewest runs per landing that any scheme can do with at this failure rate, where a run tells no more
            than good from bad; None when nothing was decided.
        waits: for how many seconds each that landed had waited, in ascending order.
        flakes: how many runs failed for nothing.
    """

    since: datetime
    until: datetime
    landed: int
    convicted: int
    sent_back: int
    withdrawn: int
    runs: int
    bound: float | None
    waits: tuple[float, ...]
    flakes: FlakeRate

    @property
    def hours(self) -> float:
        """How long it was."""
        return (self.until - self.since).total_seconds() / 3600

    @property
    def per_hour(self) -> float | None:
        """Landings per hour; None of no time."""
        return self.landed / self.hours if self.hours > 0 else None

    @property
    def failing(self) -> float | None:
        """The share of those that the gate decided that it convicted."""
        decided = self.landed + self.convicted
        return self.convicted / decided if decided else None

    @property
    def sent_back_share(self) -> float | None:
        """The share of those that landed or were sent back that were sent back."""
        ended = self.landed + self.sent_back
        return self.sent_back / ended if ended else None

    @property
    def runs_per_landing(self) -> float | None:
        """Runs of the gate for each that landed; None when none did."""
        return self.runs / self.landed if self.landed else None

    def wait(self, share: float) -> float | None:
        """For how long, in seconds, at most that share of those that landed had waited; None when none did."""
        return quantile(self.waits, share)


def metrics(ended: Iterable[Bead], since: datetime, until: datetime) -> Metrics:
    """What the queue has done.

    Args:
        ended: the merge requests that ended in that time; others are left out.
        since: from when on.
        until: until when.
    """
    found = [b for b in ended if b.merge and b.closed_at and since <= b.closed_at <= until]
    landed = [bead for bead in found if bead.outcome == "landed"]
    sent_back = sum(bead.outcome == "rejected" for bead in found)
    runs = sum(bool(evidence.gate) for bead in found for evidence in bead.evidence)
    convicted = sum(outcomes(found))
    waits = sorted((b.closed_at - b.created_at).total_seconds() for b in landed if b.closed_at)
    return Metrics(
        since=max(since, min((bead.created_at for bead in found), default=since)),
        until=until,
        landed=len(landed),
        convicted=convicted,
        sent_back=sent_back,
        withdrawn=len(found) - len(landed) - sent_back,
        runs=runs,
        bound=per_landing(convicted / (len(landed) + convicted)) if landed else None,
        waits=tuple(max(0.0, wait) for wait in waits),
        flakes=flake_rate(found),
    )


def per_landing(rate: float) -> float:
    """The fewest runs per landing when that share fails: the entropy of each change, borne by those that land."""
    if not 0 < rate < 1:
        return 0.0
    return -(rate * math.log2(rate) + (1 - rate) * math.log2(1 - rate)) / (1 - rate)


def quantile(values: Sequence[float], share: float) -> float | None:
    """The smallest of the ascending ``values`` that at least that share of them does not exceed; None without any."""
    return values[max(0, math.ceil(share * len(values)) - 1)] if values else None
