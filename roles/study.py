"""What the Mayor's model can look at: main as it is committed, and the town. Nothing here runs, writes or sends.

It reads Git's objects and never the work tree, so that no link leads out of the repository and what is not committed,
such as a file with keys, is not seen. Each answer is bounded, and what is left out is said.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from pydantic import Field

from beads import graph
from beads.choice import Choice
from beads.errors import InvalidInput, NotFound, TownError
from beads.history import history_of, transactions
from beads.model import Bead, Fact
from beads.store import Store
from refinery.git import Git
from roles.builtin.tools import Result

LINES_MAX = 400
"""How many lines one answer may have."""

LINE_MAX = 400
"""Characters of a line that are shown."""

BLOB_MAX = 4 << 20
"""Bytes of a file that is looked into; nobody plans by larger ones."""

SEARCH_SECONDS = 10.0
"""How long a search, or a look at the history, may take: some expressions take for ever."""

LOG_MAX = 20_000
"""How many transactions are looked at for those that changed one bead."""

_COMMITS_MAX = 100
_TAIL = 1500


class List(Fact):
    """List what is in a directory of main, with the sizes of files."""

    path: str = Field("", description="The directory; empty for the top.")


class Search(Fact):
    """Search the files of main for a text; answers with path:line:text."""

    text: str = Field(min_length=1, max_length=500)
    regex: bool = Field(False, description="Whether it is an extended regular expression.")
    path: str = Field("", description="A directory, file or pattern to search in; empty for all.")


class View(Fact):
    """Show a file of main, with line numbers, which are not part of it."""

    path: str = Field(min_length=1)
    first: int = Field(1, ge=1, description="The first line to show.")
    lines: int = Field(200, ge=1, le=LINES_MAX, description="How many.")


class History(Fact):
    """Show the newest commits of main, with the files they changed."""

    path: str = Field("", description="Only those that changed this file or directory.")
    count: int = Field(10, ge=1, le=_COMMITS_MAX)


class Town(Fact):
    """Show all work that is not closed: where each molecule stands, why, and what waits for a person."""


class Show(Fact):
    """Show a bead in full: its steps, criteria, attempts, and the evidence of what failed."""

    id: str


class Log(Fact):
    """Show the newest transactions of the store: who did what, and when."""

    id: str = Field("", description=f"Only what changed this bead, of the newest {LOG_MAX}.")
    count: int = Field(30, ge=1, le=_COMMITS_MAX)


class Find(Fact):
    """Search titles and texts of all beads, closed ones included."""

    text: str = Field(min_length=1, max_length=500)


LOOKS: Mapping[str, type[Fact]] = {
    "list": List,
    "search": Search,
    "view": View,
    "history": History,
    "town": Town,
    "show": Show,
    "log": Log,
    "find": Find,
}
"""The tools by their names."""


@dataclass(frozen=True)
class Study:
    """What looks.

    Attributes:
        git: Git in the repository.
        commit: the commit of main that is looked at.
        store: the store.
        town: in words, how the town stands.
        room: characters that one answer may have.
    """

    git: Git
    commit: str
    store: Store
    town: Callable[[], str]
    room: int

    def look(self, wish: Fact) -> Result:
        """What is there; nothing is raised for what a model asked for."""
        try:
            return Result(self._bounded(self._lines(wish)))
        except TownError as error:
            return Result(f"That cannot be shown: {error.message}", ok=False)
        except ValueError as error:
            return Result(f"That cannot be shown: {error}", ok=False)

    def _lines(self, wish: Fact) -> Iterable[str]:
        match wish:
            case List():
                return self._list(_path(wish.path))
            case Search():
                return self._search(wish)
            case View():
                return self._file(wish)
            case History():
                return self._history(wish)
            case Show():
                return dossier(self.store.snapshot(), wish.id).splitlines()
            case Log():
                return self._log(wish)
            case Find():
                return self._find(wish.text)
            case _:
                return self.town().splitlines()

    def _list(self, path: str) -> list[str]:
        said = self.git.run("ls-tree", "-l", "-z", f"{self.commit}:{path}", ok=(0, 128))
        if said.status:
            raise NotFound(f"there is no directory {path!r} on main")
        found = []
        for entry in said.out.split("\0"):
            about, _, name = entry.partition("\t")
            if name:
                _, kind, _, size = about.split()
                found.append(f"{name}/" if kind == "tree" else f"{name}  {size}")
        return found or ["It is empty."]

    def _search(self, wish: Search) -> list[str]:
        how = "-E" if wish.regex else "-F"
        where = [f":(glob){path}" for path in _globs(_path(wish.path))]
        args = ("grep", "--no-color", "-n", "-I", how, "--max-count=50", "-e", wish.text, self.commit, "--", *where)
        said = self.git.run(*args, ok=(0, 1), timeout=SEARCH_SECONDS)
        return [line.removeprefix(f"{self.commit}:") for line in said.out.splitlines()] or ["Nothing is found."]

    def _file(self, wish: View) -> list[str]:
        path = _path(wish.path)
        spec = f"{self.commit}:{path}"
        if self.git.run("cat-file", "-t", spec, ok=(0, 128)).out.strip() != "blob":
            raise NotFound(f"there is no file {path!r} on main")
        size = int(self.git.line("cat-file", "-s", spec))
        if size > BLOB_MAX:
            raise InvalidInput(f"{path} has {size} bytes")
        text = self.git.run("cat-file", "blob", spec).out
        if "\0" in text:
            raise InvalidInput(f"{path} is no text")
        lines = text.splitlines()
        last = min(len(lines), wish.first - 1 + wish.lines)
        told = [f"{number:6}\t{lines[number - 1]}" for number in range(wish.first, last + 1)]
        return [f"{path} has {len(lines)} lines.", *told]

    def _history(self, wish: History) -> list[str]:
        form = "--format=%h %as %an: %s"
        only = ("--", f":(literal){_path(wish.path)}") if wish.path else ()
        args = ("log", "--no-color", "--no-show-signature", "--stat=100", "--stat-count=10", form)
        said = self.git.run(*args, f"-n{wish.count}", self.commit, *only, timeout=SEARCH_SECONDS)
        return said.out.splitlines() or ["There is none."]

    def _log(self, wish: Log) -> list[str]:
        head = self.store.snapshot()
        repository = self.store.repository
        entries = (
            history_of(repository, head.commit, head.need(wish.id).id, LOG_MAX)
            if wish.id
            else transactions(repository, head.commit)
        )
        found = [f"{e.when:%Y-%m-%d %H:%M:%S} {e.actor}: {e.what}" for e in itertools.islice(entries, wish.count)]
        return [line for text in found for line in text.splitlines()] or ["There is none."]

    def _find(self, text: str) -> list[str]:
        view = self.store.snapshot()
        rows = view.rows(Choice(text=text, closed=True, limit=30), self.store.clock.now())
        found = [view.need(row.id) for row in rows]
        return [f"{b.id} {b.issue_type} {b.outcome or b.status}: {b.title}" for b in found] or ["Nothing is found."]

    def _bounded(self, lines: Iterable[str]) -> str:
        """As many of the lines as there is room for, none of them too long."""
        said: list[str] = []
        room = self.room
        listed = list(lines)
        for number, line in enumerate(listed):
            shown = line.encode("utf-8", "replace").decode()
            shown = shown if len(shown) <= LINE_MAX else f"{shown[:LINE_MAX]} […]"
            room -= len(shown) + 1
            if room < 0 or number >= LINES_MAX:
                return "\n".join([*said, f"[… {len(listed) - number} lines left out; ask for less …]"])
            said.append(shown)
        return "\n".join(said)


def _path(text: str) -> str:
    """A path as Git has it; what leads nowhere in a tree is refused here, with a word for the model."""
    path = text.strip().removeprefix("./").strip("/")
    if "\0" in path or ".." in path.split("/") or ":" in path.split("/")[0]:
        raise ValueError(f"{text!r} is no path in the repository")
    return "" if path == "." else path


def _globs(path: str) -> list[str]:
    """The patterns for what is at a path: the file itself, and all that is below the directory."""
    return [path, f"{path}/**"] if path else []


def dossier(view: graph.View, bead_id: str) -> str:
    """All that is known of the work on a bead, for whoever has to find another way.

    Raises:
        NotFound: there is no such bead.
    """
    bead = view.get(bead_id)
    if bead is None:
        raise NotFound(f"there is no bead {bead_id!r}")
    molecule = graph.molecule_of(view, bead)
    steps = graph.steps(view, molecule)
    lines = [_head(molecule), *_text("goal", molecule.description)]
    lines += [f"needs {need}" for need in molecule.needs]
    for step in steps:
        own = [] if step.id == molecule.id else ["", _head(step), *_text("description", step.description)]
        lines += [*own, *_text("run", step.run), *(f"done when: {criterion}" for criterion in step.criteria)]
        lines += _worked_on(step)
    for request in graph.merge_requests(view, molecule):
        lines += ["", _head(request), *_worked_on(request)]
    said = [f"{c.author}: {c.text}" for c in molecule.comments]
    return "\n".join([*lines, *(["", "comments:"] if said else []), *said])


def _head(bead: Bead) -> str:
    how = bead.outcome or bead.status
    why = f" ({bead.close_reason})" if bead.close_reason else ""
    return f"{bead.id} {bead.issue_type}, priority {bead.priority}, {how}{why}: {bead.title}"


def _text(label: str, text: str) -> list[str]:
    return [f"{label}:", *(f"  {line}" for line in text.strip().splitlines())] if text.strip() else []


def _worked_on(bead: Bead) -> Iterable[str]:
    for attempt in bead.attempts:
        how = attempt.end or "goes on"
        yield f"attempt {attempt.number} by {attempt.runtime}: {how}{': ' if attempt.reason else ''}{attempt.reason}"
        yield from _text("  its last words", attempt.note[-_TAIL:])
    for evidence in bead.evidence[-6:]:
        yield f"{evidence.verdict}: {evidence.subject}: {evidence.detail}"
        yield from _text("  output", evidence.output[-_TAIL:] if evidence.verdict != "pass" else "")
