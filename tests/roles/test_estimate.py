"""What a plan may cost, by what is in the store and by the price list."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from beads import Bead, Store
from beads.errors import InvalidInput
from beads.model import Attempt, Criterion, Evidence, Outcome, Usage
from beads.ops import Create
from beads.plan import Plan, read_plan
from beads.spending import REVIEWS
from roles.estimate import REVIEW_USAGE, SEEN_MAX, SEEN_MIN, STEP_USAGE, Estimate, estimate
from roles.prices import price
from roles.settings import Settings, read_settings

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
MODEL = "anthropic/claude-sonnet-4-5"

SETTINGS = read_settings(
    f"""
[agents.claude]
runtime = "claude"
[agents.codex]
runtime = "codex"
[agents.priced]
runtime = "codex"
model = "{MODEL}"
[agents.own]
runtime = "codex"
model = "unheard-of"
prices = {{ input = 1, output = 10 }}
[agents.local]
runtime = "builtin"
model = "ollama_chat/qwen3"
[review]
models = ["{MODEL}"]
""".encode()
)

Tries = Sequence[tuple[str, float | None]]


@pytest.fixture
def store(repo: Path) -> Store:
    return Store.init(repo, "founder")


def plan(*steps: str, criteria: str = "{ run = 'true' }") -> Plan:
    """A plan of one molecule whose steps say this besides."""
    tables = (f"{{ id = 's{n}', title = 't', criteria = [{criteria}], {more} }}" for n, more in enumerate(steps))
    text = f"plan = 'p'\n[[molecules]]\nid = 'm'\ntitle = 't'\ngoal = 'g'\nsteps = [{', '.join(tables)}]\n"
    return read_plan(text.replace(", }", " }").encode(), "plan.toml")


def worked(number: int, tries: Tries, outcome: Outcome | None = "done", reviews: Sequence[float] = ()) -> Bead:
    """A step with these attempts, each by an agent at a cost."""
    attempts = [
        Attempt(
            number=n,
            epoch=1,
            worker="nux",
            runtime=agent,
            started_at=NOW + timedelta(hours=number, minutes=n),
            ended_at=NOW + timedelta(hours=number, minutes=n + 1),
            end="satisfied",
            ending="finished",
            usage=Usage(input=900, output=100),
            cost=cost,
        )
        for n, (agent, cost) in enumerate(tries, start=1)
    ]
    said = [
        Evidence(id=f"e{n}", subject="review: Is it good?", verdict="pass", cost=c, by="nux", at=NOW)
        for n, c in enumerate(reviews)
    ]
    return Bead(
        id=f"bt-x.{number}",
        title="t",
        issue_type="step",
        status="closed" if outcome else "open",
        outcome=outcome,
        closed_at=NOW if outcome else None,
        criteria=(Criterion(run="true"),),
        attempts=tuple(attempts),
        evidence=tuple(said),
        created_at=NOW,
        updated_at=NOW,
    )


def keep(store: Store, *beads: Bead) -> None:
    store.commit("me", [Create(bead=bead) for bead in beads])


def found(store: Store, wanted: Plan, settings: Settings = SETTINGS) -> Estimate:
    return estimate(wanted, settings, store.snapshot())


def test_the_median_of_what_is_done_with_its_failures_and_who_took_over(store: Store) -> None:
    keep(
        store,
        worked(1, [("claude", 1.0), ("claude", 2.0)]),
        worked(2, [("claude", 1.0), ("priced", 4.0)]),
        worked(3, [("claude", 40.0)]),
        # None of these is what a step of that agent takes until it is done.
        worked(4, [("priced", 1.0), ("claude", 90.0)]),
        worked(5, [("claude", 90.0)], outcome="cancelled"),
        worked(6, [("claude", 90.0)], outcome=None),
        worked(7, [("claude", None)]),
    )
    estimated = found(store, plan("agent = 'claude'", "agent = 'claude'"))
    (part,) = estimated.parts
    assert (part.agent, part.steps, part.basis, part.each, part.seen) == ("claude", 2, "history", 5.0, 3)
    assert part.tokens == 1500
    assert (estimated.cost, estimated.tokens, estimated.unknown) == (10.0, 3000, 0)
    assert estimated.in_words() == "about $10.00: 2 steps by claude at $5.00 each (the median of 3 that are done)"


def test_the_newest_count(store: Store) -> None:
    keep(store, *(worked(n, [("claude", 9.0 if n <= 300 else 1.0)]) for n in range(1, 301 + SEEN_MAX)))
    (part,) = found(store, plan("agent = 'claude'")).parts
    assert (part.each, part.seen) == (1.0, SEEN_MAX)


def test_too_few_say_nothing_and_the_price_list_does(store: Store) -> None:
    keep(store, *(worked(n, [("priced", 100.0)]) for n in range(1, SEEN_MIN)))
    estimated = found(store, plan("agent = 'priced'"))
    (part,) = estimated.parts
    assert part.basis == "assumed"
    assert part.each == price(MODEL, STEP_USAGE)
    assert part.tokens == STEP_USAGE.total
    assert f"assumed: 510,000 tokens at the price of {MODEL}" in estimated.in_words()


def test_prices_of_ones_own_count(store: Store) -> None:
    (part,) = found(store, plan("agent = 'own'")).parts
    assert part.basis == "assumed"
    assert part.each == pytest.approx(0.6)


def test_another_model_is_not_compared(store: Store) -> None:
    keep(store, *(worked(n, [("claude", 5.0)]) for n in range(1, 9)))
    named = plan("agent = 'claude'", "agent = 'claude', model = 'claude-opus-4-5'")
    bases = {(part.model, part.basis) for part in found(store, named).parts}
    assert bases == {("", "history"), ("claude-opus-4-5", "assumed")}


def test_what_costs_nothing_and_what_nobody_knows(store: Store) -> None:
    estimated = found(store, plan("run = 'true'", "agent = 'local'", "agent = 'codex'", "agent = 'codex'"))
    assert [(part.agent, part.basis, part.cost) for part in estimated.parts] == [
        ("command", "free", 0.0),
        ("local", "free", 0.0),
        ("codex", "unknown", None),
    ]
    assert (estimated.cost, estimated.unknown) == (0.0, 2)
    assert estimated.in_words() == (
        "1 step by command: costs nothing; 1 step by local: costs nothing\nnot known, and not in it: 2 steps by codex"
    )


def test_the_best_of_several_is_paid_several_times(store: Store) -> None:
    keep(store, *(worked(n, [("claude", 5.0)]) for n in range(1, 9)))
    assert found(store, plan("agent = 'claude', best_of = 3")).cost == 15.0


def test_reviews_are_told_apart(store: Store) -> None:
    review = "{ run = 'true' }, { review = 'Is it good?' }"
    (_, free) = found(store, plan("run = 'true'", criteria=review)).parts
    assert free.basis == "free"
    assumed = found(store, plan("run = 'true'", criteria=review)).parts[0]
    assert (assumed.agent, assumed.basis, assumed.each) == (REVIEWS, "assumed", price(MODEL, REVIEW_USAGE))
    keep(store, *(worked(n, [("command", 0.0)], reviews=[0.5, 0.25]) for n in range(1, 5)))
    estimated = found(store, plan("run = 'true'", "run = 'true'", criteria=review))
    assert estimated.parts[0].each == 0.75
    assert "reviews of 2 steps at $0.75 each (the median of 4 that are done)" in estimated.in_words()


def test_small_sums_are_not_nothing(store: Store) -> None:
    keep(store, *(worked(n, [("claude", 0.001)]) for n in range(1, 5)))
    words = found(store, plan("agent = 'claude'")).in_words()
    assert words == "less than $0.01: 1 step by claude at less than $0.01 each (the median of 4 that are done)"


def test_who_is_asked_for_and_not_there(store: Store) -> None:
    with pytest.raises(InvalidInput, match="nobody"):
        found(store, plan("agent = 'nobody'"))


def test_the_default_agent_gets_what_names_nobody(store: Store) -> None:
    settings = read_settings(b'[town]\nagent = "c"\n[agents.c]\nruntime = "claude"\ncapabilities = ["rust"]\n')
    named = plan(f"capabilities = {json.dumps(['rust'])}")
    assert [part.agent for part in found(store, named, settings).parts] == ["c"]
