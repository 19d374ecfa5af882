"""What runners print when tests fail, as recorded from runs of them: which tests those are, and what is left of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refinery.failures import failing, trimmed

RECORDED = Path(__file__).parent / "outputs"

SLUGS = "tests/test_slugs.py"
PYTEST = (f"{SLUGS}::test_words[a b-a-b]", f"{SLUGS}::TestDates::test_day", f"{SLUGS}::test_stored")

# Of each runner the tests that failed, and a few words that tell why one of them did.
SAID: dict[str, tuple[tuple[str, ...], str]] = {
    "pytest": (PYTEST, "E       ValueError: no such day: 31"),
    "pytest-v": (PYTEST, "E       ValueError: no such day: 31"),
    "pytest-no-summary": (("test_stored", "test_words[a b-a-b]", "TestDates.test_day"), "RuntimeError: no database"),
    "pytest-collection": (("test_broken.py",), "No module named 'no_such_module'"),
    "unittest": (
        (
            "unittest.loader._FailedTest.test_gone",
            "test_slugs.Slugs.test_error",
            "test_slugs.Slugs.test_several (number=2)",
            "test_slugs.Slugs.test_words",
        ),
        "AssertionError: 'a b' != 'a-b'",
    ),
    "go": (
        (
            "example.org/slugs/boom TestBoom",
            "example.org/slugs/broken [build failed]",
            "example.org/slugs/calc TestWords/a_b",
        ),
        "broken_test.go:6:2: undefined: nothing",
    ),
    "go-v": (("example.org/slugs/calc TestWords/a_b",), 'got "a b", want "a-b"'),
    "cargo": (("tests::day", "tests::words"), "panicked at src/lib.rs:22:9"),
    "jest": (
        (
            "t/slugs.jest.test.js > slugs › of words",  # noqa: RUF001 - It is what jest prints.
            "t/slugs.jest.test.js > slugs › of dates › with a day",  # noqa: RUF001
            "t/gone.jest.test.js > Test suite failed to run",
        ),
        "Cannot find module './no-such-module'",
    ),
    "vitest": (
        ("t/slugs.vitest.test.js > slugs > of words", "t/slugs.vitest.test.js > slugs > of dates > with a day"),
        "expected 'a b' to be 'a-b'",
    ),
    "mocha": (("a day", "slugs > of words"), "Expected values to be strictly equal"),
    "node-tap": (("slugs > of words", "a day"), "error: 'no such day: 31'"),
    "node-spec": (("t/slugs.node.test.js > of words", "t/slugs.node.test.js > a day"), "Error: no such day: 31"),
    "junit-node": (("test.of words", "test.a day"), "'a b' !== 'a-b'"),
    "junit-pytest": (
        (
            "tests.test_slugs.test_words[a b-a-b]",
            "tests.test_slugs.TestDates.test_day",
            "tests.test_slugs.test_stored",
        ),
        "ValueError: no such day: 31",
    ),
}

NOISE = "\n".join(f"compiling the {number}th of many files" for number in range(3000))


def recorded(name: str) -> str:
    return (RECORDED / f"{name}.txt").read_text()


def test_each_record_is_read() -> None:
    assert {path.stem for path in RECORDED.iterdir()} == {*SAID}


@pytest.mark.parametrize("runner", SAID)
def test_what_failed_is_found_and_stays(runner: str) -> None:
    tests, why = SAID[runner]
    output = recorded(runner)
    assert failing(output) == tests
    assert failing(f"\x1b[31m{output}\x1b[0m".replace("\n", "\r\n")) == tests, "as it is on a terminal"
    left = trimmed(f"{NOISE}\n{output}\nmake: *** [Makefile:2: test] Error 1\n", 3000)
    assert len(left) <= 3000
    assert failing(left) == tests
    assert why in left
    assert left.startswith("… 30"), "nothing is left of what says nothing"
    assert left.endswith("make: *** [Makefile:2: test] Error 1")


@pytest.mark.parametrize("runner", ["pytest", "unittest", "go", "node-tap"])
def test_of_many_failures_the_first_ones_are_told_whole(runner: str) -> None:
    output = "\n".join([recorded(runner)] * 300)
    assert len(output) > 100_000
    left = trimmed(output, 4000)
    assert len(left) <= 4000
    assert set(failing(left)) == set(SAID[runner][0])


def test_what_nobody_knows_ends_in_its_end() -> None:
    left = trimmed(f"{NOISE}\nmake: *** [Makefile:2: test] Error 1\n", 500)
    assert failing(left) == ()
    assert left.startswith("… ")
    assert left.endswith("the 2999th of many files\nmake: *** [Makefile:2: test] Error 1")
    assert trimmed("short\n", 500) == "short"
    assert trimmed("", 500) == ""


def test_several_runners_in_one_output() -> None:
    output = "\n".join([recorded("pytest"), recorded("node-spec"), recorded("go")])
    assert failing(output) == PYTEST + SAID["go"][0] + SAID["node-spec"][0]


@settings(max_examples=40)
@given(
    parts=st.lists(st.sampled_from([*map(recorded, SAID), NOISE[:4000]]), max_size=6),
    junk=st.text(max_size=200),
    room=st.integers(500, 6000),
)
def test_trimming_never_makes_up_a_failure(parts: list[str], junk: str, room: int) -> None:
    output = "\n".join([*parts, junk])
    left = trimmed(output, room)
    assert len(left) <= max(room, 0)
    assert trimmed(left, room) == left, "twice is as good as once"


HOSTILE = {
    "underscores": "= FAILURES =\n" + ("_ " * 400 + "x\n") * 3000,
    "colons": ("a::" * 300 + "FAILED \n") * 3000,
    "spaces": ("a::b FAILED" + " " * 900 + "x\n") * 3000,
    "explanations without an end": "not ok 1 - a\n---\n" * 30_000,
    "a line that is too long": "= FAILURES =\n____ a" + " _" * 1_000_000,
    "packages that are not built": "FAIL\tx [build failed]\n" * 100_000,
    "parts": "".join(f"--- FAIL: T{n}/a/b/c ({n})\n" for n in range(30_000)),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_no_output_takes_long(case: str) -> None:
    # A moment each; what is not linear in the length would take many minutes.
    assert 0 < len(trimmed(HOSTILE[case], 8000)) <= 8000
