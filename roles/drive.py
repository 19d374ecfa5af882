"""One run of an agent's program: started, followed while it works, kept within its limits, and reported.

What a program says of itself is read as it comes, because much depends on it before the end: some go on after they
are done, some say nothing for a minute and are well, and a budget that is only looked at afterwards is none (I9).
"""

from __future__ import annotations

import math
import signal
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from beads.clock import Clock
from beads.model import Usage
from beads.ops import Report
from refinery.processes import Exit, Job
from refinery.redaction import NO_SECRETS, Secrets
from roles.events import Began, Ended, Event, Reader, Said, Used
from roles.runtimes.trouble import ending_of

LINGER_SECONDS = 20.0
"""How long a program may go on after it said that it is through: some never end by themselves."""

GRACE_SECONDS = 5.0
"""How long a program has to end once it is told to."""

NOTE_MAX = 2000
"""Characters that are kept of an agent's last words."""

LINE_MAX = 16 << 20
"""Bytes of a line that are read; what is longer is no event."""

_CHUNK = 1 << 20

# What a line of a form that nobody expected makes of code that expects another: programs change from day to day.
_MISREAD = (ValueError, TypeError, LookupError, AttributeError, RecursionError)


class Running(Protocol):
    """Something that goes on and ends, such as a :class:`Job`."""

    def poll(self) -> Exit | None:
        """How it ended, or None while it runs. Never waits for it."""
        ...

    def cancel(self, grace: float) -> Exit:
        """End it, with so many seconds for it to do that itself."""
        ...


@dataclass(frozen=True)
class Limits:
    """What one run may use.

    Attributes:
        budget: US dollars.
        tokens: sent and generated together.
        silence: seconds without a byte of output. Longer than a provider's outage that a program waits for.
    """

    budget: float = math.inf
    tokens: float = math.inf
    silence: float = math.inf


Price = Callable[[str, Usage], float | None]
"""What so many tokens of a model cost in US dollars; None where nobody knows."""


class Drive:
    """Follows a job that runs an agent's program, and stops it when a limit is reached. A :class:`Running`.

    Args:
        job: what was started.
        log: the file it prints into.
        reader: makes events of what it prints.
        limits: what it may use.
        model: the model it was told to use, as far as that is known.
        price: what tokens cost, for programs that do not say it.
        clock: what measures the time.
        tell: told each event as it comes.
        secrets: what must not be in the report.
        linger: seconds that it may go on after it said that it is through.
    """

    def __init__(
        self,
        job: Job,
        log: Path,
        reader: Reader,
        limits: Limits,
        model: str,
        price: Price,
        clock: Clock,
        tell: Callable[[Event], None],
        secrets: Secrets = NO_SECRETS,
        linger: float = LINGER_SECONDS,
    ) -> None:
        self._job = job
        self._lines = _Lines(log)
        self._reader = reader
        self._limits = limits
        self._price = price
        self._clock = clock
        self._tell = tell
        self._secrets = secrets
        self._linger = linger
        self._heard = clock.monotonic()
        self._model = model
        self._session = ""
        self._used = Used(None)
        self._cost: float | None = None
        self._said = ""
        self._end: Ended | None = None
        self._ended_at = math.inf
        self._stopped: Ended | None = None
        self._stopping = False
        self._exit: Exit | None = None

    def poll(self) -> Exit | None:
        """How the program ended, or None while it runs; reads on, and holds the limits."""
        if self._exit is None:
            exit = self._job.poll()
            self._follow()
            if exit is None:
                self._hold()
            else:
                self._finish(exit)
        return self._exit

    def cancel(self, grace: float) -> Exit:
        """End the program, with so many seconds for it to do that itself."""
        self._job.cancel(grace)
        exit = self.poll()
        assert exit is not None, "a job that was cancelled has ended"
        return exit

    def report(self, exit: Exit) -> Report:
        """What the run came to, once it has ended. Its note begins with what made us stop it, where we did."""
        forced = self._stopped or _forced(exit)
        end = forced or self._end or Ended(ending_of(exit))
        words = self._told(self._words())
        why = self._told(forced.text if forced else "" if words else _broken(exit))[: NOTE_MAX // 2]
        room = NOTE_MAX - len(f"{why}\n") if why else NOTE_MAX
        note = "\n".join(part for part in (why, words[-room:]) if part)
        return Report(
            ending=end.ending,
            model=self._told(self._model),
            session=self._told(self._session),
            note=note,
            usage=self._used.usage,
            cost=self._cost,
            until=end.until,
        )

    def _words(self) -> str:
        """Its last words. Where it was cut short, what it said helps to go on, beside what cut it short."""
        end = self._end
        if end is None or not end.text:
            return self._said
        if end.ending in ("context_exhausted", "limits", "stuck") and self._said != end.text:
            return "\n\n".join(filter(None, [self._said.strip(), end.text]))
        return end.text

    def _told(self, text: str) -> str:
        """A text as it may be stored: without secrets, and without halves of characters, which JSON can have."""
        return self._secrets.text(text).encode("utf-8", "replace").decode()

    def _finish(self, exit: Exit) -> None:
        """Hear what is left to be said, once it has ended."""
        self._take(self._lines.rest())
        self._exit = exit
        # Where it has said how it ended, files that it left may still tell what it used.
        said = self._end is not None
        for event in _sure(lambda: self._reader.end(exit)):
            if not (said and isinstance(event, Ended)):
                self._hear(event)

    def _hold(self) -> None:
        """Stop what is over its limits, or through and still there. Once: to be told twice, many take for a kill."""
        if self._stopping:
            return
        now = self._clock.monotonic()
        if self._end is None:
            self._stopped = self._over(now)
        if self._stopped or now - self._ended_at >= self._linger:
            self._stopping = True
            self._job.stop(GRACE_SECONDS)

    def _over(self, now: float) -> Ended | None:
        """Which limit it has reached, in the words of the report."""
        usage, limits, silent = self._used.usage, self._limits, now - self._heard
        if self._cost is not None and self._cost >= limits.budget:
            return Ended("limits", f"stopped at ${self._cost:.4f}, with a budget of ${limits.budget:.2f}")
        if usage is not None and usage.total >= limits.tokens:
            return Ended("limits", f"stopped at {usage.total} tokens, of {limits.tokens:.0f} allowed")
        if silent >= limits.silence:
            return Ended("stuck", f"stopped after {silent:.0f} s without a word")
        return None

    def _follow(self) -> None:
        """Read the lines that have come since the last look."""
        at = self._lines.at
        for line in self._lines.new():
            self._take(line)
        if self._lines.at > at:
            self._heard = self._clock.monotonic()

    def _take(self, line: bytes) -> None:
        if line:
            text = line.decode(errors="replace").rstrip("\r")
            for event in _sure(lambda: self._reader.read(text)):
                self._hear(event)

    def _hear(self, event: Event) -> None:
        match event:
            case Began(session=session, model=model):
                self._session, self._model = session or self._session, model or self._model
                self._reckon()
            case Said(text=text):
                self._said = text if text.strip() else self._said
            case Used():
                self._used = event
                self._reckon()
            case Ended():
                self._end = event
                self._ended_at = min(self._ended_at, self._clock.monotonic())
            case _:
                pass
        self._tell(event)

    def _reckon(self) -> None:
        """What it has cost so far; None where nobody knows, or where a program says what cannot be."""
        self._cost = self._used.worth(lambda usage: self._price(self._model, usage))


class _Lines:
    """The lines of a file that grows."""

    def __init__(self, path: Path) -> None:
        self.at = 0
        self._path = path
        self._begun: list[bytes] = []
        self._size = 0

    def new(self) -> Iterator[bytes]:
        """The lines that have been ended since the last time, without their line feeds and without those too long."""
        with self._path.open("rb") as file:
            file.seek(self.at)
            while chunk := file.read(_CHUNK):
                self.at += len(chunk)
                first, *others = chunk.split(b"\n")
                self._add(first)
                for part in others:
                    yield from self._whole()
                    self._add(part)

    def rest(self) -> bytes:
        """What came after the last line feed; nothing when that is too long."""
        return b"".join(self._whole())

    def _add(self, part: bytes) -> None:
        self._size += len(part)
        if self._size <= LINE_MAX:
            self._begun.append(part)
        else:
            self._begun.clear()

    def _whole(self) -> list[bytes]:
        line = [b"".join(self._begun)] if self._size <= LINE_MAX else []
        self._begun, self._size = [], 0
        return line


def _sure(read: Callable[[], Iterable[Event]]) -> list[Event]:
    """What a reader makes of something; nothing, where it cannot."""
    try:
        return list(read())
    except _MISREAD:
        return []


def _forced(exit: Exit) -> Ended | None:
    """How a program ended that was ended by force, or never began; None when it ended by itself."""
    match exit:
        case Exit(kind="timeout"):
            return Ended("limits", f"stopped at its time limit, after {exit.seconds:.0f} s")
        case Exit(kind="signalled", signal=signal.SIGXFSZ):
            return Ended("limits", f"stopped after it had printed {exit.size} bytes")
        case Exit(kind="unrunnable"):
            return Ended("environment", f"could not be run: {_last(exit) or 'it ended as a shell says that'}")
        case _:
            return None


def _broken(exit: Exit) -> str:
    """What to say of a program that said nothing itself and did not end well."""
    if exit.kind == "signalled":
        return f"killed by signal {exit.signal}"
    return f"ended with exit {exit.code}: {_last(exit)}".rstrip(": ") if exit.code else ""


def _last(exit: Exit) -> str:
    """The last line that a program printed, as far as it is short."""
    return next((line.strip() for line in reversed(exit.output.splitlines()) if line.strip()), "")[:300]
