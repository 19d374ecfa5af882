"""The tools of the built-in agent: a shell, a look into files, and changes to them that cannot hit the wrong place.

What a tool says is bounded, and what is left out is counted. No tool raises for what a model asked of it.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple, Protocol

from pydantic import Field, ValidationError

from beads.clock import Clock
from beads.model import Fact
from refinery.processes import OUTPUT_MIN, shell, start
from roles.builtin.talk import Call, Entry
from roles.builtin.words import INSTRUCTIONS_MAX, NO_TOOL, SYSTEM, opening
from roles.events import Ended

COMMAND_SECONDS = 120.0
"""How long a command may take when the model does not say."""

COMMAND_SECONDS_MAX = 1800.0
"""How long it may take whatever the model says."""

ROOM_MAX = 16_000
"""Characters that one result may have in a large window."""

QUIET = {
    "PAGER": "cat",
    "GIT_PAGER": "cat",
    "MANPAGER": "cat",
    "EDITOR": "true",
    "GIT_EDITOR": "true",
    "GIT_TERMINAL_PROMPT": "0",
    "DEBIAN_FRONTEND": "noninteractive",
    "PIP_PROGRESS_BAR": "off",
    "TQDM_DISABLE": "1",
}
"""What keeps commands from asking somebody who is not there, and from drawing bars into a file."""

_PROBLEMS_MAX = 8
_FILE_MAX = 10 << 20
_LINE_MAX = 1000
_NEAR_LINES_MAX = 20_000


class Bash(Fact):
    """Run a line with sh in the work tree, with nothing on standard input.

    Each runs in a shell of its own: a directory or a variable is not kept. What it leaves in the background is ended.
    """

    command: str = Field(min_length=1)
    timeout: float = Field(COMMAND_SECONDS, gt=0, le=COMMAND_SECONDS_MAX, description="Seconds.")


class View(Fact):
    """Show a file with line numbers, which are not part of it, or what is in a directory."""

    path: str = Field(description="Relative to the work tree.")
    first: int = Field(1, ge=1, description="The first line to show.")
    lines: int = Field(200, ge=1, description="How many.")


class StrReplace(Fact):
    """Replace a text that is in a file exactly once."""

    path: str
    old: str = Field(min_length=1, description="As it stands there, white space included, without line numbers.")
    new: str


class Create(Fact):
    """Write a new file; directories are made. One that exists is not overwritten."""

    path: str
    text: str


class Submit(Fact):
    """Say that the work is done, and that you checked it. The run ends with this."""

    summary: str = Field(min_length=1, description="What you did, for whoever goes on, in a few sentences.")


TOOLS: dict[str, type[Fact]] = {
    "bash": Bash,
    "view": View,
    "str_replace": StrReplace,
    "create": Create,
    "submit": Submit,
}
"""The tools by their names."""


class Misused(Exception):
    """A model used a tool as it cannot be used; says how."""


class Result(NamedTuple):
    """What came of the use of a tool: what the model is told, and whether it went well."""

    text: str
    ok: bool = True


class Tools(Protocol):
    """What a model can do, and what it is told of that."""

    @property
    def system(self) -> str:
        """The first words to it."""
        ...

    def opening(self, prompt: str, most: int) -> str:
        """What it is told then: its task, and what belongs to that, of which no part is longer than ``most``."""
        ...

    def described(self) -> list[Entry]:
        """The tools, as a model is told of them."""
        ...

    def read(self, call: Call) -> Fact:
        """What it wants.

        Raises:
            Misused: there is no such tool, or its arguments are not as they have to be.
        """
        ...

    def do(self, wish: Fact, seconds: float) -> Result:
        """Carry it out, in at most so many seconds."""
        ...

    def end(self, wish: Fact, result: Result) -> Ended | None:
        """How the run ends with that; None when it goes on."""
        ...

    def heard(self, text: str) -> Ended | str:
        """What is to be made of an answer that uses no tool: the end of the run, or what is said to that."""
        ...


def described(tools: Mapping[str, type[Fact]]) -> list[Entry]:
    """Tools by their names, as a model is told of them."""
    return [{"type": "function", "function": _function(name, tool)} for name, tool in tools.items()]


def _function(name: str, tool: type[Fact]) -> dict[str, object]:
    schema = tool.model_json_schema()
    told = {key: {k: v for k, v in of.items() if k != "title"} for key, of in schema.get("properties", {}).items()}
    parameters = {"type": "object", "properties": told, "additionalProperties": False}
    parameters |= {key: schema[key] for key in ("required", "$defs") if key in schema}
    return {"name": name, "description": " ".join((tool.__doc__ or "").split()), "parameters": parameters}


def read(call: Call, tools: Mapping[str, type[Fact]]) -> Fact:
    """What a model wants, of tools by their names.

    Raises:
        Misused: there is no such tool, or its arguments are not as they have to be.
    """
    tool = tools.get(call.tool)
    if tool is None:
        raise Misused(f"There is no tool {call.tool!r}. There are: {', '.join(tools)}.")
    try:
        return tool.model_validate_json(call.arguments or "{}")
    except ValidationError as error:
        said = "; ".join(
            f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors(include_url=False)[:_PROBLEMS_MAX]
        )
        raise Misused(f"The arguments of {call.tool} cannot be used: {said}") from error


def in_short(wish: Fact) -> str:
    """What a tool is used for, in a line: the first thing that it is told."""
    return " ".join(str(next(iter(dict(wish).values()), "")).split())[:200]


@dataclass(frozen=True)
class Hands:
    """What carries a model's wishes out.

    Attributes:
        directory: the work tree.
        scratch: where a command's output is kept while it runs.
        environ: what commands see.
        room: characters that one result may have.
        clock: what measures the time.
    """

    directory: Path
    scratch: Path
    environ: Mapping[str, str]
    room: int
    clock: Clock
    system: ClassVar[str] = SYSTEM

    def opening(self, prompt: str, most: int) -> str:
        """What the repository says of itself, and the task."""
        return opening(self.directory, prompt, min(INSTRUCTIONS_MAX, most))

    def described(self) -> list[Entry]:
        """The tools, as a model is told of them."""
        return described(TOOLS)

    def read(self, call: Call) -> Fact:
        """What it wants; raises as :func:`read` does."""
        return read(call, TOOLS)

    def end(self, wish: Fact, result: Result) -> Ended | None:
        """It ends with what it submits."""
        del result
        return Ended("finished", wish.summary) if isinstance(wish, Submit) else None

    def heard(self, text: str) -> Ended | str:
        """Nobody is there to be talked to."""
        del text
        return NO_TOOL

    def do(self, wish: Fact, seconds: float) -> Result:
        """Carry it out, in at most so many seconds."""
        try:
            match wish:
                case Bash():
                    return self._bash(wish, seconds)
                case View():
                    return self._view(wish)
                case StrReplace():
                    return self._replace(wish)
                case Create():
                    return self._create(wish)
                case _:
                    return Result("Noted.")
        except (OSError, ValueError) as error:
            return Result(f"That cannot be done: {error}", ok=False)

    def _bash(self, wish: Bash, seconds: float) -> Result:
        timeout = max(1.0, min(wish.timeout, seconds))
        job = start(
            shell(wish.command),
            cwd=self.directory,
            environ=self.environ,
            log=self.scratch / "command.log",
            timeout=timeout,
            marker="builtin",
            clock=self.clock,
            output_max=max(OUTPUT_MIN, self.room),
        )
        with job:
            exit = job.wait()
        exit.log.unlink(missing_ok=True)
        match exit.kind:
            case "exited" | "unrunnable":
                head = f"exit {exit.code}"
            case "timeout":
                head = f"It was killed with all that it started, after {timeout:.0f} s."
            case _:
                head = f"It was killed by signal {exit.signal}."
        return Result(f"{head}\n{exit.output}".rstrip() + "\n", exit.kind == "exited" and exit.code == 0)

    def _view(self, wish: View) -> Result:
        path = self.directory / wish.path
        if path.is_dir():
            names = sorted(f"{one.name}/" if one.is_dir() else one.name for one in path.iterdir())
            return Result(self._bounded(names) or "The directory is empty.")
        lines = _text(path).splitlines()
        last = min(len(lines), wish.first - 1 + wish.lines)
        told = [f"{number:6}\t{_line(lines[number - 1])}" for number in range(wish.first, last + 1)]
        head = f"{wish.path} has {len(lines)} lines."
        return Result(f"{head}\n{self._bounded(told)}", ok=bool(told) or not lines)

    def _bounded(self, lines: Sequence[str]) -> str:
        """As many of the lines as there is room for."""
        said: list[str] = []
        room = self.room
        for number, line in enumerate(lines):
            room -= len(line) + 1
            if room < 0:
                return "\n".join([*said, f"… {len(lines) - number} lines left out …"])
            said.append(line)
        return "\n".join(said)

    def _replace(self, wish: StrReplace) -> Result:
        path = self._inside(wish.path)
        text = _text(path)
        old, new = wish.old, wish.new
        if old not in text and "\r\n" in text:
            old, new = (one.replace("\r\n", "\n").replace("\n", "\r\n") for one in (old, new))
        count = text.count(old)
        if count > 1:
            at = ", ".join(map(str, _lines_of(text, old)[:10]))
            return Result(f"The text is there {count} times, in lines {at}. Give more of what is around it.", ok=False)
        if count == 0:
            return Result(f"The text is not in {wish.path}. {_near(text, old)}", ok=False)
        path.write_bytes(text.replace(old, new).encode("utf-8", "surrogateescape"))
        return Result(f"Replaced in line {_lines_of(text, old)[0]} of {wish.path}.")

    def _create(self, wish: Create) -> Result:
        path = self._inside(wish.path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as file:
            file.write(wish.text.encode("utf-8", "replace"))
        return Result(f"{wish.path} is written, {len(wish.text.splitlines())} lines.")

    def _inside(self, name: str) -> Path:
        """The file of that name, whatever links lead to it; it must be in the work tree, and not Git's."""
        root = self.directory.resolve()
        path = (root / name).resolve()
        if not path.is_relative_to(root) or ".git" in path.relative_to(root).parts or path == root:
            raise ValueError(f"{name!r} is not in the work tree")
        return path


def _text(path: Path) -> str:
    """The file as text; bytes that are none survive a change of others."""
    if not path.is_file():
        raise ValueError(f"there is no file {path.name!r}")
    with path.open("rb") as file:
        data = file.read(_FILE_MAX + 1)
    if len(data) > _FILE_MAX:
        raise ValueError(f"{path.name} has more than {_FILE_MAX >> 20} MB; look at it with bash")
    if b"\0" in data:
        raise ValueError(f"{path.name} is no text")
    return data.decode("utf-8", "surrogateescape")


def _line(text: str) -> str:
    shown = text.encode("utf-8", "replace").decode()
    return shown if len(shown) <= _LINE_MAX else f"{shown[:_LINE_MAX]} … {len(shown) - _LINE_MAX} characters left out …"


def _lines_of(text: str, part: str) -> list[int]:
    """The numbers of the lines in which a part of a text begins."""
    found, at = [], text.find(part)
    while at >= 0:
        found.append(text.count("\n", 0, at) + 1)
        at = text.find(part, at + len(part))
    return found


def _near(text: str, old: str) -> str:
    """What of a text is most like what was looked for and is not there."""
    lines, wanted = text.splitlines()[:_NEAR_LINES_MAX], old.splitlines()
    first = max(wanted, key=lambda line: len(line.strip()), default="")
    before = wanted.index(first) if wanted else 0
    like = difflib.get_close_matches(first.strip(), {line.strip() for line in lines} - {""}, n=3, cutoff=0.6)
    found = [number for number, line in enumerate(lines) if line.strip() in like]
    spots = sorted(found, key=lambda number: like.index(lines[number].strip()))[:3]
    if not spots:
        return "Nothing in it is like it."
    parts = [
        "\n".join(
            f"{n + 1:6}\t{_line(lines[n])}" for n in range(start, min(len(lines), start + len(wanted), start + 20))
        )
        for start in (max(0, spot - before) for spot in spots)
    ]
    return "Like it are:\n" + "\n…\n".join(parts)
