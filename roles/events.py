"""What an agent's process tells while it works: every runtime's reader makes these few values of its own stream.

They are hints. What an agent says of itself decides when to stop waiting for it, what to try next, and what it cost;
whether its work is done is decided by the criteria alone.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, Protocol

from beads.model import Ending, Usage
from refinery.processes import Exit

if TYPE_CHECKING:
    from pydantic import TypeAdapter


@dataclass(frozen=True)
class Began:
    """The conversation has a name, by which it can be gone on with, and a model."""

    session: str
    model: str = ""


@dataclass(frozen=True)
class Said:
    """The agent said something to whoever reads along."""

    text: str


@dataclass(frozen=True)
class Acted:
    """The agent used a tool: its name, what it was used for in a line, and whether that went well, once known."""

    tool: str
    what: str = ""
    ok: bool | None = None


@dataclass(frozen=True)
class Used:
    """All that this run has used so far. A later one takes the place of an earlier one; readers do the sums.

    ``cost``, in US dollars, is what the program itself says; None where it says nothing.
    """

    usage: Usage | None = None
    cost: float | None = None

    def worth(self, price: Callable[[Usage], float | None]) -> float | None:
        """What it has cost, by what it says itself or else by a price of its tokens; None where nobody knows.

        What no cost can be, such as less than nothing, is not known either.
        """
        cost = self.cost
        if cost is None and self.usage is not None:
            cost = price(self.usage)
        return cost if cost is not None and math.isfinite(cost) and cost >= 0 else None


@dataclass(frozen=True)
class Troubled:
    """Something went wrong that the program may get over by itself, such as a connection it tries again."""

    text: str


@dataclass(frozen=True)
class Ended:
    """The program says that it is through with its task, and how; the last one counts.

    Attributes:
        ending: how.
        text: its last words, or what was wrong.
        until: when it may be asked again, where it says so.
    """

    ending: Ending
    text: str = ""
    until: datetime | None = None


Event = Began | Said | Acted | Used | Troubled | Ended

_KINDS: dict[str, type[Event]] = {kind.__name__.lower(): kind for kind in (Began, Said, Acted, Used, Troubled, Ended)}


class Reader(Protocol):
    """Makes events of what one run of an agent's program prints. It must take any text without failing."""

    def read(self, line: str) -> Iterable[Event]:
        """What one line of the program's standard output says, without its line feed; nothing, if it says nothing."""
        ...

    def end(self, exit: Exit) -> Iterable[Event]:
        """What is to be said once the program has ended, such as how, where it did not say so itself."""
        ...


def facts(event: Event) -> dict[str, object]:
    """What an event is and what its values are, as JSON has them; those that say nothing are left out."""
    told = {name: value for name, value in vars(event).items() if value not in (None, "")}
    return {"event": type(event).__name__.lower(), **{name: _plain(value) for name, value in told.items()}}


def as_line(event: Event, at: str = "") -> str:
    """An event as one line of JSON without its line feed, and when it was, where that is to be kept."""
    return json.dumps({**({"at": at} if at else {}), **facts(event)}, ensure_ascii=False)


def as_event(line: str) -> Event | None:
    """The event that a line is; None when it is none, such as a warning that a library printed."""
    from pydantic import ValidationError

    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    kind = str(found.pop("event", "")) if isinstance(found, dict) else ""
    if kind not in _KINDS:
        return None
    found.pop("at", None)
    try:
        return _adapter(kind).validate_python(found, strict=False)
    except ValidationError:
        return None


@cache
def _adapter(kind: str) -> TypeAdapter[Event]:
    """What knows the form of a kind of event; made when it is needed, as every command of ours imports this."""
    from pydantic import TypeAdapter

    return TypeAdapter(_KINDS[kind])


def _plain(value: object) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        # JSON has no words for what is no number.
        return str(value)
    if isinstance(value, datetime):
        return value.isoformat()
    return {k: v for k, v in value if v} if isinstance(value, Usage) else value
