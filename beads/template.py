"""Values in the place of ``{{name}}``: as text, as words of a shell line, or as what a regular expression matches.

A value is data wherever it stands. In a shell line it is one word, quoted where it has to be; in a regular expression
it matches itself; in prose and elsewhere it is put in as it is. It is not looked through for placeholders again.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from beads.quoting import PLACEHOLDER, Spot, spots

Value = str | tuple[str, ...]
"""What a variable stands for: a text, or a list of them."""

Key = tuple[str | int, ...]

_PLAIN = re.compile(r"[A-Za-z0-9_@%+=:,./-]+")
_SHELL = ("run", "rework")
_PROSE = ("title", "goal", "description")
_CONDITION = re.compile(rf"\s*(!)?\s*{PLACEHOLDER.pattern}\s*(?:(==|!=)(.*))?", re.DOTALL)


class Misplaced(Exception):
    """A value cannot stand where its placeholder is.

    Attributes:
        key: the keys and indexes from what was filled to the text.
        problem: what is wrong.
        hint: what to do about it.
    """

    def __init__(self, problem: str, hint: str = "", key: Key = ()) -> None:
        super().__init__(problem)
        self.problem = problem
        self.hint = hint
        self.key = key


def names(text: str) -> list[str]:
    """The names of the placeholders in a text."""
    return PLACEHOLDER.findall(text)


def texts(value: object, key: Key = ()) -> Iterator[tuple[Key, str]]:
    """Every text in a value as TOML has them, with the keys and indexes that lead to it."""
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield from texts(inner, (*key, name))
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from texts(inner, (*key, index))


def fill(value: Any, key: str, values: Mapping[str, Value]) -> Any:
    """The same with every placeholder filled that ``values`` has a value for.

    Args:
        value: what stands at ``key``, of any type that TOML has.
        key: what it is the value of, which says how values are put into it.
        values: what the names stand for.

    Raises:
        Misplaced: a value cannot stand where its placeholder is.
    """
    if isinstance(value, str):
        return _text(value, key, values)
    if isinstance(value, Mapping):
        return {name: _inside(inner, name, name, values) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        filled = [_element(inner, key, index, values) for index, inner in enumerate(value)]
        return [inner for some in filled for inner in some]
    return value


def _inside(value: Any, at: str | int, key: str, values: Mapping[str, Value]) -> Any:
    try:
        return fill(value, key, values)
    except Misplaced as error:
        error.key = (at, *error.key)
        raise


def _element(value: Any, key: str, index: int, values: Mapping[str, Value]) -> Sequence[Any]:
    """An element of an array as elements: a list that stands alone is as many as it has."""
    alone = PLACEHOLDER.fullmatch(value) if isinstance(value, str) else None
    several = values.get(alone[1]) if alone else None
    return several if isinstance(several, tuple) else [_inside(value, index, key, values)]


def _text(text: str, key: str, values: Mapping[str, Value]) -> Value:
    if key in _SHELL:
        return _shell(text, values)
    alone = PLACEHOLDER.fullmatch(text)
    if alone and key not in _PROSE and isinstance(several := values.get(alone[1]), tuple):
        return several

    def put(found: re.Match[str]) -> str:
        value = values.get(found[1])
        if value is None:
            return found[0]
        if isinstance(value, str):
            return re.escape(value) if key == "matches" else value
        if key in _PROSE:
            return ", ".join(value)
        hint = "Use for_each, which takes its values one by one as {{item}}."
        raise Misplaced(f"{{{{{found[1]}}}}} is a list, and this is one text", hint)

    return PLACEHOLDER.sub(put, text)


def _shell(line: str, values: Mapping[str, Value]) -> str:
    parts: list[str] = []
    at = 0
    for spot in spots(line):
        value = values.get(spot.name)
        if value is not None:
            words = (value,) if isinstance(value, str) else value
            parts += [line[at : spot.start], " ".join(_word(spot, word) for word in words)]
            at = spot.end
    return "".join([*parts, line[at:]])


def _word(spot: Spot, value: str) -> str:
    plain = _PLAIN.fullmatch(value) is not None
    if plain and not spot.closed and (spot.where or not (spot.number and value.isdigit())):
        return value
    if not spot.where:
        # Not shlex.quote alone, which leaves a number as it is.
        return f"'{value}'" if plain else shlex.quote(value)
    raise Misplaced(
        f"{{{{{spot.name}}}}} stands {spot.where}, where {_short(value)} cannot be put safely", remedy(spot)
    )


def _short(value: str) -> str:
    return repr(value) if len(value) <= 60 else f"{value[:60]!r}…"


def remedy(spot: Spot) -> str:
    """What to do about a placeholder that has something around it."""
    quotes = "quotes" in spot.where
    return f"{'Take the quotes away' if quotes else 'Put it elsewhere'}: the value is quoted by itself."


class Condition(NamedTuple):
    """When a step is there: ``{{v}}``, ``!{{v}}``, ``{{v}} == text`` or ``{{v}} != text``.

    Attributes:
        name: the variable.
        operator: ``==`` or ``!=`` to compare; empty to ask whether it is there, ``!`` whether it is not.
        text: what it is compared with.
    """

    name: str
    operator: str
    text: str

    def holds(self, values: Mapping[str, Value]) -> bool:
        """Whether it does; a variable is there that is neither empty nor ``false``."""
        value = values.get(self.name, "")
        if self.operator in ("", "!"):
            return (value not in ("", "false", ())) == (not self.operator)
        same: bool = value == fill(self.text, "when", values)
        return same == (self.operator == "==")


def condition(text: str) -> Condition:
    """Read a condition.

    Raises:
        Misplaced: it is none.
    """
    found = _CONDITION.fullmatch(text)
    if found is None or (found[1] and found[3]):
        raise Misplaced(
            f"{text!r} is no condition", "Write {{name}}, !{{name}}, {{name}} == text, or {{name}} != text."
        )
    return Condition(found[2], found[1] or found[3] or "", (found[4] or "").strip())


def undeclared(value: object, known: Collection[str]) -> Iterable[tuple[Key, str]]:
    """The placeholders that nothing known has a value for, with where they are."""
    return ((key, name) for key, text in texts(value) for name in names(text) if name not in known)
