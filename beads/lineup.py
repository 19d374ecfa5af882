"""The open merge requests in the order they are to land, and what was said of them beside the gate's verdicts. Pure.

What a person decides about a request, and what the Refinery finds that is no verdict, is evidence on the request like
any other: it says who, when and why, goes with the store to every clone, and is never taken away. These functions say
what it amounts to now.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Literal

from beads.ids import natural
from beads.model import Bead, Evidence
from beads.order import after
from beads.proof import following
from beads.view import View
from beads.waits import awaited

PATIENCE = timedelta(days=1)
"""How much later than another a merge request may have come, for each level of priority, and still go before it."""

BUMP = "to the front"
"""The subject of a person's word that a request is to be the next one."""

AGAIN = "once more"
"""The subject of a person's word that what could not be judged, or failed, before it is to be tried again."""

WITHDRAWN = "out of the queue"
"""The subject of a person's word that a request is not to land."""

ASIDE = "set aside"
"""The subject of the evidence that the others go on without a request, or that it is tried again."""

STANDS = "the queue"
"""The subject of the evidence that nothing can land without a person, or that something can again."""


def queue(view: View) -> list[Bead]:
    """The open merge requests in the order they are to land.

    By age, where a level of priority counts as much as a day of waiting: nobody is ever overtaken by what came more
    than four days later, unless a person has said so (:func:`bumped`). One whose molecule needs another's comes
    after it.
    """
    beads, needs = _open(view)
    first = _first(beads, needs)
    found = sorted(beads, key=lambda r: (first.get(r.id, len(first)), _due(r), r.priority, natural(r.id)))
    return after({request.id: request for request in found}, needs)


def bumped(view: View) -> set[str]:
    """The ids of the open requests that a person has put to the front, and of those in the queue that they need.

    The first one that was goes first, so that nobody is overtaken by what is put there later.
    """
    return set(_first(*_open(view)))


def _open(view: View) -> tuple[list[Bead], dict[str, set[str]]]:
    """The open requests, and which others of them each one comes after."""
    found = list(view.requests())
    owners = {request.merge.molecule: request.id for request in found if request.merge}
    needs = {r.id: {owners[need] for need in awaited(view, r) if owners.get(need, r.id) != r.id} for r in found}
    return found, needs


def _first(beads: Iterable[Bead], needs: Mapping[str, set[str]]) -> dict[str, int]:
    """The place of each request at the front."""
    said = [(mark.at, natural(bead.id), bead.id) for bead in beads if (mark := last(bead, BUMP)) is not None]
    found: dict[str, int] = {}
    for place, (_, _, bead_id) in enumerate(sorted(said)):
        stack = [bead_id]
        while stack:
            here = stack.pop()
            if here not in found:
                found[here] = place
                stack += needs[here]
    return found


def _due(request: Bead) -> float:
    return request.created_at.timestamp() + request.priority * PATIENCE.total_seconds()


def last(bead: Bead, subject: str) -> Evidence | None:
    """The newest evidence on a request of one of the subjects above."""
    return max((e for e in bead.evidence if e.subject == subject), key=lambda e: e.at, default=None)


def aside(bead: Bead) -> Evidence | None:
    """Why a request is set aside, if it is: neither the Refinery nor a person has had it tried again since."""
    found, again = last(bead, ASIDE), last(bead, AGAIN)
    if found is None or found.verdict != "error":
        return None
    return found if again is None or again.at < found.at else None


def withdrawn(requests: Sequence[Bead]) -> Evidence | None:
    """Who has withdrawn the last of a molecule's requests, and why; None when nobody has, or it was made again."""
    return last(requests[-1], WITHDRAWN) if requests and requests[-1].outcome == "cancelled" else None


def standstill(view: View, waiting: Sequence[Bead] | None = None) -> tuple[Bead, Evidence] | None:
    """Why nothing can land without a person, as far as a Refinery has said so, and the request that it was said of.

    It stands until that request is closed, until the Refinery says that something can land again, or until a person
    has a request tried again: then it is for the Refinery to say so anew.

    Args:
        view: the beads.
        waiting: the open requests in their order, for who has asked for them already.
    """
    said = [
        (bead, e)
        for bead in (queue(view) if waiting is None else waiting)
        for e in bead.evidence
        if e.subject in (STANDS, AGAIN)
    ]
    newest = max(said, key=lambda pair: pair[1].at, default=None)
    return newest if newest is not None and newest[1].verdict == "error" else None


def mark(
    bead: Bead,
    subject: str,
    verdict: Literal["pass", "error", "answered"],
    detail: str,
    by: str,
    now: datetime,
    output: str = "",
) -> Evidence:
    """Evidence of one of the subjects above for a request, later than all that it has."""
    key = f"{bead.id}\0{subject}\0{verdict}\0{detail}\0{by}\0{now.isoformat()}"
    found = Evidence(
        id=hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()[:12],
        subject=subject,
        verdict=verdict,
        detail=detail,
        output=output,
        by=by,
        at=now,
    )
    return following(bead, (found,))[0]
