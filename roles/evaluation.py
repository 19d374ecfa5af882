"""What of a step's criteria holds, looked at in its work tree: by our code, and by whoever is asked to review."""

from __future__ import annotations

from typing import Literal
from uuid import NAMESPACE_OID, uuid5

from beads import graph
from beads.errors import InvalidInput
from beads.model import Bead, Criterion, Evidence
from beads.proof import approvals
from beads.spending import books
from refinery.containment import Reach
from refinery.gate import gate_of
from roles import acceptance, review, routing
from roles.acceptance import Bench, Finding
from roles.llm import SURROUNDINGS
from roles.logs import keep
from roles.prices import price
from roles.runtimes import names_for, runtime_of
from roles.settings import Agent
from roles.station import Station
from roles.task import Order


def evaluate(station: Station, step: Bead, agent: Agent) -> tuple[Evidence, ...]:
    """Evidence about what is on disk now; what evaluating leaves behind is cleared away again."""
    tree, snapshot = station.worktree.tree(), station.site.store.snapshot()
    # Before anything of the worker's runs, which might move main.
    base, gate = station.base(station.worktree.head()), gate_of(station.site.git, station.site.main_head())
    bench = Bench(
        directory=station.worktree.path,
        tree=tree,
        base=base,
        # Not in the work tree, where a worker may have put another repository in the place of ours.
        git=station.site.git,
        environ=station.site.surroundings(()),
        around=lambda: _fresh(station),
        logs=station.site.logs(station.molecule.id),
        marker=station.site.marker(station.worker),
        clock=station.site.clock,
        by=station.worker,
        wait=station.wait,
        review=lambda criterion: _review(station, criterion, step, agent, base, tree),
        secrets=station.site.secrets,
        machine=station.site.machine,
        redacted=station.worktree.redacted(),
        protected=gate.protected,
        approved=approvals(graph.steps(snapshot, station.molecule)),
    )
    # The criteria as they were when the molecule was claimed, whatever a worker has made of them since.
    found = acceptance.evaluate(step.evolve(evidence=snapshot.need(step.id).evidence), bench)
    station.worktree.reset(tree)
    # What was in files that are reset has never been the worker's.
    station.worktree.redacted()
    return found


def _fresh(station: Station) -> list[str]:
    """A sandbox for a criterion: the work tree, and nothing of what the worker had besides."""
    reach = Reach((station.worktree.path,), network=station.site.settings.sandbox.network)
    return station.site.sandbox.around(reach, station.worktree.path)


def _review(station: Station, criterion: Criterion, step: Bead, author: Agent, base: str, tree: str) -> Finding:
    """Let somebody else look at the branch. What cannot be read as a verdict is none."""
    settings, git = station.site.settings, station.site.git
    over = _overspent(station, step)
    if over:
        return Finding("error", f"nobody was asked: {over}")
    prompt = review.compose(criterion.review, station.molecule, step, git, base, tree)
    table = settings.review
    label = f"{step.id}-review-{tree[:12]}"
    agent = settings.agent(table.agent) if table.agent else None
    order = _reviewing(station, agent, prompt, label) if agent else None
    try:
        launched = station.house(order) if order else review.launch(settings, author, prompt)
    except InvalidInput as error:
        return Finding("error", f"{error.message}. {error.hint}")
    allow = names_for(agent) if agent else table.environment
    model_only = Reach(read=(station.worktree.path,), network=True)
    reach = station.reach(order, edits=False) if order else model_only
    reader = runtime_of(agent).reader(order) if agent and order else None
    exit = station.run(launched, reach, label, table.timeout, allow, SURROUNDINGS)
    found = review.heard(exit, reader)
    station.site.clear_scratch(station.molecule.id)
    cost = _cost(agent, found) if agent else None
    try:
        verdict = review.read(exit, found)
    except InvalidInput as error:
        return Finding("error", f"no verdict: {error.message}", exit.seconds, exit.output, exit.digest, cost)
    finally:
        keep(exit, station.site.logs(station.molecule.id))
    good = verdict.verdict == "approve"
    words = "" if good else verdict.in_words()
    cost, model = (cost, found.model or agent.model) if agent else (verdict.cost, verdict.model)
    how: Literal["pass", "fail"] = "pass" if good else "fail"
    return Finding(how, verdict.summary, exit.seconds, words, exit.digest, cost, model=model)


def _overspent(station: Station, step: Bead) -> str:
    """In words, that no money is left for a review; empty while there is some."""
    snapshot, now = station.site.store.snapshot(), station.site.clock.now()
    molecule = snapshot.need(station.molecule.id)
    spent = graph.overdrawn(snapshot, molecule, snapshot.need(step.id))
    day = routing.day_over(station.site.settings, books(snapshot, now), None, now)
    return f"{spent} {graph.over_budget(snapshot, snapshot.need(spent))}" if spent else day.reason if day else ""


def _reviewing(station: Station, agent: Agent, prompt: str, label: str) -> Order:
    return Order(
        agent=agent,
        prompt=prompt,
        directory=station.worktree.path,
        # No agent has a name that begins so.
        home=station.site.home(station.molecule.id, ".review"),
        scratch=station.site.scratch(station.molecule.id, label),
        session=str(uuid5(NAMESPACE_OID, f"{label}/{station.site.clock.now().timestamp()}")),
        now=station.site.clock.now(),
        clock=station.site.clock.now,
        budget=agent.budget,
        confined=station.site.sandbox.confines,
    )


def _cost(agent: Agent, found: review.Heard) -> float | None:
    """What a review by an agent has cost, as far as that is known."""
    model = found.model or agent.model
    return found.used.worth(lambda usage: price(model, usage, agent.prices)) if found.used else None
