"""Rings: what waits, in the end, for itself, in groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hypothesis import given
from hypothesis import strategies as st

from beads.rings import rings

_few = st.sampled_from("abcdef")
_graphs = st.dictionaries(_few, st.lists(_few, max_size=3, unique=True))


def reached(graph: Mapping[str, Sequence[str]], start: str) -> set[str]:
    found: set[str] = set()
    stack = [start]
    while stack:
        new = [target for target in graph.get(stack.pop(), ()) if target not in found]
        found.update(new)
        stack += new
    return found


@given(_graphs, st.permutations("abcdef"))
def test_those_are_in_one_ring_that_reach_each_other(graph: Mapping[str, Sequence[str]], starts: Sequence[str]) -> None:
    below = {one: reached(graph, one) for one in "abcdef"}
    wanted = {
        tuple(o for o in "abcdef" if o in below[one] and one in below[o]) for one in "abcdef" if one in below[one]
    }
    asked: list[str] = []

    def after(one: str) -> Sequence[str]:
        asked.append(one)
        return graph.get(one, ())

    found = [tuple(ring) for ring in rings(starts, after)]
    assert found == sorted(wanted)
    assert len(asked) == len(set(asked))


def test_only_what_is_reached_from_the_starts_is_looked_at() -> None:
    graph = {"a": ["b"], "b": ["c"], "c": ["b"], "d": ["d"]}
    assert rings(["a"], lambda one: graph.get(one, [])) == [["b", "c"]]


def test_a_long_chain_is_no_deeper() -> None:
    chain = {str(n): [str(n + 1)] for n in range(50_000)} | {"50000": ["49999"]}
    assert rings(["0"], lambda one: chain[one]) == [["49999", "50000"]]
