"""The variables of Gas Town's formulas as ours."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any

from beads.formula import ITEM

if TYPE_CHECKING:
    from beads.lines import Place

_KEYS = {"description", "default", "required", "enum", "pattern", "type"}


def declared(table: Mapping[str, Any], used: Collection[str], remark: Callable[[Place, str], None]) -> dict[str, Any]:
    """``[vars]`` or ``[inputs]`` as the facts of ``[vars]`` of ours.

    Args:
        table: what is declared; a text is a variable's default.
        used: the names that stand somewhere. Without a default, such a one must be given.
        remark: told what has no counterpart, and where.
    """
    found: dict[str, Any] = {}
    for name, said in table.items():
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) or name == ITEM:
            remark((name,), "cannot be a variable's name here, and is left as it is")
        elif isinstance(said, str):
            found[name] = {"default": said}
        elif isinstance(said, dict):
            found[name] = _variable(name, said, name in used, remark)
        else:
            remark((name,), "is neither a text nor a table")
    return found


def _variable(name: str, said: Mapping[str, Any], used: bool, remark: Callable[[Place, str], None]) -> dict[str, Any]:
    made: dict[str, Any] = {"description": str(said.get("description", "")).strip()}
    default = said.get("default")
    if default is not None and not isinstance(default, str):
        remark((name, "default"), f"is read as the text {str(default)!r}")
        default = str(default)
    choices = said.get("enum", [])
    if isinstance(choices, list) and choices:
        made["choices"] = [str(choice) for choice in choices]
    if default is not None and (default or not choices):
        made["default"] = default
    if said.get("required") is True and default is not None:
        remark((name, "required"), "has no effect beside a default")
    made["required"] = default is None and (said.get("required") is True or used)
    made |= _pattern(name, said, remark)
    if said.get("type", "string") != "string":
        remark((name, "type"), "is not looked at: every value is a text")
    for key in said:
        if key not in _KEYS:
            remark((name, key), "has no counterpart here")
    return made


def _pattern(name: str, said: Mapping[str, Any], remark: Callable[[Place, str], None]) -> dict[str, str]:
    """What a value must match anywhere there, and in full here."""
    pattern = said.get("pattern")
    if not isinstance(pattern, str):
        return {}
    try:
        re.compile(pattern)
    except re.error:
        remark((name, "pattern"), "is not a regular expression here, and not looked at")
        return {}
    return {"pattern": pattern if re.fullmatch(r"\^.*\$", pattern, re.DOTALL) else f"(?s:.*)(?:{pattern})(?s:.*)"}
