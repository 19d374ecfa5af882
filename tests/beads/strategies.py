"""Beads for tests: plain ones by name, and for Hypothesis ones that are strange in every way that is allowed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, get_args

from hypothesis import strategies as st

from beads import graph
from beads.graph import natural
from beads.model import (
    Attempt,
    AttemptEnd,
    Bead,
    Comment,
    Criterion,
    Dependency,
    Evidence,
    Lease,
    MergeRequest,
    Outcome,
    Status,
    Terms,
)

NOW = datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)
"""When tests happen, unless time passes in them."""

WORDS = st.one_of(
    st.sampled_from(["", "\r\n", "a\nb\n", '"""', "\\", "\x00", "\u2028", "# [x]", "Actor: eve", "\x7f", "é"]),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
)
IDS = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,6}(\.[A-Za-z0-9_-]{1,4}){0,2}", fullmatch=True).filter(
    lambda text: not text.endswith(".lock")
)
TITLES = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=30).filter(
    lambda title: bool(title.strip())
)
ZONES = [UTC, *(timezone(timedelta(hours=hours, minutes=30, seconds=1)) for hours in (-11, 5))]
_NAIVE = NOW.replace(tzinfo=None)
MOMENTS = st.datetimes(_NAIVE.replace(year=2), _NAIVE.replace(year=9998), timezones=st.sampled_from(ZONES))
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
STATUSES: tuple[Status, ...] = get_args(Status)
ENDS: tuple[AttemptEnd, ...] = get_args(AttemptEnd)

_DEPENDENCIES = st.builds(Dependency, on=IDS, type=st.sampled_from(["blocks", "parent-child", "related", "x-1"]))
_CRITERIA = st.one_of(
    st.builds(
        Criterion,
        run=WORDS.filter(lambda run: bool(run.strip())),
        exit=st.integers(0, 255),
        timeout=st.floats(0.001, 86_400),
    ),
    st.builds(Criterion, file=st.sampled_from(["a", "a/b.txt", "é \n"]), absent=st.booleans()),
    st.builds(Criterion, diff=st.just(("a/**",)), lines=st.none() | st.integers(0, 9)),
    st.builds(Criterion, review=st.sampled_from(["Is it kind?", "…\r\n?"])),
    st.builds(Criterion, approval=st.sampled_from(["Is it kind?", "Ship it?\n"])),
    st.builds(Criterion, file=st.just("a"), matches=st.sampled_from(["", "x+", "\\d\r\n"])),
)
EVIDENCE = st.builds(
    Evidence,
    id=WORDS,
    subject=WORDS,
    verdict=st.sampled_from(["pass", "fail", "error", "asked"]),
    detail=WORDS,
    tree=WORDS,
    commit=WORDS,
    gate=WORDS,
    environment=WORDS,
    seconds=st.floats(allow_nan=False),
    output=WORDS,
    digest=WORDS,
    exit=st.none() | st.integers(-255, 255),
    cost=st.none() | st.floats(0, 1e6),
    model=WORDS,
    by=WORDS,
    at=MOMENTS,
)
LEASES = st.builds(Lease, worker=WORDS, epoch=st.integers(1), site=WORDS, since=MOMENTS, until=MOMENTS)
_ATTEMPTS = st.builds(
    Attempt,
    number=st.integers(1),
    epoch=st.integers(),
    worker=WORDS,
    runtime=WORDS,
    started_at=MOMENTS,
    ended_at=st.none() | MOMENTS,
    end=st.none() | st.sampled_from(ENDS),
    reason=WORDS,
)
_COMMENTS = st.builds(Comment, id=WORDS, author=WORDS, text=WORDS, created_at=MOMENTS)
_REQUESTS = st.builds(MergeRequest, molecule=IDS, branch=WORDS, head=WORDS, base=WORDS, landing=WORDS, landed=WORDS)

# What a later version might have put there; some of the names mean something to this one's classes.
_UNKNOWN = st.recursive(
    st.one_of(WORDS, st.booleans(), st.integers(), st.floats(allow_nan=False), st.dates(), st.times()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(WORDS, inner, max_size=3)),
    max_leaves=6,
)
_EXTRA = st.dictionaries(
    st.one_of(st.sampled_from(["closed", "parent", "evolve", "model_extra", "x.y", ""]), WORDS).filter(
        lambda key: key not in Bead.model_fields
    ),
    _UNKNOWN,
    max_size=3,
)


def _tuples(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(inner, max_size=3).map(tuple)


# Made once, because making it costs more than drawing from it.
_FIELDS = st.fixed_dictionaries(
    {"id": IDS, "title": TITLES, "created_at": MOMENTS, "updated_at": MOMENTS},
    optional={
        "issue_type": st.from_regex(r"[a-z][a-z0-9_-]{0,9}", fullmatch=True),
        "status": st.sampled_from(STATUSES),
        "outcome": st.sampled_from([None, *OUTCOMES]),
        "priority": st.integers(0, 4),
        **dict.fromkeys(
            ("description", "run", "rework", "agent", "assignee", "source", "seal", "created_by", "close_reason"),
            WORDS,
        ),
        "labels": _tuples(WORDS),
        "terms": st.none() | st.builds(Terms, model=WORDS, budget=st.none() | st.floats(0.01, 1e6)),
        "attempts_max": st.integers(0),
        "epoch": st.integers(0),
        "defer_until": st.none() | MOMENTS,
        "closed_at": st.none() | MOMENTS,
        "lease": st.none() | LEASES,
        "merge": st.none() | _REQUESTS,
        "dependencies": _tuples(_DEPENDENCIES),
        "criteria": _tuples(_CRITERIA),
        "attempts": _tuples(_ATTEMPTS),
        "evidence": _tuples(EVIDENCE),
        "comments": _tuples(_COMMENTS),
    },
)


@st.composite
def beads(draw: st.DrawFn) -> Bead:
    """Any bead that is allowed, every field in use."""
    return Bead.model_validate({**draw(_FIELDS), **draw(_EXTRA)})


def bead(bead_id: str, **fields: Any) -> Bead:
    """A bead with that id, and with as little said about it as can be."""
    said = {"title": f"The work of {bead_id}", "created_at": NOW, "updated_at": NOW, **fields}
    return Bead.model_validate({"id": bead_id, **said})


def needs(*ids: str) -> tuple[Dependency, ...]:
    """Dependencies on beads that must be done first."""
    return tuple(Dependency(on=bead_id) for bead_id in ids)


def part_of(parent: str, *after: str) -> tuple[Dependency, ...]:
    """The dependencies of a step of ``parent`` that comes after other steps."""
    return (Dependency(on=parent, type="parent-child"), *needs(*after))


def proof(criterion: Criterion, tree: str = "t" * 40, **fields: Any) -> Evidence:
    """Evidence that a criterion holds on a tree."""
    said = {"id": f"{criterion}@{tree}", "subject": str(criterion), "verdict": "pass", "tree": tree, "at": NOW}
    return Evidence.model_validate({**said, **fields})


class Beads:
    """A view that is nothing but beads: every question is answered by looking at each of them."""

    def __init__(self, beads: Iterable[Bead] = ()) -> None:
        self.beads = {bead.id: bead for bead in beads}

    def get(self, bead_id: str) -> Bead | None:
        return self.beads.get(bead_id)

    def children(self, bead_id: str) -> Sequence[Bead]:
        return [bead for bead in self if bead.parent == bead_id]

    def steps(self, bead_id: str, *, unclosed: bool = False) -> list[Bead]:
        steps = (bead for bead in self.children(bead_id) if bead.issue_type == "step")
        return [bead for bead in steps if not (unclosed and bead.closed)]

    def merges(self, bead_id: str) -> list[Bead]:
        return [bead for bead in self.children(bead_id) if bead.merge is not None]

    def dependents(self, bead_id: str) -> Sequence[Bead]:
        others = ((bead, {d.on for d in bead.dependencies if d.type != "parent-child"}) for bead in self)
        seconds = {bead.id for bead in self if bead_id in _parents(bead)[1:] and bead_id != bead.parent}
        return [bead for bead, on in others if bead_id in on or bead.id in seconds]

    def unclosed(self) -> Iterable[Bead]:
        return [bead for bead in self if not bead.closed]

    def requests(self) -> Iterable[Bead]:
        return [bead for bead in self.unclosed() if bead.merge is not None]

    def ready(self, now: datetime) -> Iterable[Bead]:
        return graph.ready(self, now)

    def __iter__(self) -> Iterator[Bead]:
        return iter(sorted(self.beads.values(), key=lambda bead: natural(bead.id)))


def _parents(bead: Bead) -> list[str]:
    return [d.on for d in bead.dependencies if d.type == "parent-child"]
