"""What a run's output says about what failed: the tests' names, and the lines that tell why. Pure.

Knows pytest, unittest, go test, cargo test, jest, vitest, mocha, node's runner, what speaks TAP, and JUnit's XML.
Of any other output it knows the end.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from html import unescape
from itertools import islice, pairwise
from typing import NamedTuple

_END_LINES = 5
"""How many lines at the end always stay: there runners, and what started them, say what it came to."""

_LINE_MAX = 1000
"""The longest line that is shown whole."""

_COLOUR = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\r(?=\n)")

_NOTHING = range(0)

_FAILURES_MAX = 2000
_BODY_MAX = 400


class Failure(NamedTuple):
    """Something that failed, and where the output says so.

    Attributes:
        test: the test's name, always the same for the same test; empty when it is named elsewhere, or is no test.
        head: the numbers of lines without which the rest cannot be understood.
        body: the lines that tell why.
    """

    test: str
    head: tuple[int, ...]
    body: range = _NOTHING


def failing(output: str) -> tuple[str, ...]:
    """The names of the tests that failed, in the order of the output; none where it does not tell."""
    return tuple(dict.fromkeys(failure.test for failure in _read(_lines(output)) if failure.test))


def trimmed(output: str, room: int) -> str:
    """The output with no more than what tells of failures, where it is longer than that many characters.

    What is left out is marked, and what is left is read by :func:`failing` as the whole is, as far as there is room.
    Where nothing is known about the output, it is the end that stays.
    """
    lines = _lines(output)
    if sum(len(line) + 1 for line in lines) <= room:
        return "\n".join(lines).strip("\n")
    short = [_short(line, room // 4) for line in lines]
    failures = _read(lines)
    last = range(max(0, len(lines) - _END_LINES), len(lines))
    # Of many failures the first ones: half to name them and for what reasons hang on, half for the reasons.
    kept = _within(short, [failure.head for failure in failures if not failure.body], room // 4)
    kept |= _within(short, [failure.head for failure in failures if failure.body], room // 2 - _size(short, kept))
    kept |= _within(short, [(n,) for n in reversed(last)], room // 8)
    explained = [failure.body for failure in failures if {*failure.head} <= kept]
    wanted = ([n for n in body if n not in kept] for body in explained or [range(len(lines))])
    bodies = [body for body in wanted if body]
    for number, body in enumerate(bodies):
        share = max(0, room - _size(short, kept)) // (len(bodies) - number)
        kept |= _ends(short, body, share, both=explained != [])
    return _joined(short, sorted(kept))[:room]


def _lines(output: str) -> list[str]:
    plain = _COLOUR.sub("", output)
    if "<testcase" in plain:
        # Some write the whole of it as one line.
        plain = re.sub(r"><(?=/?test)", ">\n<", plain)
    return [_short(line, _LINE_MAX) for line in plain.split("\n")]


def _read(lines: Sequence[str]) -> list[Failure]:
    """What failed. What tests print is not ours: nothing here may take long, whatever it is."""
    return [failure for reader in _READERS for failure in islice(reader(lines), _FAILURES_MAX)]


# ── Trimming ─────────────────────────────────────────────────────────────────────────────────────────────────

_MARK = 32
"""About how many characters it takes to say that lines are left out."""


def _short(line: str, most: int) -> str:
    return line if len(line) <= most else f"{line[: most * 2 // 3]} … {line[-most // 3 + 3 :]}"


def _size(lines: Sequence[str], kept: Iterable[int]) -> int:
    """How many characters these lines take, with what marks the gaps between them."""
    order = sorted(kept)
    gaps = sum(after - before > 1 for before, after in pairwise([-1, *order, len(lines)]))
    return sum(len(lines[n]) + 1 for n in order) + gaps * _MARK


def _within(lines: Sequence[str], groups: Iterable[Sequence[int]], room: int) -> set[int]:
    """As many of these groups of lines as there is room for, first come, first served, and each of them whole."""
    kept: set[int] = set()
    for group in groups:
        new = {*group} - kept
        room -= sum(len(lines[n]) + 1 + _MARK * (n - 1 not in kept) for n in new)
        if room < 0:
            break
        kept |= new
    return kept


def _ends(lines: Sequence[str], body: Sequence[int], room: int, both: bool) -> set[int]:
    """As much of some lines as there is room for, from their end, and where ``both``, half of it from the beginning."""
    if sum(len(lines[n]) + 1 for n in body) + _MARK <= room:
        return set(body)
    found = _within(lines, [(n,) for n in body], room // 2) if both else set[int]()
    left = room - sum(len(lines[n]) + 1 for n in found) - 2 * _MARK
    for n in reversed(body):
        left -= len(lines[n]) + 1
        if left < 0 or n in found:
            break
        found.add(n)
    return found


def _joined(lines: Sequence[str], order: Sequence[int]) -> str:
    parts: list[str] = []
    for before, after in pairwise([-1, *order, len(lines)]):
        missing = after - before - 1
        if missing:
            parts.append(f"… {missing} {'line' if missing == 1 else 'lines'} left out …")
        if after < len(lines):
            parts.append(lines[after])
    return "\n".join(parts).strip("\n")


# ── Reading ──────────────────────────────────────────────────────────────────────────────────────────────────


def _until(lines: Sequence[str], start: int, end: re.Pattern[str]) -> range:
    """The lines from ``start`` on to the first one that matches, and not too many of them."""
    last = min(len(lines), start + _BODY_MAX)
    return range(start, next((n for n in range(start, last) if end.match(lines[n])), last))


def _wholes(names: Iterable[str], between: str) -> set[str]:
    """The names of what has parts, where a part's name is that of the whole, and more."""
    parts = [name.split(between) for name in names]
    return {between.join(part[:n]) for part in parts for n in range(1, len(part))}


_PYTEST_SECTION = re.compile(r"=+ (.+?) =+$")
_PYTEST_BLOCK = re.compile(r"_+ (?:ERROR (?:at (?:setup|teardown) of|collecting) )?(\S.*?) _+$")
_PYTEST_SUMMARY = "short test summary info"
_PYTEST_OTHER = re.compile(r"[A-Z]+ |… \d+ lines? left out …$")
_PYTEST_NAMED = re.compile(r"(?:FAILED|ERROR) ([^[(\s][^[]*?(?:\[.*?\])?)(?: - .*)?$")
_PYTEST_TOLD = re.compile(
    r"(?:\[gw\d+\] \[ *\d+%\] (?:FAILED|ERROR) )?([^\s:]+::.*?)(?: (?:FAILED|ERROR) +\[ *\d+%\])?$"
)


def _pytest(lines: Sequence[str]) -> Iterator[Failure]:
    section, opened = "", 0
    named, told, blocks = list[Failure](), list[Failure](), list[Failure]()
    for at, line in enumerate(lines):
        if found := _PYTEST_SECTION.match(line):
            section, opened = found[1], at
        elif section == _PYTEST_SUMMARY and (found := _PYTEST_NAMED.match(line)):
            named.append(Failure(found[1], (opened, at)))
        elif section == _PYTEST_SUMMARY and not _PYTEST_OTHER.match(line):
            section = ""
        elif section in ("FAILURES", "ERRORS") and (found := _PYTEST_BLOCK.match(line)):
            blocks.append(Failure(found[1], (opened, at), _until(lines, at + 1, _PYTEST_END)))
        elif "::" in line and ("FAILED " in line or "ERROR " in line) and (found := _PYTEST_TOLD.match(line.rstrip())):
            told.append(Failure(found[1], (at,)))
    names = named or told
    yield from names
    yield from (block._replace(test="" if names else block.test) for block in blocks)


_PYTEST_END = re.compile(f"(?:{_PYTEST_SECTION.pattern})|(?:{_PYTEST_BLOCK.pattern})")

_UNITTEST_LINE = re.compile(r"={70}$")
_UNITTEST_NAMED = re.compile(r"(?:FAIL|ERROR): (\S+)(?: \(([\w.<>]+)\))?(.*)$")
_UNITTEST_END = re.compile(r"={70}$|Ran \d+ tests? in ")


def _unittest(lines: Sequence[str]) -> Iterator[Failure]:
    for at, (line, following) in enumerate(pairwise(lines)):
        if _UNITTEST_LINE.match(line) and (found := _UNITTEST_NAMED.match(following)):
            name, where, more = found[1], found[2] or "", found[3]
            # From Python 3.11 on, what is in brackets has the name as well.
            whole = where if not where or where.rpartition(".")[2] == name else f"{where}.{name}"
            yield Failure((whole or name) + more, (at, at + 1), _until(lines, at + 2, _UNITTEST_END))


_GO_NAMED = re.compile(r"\s*--- FAIL: (\S+) \(")
_GO_PACKAGE = re.compile(r"FAIL\t(\S+)(?:\t| \[(.+)\])")
_GO_END = re.compile(r"\s*--- |=== |FAIL$|FAIL\t|ok  \t|\?   \t|# \S+")
_GO_BUILD = re.compile(r"# (\S+)(?: \[\S+\])?$")
_GO_RUN = re.compile(r"=== (?:RUN|CONT|NAME)\s+(\S+)")


def _go(lines: Sequence[str]) -> Iterator[Failure]:
    pending: list[tuple[int, str]] = []
    failed: set[str] = set()
    builds: dict[str, int] = {}
    for at, line in enumerate(lines):
        if found := _GO_BUILD.match(line):
            builds[found[1].removesuffix("_test")] = at
        elif found := _GO_NAMED.match(line):
            pending.append((at, found[1]))
        elif found := _GO_PACKAGE.match(line):
            if found[2]:
                yield _go_unbuilt(lines, builds.get(found[1]), at, found[1], found[2])
            yield from _go_tests(lines, pending, found[1], at)
            failed |= {name for _, name in pending}
            pending = []
    yield from _go_tests(lines, pending, "", None)
    failed |= {name for _, name in pending}
    for at, line in enumerate(lines):
        # With -v, what a test says comes before what became of it.
        if failed and (found := _GO_RUN.match(line)) and found[1] in failed:
            body = _until(lines, at + 1, _GO_END)
            yield Failure("", (), range(at, body.stop) if body else _NOTHING)


def _go_tests(
    lines: Sequence[str], named: Sequence[tuple[int, str]], package: str, end: int | None
) -> Iterator[Failure]:
    # Of a test with parts it is the parts that have failed, and they come right after it.
    wholes, places = _wholes((name for _, name in named), "/"), {name: at for at, name in named}
    for at, name in named:
        if name not in wholes:
            around = [places[whole] for whole in _wholes([name], "/") if whole in places]
            head = (*around, at) if end is None else (*around, at, end)
            yield Failure(f"{package} {name}".strip(), head, _until(lines, at + 1, _GO_END))


def _go_unbuilt(lines: Sequence[str], start: int | None, at: int, package: str, why: str) -> Failure:
    body = _until(lines, start + 1, _GO_END) if start is not None else _NOTHING
    return Failure(f"{package} [{why}]", (at,) if start is None else (start, at), body)


_CARGO_NAMED = re.compile(r"(?:test )?(\S.*?) (?:\.\.\.|---) FAILED$")
_CARGO_BLOCK = re.compile(r"---- (.+) stdout ----$")
_CARGO_END = re.compile(r"---- .+ stdout ----$|failures:$|test result: ")


def _cargo(lines: Sequence[str]) -> Iterator[Failure]:
    for at, line in enumerate(lines):
        if line.endswith(" FAILED") and (found := _CARGO_NAMED.match(line)):
            yield Failure(found[1], (at,))
        elif found := _CARGO_BLOCK.match(line):
            yield Failure(found[1], (at,), _until(lines, at + 1, _CARGO_END))


_JEST_FILE = re.compile(r"FAIL (?!\t)\s*(\S.*?)(?: \([\d.]+ m?s\))?$")
_JEST_NAMED = re.compile(r"  ● (?!Console$)(\S.*)$")
_JEST_END = re.compile(r"  ● |(?:PASS|FAIL) |Test Suites: |Summary of all failing tests$")


def _jest(lines: Sequence[str]) -> Iterator[Failure]:
    file, opened = "", 0
    for at, line in enumerate(lines):
        if found := _JEST_FILE.match(line):
            file, opened = found[1], at
        elif file and (found := _JEST_NAMED.match(line)):
            yield Failure(f"{file} > {found[1]}", (opened, at), _until(lines, at + 1, _JEST_END))


_VITEST_NAMED = re.compile(r" FAIL  (\S.*)$")
_VITEST_END = re.compile(r" FAIL  |⎯{3,}")


def _vitest(lines: Sequence[str]) -> Iterator[Failure]:
    for at, line in enumerate(lines):
        if found := _VITEST_NAMED.match(line):
            yield Failure(found[1], (at,), _until(lines, at + 1, _VITEST_END))


_MOCHA_NAMED = re.compile(r"  \d+\) (\S.*)$")
_MOCHA_FAILING = re.compile(r"\s+\d+ failing$")


def _mocha(lines: Sequence[str]) -> Iterator[Failure]:
    start = next((at for at, line in enumerate(lines) if _MOCHA_FAILING.match(line)), len(lines))
    for at in range(start, len(lines)):
        if not (found := _MOCHA_NAMED.match(lines[at])):
            continue
        # A title goes on over lines, one for each suite, until a colon ends it.
        titles, last = [found[1]], at
        while not titles[-1].endswith(":") and last + 1 < len(lines) and re.match(r"\s{7}\S", lines[last + 1]):
            last += 1
            titles.append(lines[last].strip())
        yield Failure(
            " > ".join(titles).removesuffix(":"), (start, *range(at, last + 1)), _until(lines, last + 1, _MOCHA_NAMED)
        )


_TAP_OPENED = re.compile(r"(\s*)# Subtest: (.*)$")
_TAP_FAILED = re.compile(r"(\s*)not ok \d+(?: -)? (.*)$")
_TAP_INDENT = 4
_TAP_WITHIN = " > "


def _tap(lines: Sequence[str]) -> Iterator[Failure]:
    found: list[Failure] = []
    around: list[tuple[int, str]] = []
    for at, line in enumerate(lines):
        if len(found) == _FAILURES_MAX:
            break
        if opened := _TAP_OPENED.match(line):
            around[len(opened[1]) // _TAP_INDENT :] = [(at, opened[2])]
        elif (failed := _TAP_FAILED.match(line)) and not re.search(r"# (?:TODO|SKIP)\b", line, re.IGNORECASE):
            over = around[: len(failed[1]) // _TAP_INDENT]
            name = _TAP_WITHIN.join([*(title for _, title in over), failed[2]])
            heads = [n for n, _ in around[: len(over) + 1]]
            found.append(Failure(name, (*heads, at), _yaml(lines, at + 1)))
    # Of a test with parts it is the parts that have failed.
    wholes = _wholes((failure.test for failure in found), _TAP_WITHIN)
    yield from (failure for failure in found if failure.test not in wholes)


def _yaml(lines: Sequence[str], start: int) -> range:
    """The lines of the explanation that a line of TAP may have."""
    if start < len(lines) and lines[start].strip() == "---":
        return _until(lines, start, re.compile(r"\s*\.\.\.$"))
    return _until(lines, start, re.compile(r"(?!\s*#)|\s*# Subtest: |# tests "))


_NODE_FAILING = "✖ failing tests:"
_NODE_PLACE = re.compile(r"test at (.+):\d+:\d+$")
_NODE_NAMED = re.compile(r"✖ (.+?)(?: \([\d.]+m?s\))?$")


def _node(lines: Sequence[str]) -> Iterator[Failure]:
    start = next((at for at, line in enumerate(lines) if line == _NODE_FAILING), len(lines))
    for at in range(start, len(lines) - 1):
        place, named = _NODE_PLACE.match(lines[at]), _NODE_NAMED.match(lines[at + 1])
        if place and named:
            yield Failure(f"{place[1]} > {named[1]}", (start, at, at + 1), _until(lines, at + 2, _NODE_PLACE))


_JUNIT_CASE = re.compile(r"\s*<testcase\b([^>]*[^/>])>")
_JUNIT_NAME = re.compile(r'\b(classname|name)="([^"]*)"')
_JUNIT_END = re.compile(r"\s*</?test(?:case|suite)|.*</testcase>")


def _junit(lines: Sequence[str]) -> Iterator[Failure]:
    for at, line in enumerate(lines):
        if not (found := _JUNIT_CASE.match(line)):
            continue
        body = _until(lines, at + 1, _JUNIT_END)
        text = [line[found.end() :], *(lines[n] for n in (*body, *range(body.stop, min(body.stop + 1, len(lines)))))]
        if any("<failure" in one or "<error" in one for one in text):
            named = {key: unescape(value) for key, value in _JUNIT_NAME.findall(found[1])}
            yield Failure(".".join(filter(None, (named.get("classname"), named.get("name")))), (at,), body)


_READERS: tuple[Callable[[Sequence[str]], Iterator[Failure]], ...] = (
    *(_pytest, _unittest, _go, _cargo, _jest, _vitest, _mocha, _tap, _node, _junit),
)
