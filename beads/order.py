"""An order that keeps to what needs what. Pure."""

from __future__ import annotations

import heapq
from collections.abc import Mapping

from beads.model import Bead


def after(found: Mapping[str, Bead], needs: Mapping[str, set[str]]) -> list[Bead]:
    """These beads, each after those of them that it needs, and otherwise in the order they are in."""
    places = {bead_id: place for place, bead_id in enumerate(found)}
    freed: dict[str, list[str]] = {}
    for bead_id, needed in needs.items():
        for need in needed:
            freed.setdefault(need, []).append(bead_id)
    left = {bead_id: len(needed) for bead_id, needed in needs.items()}
    free = [places[bead_id] for bead_id in found if not left.get(bead_id)]
    ids = list(found)
    placed: dict[str, Bead] = {}
    while free:
        here = ids[heapq.heappop(free)]
        placed[here] = found[here]
        for bead_id in freed.get(here, ()):
            left[bead_id] -= 1
            if not left[bead_id]:
                heapq.heappush(free, places[bead_id])
    # What is left is in a ring, which only a damaged store has: any order is as good.
    return list((placed | dict(found)).values())
