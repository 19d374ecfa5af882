"""Who does a step, what that may cost, and when: one pure decision, which scheduler and polecat share.

All of it follows from ``town.toml``, from the attempts that are stored, and from the time. A cap is looked at before
anything is begun, and what is left of the tightest one is what the run itself is allowed (I9). A provider that would
not serve one molecule is not asked for another before it said that it will.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from beads import graph
from beads.errors import InvalidInput
from beads.model import Attempt, Bead, Ending, Terms, Usage
from beads.spending import Books, Day, Running, day_of
from beads.state import State
from refinery.gate import SETTINGS_FILE
from roles.prices import price
from roles.runtimes import runtime_of
from roles.settings import Agent, EventsTable, Settings


class Go(NamedTuple):
    """An attempt may begin.

    Attributes:
        agent: whose turn it is.
        budget: US dollars that it may cost; None for no limit.
        tokens: how many it may use; None for no limit.
    """

    agent: str
    budget: float | None = None
    tokens: int | None = None


class Wait(NamedTuple):
    """Nothing may begin yet: why, and until when; without a time, until something that runs has ended."""

    reason: str
    until: datetime | None = None


class Ask(NamedTuple):
    """A person has to say how it goes on: why, and the command or the change that helps."""

    reason: str
    command: str


Route = Go | Wait | Ask


def route(
    settings: Settings, books: Books, view: graph.View, molecule: Bead, step: Bead | None, now: datetime
) -> Route:
    """Whether an attempt at a step may begin now, and on what terms.

    Args:
        settings: the agents and the caps.
        books: what was spent, who is parked, and who works.
        view: the store.
        molecule: what the step belongs to.
        step: the step; None when there is nothing left to do but to submit, which needs nobody.
        now: the time.
    """
    if step is None:
        return Go("")
    try:
        names = chain(settings, step.agent or molecule.agent, step)
    except InvalidInput as error:
        return Ask(error.message, error.hint)
    spent = graph.overdrawn(view, molecule, step)
    if spent:
        return Ask(f"{spent} {graph.over_budget(view, view.get(spent) or step)}", f"bead update {spent} --budget N")
    rest = [left for bead in {step.id: step, molecule.id: molecule}.values() if (left := graph.left(view, bead))]
    # Its own attempts that seem to run are of workers that are gone: whoever asks holds it, or nobody does.
    books = books._replace(running=tuple(one for one in books.running if one.molecule != molecule.id))
    turn = whose_turn(settings, names, step)
    # Where the plan has named nobody, whoever comes later in the chain stands in for one that is not served.
    able = names[turn : turn + 1] if step.agent or molecule.agent else names[turn:]
    served = [name for name in able if name not in books.parked]
    if not served:
        first = min(able, key=lambda name: books.parked[name].until)
        until = books.parked[first].until
        return Wait(f"agent {first} is parked until {in_words(until, now)}", until)
    return _within_caps(settings, books, served[0], step, rest, now)


def _within_caps(
    settings: Settings, books: Books, name: str, step: Bead, rest: Sequence[float], now: datetime
) -> Route:
    """Whether that agent may begin, by all that limits how much, and how many of it."""
    agent = settings.agent(name)
    busy = sum(one.agent == name for one in books.running)
    if agent.at_once is not None and busy >= agent.at_once:
        return Wait(f"agent {name} is at work on {busy} of {agent.at_once} at once")
    free = agent.runtime == "command"
    judged = any(criterion.review for criterion in step.criteria)
    over = day_over(settings, books, None if free else name, now) if judged or not free else None
    if over or free:
        return over or Go(name)
    caps = _caps(settings, books, name)
    budgets = [*rest, *(cap.left for cap in caps if cap.money), *([agent.budget] if agent.budget else [])]
    if budgets and not knowable(agent):
        return Ask(f"what agent {name} costs is not known, so that no budget can be held", _hint(name))
    tokens = [int(cap.left) for cap in caps if not cap.money] + ([agent.tokens] if agent.tokens else [])
    promised = next((cap for cap in caps if cap.left <= 0), None)
    if promised:
        return Wait(f"the rest of {promised} is promised to what runs")
    return Go(name, min(budgets, default=None), min(tokens, default=None))


class _Cap(NamedTuple):
    """A cap of a day.

    Attributes:
        whose: in words.
        most: US dollars or tokens.
        used: how much of it is used.
        promised: how much of it what runs is allowed.
        money: whether it is of dollars.
    """

    whose: str
    most: float
    used: float
    promised: float
    money: bool

    @property
    def left(self) -> float:
        """What is left of it for one more."""
        return self.most - self.used - self.promised

    def __str__(self) -> str:
        return f"{self.whose} of " + (f"${self.most:.2f}" if self.money else f"{self.most:.0f} tokens")


def _caps(settings: Settings, books: Books, name: str | None) -> list[_Cap]:
    """The caps of this day: the town's, and those of an agent."""
    caps = []
    if settings.town.budget_day is not None:
        used = sum(day.cost for day in books.today.values())
        promised = sum(one.budget or 0.0 for one in books.running)
        caps.append(_Cap("the town's budget a day", settings.town.budget_day, used, promised, True))
    if name is None:
        return caps
    agent, today = settings.agent(name), books.today.get(name, Day())
    mine = [one for one in books.running if one.agent == name]
    if agent.budget_day is not None:
        promised = sum(one.budget or 0.0 for one in mine)
        caps.append(_Cap(f"the budget a day of agent {name}", agent.budget_day, today.cost, promised, True))
    if agent.tokens_day is not None:
        tokens = sum(one.tokens or 0 for one in mine)
        caps.append(_Cap(f"what agent {name} may use a day", agent.tokens_day, today.tokens, tokens, False))
    return caps


def day_over(settings: Settings, books: Books, name: str | None, now: datetime) -> Wait | None:
    """That a cap of this day is reached: the town's, or one of the agent ``name``; None while none is."""
    for cap in _caps(settings, books, name):
        if cap.used >= cap.most:
            until = day_of(now) + timedelta(days=1)
            used = f"${cap.used:.2f}" if cap.money else f"{cap.used:.0f}"
            return Wait(f"{cap} is used up, with {used}, until {in_words(until, now)}", until)
    return None


def cut_short(agent: Agent, attempt: Attempt, ending: Ending) -> bool:
    """Whether it was less than the agent's own limits that ended an attempt: no failure of the work."""
    less = (attempt.budget or math.inf) < (agent.budget or math.inf)
    fewer = (attempt.tokens or math.inf) < (agent.tokens or math.inf)
    return ending == "limits" and (less or fewer)


def of(settings: Settings, books: Books, view: graph.View, molecule: Bead, now: datetime) -> Route:
    """As :func:`route`, for the step of a molecule that is next."""
    return route(settings, books, view, molecule, graph.next_step(view, molecule), now)


def chain(settings: Settings, named: str, step: Bead) -> tuple[str, ...]:
    """The agents that are to do a step, each when the one before it has failed often enough.

    Raises:
        InvalidInput: there is none that is able.
    """
    wanted = set(step.terms.capabilities if step.terms else ())
    first = settings.agent_for(named, wanted)
    later = [name for name in settings.agent(first).escalate if wanted <= set(settings.agent(name).capabilities)]
    return tuple(dict.fromkeys((first, *later)))


def whose_turn(settings: Settings, names: Sequence[str], step: Bead) -> int:
    """The place in a chain of the one that makes the next attempt at a step.

    Where the best of several attempts is taken they take turns. Otherwise each has its ``tries``, but for the last,
    which has all that is left; so few attempts may be left that one is passed over, so that the last has one at least.
    """
    if contested(step):
        return len(entries(step)) % len(names)
    failed = graph.failed(step)
    tries = Counter(attempt.runtime for attempt in failed)
    left = step.attempts_max - len(failed)
    by_tries = (n for n, name in enumerate(names) if tries[name] < settings.agent(name).tries)
    last = len(names) - 1
    return min(max(next(by_tries, last), len(names) - left), last)


def entries(step: Bead) -> list[str]:
    """The agents of the attempts that came to an end which can be judged."""
    return [attempt.runtime for attempt in step.attempts if attempt.end in ("satisfied", "unmet")]


def contested(step: Bead) -> bool:
    """Whether there are to be more attempts before the best of them is taken."""
    best_of = step.terms.best_of if step.terms else None
    return best_of is not None and len(entries(step)) < best_of


def agent_of(settings: Settings, molecule: Bead, step: Bead, name: str = "") -> Agent:
    """An agent on the terms of a step: by name, or else who made the last attempt or is to make the next.

    Raises:
        InvalidInput: there is none that is able.
    """
    names = chain(settings, step.agent or molecule.agent, step)
    last = step.attempts[-1].runtime if step.attempts else ""
    name = name or (last if last in names else names[whose_turn(settings, names, step)])
    terms = step.terms or Terms()
    # The model that a plan names is one of the agent it is planned for.
    return settings.agent(name).on(terms if name == names[0] else terms.model_copy(update={"model": ""}))


def with_spawned(books: Books, spawned: Sequence[Running]) -> Books:
    """The books, with those that are about to begin among those that run."""
    begun = {one.molecule for one in books.running}
    return books._replace(running=(*books.running, *(one for one in spawned if one.molecule not in begun)))


def stands(route: Route, state: State) -> State:
    """Where a unit of work stands that is ready as far as the store alone can tell."""
    match route:
        case Go():
            return state
        case Wait():
            return State("deferred" if route.until else "ready", route.reason)
        case Ask():
            return State("needs_person", route.reason)


def in_words(until: datetime, now: datetime) -> str:
    """A moment that is soon, for people."""
    return f"{until:%H:%M:%S} UTC" if until.date() == now.date() else f"{until:%Y-%m-%d %H:%M} UTC"


def knowable(agent: Agent) -> bool:
    """Whether anybody can know what an attempt of an agent costs: it says so itself, or its tokens have a price."""
    match agent.runtime:
        case "command":
            return True
        case "builtin":
            # It asks LiteLLM, which knows nothing of `prices`; a server of one's own costs nothing.
            names = (agent.model, *agent.models)
            return all(name.startswith(("ollama/", "ollama_chat/")) or _listed(name) for name in names)
        case "jsonl":
            events = agent.events or EventsTable()
            return bool(events.cost) or (bool(events.input or events.output) and _has_price(agent))
        case "plain":
            return runtime_of(agent).priced
        case _:
            return runtime_of(agent).priced or _has_price(agent)


def _has_price(agent: Agent) -> bool:
    return agent.prices is not None or _listed(agent.model)


def _listed(model: str) -> bool:
    return price(model, Usage(input=1, output=1)) is not None


def check(settings: Settings) -> None:
    """Refuse a cap that could not be held.

    Raises:
        InvalidInput: an agent says neither what it costs nor, where that is capped, how many tokens it uses.
    """
    for name, agent in settings.agents.items():
        keys = [key for key in ("budget", "budget_day") if getattr(agent, key) is not None]
        where = [f"[agents.{name}] {key}" for key in keys]
        where += ["[town] budget_day"] if settings.town.budget_day is not None else []
        if where and not knowable(agent):
            message = f"{where[0]} cannot be held: what agent {name} costs is not known (runtime {agent.runtime!r})"
            raise InvalidInput(message, _hint(name))
        silent = agent.runtime == "plain"
        keys = [key for key in ("tokens", "tokens_day") if getattr(agent, key) is not None]
        if silent and keys:
            message = f"[agents.{name}] {keys[0]} cannot be held: a program of runtime 'plain' says nothing of tokens"
            raise InvalidInput(message, f"Remove it from {SETTINGS_FILE}, or use a runtime that reads its output.")


def check_mayor(settings: Settings) -> None:
    """Refuse a cap on what the Mayor's answers cost that could not be held.

    Raises:
        InvalidInput: what they cost is not known.
    """
    table = settings.mayor
    keys = ["[mayor] budget"] if table.budget is not None else []
    keys += ["[town] budget_day"] if settings.town.budget_day is not None else []
    if not keys or not (table.model or table.agent) or table.prices:
        return
    if not knowable(table.asked() if table.model else settings.agent(table.agent)):
        hint = f"Give [mayor] in {SETTINGS_FILE} `prices`, or a model with a known price; or remove the budget."
        raise InvalidInput(f"{keys[0]} cannot be held: what {table.model or table.agent} costs is not known", hint)


def _hint(name: str) -> str:
    return (
        f"Give [agents.{name}] in {SETTINGS_FILE} a `model` with a known price, `prices`, or a runtime that says what "
        "it costs; or remove the budget."
    )


def remarks(settings: Settings) -> Iterator[str]:
    """What is not wrong with the agents, and may surprise."""
    usual = Bead.model_fields["attempts_max"].default
    for name, agent in settings.agents.items():
        agents = [name, *agent.escalate]
        needed = sum(settings.agent(one).tries for one in agents[:-1]) + 1
        if len(agents) > usual:
            yield (
                f"agent {name}: a step has {usual} attempts unless its plan says otherwise, too few for its chain: "
                f"{', '.join(agents[: len(agents) - usual])} would be passed over"
            )
        elif needed > usual:
            yield (
                f"agent {name}: its chain takes {needed} attempts by `tries`, and a step has {usual} unless its plan "
                f"says otherwise; {agents[-1]} makes the last of them all the same"
            )
