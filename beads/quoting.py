"""Where in a shell line a value may stand, so that data never becomes a command.

A shell line with ``{{name}}`` in it is read as the shell would read it, as far as quotes, comments, substitutions and
here-documents go. A quoted value means itself only where nothing around it has a say in how quotes are read; each
other spot is told in words. This is no parser of shell: where what follows could be read in two ways, by ``sh`` and
by ``bash`` or because of what stands inside a substitution, everything after it is refused.
"""

from __future__ import annotations

import functools
import re
from typing import NamedTuple

PLACEHOLDER = re.compile(r"\{\{[ \t]*([A-Za-z_][A-Za-z0-9_]*)[ \t]*\}\}")
"""Where a value goes. Other templates' ``{{.Name}}``, ``{{#if}}`` and ``{{a.b}}`` are none of these."""

DOUBT = "where quotes cannot be followed"

_HERE_DOCUMENT = re.compile(r"<<(-?)[ \t]*(?:'([\w.-]+)'|\"([\w.-]+)\"|\\([\w.-]+)|([\w.-]+))(?=[ \t\n;|&<>)]|$)")
_REDIRECTED = re.compile(rf"(?:{PLACEHOLDER.pattern})*[<>]")
_CASE = re.compile(r"case\b")
_IN_WORDS = {
    "single": "inside single quotes",
    "double": "inside double quotes",
    "backquote": "inside backquotes",
    "comment": "in a comment",
    "parameter": "inside ${…}",
    "arithmetic": "inside $((…))",
}


class Spot(NamedTuple):
    """A placeholder in a shell line.

    Attributes:
        start: where it begins.
        end: where it has ended.
        name: what it stands for.
        where: what surrounds it and has a say in quotes, in words; empty where a quoted value means itself.
        closed: whether no value at all may stand here, since even a plain word would mean something else: the end
            of a here-document, or a variable.
        number: whether a plain number here would be the number of a file that is redirected.
    """

    start: int
    end: int
    name: str
    where: str
    closed: bool = False
    number: bool = False


@functools.lru_cache(maxsize=1024)
def spots(line: str) -> tuple[Spot, ...]:
    """The placeholders of a shell line, in order, and what surrounds each."""
    reader = _Reader(line)
    reader.read()
    return tuple(reader.found[start] for start in sorted(reader.found))


class _Reader:
    """Reads a line from left to right; ``inside`` is what has been opened and not closed, innermost last."""

    def __init__(self, line: str) -> None:
        self.line = line
        self.places = {found.start(): found for found in PLACEHOLDER.finditer(line)}
        # In doubt until it was reached. After what may begin a here-document, even a plain word could be its end.
        self.found = {
            at: Spot(at, found.end(), found[1], DOUBT, "<<" in line[:at]) for at, found in self.places.items()
        }
        self.at = 0
        self.inside: list[str] = []
        self.depths: list[int] = []
        self.word = False
        self.pending: list[re.Match[str]] = []

    def read(self) -> None:
        while self.at < len(self.line):
            here = self.inside[-1] if self.inside else "plain"
            if self.at in self.places:
                self._spot(_IN_WORDS.get(here) or next((_IN_WORDS[i] for i in self.inside if i in _IN_WORDS), ""))
            elif not getattr(self, f"_{here}")(self.line[self.at]):
                return

    def _spot(self, where: str, closed: bool = False) -> None:
        found = self.places[self.at]
        redirected = _REDIRECTED.match(self.line, found.end()) is not None
        self.found[self.at] = Spot(self.at, found.end(), found[1], where, closed, redirected)
        self.at, self.word = found.end(), True

    def _step(self, width: int = 1, word: bool = True) -> bool:
        self.at += width
        self.word = word
        return True

    def _push(self, what: str, width: int = 1, depth: int = 0) -> bool:
        self.inside.append(what)
        self.depths.append(depth)
        return self._step(width, word=False)

    def _pop(self) -> bool:
        self.inside.pop()
        self.depths.pop()
        return self._step()

    def _plain(self, c: str) -> bool:
        """What is not quoted, at the top or in ``$(…)``; each of these returns False where doubt begins."""
        if c in "'\"`":
            return self._push({"'": "single", '"': "double", "`": "backquote"}[c])
        if c == "\\":
            return self._backslash()
        if c == "$":
            return self._dollar()
        if c == "#" and not self.word:
            return self._push("comment")
        if c in " \t\n;&|<>()":
            return self._operator(c)
        if "command" in self.inside and not self.word and _CASE.match(self.line, self.at):
            return False  # Its patterns end in a parenthesis that closes nothing.
        return self._step()

    _command = _plain

    def _operator(self, c: str) -> bool:
        nested = bool(self.inside)
        if c == "\n" and self.pending:
            return not nested and self._bodies()
        if self.line.startswith("<<", self.at):
            return not nested and self._here_document()
        # Two parentheses are arithmetic to one shell and a shell within a shell to another.
        if self.line.startswith("((", self.at):
            return False
        if nested and c == "(":
            self.depths[-1] += 1
        if nested and c == ")":
            self.depths[-1] -= 1
            if not self.depths[-1]:
                return self._pop()
        return self._step(word=False)

    def _backslash(self) -> bool:
        self.at += 1
        if self.at in self.places:
            self._spot("after a backslash")
            return True
        # A line that goes on leaves a word where it was; before a here-document's text that is a matter of taste.
        if self.line.startswith("\n", self.at):
            self.at += 1
            return not self.pending
        return self._step()

    def _dollar(self) -> bool:
        rest = self.line[self.at + 1 : self.at + 3]
        if self.at + 1 in self.places:
            self.at += 1
            self._spot("after a $", closed=True)
            return True
        if rest == "((":
            return self._push("arithmetic", 3, depth=2)
        if rest[:1] == "(":
            return self._push("command", 2, depth=1)
        if rest[:1] == "{":
            return self._push("parameter", 2)
        # These mean something to bash and nothing to others.
        doubtful = rest[:1] == "[" or (rest[:1] == "'" and "double" not in self.inside[-1:])
        return not doubtful and self._step()

    def _single(self, c: str) -> bool:
        return self._pop() if c == "'" else self._quoted(c)

    def _double(self, c: str) -> bool:
        if c == '"':
            return self._pop()
        if c == "\\":
            return self._backslash()
        if c == "`":
            return self._push("backquote")
        return self._dollar() if c == "$" else self._quoted(c)

    def _backquote(self, c: str) -> bool:
        if c == "\\":
            return self._backslash()
        return self._pop() if c == "`" else self._quoted(c)

    def _comment(self, c: str) -> bool:
        if c != "\n":
            return self._step()
        self._pop()
        self.at -= 1
        return self._step(0, word=False)

    def _parameter(self, c: str) -> bool:
        if c in "'\"`\\":
            return False
        if c == "}":
            return self._pop()
        return self._dollar() if c == "$" else self._quoted(c)

    def _arithmetic(self, c: str) -> bool:
        if c in "'\"`\\":
            return False
        if c == "$":
            return self._dollar()
        self.depths[-1] += (c == "(") - (c == ")")
        return self._pop() if not self.depths[-1] else self._quoted(c)

    def _quoted(self, c: str) -> bool:
        """A character that is only text, unless a here-document waits for the end of this line."""
        return not (c == "\n" and self.pending) and self._step()

    def _here_document(self) -> bool:
        found = _HERE_DOCUMENT.match(self.line, self.at)
        if found is None:
            return False
        self.pending.append(found)
        return self._step(len(found[0]))

    def _bodies(self) -> bool:
        """The texts of the here-documents that began on the line that ends here."""
        self.at += 1
        for opening in self.pending:
            if not self._body(next(filter(None, opening.groups()[1:])), bool(opening[1]), bool(opening[5])):
                return False
        self.pending = []
        return self._step(0, word=False)

    def _body(self, delimiter: str, tabs: bool, expands: bool) -> bool:
        while self.at < len(self.line):
            start, end = self.at, self.line.find("\n", self.at)
            end = len(self.line) if end < 0 else end
            text = self.line[start:end].lstrip("\t") if tabs else self.line[start:end]
            literal = PLACEHOLDER.split(text)[::2]
            ends = re.fullmatch(".*".join(map(re.escape, literal)), delimiter) is not None
            for place in [place for place in self.places if start <= place < end]:
                self.at = place
                self._spot("inside a here-document", closed=ends)
            self.at = end + 1
            if text == delimiter:
                return True
            # What is substituted in it may have lines of its own, and a backslash joins two.
            if expands and re.search(r"`|\$\(|\$\{[^}]*$|\\$", text):
                return False
        return True
