"""Who acts, and whether a lease lets them (I2). Pure, apart from asking for signs of life."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import NamedTuple

from beads import graph, heartbeat
from beads.draft import Draft
from beads.errors import Fenced
from beads.model import Bead, Lease


class Context(NamedTuple):
    """Who acts, when, and where.

    Attributes:
        actor: who.
        now: when.
        site: the clone that is written in; empty when that is nobody's business, as in a test of one clone.
        renewed: says how much longer workers of other clones have asked for; asked only when it matters.
        lives: whether the holder of a lease is a living process of this clone; likewise.
    """

    actor: str
    now: datetime
    site: str = ""
    renewed: Callable[[], heartbeat.Renewed] = dict
    lives: Callable[[Lease], bool] = lambda _: False


def until(bead_id: str, lease: Lease, context: Context) -> datetime:
    """Until when a lease is good, by what it says and what its worker has said since; for ever while that one lives.

    A clock that was set, and a machine that slept, end no lease of a process that goes on.
    """
    if lease.until > context.now:
        return lease.until
    if context.lives(lease):
        return datetime.max.replace(tzinfo=UTC)
    return heartbeat.until(bead_id, lease, context.renewed())


def guard(draft: Draft, context: Context, bead_id: str, worker: str, epoch: int) -> tuple[Bead, Bead]:
    """The bead an operation is about and its molecule, if that worker still holds the lease (fencing).

    Two clones that could not see each other may have given the same epoch to workers of the same name. Which of
    them holds the lease is then told by the clone.

    Raises:
        Fenced: it does not.
    """
    bead = draft.need(bead_id)
    molecule = graph.molecule_of(draft, bead)
    lease = molecule.lease
    if lease and lease.clone and context.site and lease.clone != context.site and lease.worker == worker:
        raise Fenced(
            f"{worker} of this clone does not hold {molecule.id} under epoch {epoch}: "
            f"{lease.worker} of {lease.clone} holds it under epoch {lease.epoch}"
        )
    if lease is None or (lease.worker, lease.epoch) != (worker, epoch):
        now = (
            f"{lease.worker} holds it under epoch {lease.epoch}"
            if lease
            else f"nobody holds it, epoch {molecule.epoch}"
        )
        raise Fenced(f"{worker} no longer holds {molecule.id} under epoch {epoch}: {now}")
    return bead, molecule
