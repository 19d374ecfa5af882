"""Rings in a graph: groups of things that wait for each other. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from beads.ids import natural


def rings(starts: Iterable[str], after: Callable[[str], Sequence[str]]) -> list[list[str]]:
    """The groups in which each waits, in the end, for each of the others, in the order of their ids.

    One that waits for itself is such a group, too. Takes time in proportion to what there is (Tarjan, "Depth-first
    search and linear graph algorithms", SIAM J. Comput. 1, 1972), and no recursion: chains may be long.

    Args:
        starts: where to begin to look.
        after: what one waits for; asked of each once.
    """
    order: dict[str, int] = {}
    lowest: dict[str, int] = {}
    group: list[str] = []
    placed: set[str] = set()
    itself: set[str] = set()
    found: list[list[str]] = []

    def enter(one: str) -> tuple[str, Iterator[str]]:
        order[one] = lowest[one] = len(order)
        group.append(one)
        targets = after(one)
        itself.update({one}.intersection(targets))
        return one, iter(targets)

    for start in starts:
        path = [] if start in order else [enter(start)]
        while path:
            here, left = path[-1]
            target = next(left, None)
            if target is None:
                path.pop()
                lowest.update({above: min(lowest[above], lowest[here]) for above, _ in path[-1:]})
                if lowest[here] == order[here]:
                    ring = [group.pop()]
                    while ring[-1] != here:
                        ring.append(group.pop())
                    placed.update(ring)
                    found += [sorted(ring, key=natural)] if len(ring) > 1 or here in itself else []
            elif target not in order:
                path.append(enter(target))
            elif target not in placed:
                lowest[here] = min(lowest[here], order[target])
    return sorted(found, key=lambda ring: natural(ring[0]))
