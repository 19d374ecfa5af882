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
from beads.errors import InvalidInput, LostRace, Refused, TownError
from beads.liveness import Presence
from beads.model import Attempt, Bead
from beads.ops import Operation
from beads.plan import Plan, check_name, read_plan, write_plan
from beads.speech import MAYOR, PROPOSAL
from beads.spending import books
from beads.store import Snapshot, Store
from beads.touches import ordered
from refinery.gate import SETTINGS_FILE
from roles import conversation, routing, status
from roles.brain import Brain, NoAnswer, Question, Tally, Took
from roles.conversation import MAYOR_BOOKS, Thread, thread
from roles.events import Event
from roles.offers import check_changes, plan_title
from roles.prompts import mayor as words
from roles.prompts.mayor import Said
from roles.proposal import counted, propose_plan
from roles.reply import Changes, Reply, changes_text, plan_text
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
        tally = Tally(self.tell)
        try:
            reply, took = self.brain.think(question, tally.hear)
        except NoAnswer as error:
            self._note(found, f"I found no answer. {error.message}", error.took, started)
            raise
        except KeyboardInterrupt:
            self._note(found, "I was interrupted.", tally.took, started)
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


def _named_changes(reply: Reply) -> str:
    return f"{counted(len(reply.changes), 'change')}: {', '.join(change.id for change in reply.changes)}"


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
