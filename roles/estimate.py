"""What a plan may cost: from what steps have cost here before, else from the price list and a stated assumption.

What nobody knows stays unknown and is never counted as nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median
from typing import Literal, NamedTuple

from beads.model import Terms, Usage
from beads.plan import Plan
from beads.spending import REVIEWS, Asked, of_done
from roles.prices import price
from roles.settings import Agent, Prices, Settings

STEP_USAGE = Usage(input=500_000, cached=420_000, written=40_000, output=10_000)
"""What an attempt at a step is assumed to take where there is no history: an agent that asks its model twenty times, in
a conversation that grows from 10,000 to 40,000 tokens, most of which its provider has in its cache."""

REVIEW_USAGE = Usage(input=20_000, output=1_500)
"""What a review is assumed to take: the change with the goal, shown once."""

SEEN_MIN = 3
"""How many steps have to be done before what they have cost says something about the next one."""

SEEN_MAX = 200
"""How many of the newest are looked at: models and prices change."""

Basis = Literal["history", "assumed", "free", "unknown"]
"""Where a cost comes from; ``unknown`` when there is neither a history nor a price."""


class Part(NamedTuple):
    """What the steps of a plan that one agent gets may cost.

    Attributes:
        agent: its name; :data:`beads.spending.REVIEWS` for the reviews of steps.
        model: the model that it is told to use; empty when it chooses.
        steps: how many; one of which the best of several attempts is taken counts as often as it is tried.
        basis: where ``each`` comes from.
        each: US dollars for one step; None where nobody knows.
        tokens: for one step, sent and generated together; None where nobody knows.
        seen: how many steps that are done ``each`` is the median of.
    """

    agent: str
    model: str
    steps: int
    basis: Basis
    each: float | None
    tokens: int | None
    seen: int = 0

    @property
    def cost(self) -> float | None:
        """US dollars for all of its steps; None where nobody knows."""
        return None if self.each is None else self.each * self.steps


@dataclass(frozen=True)
class Estimate:
    """What a plan may cost: nothing that is promised, and no limit.

    Attributes:
        parts: what it is made of; those that cost most first, those of unknown cost last.
    """

    parts: tuple[Part, ...]

    @property
    def cost(self) -> float:
        """US dollars, without what is unknown."""
        return sum(part.cost or 0.0 for part in self.parts)

    @property
    def tokens(self) -> int:
        """Sent and generated together, without what is unknown."""
        return sum((part.tokens or 0) * part.steps for part in self.parts)

    @property
    def unknown(self) -> int:
        """Of how many steps the cost is not known."""
        return sum(part.steps for part in self.parts if part.each is None)

    def in_words(self) -> str:
        """For a person, in a line or two."""
        counted = [part for part in self.parts if part.basis in ("history", "assumed")]
        sum_up = f"about {_dollars(self.cost)}".replace("about less", "less")
        dear = f"{sum_up}: {'; '.join(map(_counted, counted))}" if counted else ""
        free = [part for part in self.parts if part.basis == "free"]
        lines = [dear, "; ".join(f"{_steps(part)}: costs nothing" for part in free)]
        dark = [_steps(part) for part in self.parts if part.basis == "unknown"]
        lines.append(f"not known, and not in it: {'; '.join(dark)}" if dark else "")
        return "\n".join(line for line in lines if line)


def estimate(plan: Plan, settings: Settings, view: Asked) -> Estimate:
    """What a plan may cost.

    A step is taken to be done by the first agent that it would get. What this one's steps have cost before includes
    failed attempts and whoever took over; a step that names another model than its agent has is not compared with them.

    Args:
        plan: the plan.
        settings: the agents and who reviews.
        view: the state of the store.

    Raises:
        InvalidInput: the plan asks for an agent that there is not.
    """
    parts = [_part(settings, view, *key, steps) for key, steps in Counter(_hands(plan, settings)).items()]
    reviews = sum(any(c.review for c in step.criteria) for molecule in plan.molecules for step in molecule.work())
    if reviews:
        parts.append(_reviews(settings, view, reviews))
    return Estimate(tuple(sorted(parts, key=lambda part: (part.cost is None, -(part.cost or 0.0)))))


def _hands(plan: Plan, settings: Settings) -> Iterator[tuple[str, str]]:
    """Who does each step, and with which model; a step of which the best attempt is taken, for each attempt."""
    for molecule in plan.molecules:
        for step in molecule.work():
            name = settings.agent_for(step.agent or molecule.agent, step.capabilities)
            model = settings.agent(name).on(step.terms() or Terms()).model
            yield from [(name, model)] * (step.best_of or 1)


def _part(settings: Settings, view: Asked, name: str, model: str, steps: int) -> Part:
    agent = settings.agent(name)
    if _free(agent, model):
        return Part(name, model, steps, "free", 0.0, 0 if agent.runtime == "command" else STEP_USAGE.total)
    of_agent = model == agent.model
    return _known(Part(name, model, steps, "unknown", None, None), view, of_agent, STEP_USAGE, agent.prices)


def _reviews(settings: Settings, view: Asked, steps: int) -> Part:
    table = settings.review
    agent = settings.agent(table.agent) if table.agent else None
    model = agent.model if agent else next(iter(table.models), "")
    part = Part(REVIEWS, model, steps, "unknown", None, None)
    return _known(part, view, True, REVIEW_USAGE, agent.prices if agent else None)


def _known(part: Part, view: Asked, comparable: bool, assumed: Usage, prices: Prices | None) -> Part:
    """The part with what is known of it: from before, where that can be compared, else by the price of its model."""
    seen = of_done(view, part.agent, SEEN_MAX) if comparable else []
    tokens = [one.tokens for one in seen if one.tokens is not None]
    part = part._replace(tokens=int(median(tokens)) if len(tokens) >= SEEN_MIN else assumed.total)
    costs = [one.cost for one in seen if one.cost is not None]
    if len(costs) >= SEEN_MIN:
        return part._replace(basis="history", each=median(costs), seen=len(costs))
    each = price(part.model, assumed, prices) if part.model or prices else None
    return part if each is None else part._replace(basis="assumed", each=each)


def _free(agent: Agent, model: str) -> bool:
    """Whether nobody bills an agent's work: it is no model's, or that of a model on one's own machine."""
    local = agent.runtime == "builtin" and model.startswith(("ollama/", "ollama_chat/"))
    return agent.runtime == "command" or local


def _counted(part: Part) -> str:
    if part.basis == "history":
        how = f"the median of {part.seen} that are done"
    else:
        usage = REVIEW_USAGE if part.agent == REVIEWS else STEP_USAGE
        how = f"assumed: {usage.total:,} tokens at the price of {part.model or 'the agent'}"
    return f"{_steps(part)} at {_dollars(part.each or 0.0)} each ({how})"


def _steps(part: Part) -> str:
    number = "1 step" if part.steps == 1 else f"{part.steps} steps"
    return f"reviews of {number}" if part.agent == REVIEWS else f"{number} by {part.agent}"


def _dollars(amount: float) -> str:
    return "less than $0.01" if 0 < amount < 0.01 else f"${amount:.2f}"
