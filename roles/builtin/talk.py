"""A conversation with a model that can use tools: the values, a model made of a script, and what a refusal means.

No provider's library is needed here; ``roles/llm.py`` has the models that LiteLLM reaches.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import NamedTuple, Protocol

from beads.errors import Unreadable
from beads.model import Ending, Usage

Entry = Mapping[str, object]
"""One turn of a conversation as OpenAI's chat completions have it, which is how LiteLLM takes it from anybody."""

ERROR_MAX = 500
"""Characters that are kept of what a provider says is wrong."""


class Call(NamedTuple):
    """A tool that a model wants used: the name of this use, the tool, and its arguments, which ought to be JSON."""

    id: str
    tool: str
    arguments: str


@dataclass(frozen=True)
class Turn:
    """What a model said.

    Attributes:
        entry: all of it, as it goes back into the conversation.
        text: the words.
        calls: the tools it wants used, in order.
        usage: tokens, None where the provider did not tell.
        cost: US dollars; None where the price is not known.
        cut: whether it was cut off because it became too long.
    """

    entry: Entry
    text: str = ""
    calls: tuple[Call, ...] = ()
    usage: Usage | None = None
    cost: float | None = None
    cut: bool = False


class NotServed(Unreadable):
    """A provider did not answer.

    Args:
        message: what it said.
        ending: what that means.
        until: when it may be asked again, where it said so.
    """

    def __init__(self, message: str, ending: Ending, until: datetime | None = None) -> None:
        super().__init__(message)
        self.ending = ending
        self.until = until


class Talker(Protocol):
    """A model that can be talked to."""

    @property
    def name(self) -> str:
        """What it is called."""
        ...

    @property
    def window(self) -> int:
        """How many tokens a conversation with it may have."""
        ...

    def say(self, talk: Sequence[Entry], tools: Sequence[Entry], timeout: float) -> Turn:
        """What it says next, in at most so many seconds. Asks once; trying again is the caller's.

        Raises:
            NotServed: it did not answer.
        """
        ...


class Scripted:
    """A model that says what a list says, for tests. What it is shown is kept in ``heard``.

    Args:
        replies: what it says; a refusal is raised.
        name: what it is called.
        window: tokens.
    """

    def __init__(self, replies: Iterable[Turn | NotServed], name: str = "scripted", window: int = 100_000) -> None:
        self.name = name
        self.window = window
        self.heard: list[list[Entry]] = []
        self._replies = iter(replies)

    def say(self, talk: Sequence[Entry], tools: Sequence[Entry], timeout: float) -> Turn:
        """The next reply of the list."""
        del tools, timeout
        self.heard.append(list(talk))
        reply = next(self._replies)
        if isinstance(reply, NotServed):
            raise reply
        return reply


def scripted_turn(text: str = "", *calls: tuple[str, str], cost: float | None = 0.01, cut: bool = False) -> Turn:
    """A turn for a :class:`Scripted` model, of words and of tools with their arguments."""
    made = tuple(Call(f"call-{number}", tool, arguments) for number, (tool, arguments) in enumerate(calls))
    told = [{"id": c.id, "type": "function", "function": {"name": c.tool, "arguments": c.arguments}} for c in made]
    entry = {"role": "assistant", "content": text, **({"tool_calls": told} if told else {})}
    return Turn(entry, text, made, Usage(input=100, output=10), cost, cut)


# ── Refusals ─────────────────────────────────────────────────────────────────────────────────────────────────


def refusal(name: str, said: str, status: int | None, headers: Mapping[str, str], now: datetime) -> NotServed:
    """What it means that a model's provider did not answer.

    Args:
        name: the model.
        said: the provider's words.
        status: the HTTP status, or what LiteLLM takes the failure for; None when it is none of the provider's.
        headers: those of the answer, by their names in lower case.
        now: what times that are told in seconds are counted from.
    """
    message = f"{name}: {' '.join(said.split())[:ERROR_MAX]}"
    match status:
        case 402 | 429:
            return NotServed(message, "quota", reopening(headers, now))
        case 408 | 409 | 425:
            return NotServed(message, "provider_unavailable", reopening(headers, now))
        case int() if status >= 500:
            return NotServed(message, "provider_unavailable", reopening(headers, now))
        case _:
            return NotServed(message, "environment")


def reopening(headers: Mapping[str, str], now: datetime) -> datetime | None:
    """When a provider may be asked again, by the headers of its refusal; None when they do not say."""
    if "retry-after-ms" in headers:
        return _moment(headers["retry-after-ms"] + "ms", now)
    if "retry-after" in headers:
        return _moment(headers["retry-after"], now)
    # Each limit has its own pair; one of which something is left is not the one that was reached.
    spent = [name for name, left in headers.items() if "ratelimit" in name and "remaining" in name and left == "0"]
    resets = [headers.get(name.replace("remaining", "reset"), "") for name in spent]
    found = [moment for text in resets if (moment := _moment(text, now))]
    return max(found, default=None)


_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_YEAR = 366 * 86_400.0


def _moment(text: str, now: datetime) -> datetime | None:
    """A time as headers have it: seconds, ``1m3.5s``, a date in either form, or seconds or more since 1970."""
    text = text.strip()
    try:
        seconds = float(text)
        seconds /= 1000 if seconds > 1e11 else 1
        return datetime.fromtimestamp(seconds, UTC) if seconds > 1e9 else _later(seconds, now)
    except (ValueError, OverflowError, OSError):
        pass
    if re.fullmatch(f"(?:{_PART.pattern})+", text):
        return _later(sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text)), now)
    for read in (datetime.fromisoformat, parsedate_to_datetime):
        try:
            found = read(text)
        except (ValueError, IndexError):
            continue
        return found if found.tzinfo else found.replace(tzinfo=UTC)
    return None


def _later(seconds: float, now: datetime) -> datetime | None:
    return now + timedelta(seconds=seconds) if 0 <= seconds < _YEAR else None
