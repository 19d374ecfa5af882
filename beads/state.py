"""Where a bead stands, as a value; ``beads/graph.py`` finds it out."""

from __future__ import annotations

from typing import Literal, NamedTuple

Kind = Literal["closed", "deferred", "running", "queued", "blocked", "waiting", "needs_person", "ready"]


class State(NamedTuple):
    """Where a bead stands and who acts next, with the reason in plain words.

    Attributes:
        kind: ``ready`` a worker may take it; ``running`` its worker acts; ``queued`` the Refinery acts;
            ``blocked`` it waits for other beads; ``waiting`` for the rest of its molecule, or for somebody to speak;
            ``deferred`` for a date; ``needs_person`` for a person; ``closed`` for nobody.
        reason: one line for a person.
        waits_for: the beads it waits for, where it does.
    """

    kind: Kind
    reason: str
    waits_for: tuple[str, ...] = ()
