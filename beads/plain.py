"""Beads in which nothing has to be escaped, written and read without a library for TOML. Pure.

Nearly all beads are of a few plain facts and what they depend on, and a plan may make a million of them. What is
written here is what ``beads/toml.py`` would write, to the byte, and what is read is what it would read; of everything
that is not as plain as that nothing is said here, and it has to be asked.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from beads.model import Bead, Dependency

_LINE_MAX = 100
"""A table of an array has a line of its own when that is no longer; otherwise it has a header."""

_TEXT = r'"([^"\\\x00-\x1f\x7f]*)"'
_NUMBER = r"(0|[1-9]\d{0,17})"
_MOMENT = r"(\d{4}-\d\d-\d\d (?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d{6})?\+00:00)"
_ROWS = r'\[\n((?:    \{ on = "[\w.-]+", type = "[a-z0-9-]+" \},\n)+)\]'
_FACT = rf"([a-z_]+) = (?:{_TEXT}|{_NUMBER}|{_MOMENT}|{_ROWS})\n"

_fact = re.compile(_FACT, re.ASCII)
_facts = re.compile(f"(?:{_FACT})*", re.ASCII)
_row = re.compile(r'on = "([^"]+)", type = "([^"]+)"')


def written(bead: Bead) -> bytes | None:
    """The bytes of a bead; None when something in it is not plain."""
    if bead.model_extra:
        return None
    lines: list[str] = []
    there = bead.__dict__
    for name in _names(type(bead)):
        value = there[name]
        kind = type(value)
        if kind is str:
            if value:
                if not _is_plain(value):
                    return None
                lines.append(f'{name} = "{value}"\n')
        elif kind is int or kind is datetime:
            lines.append(f"{name} = {value}\n")
        elif name == "dependencies":
            if value:
                rows = _rows(value)
                if rows is None:
                    return None
                lines.append(f"dependencies = [\n{rows}]\n")
        elif value is not None and value != ():
            return None
    return "".join(lines).encode()


@cache
def _names(kind: type[Bead]) -> tuple[str, ...]:
    """The fields of a bead, in the order in which they are written."""
    return tuple(kind.model_fields)


def _rows(dependencies: Iterable[Dependency]) -> str | None:
    rows: list[str] = []
    for one in dependencies:
        # Neither an id nor a type has anything in it that would have to be escaped.
        row = f'    {{ on = "{one.on}", type = "{one.type}" }},'
        if one.gate or one.model_extra or len(row) > _LINE_MAX:
            return None
        rows.append(f"{row}\n")
    return "".join(rows)


def _is_plain(text: str) -> bool:
    return text.isprintable() and '"' not in text and "\\" not in text


def read(data: bytes) -> dict[str, Any] | None:
    """What a bead's bytes say; None when something in them is not plain."""
    found: dict[str, Any] = {}
    try:
        text = data.decode()
        if not _facts.fullmatch(text):
            return None
        facts = _fact.findall(text)
        for key, words, number, moment, rows in facts:
            if rows:
                found[key] = [{"on": on, "type": type_} for on, type_ in _row.findall(rows)]
            else:
                found[key] = int(number) if number else datetime.fromisoformat(moment) if moment else words
    except ValueError:
        # It is no text in UTF-8, or there is no such day.
        return None
    # A key that is there twice is for those to complain of who know where.
    return found if len(found) == len(facts) else None
