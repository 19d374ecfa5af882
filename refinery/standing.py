"""Where each merge request stands, why, and when it may land: the queue as a person looks at it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

from beads import graph, lineup
from beads.model import Bead, Evidence
from refinery.desk import opened_as
from refinery.eta import landings
from refinery.queue import outcomes
from refinery.train import failure_rate
from refinery.underway import NOTHING, Underway

Stands = Literal["landing", "testing", "aside", "halted", "waiting", "queued"]
"""``landing``: main is about to become it. ``testing``: a run of the gate is about it. ``aside``: the gate cannot
judge it, and the others go on. ``halted``: nothing can land without a person. ``waiting``: for a request that it
needs and that is not in the queue, for what becomes of one that it conflicts with, or for the forge. ``queued``: none
of these."""


@dataclass(frozen=True)
class Row:
    """A merge request.

    Attributes:
        request: its bead.
        place: its place in the queue, from 1 on.
        stands: where it stands.
        why: in one line.
        beside: the ids of those that are being tested together with it.
        since: since when it is being tested, or has stood so, as far as that is known.
        lands: in how many seconds it will have landed, if it is good: the earliest and the latest; None where that
            cannot be said.
    """

    request: Bead
    place: int
    stands: Stands
    why: str
    beside: tuple[str, ...] = ()
    since: datetime | None = None
    lands: tuple[float, float] | None = None


@dataclass(frozen=True)
class Measured:
    """What is known of how the gate behaves.

    Attributes:
        seconds: how long runs of it took.
        rate: how likely a request fails.
        slots: how many runs go on at once.
    """

    seconds: tuple[float, ...]
    rate: float
    slots: int


def measured(recent: Sequence[Bead], gate: str, slots: int) -> Measured:
    """What recent merge requests tell of the gate.

    Args:
        recent: those that ended last, and those that wait.
        gate: names the gate; how long another one took says nothing.
        slots: how many runs go on at once.
    """
    runs = (e for bead in recent for e in bead.evidence if e.gate == gate and e.verdict in ("pass", "fail"))
    newest = sorted(runs, key=lambda e: e.at)[-_RUNS_MAX:]
    return Measured(tuple(e.seconds for e in newest), failure_rate(outcomes(recent)), slots)


_RUNS_MAX = 50
_NAMED_MAX = 4


def rows(view: graph.View, underway: Underway = NOTHING) -> list[Row]:
    """The queue, in the order in which it is to land.

    Args:
        view: the beads.
        underway: what is known of what goes on in this clone, and is not in the store.
    """
    waiting = graph.queue(view)
    places = {bead.merge.molecule: place for place, bead in enumerate(waiting, start=1) if bead.merge}
    stopped = lineup.standstill(view, waiting)
    return [_row(view, bead, place, places, stopped, underway) for place, bead in enumerate(waiting, start=1)]


def estimated(found: Sequence[Row], known: Measured, now: datetime) -> list[Row]:
    """The same with when each lands, where that can be said: as if nothing were known yet of any of them."""
    line = [row for row in found if row.stands in ("landing", "testing", "queued")]
    if any(row.stands == "halted" for row in found):
        line = []
    begun = min((row.since for row in line if row.stands == "testing" and row.since), default=now)
    elapsed = max(0.0, (now - begun).total_seconds())
    lands = landings(len(line), known.seconds, known.rate, known.slots, elapsed)
    when = {row.request.id: at for row, at in zip(line, lands, strict=True)}
    return [replace(row, lands=when.get(row.request.id)) for row in found]


def _row(
    view: graph.View,
    bead: Bead,
    place: int,
    places: dict[str, int],
    stopped: tuple[Bead, Evidence] | None,
    underway: Underway,
) -> Row:
    row = Row(bead, place, "queued", _ahead(view, bead, place, places))
    run = next((run for run in underway.runs if bead.id in run.members), None)
    aside = lineup.aside(bead)
    missing = [need for need in graph.awaited(view, bead) if need not in places]
    if run is not None:
        beside = tuple(other for other in run.members if other != bead.id)
        return replace(row, stands="testing", why=_tested(beside), beside=beside, since=run.since)
    if aside is not None:
        return replace(row, stands="aside", why=aside.detail, since=aside.at)
    if stopped is not None:
        return replace(row, stands="halted", why=stopped[1].detail, since=stopped[1].at)
    if missing:
        return replace(row, stands="waiting", why=f"needs {', '.join(missing)}, not in the queue yet")
    if bead.id in underway.waiting:
        return replace(row, stands="waiting", why=underway.waiting[bead.id])
    if opened_as(bead):
        return replace(row, stands="waiting", why=f"is open as {opened_as(bead)}: it lands when it is merged there")
    if bead.merge and bead.merge.landing:
        return replace(row, stands="landing", why=f"is to land as {bead.merge.landing[:12]}")
    return row


def _tested(beside: Sequence[str]) -> str:
    more = f" and {len(beside) - _NAMED_MAX} more" if len(beside) > _NAMED_MAX else ""
    return f"with {', '.join(beside[:_NAMED_MAX])}{more}" if beside else "alone"


def _ahead(view: graph.View, bead: Bead, place: int, places: dict[str, int]) -> str:
    """Why it stands at its place: whom it comes after, and who has said so."""
    held = [f"{need} at place {places[need]}" for need in graph.awaited(view, bead) if need in places]
    bumped, again = lineup.last(bead, lineup.BUMP), lineup.last(bead, lineup.AGAIN)
    said = [
        f"after {', '.join(held)}" if held else "",
        f"put to the front by {bumped.by}" if bumped else "",
        f"tried again for {again.by}" if again else "",
        _verdicts(bead),
    ]
    return "; ".join(filter(None, said)) or ("is next" if place == 1 else "not tested yet")


def _verdicts(bead: Bead) -> str:
    """What the gate has said when it was the last one of a candidate."""
    last = max((e for e in bead.evidence if e.gate), key=lambda e: e.at, default=None)
    return f"the gate: {last.verdict}, {last.detail}" if last else ""
