"""A person takes a molecule into their own hands: with its files, and with the conversation of its agent.

They hold it as a worker does, by a lease and a living process. Killed, the Witness takes it back and saves what they
had edited, as from anybody; and what they say is done is proven by the criteria, as for anybody.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from beads import graph, liveness
from beads.errors import InvalidInput, LostRace, Refused
from beads.model import Attempt, Bead, Evidence
from beads.ops import Claim, Finish
from refinery.git import Identity
from refinery.processes import MARKER
from refinery.queue import REWORK
from refinery.workshop import Worktree
from roles import context, routing, witness
from roles.acceptance import holds
from roles.effort import Halt, why
from roles.evaluation import evaluate
from roles.logs import attempt_label
from roles.polecat import Polecat, Result
from roles.readiness import Unready
from roles.runtimes import runtime_of
from roles.settings import Agent
from roles.site import Site, branch_of
from roles.task import Order

PATIENCE_SECONDS = 60.0
"""How long a worker that was asked to stop has to save its work and let go."""


@dataclass(frozen=True)
class Handed:
    """What a person is given.

    Attributes:
        molecule: what they hold.
        step: what is next in it; None when all that is left is to submit it.
        path: where its files are.
        branch: the branch they are on.
        evidence: what was found the last time somebody looked at the step.
        trouble: why the work tree could not be made ready; empty when it is.
        environ: variables for what they start there.
        session: the name of the agent's conversation; empty when there is none that can be gone on with.
        argv: what goes on with it.
        surroundings: variables for that alone, such as its home.
        agent: whose it is.
    """

    molecule: Bead
    step: Bead | None
    path: Path
    branch: str
    evidence: tuple[Evidence, ...]
    trouble: str
    environ: Mapping[str, str]
    session: str = ""
    argv: tuple[str, ...] = ()
    surroundings: Mapping[str, str] = field(default_factory=dict)
    agent: str = ""


Hand = Callable[[Handed, Callable[[], None]], bool]
"""Gives it to the person and waits until they are through, calling the other function now and then to keep the lease;
whether they say that it is done."""


@dataclass
class ByHand(Polecat):
    """A person at work on one molecule. Nothing is tried in their place: they say when to look.

    Attributes:
        person: who; what they made is committed in their name.
        hand: gives it to them.
    """

    person: Identity = field(kw_only=True)
    hand: Hand = field(kw_only=True)
    _trouble: str = ""

    @property
    def _actor(self) -> str:
        return f"{self.person.name} <{self.person.email}>"

    @property
    def _author(self) -> Identity:
        return self.person

    def _wanted(self, bead_id: str | None) -> Claim:
        return Claim(id=bead_id, worker=self.name, site=self.site.name, hand=True)

    def _set_up(self) -> None:
        try:
            super()._set_up()
        except Unready as error:
            # This may be what they have come to see.
            self._trouble = str(error)

    def _work(self, worktree: Worktree) -> Result:
        self._regain(worktree)
        step = graph.next_step(self.site.store.snapshot(), self._molecule)
        if step is not None and REWORK in step.labels:
            self._bring_main(step, worktree)
        try:
            done = self.hand(self._handed(step, worktree), self._renew)
        finally:
            # Nothing they started may go on in there behind the back of who comes next.
            self.site.machine.kill_strays(self.site.marker(self.name))
        self._station.salvage("by hand")
        return super()._work(worktree) if done else self._leave(worktree, "stopped", "given back")

    def _step(self, step: Bead, worktree: Worktree) -> Halt | None:
        """Look at the step once. Whether it is right is for the person to say, but whether it holds is not."""
        evidence = evaluate(self._station, step, self._author_of(step))
        if evidence and evidence[-1].verdict == "asked":
            self._ask(step, worktree, evidence)
            return Halt("asked", f"step {step.id} waits for a person's answer")
        if not holds(step.criteria, evidence):
            self._hold.write(Finish, step, end="stopped", reason=why(evidence), evidence=evidence)
            return Halt("unmet", f"step {step.id} does not hold: {why(evidence)}")
        self._settle(step, worktree, evidence)
        return None

    def _author_of(self, step: Bead) -> Agent:
        """Whose work it counts as, for whoever reviews it; where no agent can do it, a person still may."""
        try:
            return routing.agent_of(self.site.settings, self._molecule, step)
        except InvalidInput:
            return Agent()

    def _handed(self, step: Bead | None, worktree: Worktree) -> Handed:
        outer = self.site.environ.get(MARKER)
        mark = self.site.marker(self.name)
        about = {"BEADTOWN_BEAD": self._molecule.id, MARKER: f"{outer}\n{mark}" if outer else mark}
        newest = {e.subject: e for e in sorted(step.evidence, key=lambda e: e.at)} if step else {}
        plain = Handed(
            molecule=self._molecule,
            step=step,
            path=worktree.path,
            branch=branch_of(self._molecule),
            evidence=tuple(newest.values()),
            trouble=self._trouble,
            environ=about,
        )
        return self._with_session(plain)

    def _with_session(self, plain: Handed) -> Handed:
        """The same with the newest conversation about the molecule that can be gone on with at a terminal."""
        steps = graph.steps(self.site.store.snapshot(), self._molecule)
        tries = sorted(((a, s) for s in steps for a in s.attempts), key=lambda pair: pair[0].started_at, reverse=True)
        for attempt, step in tries:
            found = self._resumed(step, attempt, plain)
            if found is not None:
                return found
        return plain

    def _resumed(self, step: Bead, attempt: Attempt, plain: Handed) -> Handed | None:
        site = self.site
        try:
            agent = site.settings.agent(attempt.runtime)
        except InvalidInput:
            return None
        runtime = runtime_of(agent)
        session = context.session_of(step, attempt, runtime)
        log = site.logs(self._molecule.id) / f"{attempt_label(step, attempt)}.log"
        if not (session and runtime.at_terminal and log.exists()):
            return None
        arguments = (part.replace("{session}", session) for part in runtime.at_terminal)
        order = Order(
            agent=agent,
            prompt="",
            directory=plain.path,
            home=site.home(self._molecule.id, attempt.runtime),
            scratch=log.with_suffix(".scratch"),
            session=session,
            now=site.clock.now(),
            resume=True,
            confined=False,
        )
        return Handed(
            **{
                **vars(plain),
                "surroundings": runtime.launch(order).environ,
                "session": session,
                "argv": (*(agent.command or (runtime.program,)), *arguments),
                "agent": attempt.runtime,
            }
        )


def make_free(site: Site, molecule: Bead, *, take: bool) -> None:
    """See to it that nobody holds the molecule: a dead worker is laid to rest, and a living one asked to let go.

    Args:
        site: where.
        molecule: as it is now.
        take: whether a living worker is to be asked.

    Raises:
        LostRace: somebody holds it and is not asked, or does not let go in time.
        Refused: whoever holds it is in another clone, where they cannot be asked.
    """
    lease = molecule.lease
    if lease is None:
        return
    if lease.clone != site.name:
        raise Refused(f"{molecule.id} is held by {lease.worker} in another clone", "Attach there, or wait.")
    if not site.alive(lease.worker):
        witness.tick(site)
        return
    process = liveness.note(site.workers, lease.worker)
    if not take:
        hint = f"`town attach {molecule.id} --take` asks it to save its work and let go."
        raise LostRace(f"{molecule.id} is held by {lease.worker} (process {process})", hint)
    os.kill(int(process), signal.SIGTERM)
    deadline = site.clock.monotonic() + PATIENCE_SECONDS
    while site.alive(lease.worker) and _holds(site, molecule, lease.epoch):
        if site.clock.monotonic() > deadline:
            raise LostRace(f"{lease.worker} (process {process}) does not let go of {molecule.id}", "End it by hand.")
        site.clock.sleep(0.02)


def _holds(site: Site, molecule: Bead, epoch: int) -> bool:
    lease = site.store.snapshot().need(molecule.id).lease
    return lease is not None and lease.epoch == epoch
