"""TOML in and out: the bytes of a bead, and documents people write, checked with line and key.

Two promises. What is written is deterministic and reads back byte for byte, whatever the text holds. What is
read from a person and does not fit is refused with the file, the line, the key and the nearest known key.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterator
from typing import Any, TypeVar, get_args

import tomli_w
from pydantic import BaseModel, ValidationError

from beads.errors import InvalidDocument, InvalidInput

Model = TypeVar("Model", bound=BaseModel)
Place = tuple[str | int, ...]


def dumps(data: dict[str, Any]) -> bytes:
    """The UTF-8 TOML of ``data``, keys in the order given; multi-line text as lines, so that diffs read well.

    Raises:
        InvalidInput: a string holds lone surrogates, which no encoding of Unicode text can carry.
    """
    # TOML folds CR LF inside multi-line strings to LF, so text with a CR goes on one escaped line instead.
    text = tomli_w.dumps(data, multiline_strings=not any("\r" in s for s in _strings(data)))
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        bad = text[error.start : error.start + 1]
        raise InvalidInput(f"text holds {bad!r}, which is not Unicode text", "Remove it or encode it.") from error


def loads(data: bytes, source: str) -> dict[str, Any]:
    """Parse TOML.

    Raises:
        InvalidDocument: not UTF-8 or not TOML; names ``source`` and the line.
    """
    try:
        return tomllib.loads(data.decode())
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InvalidDocument(source, line, "", "not UTF-8 text") from error
    except tomllib.TOMLDecodeError as error:
        problem = str(error)
        found = re.search(r" \(at line (\d+), column (\d+)\)$", problem)
        line = int(found.group(1)) if found else data.count(b"\n") + 1
        raise InvalidDocument(source, line, "", problem[: found.start()] if found else problem) from error
    except ValueError as error:
        # Python refuses to convert numbers of thousands of digits, and tomllib lets that through.
        raise InvalidDocument(source, 0, "", f"a number cannot be read: {error}") from error
    except RecursionError as error:
        raise InvalidDocument(source, 0, "", "arrays or tables are nested too deep") from error


def validate(model: type[Model], data: dict[str, Any], text: bytes, source: str, prefix: Place = ()) -> Model:
    """Make ``model`` of parsed ``data``, or say where in ``text`` it does not fit.

    Args:
        model: the pydantic model; unknown keys are errors when it forbids them.
        data: the parsed table.
        text: the document it came from, for line numbers.
        source: the document's name for the message.
        prefix: where ``data`` hangs in the document, such as ``("gate",)``.

    Raises:
        InvalidDocument: with the first problem's line, key, and the nearest known key for an unknown one.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        # The last part of an unknown key is the user's own word, whatever it looks like.
        unknown = first["loc"][-1:] if first["type"] == "extra_forbidden" else ()
        named = first["loc"][: len(first["loc"]) - len(unknown)]
        inner = (*(part for part in named if not _is_tag(part)), *unknown)
        place = (*prefix, *inner)
        problem, hint = first["msg"].removeprefix("Value error, "), ""
        if first["type"] == "extra_forbidden":
            known = _fields(model, inner[:-1])
            problem = f"unknown key {inner[-1]!r}"
            near = difflib.get_close_matches(str(inner[-1]), known, n=1, cutoff=0.5)
            hint = f"Did you mean {near[0]!r}?" if near else f"Known keys: {', '.join(sorted(known))}."
        elif first["type"] == "missing":
            problem = "is missing"
        elif not isinstance(first["input"], dict | list):
            problem = f"{problem}, not {_short(first['input'])}"
        raise InvalidDocument(source, line_of(text, place), dotted(place), problem, hint) from error


def _short(value: object) -> str:
    """The value as it would be written, cut where nobody reads on."""
    written = repr(value)
    return written if len(written) <= 200 else f"{written[:200]}…"


def dotted(place: Place) -> str:
    """A place in a document as people write it: ``molecules[0].steps[1].needs``."""
    return "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in place).lstrip(".")


def line_of(text: bytes, place: Place) -> int:
    """The line, counted from 1, on which ``place`` or its nearest written ancestor starts; 0 when none is.

    >>> line_of(b'a = 1\\n[[m]]\\nid = "x"\\n[[m]]\\nid = "y"\\n', ("m", 1, "id"))
    5
    """
    lines = dict(_positions(text.decode(errors="replace")))
    for length in range(len(place), 0, -1):
        if place[:length] in lines:
            return lines[place[:length]]
    return 0


_KEY = r"""(?:[A-Za-z0-9_-]+|"(?:[^"\\]|\\.)*"|'[^']*')"""
_NAME = rf"{_KEY}(?:\s*\.\s*{_KEY})*"
_HEADER = re.compile(rf"\s*(\[\[?)\s*({_NAME})\s*\]\]?\s*(?:#.*)?$")
_ASSIGNMENT = re.compile(rf"\s*({_NAME})\s*=\s*(.*)$")


def _positions(text: str) -> Iterator[tuple[Place, int]]:
    """Where each table and key of a valid document is written; keys inside inline tables are not listed."""
    counts: dict[Place, int] = {}
    table: Place = ()
    closing = ""
    # A line of TOML ends with a line feed only; splitlines() would also count U+2028 and form feeds inside text.
    for number, line in enumerate(text.split("\n"), start=1):
        if closing:
            closing = "" if closing in line else closing
        elif header := _HEADER.match(line):
            table = _table(header.group(2), header.group(1) == "[[", counts)
            yield table, number
        elif assignment := _ASSIGNMENT.match(line):
            yield (*table, *_parts(assignment.group(1))), number
            closing = _opened(assignment.group(2))


def _table(name: str, repeated: bool, counts: dict[Place, int]) -> Place:
    """The place a header opens, counting the tables of each array seen so far."""
    place: Place = ()
    parts = _parts(name)
    for part in parts[:-1]:
        place = (*place, part)
        place = (*place, counts[place]) if place in counts else place
    place = (*place, parts[-1])
    if repeated:
        counts[place] = counts.get(place, -1) + 1
        place = (*place, counts[place])
    return place


def _parts(name: str) -> list[str]:
    return [part.strip("\"'") for part in re.findall(_KEY, name)]


def _opened(value: str) -> str:
    """The delimiter of a multi-line string that this value opens and does not close."""
    for quote in ('"""', "'''"):
        if value.startswith(quote) and quote not in value[3:]:
            return quote
    return ""


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _strings(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _strings(inner)


def _is_tag(part: str | int) -> bool:
    """Pydantic puts names of validators and union branches into a location; they are not keys."""
    return isinstance(part, str) and ("[" in part or ("-" in part and "function" in part))


def _fields(model: type[BaseModel], place: Place) -> list[str]:
    """The keys known at ``place`` inside ``model``."""
    here: Any = model
    for part in place:
        if isinstance(part, str) and isinstance(here, type) and issubclass(here, BaseModel):
            here = next((f.annotation for n, f in here.model_fields.items() if part in (n, f.alias)), None)
        here = _model_in(here)
    if not (isinstance(here, type) and issubclass(here, BaseModel)):
        return []
    return [field.alias or name for name, field in here.model_fields.items()]


def _model_in(annotation: object) -> object:
    """The model inside ``list[Model]``, ``Model | None`` and the like."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for arg in get_args(annotation) if (found := _model_in(arg)) is not None), None)
