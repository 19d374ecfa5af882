"""The operations a transaction is made of, as values; ``beads/apply.py`` says what each does.

Every operation can be written as one JSON line (``bead batch``) and is idempotent: where its effect already
holds it changes nothing, so that every caller may simply do it again.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from beads.create import Create as Create
from beads.model import (
    AttemptEnd,
    Bead,
    BeadId,
    DependencyType,
    Ending,
    Evidence,
    Fact,
    Moment,
    Outcome,
    Status,
    Terms,
    Usage,
)

LEASE_SECONDS = 3600.0
"""How long a lease holds without renewal, for workers whose life cannot be asked of the local kernel."""


LEASE_SECONDS_MAX = 30 * 86_400.0
"""The longest lease; whoever needs it longer renews it."""


class Import(Fact):
    """Take over what a file of another program says of a bead; what was edited here since the last import stays.

    Other beads are not looked at: rings and dependencies on what is not there are kept as they are, for
    ``bead doctor`` to tell.
    """

    op: Literal["import"] = "import"
    bead: Bead


class Update(Fact):
    """Set plain fields; what a seal covers is refused."""

    op: Literal["update"] = "update"
    id: BeadId
    title: str | None = None
    description: str | None = None
    status: Status | None = None
    priority: int | None = Field(None, ge=0, le=4)
    assignee: str | None = None
    agent: str | None = None
    terms: Terms | None = None
    attempts_max: int | None = Field(None, ge=0)
    defer_until: Moment | None = None


class Label(Fact):
    """Add and remove labels."""

    op: Literal["label"] = "label"
    id: BeadId
    add: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()


class Depend(Fact):
    """Add a dependency, or with ``remove`` take it away. A cycle of blocking ones is refused."""

    op: Literal["depend"] = "depend"
    id: BeadId
    on: BeadId
    type: DependencyType = "blocks"
    remove: bool = False


class Say(Fact):
    """Comment on a bead. The same words by the same author at the same moment are one comment."""

    op: Literal["comment"] = "comment"
    id: BeadId
    text: str = Field(min_length=1)


class Claim(Fact):
    """Take the lease of a molecule under the next epoch; without ``id``, of the best one that is ready.

    ``workable`` restricts the choice to beads with criteria, which is what polecats can work on. ``hand`` says that a
    person takes it, who may also have what waits for a person or for a date.
    """

    op: Literal["claim"] = "claim"
    id: BeadId | None = None
    worker: str = Field(min_length=1)
    site: str = ""
    seconds: float = Field(LEASE_SECONDS, gt=0, le=LEASE_SECONDS_MAX)
    workable: bool = False
    hand: bool = False


class Held(Fact):
    """The base of every operation that only the holder of a lease may do."""

    id: BeadId
    worker: str = Field(min_length=1)
    epoch: int = Field(ge=1)


class Renew(Held):
    """Move the lease's end further away."""

    op: Literal["renew"] = "renew"
    seconds: float = Field(LEASE_SECONDS, gt=0, le=LEASE_SECONDS_MAX)


class Release(Held):
    """Give the lease back; a started attempt ends as ``end``. ``reason`` is for the history.

    ``until`` puts the molecule off until then: its work waits for something that only time brings.
    """

    op: Literal["release"] = "release"
    end: AttemptEnd = "stopped"
    reason: str = ""
    until: Moment | None = None


class Begin(Held):
    """Start an attempt at step ``id``; refused when its attempts are used up.

    ``cost`` is what it will cost in US dollars, where that is known before: a command costs nothing. ``budget`` and
    ``tokens`` are what it is allowed. ``model`` and ``session`` are what the agent is told to use.
    """

    op: Literal["begin"] = "begin"
    runtime: str
    model: str = ""
    session: str = ""
    cost: float | None = Field(None, ge=0)
    budget: float | None = Field(None, ge=0)
    tokens: int | None = Field(None, ge=0)


class Report(Fact):
    """What a run of an agent came to, as far as it is known: the fields are those of the attempt it was."""

    ending: Ending = "finished"
    model: str = ""
    session: str = ""
    note: str = ""
    usage: Usage | None = None
    cost: float | None = Field(None, ge=0)
    until: Moment | None = None


class Spend(Held):
    """Store what the running attempt at step ``id`` has come to, before anything is made of it (I1)."""

    op: Literal["spend"] = "spend"
    report: Report


class Finish(Held):
    """End the running attempt at step ``id`` with the evidence that was found."""

    op: Literal["finish"] = "finish"
    end: AttemptEnd
    reason: str = ""
    evidence: tuple[Evidence, ...] = ()


class Answer(Fact):
    """A person's answer to what an approval criterion of step ``id`` asks about ``tree``.

    Not about anything else: work that has gone on since has to be asked about anew. The last answer counts. With
    ``approved`` None it is neither a yes nor a no: the step is worked on again with the words in ``reason``.
    """

    op: Literal["answer"] = "answer"
    id: BeadId
    tree: str = Field(pattern=r"^([0-9a-f]{40}|[0-9a-f]{64})$")
    approved: bool | None
    reason: str = ""


class Close(Fact):
    """Close a bead. A step or a bead with criteria closes only with evidence that each of them passed.

    Work may be given up with the outcomes that say so, but a step only together with all of its molecule.
    ``force`` is a person's decision to close without proof; the reason is kept and says so.
    """

    op: Literal["close"] = "close"
    id: BeadId
    outcome: Outcome = "done"
    reason: str = ""
    worker: str = ""
    epoch: int = 0
    evidence: tuple[Evidence, ...] = ()
    force: bool = False


class Reopen(Fact):
    """Open a closed bead again; what has landed stays landed. A worker may only as the holder of the lease."""

    op: Literal["reopen"] = "reopen"
    id: BeadId
    worker: str = ""
    epoch: int = 0


class Delete(Fact):
    """Leave nothing of a bead but a tombstone; of a molecule's steps and merge requests, too.

    What waits for it is freed. With ``cascade`` everything else that is a part of it is deleted as well;
    otherwise such parts are a reason to refuse. The history keeps what was there.
    """

    op: Literal["delete"] = "delete"
    id: BeadId
    reason: str = ""
    cascade: bool = False


class Changed(Fact):
    """A bead before and after a transaction; without ``before`` it was created by it."""

    before: Bead | None = None
    after: Bead


class Restore(Fact):
    """Take back what the transaction ``commit`` changed; ``what`` it was is for the history.

    What was changed since stays as it is. Where that is the same field of the same bead, all of it is refused.
    """

    op: Literal["restore"] = "restore"
    commit: str = Field(pattern=r"^([0-9a-f]{40}|[0-9a-f]{64})$")
    what: str = ""
    beads: tuple[Changed, ...]


class Submit(Held):
    """Ask that the molecule's pinned head goes onto main, and give the lease back.

    When the head adds nothing to its base the goal already held, and the molecule is done.
    """

    op: Literal["submit"] = "submit"
    branch: str
    head: str
    base: str


class Judge(Fact):
    """Store a verdict of the gate on the merge request at the tip of the tested candidate."""

    op: Literal["judge"] = "judge"
    id: BeadId
    evidence: Evidence


class Intend(Fact):
    """Store which commit main is about to become for these merge requests: intent before effect."""

    op: Literal["intend"] = "intend"
    ids: tuple[BeadId, ...]
    commit: str


class Land(Fact):
    """These merge requests are on main; their molecules have landed."""

    op: Literal["land"] = "land"
    ids: tuple[BeadId, ...]
    commit: str


class SendBack(Fact):
    """Return a merge request to its molecule, with a further step that says what is to be mended."""

    op: Literal["send-back"] = "send-back"
    id: BeadId
    reason: str
    step: Bead


class Bump(Fact):
    """Put a merge request to the front of the queue, behind what was put there before and what it needs.

    Those in the queue that it needs come along.
    """

    op: Literal["bump"] = "bump"
    id: BeadId
    reason: str = ""


class Withdraw(Fact):
    """Take a merge request out of the queue; what becomes of its molecule is for a person to say.

    One that is about to land is let be. ``void`` is an intent of which the caller knows that it cannot come true,
    because main has moved since.
    """

    op: Literal["withdraw"] = "withdraw"
    id: BeadId
    reason: str = Field(min_length=1)
    void: str = ""


class Again(Fact):
    """Have a merge request tried again: forget nothing, but let what was said against it before no longer count.

    One that is over, but has not landed, is asked for once more, with the same head, as a new request. The step that
    it was sent back with is then given up.
    """

    op: Literal["again"] = "again"
    id: BeadId
    reason: str = ""


Operation = Annotated[
    Create
    | Import
    | Update
    | Label
    | Depend
    | Say
    | Claim
    | Renew
    | Release
    | Begin
    | Spend
    | Finish
    | Answer
    | Close
    | Reopen
    | Delete
    | Restore
    | Submit
    | Judge
    | Intend
    | Land
    | SendBack
    | Bump
    | Withdraw
    | Again,
    Field(discriminator="op"),
]
