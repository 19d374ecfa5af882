"""The gate: what must pass before a tree may become main, and what one run of it says.

The definition always comes from main's ``town.toml``, never from the candidate, so that no branch can change how
it is judged. Every doubtful case fails closed: no gate, a command that cannot run, a time-out, a death by signal
and zero tests collected, or none that passed, are errors, which land nothing and convict nobody.
"""

from __future__ import annotations

import hashlib
import json
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from beads.clock import Clock
from beads.errors import NotFound
from beads.model import Evidence, Fact, milliseconds
from beads.toml import loads, validate
from refinery.containment import Kind, Reach, Sandbox
from refinery.git import Git
from refinery.processes import JOB, MARKER, THIS_MACHINE, Exit, Job, Machine, shell
from refinery.redaction import NO_SECRETS, Secrets

Verdict = Literal["pass", "fail", "error"]

SETTINGS_FILE = "town.toml"


class Gate(Fact):
    """The ``[gate]`` table of ``town.toml``.

    Attributes:
        commands: shell lines, run one after the other in a clean work tree; all must exit with 0.
        timeout: seconds for each of them.
        slots: how many candidates are tested at the same time.
        keep: paths that survive the cleaning between runs, such as caches.
        environment: names of variables the commands may see besides the usual ones.
        network: whether the commands have the network; without it they can still talk to each other.
        protected: patterns of paths, as Git's ``:(glob)`` has them. A branch that changes one of them needs a
            person's approval of it. This file is always among them: it says what is run, and what contains it.
    """

    commands: tuple[str, ...] = Field(min_length=1)
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

    def digest(self) -> str:
        """Names this definition: a verdict under another one, or with another network, says nothing."""
        return _digest([self.commands, self.timeout, self.network])


def gate_of(git: Git, commit: str) -> Gate:
    """The gate that ``commit``'s ``town.toml`` defines.

    Raises:
        NotFound: the commit has no such file, or the file has no ``[gate]``.
        InvalidDocument: the table is wrong; names line and key.
    """
    found = git.run("show", f"{commit}:{SETTINGS_FILE}", ok=(0, 128))
    if found.status:
        raise NotFound(
            f"main has no {SETTINGS_FILE}, so there is no gate", "Run `town init`, or commit the file to main."
        )
    text = found.out.encode("utf-8", "surrogateescape")
    table = loads(text, SETTINGS_FILE).get("gate")
    if not isinstance(table, dict):
        raise NotFound(f"main's {SETTINGS_FILE} has no [gate]", 'Add one: [gate] commands = ["make test"].')
    return validate(Gate, table, text, SETTINGS_FILE, ("gate",))


def environment_digest(environ: Mapping[str, str], sandbox: Kind) -> str:
    """Names the surroundings a verdict holds in: the machine's kind, the sandbox's, every variable the commands see."""
    seen = sorted((name, value) for name, value in environ.items() if name not in (MARKER, JOB))
    return _digest([platform.system(), platform.machine(), platform.release(), sandbox, seen])


def _digest(value: object) -> str:
    return "sha256:" + hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:32]


_NO_TESTS = re.compile(
    r"(?m)^(?:=+ )?no tests ran\b"  # pytest
    r"|^collected 0 items\s*$"
    r"|^Ran 0 tests in "  # unittest
    r"|^\?\s+\S+\s+\[no test files\]"  # go
    r"|^ok\s+\S+\s+\S+\s+\[no tests to run\]"
    r"|^running 0 tests$"  # cargo
    r"|^No tests found"  # jest
    r"|^[#\u2139] tests 0$"  # node
)
_SOME_TESTS = re.compile(
    r"(?m)\b[1-9]\d* (?:passed|failed)\b"
    r"|^collected [1-9]"
    r"|^Ran [1-9]\d* tests? in "
    r"|^(?:ok|FAIL|---)\s+\S+(?!.*\[no tests to run\])"
    r"|^running [1-9]\d* tests?$"
    r"|^Tests:\s+.*[1-9]\d* total"
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
    _runner(r"node\s+--test", r"^(?:#|\u2139) pass [1-9]"),
)


def collected_nothing(output: str) -> bool:
    """Whether a test runner says that it found no tests at all; silence is not a claim.

    Knows pytest, unittest, go test, cargo test, jest and node's runner.
    """
    return bool(_NO_TESTS.search(output)) and not _SOME_TESTS.search(output)


def tells_of_no_test(command: str, output: str) -> bool:
    """Whether a command that runs tests ended without a word of any that passed, as after an ``exit(0)`` in one.

    Of a command that hides its test runner, such as a script, nobody can tell.
    """
    return any(name.search(command) and not passed.search(output) for name, passed in _RUNNERS)


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
    return "fail", f"exit {exit.code}, expected {expected}" if expected else f"exit {exit.code}"


@dataclass
class GateRun:
    """One run of the gate on one candidate, going on in a process of its own; :meth:`poll` moves it along.

    Attributes:
        commit: what is tested.
        tree: its tree, which is what the verdict is about.
        directory: the clean work tree it is checked out in.
        secrets: what must not be in its log, nor in the evidence.
        machine: where its commands run.
    """

    gate: Gate
    commit: str
    tree: str
    directory: Path
    environ: Mapping[str, str]
    sandbox: Sandbox
    log: Path
    marker: str
    clock: Clock
    by: str
    secrets: Secrets = NO_SECRETS
    machine: Machine = THIS_MACHINE
    _job: Job | None = None
    _verdict: Evidence | None = None
    _next: int = 0
    _seconds: float = 0.0

    def poll(self) -> Evidence | None:
        """Start the next command when the last one passed; the verdict once there is one. Never blocks."""
        while self._verdict is None:
            if self._job is None:
                self._job = self._start(self.gate.commands[self._next])
            exit = self._job.poll()
            if exit is None:
                return None
            self._seconds += exit.seconds
            verdict, detail = judge(exit, self.gate.commands[self._next])
            self._next += 1
            if verdict != "pass" or self._next == len(self.gate.commands):
                self._verdict = self._evidence(verdict, detail, exit)
            self._job = None
        return self._verdict

    def cancel(self) -> None:
        """Kill what runs; no verdict."""
        if self._job is not None:
            self._job.cancel(grace=0.5)

    def _start(self, command: str) -> Job:
        log = self.log.with_name(f"{self.log.name}-{self._next + 1}.log")
        return self.machine.start(
            shell(command),
            cwd=self.directory,
            environ=self.environ,
            log=log,
            timeout=self.gate.timeout,
            marker=self.marker,
            clock=self.clock,
            within=self.sandbox.around(Reach((self.directory,), network=self.gate.network), self.directory),
            secrets=self.secrets,
        )

    def _evidence(self, verdict: Verdict, detail: str, exit: Exit) -> Evidence:
        at: datetime = milliseconds(self.clock.now())
        command = self.gate.commands[self._next - 1]
        return Evidence(
            id=_digest([self.commit, self.marker, at.isoformat(), self._next])[7:19],
            subject=f"gate: {command}",
            verdict=verdict,
            detail=detail,
            tree=self.tree,
            commit=self.commit,
            gate=self.gate.digest(),
            environment=environment_digest(self.environ, self.sandbox.kind),
            exit=exit.code,
            seconds=round(self._seconds, 3),
            output=exit.output if verdict != "pass" else "",
            digest=exit.digest,
            by=self.by,
            at=at,
        )
