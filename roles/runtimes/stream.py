"""What the adapters have in common: reading JSON lines that may hold anything, and homes for programs to live in.

What a program prints is written by many versions of it, by the tools it runs, and by whatever crashed beside it.
Every look into it here answers with a value of the right type, or with none.
"""

from __future__ import annotations

import json
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from beads.model import Usage
from refinery.processes import Exit
from roles.events import Acted, Began, Ended, Event
from roles.runtimes.trouble import after, gone
from roles.runtimes.until import until
from roles.task import Order

WHAT_MAX = 200
"""Characters that are kept of what a tool was used for."""

NET = (
    *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "NODE_EXTRA_CA_CERTS"),
)
"""The variables by which programs find their way out to the network."""

_NUMBER_MAX = 2**53
_WORDS_MAX = 40
_COLOURS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,199}")


def parse(line: str) -> Mapping[str, object] | None:
    """The JSON object that a line is, or None when it is none."""
    if not line.lstrip().startswith("{"):
        return None
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def at(value: object, path: str) -> object:
    """What is at a dotted path, such as ``message.content.0.text``; None where there is nothing."""
    for part in path.split("."):
        if isinstance(value, dict):
            value = value.get(part)
        elif isinstance(value, list) and part.isdecimal() and len(part) < 6 and int(part) < len(value):
            value = value[int(part)]
        else:
            return None
    return value


def items(value: object, path: str) -> list[object]:
    """The list at a path; empty where there is none."""
    found = at(value, path)
    return found if isinstance(found, list) else []


def entries(value: object, path: str) -> Mapping[str, object]:
    """The table at a path; empty where there is none."""
    found = at(value, path)
    return found if isinstance(found, dict) else {}


def text(value: object, path: str) -> str:
    """The text at a path, such as can be stored; empty where there is none."""
    found = at(value, path)
    return found.encode(errors="replace").decode() if isinstance(found, str) else ""


def texts(value: object, path: str) -> str:
    """The texts in the list at a path, a line each."""
    return "\n".join(text([found], "0") for found in items(value, path) if isinstance(found, str))


def name(value: object, path: str) -> str:
    """A name of a conversation that can be given back as an argument; empty where there is none."""
    found = text(value, path)
    return found if _NAME.fullmatch(found) else ""


def count(value: object, path: str) -> int:
    """A number of tokens at a path; 0 where there is none."""
    found = at(value, path)
    if isinstance(found, bool) or not isinstance(found, int | float) or not 0 <= found <= _NUMBER_MAX:
        return 0
    return int(found)


def money(value: object, path: str) -> float | None:
    """An amount at a path; None where there is none, or none that can be."""
    found = at(value, path)
    if isinstance(found, bool) or not isinstance(found, int | float) or not 0 <= found <= _NUMBER_MAX:
        return None
    return float(found) if math.isfinite(found) else None


def plain(line: str) -> str:
    """A line without colours, such as can be stored."""
    return _COLOURS.sub("", line).encode(errors="replace").decode()


def brief(value: object) -> str:
    """What a tool was used for, in a line: the first text that says it, else all of it."""
    if isinstance(value, dict):
        keys = ("command", "cmd", "file_path", "filePath", "path", "absolute_path", "pattern", "query", "url")
        found = next((value[key] for key in keys if isinstance(value.get(key), str)), None)
        value = json.dumps(value, ensure_ascii=False) if found is None and value else found or ""
    line = " ".join(str(value).split()) if isinstance(value, str | int | float) else ""
    return line.encode(errors="replace").decode()[:WHAT_MAX]


@dataclass
class JsonReader(ABC):
    """Reads programs that print a JSON object a line; subclasses say what an object means.

    Attributes:
        order: the run that is read.
        said: what the agent said last.
        words: the last lines that were no JSON, such as what it wrote to standard error.
        tools: the tools in use, by the name that the program gave to that one use.
        over: whether the program has said that it is through.
        named: whether it has said what the conversation is called.
    """

    order: Order
    said: str = ""
    words: list[str] = field(default_factory=list)
    tools: dict[str, Acted] = field(default_factory=dict)
    over: bool = False
    named: bool = False

    def read(self, line: str) -> Iterable[Event]:
        """What one line says."""
        found = parse(line)
        if found is None:
            self.words = [*self.words, plain(line)[:2000]][-_WORDS_MAX:]
            return []
        return self._noted(self.take(found))

    def end(self, exit: Exit) -> Iterable[Event]:
        """How it ended, where it has not said so itself; and that the conversation is still there, unless it is gone.

        A run that ends without a name for its conversation lets the next one begin anew.
        """
        words = "\n".join(self.words)
        events = self._noted(self.left())
        if not self.over:
            events += self._noted([after(exit, words, self.order.present, self.said)])
        if self.order.resume and not self.named and not gone(words):
            events.append(Began(self.order.session))
        return events

    @abstractmethod
    def take(self, found: Mapping[str, object]) -> Iterator[Event]:
        """What one object means."""

    def left(self) -> Iterator[Event]:
        """What is told by the files that the program has left."""
        return iter(())

    def began(self, use: str, tool: str, what: str) -> Acted:
        """A tool is used now."""
        self.tools[use] = Acted(tool or "tool", what)
        return self.tools[use]

    def done(self, use: str, ok: bool) -> Acted:
        """The use of a tool is over, and went well or not."""
        acted = self.tools.pop(use, Acted("tool"))
        return Acted(acted.tool, acted.what, ok)

    def _noted(self, events: Iterable[Event]) -> list[Event]:
        found = [self._until(event) if isinstance(event, Ended) else event for event in events]
        for event in found:
            self.named = self.named or (isinstance(event, Began) and bool(event.session))
            if isinstance(event, Ended):
                self.over = True
                self.words.append(event.text if event.ending == "environment" else "")
        return found

    def _until(self, end: Ended) -> Ended:
        """The end of a quota, where only what the provider said besides has it."""
        if end.ending != "quota" or end.until is not None:
            return end
        return replace(end, until=until("\n".join(self.words), self.order.present))


def usage(value: object, sent: str, cached: str, written: str, generated: str, *, apart: bool = True) -> Usage:
    """Tokens by the names a program has for them; ``apart`` says that what was cached is not among what was sent.

    Empty names are of what it does not tell.
    """
    read, wrote = (count(value, path) if path else 0 for path in (cached, written))
    total = count(value, sent) + (read + wrote if apart else 0)
    return Usage(input=max(total, read + wrote), cached=read, written=wrote, output=count(value, generated))


def bare(model: str, *providers: str) -> str:
    """A model's name as its provider's own program has it: without ``provider/`` before it."""
    provider, slash, rest = model.partition("/")
    return rest if slash and provider in providers else model


def option(flag: str, value: object) -> list[str]:
    """``--flag=value`` as one argument, so that no value can be taken for a flag; nothing without a value."""
    return [f"{flag}={value}"] if value not in (None, "") else []


ARGUMENT_MAX = 100_000
"""Bytes of a prompt that are given as an argument: the system takes no more than 128 KiB in one."""


def argument(order: Order) -> tuple[str, dict[Path, str]]:
    """The prompt as an argument that is no flag, and the files that it takes: where it is long, it is in one."""
    if len(order.prompt.encode(errors="replace")) > ARGUMENT_MAX:
        path = order.scratch / "prompt.md"
        return f"Read the file {path}: it says what you are to do. Then do it.", {path: order.prompt}
    # An argument cannot hold a NUL, and must not look like a flag.
    said = order.prompt.replace("\0", "\N{REPLACEMENT CHARACTER}")
    return (f"\n{said}" if said.startswith("-") else said), {}


def program(order: Order, usual: str) -> list[str]:
    """What to start: the program and first arguments that ``town.toml`` has, or the usual one."""
    return list(order.agent.command) or [usual]


def housing(home: Path) -> dict[str, str]:
    """Variables by which a program takes that directory for its home."""
    places = {"CONFIG": ".config", "DATA": ".local/share", "STATE": ".local/state", "CACHE": ".cache"}
    return {"HOME": str(home), **{f"XDG_{kind}_HOME": str(home / place) for kind, place in places.items()}}


def read_file(path: Path, most: int = 64 << 20) -> str:
    """The text of a file that a program may have left; empty where it is none, a link, or more than anybody reads."""
    try:
        if path.is_symlink() or not path.is_file() or path.stat().st_size > most:
            return ""
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
