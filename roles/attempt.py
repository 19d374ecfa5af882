"""One attempt of an agent at a step: what it is told, how it is run and followed, and what of it is kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

from beads import graph
from beads.model import Attempt, Bead, Evidence, Usage
from beads.ops import Report
from beads.proof import words
from refinery.queue import REWORK
from roles import context
from roles.acceptance import feedback
from roles.drive import Drive, Limits
from roles.events import Event, Troubled, as_line
from roles.housing import sweep
from roles.logs import attempt_label
from roles.prices import price
from roles.prompts import compose
from roles.runtimes import names_for, runtime_of
from roles.settings import Agent
from roles.site import Stopped
from roles.station import ATTEMPT, Station
from roles.task import Order, Task


def try_once(station: Station, step: Bead, agent: Agent, evidence: Sequence[Evidence]) -> Report:
    """Let the agent edit the work tree once, and save what it left; what the run came to."""
    this, runtime = step.attempts[-1], runtime_of(agent)
    label = attempt_label(step, this)
    order = _order(station, step, this, agent, label, evidence)
    allow, number = names_for(agent), str(this.number)
    # Before it runs: what stands in the program's own books then was used before.
    reader = runtime.reader(order)
    job = station.start(station.house(order), station.reach(order), label, agent.timeout, allow, {ATTEMPT: number})
    limits = Limits(order.budget or math.inf, this.tokens or math.inf, agent.silence)
    told = station.log(label, "events")
    told.touch(0o600)
    with told.open("w", encoding="utf-8", errors="replace") as events:

        def tell(event: Event) -> None:
            events.write(station.site.secrets.text(as_line(event, station.site.clock.now().isoformat())) + "\n")
            events.flush()
            station.tell(event)

        log, priced = station.log(label), partial(price, overrides=agent.prices)
        drive = Drive(job, log, reader, limits, agent.model, priced, station.site.clock, tell, station.site.secrets)
        try:
            exit = station.wait(drive)
        except Stopped as stopped:
            stopped.report = drive.report(drive.cancel(0.0))
            raise
        finally:
            station.site.clear_scratch(station.molecule.id)
        sweep(station.worktree.path, runtime.litter)
        station.salvage(f"{step.id} after attempt {this.number}")
        for redacted in station.worktree.redacted(keep=True):
            tell(Troubled(f"took out {redacted}"))
    return drive.report(exit)


def _order(
    station: Station, step: Bead, attempt: Attempt, agent: Agent, label: str, evidence: Sequence[Evidence]
) -> Order:
    runtime = runtime_of(agent)
    last = context.gone_on_with(step, attempt, runtime, wanted=agent.resume, here=_was_here(station, step))
    session = context.session_of(step, last, runtime) if last else context.chosen(step, attempt)
    used = [a.usage for a in step.attempts[:-1] if last and a.session == session and a.usage]
    failing = _failing(step, attempt, evidence)
    # What a person has said has a place of its own in a prompt.
    unmet = _failing(step, attempt, [one for one in evidence if not one.subject.startswith("approval: ")])
    return Order(
        agent=agent,
        # A command is told nothing but what failed.
        prompt="" if agent.runtime == "command" else compose(_task(station, step, attempt, unmet, last is not None)),
        directory=station.worktree.path,
        home=station.site.home(station.molecule.id, attempt.runtime),
        scratch=station.site.scratch(station.molecule.id, label),
        session=session,
        now=station.site.clock.now(),
        clock=station.site.clock.now,
        resume=last is not None,
        budget=attempt.budget,
        confined=station.site.sandbox.confines,
        before=sum(used, Usage()),
        run=step.run,
        # A command has nothing else to learn from what a person has said, before its last attempt as well.
        feedback="\n\n".join([*(said for said in words(step) if said not in failing), failing]).strip(),
    )


def _was_here(station: Station, step: Bead) -> Callable[[Attempt], bool]:
    """Whether an attempt was made in this clone, which then has its log, and in this place."""
    # Some programs find a conversation only where it began, and a work tree that is used again is anywhere.
    return lambda attempt: (
        station.log(attempt_label(step, attempt)).exists()
        and (not station.site.workshop.keep or attempt.epoch == station.molecule.epoch)
    )


def _failing(step: Bead, attempt: Attempt, evidence: Sequence[Evidence]) -> str:
    return feedback(evidence) if attempt.number > 1 or step.evidence or REWORK in step.labels else ""


def _task(station: Station, step: Bead, attempt: Attempt, failing: str, resumed: bool) -> Task:
    molecule, git, head = station.molecule, station.site.git, station.worktree.head()
    closed = [s for s in graph.steps(station.site.store.snapshot(), molecule) if s.closed]
    return Task(
        goal=f"{molecule.title}\n\n{molecule.description}",
        step=f"{step.title}\n\n{step.description}" if step.id != molecule.id else "",
        run=step.run,
        criteria=tuple(str(c) for c in step.criteria),
        earlier=() if resumed else context.earlier(git, station.base(head), head, closed),
        feedback=failing,
        attempt=attempt.number,
        handoff=context.handoff(step, attempt),
        left=tuple(station.worktree.changed(head)) if attempt.number > 1 else (),
        resumed=resumed,
        said=words(step),
    )
