"""Files of ``bd``: lines of JSON, read as a whole or not at all. Pure."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

from beads.errors import InvalidDocument
from beads.interchange.bd import bead_of, failed
from beads.interchange.kept import KEY, Kept
from beads.interchange.row import Row
from beads.model import Bead, Dependency

_MARKER = re.compile(rb"(<{7}|\|{7}|={7}|>{7})(\s|$)")
_LINES_SHOWN_MAX = 20


@dataclass(frozen=True)
class Document:
    """What a file says.

    Attributes:
        beads: a bead for each id, in the order of the file.
        notes: what somebody should know who thinks that each line was taken as it is.
    """

    beads: tuple[Bead, ...]
    notes: tuple[str, ...]


def read(lines: Iterable[bytes], source: str) -> Document:
    """Read a file of rows.

    Of several rows with one id the youngest is taken: a file that was merged line by line has both.

    Args:
        lines: its lines, with or without their ends.
        source: its name, for errors.

    Raises:
        InvalidDocument: a line is no row, or there are the markers of a merge in it; names file and line.
    """
    found: dict[str, tuple[int, Bead, str]] = {}
    notes: list[str] = []
    for number, facts in _objects(iter(lines), source):
        bead, said = bead_of(Row(facts, source, number)), str(facts.get("id"))
        line, there, name = found.get(bead.id, (number, bead, said))
        if name != said:
            raise InvalidDocument(source, number, "id", f"{said!r} and {name!r} on line {line} are one id to us")
        if there is not bead:
            kept, left = (number, line) if _rank(bead) >= _rank(there) else (line, number)
            notes.append(f"{source}:{left}: {bead.id} is on line {kept}, too, and younger there")
        found[bead.id] = (number, bead, said) if _rank(bead) >= _rank(there) else (line, there, name)
    beads = {bead.id: bead for _, bead, _ in found.values()}
    waited = {edge.on for bead in beads.values() for edge in bead.dependencies if edge.type == "conditional-blocks"}
    return Document(tuple(_placed(_judged(bead, waited), beads) for bead in beads.values()), tuple(notes))


def _rank(bead: Bead) -> tuple[bool, Any]:
    return bead.deleted, bead.updated_at


def _judged(bead: Bead, waited: set[str]) -> Bead:
    """Where something waits for a failure, any word of ``bd`` in the reason is one."""
    if bead.id in waited and bead.outcome == "done" and failed(bead.close_reason):
        return bead.evolve(outcome="rejected")
    return bead


def _placed(bead: Bead, beads: dict[str, Bead]) -> Bead:
    """A dotted id says whose part a bead is, unless a dependency does."""
    above = bead.id.rpartition(".")[0]
    kept = Kept.of(bead)
    if above not in beads or bead.parent is not None or kept is None:
        return bead
    edges = (*bead.dependencies, Dependency(on=above, type="parent-child"))
    return bead.evolve(**{"dependencies": edges, KEY: {"parent": above, **kept.table()}})


def _objects(lines: Iterator[bytes], source: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a file with their lines; blank lines are none."""
    for number, line in enumerate(lines, start=1):
        text = (line.removeprefix(codecs.BOM_UTF8) if number == 1 else line).strip()
        if _MARKER.match(text):
            _refuse_markers(number, text, lines, source)
        if text:
            yield number, _object(text, source, number)


def _object(text: bytes, source: str, number: int) -> dict[str, Any]:
    try:
        found = json.loads(text.decode(), parse_constant=_no_number, parse_float=_finite)
    except UnicodeDecodeError as error:
        raise InvalidDocument(
            source, number, "", f"not UTF-8: byte {error.start} is {text[error.start]:#04x}"
        ) from error
    except json.JSONDecodeError as error:
        hint = "Write one object a line." if text[:1] in b"[{" and len(text) == 1 else "Nothing was imported."
        raise InvalidDocument(source, number, "", f"not JSON: {error.msg} at column {error.colno}", hint) from error
    except (ValueError, RecursionError) as error:
        problem = "nested too deep" if isinstance(error, RecursionError) else str(error)
        raise InvalidDocument(source, number, "", f"not JSON: {problem}", "Nothing was imported.") from error
    if not isinstance(found, dict):
        raise InvalidDocument(source, number, "", "must be an object", "Write one object a line.")
    return found


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number")


def _finite(text: str) -> float:
    number = float(text)
    return number if abs(number) != float("inf") else _no_number(text)


def _refuse_markers(number: int, text: bytes, rest: Iterator[bytes], source: str) -> NoReturn:
    """Name every marker, so that all of them can be resolved at once."""
    found = [(number, text)]
    found += [(n, line) for n, line in enumerate(rest, start=number + 1) if _MARKER.match(line)]
    shown = ", ".join(f"{line[:7].decode()} on line {n}" for n, line in found[:_LINES_SHOWN_MAX])
    more = f" and {len(found) - _LINES_SHOWN_MAX} more" if len(found) > _LINES_SHOWN_MAX else ""
    problem = f"has the markers of a merge that somebody has to resolve: {shown}{more}"
    raise InvalidDocument(source, number, "", problem, "Nothing was imported; resolve them and import again.")
