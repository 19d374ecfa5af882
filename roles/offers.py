"""What the Mayor proposes, as a person deals with it: looked at, edited, accepted in one transaction, or refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from beads import graph
from beads.errors import InvalidInput, NotFound, Refused
from beads.model import Bead
from beads.ops import Close, Create, Operation, Update
from beads.plan import Plan, read_plan
from beads.speech import PROPOSAL
from beads.store import Snapshot
from roles import conversation
from roles.conversation import thread
from roles.proposal import Proposal, accept, counted, propose_plan
from roles.reply import Change, Changes, is_plan, read_changes
from roles.site import Site


@dataclass(frozen=True)
class Offer:
    """A proposal of a conversation as it stands in the store, and what accepting it would do.

    Attributes:
        bead: the proposal.
        plan: what pouring it would do; None when it is none.
        changes: what it would change; None when it is a plan.
    """

    bead: Bead
    plan: Proposal | None = None
    changes: Changes | None = None


def offer(site: Site, bead_id: str, actor: str) -> Offer:
    """What a proposal would do now.

    Raises:
        NotFound: there is no such proposal.
        InvalidInput: it cannot be done as things are; says why.
    """
    bead = _proposal(site.store.snapshot(), bead_id)
    return read_offer(site, bead, bead.description, actor)


def _proposal(view: graph.View, bead_id: str) -> Bead:
    bead = view.get(bead_id)
    if bead is None or bead.issue_type != PROPOSAL:
        raise NotFound(f"there is no proposal {bead_id!r}", "`bead list --type proposal` shows what waits for you.")
    return bead


def read_offer(site: Site, bead: Bead, text: str, actor: str) -> Offer:
    """What a proposal would do with another text, such as one that a person has edited; raises as :func:`offer`."""
    if not is_plan(text):
        wanted = read_changes(text, bead.id)
        if not bead.closed:
            check_changes(site.store.snapshot(), wanted)
        return Offer(bead, changes=wanted)
    return Offer(bead, plan=propose_plan(read_plan(text.encode(), bead.id), site.store, actor, site.settings))


def take(site: Site, wanted: Offer, actor: str, reason: str = "") -> str:
    """Accept a proposal: what it makes and that it was accepted is one transaction. The commit that did so.

    Args:
        site: the clone.
        wanted: what was looked at.
        actor: who accepts.
        reason: what they want to have on record.

    Raises:
        LostRace: it is closed by now, or would end work that was not shown.
        TownError: what it would do cannot be done by now.
    """

    def settled(snapshot: Snapshot) -> list[Operation]:
        bead = snapshot.need(wanted.bead.id)
        found = thread(snapshot, bead.parent or "")
        text = "\n\n".join(filter(None, [reason, _accepted(wanted, snapshot)]))
        return conversation.settle(found, snapshot.prefix, actor, bead, text, site.clock.now())

    if wanted.plan is not None:
        written = accept(wanted.plan, site.store, actor, settled)
    else:
        written = site.store.commit(actor, lambda snapshot: [*settled(snapshot), *_changing(snapshot, wanted)])
    return written.snapshot.commit


def _changing(snapshot: Snapshot, wanted: Offer) -> list[Operation]:
    assert wanted.changes is not None
    check_changes(snapshot, wanted.changes)
    return [
        Update(id=change.id, priority=change.priority)
        if change.do == "priority"
        else Close(id=change.id, outcome="cancelled", reason=change.reason)
        for change in wanted.changes.changes
    ]


def _accepted(wanted: Offer, view: graph.View) -> str:
    """What is said in the conversation: what was made or changed, by its ids."""
    if wanted.plan is not None:
        made = [f"{item.molecule.id} {item.wanted.title}" for item in wanted.plan.items]
        return "\n".join(["Accepted. In the store now:", *(f"- {line}" for line in made)])
    assert wanted.changes is not None
    return "\n".join(["Accepted:", *(f"- {line}" for line in changes_in_words(wanted.changes, view))])


def changes_in_words(wanted: Changes, view: graph.View) -> list[str]:
    """A line for each change: of what, from what, and who works on what would be cancelled."""
    return [_change_in_words(change, view.get(change.id)) for change in wanted.changes]


def _change_in_words(change: Change, bead: Bead | None) -> str:
    about = f"{change.id} {bead.title if bead else ''}".rstrip()
    if change.do == "priority":
        return f"{about}: priority {change.priority}{f' instead of {bead.priority}' if bead else ''}: {change.reason}"
    held = f", which {bead.lease.worker} works on" if bead and bead.lease else ""
    return f"{about}{held}: cancelled: {change.reason}"


def decline(site: Site, bead_id: str, actor: str, reason: str) -> None:
    """Say no to a proposal.

    Raises:
        NotFound: there is no such proposal.
        LostRace: it was accepted in the meantime, or something took its place.
    """

    def decide(snapshot: Snapshot) -> Sequence[Operation]:
        bead = _proposal(snapshot, bead_id)
        found = thread(snapshot, bead.parent or "")
        return conversation.refuse(found, snapshot.prefix, actor, bead, reason, site.clock.now())

    site.store.commit(actor, decide, f"no to {bead_id}")


def amend(site: Site, bead_id: str, text: str, actor: str) -> str:
    """Put a proposal with another text in the place of one that waits for a yes; the id of the new one.

    Raises:
        NotFound: there is no such proposal.
        LostRace: it is closed by now.
    """
    made = [""]

    def decide(snapshot: Snapshot) -> Sequence[Operation]:
        bead = snapshot.need(bead_id)
        found = thread(snapshot, bead.parent or "")
        name = plan_title(read_plan(text.encode(), bead_id)) if is_plan(text) else bead.title
        operations = conversation.amend(found, snapshot.prefix, actor, bead, name, text, site.clock.now())
        made[0] = next((o.bead.id for o in operations if isinstance(o, Create)), bead_id)
        return operations

    site.store.commit(actor, decide, f"edit {bead_id}")
    return made[0]


def plan_title(plan: Plan) -> str:
    """What a proposed plan is called among other beads."""
    return f"plan {plan.plan}: {counted(len(plan.molecules), 'molecule')}{': ' if plan.title else ''}{plan.title}"


def check_changes(view: graph.View, wanted: Changes) -> None:
    """Refuse changes to what is not there, or over.

    Raises:
        NotFound: there is no such bead.
        Refused: nothing can be changed about it.
        InvalidInput: there are two changes to one bead.
    """
    twice = next((c.id for n, c in enumerate(wanted.changes) if c.id in [d.id for d in wanted.changes[:n]]), None)
    if twice is not None:
        raise InvalidInput(f"there are two changes to {twice}", "Say one of them.")
    for change in wanted.changes:
        check_changeable(view, change.id)


def check_changeable(view: graph.View, bead_id: str) -> None:
    """Refuse to change what is not there, or over, or no work of its own; raises as :func:`check_changes`."""
    bead = view.get(bead_id)
    if bead is None or bead.deleted:
        raise NotFound(f"there is no bead {bead_id!r}", "`bead list` shows what there is.")
    if bead.closed:
        raise Refused(f"{bead.id} is {bead.outcome or 'closed'} already")
    if not graph.is_unit(bead) or bead.issue_type in graph.UNLISTED - {"epic"}:
        raise Refused(f"{bead.id} is a {bead.issue_type}, and no work of its own", "Name its molecule.")
