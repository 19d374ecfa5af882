"""Who does a step, what it may cost, and when: pure decisions, so without a store or a process."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beads.errors import InvalidInput
from beads.graph import failed
from beads.model import Attempt, Bead, Criterion, Terms
from beads.spending import REVIEWS, Books, Day, Park, Running, day_of
from roles import runtimes
from roles.routing import (
    Ask,
    Go,
    Wait,
    chain,
    check,
    contested,
    cut_short,
    knowable,
    remarks,
    route,
    whose_turn,
    with_spawned,
)
from roles.runtimes import plain
from roles.settings import Agent, Settings, TownTable, read_settings
from roles.task import Runtime
from tests.beads.strategies import NOW, Beads, bead, part_of

TOMORROW = day_of(NOW) + timedelta(days=1)
LATER = NOW + timedelta(hours=2)


@pytest.fixture(autouse=True)
def priced(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that says what it costs is there under the name of one that does not."""
    runtime = Runtime("plain", plain.launch, plain.silent, priced=True)
    monkeypatch.setitem(runtimes.RUNTIMES, "plain", runtime)


def agent(**fields: Any) -> Agent:
    return Agent.model_validate({"runtime": "plain", "command": ("a",), **fields})


def squad(default: str = "local", budget_day: float | None = None, **agents: Agent) -> Settings:
    return Settings(town=TownTable(agent=default, budget_day=budget_day), agents=agents)


def tried(*runs: tuple[str, str], **fields: Any) -> tuple[Attempt, ...]:
    """Attempts of these agents, ended so."""
    facts = {"epoch": 1, "worker": "w", "started_at": NOW, **fields}
    return tuple(
        Attempt.model_validate({**facts, "number": number, "runtime": name, "end": end})
        for number, (name, end) in enumerate(runs, start=1)
    )


def work(molecule: dict[str, Any] | None = None, **step: Any) -> tuple[Beads, Bead, Bead]:
    """A molecule with one step."""
    root = bead("m", issue_type="molecule", **(molecule or {}))
    one = bead("m.1", issue_type="step", dependencies=part_of("m"), criteria=(Criterion(run="true"),), **step)
    return Beads([root, one]), root, one


NOTHING = Books()


def ask(settings: Settings, books: Books = NOTHING, **step: Any) -> Go | Wait | Ask:
    view, molecule, one = work(**step)
    return route(settings, books, view, molecule, one, NOW)


TWO = squad(local=agent(escalate=("claude",), capabilities=("python",)), claude=agent(capabilities=("python",)))
PARKED = Books(parked={"local": Park(LATER, "quota")})
BOTH = Books(parked={"local": Park(LATER, "quota"), "claude": Park(LATER - timedelta(hours=1), "quota")})


@pytest.mark.parametrize(
    "books,step,expected",
    [
        (Books(), {}, Go("local")),
        (PARKED, {}, Go("claude")),
        (PARKED, {"agent": "local"}, Wait("agent local is parked until 05:04:05 UTC", LATER)),
        (PARKED, {"agent": "claude"}, Go("claude")),
        (PARKED, {"molecule": {"agent": "local"}}, Wait("agent local is parked until 05:04:05 UTC", LATER)),
        (BOTH, {}, Wait("agent claude is parked until 04:04:05 UTC", LATER - timedelta(hours=1))),
        (Books(), {"attempts": tried(("local", "unmet"), ("local", "unmet"))}, Go("claude")),
        (Books(), {"attempts": tried(("local", "unmet"), ("local", "died"), ("local", "parked"))}, Go("local")),
        (Books(), {"attempts_max": 2, "attempts": tried(("local", "unmet"))}, Go("claude")),
        (Books(), {"terms": Terms(capabilities=("go",))}, Ask("no agent is capable of go", "")),
        (Books(), {"agent": "clyde"}, Ask("there is no agent 'clyde' in town.toml", "")),
    ],
)
def test_who_makes_the_next_attempt(books: Books, step: dict[str, Any], expected: object) -> None:
    found = ask(TWO, books, **step)
    assert (found._replace(command="") if isinstance(found, Ask) else found) == expected


def test_what_is_closed_but_for_submitting_needs_nobody() -> None:
    view, molecule, _ = work()
    assert route(TWO, PARKED, view, molecule, None, NOW) == Go("")


def test_those_of_a_chain_who_are_not_able_are_left_out() -> None:
    settings = squad(
        local=agent(escalate=("other", "claude"), capabilities=("go",)),
        other=agent(),
        claude=agent(capabilities=("go", "rust")),
    )
    assert chain(settings, "", work()[2]) == ("local", "other", "claude")
    assert chain(settings, "", work(terms=Terms(capabilities=("go",)))[2]) == ("local", "claude")


def spent(agent: str, cost: float = 0.0, tokens: int = 0) -> Books:
    return Books(today={agent: Day(cost, tokens)})


@pytest.mark.parametrize(
    "settings,books,step,expected",
    [
        (squad(local=agent(budget=2.0)), Books(), {}, Go("local", 2.0)),
        (squad(local=agent(budget=2.0)), Books(), {"terms": Terms(budget=1.5)}, Go("local", 1.5)),
        (squad(local=agent()), Books(), {"molecule": {"terms": Terms(budget=1.0)}}, Go("local", 1.0)),
        (squad(local=agent(budget_day=5.0)), spent("local", 3.0), {}, Go("local", 2.0)),
        (squad(local=agent(budget_day=5.0)), spent("claude", 9.0), {}, Go("local", 5.0)),
        (squad(budget_day=5.0, local=agent()), spent("claude", 4.0), {}, Go("local", 1.0)),
        (squad(budget_day=5.0, local=agent()), spent(REVIEWS, 4.5), {}, Go("local", 0.5)),
        (
            squad(budget_day=5.0, local=agent()),
            spent("claude", 5.5),
            {},
            Wait("the town's budget a day of $5.00 is used up, with $5.50, until 2026-01-03 00:00 UTC", TOMORROW),
        ),
        (
            squad(local=agent(budget_day=5.0)),
            spent("local", 5.0),
            {},
            Wait(
                "the budget a day of agent local of $5.00 is used up, with $5.00, until 2026-01-03 00:00 UTC", TOMORROW
            ),
        ),
        (squad(local=agent(tokens_day=900)), spent("local", 0.0, 400), {}, Go("local", None, 500)),
        (squad(local=agent(tokens_day=900, tokens=100)), spent("local", 0.0, 400), {}, Go("local", None, 100)),
        (
            squad(local=agent(tokens_day=900)),
            spent("local", 0.0, 901),
            {},
            Wait(
                "what agent local may use a day of 900 tokens is used up, with 901, until 2026-01-03 00:00 UTC",
                TOMORROW,
            ),
        ),
        (
            squad(budget_day=5.0, local=agent()),
            Books(running=(Running("claude", "n", 5.0),)),
            {},
            Wait("the rest of the town's budget a day of $5.00 is promised to what runs"),
        ),
        (squad(budget_day=5.0, local=agent()), Books(running=(Running("claude", "n", 4.0),)), {}, Go("local", 1.0)),
        (
            squad(local=agent(at_once=1)),
            Books(running=(Running("local", "n"),)),
            {},
            Wait("agent local is at work on 1 of 1 at once"),
        ),
        # Whoever asks holds the molecule: what seems to run on it is what a worker left that is gone.
        (
            squad(local=agent(at_once=1, budget_day=5.0)),
            Books(running=(Running("local", "m", 5.0),)),
            {},
            Go("local", 5.0),
        ),
        (squad(local=agent(at_once=2)), Books(running=(Running("local", "n"),)), {}, Go("local")),
        (squad("command", 5.0), spent("claude", 9.0), {}, Go("command")),
    ],
)
def test_what_an_attempt_may_cost_and_when_it_has_to_wait(
    settings: Settings, books: Books, step: dict[str, Any], expected: object
) -> None:
    assert ask(settings, books, **step) == expected


def test_reviews_of_what_costs_nothing_wait_for_money_too() -> None:
    view, molecule, step = work()
    step = step.evolve(criteria=(Criterion(review="kind?"),))
    found = route(squad("command", 5.0), spent("claude", 9.0), view, molecule, step, NOW)
    assert isinstance(found, Wait)
    assert found.until == TOMORROW


@pytest.mark.parametrize("whose", ["m", "m.1"])
def test_a_budget_that_is_spent_is_for_a_person_who_is_told_the_command(whose: str) -> None:
    terms = {"terms": Terms(budget=1.0)}
    done = tried(("local", "unmet"), cost=1.0)
    view, molecule, step = work(terms if whose == "m" else {}, attempts=done, **(terms if whose == "m.1" else {}))
    found = route(squad(local=agent()), Books(), view, molecule, step, NOW)
    assert found == Ask(f"{whose} has cost $1.00 of its budget of $1.00", f"bead update {whose} --budget N")


def test_what_earlier_steps_cost_is_taken_from_the_budget_of_the_molecule() -> None:
    view, molecule, step = work({"terms": Terms(budget=3.0)})
    view.beads["m.0"] = step.evolve(id="m.0", status="closed", attempts=tried(("local", "satisfied"), cost=1.25))
    assert route(squad(local=agent()), Books(), view, molecule, step, NOW) == Go("local", 1.75)


def test_a_budget_for_an_agent_of_unknown_cost_is_never_silently_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(runtimes.RUNTIMES, "plain", plain.RUNTIME)
    found = ask(squad(local=agent()), terms=Terms(budget=1.0))
    assert isinstance(found, Ask)
    assert found.reason == "what agent local costs is not known, so that no budget can be held"
    assert ask(squad(local=agent())) == Go("local")


@pytest.mark.parametrize(
    "key,says",
    [
        ("[town]\nbudget_day = 5.0", "[town] budget_day cannot be held: what agent a costs is not known"),
        ("[agents.a]\nbudget = 5.0", "[agents.a] budget cannot be held: what agent a costs is not known"),
        ("[agents.a]\nbudget_day = 5.0", "[agents.a] budget_day cannot be held: what agent a costs is not known"),
        ("[agents.a]\ntokens_day = 5", "[agents.a] tokens_day cannot be held: a program of runtime 'plain'"),
    ],
)
def test_a_cap_that_cannot_be_held_is_refused(key: str, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(runtimes.RUNTIMES, "plain", plain.RUNTIME)
    table, line = key.split("\n")
    text = f"{table}\n{line}\n" + ("" if "agents" in table else "[agents.a]\n")
    settings = read_settings(f'{text}runtime = "plain"\ncommand = ["a"]\n'.encode())
    with pytest.raises(InvalidInput) as error:
        check(settings)
    assert error.value.message.startswith(says)
    assert "town.toml" in error.value.hint


@pytest.mark.parametrize(
    "table,known",
    [
        ({}, True),
        ({"runtime": "claude"}, True),
        ({"runtime": "codex"}, False),
        ({"runtime": "codex", "model": "gpt-5"}, True),
        ({"runtime": "codex", "model": "unheard-of"}, False),
        ({"runtime": "codex", "prices": {"input": 1.0, "output": 2.0}}, True),
        ({"runtime": "builtin", "model": "ollama/qwen3"}, True),
        ({"runtime": "builtin", "model": "openai/gpt-4o-mini"}, True),
        ({"runtime": "builtin", "model": "openai/gpt-4o-mini", "models": ["openai/unheard-of"]}, False),
        ({"runtime": "jsonl", "command": ["a"], "events": {"cost": "cost"}}, True),
        ({"runtime": "jsonl", "command": ["a"], "events": {"input": "in"}, "model": "gpt-5"}, True),
        ({"runtime": "jsonl", "command": ["a"], "events": {"input": "in"}}, False),
        ({"runtime": "jsonl", "command": ["a"], "events": {}, "model": "gpt-5"}, False),
    ],
)
def test_what_costs_can_be_known(table: dict[str, Any], known: bool) -> None:
    assert knowable(Agent.model_validate(table)) == known


def test_what_the_free_and_the_priced_are_capped_by_is_fine() -> None:
    check(squad(budget_day=1.0, local=agent(budget=1.0), shell=Agent()))


def test_a_chain_names_agents_that_are_there() -> None:
    with pytest.raises(InvalidInput, match="there is no agent 'clod'"):
        read_settings(b'[agents.a]\nescalate = ["clod"]\n')


def test_a_chain_that_is_too_long_is_told() -> None:
    settings = squad(a=agent(escalate=("b", "c", "d")), b=agent(), c=agent(), d=agent(), e=agent(escalate=("a", "b")))
    said = list(remarks(settings))
    assert said[0].startswith("agent a: a step has 3 attempts")
    assert "too few for its chain: a would be passed over" in said[0]
    assert said[1].startswith("agent e: its chain takes 5 attempts by `tries`")
    assert list(remarks(TWO)) == []


def test_what_was_cut_short_by_less_than_its_own_limits_is_no_failure() -> None:
    (attempt,) = tried(("local", "unmet"), budget=1.0)
    assert cut_short(agent(budget=2.0), attempt, "limits")
    assert cut_short(agent(), attempt, "limits")
    assert not cut_short(agent(budget=1.0), attempt, "limits")
    assert not cut_short(agent(budget=2.0), attempt, "finished")


def test_what_is_about_to_begin_counts_until_it_has_begun() -> None:
    books = Books(running=(Running("local", "m", 1.0),))
    about = [Running("claude", "m", 2.0), Running("claude", "n", 3.0)]
    assert with_spawned(books, about).running == (Running("local", "m", 1.0), Running("claude", "n", 3.0))


def test_those_who_compete_take_turns() -> None:
    done: list[tuple[str, str]] = []
    step = work(terms=Terms(best_of=3))[2]
    while contested(step):
        done.append((("local", "claude")[whose_turn(TWO, ("local", "claude"), step)], "satisfied"))
        step = step.evolve(attempts=tried(*done, ("local", "died")))
    assert [name for name, _ in done] == ["local", "claude", "local"]


@given(st.lists(st.integers(1, 4), min_size=1, max_size=5), st.integers(1, 12))
def test_a_chain_is_gone_up_and_never_down_and_ends_with_the_last(tries: list[int], attempts_max: int) -> None:
    names = [f"a{n}" for n in range(len(tries))]
    settings = squad("a0", None, **{name: agent(tries=number) for name, number in zip(names, tries, strict=True)})
    step, places = work(attempts_max=attempts_max)[2], list[int]()
    while len(failed(step)) < attempts_max:
        places.append(whose_turn(settings, names, step))
        step = step.evolve(attempts=tried(*((names[place], "unmet") for place in places)))
    assert places == sorted(places)
    if attempts_max >= sum(tries[:-1]) + 1 or attempts_max >= len(names):
        assert places[-1] == len(names) - 1
    assert all(places.count(place) <= tries[place] for place in range(len(names) - 1))


@st.composite
def _days(draw: st.DrawFn) -> tuple[Settings, list[tuple[str, float]]]:
    caps = st.none() | st.floats(0.01, 20)
    squads = {
        name: agent(budget=draw(caps), budget_day=draw(caps), at_once=draw(st.none() | st.just(2))) for name in "ab"
    }
    moves = st.tuples(st.sampled_from(["a", "b", "end"]), st.floats(0, 1))
    return squad("a", draw(caps), **squads), draw(st.lists(moves, max_size=30))


@given(_days())
def test_what_a_day_costs_is_never_more_than_its_caps_however_many_work_at_once(
    day: tuple[Settings, list[tuple[str, float]]],
) -> None:
    settings, moves = day
    running: list[Running] = []
    costs = {"a": 0.0, "b": 0.0}
    for number, (what, part) in enumerate(moves):
        if what == "end":
            if running:
                one = running.pop(int(part * (len(running) - 1)))
                # Each run uses some of what it is allowed; without any limit it may use whatever it likes.
                costs[one.agent] += part * one.budget if one.budget is not None else part * 1000
            continue
        books = Books({name: Day(cost) for name, cost in costs.items()}, tuple(running))
        view, molecule, step = work(agent=what)
        found = route(settings, books, view, molecule, step, NOW)
        if isinstance(found, Go):
            running.append(Running(what, f"m{number}", found.budget))
        worst = {name: sum(one.budget or 0.0 for one in running if one.agent == name) for name in costs}
        assert all(one.budget is None or one.budget > 0 for one in running)
        for name, agent_ in settings.agents.items():
            if agent_.budget_day is not None:
                assert costs[name] + worst[name] <= agent_.budget_day + 1e-9
            if agent_.at_once is not None:
                assert sum(one.agent == name for one in running) <= agent_.at_once
        if settings.town.budget_day is not None:
            assert sum(costs.values()) + sum(worst.values()) <= settings.town.budget_day + 1e-9
