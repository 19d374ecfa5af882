"""TOML in and out: the bytes of a bead, and documents people write, checked with line and key.

Two promises. What is written is deterministic and reads back byte for byte, whatever the text holds. What is
read from a person and does not fit is refused with the file, the line, the key and the nearest known key.
"""

from __future__ import annotations

import functools
from collections.abc import Container, Iterator, Mapping
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, Union, get_args, get_origin

from beads.errors import InvalidDocument, InvalidInput

if TYPE_CHECKING:
    from pydantic import BaseModel

    from beads.lines import Place

__all__ = ["Document", "dotted", "dumps", "line_of", "loads", "validate"]

Model = TypeVar("Model", bound="BaseModel")


class Document:
    """A text that a person wrote, and what it is called: it can say where in it something is written.

    Attributes:
        text: the text, without the byte order mark that some editors on Windows begin every file with.
        source: its name for messages.
    """

    def __init__(self, text: bytes, source: str) -> None:
        import codecs

        self.text = text.removeprefix(codecs.BOM_UTF8)
        self.source = source

    @functools.cached_property
    def _lines(self) -> Mapping[Place, int]:
        from beads.lines import places

        return places(self.text.decode(errors="replace"))

    def line(self, place: Place) -> int:
        """The line on which ``place`` or its nearest written ancestor starts; 0 when none is."""
        return _nearest(self._lines, place)

    def fault(self, place: Place, problem: str, hint: str = "") -> InvalidDocument:
        """The error to raise for what is wrong at ``place``."""
        return InvalidDocument(self.source, self.line(place), dotted(place), problem, hint)

    def read(self) -> dict[str, Any]:
        """What it says; raises as :func:`loads` does."""
        return loads(self.text, self.source)

    def check(self, model: type[Model], data: dict[str, Any], prefix: Place = ()) -> Model:
        """As :func:`validate`, of what is written in this document."""
        return validate(model, data, self.text, self.source, prefix)


def dumps(data: dict[str, Any]) -> bytes:
    """The UTF-8 TOML of ``data``, keys in the order given; multi-line text as lines, so that diffs read well.

    Raises:
        InvalidInput: a string holds lone surrogates, which no encoding of Unicode text can carry, or a value is
            of a kind that TOML does not have, such as null.
    """
    import tomli_w

    # TOML folds CR LF inside multi-line strings to LF, so text with a CR goes on one escaped line instead.
    try:
        # To look into each string takes as long as writing it, so that only what may hold one is looked at.
        multiline = "\\r" not in repr(data) or not any("\r" in s for s in _strings(data))
        text = tomli_w.dumps(data, multiline_strings=multiline)
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"this cannot be written as TOML: {error}") from error
    except RecursionError as error:
        raise InvalidInput("this cannot be written as TOML: arrays or tables are nested too deep") from error
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
    import tomli

    try:
        return tomli.loads(data.decode())
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InvalidDocument(source, line, "", "not UTF-8 text") from error
    except tomli.TOMLDecodeError as error:
        import re

        problem = str(error)
        found = re.search(r" \(at line (\d+), column (\d+)\)$", problem)
        line = int(found.group(1)) if found else data.count(b"\n") + 1
        raise InvalidDocument(source, line, "", problem[: found.start()] if found else problem) from error
    except ValueError as error:
        # Python refuses to convert numbers of thousands of digits, and tomli lets that through.
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
    from pydantic import ValidationError

    try:
        return model.model_validate(data)
    except ValidationError as error:
        import difflib

        errors = error.errors(include_url=False)
        # A key that is missing is most likely the unknown one, mistyped.
        first = next((e for e in errors if e["type"] == "extra_forbidden"), errors[0])
        inner = _written(first["loc"], data, first["type"] == "missing")
        place = (*prefix, *inner)
        problem, hint = first["msg"].removeprefix("Value error, "), ""
        if first["type"] == "extra_forbidden":
            known = _fields(model, inner[:-1])
            problem = f"unknown key {inner[-1]!r}"
            near = difflib.get_close_matches(str(inner[-1]), known, n=1, cutoff=0.5)
            hint = f"Did you mean {near[0]!r}?" if near else f"Known keys: {', '.join(sorted(known))}." if known else ""
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
    return Document(text, "").line(place)


def _nearest(lines: Mapping[Place, int], place: Place) -> int:
    return next((lines[place[:length]] for length in range(len(place), 0, -1) if place[:length] in lines), 0)


def _written(location: Place, data: Any, missing: bool) -> Place:
    """A location without what no document says: pydantic also names validators and the branches of a union."""
    place: Place = ()
    for part in location:
        keys: Container[object] = data if isinstance(data, dict) else range(len(data)) if isinstance(data, list) else ()
        if part in keys:
            place, data = (*place, part), data[part]
    return (*place, location[-1]) if missing else place


def _fields(model: type[BaseModel], place: Place) -> list[str]:
    """The keys known at ``place`` inside ``model``."""
    from pydantic import BaseModel

    here: Any = model
    for part in place:
        here = _inside(here, part)
    found = next((one for one in _choices(here) if isinstance(one, type) and issubclass(one, BaseModel)), None)
    return [field.alias or name for name, field in found.model_fields.items()] if found else []


def _inside(annotation: object, part: str | int) -> object:
    """What stands at a key or an index of something annotated so; None when nothing is known of it."""
    from pydantic import BaseModel

    found: list[object] = []
    for one in _choices(annotation):
        if isinstance(one, type) and issubclass(one, BaseModel):
            found += [f.annotation for n, f in one.model_fields.items() if part in (n, f.alias)]
        elif arguments := get_args(one):
            # The value of a mapping, the element of a list or a tuple.
            found.append(arguments[1 if isinstance(part, str) and len(arguments) > 1 else 0])
    return found[0] if found else None


def _choices(annotation: object) -> list[object]:
    """The types that an annotation allows, without None and what is only said about them."""
    if get_origin(annotation) is Annotated:
        return _choices(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return [one for argument in get_args(annotation) for one in _choices(argument) if one is not NoneType]
    return [annotation]


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _strings(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _strings(inner)
