"""An agent's program as the Mayor's brain: in the sandbox, in a work tree of main that is thrown away afterwards.

It has tools of its own, so that it is not let loose without a sandbox; what it changes is nobody's. It is told how to
answer in words, and a program that can go on with a conversation is told there what was wrong with its answer.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from uuid import NAMESPACE_OID, uuid5

from beads.errors import InvalidInput, Refused
from beads.model import Usage
from refinery.gate import SETTINGS_FILE
from refinery.processes import Exit
from roles import llm
from roles.brain import REFUSALS_MAX, Question, Tally, Took, given_up
from roles.drive import Drive, Limits, Running
from roles.events import Ended, Event, Said
from roles.prices import price
from roles.prompts import cut, in_sections, quoted
from roles.prompts import mayor as words
from roles.reply import Reply
from roles.review import heard
from roles.room import room
from roles.runtimes import names_for, runtime_of
from roles.settings import Agent
from roles.site import Site, wait
from roles.station import Station
from roles.task import Order

_LAST_MAX = 8_000


@dataclass(frozen=True)
class AgentBrain:
    """One of ``[agents]``.

    Attributes:
        site: the clone.
        name: the agent's.
        stopping: says whether to stop.
    """

    site: Site
    name: str
    stopping: Callable[[], bool] = lambda: False

    def check(self) -> Agent:
        """The agent, if it can be asked.

        Raises:
            InvalidInput: there is no such agent, or it only runs commands.
            Refused: there is no sandbox.
        """
        agent = self.site.settings.agent(self.name)
        if agent.runtime == "command":
            raise InvalidInput(
                f"the agent {self.name!r} runs commands, and cannot think", "Name one of another runtime."
            )
        if not self.site.sandbox.confines:
            hint = f'Remove kind = "none" from [sandbox] in {SETTINGS_FILE}, or name a model in [mayor].'
            raise Refused(f"the agent {self.name!r} is not asked without a sandbox", hint)
        table = self.site.settings.mayor
        budget = min(filter(None, (agent.budget, table.budget)), default=None)
        tokens = min(filter(None, (agent.tokens, table.tokens)), default=None)
        timeout = min(agent.timeout, table.timeout)
        return agent.model_copy(update={"budget": budget, "tokens": tokens, "timeout": timeout})

    def think(self, question: Question, tell: Callable[[Event], None]) -> tuple[Reply, Took]:
        """As :class:`roles.brain.Brain` has it."""
        agent = self.check()
        with room(self.site, self.site.main_head()) as place:

            def waiting(job: Running) -> Exit:
                return wait(job, self.site, self.stopping, lambda: None)

            bead = self.site.store.snapshot().need(question.key)
            station = Station(self.site, bead, place.name, place.worktree, waiting)
            return _Hearing(station, agent, self.name, question, tell).until_it_fits()


@dataclass
class _Hearing:
    """All that is said about one question."""

    station: Station
    agent: Agent
    name: str
    question: Question
    tell: Callable[[Event], None]
    _took: Took = field(default_factory=Took)

    def until_it_fits(self) -> tuple[Reply, Took]:
        how = words.HOW_IN_JSON.format(schema=json.dumps(Reply.model_json_schema()))
        asked = prompt = self.question.prompt(how)
        runtime, session, problem = runtime_of(self.agent), "", ""
        for number in range(1, REFUSALS_MAX + 1):
            session, said = self._ask(prompt, number, session if runtime.resumes else "")
            try:
                reply = llm.read(said, Reply)
                problem = self.question.check(reply)
            except InvalidInput as error:
                problem = error.message
            else:
                if not problem:
                    return reply, self._took
            again = words.AGAIN.format(problem=problem)
            last = ("Your last answer", quoted(cut(said, _LAST_MAX)))
            prompt = again if runtime.resumes and session else f"{asked}\n{in_sections([last, ('Again', again)])}"
        raise given_up("stuck", problem, self._took)

    def _ask(self, prompt: str, number: int, session: str) -> tuple[str, str]:
        """Start the program once; the name of its conversation, and what it said."""
        station, site, agent = self.station, self.station.site, self.agent
        label, now = f"mayor-{number}", site.clock.now()
        order = Order(
            agent=agent,
            prompt=prompt,
            directory=station.worktree.path,
            home=site.home(station.molecule.id, self.name),
            scratch=site.scratch(station.molecule.id, label),
            session=session or str(uuid5(NAMESPACE_OID, f"{self.question.key}/{now.timestamp()}")),
            resume=bool(session),
            now=now,
            clock=site.clock.now,
            budget=self._left(),
            confined=True,
            before=self._took.usage or Usage() if session else Usage(),
        )
        reader, texts = runtime_of(agent).reader(order), list[str]()
        tally = Tally(self.tell)

        def tell(event: Event) -> None:
            if isinstance(event, Said | Ended) and event.text:
                texts.append(event.text)
            tally.hear(event)

        job = station.start(station.house(order), station.reach(order), label, agent.timeout, names_for(agent))
        limits = Limits(order.budget or math.inf, agent.tokens or math.inf, agent.silence)
        priced = partial(price, overrides=agent.prices)
        drive = Drive(job, station.log(label), reader, limits, agent.model, priced, site.clock, tell, site.secrets)
        exit = station.wait(drive)
        report = drive.report(exit)
        site.clear_scratch(station.molecule.id)
        self._took = _and(self._took, Took(report.model, report.usage, report.cost))
        if report.ending != "finished":
            raise given_up(report.ending, report.note, self._took)
        return report.session, "\n".join(texts) or heard(exit).text

    def _left(self) -> float | None:
        """What is left of the budget for the next try."""
        if self.agent.budget is None:
            return None
        left = self.agent.budget - (self._took.cost or 0.0)
        if left <= 0:
            raise given_up("limits", f"its budget of ${self.agent.budget:.2f} is spent", self._took)
        return left


def _and(one: Took, other: Took) -> Took:
    """What two runs took together; what of one is not known is not known of both."""
    if one == Took():
        return other
    usage = one.usage + other.usage if one.usage and other.usage else None
    cost = None if one.cost is None or other.cost is None else one.cost + other.cost
    return replace(other, model=other.model or one.model, usage=usage, cost=cost)
