"""The inbox: everything that needs a person, from whichever role, in one list. Pure; nothing of it is stored.

It is what ``town inbox``, ``town status`` and ``town up`` say, and the same on any clone, but for what only a running
town can know: that its own disk is full. What waits for nothing but time is put off, and not in it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from beads import graph
from beads.index import Reader
from beads.model import Bead
from beads.rings import rings
from beads.spending import books
from beads.store import one_line
from refinery import queue
from roles import routing
from roles.needs import Exhibit as Exhibit
from roles.needs import Item as Item
from roles.needs import Kind as Kind
from roles.needs import Way as Way
from roles.needs import held_back, need, tail, take_away, unable
from roles.settings import Settings

_NEVER = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Later:
    """Something that goes on by itself: which bead, why it does not yet, and from when on it does."""

    bead_id: str
    title: str
    reason: str
    until: datetime


@dataclass(frozen=True)
class Inbox:
    """What needs a person, the most urgent first, and what only waits for a time."""

    items: tuple[Item, ...]
    later: tuple[Later, ...]


def inbox(snapshot: Reader, now: datetime, settings: Settings | None = None) -> Inbox:
    """Everything that needs a person at ``now``, by a snapshot of the store.

    What stops the queue comes first; then it goes by priority, and what has waited longest before the rest. Without
    ``settings`` nothing is said of what only those tell: that nobody is there who can do something, or may.
    """
    branch = settings.town.branch if settings else "main"
    stuck = (need(snapshot, bead, _reason(snapshot, bead, now), branch) for bead in _stuck(snapshot, now))
    found = [*_standstill(snapshot), *_rings(snapshot, now), *stuck]
    later = _parked(snapshot, now)
    if settings is not None:
        asks, waits = _routed(snapshot, now, settings)
        found, later = [*found, *asks], [*later, *waits]
    # What a whole waits for in vain, each of its parts does, too: that is one thing to see to.
    once = {(item.kind, item.bead_id, item.mark): item for item in found}
    return Inbox(tuple(sorted(once.values(), key=_urgency)), tuple(sorted(later, key=lambda one: one.until)))


def about(found: Inbox, view: graph.View, bead: Bead) -> list[Item]:
    """The items that are about a bead, about what it is a part of, or about its merge requests."""
    related = {bead.id, graph.molecule_of(view, bead).id, *(request.id for request in view.merges(bead.id))}
    return [item for item in found.items if item.bead_id in related]


def key(item: Item) -> str:
    """What tells an item from every other one, also of the same kind about the same bead at another time."""
    digest = hashlib.sha256(item.mark.encode("utf-8", "surrogateescape")).hexdigest()[:16]
    return f"{item.kind} {item.bead_id} {digest}"


def facts(item: Item) -> dict[str, object]:
    """An item for programs. Moments are in UTC, as RFC 3339 has them."""
    return {
        "kind": item.kind,
        "id": item.bead_id,
        "title": item.title,
        "priority": item.priority,
        "since": _moment(item.since),
        "reason": item.reason,
        "evidence": [{"what": one.what, "text": one.text, "at": _moment(one.at)} for one in item.evidence],
        "ways": [{"command": way.command, "does": way.does} for way in item.ways],
    }


def _moment(when: datetime | None) -> str | None:
    return when.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z") if when else None


def _urgency(item: Item) -> tuple[bool, int, datetime, str]:
    return item.kind != "queue", item.priority, item.since or _NEVER, graph.natural(item.bead_id)


def _stuck(snapshot: Reader, now: datetime) -> list[Bead]:
    # To look at each takes questions of its own, to which this one must have been answered.
    return list(snapshot.standing("needs_person", now))


def _reason(snapshot: Reader, bead: Bead, now: datetime) -> str:
    return graph.state(snapshot, bead, now).reason


def _standstill(snapshot: Reader) -> Iterator[Item]:
    """That nothing can land."""
    found = queue.standstill(snapshot)
    if found is None:
        return
    request, said = found
    judged = [e for bead in graph.queue(snapshot) for e in bead.evidence if e.gate and e.verdict in ("fail", "error")]
    last = max(judged, key=lambda e: e.at, default=None)
    evidence = (Exhibit(one_line(f"{last.subject}: {last.detail}"), tail(last.output), last.at),) if last else ()
    yield Item(
        kind="queue",
        bead_id=request.id,
        title=request.title,
        priority=request.priority,
        since=said.at,
        reason=one_line(f"nothing can land: {said.detail}"),
        evidence=evidence,
        ways=(
            Way("", said.output or "Mend that; landing goes on by itself."),
            Way("town queue", "shows what waits, and the whole log"),
            Way(f"town queue retry {request.id}", "has it tried again, once that is mended"),
            Way(f"town queue drop {request.id} --reason WHY", "takes the first one out"),
        ),
        mark=said.detail,
    )


def _rings(snapshot: Reader, now: datetime) -> Iterator[Item]:
    """Beads that wait for each other, an item for each such ring."""
    waits = snapshot.waits(now)

    def after(bead_id: str) -> list[str]:
        # Of what does not stand as blocked the index does not keep what it waits for.
        bead = None if bead_id in waits else snapshot.get(bead_id)
        return [target.id for target in graph.blockers(snapshot, bead)] if bead else waits.get(bead_id, [])

    for ring in rings(sorted(waits, key=graph.natural), after):
        members = [bead for one in ring if (bead := snapshot.get(one)) is not None]
        first = next((bead for bead in members if bead.id in waits), None)
        if first is None:
            # All of it is put off, or in somebody's hands.
            continue
        edges = [(bead, target, held_back(snapshot, bead, target)) for bead in members for target in after(bead.id)]
        within = frozenset(ring)
        inner = [(bead, target, found) for bead, target, found in edges if target in within]
        yield Item(
            kind="cycle",
            bead_id=first.id,
            title=first.title,
            priority=min(bead.priority for bead in members),
            since=max(bead.updated_at for bead in members),
            reason=one_line(f"{', '.join(ring)} wait for each other" if ring[1:] else f"{first.id} waits for itself"),
            evidence=tuple(Exhibit(f"{bead.id} needs {target}", bead.title) for bead, target, _ in inner),
            ways=tuple(dict.fromkeys(take_away(*found) for _, _, found in inner if found)),
            mark=" ".join(ring),
        )


def _parked(snapshot: Reader, now: datetime) -> list[Later]:
    """What is put off because a provider would not serve it."""
    found = []
    for bead in list(snapshot.standing("deferred", now)):
        step, until = graph.next_step(snapshot, bead), graph.deferred_until(snapshot, bead)
        if step is not None and graph.parked(step) is not None and until is not None:
            found.append(Later(bead.id, bead.title, _reason(snapshot, bead, now), until))
    return found


def _routed(snapshot: Reader, now: datetime, settings: Settings) -> tuple[list[Item], list[Later]]:
    """What of the ready work nobody may begin without a person, and what nobody may begin before some time."""
    known = books(snapshot, now)
    asks, waits = [], []
    for bead in list(snapshot.ready(now)):
        if not graph.workable(snapshot, bead):
            continue
        match routing.of(settings, known, snapshot, bead, now):
            case routing.Ask(reason, command):
                asks.append(unable(bead, reason, command))
            case routing.Wait(reason, until) if until is not None:
                waits.append(Later(bead.id, bead.title, reason, until))
            case _:
                pass
    return asks, waits


def for_programs(found: Inbox) -> Mapping[str, object]:
    """The whole inbox for programs."""
    later = [
        {"id": one.bead_id, "title": one.title, "reason": one.reason, "until": _moment(one.until)}
        for one in found.later
    ]
    return {"items": [facts(item) for item in found.items], "put_off": later}
