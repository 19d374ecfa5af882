"""A graph of beads like that of a real project, as large as wanted, the same for the same seed.

It comes in clusters of :data:`CLUSTER` beads: an epic with children, molecules with steps and criteria, and single
tasks and bugs. Beads wait for earlier ones of their cluster, now and then for one of another cluster, and each cluster
ends with a release that waits for many. About 60 of 100 are closed, the older ones rather than the newer; some are
deferred, some held. Beads are made when they are asked for, so that a million of them need no memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from random import Random

from beads import Bead, Comment, Criterion, Dependency, Lease, Operation, Store
from beads.ops import Create
from benchmarks.common import Watch, progress

CLUSTER = 25
BATCH = 10_000
"""How many beads are created in one transaction."""

BEGIN = datetime(2025, 1, 1, tzinfo=UTC)

_CLOSED_SHARE = 0.6
_WORDS = """
    add fix parse write read cache index token slug router header retry timeout merge queue lease worker branch
    commit tree gate test flaky report error message option command output table page link image upload session
    login password schema migration column query plan batch stream buffer encode decode unicode date zone invoice
"""
_TEXT = Random(0).choices(_WORDS.split(), k=100_000)
_LABELS = ("api", "cli", "docs", "ui", "storage", "perf", "security", "tests")


def beads(count: int, seed: int = 0) -> Iterator[Bead]:
    """The first ``count`` beads; each depends on earlier ones only."""
    clusters = range(-(-count // CLUSTER))
    return islice((bead for number in clusters for bead in _cluster(number, len(clusters), seed)), count)


def fill(store: Store, count: int, seed: int = 0) -> float:
    """Create them, in transactions of :data:`BATCH`; returns the seconds that the transactions took."""
    made, coming, watch = 0, beads(count, seed), Watch()
    while batch := [*islice(coming, BATCH)]:
        with watch:
            operations: list[Operation] = [Create(bead=bead) for bead in batch]
            store.commit("planner", operations)
        made += len(batch)
        progress(f"created {made:,} of {count:,} beads")
    return watch.seconds


def name(number: int, place: int) -> str:
    """The id of a bead by its place in its cluster; the epic is at 0."""
    return f"bt-{number:06x}{place:02}" if place else f"bt-{number:06x}"


def _cluster(number: int, clusters: int, seed: int) -> Iterator[Bead]:
    chance = Random(f"{seed}:{number}")
    # The oldest are nearly all closed, the newest hardly any; the mean is the share that was asked for.
    closed = chance.random() < 1.5 * _CLOSED_SHARE - (2 * _CLOSED_SHARE - 0.6) * number / clusters
    when = BEGIN + timedelta(minutes=number)
    yield _bead(chance, number, 0, when, closed, "epic", ())
    for place in range(1, 13):
        kind = chance.choices(("task", "bug", "feature"), (6, 3, 1))[0]
        yield _bead(chance, number, place, when, closed, kind, (_part(name(number, 0)), *_waits(chance, number, place)))
    for place in (13, 18):
        yield from _molecule(chance, number, place, when, closed)
    yield _bead(chance, number, 23, when, closed, "task", ())
    fan_in = tuple(Dependency(on=name(number, place)) for place in (*range(1, 13), 13, 18, 23))
    yield _bead(chance, number, 24, when, closed, "task", fan_in)


def _molecule(chance: Random, number: int, place: int, when: datetime, closed: bool) -> Iterator[Bead]:
    """A molecule and four steps in a chain, sealed."""
    root = name(number, place)
    yield _bead(chance, number, place, when, closed, "molecule", ()).sealed()
    for step in range(1, 5):
        before = (Dependency(on=name(number, place + step - 1)),) if step > 1 else ()
        bead = _bead(chance, number, place + step, when, closed, "step", (_part(root), *before))
        check = Criterion(run=f"pytest -q tests/test_{_TEXT[number % len(_TEXT)]}.py")
        yield bead.evolve(criteria=(check,)).sealed()


def _part(parent: str) -> Dependency:
    return Dependency(on=parent, type="parent-child")


def _waits(chance: Random, number: int, place: int) -> Iterator[Dependency]:
    if place > 1 and chance.random() < 0.4:
        yield Dependency(on=name(number, chance.randrange(1, place)))
    if number and chance.random() < 0.05:
        yield Dependency(on=name(chance.randrange(number), 24))
    if number and chance.random() < 0.05:
        yield Dependency(on=name(chance.randrange(number), 23), type="related")


def _bead(
    chance: Random, number: int, place: int, when: datetime, closed: bool, kind: str, needs: tuple[Dependency, ...]
) -> Bead:
    bead = Bead(
        id=name(number, place),
        title=_text(chance, chance.randrange(3, 9)),
        issue_type=kind,
        priority=chance.choices(range(5), (1, 4, 10, 4, 1))[0],
        description=_text(chance, chance.randrange(5, 60)),
        labels=tuple(sorted(chance.sample(_LABELS, chance.choice((0, 0, 1, 1, 2, 3))))),
        created_at=when + timedelta(seconds=place),
        created_by=f"person{chance.randrange(20)}",
        updated_at=when + timedelta(seconds=place),
        dependencies=needs,
        comments=tuple(_comment(chance, place, when, n) for n in range(chance.choice((0, 0, 0, 0, 1, 2)))),
    )
    return _closed(bead, when) if closed else _alive(chance, bead, when)


def _closed(bead: Bead, when: datetime) -> Bead:
    outcome = "landed" if bead.issue_type == "molecule" else "done"
    end = when + timedelta(days=3)
    return bead.evolve(status="closed", outcome=outcome, close_reason="works now", closed_at=end, updated_at=end)


def _alive(chance: Random, bead: Bead, when: datetime) -> Bead:
    """Of those that are not closed some are deferred, and of those that are free some are held."""
    dice = chance.random()
    if bead.issue_type in ("task", "bug") and dice < 0.05:
        return bead.evolve(status="deferred", defer_until=when + timedelta(days=3650))
    if bead.issue_type in ("task", "bug") and dice < 0.08 and not bead.needs:
        worker, until = f"worker{chance.randrange(30)}", when + timedelta(days=3650)
        lease = Lease(worker=worker, epoch=1, site="bench", since=when, until=until)
        return bead.evolve(status="in_progress", assignee=worker, epoch=1, lease=lease)
    return bead


def _comment(chance: Random, place: int, when: datetime, number: int) -> Comment:
    author = f"person{chance.randrange(20)}"
    return Comment(id=f"{place:02}{number:02}", author=author, text=_text(chance, 15), created_at=when)


def _text(chance: Random, words: int) -> str:
    # A piece of one long text: to choose every word would take longer than to store it.
    first = chance.randrange(len(_TEXT) - words)
    return " ".join(_TEXT[first : first + words])
