"""A polecat: claims one molecule, works it through in a work tree of its own, submits it, and is gone.

Killed at any instruction, its successor goes on from what Git says: the branch has what was proven, the work
tree or a salvage ref has what was not, and every step begins with a look whether its criteria hold already (I6).
"""

from __future__ import annotations

import contextlib
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import takewhile
from typing import Literal, NamedTuple

from beads import graph, sync
from beads.errors import Fenced, InvalidInput, LostRace, Refused, Unreadable
from beads.liveness import Presence
from beads.model import AttemptEnd, Bead, Evidence, milliseconds
from beads.ops import (
    LEASE_SECONDS,
    Begin,
    Claim,
    Close,
    Finish,
    Operation,
    Release,
    Renew,
    Reopen,
    Report,
    Spend,
    Submit,
)
from beads.spending import books
from beads.store import Snapshot
from refinery.git import ABSENT, Identity
from refinery.processes import Exit
from refinery.queue import REWORK
from refinery.workshop import Worktree
from roles import contest, routing
from roles.acceptance import holds
from roles.drive import Running
from roles.events import Event
from roles.readiness import Unready
from roles.routing import Ask, Go, Route, Wait
from roles.settings import Agent
from roles.site import REQUESTS, TOWN, Site, Stopped, branch_of, wait
from roles.station import Station, nobody

_OID = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
End = Literal["submitted", "done", "unmet", "asked", "parked", "stopped", "died", "fenced", "idle"]

PARKED_SECONDS = 60.0
"""How long work is put off when a provider does not serve it and does not say until when; twice as long each time."""

UNREADY_SECONDS = 5.0
"""How long it is put off when its work tree cannot be made ready; twice as long each time."""

PARKED_SECONDS_MAX = 3600.0
"""The longest that it is put off so."""


REASON_MAX = 200
"""Characters of an agent's last words that are told as a reason; all of them are in its note."""


@dataclass(frozen=True)
class Result:
    """How a polecat's life went: the molecule it had, and in one word and one line what became of it."""

    bead: str
    end: End
    reason: str


class _Halt(NamedTuple):
    """Why work on a molecule cannot go on now, and until when, where time alone will help."""

    end: End
    reason: str
    until: datetime | None = None


@dataclass
class Polecat:
    """One worker process.

    Attributes:
        site: where it works.
        name: its name, which no other living worker of this clone has.
        stopping: says whether it has been asked to stop.
        tell: told each event of its agents as it comes.
    """

    site: Site
    name: str
    stopping: Callable[[], bool]
    tell: Callable[[Event], None] = nobody
    _molecule: Bead = field(init=False)
    _station: Station = field(init=False)
    _renew_at: float = 0.0

    def run(self, bead_id: str | None = None) -> Result:
        """Claim that molecule, or the best ready one, and work until it is submitted or cannot go on.

        Raises:
            LostRace: somebody else holds it.
            Refused: it cannot be claimed now.
        """
        with Presence(self.site.workers, self.name):
            taken = self._claim(bead_id) if bead_id else self._take()
            if taken is None or isinstance(taken, Result):
                return taken or Result("", "idle", "nothing is ready")
            self._molecule = molecule = taken
            try:
                result = self._hold()
            except Fenced as error:
                # A successor may be in the work tree already: nothing there is ours to touch any more.
                return Result(molecule.id, "fenced", error.message)
            self._share()
            return result

    def _take(self) -> Bead | Result | None:
        """Claim the best molecule of those that are ready, and that somebody may work on now."""
        snapshot, now = self.site.store.snapshot(), self.site.clock.now()
        ready = [bead for bead in snapshot.ready(now) if graph.workable(snapshot, bead)]
        if not ready:
            # Where the store is shared, there may be something that nobody here knows of yet.
            return self._claim(None)
        known, why = books(snapshot, now), ""
        for bead in ready:
            found = routing.of(self.site.settings, known, snapshot, bead, now)
            if not isinstance(found, Go):
                why = why or f"{bead.id}: {found.reason}"
                continue
            with contextlib.suppress(LostRace, Refused):
                return self._claim(bead.id)
        return Result("", "idle", why or "others were first")

    def _claim(self, bead_id: str | None) -> Bead | None:
        """Claim; where the store is shared, it counts only because the remote has accepted it."""
        claim = Claim(id=bead_id, worker=self.name, site=self.site.name, workable=bead_id is None)
        if self.site.remote is None:
            return self._commit(claim)
        return sync.claim(self.site.store, self.site.remote, self._actor, claim, self._chance).beads[0]

    def _share(self) -> None:
        """Tell the other clones how it ended. When the remote cannot be reached, the next sync will."""
        if self.site.remote is not None:
            with contextlib.suppress(Unreadable, LostRace):
                sync.sync(self.site.store, self.site.remote, self._actor, self._chance)

    @property
    def _actor(self) -> str:
        return f"polecat {self.name}"

    @property
    def _chance(self) -> random.Random:
        return random.Random(f"{self.site.name}/{self.name}")

    def _hold(self) -> Result:
        worktree: Worktree | None = None
        try:
            worktree = self._enter()
            self._set_up()
            result = self._work(worktree)
        except Unready as error:
            result = self._put_off(worktree, error)
        except Stopped:
            result = self._leave(worktree, "stopped", "asked to stop")
        except Fenced:
            raise
        except BaseException as error:
            self._leave(worktree, "died", f"{type(error).__name__}: {error}")
            raise
        return result

    def _leave(self, worktree: Worktree | None, end: End, reason: str, until: datetime | None = None) -> Result:
        """Save everything, give the molecule back, and leave no work tree behind."""
        molecule, reason = self._molecule, self.site.secrets.text(reason)
        if worktree:
            # Before the molecule is anybody else's: two must never be at work in one directory.
            worktree.remove(self.site.salvage(worktree, molecule, molecule.epoch, reason))
        ended: AttemptEnd = "died" if end == "died" else "stopped"
        epoch = molecule.epoch
        self._commit(Release(id=molecule.id, worker=self.name, epoch=epoch, end=ended, reason=reason, until=until))
        return Result(molecule.id, end, reason)

    def _commit(self, *operations: Operation) -> Bead | None:
        written = self.site.store.commit(self._actor, operations)
        return written.beads[-1]

    def _enter(self) -> Worktree:
        """The molecule's work tree: as a predecessor left it, or new from main with what was salvaged."""
        site, branch = self.site, branch_of(self._molecule)
        there = site.workshop.find(branch)
        worktree = site.workshop.open(self._molecule.id, branch, site.main_head())
        if there is None:
            self._freshen(worktree)
            saved = site.salvaged(self._molecule, worktree.head())
            if saved:
                worktree.restore(saved)
        self._station = Station(site, self._molecule, self.name, worktree, self._wait, self.tell)
        return worktree

    def _set_up(self) -> None:
        """Make the work tree ready, if there is anything left to do in it."""
        if graph.next_step(self.site.store.snapshot(), self._molecule):
            self._station.set_up()

    def _put_off(self, worktree: Worktree | None, error: Unready) -> Result:
        """Store why nothing can be done in the work tree, and put the molecule off: no attempt at it has failed."""
        step = graph.next_step(self.site.store.snapshot(), self._molecule)
        assert step is not None, "without work to do nothing is made ready"
        assert worktree is not None, "it is there before it is made ready"
        settings, now = self.site.settings, self.site.clock.now()
        names = routing.chain(settings, step.agent or self._molecule.agent, step)
        pause = min(UNREADY_SECONDS * 2 ** len(graph.unready(step)), PARKED_SECONDS_MAX)
        until = milliseconds(now + timedelta(seconds=pause))
        found = error.evidence(worktree.tree(), self.name, now)
        name = names[routing.whose_turn(settings, names, step)]
        self._held(Begin, step, runtime=name, cost=0.0)
        self._held(Spend, step, report=Report(ending="environment", until=until))
        step = self._held(Finish, step, end="parked", reason=str(error), evidence=(found,))
        if graph.used_up(step):
            return self._leave(worktree, "unmet", f"step {step.id} {graph.used_up(step)}")
        return self._leave(worktree, "parked", str(error), until)

    def _freshen(self, worktree: Worktree) -> None:
        """Start from today's main when the branch has no commit of its own yet."""
        main = self.site.main_head()
        if worktree.head() != main and self.site.git.is_ancestor(worktree.head(), main):
            worktree.advance(main)

    def _work(self, worktree: Worktree) -> Result:
        molecule = self._molecule
        self._regain(worktree)
        for step in graph.steps(self.site.store.snapshot(), molecule):
            halt = None if step.closed else self._step(step, worktree)
            if halt is not None:
                return self._leave(worktree, halt.end, halt.reason, halt.until)
        return self._submit(worktree)

    def _regain(self, worktree: Worktree) -> None:
        """Bring back what was proven and the branch does not have; steps whose work is gone are open again.

        The branch may be another one than that on which they were closed: somebody has reset or deleted it, or it was
        in another clone.
        """
        for step in graph.steps(self.site.store.snapshot(), self._molecule):
            proven = (e.commit for e in reversed(step.evidence) if e.verdict == "pass")
            commit = next((oid for oid in proven if _OID.fullmatch(oid)), "")
            if not step.closed or not commit:
                continue
            if not self.site.git.has(commit):
                self.site.obtain(self._molecule.id)
            if not self.site.git.has(commit):
                worker, epoch = self.name, self._molecule.epoch
                self._commit(Reopen(id=step.id, worker=worker, epoch=epoch))
            elif not self.site.git.is_ancestor(commit, worktree.head()):
                self._bring(commit, "what was proven", step, worktree)

    def _step(self, step: Bead, worktree: Worktree) -> _Halt | None:
        """Bring a step to where its criteria hold and close it; otherwise why that is not to be had now."""
        if REWORK in step.labels:
            self._bring_main(step, worktree)
        try:
            agent = routing.agent_of(self.site.settings, self._molecule, step)
        except InvalidInput as error:
            return _Halt("unmet", f"step {step.id}: {error.message}")
        best_of = step.terms.best_of if step.terms else None
        # What is there of one of several attempts is not looked at before there are all of them.
        look = _worth_a_look(step, agent) and not (best_of and step.attempts)
        evidence = self._station.evaluate(step, agent) if look else ()
        while not holds(step.criteria, evidence):
            step = self.site.store.snapshot().need(step.id)
            if evidence and evidence[-1].verdict == "asked":
                self._ask(step, worktree, evidence)
                return _Halt("asked", f"step {step.id} waits for a person's answer")
            if graph.used_up(step) and not (best_of and contest.good(step)):
                return _Halt("unmet", f"step {step.id} did not meet its criteria")
            found = self._compete(step, worktree, evidence) if best_of else self._try(step, evidence)
            if isinstance(found, _Halt):
                return found
            evidence = found
        self._settle(step, worktree, evidence)
        return None

    def _compete(self, step: Bead, worktree: Worktree, evidence: tuple[Evidence, ...]) -> tuple[Evidence, ...] | _Halt:
        """Make one of several attempts, or take the best of them; where none is good, go on as usual."""
        snapshot = self.site.store.snapshot()
        spent = graph.used_up(step) or graph.overdrawn(snapshot, snapshot.need(self._molecule.id), step)
        if routing.contested(step) and not (spent and contest.good(step)):
            self._station.salvage(f"{step.id} before another attempt")
            worktree.reset(worktree.head())
            found = self._try(step, (), worktree)
            return found if isinstance(found, _Halt) else ()
        tree = contest.best(step, self.site.git, worktree.head())
        if tree is not None:
            self._station.salvage(f"{step.id} before the best attempt")
            worktree.reset(tree)
        if tree is not None or not evidence:
            agent = routing.agent_of(self.site.settings, self._molecule, step)
            found = self._station.evaluate(step, agent)
            if not holds(step.criteria, found) and found[-1].verdict != "asked":
                # So that it is not chosen again.
                self._held(Finish, step, end="unmet", reason=_why(found), evidence=found)
            return found
        return _Halt("unmet", f"step {step.id} {spent}") if graph.used_up(step) else self._try(step, evidence)

    def _try(
        self, step: Bead, evidence: tuple[Evidence, ...], contestant: Worktree | None = None
    ) -> tuple[Evidence, ...] | _Halt:
        """Make one attempt at a step; what is found of its criteria afterwards, or why none may be made now."""
        # Where there is nothing to mend, only the review is tried again, which says itself what it cost.
        again = _undecided(evidence)
        route = self._begin(step, again)
        if isinstance(route, Ask):
            return _Halt("unmet", f"step {step.id}: {route.reason}")
        if isinstance(route, Wait):
            put_off = graph.parked(step)
            return _Halt("parked", route.reason, route.until if put_off and put_off.until else None)
        step = self.site.store.snapshot().need(step.id)
        agent = routing.agent_of(self.site.settings, self._molecule, step, route.agent)
        if contestant:
            agent = agent.model_copy(update={"resume": False})
        report = Report() if again else self._attempt(step, agent, evidence)
        found = self._station.evaluate(step, agent)
        passed = tuple(one for one in found if one.verdict == "pass")
        if contestant and (holds(step.criteria, found) or found[-1].verdict == "asked"):
            number = step.attempts[-1].number
            message = f"Attempt {number} at {step.id}\n\nBead: {step.id}\nAttempt: {number}\n"
            # Before anybody may read that it is good.
            contestant.snapshot(contest.ref_of(self._molecule, step, number), message, TOWN, self.site.clock.now())
            self._held(Finish, step, end="satisfied", reason="to be compared", evidence=passed)
        elif not holds(step.criteria, found) and found[-1].verdict != "asked":
            self._give_up(step, agent, report, evidence, found)
        return found

    def _begin(self, step: Bead, again: bool) -> Route:
        """Begin an attempt, if one may be: decided and stored in one, so that two do not spend the same money."""
        decided: list[Route] = []

        def decide(snapshot: Snapshot) -> list[Operation]:
            settings, now, known = self.site.settings, self.site.clock.now(), snapshot.need(step.id)
            molecule = snapshot.need(self._molecule.id)
            route = routing.route(settings, books(snapshot, now), snapshot, molecule, known, now)
            decided[:] = [route]
            if not isinstance(route, Go):
                return []
            agent = routing.agent_of(settings, molecule, known, route.agent)
            free = again or agent.runtime == "command"
            begin = Begin(
                id=step.id,
                worker=self.name,
                epoch=self._molecule.epoch,
                runtime=route.agent,
                model=agent.model,
                cost=0.0 if free else None,
                budget=None if free else route.budget,
                tokens=None if free else route.tokens,
            )
            return [begin]

        self.site.store.commit(self._actor, decide)
        return decided[0]

    def _give_up(
        self, step: Bead, agent: Agent, report: Report, before: Sequence[Evidence], found: tuple[Evidence, ...]
    ) -> None:
        """End an attempt that did not bring its step to hold."""
        idle = bool(before) and before[-1].tree == found[-1].tree
        end, until = _unmet(report, step, idle, self.site.clock.now())
        if until is not None:
            self._held(Spend, step, report=report.model_copy(update={"until": until}))
        told = _reason(report, end, found)
        snapshot, now, attempt = self.site.store.snapshot(), self.site.clock.now(), step.attempts[-1]
        short = _undecided(found) or routing.cut_short(agent, attempt, report.ending)
        over = routing.day_over(self.site.settings, books(snapshot, now), attempt.runtime, now) if short else None
        if over is not None:
            end, told = "parked", over.reason
        nothing = "" if _has_work(step, agent) else "nothing was done, as it has no `run` line and no agent: "
        self._held(Finish, step, end=end, reason=nothing + told, evidence=found)

    def _ask(self, step: Bead, worktree: Worktree, evidence: tuple[Evidence, ...]) -> None:
        """Commit what a person is asked about, so that it can be looked at, and ask."""
        head = self._save(step, worktree)
        named = tuple(found if found.commit else found.model_copy(update={"commit": head}) for found in evidence)
        self._held(Finish, step, end="asked", reason=_why(named), evidence=named)

    def _held(self, operation: type[Begin] | type[Spend] | type[Finish], step: Bead, **values: object) -> Bead:
        fields = {"id": step.id, "worker": self.name, "epoch": self._molecule.epoch, **values}
        bead = self._commit(operation.model_validate(fields))
        assert bead is not None, "only a claim may find nothing"
        return bead

    def _attempt(self, step: Bead, agent: Agent, evidence: Sequence[Evidence]) -> Report:
        """Let the agent edit the work tree once, save what it left, and store what it took."""
        try:
            report = self._station.attempt(step, agent, evidence)
        except Stopped as stopped:
            if stopped.report is not None:
                self._held(Spend, step, report=stopped.report)
            raise
        if report != Report(ending=report.ending):
            self._held(Spend, step, report=report)
        return report

    def _wait(self, job: Running) -> Exit:
        return wait(job, self.site, self.stopping, self._renew)

    def _renew(self) -> None:
        now = self.site.clock.monotonic()
        self._renew_at = self._renew_at or now + LEASE_SECONDS / 4
        if now >= self._renew_at:
            renewed = self._commit(Renew(id=self._molecule.id, worker=self.name, epoch=self._molecule.epoch))
            self._renew_at = now + LEASE_SECONDS / 4
            if self.site.remote is not None and renewed is not None:
                # Without a sign of life the lease still holds until its end.
                with contextlib.suppress(Unreadable):
                    sync.renew(self.site.store, self.site.remote, renewed)

    def _settle(self, step: Bead, worktree: Worktree, evidence: tuple[Evidence, ...]) -> None:
        """Commit what was proven and close the step with the proof; a plain bead closes when it lands."""
        head = self._save(step, worktree)
        proof = tuple(found.model_copy(update={"commit": head}) for found in evidence)
        if step.id == self._molecule.id:
            self._held(Finish, step, end="satisfied", evidence=proof)
            return
        close = Close(id=step.id, worker=self.name, epoch=self._molecule.epoch, evidence=proof)
        self._commit(close)

    def _save(self, step: Bead, worktree: Worktree) -> str:
        """Commit what is on disk as the work on a step; the branch's head afterwards."""
        number = len(step.attempts) + (0 if step.attempts else 1)
        message = f"{step.title}\n\nBead: {step.id}\nAttempt: {number}\n"
        head = worktree.commit(message, self._author, TOWN, self.site.clock.now())
        # Before anybody may read that it was proven.
        self.site.offer(self._molecule, head)
        return head

    def _bring_main(self, step: Bead, worktree: Worktree) -> None:
        """Merge today's main into the branch, as a commit, so that nothing half-done needs remembering."""
        while not self.site.git.is_ancestor(main := self.site.main_head(), worktree.head()):
            # A predecessor may have been killed in the middle of merging an older main.
            self._bring(worktree.merging() or main, "main", step, worktree)

    def _bring(self, theirs: str, what: str, step: Bead, worktree: Worktree) -> None:
        """Merge a commit into the branch; ``what`` it is goes into the history.

        A command's change is what the command does: where it conflicts, the other side is taken and the command
        runs again on it. An agent finds the conflict markers in the files.
        """
        agent = self.site.settings.agent(step.agent or self._molecule.agent)
        conflicts = worktree.merge(theirs)
        if agent.runtime == "command":
            worktree.take(theirs, conflicts)
        where = "".join(f"Conflict: {path!r}\n" for path in conflicts)
        message = f"Merge {what} for {step.id}\n\n{where}Bead: {step.id}\n"
        worktree.commit(message, self._author, TOWN, self.site.clock.now(), parents=[theirs])

    @property
    def _author(self) -> Identity:
        return Identity(f"polecat {self.name}", f"{self.name}@beadtown.invalid")

    def _submit(self, worktree: Worktree) -> Result:
        """Pin the head, ask for it to be merged, and leave."""
        molecule, git, head = self._molecule, self.site.git, worktree.head()
        base = self._station.base(head)
        git.swap(f"{REQUESTS}{molecule.id}/{head[:16]}", head, ABSENT, "submitted")
        self.site.offer(molecule, head)
        submit = Submit(
            id=molecule.id,
            worker=self.name,
            epoch=molecule.epoch,
            branch=branch_of(molecule),
            head=head,
            base=base,
        )
        # All of it is committed, and once the request is in, the Witness may sweep.
        worktree.remove()
        self._commit(submit)
        return Result(molecule.id, "submitted" if head != base else "done", f"head {head[:12]}")


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
    return said if said and end == "parked" else "; ".join(part for part in (said, _why(evidence)) if part)


def _why(evidence: Sequence[Evidence]) -> str:
    """The first criterion that did not hold, in one line."""
    bad = next((e for e in evidence if e.verdict != "pass"), None)
    return f"{bad.subject}: {bad.detail}" if bad else "criteria hold"
