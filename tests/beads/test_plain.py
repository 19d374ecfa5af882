"""Plain beads: what is written and read of them by hand is what the library for TOML writes and reads."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beads import plain
from beads.errors import InvalidDocument
from beads.model import Bead, Dependency, facts
from beads.toml import dumps, loads
from tests.beads.strategies import IDS, MOMENTS, NOW, WORDS, bead, beads, part_of

PLAIN = bead(
    "bt-1.2",
    title="move disc 7 from A to É",
    status="closed",
    outcome="done",
    priority=0,
    closed_at=NOW + timedelta(milliseconds=1),
    dependencies=part_of("bt-1", "bt-1.1"),
)

# Of few facts, of which each alone may be what is not plain.
simple = st.builds(
    bead,
    IDS,
    description=WORDS | st.just("plain"),
    updated_at=MOMENTS,
    dependencies=st.lists(
        st.builds(Dependency, on=IDS, type=st.sampled_from(["blocks", "parent-child"]), gate=st.just("")), max_size=2
    ).map(tuple),
)


@given(simple)
def test_a_simple_bead_is_written_and_read_as_the_library_does(one: Bead) -> None:
    data = dumps(facts(one))
    assert plain.written(one) in (None, data)
    assert plain.read(data) in (None, loads(data, "x"))


@settings(max_examples=20)
@given(beads())
def test_any_bead_is_written_and_read_as_the_library_does_or_not_at_all(one: Bead) -> None:
    data = dumps(facts(one))
    assert plain.written(one) in (None, data)
    assert plain.read(data) in (None, loads(data, "x"))


def test_an_ordinary_bead_is_plain() -> None:
    data = dumps(facts(PLAIN))
    assert plain.written(PLAIN) == data
    assert plain.read(data) == loads(data, "x")


@given(st.data())
def test_what_somebody_has_changed_is_read_as_the_library_does_or_not_at_all(data: st.DataObject) -> None:
    written = dumps(facts(PLAIN)).decode()
    at = data.draw(st.integers(0, len(written)))
    other = data.draw(st.sampled_from(['"', "\\", "\n", "\r\n", "\t", "\x00", "0", "9", " ", "a", "]", "}", ",", "#"]))
    text = f"{written[:at]}{other}{written[at + data.draw(st.integers(0, 2)) :]}".encode()
    try:
        expected = loads(text, "x")
    except InvalidDocument:
        assert plain.read(text) is None
    else:
        assert plain.read(text) in (None, expected)


@pytest.mark.parametrize(
    "text",
    ["a = 01\n", "a = 1\na = 2\n", "a = 1", "a = 2026-02-30 00:00:00+00:00\n", "a = 2026-02-03 24:00:00+00:00\n", "\n"],
)
def test_what_is_no_plain_toml_is_not_read(text: str) -> None:
    assert plain.read(text.encode()) is None
    assert plain.read(b"a = \xff\n") is None


def test_a_table_that_is_too_long_for_its_line_is_not_plain() -> None:
    def depends(length: int) -> Bead:
        return bead("a", dependencies=(Dependency(on="b" * length),))

    # In the line there are 33 characters beside the id.
    assert plain.written(depends(67)) == dumps(facts(depends(67)))
    assert plain.written(depends(68)) is None
