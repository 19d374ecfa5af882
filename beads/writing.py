"""TOML as the store writes it: one layout for one content, in which each fact and each line of text has its own line.

It is the layout of tomli-w, which wrote the store before, to the byte: docs/decisions/0022-toml-is-written-by-us.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import date, time
from functools import lru_cache
from typing import Any

_INDENT = "    "
_WIDTH = 100
"""How long the line of a table may be that is written on one line."""

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_SPECIAL = re.compile(r'[\x00-\x08\x0a-\x1f"\\\x7f]')
_ESCAPES = {"\b": "\\b", "\n": "\\n", "\f": "\\f", "\r": "\\r", '"': '\\"', "\\": "\\\\"}


class _ReturnFound(Exception):
    """A text holds a carriage return, which TOML would not keep in a text of several lines."""


def written(data: Mapping[str, Any]) -> str:
    """The TOML of ``data``, keys in the order given.

    Texts of several lines are written as such, unless a carriage return is in any of them.

    Raises:
        TypeError, ValueError: a key or a value is of a kind that TOML does not have.
    """
    try:
        return "".join(_table(data, "", in_array=False, lines=True))
    except _ReturnFound:
        return "".join(_table(data, "", in_array=False, lines=False))


def _table(table: Mapping[str, Any], name: str, *, in_array: bool, lines: bool) -> Iterator[str]:
    """A table with its header, and the tables in it after everything else, as TOML demands."""
    literals: list[str] = []
    inner: list[tuple[str, Mapping[str, Any], bool]] = []
    for key, value in table.items():
        if isinstance(value, Mapping):
            inner.append((_key(key), value, False))
        elif isinstance(value, list | tuple) and value and all(isinstance(one, Mapping) for one in value):
            rows = [_inline(one, lines) for one in value]
            if all(len(row) + len(_INDENT) < _WIDTH and "\n" not in row for row in rows):
                literals.append(f"{_key(key)} = [\n{_INDENT}" + f",\n{_INDENT}".join(rows) + ",\n]\n")
            else:
                inner += [(_key(key), one, True) for one in value]
        else:
            literals.append(f"{_key(key)} = {_value(value, lines, 0)}\n")
    header = f"[[{name}]]\n" if in_array else f"[{name}]\n" if name and (literals or not inner) else ""
    yield header
    yield from literals
    begun = bool(header or literals)
    for key, one, several in inner:
        yield "\n" if begun else ""
        begun = True
        yield from _table(one, f"{name}.{key}" if name else key, in_array=several, lines=lines)


def _value(value: object, lines: bool, depth: int) -> str:
    if isinstance(value, str):
        return _text(value, lines) if _SPECIAL.search(value) else f'"{value}"'
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float | date):
        return str(value)
    if isinstance(value, list | tuple):
        if not value:
            return "[]"
        indent = _INDENT * depth
        items = "".join(f"{indent}{_INDENT}{_value(one, lines, depth + 1)},\n" for one in value)
        return f"[\n{items}{indent}]"
    if isinstance(value, Mapping):
        return _inline(value, lines)
    if isinstance(value, time) and value.tzinfo is None:
        return str(value)
    raise TypeError(f"{value!r} is of type {type(value).__qualname__}")


def _inline(table: Mapping[str, Any], lines: bool) -> str:
    if not table:
        return "{}"
    return "{ " + ", ".join([f"{_key(key)} = {_value(value, lines, 0)}" for key, value in table.items()]) + " }"


@lru_cache(1_000)
def _key(key: str) -> str:
    return key if _BARE.fullmatch(key) else _text(key, lines=False)


def _text(text: str, lines: bool) -> str:
    if lines and "\r" in text:
        raise _ReturnFound
    if not lines or "\n" not in text:
        return f'"{_SPECIAL.sub(_escaped, text)}"'
    return '"""\n' + _SPECIAL.sub(lambda found: "\n" if found[0] == "\n" else _escaped(found), text) + '"""'


def _escaped(found: re.Match[str]) -> str:
    return _ESCAPES.get(found[0]) or f"\\u{ord(found[0]):04x}"
