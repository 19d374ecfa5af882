"""One run of the gate on one candidate: what it starts, when it is decided, and the evidence it leaves."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from beads.clock import Clock
from beads.errors import TownError
from beads.model import Evidence, milliseconds
from refinery.containment import Reach, Sandbox
from refinery.failures import trimmed
from refinery.gate import Gate, Verdict, digest_of, environment_digest, judge
from refinery.processes import THIS_MACHINE, Exit, Job, Machine, shell
from refinery.redaction import NO_SECRETS, Secrets
from refinery.slots import Place

OUTPUT_MAX = 8000
"""How many characters of what a run printed are stored, where it did not pass; the log has all of it."""

_GRACE = 0.5
_HEAD_MAX, _TAIL_MAX = 1 << 18, 1 << 22


@dataclass
class GateRun:
    """One run of the gate on one candidate, going on in processes of its own; :meth:`poll` moves it along.

    One after the other, the commands share a work tree, and each finds what those before it left. In parallel, all are
    started at once, each in a work tree of its own; the first one that does not pass decides, and ends the others.

    Attributes:
        commit: what is tested.
        tree: its tree, which is what the verdict is about.
        places: the clean work trees it is checked out in: one, or in parallel one for each command.
        refused: why it cannot be checked out in any, though main can; empty when it can.
        environ: what the commands see, besides what their place has of its own.
        log: the beginning of the names of its logs.
        secrets: what must not be in its log, nor in the evidence.
        machine: where its commands run.
    """

    gate: Gate
    commit: str
    tree: str
    places: Sequence[Place]
    environ: Mapping[str, str]
    sandbox: Sandbox
    log: Path
    marker: str
    clock: Clock
    by: str
    secrets: Secrets = NO_SECRETS
    machine: Machine = THIS_MACHINE
    refused: str = ""
    _jobs: dict[int, Job] = field(default_factory=dict)
    _verdict: Evidence | None = None
    _next: int = 0
    _began: float | None = None
    _whole: bool = True

    def poll(self) -> Evidence | None:
        """Start what can be started; the verdict once there is one. Does not wait, but for those that it ends."""
        if self.refused and self._verdict is None:
            self._end("error", f"cannot be checked out: {self.refused}", 0)
        while self._verdict is None:
            try:
                self._start_next()
            except (TownError, OSError) as error:
                self._end("error", f"could not be started: {error}", self._next)
                break
            ended = [(number, exit) for number, job in self._jobs.items() if (exit := job.poll()) is not None]
            if not ended:
                return None
            for number, exit in ended:
                self._take(number, exit)
        return self._verdict

    def cancel(self) -> None:
        """Kill what runs; no verdict."""
        for job in self._jobs.values():
            job.stop(_GRACE)
        for job in self._jobs.values():
            self._whole &= _whole(job.wait())
        self._jobs.clear()
        if self._whole and self._began is not None:
            for place in self.places:
                place.settle()
        self._began = None

    def _start_next(self) -> None:
        if self._began is None:
            self._began = self.clock.monotonic()
        while self._next < len(self.gate.commands) and len(self._jobs) < len(self.places):
            self._jobs[self._next] = self._start(self._next)
            self._next += 1

    def _start(self, number: int) -> Job:
        place = self.places[number % len(self.places)]
        reach = Reach((place.directory,), network=self.gate.network)
        return self.machine.start(
            shell(self.gate.commands[number]),
            cwd=place.directory,
            environ={**self.environ, **place.environ},
            log=self.log.with_name(f"{self.log.name}-{number + 1}.log"),
            timeout=self.gate.timeout,
            marker=self.marker,
            clock=self.clock,
            within=self.sandbox.around(reach, place.directory),
            secrets=self.secrets,
        )

    def _take(self, number: int, exit: Exit) -> None:
        """What the end of a command means for the whole."""
        if self._verdict is not None:
            return
        del self._jobs[number]
        verdict, detail = judge(exit, self.gate.commands[number])
        self._whole &= _whole(exit)
        if verdict != "pass":
            self._end(verdict, detail, number, exit)
        elif not self._jobs and self._next == len(self.gate.commands):
            self._end(verdict, detail, None, exit)

    def _end(self, verdict: Verdict, detail: str, number: int | None, exit: Exit | None = None) -> None:
        """Decide: by the command of that number, or without one, because all have passed."""
        seconds = 0.0 if self._began is None else self.clock.monotonic() - self._began
        self.cancel()
        commands = self.gate.commands if number is None else self.gate.commands[number : number + 1]
        at = milliseconds(self.clock.now())
        self._verdict = Evidence(
            id=digest_of([self.commit, self.marker, at.isoformat(), self._next])[7:19],
            subject=f"gate: {'; '.join(commands)}",
            verdict=verdict,
            detail=detail,
            tree=self.tree,
            commit=self.commit,
            gate=self.gate.digest(),
            environment=environment_digest(self.environ, self.sandbox.kind),
            exit=exit.code if exit else None,
            seconds=round(seconds, 3),
            output=self._output(exit) if exit and verdict != "pass" else "",
            digest=exit.digest if exit else "",
            by=self.by,
            at=at,
        )

    def _output(self, exit: Exit) -> str:
        """What a command printed, as far as it tells of failures; the same in whichever slot it ran."""
        output = _read(exit.log) or exit.output
        for place in self.places:
            output = output.replace(f"{place.directory}/", "")
        return trimmed(output, OUTPUT_MAX)


def _whole(exit: Exit) -> bool:
    """Whether a command has come to its end by itself, or when it was asked to."""
    return exit.kind == "exited" or (exit.kind == "cancelled" and exit.signal != signal.SIGKILL)


def _read(log: Path) -> str:
    """The whole log, or of a very long one the beginning and the end."""
    try:
        with log.open("rb") as file:
            head = file.read(_HEAD_MAX + _TAIL_MAX)
            size = log.stat().st_size
            if size <= len(head):
                return head.decode(errors="replace")
            file.seek(size - _TAIL_MAX)
            return f"{head[:_HEAD_MAX].decode(errors='replace')}\n{file.read().decode(errors='replace')}"
    except OSError:
        return ""
