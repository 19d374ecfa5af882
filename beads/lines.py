"""Where each key of a TOML document is written, which no TOML library tells.

Reads documents that ``tomllib`` has accepted, so it only has to tell keys, strings, brackets and line ends apart.
Of anything else it reads as much as makes sense.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

Place = tuple[str | int, ...]

# Strings of several lines may end in up to five quotes, of which the first two belong to the text.
_TOKENS = re.compile(
    r'''
    (?P<skip>[ \t\r]+|\#[^\n]*)
    |(?P<text>"""(?:[^"\\]++|\\.|"(?!""))*+""""{0,2}|\'\'\'(?:[^']++|'(?!''))*+\'\'\''{0,2}
             |"(?:[^"\\\n]++|\\.)*+"|'[^'\n]*')
    |(?P<mark>[][{}=,.\n])
    |(?P<bare>[^][{}=,.\s\#"']++|.)
    ''',
    re.VERBOSE | re.DOTALL,
)


def places(text: str) -> dict[Place, int]:
    """The line, counted from 1, on which each table, key and array element of a document is written.

    A table that is only spoken of, such as ``a`` in ``[a.b]``, is on the line that speaks of it first.
    """
    reader = _Reader(text)
    reader.document()
    return {**reader.implied, **reader.written}


class _Reader:
    def __init__(self, text: str) -> None:
        self.written: dict[Place, int] = {}
        self.implied: dict[Place, int] = {}
        self._counts: dict[Place, int] = {}
        self._tokens = _tokens(text)
        self._kind, self._token, self._line = next(self._tokens)

    def document(self) -> None:
        """Read all of it."""
        table: Place = ()
        while self._kind:
            if self._token == "[":
                table = self._header()
            elif self._token != "\n":
                self._pair(table)
            while self._kind and self._token != "\n":
                self._next()
            self._next()

    def _next(self) -> None:
        self._kind, self._token, self._line = next(self._tokens, ("", "", self._line))

    def _header(self) -> Place:
        line = self._line
        self._next()
        repeated = self._token == "["
        if repeated:
            self._next()
        *above, last = self._key() or [""]
        place: Place = ()
        for part in above:
            place = self._newest((*place, part))
            self.implied.setdefault(place, line)
        place = (*place, last)
        if repeated:
            self.implied.setdefault(place, line)
            self._counts[place] = self._counts.get(place, -1) + 1
            place = self._newest(place)
        self.written[place] = line
        return place

    def _newest(self, place: Place) -> Place:
        """The table that a part of a header means: of an array of tables, the last so far."""
        return (*place, self._counts[place]) if place in self._counts else place

    def _pair(self, table: Place) -> None:
        line, place = self._line, table
        for part in self._key():
            place = (*place, part)
            self.implied.setdefault(place, line)
        if self._token == "=":
            self._next()
            self.written[place] = line
            self._value(place)

    def _key(self) -> list[str]:
        parts: list[str] = []
        while self._kind in ("text", "bare") or self._token == ".":
            if self._token != ".":
                parts.append(_unquoted(self._token) if self._kind == "text" else self._token)
            self._next()
        return parts

    def _value(self, place: Place) -> None:
        if self._token == "[":
            self._array(place)
        elif self._token == "{":
            self._inline(place)
        else:
            while self._kind and (self._kind != "mark" or self._token in ".="):
                self._next()

    def _array(self, place: Place) -> None:
        index = 0
        self._next()
        while self._kind and self._token != "]":
            if self._token in (",", "\n"):
                index += self._token == ","
                self._next()
            elif self._token == "}":
                return
            else:
                self.written[(*place, index)] = self._line
                self._value((*place, index))
        self._next()

    def _inline(self, place: Place) -> None:
        self._next()
        while self._kind and self._token != "}":
            if self._kind == "mark":
                self._next()
            else:
                self._pair(place)
        self._next()


def _tokens(text: str) -> Iterator[tuple[str, str, int]]:
    """The tokens with their kinds and lines; a line ends with a line feed, and with no other separator."""
    line = 1
    for found in _TOKENS.finditer(text):
        kind, token = found.lastgroup or "", found.group()
        if kind != "skip":
            yield kind, token, line
        line += token.count("\n")
    yield "", "", line


def _unquoted(token: str) -> str:
    import tomllib

    try:
        return next(iter(tomllib.loads(f"{token} = 0")))
    except tomllib.TOMLDecodeError:
        return token
