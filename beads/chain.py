"""A molecule as its chain of steps: where each stands, what was found of its criteria, what it took. Pure.

A molecule may have ten thousand steps, and is shown in less than a second: what is said of a step that was begun is
kept in the index, and one that nobody has begun is not read further than its title.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from beads.criteria import in_words
from beads.ids import check_id
from beads.index import Part
from beads.toml import loads

if TYPE_CHECKING:
    from beads.model import Bead

# A text in which nothing is escaped says what it says.
_PLAIN_TITLE = re.compile(rb'title = "([^"\\]*)"')


class Found(NamedTuple):
    """What was found last of one criterion, or of something else that kept a step from closing.

    Attributes:
        subject: the criterion in words.
        verdict: ``pass``, ``fail``, ``error``, ``asked`` or ``answered``; ``open`` when nobody has looked yet.
        detail: how, in a few words.
        tree: the tree it is about.
        by: who found it.
        at: when.
        seconds: how long that took.
        output: what was printed, its head and tail, where it did not hold.
        digest: of the whole of that, by which its log is found.
    """

    subject: str
    verdict: str = "open"
    detail: str = ""
    tree: str = ""
    by: str = ""
    at: datetime | None = None
    seconds: float = 0.0
    output: str = ""
    digest: str = ""


_AT = Found._fields.index("at")


class Spent(NamedTuple):
    """What work took.

    Attributes:
        attempts: how often a worker began.
        seconds: how long the attempts that ended took together.
        cost: in US dollars, as far as it is known.
        unpriced: how many attempts there are of which nobody knows what they cost.
    """

    attempts: int = 0
    seconds: float = 0.0
    cost: float = 0.0
    unpriced: int = 0

    def plus(self, other: Spent) -> Spent:
        """What both took together."""
        return Spent(
            self.attempts + other.attempts,
            self.seconds + other.seconds,
            self.cost + other.cost,
            self.unpriced + other.unpriced,
        )


class Link(NamedTuple):
    """A step in its chain.

    Attributes:
        id: its id.
        title: its title.
        status: as it is stored.
        outcome: how it ended; None before.
        spent: what the work on it took.
        found: its criteria in the order they are written, and what else was found last; empty for a step that nobody
            has begun.
    """

    id: str
    title: str
    status: str
    outcome: str | None
    spent: Spent
    found: tuple[Found, ...]


def links(parts: Iterable[Part]) -> Iterator[Link]:
    """The steps of a molecule, in the order of their ids.

    Raises:
        Unreadable: one cannot be read.
    """
    for part in parts:
        if part.link is None:
            yield Link(part.id, _title(part), part.status, part.outcome, Spent(), ())
        else:
            title, took, said = json.loads(part.link)
            yield Link(part.id, title, part.status, part.outcome, Spent(*took), tuple(map(_restored, said)))


def summary(bead: Bead) -> str | None:
    """What the index keeps of a step that was begun; None for all else."""
    if bead.issue_type != "step" or not (bead.attempts or bead.evidence):
        return None
    from beads.model import facts

    said = facts(bead)
    return json.dumps([bead.title, spent(said), found(said)], default=datetime.isoformat, ensure_ascii=False)


def _restored(said: list[Any]) -> Found:
    there = Found(*said)
    return there._replace(at=datetime.fromisoformat(said[_AT])) if said[_AT] else there


def _title(part: Part) -> str:
    """The title of a step, which is on the second line, after its id."""
    _, line, *_ = part.data.split(b"\n", 2)
    plain = _PLAIN_TITLE.fullmatch(line)
    title: str = plain[1].decode() if plain else loads(line, part.id)["title"]
    return title


def spent(facts: Mapping[str, Any]) -> Spent:
    """What the work on a step took, from what is stored of it."""
    attempts = facts.get("attempts", ())
    ended = [a["ended_at"] - a["started_at"] for a in attempts if a.get("ended_at")]
    costs = [a.get("cost") for a in attempts]
    judged = sum(e.get("cost") or 0.0 for e in facts.get("evidence", ()))
    return Spent(
        attempts=len(attempts),
        seconds=sum(one.total_seconds() for one in ended),
        cost=sum(cost for cost in costs if cost is not None) + judged,
        unpriced=sum(cost is None for cost in costs),
    )


def found(facts: Mapping[str, Any]) -> tuple[Found, ...]:
    """What was found last of each criterion, and of what no criterion is about but was in the way last."""
    newest: dict[str, Mapping[str, Any]] = {}
    for evidence in sorted(facts.get("evidence", ()), key=lambda e: e["at"]):
        newest[evidence["subject"]] = evidence
    subjects = [in_words(**criterion) for criterion in facts.get("criteria", ())]
    last = max((e["at"] for e in newest.values()), default=None)
    besides = [s for s, e in newest.items() if s not in subjects and (e["at"], e["verdict"]) == (last, "fail")]
    return tuple(_found(subject, newest.get(subject, {})) for subject in [*subjects, *besides])


def _found(subject: str, evidence: Mapping[str, Any]) -> Found:
    said = {name: evidence[name] for name in Found._fields if name in evidence}
    return Found(**{**said, "subject": subject})


def log_of(logs: Path, molecule: str, digest: str) -> Path:
    """Where the whole output is kept that this is the digest of.

    Args:
        logs: the directory of all logs.
        molecule: the id of the molecule that it belongs to.
        digest: as evidence has it.
    """
    return logs / check_id(molecule) / f"{digest.removeprefix('sha256:')[:16]}.log"
