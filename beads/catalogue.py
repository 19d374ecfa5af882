"""Where formulas are found: directories, the first of which that has a name decides, and those that we bring along."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from beads.errors import InvalidInput, NotFound, Unreadable
from beads.formula import Formula, read_formula
from beads.interchange.gastown import is_foreign, read_foreign
from beads.interchange.tasklist import TaskList, read_tasks
from beads.plan import Plan, check_name, nearest, read_plan
from beads.toml import Document

ENDINGS = (".toml", ".formula.toml", ".formula.json")
"""What a formula's file may be called after its name. The last is how they were written before; it is only told of."""


class Shelf(NamedTuple):
    """A directory of formulas.

    Attributes:
        origin: whose it is, in a word for people.
        directory: where.
    """

    origin: str
    directory: Path


BUILT_IN = Shelf("built-in", Path(__file__).parent / "formulas")
"""The formulas that come with this program."""


class Entry(NamedTuple):
    """A file of a catalogue.

    Attributes:
        name: what the formula is found by.
        path: the file.
        origin: whose it is.
    """

    name: str
    path: Path
    origin: str


class Catalogue:
    """Formulas by name.

    Args:
        shelves: where to look, in this order; the built-in ones come last without being named.
    """

    def __init__(self, shelves: Sequence[Shelf] = ()) -> None:
        self.shelves = (*shelves, BUILT_IN)

    def entries(self) -> list[Entry]:
        """What there is, by name; of two of one name, the one that is found.

        Raises:
            Unreadable: a directory that is there cannot be read.
        """
        found: dict[str, Entry] = {}
        for shelf in self.shelves:
            for entry in _entries(shelf):
                found.setdefault(entry.name, entry)
        return [found[name] for name in sorted(found)]

    def entry(self, name: str) -> Entry:
        """The file of a name.

        Raises:
            NotFound: there is none.
        """
        for shelf in self.shelves if _is_name(name) else ():
            for ending in ENDINGS:
                path = shelf.directory / f"{name}{ending}"
                # A link that leads nowhere is there, too, and says so when it is read.
                if os.path.lexists(path):
                    return Entry(name, path, shelf.origin)
        hint = nearest(name, [entry.name for entry in self.entries()])
        raise NotFound(f"there is no formula {name!r}", f"{hint} `bead formula list` shows what there is.".strip())

    def find(self, name: str) -> Formula:
        """The formula of a name; raises as :meth:`entry` and :meth:`read` do."""
        return self.formula(self.entry(name).path)

    def formula(self, path: Path) -> Formula:
        """The formula in a file; raises as :meth:`read` does, and for a plan or a list of tasks."""
        found = self.read(path)
        if isinstance(found, TaskList):
            raise InvalidInput(f"{path} is a list of tasks, and this is no place for one", "`bead pour` takes it.")
        if isinstance(found, Plan):
            raise found.fault(("plan",), "begins a plan, and this is no place for one", "Write `formula`.")
        return found

    def read(self, path: Path) -> Plan | Formula | TaskList:
        """The plan or the formula in a file; what it says tells which. A file of Markdown is a ``tasks.md``.

        Raises:
            InvalidInput: it is none of these; names the line, but of one in JSON.
            NotFound: there is no such file.
            Unreadable: it cannot be read.
        """
        document = _document(path)
        if path.suffix.lower() == ".md":
            return read_tasks(document.text, path.absolute(), document.source, _within(path))
        data = document.read()
        if "formula" not in data:
            return read_plan(document.text, document.source)
        if is_foreign(data):
            return read_foreign(document, data, lambda name: _document(self.entry(name).path))
        return read_formula(document, data)

    def beside(self, path: Path) -> Catalogue:
        """This one, for what a file speaks of: its neighbours come first."""
        return Catalogue((Shelf("beside", path.parent), *self.shelves[:-1]))


def _document(path: Path) -> Document:
    if path.suffix == ".json":
        raise InvalidInput(
            f"{path} is JSON, and a formula is written in TOML", "`bd formula convert` writes the same formula so."
        )
    try:
        return Document(path.read_bytes(), str(path))
    except FileNotFoundError as error:
        raise NotFound(f"{path} leads to no file" if path.is_symlink() else f"there is no file {path}") from error
    except OSError as error:
        raise Unreadable(f"{path} cannot be read: {error.strerror}") from error


def _within(path: Path) -> str:
    """The path of a file in the repository that it is in; empty where it is in none."""
    here = path.parent.resolve() / path.name
    root = next((directory for directory in here.parents if (directory / ".git").exists()), None)
    return str(here.relative_to(root)) if root else ""


def _entries(shelf: Shelf) -> Iterator[Entry]:
    try:
        names = sorted(path.name for path in shelf.directory.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise Unreadable(f"{shelf.directory} cannot be read: {error.strerror}") from error
    for ending in ENDINGS:
        bare = (name.removesuffix(ending) for name in names if name.endswith(ending))
        yield from (Entry(name, shelf.directory / f"{name}{ending}", shelf.origin) for name in bare if _is_name(name))


def _is_name(text: str) -> bool:
    try:
        return bool(check_name(text))
    except ValueError:
        return False
