"""Conversations with the Mayor as beads: who said what, who is to speak next, and the operations that say more. Pure.

A conversation is a bead, and so is each message and each proposal in it. Whose turn it is follows from which of them
are open: a person's message that is open waits for the Mayor, and a question or a proposal of the Mayor's that is open
waits for a person. What the Mayor says closes what it answers in the same transaction, so that nothing is answered
twice, whoever is killed when, and on whichever clone it goes on.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from beads import graph
from beads.errors import LostRace, NotFound, Refused
from beads.model import Attempt, Bead, Dependency, derived_id, milliseconds
from beads.ops import Close, Create, Operation
from beads.speech import CONVERSATION, MAYOR, MESSAGE, PROPOSAL

MAYOR_BOOKS = "(mayor)"
"""What the Mayor's answers are counted under, where attempts have the name of their agent."""

# What comes from another clone may be of any time, and nothing is younger than the last there is.
_LAST = datetime.max.replace(tzinfo=UTC) - timedelta(milliseconds=1)

_TITLE_MAX = 120
_ID_LENGTH = 8


@dataclass(frozen=True)
class Thread:
    """A conversation as it stands.

    Attributes:
        bead: the conversation itself.
        parts: its messages and proposals, in the order in which they were made.
    """

    bead: Bead
    parts: tuple[Bead, ...]

    @property
    def id(self) -> str:
        """The conversation's id."""
        return self.bead.id

    @property
    def unanswered(self) -> tuple[Bead, ...]:
        """What people have said that the Mayor has not answered."""
        return tuple(part for part in self.parts if _waits(part, MESSAGE) and part.created_by != MAYOR)

    @property
    def questions(self) -> tuple[Bead, ...]:
        """What the Mayor asks: more than one thing only where it was answered on two clones at once."""
        return tuple(part for part in self.parts if _waits(part, MESSAGE) and part.created_by == MAYOR)

    @property
    def question(self) -> Bead | None:
        """What the Mayor asks last; None when it asks nothing."""
        return next(reversed(self.questions), None)

    @property
    def proposals(self) -> tuple[Bead, ...]:
        """What waits for a yes: more than one thing only where it was answered on two clones at once."""
        return tuple(part for part in self.parts if _waits(part, PROPOSAL))

    @property
    def proposal(self) -> Bead | None:
        """What was proposed last and waits for a yes; None when nothing does."""
        return next(reversed(self.proposals), None)

    @property
    def settled(self) -> bool:
        """Whether nobody is to speak next."""
        return all(part.closed for part in self.parts)


def _waits(part: Bead, kind: str) -> bool:
    return part.issue_type == kind and not part.closed


def thread(view: graph.View, conversation: str) -> Thread:
    """The conversation of that id.

    Raises:
        NotFound: there is none.
    """
    bead = view.get(conversation)
    if bead is None or bead.issue_type != CONVERSATION:
        raise NotFound(f"there is no conversation {conversation!r}", "`bead list --type conversation` shows them.")
    parts = (part for part in view.children(conversation) if part.issue_type in (MESSAGE, PROPOSAL))
    return Thread(bead, tuple(sorted(parts, key=lambda part: (part.created_at, graph.natural(part.id)))))


def latest(view: graph.View, actor: str) -> Thread | None:
    """The newest conversation of somebody's that goes on; None when there is none."""
    mine = [b for b in view.unclosed() if b.issue_type == CONVERSATION and b.created_by == actor]
    newest = max(mine, key=lambda bead: (bead.created_at, graph.natural(bead.id)), default=None)
    return thread(view, newest.id) if newest else None


def begin(view: graph.View, prefix: str, actor: str, text: str, now: datetime) -> tuple[str, list[Operation]]:
    """The conversation that begins with these words, and what makes it.

    Beginning it again while somebody is to speak next in it changes nothing, so that a request can be made again after
    a crash; when all has been said, it goes on with the same words.
    """
    names = (derived_id(prefix, CONVERSATION, actor, text, str(n), length=_ID_LENGTH) for n in itertools.count())
    there = ((name, view.get(name)) for name in names)
    name, bead = next((name, bead) for name, bead in there if bead is None or _goes_on(bead))
    if bead is not None:
        found = thread(view, name)
        return name, [] if not found.settled else say(found, prefix, actor, text, now)
    moment = milliseconds(now)
    opened = Bead(
        id=name,
        title=title(text),
        issue_type=CONVERSATION,
        created_at=moment,
        created_by=actor,
        updated_at=moment,
    )
    return name, [Create(bead=opened), Create(bead=_part(prefix, opened, (), MESSAGE, actor, text, now))]


def _goes_on(bead: Bead) -> bool:
    return bead.issue_type == CONVERSATION and not bead.closed


def say(found: Thread, prefix: str, actor: str, text: str, now: datetime, *, done: bool = False) -> list[Operation]:
    """What a person says: it waits for an answer, and answers what the Mayor asked.

    Args:
        found: the conversation.
        prefix: what the store's ids start with.
        actor: who says it.
        text: what.
        now: when.
        done: whether it needs no answer.

    Raises:
        Refused: the conversation is over.
    """
    if found.bead.closed:
        raise Refused(f"the conversation {found.id} is over", "Begin a new one: `town mayor`.")
    message = _part(prefix, found.bead, found.parts, MESSAGE, actor, text, now)
    answered = (_close(question, "answered") for question in found.questions)
    return [Create(bead=_closed(message) if done else message), *answered]


def reply(
    found: Thread,
    prefix: str,
    heard: Iterable[str],
    text: str,
    now: datetime,
    *,
    proposal: tuple[str, str] | None = None,
    asks: bool = False,
    attempt: Attempt | None = None,
) -> list[Operation]:
    """What the Mayor says to what it was told, once.

    Args:
        found: the conversation as it is by now.
        prefix: what the store's ids start with.
        heard: the ids of the messages that it answers.
        text: its words.
        now: when.
        proposal: the title and the text of what it proposes, which takes the place of what it proposed before.
        asks: whether it waits for an answer.
        attempt: what finding the answer took.

    Raises:
        LostRace: one of the messages was answered in the meantime.
    """
    waiting = {part.id for part in found.unanswered}
    gone = next((one for one in heard if one not in waiting), None)
    if gone:
        raise LostRace(f"{gone} was answered in the meantime", f"`town mayor --in {found.id}` goes on from there.")
    message = _part(prefix, found.bead, found.parts, MESSAGE, MAYOR, text, now)
    message = message.evolve(attempts=(attempt,) if attempt else ())
    operations: list[Operation] = [Create(bead=message if asks else _closed(message))]
    operations += [_close(part, "answered") for part in found.parts if part.id in waiting & set(heard)]
    if proposal is not None:
        name, document = proposal
        made = _part(prefix, found.bead, (*found.parts, message), PROPOSAL, MAYOR, document, now)
        operations += [Create(bead=made.evolve(title=title(name)))]
        # A refinement takes the place of what it refines; what was asked before it is answered by it.
        before = (*found.proposals, *found.questions)
        operations += [_close(part, f"superseded by {made.id}", "superseded") for part in before]
    return operations


def refuse(found: Thread, prefix: str, actor: str, proposal: Bead, reason: str, now: datetime) -> list[Operation]:
    """A person's no to a proposal, which is the end of it; nothing when that was said already.

    Raises:
        LostRace: it was accepted, or something took its place.
    """
    if proposal.outcome == "rejected":
        return []
    _still_open(proposal)
    message = _part(prefix, found.bead, found.parts, MESSAGE, actor, f"No: {reason}" if reason else "No.", now)
    return [_close(proposal, reason or f"refused by {actor}", "rejected"), Create(bead=_closed(message))]


def settle(found: Thread, prefix: str, actor: str, proposal: Bead, text: str, now: datetime) -> list[Operation]:
    """A person's yes to a proposal, to be written together with what it makes.

    Another answer to the same words, which a second clone may have had, ends with it: else the same work could be
    accepted once more.

    Raises:
        LostRace: it is closed by now.
    """
    _still_open(proposal)
    message = _part(prefix, found.bead, found.parts, MESSAGE, actor, text, now)
    others = (part for part in found.proposals if part.id != proposal.id)
    ended = (_close(part, f"{proposal.id} was accepted instead", "superseded") for part in others)
    return [_close(proposal, f"accepted by {actor}"), *ended, Create(bead=_closed(message))]


def amend(
    found: Thread, prefix: str, actor: str, proposal: Bead, name: str, text: str, now: datetime
) -> list[Operation]:
    """What a person makes of a proposal, in its place.

    Raises:
        LostRace: it is closed by now.
    """
    _still_open(proposal)
    made = _part(prefix, found.bead, found.parts, PROPOSAL, actor, text, now).evolve(title=title(name))
    return [Create(bead=made), _close(proposal, f"superseded by {made.id}", "superseded")]


def _still_open(proposal: Bead) -> None:
    if proposal.closed:
        how = proposal.outcome or "closed"
        raise LostRace(f"{proposal.id} is {how} already", f"`bead show {proposal.id}` says why.")


def end(found: Thread) -> list[Operation]:
    """The end of a conversation; what is open in it ends with it."""
    parts = [part for part in found.parts if not part.closed]
    return [*(_close(part, "the conversation is over", "cancelled") for part in parts), _close(found.bead, "over")]


def _part(
    prefix: str, conversation: Bead, before: tuple[Bead, ...], kind: str, author: str, text: str, now: datetime
) -> Bead:
    """One more part of a conversation. It is younger than all before it, whatever the clock says."""
    last = max((part.created_at for part in before), default=conversation.created_at)
    moment = max(milliseconds(now), min(last, _LAST) + timedelta(milliseconds=1))
    # By what is said, and not by a number: on two clones two people may speak at once.
    name = derived_id(prefix, kind, conversation.id, moment.isoformat(), author, text, length=_ID_LENGTH)
    return Bead(
        id=name,
        title=title(text),
        issue_type=kind,
        description=text,
        created_at=moment,
        created_by=author,
        updated_at=moment,
        dependencies=(Dependency(on=conversation.id, type="parent-child"),),
    )


def _closed(message: Bead) -> Bead:
    return message.evolve(status="closed", outcome="done", closed_at=message.created_at)


def _close(part: Bead, reason: str, outcome: str = "done") -> Close:
    return Close.model_validate({"id": part.id, "outcome": outcome, "reason": reason})


def title(text: str) -> str:
    """The first words, as one line that can be a title."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text[: 4 * _TITLE_MAX]).split()) or "(nothing)"
    return line if len(line) <= _TITLE_MAX else f"{line[: _TITLE_MAX - 1]}…"
