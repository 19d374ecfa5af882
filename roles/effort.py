"""What is done about one step of a molecule: attempts, in turn or against each other, until its criteria hold.

Every attempt is decided on anew, from what is stored: what was spent, who is parked, whose turn it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import takewhile
from typing import Literal, NamedTuple

from beads import graph
from beads.errors import InvalidInput
from beads.model import AttemptEnd, Bead, Evidence, milliseconds
from beads.ops import Begin, Finish, Operation, Report, Spend
from beads.spending import books
from beads.store import Snapshot
from roles import contest, routing
from roles.acceptance import holds
from roles.attempt import try_once
from roles.evaluation import evaluate
from roles.hold import Hold
from roles.routing import Ask, Go, Route, Wait
from roles.settings import Agent
from roles.site import TOWN, Site, Stopped
from roles.station import Station

PARKED_SECONDS = 60.0
"""How long work is put off when a provider does not serve it and does not say until when; twice as long each time."""

PARKED_SECONDS_MAX = 3600.0
"""The longest that it is put off so."""


REASON_MAX = 200
"""Characters of an agent's last words that are told as a reason; all of them are in its note."""


class Halt(NamedTuple):
    """Why work on a molecule cannot go on now, and until when, where time alone will help."""

    end: Literal["unmet", "asked", "parked"]
    reason: str
    until: datetime | None = None


@dataclass(frozen=True)
class Effort:
    """One worker's effort at the steps of a molecule.

    Attributes:
        station: where it works.
        hold: what it holds, and writes through.
    """

    station: Station
    hold: Hold

    @property
    def _site(self) -> Site:
        return self.station.site

    @property
    def _snapshot(self) -> Snapshot:
        return self._site.store.snapshot()

    @property
    def _now(self) -> datetime:
        return self._site.clock.now()

    def bring(self, step: Bead) -> tuple[Evidence, ...] | Halt:
        """Bring a step to where its criteria hold, or a person has to say whether; otherwise why nobody can now.

        Returns the evidence of that, about what is on disk then.

        Raises:
            Fenced: the molecule is somebody else's by now.
            Stopped: the worker is asked to stop.
        """
        try:
            agent = routing.agent_of(self._site.settings, self.hold.molecule, step)
        except InvalidInput as error:
            return Halt("unmet", f"step {step.id}: {error.message}")
        best_of = step.terms.best_of if step.terms else None
        # What is there of one of several attempts is not looked at before there are all of them.
        look = _worth_a_look(step, agent) and not (best_of and step.attempts)
        evidence = evaluate(self.station, step, agent) if look else ()
        while not holds(step.criteria, evidence):
            step = self._snapshot.need(step.id)
            if evidence and evidence[-1].verdict == "asked":
                break
            if graph.used_up(step) and not (best_of and contest.good(step)):
                return Halt("unmet", f"step {step.id} did not meet its criteria")
            found = self._compete(step, evidence) if best_of else self._try(step, evidence)
            if isinstance(found, Halt):
                return found
            evidence = found
        return evidence

    def _compete(self, step: Bead, evidence: tuple[Evidence, ...]) -> tuple[Evidence, ...] | Halt:
        """Make one of several attempts, or take the best of them; where none is good, go on as usual."""
        snapshot = self._snapshot
        spent = graph.used_up(step) or graph.overdrawn(snapshot, snapshot.need(self.hold.molecule.id), step)
        if routing.contested(step) and not (spent and contest.good(step)):
            self.station.salvage(f"{step.id} before another attempt")
            self.station.worktree.reset(self.station.worktree.head())
            found = self._try(step, (), contestant=True)
            return found if isinstance(found, Halt) else ()
        tree = contest.best(step, self._site.git, self.station.worktree.head())
        if tree is not None:
            self.station.salvage(f"{step.id} before the best attempt")
            self.station.worktree.reset(tree)
        if tree is not None or not evidence:
            agent = routing.agent_of(self._site.settings, self.hold.molecule, step)
            found = evaluate(self.station, step, agent)
            if not holds(step.criteria, found) and found[-1].verdict != "asked":
                # So that it is not chosen again.
                self.hold.write(Finish, step, end="unmet", reason=why(found), evidence=found)
            return found
        return Halt("unmet", f"step {step.id} {spent}") if graph.used_up(step) else self._try(step, evidence)

    def _try(self, step: Bead, evidence: tuple[Evidence, ...], contestant: bool = False) -> tuple[Evidence, ...] | Halt:
        """Make one attempt at a step; what is found of its criteria afterwards, or why none may be made now."""
        # Where there is nothing to mend, only the review is tried again, which says itself what it cost.
        again = _undecided(evidence)
        route = self._begin(step, again)
        if isinstance(route, Ask):
            return Halt("unmet", f"step {step.id}: {route.reason}")
        if isinstance(route, Wait):
            put_off = graph.parked(step)
            return Halt("parked", route.reason, route.until if put_off and put_off.until == route.until else None)
        step = self._snapshot.need(step.id)
        agent = routing.agent_of(self._site.settings, self.hold.molecule, step, route.agent)
        if contestant:
            agent = agent.model_copy(update={"resume": False})
        report = Report() if again else self._attempt(step, agent, evidence)
        found = evaluate(self.station, step, agent)
        passed = tuple(one for one in found if one.verdict == "pass")
        if contestant and (holds(step.criteria, found) or found[-1].verdict == "asked"):
            number = step.attempts[-1].number
            message = f"Attempt {number} at {step.id}\n\nBead: {step.id}\nAttempt: {number}\n"
            # Before anybody may read that it is good.
            self.station.worktree.snapshot(contest.ref_of(self.hold.molecule, step, number), message, TOWN, self._now)
            self.hold.write(Finish, step, end="satisfied", reason="to be compared", evidence=passed)
        elif not holds(step.criteria, found) and found[-1].verdict != "asked":
            self._give_up(step, agent, report, evidence, found)
        return found

    def _begin(self, step: Bead, again: bool) -> Route:
        """Begin an attempt, if one may be: decided and stored in one, so that two do not spend the same money."""
        decided: list[Route] = []

        def decide(snapshot: Snapshot) -> list[Operation]:
            settings, now, known = self._site.settings, self._now, snapshot.need(step.id)
            molecule = snapshot.need(self.hold.molecule.id)
            route = routing.route(settings, books(snapshot, now), snapshot, molecule, known, now)
            decided[:] = [route]
            if not isinstance(route, Go):
                return []
            agent = routing.agent_of(settings, molecule, known, route.agent)
            free = again or agent.runtime == "command"
            begin = Begin(
                id=step.id,
                worker=self.hold.worker,
                epoch=self.hold.molecule.epoch,
                runtime=route.agent,
                model=agent.model,
                cost=0.0 if free else None,
                budget=None if free else route.budget,
                tokens=None if free else route.tokens,
            )
            return [begin]

        self.hold.decide(decide)
        return decided[0]

    def _give_up(
        self, step: Bead, agent: Agent, report: Report, before: Sequence[Evidence], found: tuple[Evidence, ...]
    ) -> None:
        """End an attempt that did not bring its step to hold."""
        idle = bool(before) and before[-1].tree == found[-1].tree
        end, until = _unmet(report, step, idle, self._now)
        if until is not None:
            self.hold.write(Spend, step, report=report.model_copy(update={"until": until}))
        told = _reason(report, end, found)
        snapshot, now, attempt = self._snapshot, self._now, step.attempts[-1]
        short = _undecided(found) or routing.cut_short(agent, attempt, report.ending)
        over = routing.day_over(self._site.settings, books(snapshot, now), attempt.runtime, now) if short else None
        if over is not None:
            end, told = "parked", over.reason
        nothing = "" if _has_work(step, agent) else "nothing was done, as it has no `run` line and no agent: "
        self.hold.write(Finish, step, end=end, reason=nothing + told, evidence=found)

    def _attempt(self, step: Bead, agent: Agent, evidence: Sequence[Evidence]) -> Report:
        """Let the agent edit the work tree once, save what it left, and store what it took."""
        try:
            report = try_once(self.station, step, agent, evidence)
        except Stopped as stopped:
            if stopped.report is not None:
                self.hold.write(Spend, step, report=stopped.report)
            raise
        if report != Report(ending=report.ending):
            self.hold.write(Spend, step, report=report)
        return report


def _unmet(report: Report, step: Bead, idle: bool, now: datetime) -> tuple[AttemptEnd, datetime | None]:
    """How an attempt ended that did not bring its step to hold, and until when to wait before the next.

    ``idle`` says that it changed nothing. A full context is then no reason to go on in a fresh one.
    """
    if report.ending in ("quota", "provider_unavailable"):
        before = takewhile(lambda attempt: attempt.end == "parked", reversed(step.attempts[:-1]))
        pause = min(PARKED_SECONDS * 2 ** len(list(before)), PARKED_SECONDS_MAX)
        # A clock that is behind, or a provider that does not mean it, must not let us ask it without end.
        told = report.until if report.until is not None and report.until > now else None
        return "parked", told or milliseconds(now + timedelta(seconds=pause))
    return ("handed_off" if report.ending == "context_exhausted" and not idle else "unmet"), None


def _has_work(step: Bead, agent: Agent) -> bool:
    """Whether there is anything to be done about a step but to look whether it holds."""
    return bool(step.run) or agent.runtime != "command"


def _worth_a_look(step: Bead, agent: Agent) -> bool:
    """Whether to look before anything was done. Nobody is to judge what has not even been begun."""
    judged = all(criterion.review or criterion.approval for criterion in step.criteria)
    return bool(step.attempts) or not judged or not _has_work(step, agent)


def _undecided(evidence: Sequence[Evidence]) -> bool:
    """Whether it was a review that could not be had: then there is nothing to mend in the work."""
    return bool(evidence) and evidence[-1].verdict == "error" and evidence[-1].subject.startswith("review: ")


def _reason(report: Report, end: AttemptEnd, evidence: Sequence[Evidence]) -> str:
    """What happened in an attempt, in one line: how its agent ended, where that was not as it should, and the criteria.

    Nothing else than the agent's end explains why work was put off.
    """
    said = next(iter(report.note.splitlines()), "")[:REASON_MAX] if report.ending != "finished" else ""
    return said if said and end == "parked" else "; ".join(part for part in (said, why(evidence)) if part)


def why(evidence: Sequence[Evidence]) -> str:
    """The first criterion that did not hold, in one line."""
    bad = next((e for e in evidence if e.verdict != "pass"), None)
    return f"{bad.subject}: {bad.detail}" if bad else "criteria hold"
