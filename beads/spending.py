"""What work has cost, by day, agent, model and molecule, and which providers would not serve: kept in the index.

An attempt and a review are an item each. What an item is follows from the bead it is stored in and from nothing else,
so that the table is kept up to date and made anew as the rest of the index is. A bead without either has no row.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from beads.index import micros

if TYPE_CHECKING:
    from beads.model import Attempt, Bead, Evidence

REVIEWS = "(reviews)"
"""What reviews are counted under, where attempts have the name of their agent. No agent can be called so."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Item(NamedTuple):
    """One attempt or review, as the index keeps it; moments are microseconds since 1970.

    Attributes:
        molecule: the unit of work that it was for.
        bead: the bead it is stored in.
        review: whether it is a review.
        agent: the agent's name in ``town.toml``; :data:`REVIEWS` for a review.
        model: the model, as far as that is known.
        at: when it started; a review when it ended.
        ended: when it ended; 0 while it goes on.
        ending: how the agent's process ended, by what it told; None before.
        until: until when its provider would not serve it; None when it did.
        cost: US dollars; None where nobody knows.
        budget: US dollars that it was allowed.
        allowed: tokens that it was allowed.
        input: tokens sent; None where nobody knows, like the others.
        cached: of those, what was read from the provider's cache.
        written: of those, what was written to it.
        output: tokens generated.
    """

    molecule: str
    bead: str
    review: bool
    agent: str
    model: str
    at: int
    ended: int
    ending: str | None
    until: int | None
    cost: float | None
    budget: float | None
    allowed: int | None
    input: int | None
    cached: int | None
    written: int | None
    output: int | None


TABLE = """
CREATE TABLE spending (
    molecule TEXT, bead TEXT, review INTEGER, agent TEXT, model TEXT, at INTEGER, ended INTEGER, ending TEXT,
    until INTEGER, cost REAL, budget REAL, allowed INTEGER, input INTEGER, cached INTEGER, written INTEGER,
    output INTEGER
);
"""

INDEXES = """
CREATE INDEX spent_on ON spending (molecule, bead);
CREATE INDEX spent_at ON spending (at);
CREATE INDEX parks ON spending (until) WHERE until IS NOT NULL;
CREATE INDEX going_on ON spending (molecule) WHERE ended = 0;
"""

_INSERT = f"INSERT INTO spending VALUES ({', '.join('?' * len(Item._fields))})"


def items(bead: Bead | None) -> list[Item]:
    """What work on a bead has cost, an item for each attempt and review."""
    if bead is None or not (bead.attempts or bead.evidence):
        return []
    molecule = _molecule(bead)
    attempts = [_attempt(molecule, bead.id, attempt) for attempt in bead.attempts]
    return attempts + [_review(molecule, bead.id, e) for e in bead.evidence if _is_review(e)]


def _molecule(bead: Bead) -> str:
    return (bead.issue_type == "step" and bead.parent) or bead.id


def _attempt(molecule: str, bead_id: str, attempt: Attempt) -> Item:
    usage = attempt.usage
    return Item(
        molecule=molecule,
        bead=bead_id,
        review=False,
        agent=attempt.runtime,
        model=attempt.model,
        at=micros(attempt.started_at),
        ended=micros(attempt.ended_at) if attempt.ended_at else 0,
        ending=attempt.ending,
        until=micros(attempt.until) if attempt.until and attempt.ending in ("quota", "provider_unavailable") else None,
        cost=attempt.cost,
        budget=attempt.budget,
        allowed=attempt.tokens,
        input=usage.input if usage else None,
        cached=usage.cached if usage else None,
        written=usage.written if usage else None,
        output=usage.output if usage else None,
    )


def _review(molecule: str, bead_id: str, evidence: Evidence) -> Item:
    at = micros(evidence.at)
    nothing = (None,) * 4
    return Item(
        molecule, bead_id, True, REVIEWS, evidence.model, at, at, None, None, evidence.cost, None, None, *nothing
    )


def _is_review(evidence: Evidence) -> bool:
    """Whether somebody was asked for a verdict: not when nobody was there to be asked."""
    return evidence.cost is not None or (evidence.subject.startswith("review: ") and bool(evidence.digest))


def put(connection: sqlite3.Connection, changes: Iterable[tuple[Bead | None, Bead | None]]) -> None:
    """Put into the index what changed beads have cost: each one before and after."""
    for old, new in changes:
        if (old and _told(old)) == (new and _told(new)):
            continue
        if old is not None and items(old):
            connection.execute("DELETE FROM spending WHERE molecule = ? AND bead = ?", (_molecule(old), old.id))
        connection.executemany(_INSERT, items(new))


def _told(bead: Bead) -> object:
    """All that :func:`items` goes by; nothing where that is nothing."""
    return (_molecule(bead), bead.attempts, bead.evidence) if bead.attempts or bead.evidence else None


class Asked(Protocol):
    """What answers questions from an index, such as a snapshot of the store."""

    def select(self, sql: str, values: Mapping[str, object]) -> list[Any]:
        """All rows of an answer."""
        ...


By = Literal["day", "agent", "model", "molecule"]
"""What costs are added up by."""

_BY: Mapping[By, str] = {
    "day": "date(at / 1000000, 'unixepoch')",
    "agent": "agent",
    "model": "model",
    "molecule": "molecule",
}


class Cost(NamedTuple):
    """What some items have cost together.

    Attributes:
        what: the day, in UTC, the agent, the model or the molecule that they have in common.
        attempts: how many attempts they are.
        reviews: how many reviews.
        input: tokens sent, as far as they are known; those below, too.
        cached: of those, what was read from a cache.
        written: of those, what was written to one.
        output: tokens generated.
        cost: US dollars, as far as they are known.
        unpriced: how many of the items nobody knows the cost of.
    """

    what: str
    attempts: int
    reviews: int
    input: int
    cached: int
    written: int
    output: int
    cost: float
    unpriced: int


def costs(view: Asked, by: By, since: datetime | None = None) -> list[Cost]:
    """What work has cost, in the order of what it is added up by; what is begun counts for the day it began.

    Args:
        view: the state of the store.
        by: what to add up by.
        since: nothing that began earlier; None for all of it.
    """
    known = ", ".join(f"CAST(total({name}) AS INTEGER)" for name in ("input", "cached", "written", "output"))
    sql = f"""SELECT {_BY[by]} AS what, sum(NOT review), sum(review), {known}, total(cost), sum(cost IS NULL)
    FROM spending WHERE at >= :since GROUP BY what ORDER BY what"""
    return [Cost(*row) for row in view.select(sql, {"since": micros(since) if since else -(1 << 62)})]


class Spent(NamedTuple):
    """What one bead has taken that is done; None where nobody knows a part of it.

    Attributes:
        cost: US dollars.
        tokens: sent and generated together.
    """

    cost: float | None
    tokens: int | None


def of_done(view: Asked, agent: str, most: int) -> list[Spent]:
    """What beads have taken that are done, and that an agent was the first to try; the newest, up to ``most``.

    All attempts count, also those that failed, and those of whoever took over. For :data:`REVIEWS` it is what the
    reviews of a bead have cost.
    """
    sql = """WITH done AS (SELECT molecule, bead, review FROM spending AS first WHERE agent = :agent
    AND EXISTS (SELECT 1 FROM beads WHERE id = bead AND status = 'closed' AND outcome IN ('done', 'landed'))
    AND NOT EXISTS (SELECT 1 FROM spending AS other WHERE other.molecule = first.molecule AND other.bead = first.bead
        AND other.review = first.review AND (other.at, other.rowid) < (first.at, first.rowid))
    ORDER BY at DESC LIMIT :most)
    SELECT total(cost), sum(cost IS NULL), CAST(total(input) + total(output) AS INTEGER),
        sum(input IS NULL OR output IS NULL)
    FROM done JOIN spending USING (molecule, bead, review) GROUP BY molecule, bead"""
    rows = view.select(sql, {"agent": agent, "most": most})
    return [Spent(None if dear else cost, None if many else tokens) for cost, dear, tokens, many in rows]


class Day(NamedTuple):
    """What an agent has used on one day: US dollars and tokens, as far as they are known."""

    cost: float = 0.0
    tokens: int = 0


class Running(NamedTuple):
    """An attempt that goes on: of which agent, for which molecule, and the dollars and tokens it is allowed."""

    agent: str
    molecule: str
    budget: float | None = None
    tokens: int | None = None


class Park(NamedTuple):
    """That an agent's provider would not serve it: until when, and how that was told."""

    until: datetime
    ending: str


class Books(NamedTuple):
    """What has to be known of money, quota and who works before anything is begun.

    Attributes:
        today: what each agent has used on this day, in UTC; :data:`REVIEWS` is one of them.
        running: the attempts that go on.
        parked: the agents whose providers would not serve them, and have not served them since.
    """

    today: Mapping[str, Day] = {}
    running: tuple[Running, ...] = ()
    parked: Mapping[str, Park] = {}


def books(view: Asked, now: datetime) -> Books:
    """The books at a moment, from three looks into the index."""
    today = """SELECT agent, total(cost), CAST(total(input) + total(output) AS INTEGER) FROM spending
    WHERE at >= :day GROUP BY agent"""
    # What a worker left that is no more runs no longer, though nobody may have said so yet.
    running = """SELECT agent, molecule, budget, allowed FROM spending WHERE ended = 0 AND ending IS NULL
    AND EXISTS (SELECT 1 FROM beads WHERE id = spending.molecule AND held > 0) ORDER BY molecule, agent, at"""
    # Once it was served again, what its provider said before is of the past.
    parked = """SELECT agent, max(until), ending FROM spending AS said WHERE until > :now AND NOT EXISTS (
    SELECT 1 FROM spending WHERE agent = said.agent AND at > max(said.at, said.ended) AND ending = 'finished')
    GROUP BY agent"""
    return Books(
        today={agent: Day(*used) for agent, *used in view.select(today, {"day": micros(day_of(now))})},
        running=tuple(Running(*row) for row in view.select(running, {})),
        parked={
            agent: Park(_EPOCH + timedelta(microseconds=until), ending)
            for agent, until, ending in view.select(parked, {"now": micros(now)})
        },
    )


def day_of(now: datetime) -> datetime:
    """When the day of a moment began, in UTC."""
    return now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
