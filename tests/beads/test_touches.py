"""What molecules touch, and who waits for whom because of that."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beads import Bead
from beads.errors import InvalidDocument
from beads.plan import Plan, pour, read_plan
from beads.touches import PATTERN_MAX, awaited, ordered, overlap, put_after
from tests.world import git, make_repository

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def plan(*molecules: tuple[str, Sequence[str], Sequence[str]]) -> Plan:
    """A plan of molecules, each with what it touches and what it needs."""
    tables = (
        f"[[molecules]]\nid = {json.dumps(name)}\ntitle = 't'\ngoal = 'g'\ntouches = {json.dumps(touches)}\n"
        f"needs = {json.dumps(needs)}\ncriteria = [{{ run = 'true' }}]\n"
        for name, touches, needs in molecules
    )
    return read_plan(("plan = 'p'\n" + "".join(tables)).encode(), "plan.toml")


def needs(found: Plan) -> Mapping[str, Sequence[str]]:
    return {molecule.id: molecule.needs for molecule in found.molecules}


# ── Patterns ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "one, other, met",
    [
        ("a.py", "a.py", True),
        ("a.py", "b.py", False),
        ("src", "src/a.py", True),
        ("src/", "src/deep/a.py", True),
        ("src", "srcs/a.py", False),
        ("./src/a.py", "src//a.py", True),
        ("*.py", "a.py", True),
        ("*.py", "src/a.py", False),
        ("**/*.py", "src/deep/a.py", True),
        ("**/*.py", "a.py", True),
        ("src/**", "src/a/b", True),
        ("src/**", "tests/**", False),
        ("src/*.py", "src/a*", True),
        ("src/*.py", "src/*.md", False),
        ("a/**/z", "a/b/c/z", True),
        ("a/**/z", "b/**/z", False),
        ("t?st", "test", True),
        ("[abc].py", "a.py", True),
        ("[!]]x", "ax", True),
        (r"\*.py", "a.py", True),
        ("**", "anything/at/all", True),
        ("*a*b", "ba", False),
    ],
)
def test_patterns_that_can_mean_one_path(one: str, other: str, met: bool) -> None:
    assert overlap(one, other) is met
    assert overlap(other, one) is met


NAMES = st.sampled_from(["a", "b", "ab", "*", "a*", "*b", "?", "**"])
PATHS = st.lists(st.sampled_from(["a", "b", "ab", "ba"]), min_size=1, max_size=3)


@given(st.lists(NAMES, min_size=1, max_size=3), st.lists(NAMES, min_size=1, max_size=3), PATHS)
def test_what_both_match_is_never_missed(one: list[str], other: list[str], path: list[str]) -> None:
    if _matches(one, path) and _matches(other, path):
        assert overlap("/".join(one), "/".join(other))


def _matches(pattern: Sequence[str], path: Sequence[str]) -> bool:
    """Whether a pattern matches a path, or a directory that it is in."""
    if not pattern:
        return True
    if pattern[0] == "**":
        return any(_matches(pattern[1:], path[n:]) for n in range(len(path) + 1))
    return bool(path) and fnmatch.fnmatchcase(path[0], pattern[0]) and _matches(pattern[1:], path[1:])


def test_a_path_that_git_matches_with_both_is_never_missed(tmp_path: Path) -> None:
    names = ["a.py", "src/a.py", "src/deep/b.py", "src/deep/c.md", "tests/test_a.py", "docs/a.md"]
    repository = make_repository(tmp_path / "globs", dict.fromkeys(names, "x\n"))
    patterns = ["*.py", "**/*.py", "src", "src/*", "src/**", "src/**/c.*", "?.py", "[a-b].py", "docs/*.md", "**/a*"]
    found = {p: set(git(repository, "ls-files", "--", f":(glob){p}").split()) for p in patterns}
    assert all(found.values())
    for one in patterns:
        for other in patterns:
            if found[one] & found[other]:
                assert overlap(one, other), (one, other)


@pytest.mark.parametrize("pattern", ["/etc/passwd", "../x", "a/../b", "", " ", "a\nb", "x" * (PATTERN_MAX + 1)])
def test_a_pattern_that_cannot_be(pattern: str) -> None:
    with pytest.raises(InvalidDocument) as caught:
        plan(("a", [pattern], []))
    assert caught.value.key == "molecules[0].touches[0]"


# ── Order ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_touches_the_same_comes_one_after_the_other() -> None:
    found = ordered(plan(("a", ["text.py"], []), ("b", ["router.py"], []), ("c", ["text.py", "docs/**"], [])))
    assert needs(found) == {"a": (), "b": (), "c": ("a",)}


def test_a_chain_has_no_more_needs_than_it_takes() -> None:
    found = ordered(plan(*((name, ["one.py"], []) for name in "abcd")))
    assert needs(found) == {"a": (), "b": ("a",), "c": ("b",), "d": ("c",)}


def test_whoever_touches_all_waits_for_all_that_touch_a_part() -> None:
    found = ordered(plan(("a", ["src/a.py"], []), ("b", ["src/b.py"], []), ("c", ["src"], [])))
    assert needs(found) == {"a": (), "b": (), "c": ("b", "a")}


def test_an_order_that_is_written_wins() -> None:
    found = ordered(plan(("a", ["x"], ["c"]), ("b", [], ["a"]), ("c", ["x"], []), ("d", ["x"], ["b", "bt-1"])))
    assert needs(found) == {"a": ("c",), "b": ("a",), "c": (), "d": ("b", "bt-1")}


def test_an_opposite_order_through_others_makes_no_ring() -> None:
    written = plan(("a", ["x"], ["m"]), ("b", ["x"], []), ("m", [], ["b"]), ("c", ["x"], []))
    assert needs(ordered(written)) == {"a": ("m",), "b": (), "m": ("b",), "c": ("b", "a")}


def test_what_touches_nothing_waits_for_nobody() -> None:
    written = plan(("a", [], []), ("b", [], []), ("c", ["x"], []))
    assert ordered(written) == written


MOLECULES = st.lists(
    st.tuples(st.sets(st.sampled_from(["a", "a/b", "c", "**/b"])), st.sets(st.integers(0, 7))), min_size=1, max_size=8
)


@given(MOLECULES)
def test_no_ring_nothing_lost_and_everything_that_clashes_ordered(drawn: list[tuple[set[str], set[int]]]) -> None:
    # A rank of its own for each, so that what is written is no ring, and goes against the order of the file, too.
    size = len(drawn)
    rank = {n: (n * 5) % size if size % 5 else n for n in range(size)}
    rows = [
        (f"m{n}", sorted(touches), sorted(f"m{o}" for o in after if o < size and rank[o] < rank[n]))
        for n, (touches, after) in enumerate(drawn)
    ]
    written = plan(*rows)
    found = ordered(written)
    after = needs(found)
    TopologicalSorter(after).prepare()
    assert all(after[name][: len(before)] == tuple(before) for name, _, before in rows)
    assert ordered(found) == found
    waits = {name: awaited(after, name) for name in after}
    for one in found.molecules:
        for other in found.molecules:
            if one is not other and any(overlap(x, y) for x in one.touches for y in other.touches):
                assert one.id in waits[other.id] or other.id in waits[one.id]


def test_who_waits_already_waits_for_nobody_twice() -> None:
    found = {"a": [], "b": ["a"], "c": ["b"], "d": ["x"]}
    put_after(found, "c", ["a", "c", "d", "x", "d"])
    assert found == {"a": [], "b": ["a"], "c": ["b", "d"], "d": ["x"]}
    put_after(found, "a", ["c"])
    assert found["a"] == []


# ── What it is no part of ────────────────────────────────────────────────────────────────────────────────────


def test_what_is_touched_changes_no_bead() -> None:
    nothing: dict[str, Bead] = {}
    with_it, without = (pour(plan(("a", touches, [])), "bt", "me", NOW, nothing.get) for touches in (["x/**"], []))
    assert with_it == without
