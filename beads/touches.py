"""What work is expected to touch, and who waits for whom because of that. Pure.

Two pieces of work that change one file cannot be done side by side without one of them being sent back. Where nothing
says which comes first, it is the one that is written first.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from beads.plan import Plan

PATTERN_MAX = 300
"""Characters of a pattern: comparing two takes as long as both lengths multiplied."""

_ONE = re.compile(r"\\.|\[[!^]?\]?[^\]]*\]")


def check_pattern(text: str) -> str:
    """``text`` if it can be a pattern of paths in the repository; a ValueError otherwise."""
    if not text.strip() or not text.isprintable() or len(text) > PATTERN_MAX:
        raise ValueError(f"must be a pattern of paths, up to {PATTERN_MAX} characters")
    if text.startswith("/") or ".." in text.split("/"):
        raise ValueError("must be a path inside the repository")
    return text


def overlap(one: str, other: str) -> bool:
    """Whether there can be a path that two patterns both stand for, as far as the patterns alone tell.

    They are Git's ``:(glob)``: ``*`` and ``?`` stop at a slash, ``**`` does not. What a pattern matches may be a
    directory, and then all that is in it is meant. In doubt they overlap: ``[a-z]`` may be any character.
    """
    return _meet(_segments(one), _segments(other), "**", _same_segment)


def _segments(pattern: str) -> list[str]:
    plain = _ONE.sub("?", pattern)
    return [*(part for part in plain.split("/") if part not in ("", ".")), "**"]


def _same_segment(one: str, other: str) -> bool:
    return one == other or _meet(one, other, "*", lambda mine, theirs: mine == theirs or "?" in (mine, theirs))


def _meet(one: Sequence[str], other: Sequence[str], several: str, same: Callable[[str, str], bool]) -> bool:
    """Whether two sequences can be the same one; in both, ``several`` stands for any number of anything."""
    # Of each beginning of `other`, whether it can be the same as the beginning of `one` that was looked at.
    row = [True]
    for theirs in other:
        row.append(row[-1] and theirs == several)
    for mine in one:
        before, row = row, [row[0] and mine == several]
        for n, theirs in enumerate(other):
            if several in (mine, theirs):
                row.append(before[n + 1] or row[n])
            else:
                row.append(before[n] and same(mine, theirs))
        if not any(row):
            return False
    return row[-1]


def awaited(needs: Mapping[str, Iterable[str]], name: str) -> set[str]:
    """Everything that ``name`` waits for, at once or through others."""
    found: set[str] = set()
    stack = [name]
    while stack:
        new = set(needs.get(stack.pop(), ())) - found
        found |= new
        stack += new
    return found


def put_after(needs: dict[str, list[str]], later: str, earlier: Iterable[str]) -> None:
    """Let ``later`` wait for each of ``earlier``, unless one of the two waits for the other already.

    Where somebody wrote down the opposite order, that one knows better than the order of the lines.
    """
    ahead: set[str] | None = None
    for other in earlier:
        ahead = awaited(needs, later) if ahead is None else ahead
        if other == later or other in ahead:
            continue
        behind = awaited(needs, other)
        if later not in behind:
            needs.setdefault(later, []).append(other)
            ahead |= {other, *behind}


def ordered(plan: Plan) -> Plan:
    """The plan, with further ``needs`` where molecules touch the same and nothing says which of them comes first.

    The one later in the file waits. What is ordered already, directly or through others, stays as it is, and of a plan
    that is ordered nothing changes. What a molecule needs is part of its work: it gets another id than without.
    """
    needs = {molecule.id: [*molecule.needs] for molecule in plan.molecules}
    above: list[tuple[str, list[list[str]]]] = []
    for molecule in plan.molecules:
        mine = [_segments(pattern) for pattern in molecule.touches]
        put_after(needs, molecule.id, [other for other, theirs in above if _clash(mine, theirs)])
        # The nearest comes first: who waits for it waits for what that one waits for, too.
        above.insert(0, (molecule.id, mine))
    molecules = tuple(m.model_copy(update={"needs": tuple(needs[m.id])}) for m in plan.molecules)
    return plan.model_copy(update={"molecules": molecules})


def _clash(some: Sequence[Sequence[str]], others: Sequence[Sequence[str]]) -> bool:
    return any(_meet(one, other, "**", _same_segment) for one in some for other in others)
