"""What single values of a foreign row mean to us, and what is wrong with them: named by file, line and key. Pure."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from beads.errors import InvalidDocument, InvalidInput
from beads.interchange.kept import is_text
from beads.model import check_id, milliseconds

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
"""When something happened of which a file does not say when."""

_TITLE_MAX = 500
_SHOWN_MAX = 80


class Row:
    """One line of a file: its facts, and how to say what is wrong with them.

    Args:
        facts: the JSON object.
        source: the file's name.
        line: the line, counted from 1.
        place: the key of the row that this is a part of, with a dot behind it.
    """

    def __init__(self, facts: dict[str, Any], source: str = "the row", line: int = 0, place: str = "") -> None:
        self.facts = facts
        self.source = source
        self.line = line
        self._place = place

    def fault(self, key: str, problem: str, hint: str = "") -> InvalidDocument:
        """The error to raise for what is wrong with a key."""
        hint = hint or "Nothing was imported; mend that line."
        return InvalidDocument(self.source, self.line, f"{self._place}{key}", problem, hint)

    def text(self, key: str) -> str:
        """A text; empty when there is none."""
        value = self.facts.get(key)
        if value is not None and not isinstance(value, str):
            raise self.fault(key, f"must be a text, not {_shown(value)}")
        return clean(value or "")

    def moment(self, key: str) -> datetime | None:
        """A point in time, as the store keeps it; None when there is none. Without a zone it is one in UTC."""
        text = self.text(key).strip()
        try:
            found = datetime.fromisoformat(text) if text else None
            return found and milliseconds(found if found.tzinfo else found.replace(tzinfo=UTC))
        except (ValueError, OverflowError) as error:
            raise self.fault(key, f"{_shown(text)} is not a moment such as 2026-01-31T12:00:00Z") from error

    def number(self, key: str, default: int) -> int:
        """A whole number."""
        value = self.facts.get(key)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.fault(key, f"must be a whole number, not {_shown(value)}")
        return value

    def items(self, key: str) -> list[Any]:
        """A list; empty when there is none."""
        value = self.facts.get(key)
        if value is not None and not isinstance(value, list):
            raise self.fault(key, f"must be a list, not {_shown(value)}")
        return value or []

    def texts(self, key: str) -> list[str]:
        """A list of texts."""
        for index, value in enumerate(self.items(key)):
            if not isinstance(value, str):
                raise self.fault(f"{key}[{index}]", f"must be a text, not {_shown(value)}")
        return [clean(value) for value in self.items(key)]

    def rows(self, key: str) -> Iterator[Row]:
        """A list of objects."""
        for index, value in enumerate(self.items(key)):
            if not isinstance(value, dict):
                raise self.fault(f"{key}[{index}]", f"must be an object, not {_shown(value)}")
            yield Row(value, self.source, self.line, f"{self._place}{key}[{index}].")


def clean(text: str) -> str:
    """The text, with a question mark for each half of a character, which no file of ours can hold."""
    return text if is_text(text) else text.encode(errors="replace").decode()


def one_line(text: str) -> str:
    """The text as a title of ours can be: one line of at most 500 characters."""
    if len(text) > _TITLE_MAX or any(ord(character) < 32 for character in text):
        text = re.sub("[\x00-\x1f]+", " ", text)[:_TITLE_MAX]
    return text


def word(text: str, separators: str = "-") -> str:
    """A name in the letters that types have with us: ``parent_child`` is ``parent-child``."""
    if re.fullmatch(rf"[a-z][a-z0-9{separators}]{{0,49}}", text):
        return text
    slug = re.sub(rf"[^a-z0-9{separators}]+", "-", text.lower()).strip("-_")
    return (slug if re.match("[a-z]", slug) else f"x-{slug}".rstrip("-"))[:50]


def our_id(text: str) -> str:
    """The id itself where it can be one with us, otherwise one that follows from it and from nothing else."""
    try:
        return check_id(text)
    except InvalidInput:
        slug = re.sub(r"[^A-Za-z0-9_-]+", "-", text).strip("-")[:80] or "id"
        return f"{slug}-{hashlib.sha256(text.encode(errors='surrogatepass')).hexdigest()[:8]}"


def made_id(bead_id: str) -> bool:
    """Whether :func:`our_id` may have made it of something else."""
    return re.search(r"-[0-9a-f]{8}$", bead_id) is not None


def json_text(text: object) -> dict[str, Any]:
    """The object that is written as JSON in a text, or is one already; empty when there is none."""
    if isinstance(text, str):
        try:
            text = json.loads(text)
        except (ValueError, RecursionError):
            return {}
    return text if isinstance(text, dict) else {}


def _shown(value: object) -> str:
    written = json.dumps(value) if not isinstance(value, str) else repr(value)
    return written if len(written) <= _SHOWN_MAX else f"{written[:_SHOWN_MAX]}…"
