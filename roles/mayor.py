"""The Mayor: what people say is stored, answered once, and what it proposes is done when a person accepts it.

Each of its steps is one transaction, decided on the state it finds: killed at any point, the next run goes on from
what the store says. The answers come from a :class:`roles.brain.Brain`, which can look and change nothing; what it
says is checked here, by the same code that checks a person's plan file.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from beads import graph
from beads.errors import InvalidInput, LostRace, NotFound, Refused, TownError
from beads.liveness import Presence
from beads.model import Attempt, Bead
from beads.ops import Close, Create, Operation, Update
from beads.plan import Plan, check_name, read_plan, write_plan
from beads.speech import MAYOR, PROPOSAL
from beads.spending import books
from beads.store import Snapshot, Store
from beads.touches import ordered
from refinery.gate import SETTINGS_FILE
from roles import conversation, routing, status
from roles.brain import Brain, NoAnswer, Question, Took
from roles.conversation import MAYOR_BOOKS, Thread, thread
from roles.events import Event
from roles.prompts import mayor as words
from roles.prompts.mayor import Said
from roles.proposal import Proposal, accept, counted, propose_plan
from roles.reply import Change, Changes, Reply, changes_text, is_plan, plan_text, read_changes
from roles.settings import Settings
from roles.site import Site
from roles.study import dossier

SAID_MAX = 100_000
"""Characters of one message of a person; more than a model is shown of it, and no larger than a bead may be."""

# One class of characters and nothing after it, so that no text makes it look twice at the same place.
_WORD = re.compile(r"[A-Za-z0-9_.-]+")
_ABOUT_MAX = 5
_NAMES_MAX = 1000


def hear(store: Store, actor: str, text: str, within: str | None = None) -> str:
    """Store what a person says; the conversation it is part of.

    Args:
        store: the store.
        actor: who says it.
        text: what.
        within: the conversation; None begins one, or finds the one that began so and goes on.

    Raises:
        InvalidInput: nothing is said, or too much.
        NotFound: there is no such conversation.
        Refused: it is over.
    """
    if not text.strip():
        raise InvalidInput("nothing is said", "Say what you want done.")
    if len(text) > SAID_MAX:
        hint = "Commit it as a file on main, and name that."
        raise InvalidInput(f"{len(text)} characters are said at once, and the most is {SAID_MAX}", hint)
    name = [within or ""]

    def decide(snapshot: Snapshot) -> Sequence[Operation]:
        now = store.clock.now()
        if within is None:
            name[0], operations = conversation.begin(snapshot, snapshot.prefix, actor, text, now)
            return operations
        return conversation.say(thread(snapshot, within), snapshot.prefix, actor, text, now)

    store.commit(actor, decide, f"say: {conversation.title(text)}")
    return name[0]


@dataclass(frozen=True)
class Mayor:
    """Answers, by means of a brain.

    Attributes:
        site: the clone.
        brain: what finds the answers.
        tell: told what happens while one is looked for.
        trial: tries a plan's criteria on main: what is wrong with it in words for whoever made it, and what was found
            in words for a person.
    """

    site: Site
    brain: Brain
    tell: Callable[[Event], None]
    trial: Callable[[Plan], tuple[str, str]] = lambda _: ("", "")

    def answer(self, name: str) -> Thread:
        """Answer all that is unanswered in a conversation; where nothing is, nothing happens.

        Raises:
            NotFound: there is no such conversation.
            Refused: the day's budget is spent.
            NoAnswer: no answer came that can be used; that is said in the conversation, too.
            LostRace: it is being answered by another process of this clone, which also answers what is said meanwhile;
                or it was answered on another clone.
        """
        found = thread(self.site.store.snapshot(), name)
        if found.unanswered:
            with self._alone(found.id):
                while found.unanswered:
                    found = self._answer(found.id)
        return found

    @contextmanager
    def _alone(self, name: str) -> Iterator[None]:
        """One process of a clone at a time thinks about a conversation: two would pay twice, into one file."""
        try:
            held = Presence(self.site.store.directory / "mayor", name)
        except LostRace as error:
            hint = f"What was said is kept, and answered there. `town mayor --in {name}` shows it then."
            raise LostRace(f"{name} is being answered by another process", hint) from error
        with held:
            yield

    def _answer(self, name: str) -> Thread:
        snapshot = self.site.store.snapshot()
        found = thread(snapshot, name)
        heard = found.unanswered
        if not heard:
            return found
        started = self.site.clock.now()
        over = routing.day_over(self.site.settings, books(snapshot, started), None, started)
        if over is not None:
            raise Refused(f"nobody is asked: {over.reason}", f"{SETTINGS_FILE} says how much a day may cost.")
        check = _Check(self.site, found, self.trial)
        question = Question(heard[-1].id, lambda how: self._prompt(snapshot, found, heard, how), check.problem)
        try:
            reply, took = self.brain.think(question, self.tell)
        except NoAnswer as error:
            self._note(found, f"I found no answer. {error.message}", error.took, started)
            raise
        try:
            self._say(found, heard, reply, check, _attempt(self.site, took, started))
        except LostRace:
            self._note(found, "My answer came too late.", took, started)
            raise
        return thread(self.site.store.snapshot(), name)

    def _prompt(self, snapshot: Snapshot, found: Thread, heard: Sequence[Bead], how: str) -> str:
        asked = {part.id for part in heard}
        earlier = [Said(_speaker(part), part.description) for part in found.parts if part.id not in asked]
        about = _about(snapshot, [part.description for part in heard])
        return words.compose(
            town=status.in_words(snapshot, self.site.settings, self.site.clock.now()),
            agents=hands(self.site.settings),
            earlier=earlier,
            asked=[Said(part.created_by, part.description) for part in heard],
            evidence="\n\n".join(dossier(snapshot, bead_id) for bead_id in about),
            how=how,
        )

    def _say(self, found: Thread, heard: Sequence[Bead], reply: Reply, check: _Check, attempt: Attempt) -> None:
        text = self.site.secrets.text(reply.words)
        text = "\n\n".join(filter(None, [text, check.found]))
        proposal = check.proposal

        def decide(snapshot: Snapshot) -> Sequence[Operation]:
            return conversation.reply(
                thread(snapshot, found.id),
                snapshot.prefix,
                [part.id for part in heard],
                text,
                self.site.clock.now(),
                proposal=proposal,
                asks=bool(reply.questions),
                attempt=attempt,
            )

        self.site.store.commit(MAYOR, decide, f"answer {found.id}: {conversation.title(text)}")

    def _note(self, found: Thread, text: str, took: Took, started: datetime) -> None:
        """Keep what trying cost, and that it came to nothing; what was said stays as it is."""
        if took == Took(took.model):
            return
        text = self.site.secrets.text(text)
        attempt = _attempt(self.site, took, started)

        def decide(snapshot: Snapshot) -> Sequence[Operation]:
            here = thread(snapshot, found.id)
            return conversation.reply(here, snapshot.prefix, (), text, self.site.clock.now(), attempt=attempt)

        self.site.store.commit(MAYOR, decide, f"no answer in {found.id}")


class _Check:
    """Looks at what a brain says, with the eyes of the code that would have to do it."""

    def __init__(self, site: Site, found: Thread, trial: Callable[[Plan], tuple[str, str]]) -> None:
        self._site = site
        self._thread = found
        self._trial = trial
        self._complained = False
        self.proposal: tuple[str, str] | None = None
        self.found = ""

    def problem(self, reply: Reply) -> str:
        """What is wrong with it; empty when it can be used, and then what it proposes is in :attr:`proposal`."""
        self.proposal, self.found = None, ""
        try:
            if reply.plan is not None:
                return self._plan(reply)
            if reply.changes:
                check_changes(self._site.store.snapshot(), Changes(changes=reply.changes))
                self.proposal = _named_changes(reply), changes_text(reply.changes)
        except TownError as error:
            return f"{error.message}. {error.hint}".removesuffix(". ")
        return ""

    def _plan(self, reply: Reply) -> str:
        assert reply.plan is not None
        text = self._site.secrets.text(plan_text(reply.plan, self._name(reply.plan.plan)))
        plan = ordered(read_plan(text.encode(), "plan"))
        propose_plan(plan, self._site.store, MAYOR, self._site.settings)
        _check_runs(plan, self._site.settings)
        problem, self.found = self._trial(plan)
        # Once: what cannot be tried on main may be right all the same, and is shown to the person with what was found.
        if problem and not self._complained:
            self._complained = True
            return problem
        self.proposal = plan_title(plan), write_plan(plan).decode()
        return ""

    def _name(self, said: str) -> str:
        """What a plan is called: no model can name another plan, whose molecules this one would then supersede."""
        try:
            check_name(said)
        except ValueError as error:
            raise InvalidInput(f"plan: {said[:80]!r} {error}") from error
        own = self._thread.id.rpartition("-")[2]
        return f"{said.removesuffix(f'-{own}')[: 60 - len(own)]}-{own}"


def _check_runs(plan: Plan, settings: Settings) -> None:
    """Refuse a step that is for the command runtime and does not say what to run.

    A person's plan may have one, whose criteria may hold already or come to hold; a planner has forgotten it.
    """
    for index, molecule in enumerate(plan.molecules):
        for number, step in enumerate(molecule.work()):
            name = settings.agent_for(step.agent or molecule.agent, step.capabilities)
            asks = all(criterion.approval for criterion in step.criteria)
            if settings.agent(name).runtime == "command" and not step.run and not asks:
                hint = f"The agent {name or settings.town.agent!r} runs commands: say which, or name another agent."
                raise plan.fault(("molecules", index, "steps", number, "run"), "is missing", hint)


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


def plan_title(plan: Plan) -> str:
    """What a proposed plan is called among other beads."""
    return f"plan {plan.plan}: {counted(len(plan.molecules), 'molecule')}{': ' if plan.title else ''}{plan.title}"


def _named_changes(reply: Reply) -> str:
    return f"{counted(len(reply.changes), 'change')}: {', '.join(change.id for change in reply.changes)}"


# ── Yes and no ───────────────────────────────────────────────────────────────────────────────────────────────


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
    bead = site.store.snapshot().get(bead_id)
    if bead is None or bead.issue_type != PROPOSAL:
        raise NotFound(f"there is no proposal {bead_id!r}", "`bead list --type proposal` shows what waits for you.")
    return read_offer(site, bead, bead.description, actor)


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
        bead = snapshot.get(bead_id)
        if bead is None or bead.issue_type != PROPOSAL:
            raise NotFound(f"there is no proposal {bead_id!r}", "`bead list --type proposal` shows what waits for you.")
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


def over(site: Site, name: str, actor: str) -> None:
    """End a conversation, with what is open in it."""
    site.store.commit(actor, lambda snapshot: conversation.end(thread(snapshot, name)), f"end {name}")


# ── In words ─────────────────────────────────────────────────────────────────────────────────────────────────


def hands(settings: Settings) -> str:
    """Who can do the work, and what must pass before it lands."""
    default = settings.town.agent
    lines = []
    for name in settings.known_agents():
        agent = settings.agent(name)
        able = f", capable of {', '.join(agent.capabilities)}" if agent.capabilities else ""
        what = "runs the step's `run` line, and needs one" if agent.runtime == "command" else "a coding agent"
        lines.append(f"- {name}{' (the default)' if name == default else ''}: {what}{able}")
    gate = settings.gate.commands if settings.gate else ()
    return "\n".join([*lines, "What lands has to pass, on main with it:", *(f"- {line}" for line in gate)])


def _speaker(part: Bead) -> str:
    return (
        f"{part.created_by}, proposing ({part.outcome or part.status})"
        if part.issue_type == PROPOSAL
        else ("you" if part.created_by == MAYOR else part.created_by)
    )


def _about(snapshot: Snapshot, texts: Sequence[str]) -> list[str]:
    """The beads that are spoken of, as far as they are work."""
    words = (word.strip(".-") for text in texts for word in _WORD.findall(text))
    named = dict.fromkeys(word for word in words if "-" in word)
    found = (bead for name in itertools.islice(named, _NAMES_MAX) if (bead := snapshot.get(name)) is not None)
    work = (b.id for b in found if b.issue_type not in graph.UNLISTED or b.issue_type in graph.PARTS)
    return list(itertools.islice(work, _ABOUT_MAX))


def _attempt(site: Site, took: Took, started: datetime) -> Attempt:
    """What finding an answer took, as the store keeps such things."""
    return Attempt(
        number=1,
        epoch=0,
        worker=MAYOR,
        runtime=MAYOR_BOOKS,
        model=took.model,
        started_at=started,
        ended_at=max(started, site.clock.now()),
        end="satisfied",
        ending="finished",
        usage=took.usage,
        cost=took.cost,
    )
