"""One run of an agent's program: started, followed while it works, kept within its limits, and reported.

What a program says of itself is read as it comes, because much depends on it before the end: some go on after they
are done, some say nothing for a minute and are well, and a budget that is only looked at afterwards is none (I9).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from beads.clock import Clock
from beads.model import Ending, Usage
from beads.ops import Report
from refinery.processes import Exit, Job
from roles.events import Began, Ended, Event, Reader, Said, Used
from roles.runtimes.trouble import ending_of

LINGER_SECONDS = 20.0
"""How long a program may go on after it said that it is through: some never end by themselves."""

GRACE_SECONDS = 5.0
"""How long a program has to end once it is told to."""

NOTE_MAX = 2000
"""Characters that are kept of an agent's last words."""

_LINE_MAX = 16 << 20
"""Bytes of a line that are read; what is longer is no event."""


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
    ) -> None:
        self._job = job
        self._log = log
        self._reader = reader
        self._limits = limits
        self._price = price
        self._clock = clock
        self._tell = tell
        self._at = 0
        self._rest = b""
        self._heard = clock.monotonic()
        self._model = model
        self._session = ""
        self._used = Used(None)
        self._said = ""
        self._end: Ended | None = None
        self._ended_at = math.inf
        self._stopped: Ended | None = None
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
        """What the run came to, once it has ended."""
        end = self._stopped or self._decided(exit)
        return Report(
            ending=end.ending,
            model=self._model,
            session=self._session,
            note=self._note(end)[-NOTE_MAX:],
            usage=self._used.usage,
            cost=self._cost(),
            until=end.until,
        )

    def _note(self, end: Ended) -> str:
        """Its last words. Where it was cut short, what it said helps to go on, beside what cut it short."""
        if end.ending in ("context_exhausted", "limits", "stuck") and self._said != end.text:
            return "\n\n".join(filter(None, [self._said.strip(), end.text]))
        return end.text or self._said

    def _finish(self, exit: Exit) -> None:
        """Hear what is left to be said, once it has ended."""
        self._take(self._rest)
        self._exit = exit
        # Where it has said how it ended, files that it left may still tell what it used.
        said = self._end is not None
        self._hear(*(e for e in self._reader.end(exit) if not (said and isinstance(e, Ended))))

    def _decided(self, exit: Exit) -> Ended:
        """How it ended: by force where there was some, else by its own words."""
        if exit.kind in ("timeout", "unrunnable") or self._end is None:
            return Ended(ending_of(exit), self._end.text if self._end else "")
        return self._end

    def _cost(self) -> float | None:
        if self._used.cost is not None or self._used.usage is None:
            return self._used.cost
        return self._price(self._model, self._used.usage)

    def _hold(self) -> None:
        """Stop what is over its limits, or over and still there."""
        now, cost, usage = self._clock.monotonic(), self._cost(), self._used.usage
        over: tuple[Ending, str] | None = None
        if cost is not None and cost >= self._limits.budget:
            over = "limits", f"stopped at ${cost:.4f}, with a budget of ${self._limits.budget:.2f}"
        elif usage is not None and usage.total >= self._limits.tokens:
            over = "limits", f"stopped at {usage.total} tokens, of {self._limits.tokens:.0f} allowed"
        elif now - self._heard >= self._limits.silence:
            over = "stuck", f"stopped after {now - self._heard:.0f} s without a word"
        if over and self._end is None:
            self._stopped = self._stopped or Ended(*over)
            self._job.stop(GRACE_SECONDS)
        elif now - self._ended_at >= LINGER_SECONDS:
            self._job.stop(GRACE_SECONDS)

    def _follow(self) -> None:
        """Read the lines that have come since the last look."""
        for chunk in self._chunks():
            self._heard = self._clock.monotonic()
            *lines, self._rest = (self._rest + chunk).split(b"\n")
            for line in lines:
                self._take(line)
            if len(self._rest) > _LINE_MAX:
                self._rest = b""

    def _chunks(self) -> Iterator[bytes]:
        with self._log.open("rb") as file:
            file.seek(self._at)
            while chunk := file.read(1 << 20):
                self._at += len(chunk)
                yield chunk

    def _take(self, line: bytes) -> None:
        self._hear(*self._reader.read(line.decode(errors="replace").rstrip("\r")))

    def _hear(self, *events: Event) -> None:
        for event in events:
            match event:
                case Began(session=session, model=model):
                    self._session, self._model = session or self._session, model or self._model
                case Said(text=text):
                    self._said = text or self._said
                case Used():
                    self._used = event
                case Ended():
                    self._end = event
                    self._ended_at = min(self._ended_at, self._clock.monotonic())
                case _:
                    pass
            self._tell(event)


def as_line(event: Event, at: str) -> str:
    """An event as one line of JSON, for the log that a person follows: when, what, and its values."""
    return json.dumps({"at": at, "event": type(event).__name__.lower(), **asdict_of(event)}, ensure_ascii=False) + "\n"


def asdict_of(event: Event) -> dict[str, object]:
    """The values of an event that say something, as JSON has them."""
    found: dict[str, object] = {}
    for name, value in vars(event).items():
        if value not in (None, ""):
            found[name] = value if isinstance(value, str | bool | int | float) else _plain(value)
    return found


def _plain(value: object) -> object:
    return {k: v for k, v in value if v} if isinstance(value, Usage) else str(value)
