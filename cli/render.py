"""Answers for people and for programs: tables, colours and JSON.

On a terminal, columns are aligned, cut to its width, and coloured unless ``NO_COLOR`` is set. In a pipe a table
is one line of tab-separated cells for each row, whole, without headings. JSON is the same everywhere.
"""

from __future__ import annotations

import json
import os
import re
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from json.encoder import encode_basestring
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, TextIO

import click

from beads.criteria import in_words

if TYPE_CHECKING:
    from beads.graph import State
    from beads.model import Bead

Cell = str | tuple[str, str]
"""A text, or a text and its colour: ``("ready", "green")``. ``bold`` and ``dim`` are colours here."""

COLOURS: Mapping[str, str] = {
    "ready": "green",
    "running": "cyan",
    "queued": "magenta",
    "blocked": "yellow",
    "waiting": "dim",
    "deferred": "dim",
    "needs_person": "red",
    "closed": "dim",
}
"""The colour of each kind of state."""

# The fields that `bd` has, in its order, and what they are where nothing is said: an answer always has them all.
# What is only ours comes after them, where there is something to say.
_ALWAYS: Mapping[str, Any] = {
    "id": None,
    "title": "",
    "description": "",
    "status": "open",
    "priority": 2,
    "issue_type": "task",
    "assignee": "",
    "labels": (),
    "dependencies": (),
    "parent": None,
    "created_at": None,
    "created_by": "",
    "updated_at": None,
    "defer_until": None,
    "closed_at": None,
    "close_reason": "",
    "acceptance_criteria": "",
    "comments": (),
}

# Everything that could move a terminal's cursor or change what it shows: C0 and C1 controls but for the line feed
# and the tab, and the marks that reverse the direction of text. Lone surrogates, which stand for bytes of a file
# name that are no text, could not be printed at all.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_UNSAFE_IN_JSON = re.compile("[\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


_SCALARS = frozenset({bool, int, float, type(None)})


def echo_json(value: object) -> None:
    """Print a value as JSON, models and moments included."""
    click.echo(_safe(_indented(value, "")))


def json_text(value: object) -> str:
    """The JSON of a value on one line. Text stays readable, but for what a terminal would obey; that is escaped."""
    return _safe(json.dumps(plain(value), ensure_ascii=False))


def _safe(text: str) -> str:
    return _UNSAFE_IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _indented(value: object, margin: str) -> str:
    """As ``json.dumps`` with an indent, which has no compiled form and takes a second for ten thousand steps."""
    inner, kind = f"{margin}  ", type(value)
    if isinstance(value, str):
        return encode_basestring(value)
    if isinstance(value, dict) and value:
        pairs = [f"{encode_basestring(str(key))}: {_indented(one, inner)}" for key, one in value.items()]
        return f"{{\n{inner}" + f",\n{inner}".join(pairs) + f"\n{margin}}}"
    if isinstance(value, list) and value:
        return f"[\n{inner}" + f",\n{inner}".join([_indented(one, inner) for one in value]) + f"\n{margin}]"
    if kind in _SCALARS:
        return json.dumps(value)
    simple = plain(value)
    # What is plain already, and was not met above, is empty.
    return _indented(simple, margin) if type(simple) is not kind else json.dumps(simple)


def plain(value: object) -> Any:
    """The same in dictionaries, lists, texts, numbers and truths; moments as RFC 3339 with a Z."""
    if isinstance(value, datetime):
        return rfc3339(value)
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if hasattr(value, "_asdict"):
        return plain(value._asdict())
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(inner) for inner in value]
    if hasattr(value, "model_dump"):
        return plain(value.model_dump())
    if hasattr(value, "__dataclass_fields__"):
        return {name: plain(getattr(value, name)) for name in value.__dataclass_fields__}
    return str(value) if isinstance(value, PurePath) else value


def rfc3339(moment: datetime) -> str:
    """A moment as every answer has it: UTC, to the millisecond."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def bead_json(bead: Bead | Mapping[str, Any], state: State | None = None) -> dict[str, Any]:
    """A bead with the field names of ``bd``, and beside them what is ours.

    Args:
        bead: the bead, or what its file says.
        state: where it stands, when that was asked for; ``state`` is left out without.
    """
    if not isinstance(bead, Mapping):
        from beads.model import facts as facts_of

        bead = facts_of(bead)
    facts: dict[str, Any] = {**plain(_ALWAYS), **plain(bead)}
    edges = facts["dependencies"]
    facts["dependencies"] = [
        {"issue_id": facts["id"], "depends_on_id": edge.pop("on"), **_without_import(edge)} for edge in edges
    ]
    facts["comments"] = [{"issue_id": facts["id"], **_without_import(comment)} for comment in facts["comments"]]
    # What was imported under that name is prose, which nobody evaluates; our criteria come after it.
    said = facts["acceptance_criteria"]
    lines = [f"- {in_words(**criterion)}" for criterion in facts.get("criteria", ())]
    facts["acceptance_criteria"] = "\n".join([*([said] if isinstance(said, str) and said else []), *lines])
    parents = (edge["depends_on_id"] for edge in facts["dependencies"] if edge["type"] == "parent-child")
    facts["parent"] = next(parents, None)
    if state is not None:
        facts["state"] = {"kind": state.kind, "reason": state.reason, "waits_for": list(state.waits_for)}
    return {name: facts.pop(name) for name in _ALWAYS} | _without_import(facts)


def _without_import(facts: dict[str, Any]) -> dict[str, Any]:
    """Without what is kept of a foreign row only to give it back: ``bead export --to bd`` does."""
    return {name: value for name, value in facts.items() if name != "imported"}


def table(rows: Iterable[Sequence[Cell]], headers: Sequence[str]) -> str:
    """Rows in columns, to be printed; nothing when there are no rows.

    Args:
        rows: each has as many cells as there are headers.
        headers: the names of the columns, which only a terminal shows. The last column is the one that is cut
            when the terminal is narrow.
    """
    texts = [[_text(cell) for cell in row] for row in rows]
    if not sys.stdout.isatty():
        return "\n".join("\t".join(text for text, _ in row) for row in texts)
    return "\n".join(_aligned([[(header, "dim") for header in headers], *texts])) if texts else ""


def echo_table(rows: Iterable[Sequence[Cell]], headers: Sequence[str], nothing: str = "") -> None:
    """Print rows in columns; when there are none, say ``nothing`` to whoever sits at the terminal."""
    text = table(rows, headers)
    if text:
        click.echo(text)
    elif nothing and sys.stderr.isatty():
        click.echo(nothing, err=True)


def _aligned(rows: Sequence[Sequence[tuple[str, str]]]) -> Iterator[str]:
    import shutil

    widths = [max(width(row[column][0]) for row in rows) for column in range(len(rows[0]))]
    left = shutil.get_terminal_size().columns - sum(widths[:-1]) - 2 * (len(widths) - 1)
    for row in rows:
        last, colour = row[-1]
        cells = [style(text, of) + " " * (w - width(text)) for (text, of), w in zip(row[:-1], widths, strict=False)]
        yield "  ".join([*cells, style(cut(last, max(left, 10)), colour)]).rstrip()


def _text(cell: Cell) -> tuple[str, str]:
    """A cell as one safe line, and its colour."""
    text, colour = cell if isinstance(cell, tuple) else (cell, "")
    return re.sub(r"[\t\n]+", " ", printable(text)), colour


def printable(text: str) -> str:
    r"""Text that a terminal shows and does not obey: control characters as ``\x1b``, lines and tabs as they are."""
    return _UNSAFE.sub(
        lambda found: f"\\x{ord(found[0]):02x}" if ord(found[0]) < 256 else f"\\u{ord(found[0]):04x}", text
    )


def style(text: str, colour: str, stream: TextIO | None = None) -> str:
    """Text in a colour, where colours are wanted."""
    if not colour or not wants_colour(stream or sys.stdout):
        return text
    return click.style(text, **({colour: True} if colour in ("bold", "dim") else {"fg": colour}))


def wants_colour(stream: TextIO) -> bool:
    """Whether a stream is a terminal whose owner has not asked for no colour."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def width(text: str) -> int:
    """How many columns of a terminal a text takes: two for a wide character, none for a combining one."""
    if text.isascii():
        return len(text)
    return sum(_columns(character) for character in text)


def _columns(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def cut(text: str, columns: int) -> str:
    """The text in at most that many columns, with an ellipsis where something was left out."""
    if width(text) <= columns:
        return text
    kept, used = [], 1
    for character in text:
        used += _columns(character)
        if used > columns:
            break
        kept.append(character)
    return "".join(kept) + "…"


def fields(pairs: Iterable[tuple[str, Cell]]) -> None:
    """Print names and values, one pair a line, without those that have no value."""
    shown = [(name, *_text(value)) for name, value in pairs]
    for name, text, colour in shown:
        if text:
            click.echo(f"{style(f'{name:<11}', 'dim')} {style(text, colour)}")


def paragraph(title: str, text: str) -> None:
    """Print a heading and a text of any number of lines, when there is a text."""
    if text:
        click.echo(f"\n{style(title, 'bold')}")
        for line in printable(text).splitlines():
            click.echo(f"  {line}".rstrip())


def moment(when: datetime | None) -> str:
    """A moment for people, in UTC; empty for none."""
    return f"{when.astimezone(UTC):%Y-%m-%d %H:%M} UTC" if when else ""


def without_empty(value: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The pairs that say something: zero and false do, None and what is empty do not."""
    return ((key, inner) for key, inner in value.items() if inner not in (None, "", [], {}))
