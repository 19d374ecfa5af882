"""Criteria in words: what evidence is about, and what people read. Pure, and without what a criterion is made of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

TIMEOUT = 600.0
"""How many seconds a command may take, unless its criterion says otherwise."""

ONLY_LIMITS = "A diff only sets limits; add a run or a file."
"""What to do about criteria that :func:`only_limit`."""


def only_limit(kinds: Iterable[str]) -> bool:
    """Whether criteria of these kinds, at least one, would hold before anything was done."""
    return set(kinds) == {"diff"}


def in_words(
    run: str = "",
    exit: int = 0,
    timeout: float = TIMEOUT,
    file: str = "",
    absent: bool = False,
    matches: str = "",
    diff: Sequence[str] = (),
    lines: int | None = None,
    review: str = "",
    approval: str = "",
) -> str:
    """One criterion as a line; its fields as :class:`beads.model.Criterion` has them."""
    if run:
        limit = f" (within {timeout:g} s)" if timeout != TIMEOUT else ""
        return f"run: {run}" + (f" (exit {exit})" if exit else "") + limit
    if diff:
        return f"diff: {' '.join(diff)}" + (f" (at most {lines} lines)" if lines is not None else "")
    if review or approval:
        return f"review: {review}" if review else f"approval: {approval}"
    wants = "is absent" if absent else f"matches {matches}" if matches else "exists"
    return f"file: {file} {wants}"
