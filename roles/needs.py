"""What one bead needs a person for: the kind of it, what was found, and the commands that bring it forward. Pure.

Which beads do follows from ``beads/graph.py``, and so does the order in which the reasons are looked at here. Whatever
is shown was stored, so that it is the same on any clone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

from beads import graph, lineup
from beads.model import Attempt, Bead, Dependency, Evidence
from beads.proof import asked
from beads.speech import PROPOSAL, SPEECH
from beads.store import one_line
from refinery.queue import REWORK
from roles.acceptance import PROTECTED
from roles.site import branch_of

Kind = Literal[
    "approval",
    "protected",
    "poison",
    "setup",
    "budget",
    "agent",
    "seal",
    "dependency",
    "cycle",
    "queue",
    "withdrawn",
    "disk",
    "question",
    "proposal",
]
"""What a person is needed for.

``approval``: to say yes or no to what a step has made. ``protected``: the same of paths that no branch changes by
itself, or such a change that nobody can say yes to. ``poison``: what went wrong too often. ``setup``: a work tree that
cannot be made ready. ``budget``: what has cost all that it may. ``agent``: nobody is there who can do it, or may.
``seal``: a goal that was changed behind its seal. ``dependency``: waiting for what will never come. ``cycle``: beads
that wait for each other. ``queue``: nothing can land. ``withdrawn``: somebody took finished work out of the queue.
``disk``: there is no room for another work tree. ``question`` and ``proposal``: what the Mayor asks, and a plan of the
Mayor's.
"""

TAIL_LINES = 10
"""How many lines of what a command printed last are shown."""

TAIL_MAX = 2000
"""How many characters of them."""


@dataclass(frozen=True)
class Exhibit:
    """A piece of what was found: one line, the text that goes with it, and when it was found, where that is known."""

    what: str
    text: str = ""
    at: datetime | None = None


@dataclass(frozen=True)
class Way:
    """A way on: a command line as it is typed, and what it does. Where it takes no command, only what is to be done.

    Words in capitals are for the person to fill in.
    """

    command: str
    does: str

    def __str__(self) -> str:
        return self.command or self.does


@dataclass(frozen=True)
class Item:
    """Something that needs a person.

    Attributes:
        kind: what for.
        bead_id: the bead that it is about; of several, the first one. Empty where it is about none.
        title: that bead's.
        priority: that bead's; 0 comes first.
        since: since when it is so; None where that does not follow from what is stored.
        reason: why, in one line.
        evidence: what was found.
        ways: how it can go on, the most usual one first.
        mark: tells this occasion from an earlier one of the same kind about the same bead.
    """

    kind: Kind
    bead_id: str
    title: str
    priority: int
    since: datetime | None
    reason: str
    evidence: tuple[Exhibit, ...] = ()
    ways: tuple[Way, ...] = ()
    mark: str = ""


def need(view: graph.View, bead: Bead, reason: str, branch: str = "main") -> Item:
    """The item for a unit that stands so that it needs a person by what is stored.

    Args:
        view: the store.
        bead: the unit.
        reason: why, as :func:`graph.state` says it.
        branch: the branch that landing is about.
    """
    if bead.issue_type in SPEECH:
        return _spoken(bead, reason)
    gone = next((target for target in graph.blockers(view, bead) if target.closed), None)
    if gone is not None:
        return _unfulfillable(view, bead, gone, reason)
    if graph.reworks(view, bead) > graph.REWORKS_MAX:
        return _sent_back(view, bead, reason)
    step = graph.next_step(view, bead)
    dropped = lineup.withdrawn(graph.merge_requests(view, bead))
    if dropped is not None and (step is None or step.id == bead.id):
        return _withdrawn(view, bead, dropped, reason)
    changed = next((one for one in (bead, step) if one and one.seal and one.seal != one.digest()), None)
    if changed is not None:
        return _unsealed(bead, changed, reason)
    question = asked(step) if step else None
    if step is not None and question is not None:
        return _asked(view, bead, step, question, reason, branch)
    if step is not None and graph.used_up(step):
        return _used_up(bead, step, reason)
    spent = view.get(graph.overdrawn(view, bead, step)) if step is not None else None
    if step is not None and spent is not None:
        return _overdrawn(view, bead, step, spent, reason)
    return unable(bead, reason, f"bead why {bead.id}")


def unable(bead: Bead, reason: str, remedy: str) -> Item:
    """The item for what nobody is there to do, or may; the remedy is a command, or the change that helps."""
    way = Way(remedy, "") if remedy.startswith(("bead ", "town ")) else Way("", remedy)
    why = Way("town doctor", "says of each agent what is wrong with it")
    return _item("agent", bead, reason, None, reason, (), way, why, _give_up(bead))


def held_back(view: graph.View, bead: Bead, target: str) -> tuple[Bead, Dependency] | None:
    """The dependency by which a bead waits for another one: its own, or of what it is a part of; and whose that is."""
    awaited = view.get(target)
    here: Bead | None = bead
    seen: set[str] = set()
    while here is not None and here.id not in seen:
        seen.add(here.id)
        for one in here.dependencies:
            direct = one.type in ("blocks", "conditional-blocks") and one.on == target
            if direct or (one.type == "waits-for" and awaited is not None and awaited.parent == one.on):
                return here, one
        here = view.get(here.parent) if here.parent else None
    return None


def take_away(holder: Bead, dependency: Dependency) -> Way:
    """The way on without a dependency."""
    kind = "" if dependency.type == "blocks" else f" --type {dependency.type}"
    return Way(f"bead dep remove {holder.id} {dependency.on}{kind}", f"lets {holder.id} go on without it")


def tail(output: str) -> str:
    """The end of what a command has printed."""
    return "\n".join(output.splitlines()[-TAIL_LINES:])[-TAIL_MAX:]


def _item(
    kind: Kind, bead: Bead, reason: str, since: datetime | None, mark: str, evidence: Iterable[Exhibit], *ways: Way
) -> Item:
    told = tuple(replace(one, what=one_line(one.what)) for one in evidence)
    return Item(kind, bead.id, bead.title, bead.priority, since, one_line(reason), told, ways, mark)


def _give_up(bead: Bead) -> Way:
    return Way(f"bead close {bead.id} --outcome cancelled --reason WHY", "gives it up")


def _take(bead: Bead, does: str = "puts it into your hands; with --done you submit it yourself") -> Way:
    return Way(f"town attach {bead.id}", does)


def _spoken(bead: Bead, reason: str) -> Item:
    """What the Mayor says that waits for a person."""
    talk = Way(f"town mayor --in {bead.parent}" if bead.parent else "town mayor", "goes on with the conversation")
    if bead.issue_type == PROPOSAL:
        said = Exhibit("the plan", bead.description or bead.title, bead.created_at)
        yes = Way(f"town approve {bead.id}", "says yes, and it is work")
        no = Way(f"town reject {bead.id} --reason WHY", "says no, and it is forgotten")
        return _item("proposal", bead, reason, bead.created_at, "", (said,), yes, no, talk)
    said = Exhibit("the Mayor asks", bead.description or bead.title, bead.created_at)
    return _item(
        "question", bead, reason, bead.created_at, "", (said,), Way(f"town answer {bead.id} TEXT", "answers it"), talk
    )


def _unfulfillable(view: graph.View, bead: Bead, gone: Bead, reason: str) -> Item:
    found = held_back(view, bead, gone.id)
    holder, edge = found or (bead, Dependency(on=gone.id))
    how = gone.outcome or "closed"
    said = Exhibit(f"{gone.id} {gone.title}: {how}", gone.close_reason, gone.closed_at)
    again = Way(f"bead reopen {gone.id}", "works on that after all")
    ways = (take_away(holder, edge), again, _give_up(holder))
    # What is for the failure of something that did not fail is rarely wanted any more.
    ordered = (ways[2], ways[0]) if edge.type == "conditional-blocks" else ways
    since = max(gone.closed_at or gone.created_at, holder.created_at)
    return _item("dependency", holder, reason, since, f"{gone.id} {since.isoformat()}", (said,), *ordered)


def _sent_back(view: graph.View, bead: Bead, reason: str) -> Item:
    back = [request for request in graph.merge_requests(view, bead) if request.outcome == "rejected"]
    said = [Exhibit(f"{one.id}: {one.close_reason}", _printed(one.evidence), one.closed_at) for one in back]
    since = max((one.closed_at for one in back if one.closed_at), default=None)
    return _item("poison", bead, reason, since, f"{len(back)} back", said, _take(bead), _give_up(bead))


def _withdrawn(view: graph.View, bead: Bead, dropped: Evidence, reason: str) -> Item:
    request = graph.merge_requests(view, bead)[-1]
    said = Exhibit(f"{request.id} was taken out of the merge queue by {dropped.by}", dropped.detail, dropped.at)
    again = Way(f"town queue retry {request.id}", "asks for the same once more")
    mark = f"{request.id} {dropped.at.isoformat()}"
    return _item("withdrawn", bead, reason, dropped.at, mark, (said,), again, _take(bead), _give_up(bead))


def _printed(evidence: Sequence[Evidence]) -> str:
    """The end of what the last of those printed that did not pass."""
    return next((tail(e.output) for e in reversed(evidence) if e.verdict in ("fail", "error") and e.output), "")


def _unsealed(bead: Bead, changed: Bead, reason: str) -> Item:
    said = Exhibit(f"{changed.id} is not what was sealed", f"sealed: {changed.seal}\nnow:    {changed.digest()}")
    look = Way(f"bead log {changed.id}", "shows who changed it; `bead undo --transaction REV` takes that back")
    end = Way(f"bead close {bead.id} --outcome superseded --reason WHY", "ends it, where another bead takes its place")
    return _item("seal", bead, reason, changed.updated_at, changed.digest(), (said,), look, end)


def _asked(view: graph.View, bead: Bead, step: Bead, question: Evidence, reason: str, branch: str) -> Item:
    promised = {str(c) for one in graph.steps(view, bead) if REWORK not in one.labels for c in one.criteria}
    ours = REWORK in step.labels and question.subject not in promised
    proven = [f"{e.subject}: {e.detail}" for e in step.evidence if (e.tree, e.verdict) == (question.tree, "pass")]
    found = [Exhibit(question.subject, "", question.at), Exhibit(question.detail, question.output)]
    if ours and step.description:
        found.append(Exhibit(step.title, tail(step.description)))
    if proven:
        found.append(Exhibit("what was proven about the same files", "\n".join(dict.fromkeys(proven))))
    return _item(
        "protected" if ours else "approval",
        bead,
        reason,
        question.at,
        f"{step.id} {question.tree} {question.at.isoformat()}",
        found,
        Way(f"town approve {bead.id} --tree {question.tree[:12]}", "says yes to exactly these files"),
        Way(f"town reject {bead.id} --reason WHY", "says no; it is worked on again with your reason"),
        Way(f"town answer {bead.id} TEXT", "says neither, where the question is an open one; it is worked on again"),
        Way(f"git diff {branch}...{branch_of(bead)}", "shows what it is about"),
        _give_up(bead),
    )


def _used_up(bead: Bead, step: Bead, reason: str) -> Item:
    """What no further attempt is to be begun at: which attempts it comes of decides what helps."""
    failed = graph.failed(step)
    more = Way(f"town retry {bead.id}", "gives it three more attempts, once you have mended what was wrong")
    log = Way(f"town log {step.id}", "shows what its agent did last")
    anew = Way(f'town mayor "Find another way for {bead.id}"', "has it planned anew, from what was found")
    ways: tuple[Way, ...] = (more, _take(bead), anew, log, _give_up(bead))
    kind: Kind = "poison"
    if len(failed) >= step.attempts_max:
        counted = failed
        last = _found(step, failed[-1]) if failed else None
        if last is not None and last.subject == PROTECTED:
            kind = "protected"
            later = "gives it up; planned anew with an approval among its criteria, it is yours to say yes to"
            ways = (_take(bead, "lets you take that change back"), more, Way(_give_up(bead).command, later))
    elif graph.out_of_tries(step):
        counted, kind = list(reversed(graph.unready(step))), "setup"
        ways = (more, Way(f"bead why {bead.id}", "shows all that was printed"), _give_up(bead))
    else:
        counted = graph.handoffs(step) if len(graph.handoffs(step)) >= graph.HANDOFFS_MAX else graph.deaths(step)
        ways = (_take(bead), anew, log, _give_up(bead))
    since = max((attempt.ended_at or attempt.started_at for attempt in counted), default=None)
    mark = f"{step.id} {len(step.attempts)}"
    last_words = counted[-1].reason if counted else ""
    reason = reason if not last_words or last_words in reason else f"{reason}; the last time: {last_words}"
    return _item(kind, bead, reason, since, mark, [_tried(step, attempt) for attempt in counted], *ways)


def _tried(step: Bead, attempt: Attempt) -> Exhibit:
    """What became of an attempt."""
    found = _found(step, attempt)
    what = f"attempt {attempt.number} at {step.id} by {attempt.runtime}: {attempt.reason or attempt.end}"
    return Exhibit(what, tail(found.output) if found else "", attempt.ended_at or attempt.started_at)


def _found(step: Bead, attempt: Attempt) -> Evidence | None:
    """What did not hold in the end of an attempt: the last such evidence before the next one began."""
    later = min((a.started_at for a in step.attempts if a.number > attempt.number), default=None)
    during = [e for e in step.evidence if attempt.started_at <= e.at and (later is None or e.at < later)]
    bad = [e for e in during if e.verdict in ("fail", "error")]
    return max(bad, key=lambda e: e.at, default=None)


def _overdrawn(view: graph.View, bead: Bead, step: Bead, spent: Bead, reason: str) -> Item:
    steps = [step] if spent.id == step.id else graph.steps(view, bead)
    made = [(one, attempt) for one in steps for attempt in one.attempts]
    said = [
        Exhibit(f"attempt {attempt.number} at {one.id} by {attempt.runtime}: {_cost(attempt)}", "", attempt.started_at)
        for one, attempt in made
    ]
    since = max((attempt.ended_at or attempt.started_at for _, attempt in made), default=None)
    budget = spent.terms.budget if spent.terms else None
    allow = Way(f"bead update {spent.id} --budget N", "lets it cost as much in all, in US dollars")
    costs = Way("town costs --by molecule", "shows what everything has cost")
    return _item("budget", bead, reason, since, f"{spent.id} {budget}", said, allow, _take(bead), costs, _give_up(bead))


def _cost(attempt: Attempt) -> str:
    return f"${attempt.cost:.4f}" if attempt.cost is not None else "nobody knows what it cost"
