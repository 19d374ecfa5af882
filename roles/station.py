"""Where a polecat works: a molecule's work tree, in which agents are run and what they left is evaluated.

Nothing here writes to the store: what was done and what was found goes back to the polecat, who holds the lease.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal
from uuid import NAMESPACE_OID, uuid5

from beads import graph
from beads.errors import InvalidInput
from beads.model import Attempt, Bead, Criterion, Evidence, Usage
from beads.ops import Report
from beads.proof import approvals
from beads.spending import books
from refinery.containment import Reach
from refinery.gate import gate_of
from refinery.processes import Exit, Job, start
from refinery.queue import REWORK
from refinery.redaction import HANDED
from refinery.view import installation
from refinery.workshop import Worktree
from roles import context, review, routing
from roles.acceptance import Bench, Finding, evaluate, feedback
from roles.drive import Drive, Limits, Running, as_line
from roles.events import Event, Troubled
from roles.housing import link, put, sweep
from roles.llm import SURROUNDINGS
from roles.logs import attempt_label, keep
from roles.prices import price
from roles.prompts import compose
from roles.readiness import make_ready
from roles.runtimes import names_for, network_for, runtime_of
from roles.settings import Agent
from roles.site import Site, Stopped
from roles.task import Launch, Order, Task

ATTEMPT = "BEADTOWN_ATTEMPT"
"""The variable that tells a process at which attempt it works; 0 when it is none."""


def nobody(event: Event) -> None:
    """Nobody listens."""
    del event


@dataclass(frozen=True)
class Station:
    """A molecule's work tree, with what it takes to work there.

    Attributes:
        site: the clone.
        molecule: what is worked on, as it was when it was claimed.
        worker: who works here.
        worktree: its files.
        wait: waits for something that runs; may raise when the worker is asked to stop.
        tell: told each event of an agent as it comes.
    """

    site: Site
    molecule: Bead
    worker: str
    worktree: Worktree
    wait: Callable[[Running], Exit]
    tell: Callable[[Event], None] = nobody

    def set_up(self) -> None:
        """Make the work tree ready to be worked in.

        Raises:
            Unready: it cannot be; see :mod:`roles.readiness`.
        """
        reach = Reach((self.worktree.path,), network=self.site.settings.worktree.network)
        make_ready(self.site, self.worktree, lambda what, label, timeout: self._run(what, reach, label, timeout, ()))

    def base(self, head: str) -> str:
        """The commit at which a branch with that head left main."""
        return self.site.git.line("merge-base", self.site.main, head)

    def attempt(self, step: Bead, agent: Agent, evidence: Sequence[Evidence]) -> Report:
        """Let the agent edit the work tree once, and save what it left; what the run came to."""
        attempt, runtime = step.attempts[-1], runtime_of(agent)
        label = attempt_label(step, attempt)
        order = self._order(step, attempt, agent, label, evidence)
        allow, number = names_for(agent), str(attempt.number)
        # Before it runs: what stands in the program's own books then was used before.
        reader = runtime.reader(order)
        job = self._start(self._house(order), self._reach(order), label, agent.timeout, allow, {ATTEMPT: number})
        limits = Limits(order.budget or math.inf, attempt.tokens or math.inf, agent.silence)
        told = self._log(label, "events")
        told.touch(0o600)
        with told.open("w", encoding="utf-8", errors="replace") as events:

            def tell(event: Event) -> None:
                events.write(self.site.secrets.text(as_line(event, self.site.clock.now().isoformat())))
                events.flush()
                self.tell(event)

            log, priced = self._log(label), partial(price, overrides=agent.prices)
            drive = Drive(job, log, reader, limits, agent.model, priced, self.site.clock, tell, self.site.secrets)
            try:
                exit = self.wait(drive)
            except Stopped as stopped:
                stopped.report = drive.report(drive.cancel(0.0))
                raise
            finally:
                self.site.clear_scratch(self.molecule.id)
            sweep(self.worktree.path, runtime.litter)
            self.salvage(f"{step.id} after attempt {attempt.number}")
            for redacted in self.worktree.redacted(keep=True):
                tell(Troubled(f"took out {redacted}"))
        return drive.report(exit)

    def salvage(self, why: str) -> str | None:
        """Save what is on disk and not committed; its commit, or None when all is."""
        return self.site.salvage(self.worktree, self.molecule, self.molecule.epoch, why)

    def _order(self, step: Bead, attempt: Attempt, agent: Agent, label: str, evidence: Sequence[Evidence]) -> Order:
        runtime = runtime_of(agent)
        last = context.gone_on_with(step, attempt, runtime, wanted=agent.resume, here=self._was_here(step))
        session = context.session_of(step, last, runtime) if last else context.chosen(step, attempt)
        used = [a.usage for a in step.attempts[:-1] if last and a.session == session and a.usage]
        failing = self._failing(step, attempt, evidence)
        return Order(
            agent=agent,
            # A command is told nothing but what failed.
            prompt="" if agent.runtime == "command" else compose(self._task(step, attempt, failing, last is not None)),
            directory=self.worktree.path,
            home=self.site.home(self.molecule.id, attempt.runtime),
            scratch=self.site.scratch(self.molecule.id, label),
            session=session,
            now=self.site.clock.now(),
            clock=self.site.clock.now,
            resume=last is not None,
            budget=attempt.budget,
            confined=self.site.sandbox.confines,
            before=sum(used, Usage()),
            run=step.run,
            feedback=failing,
        )

    def _reviewing(self, agent: Agent, prompt: str, label: str) -> Order:
        return Order(
            agent=agent,
            prompt=prompt,
            directory=self.worktree.path,
            # No agent has a name that begins so.
            home=self.site.home(self.molecule.id, ".review"),
            scratch=self.site.scratch(self.molecule.id, label),
            session=str(uuid5(NAMESPACE_OID, f"{label}/{self.site.clock.now().timestamp()}")),
            now=self.site.clock.now(),
            clock=self.site.clock.now,
            budget=agent.budget,
            confined=self.site.sandbox.confines,
        )

    def _house(self, order: Order) -> Launch:
        """What to start for an order, once what it takes is in the agent's home."""
        runtime = runtime_of(order.agent)
        launched = runtime.launch(order)
        if user := self.site.environ.get("HOME"):
            link(order.home, Path(user), runtime.credentials)
        put(launched.files, order.home, order.scratch)
        return launched

    def _was_here(self, step: Bead) -> Callable[[Attempt], bool]:
        """Whether an attempt was made in this clone, which then has its log, and in this place."""
        # Some programs find a conversation only where it began, and a work tree that is used again is anywhere.
        return lambda attempt: (
            self._log(attempt_label(step, attempt)).exists()
            and (not self.site.workshop.keep or attempt.epoch == self.molecule.epoch)
        )

    def _failing(self, step: Bead, attempt: Attempt, evidence: Sequence[Evidence]) -> str:
        return feedback(evidence) if attempt.number > 1 or step.evidence or REWORK in step.labels else ""

    def _task(self, step: Bead, attempt: Attempt, failing: str, resumed: bool) -> Task:
        molecule, git, head = self.molecule, self.site.git, self.worktree.head()
        closed = [s for s in graph.steps(self.site.store.snapshot(), molecule) if s.closed]
        return Task(
            goal=f"{molecule.title}\n\n{molecule.description}",
            step=f"{step.title}\n\n{step.description}" if step.id != molecule.id else "",
            run=step.run,
            criteria=tuple(str(c) for c in step.criteria),
            earlier=() if resumed else context.earlier(git, self.base(head), head, closed),
            feedback=failing,
            attempt=attempt.number,
            handoff=context.handoff(step, attempt),
            left=tuple(self.worktree.changed(head)) if attempt.number > 1 else (),
            resumed=resumed,
        )

    def evaluate(self, step: Bead, agent: Agent) -> tuple[Evidence, ...]:
        """Evidence about what is on disk now; what evaluating leaves behind is cleared away again."""
        tree, snapshot = self.worktree.tree(), self.site.store.snapshot()
        # Before anything of the worker's runs, which might move main.
        base, gate = self.base(self.worktree.head()), gate_of(self.site.git, self.site.main_head())
        bench = Bench(
            directory=self.worktree.path,
            tree=tree,
            base=base,
            # Not in the work tree, where a worker may have put another repository in the place of ours.
            git=self.site.git,
            environ=self.site.surroundings(()),
            around=self._fresh,
            logs=self.site.logs(self.molecule.id),
            marker=self.site.marker(self.worker),
            clock=self.site.clock,
            by=self.worker,
            wait=self.wait,
            review=lambda criterion: self._review(criterion, step, agent, base, tree),
            secrets=self.site.secrets,
            redacted=self.worktree.redacted(),
            protected=gate.protected,
            approved=approvals(graph.steps(snapshot, self.molecule)),
        )
        # The criteria as they were when the molecule was claimed, whatever a worker has made of them since.
        found = evaluate(step.evolve(evidence=snapshot.need(step.id).evidence), bench)
        self.worktree.reset(tree)
        # What was in files that are reset has never been the worker's.
        self.worktree.redacted()
        return found

    def _review(self, criterion: Criterion, step: Bead, author: Agent, base: str, tree: str) -> Finding:
        """Let somebody else look at the branch. What cannot be read as a verdict is none."""
        settings, git = self.site.settings, self.site.git
        over = self._overspent(step)
        if over:
            return Finding("error", f"nobody was asked: {over}")
        prompt = review.compose(criterion.review, self.molecule, step, git, base, tree)
        table = settings.review
        label = f"{step.id}-review-{tree[:12]}"
        agent = settings.agent(table.agent) if table.agent else None
        order = self._reviewing(agent, prompt, label) if agent else None
        try:
            launched = self._house(order) if order else review.launch(settings, author, prompt)
        except InvalidInput as error:
            return Finding("error", f"{error.message}. {error.hint}")
        allow = names_for(agent) if agent else table.environment
        network = agent is None or network_for(agent)
        named = _paths(agent, self.site.sandbox.host.home) if agent else ()
        own = (order.home, order.scratch) if order else ()
        reach = Reach(own, (self.worktree.path, *named), self._credentials(agent) if agent else (), network=network)
        reader = runtime_of(agent).reader(order) if agent and order else None
        exit = self._run(launched, reach, label, table.timeout, allow, SURROUNDINGS)
        found = review.heard(exit, reader)
        self.site.clear_scratch(self.molecule.id)
        cost = _cost(agent, found) if agent else None
        try:
            verdict = review.read(exit, found)
        except InvalidInput as error:
            return Finding("error", f"no verdict: {error.message}", exit.seconds, exit.output, exit.digest, cost)
        finally:
            keep(exit, self.site.logs(self.molecule.id))
        good = verdict.verdict == "approve"
        words = "" if good else verdict.in_words()
        cost, model = (cost, found.model or agent.model) if agent else (verdict.cost, verdict.model)
        how: Literal["pass", "fail"] = "pass" if good else "fail"
        return Finding(how, verdict.summary, exit.seconds, words, exit.digest, cost, model=model)

    def _overspent(self, step: Bead) -> str:
        """In words, that no money is left for a review; empty while there is some."""
        snapshot, now = self.site.store.snapshot(), self.site.clock.now()
        molecule = snapshot.need(self.molecule.id)
        spent = graph.overdrawn(snapshot, molecule, snapshot.need(step.id))
        day = routing.day_over(self.site.settings, books(snapshot, now), None, now)
        return f"{spent} {graph.over_budget(snapshot, snapshot.need(spent))}" if spent else day.reason if day else ""

    def _run(
        self,
        launched: Launch,
        reach: Reach,
        label: str,
        timeout: float,
        allow: Sequence[str],
        extra: Mapping[str, str] | None = None,
    ) -> Exit:
        return self.wait(self._start(launched, reach, label, timeout, allow, extra))

    def _start(
        self,
        launched: Launch,
        reach: Reach,
        label: str,
        timeout: float,
        allow: Sequence[str],
        extra: Mapping[str, str] | None = None,
    ) -> Job:
        about = {"BEADTOWN_BEAD": self.molecule.id, ATTEMPT: "0", HANDED: " ".join(allow), **(extra or {})}
        return start(
            launched.argv,
            cwd=self.worktree.path,
            environ=self.site.surroundings(allow, **about, **launched.environ),
            log=self._log(label),
            timeout=timeout,
            marker=self.site.marker(self.worker),
            clock=self.site.clock,
            stdin=launched.stdin,
            within=self.site.sandbox.around(reach, self.worktree.path),
            secrets=self.site.secrets,
        )

    def _fresh(self) -> list[str]:
        """A sandbox for a criterion: the work tree, and nothing of what the worker had besides."""
        reach = Reach((self.worktree.path,), network=self.site.settings.sandbox.network)
        return self.site.sandbox.around(reach, self.worktree.path)

    def _reach(self, order: Order) -> Reach:
        """What an agent may touch: the work tree, what is its own, and what it signs in with."""
        agent = order.agent
        write = (self.worktree.path, order.home, order.scratch)
        return Reach(write, _paths(agent, self.site.sandbox.host.home), self._credentials(agent), network_for(agent))

    def _credentials(self, agent: Agent) -> tuple[Path, ...]:
        """The files that an agent's program signs in with."""
        return tuple(self.site.sandbox.host.home / name for name in runtime_of(agent).credentials)

    def _log(self, label: str, kind: str = "log") -> Path:
        return self.site.logs(self.molecule.id) / f"{label}.{kind}"


def _paths(agent: Agent, home: Path) -> tuple[Path, ...]:
    """The files that an agent's settings name, such as a script: whoever names them means them to be read."""
    named = tuple(Path(part) for part in (*agent.command, *agent.arguments) if part.startswith("/"))
    return (*(installation(path, home) for path in named[:1]), *named)


def _cost(agent: Agent, found: review.Heard) -> float | None:
    """What a review by an agent has cost, as far as that is known."""
    used = found.used
    if used is None or used.cost is not None or used.usage is None:
        return used.cost if used else None
    return price(found.model or agent.model, used.usage, agent.prices)
