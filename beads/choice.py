"""Which beads are asked for, and the conditions of SQL that say so to the index."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from beads.ids import natural

KIND = """CASE WHEN kind IS NULL OR kind = 'closed' THEN kind WHEN held > :now THEN 'running'
WHEN kind IN ('running', 'queued') OR deferred <= :now THEN kind ELSE 'deferred' END"""
"""Where a unit stands at a moment: time can only put before what its row says for all time."""

_TIMED = """n IN (SELECT n FROM beads WHERE held > 0 OR deferred > 0
UNION ALL SELECT n FROM beads WHERE kind = :state AND status <> 'closed')"""
MAY_STAND_SO = {"running": _TIMED, "deferred": _TIMED, "closed": "status = 'closed'"}
"""What narrows down the units that may stand so: some states may come of any other one with the time."""

PART_STANDS_SO = f"""kind IS NULL AND CASE WHEN status = 'closed' THEN :state = 'closed'
WHEN merge OR type = 'merge-request' THEN :state IN ('queued', 'needs_person')
ELSE :state = 'waiting' OR ifnull((SELECT {KIND} FROM beads AS own WHERE id = beads.parent), :state) = :state END"""
"""Which parts stand so: a step stands where its molecule does, or waits for another one."""


class Choice(NamedTuple):
    """Which beads are asked for; of several conditions, those that all of them hold for.

    Attributes:
        status: with this status.
        state: standing so at the moment of the question.
        issue_type: of this type.
        labels: with each of these labels.
        assignee: assigned so.
        parent: directly below this bead.
        closed: closed ones, too; deleted ones never are.
        text: with each of these words, or words that begin so, somewhere in their text.
        after: only those whose place in the order is after that of this id.
        limit: at most so many.
    """

    status: str | None = None
    state: str | None = None
    issue_type: str | None = None
    labels: Sequence[str] = ()
    assignee: str | None = None
    parent: str | None = None
    closed: bool = False
    text: str = ""
    after: str | None = None
    limit: int | None = None


def conditions(choice: Choice, values: dict[str, Any]) -> Iterator[str]:
    """The conditions of a choice in SQL; what they compare with is put into ``values``."""
    yield "outcome IS NOT 'deleted'"
    if not choice.closed and "closed" not in (choice.status, choice.state):
        yield "status <> 'closed'"
    for column, value in (
        ("status", choice.status),
        ("type", choice.issue_type),
        ("assignee", choice.assignee),
        ("parent", choice.parent),
    ):
        if value is not None:
            values[column] = value
            yield f"{column} = :{column}"
    if choice.assignee:
        yield "assignee <> ''"
    for number, label in enumerate(choice.labels):
        values[f"label{number}"] = label
        yield f"EXISTS (SELECT 1 FROM labels WHERE label = :label{number} AND at = beads.place AND n = beads.n)"
    if choice.after is not None:
        values["after"] = natural(choice.after)
        yield "place > :after"


def match(text: str) -> str:
    """A query for all of these words, each of which may be the beginning of one; whatever else they hold."""
    words = (word for word in text.split() if re.search(r"\w", word))
    quoted = ['"{}" *'.format(word.replace('"', '""')) for word in words]
    return " AND ".join(quoted) or '""'
