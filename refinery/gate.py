"""The gate: what must pass before a tree may become main, and what one run of it says.

The definition always comes from main's ``town.toml``, never from the candidate, so that no branch can change how
it is judged. Every doubtful case fails closed: no gate, a command that cannot run, a time-out, a death by signal, a
full disk and zero tests collected, or none that passed, are errors, which land nothing and convict nobody.
"""

from __future__ import annotations

import hashlib
import json
import platform
import re
from collections.abc import Mapping
from typing import Literal

from pydantic import Field, field_validator

from beads.errors import InvalidInput, NotFound
from beads.model import Fact
from beads.toml import loads, validate
from refinery.containment import Kind
from refinery.git import Git
from refinery.processes import JOB, MARKER, Exit
from refinery.sandbox import environment as allowed

Verdict = Literal["pass", "fail", "error"]

SETTINGS_FILE = "town.toml"

SLOT = "BEADTOWN_SLOT"
"""The variable with a number that no other command of a gate has at the same moment in this clone; for ports."""

OWN = frozenset({"TMPDIR", SLOT})
"""The variables that differ from slot to slot, and say nothing about the surroundings a verdict holds in."""


class Gate(Fact):
    """The ``[gate]`` table of ``town.toml``.

    Attributes:
        commands: shell lines, run one after the other in a clean work tree; all must exit with 0.
        parallel: whether they run at once instead, each in a clean work tree of its own.
        timeout: seconds for each of them.
        slots: how many candidates are tested at the same time.
        keep: paths that survive the cleaning between runs, such as caches.
        environment: names of variables the commands may see besides the usual ones.
        network: whether the commands have the network; without it they can still talk to each other.
        protected: patterns of paths, as Git's ``:(glob)`` has them. A branch that changes one of them needs a
            person's approval of it. This file is always among them: it says what is run, and what contains it.
    """

    commands: tuple[str, ...] = Field(min_length=1)
    parallel: bool = False
    timeout: float = Field(default=1800.0, gt=0, le=86_400)
    slots: int = Field(default=1, ge=1, le=64)
    keep: tuple[str, ...] = ()
    environment: tuple[str, ...] = ()
    network: bool = False
    protected: tuple[str, ...] = (SETTINGS_FILE,)

    @field_validator("protected")
    @classmethod
    def _inside(cls, protected: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in protected:
            if (
                not pattern.strip()
                or not pattern.isprintable()
                or pattern.startswith("/")
                or ".." in pattern.split("/")
            ):
                raise ValueError(f"{pattern!r} must be a path inside the repository")
        return protected if SETTINGS_FILE in protected else (SETTINGS_FILE, *protected)

    @field_validator("commands")
    @classmethod
    def _not_blank(cls, commands: tuple[str, ...]) -> tuple[str, ...]:
        if any(not command.strip() for command in commands):
            raise ValueError("a gate command is blank")
        return commands

    @field_validator("environment")
    @classmethod
    def _names(cls, environment: tuple[str, ...]) -> tuple[str, ...]:
        try:
            allowed({}, environment, {})
        except InvalidInput as error:
            raise ValueError(error.message) from error
        return environment

    @property
    def places(self) -> int:
        """How many work trees one run needs."""
        return len(self.commands) if self.parallel else 1

    def digest(self) -> str:
        """Names this definition: a verdict under another one says nothing.

        All counts that a run can see. Whether commands run at once does: they then do not see what the others leave
        behind. So does what is kept from one run to the next. How many candidates are tested at once does not, since
        each has its own place; nor does what is protected, which is looked at before anything is tested; nor do the
        names of variables, whose values are in :func:`environment_digest`.
        """
        return digest_of([self.commands, self.timeout, self.network, self.parallel, sorted(set(self.keep))])


def gate_of(git: Git, commit: str) -> Gate:
    """The gate that ``commit``'s ``town.toml`` defines.

    Raises:
        NotFound: the commit has no such file, or the file has no ``[gate]``.
        InvalidDocument: the table is wrong; names line and key.
    """
    found = git.file(commit, SETTINGS_FILE)
    if found is None:
        raise NotFound(
            f"main has no {SETTINGS_FILE}, so there is no gate", "Run `town init`, or commit the file to main."
        )
    text = found.encode("utf-8", "surrogateescape")
    table = loads(text, SETTINGS_FILE).get("gate")
    if not isinstance(table, dict):
        raise NotFound(f"main's {SETTINGS_FILE} has no [gate]", 'Add one: [gate] commands = ["make test"].')
    return validate(Gate, table, text, SETTINGS_FILE, ("gate",))


def environment_digest(environ: Mapping[str, str], sandbox: Kind) -> str:
    """Names the surroundings a verdict holds in: the machine's kind, the sandbox's, every variable the commands see.

    Not those that differ from run to run, or from slot to slot. Nor the versions of tools, because no list of them
    would be whole: who has them in a variable, such as the name of an image, names it in ``[gate] environment``.
    """
    seen = sorted((name, value) for name, value in environ.items() if name not in (MARKER, JOB, *OWN))
    return digest_of([platform.system(), platform.machine(), platform.release(), sandbox, seen])


def digest_of(value: object) -> str:
    """Names a value that JSON can say."""
    return "sha256:" + hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:32]


_NO_TESTS = re.compile(
    r"(?m)^(?:=+ )?no tests ran\b"  # pytest
    r"|^collected 0 items\s*$"
    r"|^Ran 0 tests in "  # unittest
    r"|^\?\s+\S+\s+\[no test files\]"  # go
    r"|^ok\s+\S+\s+\S+\s+\[no tests to run\]"
    r"|^running 0 tests$"  # cargo
    r"|^No tests found"  # jest
    r"|^No test files found"  # vitest
    r"|^\s+0 passing\b"  # mocha
    r"|^[#\u2139] tests 0$"  # node
)
_SOME_TESTS = re.compile(
    r"(?m)\b[1-9]\d* (?:passed|failed)\b"
    r"|^collected [1-9]"
    r"|^Ran [1-9]\d* tests? in "
    r"|^(?:ok|FAIL|---)\s+\S+(?!.*\[no tests to run\])"
    r"|^running [1-9]\d* tests?$"
    r"|^Tests:\s+.*[1-9]\d* total"
    r"|^\s+[1-9]\d* (?:passing|failing)\b"
    r"|^[#\u2139] tests [1-9]"
)


def _runner(name: str, passed: str) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """How a command names a test runner, and what that one says when a test has passed."""
    return re.compile(rf"(?:^|[\s;&|(/])(?:{name})(?=$|[\s;&|)])"), re.compile(passed, re.MULTILINE)


_RUNNERS = (
    # Very quiet, pytest says no more than how far it is.
    _runner(r"pytest|py\.test", r"\b[1-9]\d* passed\b|^[sFExX]*\.[.sFExX]* +\[ *\d+%\]"),
    _runner(r"-m\s+unittest", r"^Ran [1-9]\d* tests? in "),
    _runner(r"go\s+test", r"^ok\s+\S+\s(?!.*\[no tests to run\])"),
    _runner(r"cargo\s+test", r"^test result: ok\. [1-9]\d* passed\b"),
    _runner(r"jest", r"^Tests:.*\b[1-9]\d* passed\b"),
    _runner(r"vitest", r"^\s*Tests\s.*\b[1-9]\d* passed\b"),
    _runner(r"mocha", r"^\s+[1-9]\d* passing\b"),
    _runner(r"node\s+--test", r"^(?:#|\u2139) pass [1-9]"),
)


def collected_nothing(output: str) -> bool:
    """Whether a test runner says that it found no tests at all; silence is not a claim.

    Knows pytest, unittest, go test, cargo test, jest, vitest, mocha and node's runner.
    """
    return bool(_NO_TESTS.search(output)) and not _SOME_TESTS.search(output)


def tells_of_no_test(command: str, output: str) -> bool:
    """Whether a command that runs tests ended without a word of any that passed, as after an ``exit(0)`` in one.

    Of a command that hides its test runner, such as a script, nobody can tell.
    """
    return any(name.search(command) and not passed.search(output) for name, passed in _RUNNERS)


_NO_ROOM = re.compile(r"(?i)no space left on device|disk quota exceeded")
_NO_PROCESS = re.compile(r"(?m)\bfork: .*Resource temporarily unavailable|\bCannot fork\b")
_TIMES_OUT = re.compile(r"(?:^|[\s;&|(/])timeout\s")


def _trouble(exit: Exit, command: str) -> str:
    """Why a command that failed may have failed for nobody's fault, in words; empty when nothing says so."""
    if exit.code is not None and 128 < exit.code <= 128 + _SIGNALS_MAX:
        # So a shell says it of what it ran, and so is it of what was run without one.
        return f"killed by signal {exit.code - 128}"
    if exit.code == _TIMED_OUT and _TIMES_OUT.search(command):
        return "timed out"
    if _NO_ROOM.search(exit.output):
        return "there was no room on the disk"
    return "no more processes could be started" if _NO_PROCESS.search(exit.output) else ""


_SIGNALS_MAX = 31
_TIMED_OUT = 124


def judge(exit: Exit, command: str, expected: int = 0) -> tuple[Verdict, str]:
    """What the end of a command means, and why in a few words."""
    if exit.kind == "timeout":
        return "error", f"timed out after {exit.seconds:.0f} s"
    if exit.kind == "unrunnable":
        return "error", f"could not be run (exit {exit.code})"
    if exit.kind == "signalled":
        return "error", f"killed by signal {exit.signal}"
    if exit.kind == "cancelled":
        return "error", "was cancelled"
    if collected_nothing(exit.output):
        return "error", "no tests were collected"
    if exit.code == expected == 0 and tells_of_no_test(command, exit.output):
        return "error", "ended without a word of a test that passed"
    if exit.code == expected:
        return "pass", f"exit {exit.code}"
    trouble = _trouble(exit, command)
    if trouble:
        return "error", f"{trouble} (exit {exit.code})"
    return "fail", f"exit {exit.code}, expected {expected}" if expected else f"exit {exit.code}"
