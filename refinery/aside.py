"""The requests that are set aside, because the gate can judge main but not with them. Kept in the store."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from beads import graph, lineup
from beads.model import Bead, milliseconds
from beads.ops import Judge
from beads.store import Snapshot, Store


def put(store: Store, actor: str, request: Bead, branch: str) -> str:
    """Let the others go on; it is tried again when they have landed, and then a person is asked. Says so."""
    why = f"the gate can judge {branch}, but not with it"
    _say(store, actor, request, "error", why)
    return f"set {request.id} aside: {why}"


def those(store: Store, actor: str, snapshot: Snapshot, since: datetime) -> set[str]:
    """The ids of those that were set aside from ``since`` on, and have not been retried.

    The ones from before are tried again, which is stored: starting the Refinery again is how a person says that
    something was mended.
    """
    found = [(bead, why) for bead in graph.queue(snapshot) if (why := lineup.aside(bead)) is not None]
    for bead, why in found:
        if why.at < since:
            _say(store, actor, bead, "pass", "is tried again, as the Refinery was started again")
    return {bead.id for bead, why in found if why.at >= since}


def _say(store: Store, actor: str, request: Bead, verdict: Literal["pass", "error"], why: str) -> None:
    found = lineup.mark(request, lineup.ASIDE, verdict, why, actor, milliseconds(store.clock.now()))
    what = "set aside" if verdict == "error" else "try again"
    store.commit(actor, [Judge(id=request.id, evidence=found)], f"{what} {request.id}: {why}")
