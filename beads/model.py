"""What is stored: frozen types with their invariants, and nothing that could be derived.

A bead is one file in the store's tree. Facts only: whether it is ready, blocked, stalled or in the queue is
computed from these by ``beads/graph.py``, never written down.
"""

from __future__ import annotations

import hashlib
import json
import re
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, field_validator, model_validator

from beads import plain
from beads.clock import milliseconds as milliseconds
from beads.criteria import TIMEOUT, in_words
from beads.errors import InvalidInput, Unreadable
from beads.ids import check_id as check_id
from beads.ids import derived_id as derived_id
from beads.ids import path_of as path_of
from beads.toml import dumps, loads

Status = Literal["open", "in_progress", "deferred", "closed"]
Outcome = Literal["landed", "done", "rejected", "cancelled", "superseded", "deleted"]
"""How a bead ended. A ``deleted`` one stays as a tombstone, so that no merge brings it back to life."""

BLOCKING = frozenset({"blocks", "parent-child", "conditional-blocks", "waits-for"})
"""The dependency types that can keep a bead from being ready; every other type only informs."""


def _id_or_value_error(text: str) -> str:
    try:
        return check_id(text)
    except InvalidInput as error:
        raise ValueError(error.message) from error


BeadId = Annotated[str, AfterValidator(_id_or_value_error)]


def _in_utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("is out of range") from error


Moment = Annotated[AwareDatetime, AfterValidator(_in_utc)]
"""A point in time. One without a time zone cannot be compared with any other and is refused."""

DependencyType = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,49}$")]


class Fact(BaseModel):
    """A frozen value; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class Dependency(Fact):
    """This bead stands in a relation to another one; there is at most one of each type between two beads.

    ``blocks`` reads "is blocked by ``on``", as in ``bd``: the bead waits for ``on``. ``conditional-blocks`` waits
    for ``on`` to fail. ``waits-for`` waits for the children of ``on``: for all of them, or as ``gate`` says, for
    any. Keys that this version does not know are kept.
    """

    model_config = ConfigDict(frozen=True, extra="allow", defer_build=True)

    on: BeadId
    type: DependencyType = "blocks"
    gate: Literal["", "all-children", "any-children"] = ""


CriterionKind = Literal["run", "file", "diff", "review", "approval"]

KINDS: tuple[CriterionKind, ...] = get_args(CriterionKind)
"""The kinds of criteria, in the order in which they are looked at: what costs nobody's time first."""


class Criterion(Fact):
    """One thing that must hold before a step may close, of exactly one kind.

    ``run`` is a shell line, evaluated in a fresh process; it holds when it ends with ``exit``.
    ``file`` is a path relative to the repository's root; it holds when the file is there, or with
    ``absent = true`` is not, and its text matches the regular expression ``matches`` when one is given.
    ``diff`` are patterns of paths, as Git's ``:(glob)`` has them; it holds when all that the branch changes since it
    left main lies there, and is no more than ``lines`` lines, added and removed, when that is given.
    ``review`` is what a reviewing model is asked about the branch; it holds when the model finds nothing against it.
    ``approval`` is what a person is asked; it holds when one has said yes to exactly what is there.
    """

    run: str = ""
    exit: int = Field(0, ge=0, le=255)
    timeout: float = Field(TIMEOUT, gt=0, le=86_400)
    file: str = ""
    absent: bool = False
    matches: str = ""
    diff: tuple[str, ...] = ()
    lines: int | None = Field(None, ge=0)
    review: str = ""
    approval: str = ""

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        texts = (self.run, self.file, self.review, self.approval)
        if [*(bool(text.strip()) for text in texts), bool(self.diff)].count(True) != 1:
            raise ValueError(f"give exactly one of {', '.join(map(repr, KINDS))}")
        for name, path in [("file", self.file), *(("diff", pattern) for pattern in self.diff)]:
            if path.startswith("/") or ".." in path.split("/"):
                raise ValueError(f"{name} {path!r} must be a path inside the repository")
        if not all(pattern.strip() and pattern.isprintable() for pattern in self.diff):
            raise ValueError("a pattern of 'diff' must be text")
        if self.lines is not None and not self.diff:
            raise ValueError("'lines' needs a 'diff'; [\"**\"] is any path")
        if self.matches and (self.absent or not self.file):
            raise ValueError("'matches' needs a 'file' that is there")
        try:
            re.compile(self.matches)
        except re.error as error:
            raise ValueError(f"matches {self.matches!r} is not a regular expression: {error}") from error
        return self

    @property
    def kind(self) -> CriterionKind:
        """Which of the kinds this is."""
        return next(kind for kind in KINDS if getattr(self, kind))

    def __str__(self) -> str:
        return in_words(**dict(self))


BEST_OF_MAX = 16
"""Of how many attempts the best one can be taken."""


class Terms(Fact):
    """On what terms a step is worked on: what its plan says beside what is to be done. No seal covers it.

    Of a molecule that has steps only the ``budget`` counts, which is for all of them together.

    Attributes:
        model: the model that an agent is to use; empty for its own choice.
        timeout: seconds that one attempt may take; None for as long as its agent may.
        budget: US dollars that all attempts and reviews may cost together; None for no limit of the step's own.
        capabilities: what an agent has to be able to do, in the words of ``town.toml``.
        best_of: how many attempts are made from the same beginning, of which the best one is taken.
    """

    model: str = ""
    timeout: float | None = Field(None, gt=0, le=86_400)
    budget: float | None = Field(None, gt=0)
    capabilities: tuple[str, ...] = ()
    best_of: int | None = Field(None, ge=2, le=BEST_OF_MAX)

    def __str__(self) -> str:
        said = [
            f"model {self.model}" if self.model else "",
            f"{self.timeout:g} s an attempt" if self.timeout else "",
            f"${self.budget:.2f} in all" if self.budget else "",
            f"capable of {', '.join(self.capabilities)}" if self.capabilities else "",
            f"the best of {self.best_of} attempts" if self.best_of else "",
        ]
        return ", ".join(filter(None, said))


class Evidence(Fact):
    """What one evaluation found: of a criterion on a tree, or of the gate on a candidate.

    ``subject`` is the criterion or the gate in words. ``verdict`` keeps apart what did not hold (``fail``) from
    what could not be judged (``error``: exit status 126 or 127, a signal, a time-out, zero tests collected). An
    error is never a pass and convicts nobody. ``asked`` says that a person was asked about this tree; what they say is
    evidence of its own, ``by`` that person: a yes, a no, or words to go on with (``answered``). ``exit`` is None where
    no command came to an end by itself, and ``cost``, in US dollars, where nobody knows. ``model`` is the one that
    reviewed, as far as that is known.
    """

    id: str
    subject: str
    verdict: Literal["pass", "fail", "error", "asked", "answered"]
    detail: str = ""
    tree: str = ""
    commit: str = ""
    gate: str = ""
    environment: str = ""
    exit: int | None = None
    seconds: float = 0.0
    output: str = ""
    digest: str = ""
    cost: float | None = None
    model: str = ""
    by: str = ""
    at: Moment


class Lease(Fact):
    """One worker's exclusive hold on a molecule (I2).

    ``site`` names the clone the worker runs in: only there can the kernel be asked whether it still lives. After a
    slash it may say what of the clone, for a worker that is no process there.
    """

    worker: str
    epoch: int = Field(ge=1)
    site: str
    since: Moment
    until: Moment

    @property
    def clone(self) -> str:
        """The clone that the holder writes in."""
        return self.site.partition("/")[0]

    @property
    def holder(self) -> tuple[str, int, str, datetime]:
        """Who holds it and since when. How long it holds is all that may change of a lease."""
        return self.worker, self.epoch, self.site, self.since


def same_holder(one: Lease | None, other: Lease | None) -> bool:
    """Whether these are one lease, renewed or not, or none at all."""
    return (one and one.holder) == (other and other.holder)


AttemptEnd = Literal["satisfied", "unmet", "asked", "died", "stopped", "parked", "handed_off"]

Ending = Literal[
    "finished",
    "limits",
    "context_exhausted",
    "stuck",
    "provider_unavailable",
    "quota",
    "environment",
    "cancelled",
]
"""How an agent's process ended, by what it told: a hint for what to do next, never a proof of anything."""


class Usage(Fact):
    """What a model was sent and what it said, in tokens, whatever the agent program calls them.

    Attributes:
        input: all that was sent, what came from a cache or went into one included.
        cached: of ``input``, what was read from the provider's cache.
        written: of ``input``, what was written to the provider's cache.
        output: all that was generated, reasoning included.
        reasoning: of ``output``, what was reasoning, as far as that is told.
    """

    input: int = Field(0, ge=0)
    cached: int = Field(0, ge=0)
    written: int = Field(0, ge=0)
    output: int = Field(0, ge=0)
    reasoning: int = Field(0, ge=0)

    def __add__(self, other: Usage) -> Usage:
        mine, theirs = dict(self), dict(other)
        return Usage(**{name: value + theirs[name] for name, value in mine.items()})

    def since(self, before: Usage) -> Usage:
        """What was used after ``before``, where this is a total that began with it."""
        earlier = dict(before)
        return Usage(**{name: max(0, value - earlier[name]) for name, value in dict(self).items()})

    @property
    def total(self) -> int:
        """Tokens both ways."""
        return self.input + self.output


class Attempt(Fact):
    """One try at a step; counted when it starts, so that caps hold before the spending (I9).

    It ended ``satisfied`` or ``unmet`` by the criteria, ``asked`` when a person has to say whether they are met, or
    because its worker ``died`` or was ``stopped``. It was ``parked`` when its provider would not serve it, and
    ``handed_off`` when the agent's context was full: neither is a failure of the work.

    Attributes:
        runtime: the agent's name in ``town.toml``.
        model: the model it worked with, as far as that is known.
        session: the agent program's own name for the conversation, by which it can be gone on with.
        ending: how the agent's process ended, by what it told.
        usage: tokens; None where nobody knows.
        cost: US dollars; None where nobody knows.
        budget: US dollars that it is allowed; None for no limit.
        tokens: how many it is allowed; None for no limit.
        note: the agent's last words, for whoever goes on.
        until: when a provider that would not serve it said that it will again.
    """

    number: int = Field(ge=1)
    epoch: int
    worker: str
    runtime: str
    model: str = ""
    session: str = ""
    started_at: Moment
    ended_at: Moment | None = None
    end: AttemptEnd | None = None
    ending: Ending | None = None
    reason: str = ""
    note: str = ""
    usage: Usage | None = None
    cost: float | None = Field(None, ge=0)
    budget: float | None = Field(None, ge=0)
    tokens: int | None = Field(None, ge=0)
    until: Moment | None = None


class Comment(Fact):
    """Something somebody said about a bead. Keys that this version does not know are kept."""

    model_config = ConfigDict(frozen=True, extra="allow", defer_build=True)

    id: str
    author: str
    text: str
    created_at: Moment


class MergeRequest(Fact):
    """A molecule's pinned head that asks to go onto main; the bead that carries it is its place in the queue.

    ``landing`` is the intent, stored before main moves: the commit that main is about to become.
    """

    molecule: BeadId
    branch: str
    head: str
    base: str
    landing: str = ""
    landed: str = ""


class Bead(BaseModel):
    """One issue, molecule, step, merge request or message.

    Keys this version does not know are kept and written back (a store outlives the program that wrote it).
    """

    model_config = ConfigDict(frozen=True, extra="allow", defer_build=True)

    id: BeadId
    title: str = Field(min_length=1, max_length=500)
    issue_type: str = Field("task", pattern=r"^[a-z][a-z0-9_-]{0,49}$")
    status: Status = "open"
    outcome: Outcome | None = None
    priority: int = Field(2, ge=0, le=4)
    description: str = ""
    run: str = ""
    rework: str = ""
    agent: str = ""
    assignee: str = ""
    labels: tuple[str, ...] = ()
    source: str = ""
    seal: str = ""
    terms: Terms | None = None
    attempts_max: int = Field(default=3, ge=0)
    epoch: int = Field(default=0, ge=0)
    created_at: Moment
    created_by: str = ""
    updated_at: Moment
    defer_until: Moment | None = None
    closed_at: Moment | None = None
    close_reason: str = ""
    lease: Lease | None = None
    merge: MergeRequest | None = None
    dependencies: tuple[Dependency, ...] = ()
    criteria: tuple[Criterion, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    evidence: tuple[Evidence, ...] = ()
    comments: tuple[Comment, ...] = ()

    @field_validator("title")
    @classmethod
    def _one_line(cls, title: str) -> str:
        if any(ord(c) < 32 for c in title) or not title.strip():
            raise ValueError(f"title {title[:80]!r} must be one line of text")
        return title

    @property
    def closed(self) -> bool:
        """Whether nothing more happens to it."""
        return self.status == "closed"

    @property
    def deleted(self) -> bool:
        """Whether only its tombstone is left."""
        return self.outcome == "deleted"

    @property
    def parent(self) -> str | None:
        """The bead this one is a part of."""
        for dependency in self.dependencies:
            if dependency.type == "parent-child":
                return dependency.on
        return None

    @property
    def needs(self) -> tuple[str, ...]:
        """The beads this one waits for."""
        return tuple(d.on for d in self.dependencies if d.type == "blocks")

    def evolve(self, **changes: Any) -> Bead:
        """The same bead with these fields replaced; the values are the caller's to have checked."""
        return self.model_copy(update=changes)

    def tombstone(self, reason: str, now: datetime) -> Bead:
        """What is left of it when it is deleted: who it was, so that pouring its plan again does not bring it back."""
        kept = ("id", "title", "issue_type", "source", "seal", "epoch", "created_at", "created_by", "updated_at")
        end = {"status": "closed", "outcome": "deleted", "closed_at": now, "close_reason": reason}
        return Bead.model_validate({**{name: getattr(self, name) for name in kept}, **end})

    def digest(self) -> str:
        """The seal's digest over what the work is: title, goal, command and criteria (I3)."""
        # Without defaults, so that a key which a later version adds does not break the seals of this one.
        work = [self.title, self.description, self.run, [c.model_dump(exclude_defaults=True) for c in self.criteria]]
        return "sha256:" + hashlib.sha256(json.dumps(work, sort_keys=True).encode()).hexdigest()

    def sealed(self) -> Bead:
        """The same bead, its goal and criteria fixed from now on."""
        return self.evolve(seal=self.digest())


def write_bead(bead: Bead) -> bytes:
    """The bytes of a bead: keys in a fixed order, empty values left out; equal beads give equal bytes."""
    return plain.written(bead) or dumps(facts(bead))


def read_bead(data: bytes, source: str) -> Bead:
    """The bead that ``data`` holds.

    Raises:
        Unreadable: it is not TOML, or not a bead; names ``source`` and the line or the key.
    """
    from pydantic import ValidationError

    try:
        return Bead.model_validate(plain.read(data) or loads(data, source))
    except InvalidInput as error:
        raise Unreadable(error.message, "Run `bead doctor` to see what is damaged.") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise Unreadable(f"{source}: {where}: {first['msg']}", "Run `bead doctor` to see what is damaged.") from error


def facts(bead: Bead) -> dict[str, Any]:
    """What is written of a bead: not the empty, unless it must be there. Zero and false are facts and stay."""
    found: dict[str, Any] = _facts(bead)
    return found


_PLAIN = (str, int, float, datetime)
_WRITTEN: dict[type[BaseModel], list[tuple[str, bool]]] = {}
"""The fields of a class, in order, and whether they must be written."""


def _facts(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_facts(inner) for inner in value]
    if not isinstance(value, BaseModel):
        return value
    fields = _WRITTEN.get(type(value))
    if fields is None:
        said = type(value).model_fields.items()
        fields = _WRITTEN[type(value)] = [(name, field.is_required()) for name, field in said]
    there = value.__dict__
    kept: dict[str, Any] = {}
    for name, required in fields:
        inner = there[name]
        if required or (inner is not None and inner != "" and inner != ()):
            kept[name] = inner if isinstance(inner, _PLAIN) else _facts(inner)
    return {**kept, **dict(sorted(value.model_extra.items()))} if value.model_extra else kept
