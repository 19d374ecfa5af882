"""The changes that several operations make to a bead. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from beads.draft import Draft
from beads.fencing import Context
from beads.model import Bead, Evidence, Outcome
from beads.proof import united


def put(draft: Draft, context: Context, old: Bead | None, new: Bead) -> Bead:
    """Write ``new`` when it says anything that ``old`` does not."""
    if new == old:
        return new
    stamped = new if new.updated_at >= context.now else new.evolve(updated_at=context.now)
    draft.put(stamped)
    return stamped


def closed(bead: Bead, outcome: Outcome, reason: str, context: Context, more: Iterable[Evidence] = ()) -> Bead:
    """The bead as it is once it has ended; not written yet."""
    return bead.evolve(
        status="closed",
        outcome=outcome,
        close_reason=reason,
        closed_at=context.now,
        evidence=united(bead.evidence, more),
        lease=None,
    )


def give_back(draft: Draft, context: Context, molecule: Bead) -> Bead:
    """Let go of a molecule that is held, whatever becomes of it."""
    # Somebody may have put it off while it was worked on.
    status = "open" if molecule.status == "in_progress" else molecule.status
    return put(draft, context, molecule, molecule.evolve(lease=None, status=status, assignee=""))
