"""The Refinery: one idempotent tick that brings the merge queue forward. Never blocks; gates run beside it.

Each tick reads the store and main, decides with ``train.py``, and acts: intent before effect, compare-and-swap for
the effect. Killed anywhere, the next tick finds out from main itself what has landed (I5).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from beads import graph
from beads.clock import Clock
from beads.errors import InvalidInput, NotFound, Refused, TownError
from beads.model import Bead, Evidence, milliseconds
from beads.ops import Close, Intend, Judge, Land, SendBack
from beads.proof import approvals
from beads.store import Snapshot, Store
from refinery import queue, slots
from refinery.changes import named, unapproved
from refinery.checkouts import Checkout, checkouts, follow, obstacle
from refinery.containment import Sandbox
from refinery.gate import Gate, environment_digest, gate_of
from refinery.gaterun import GateRun
from refinery.git import Git, Identity
from refinery.landed import landed
from refinery.landing import Trunk
from refinery.merge import MAKING, Candidate, Conflict, Request, Stack, land, publish, stack
from refinery.overlap import other_side
from refinery.prefixes import Prefix, prefix
from refinery.processes import THIS_MACHINE, Machine
from refinery.regenerate import Regenerator, Room
from refinery.sandbox import environment, secrets
from refinery.signing import Signer
from refinery.styles import Merging, merging_of
from refinery.train import HEAD_ERRS, Line, Plan, failure_rate, plan
from refinery.workshop import Workshop

REFINERY = "refinery"
_WHO = Identity("beadtown refinery", "refinery@beadtown.invalid")

GATE_LOGS = "gate"
"""The directory, among those of molecules, that has the logs of gates."""

_SEEK_SECONDS = 60.0
"""How long a head that is not here is not looked for again."""


@dataclass
class _Run:
    """A gate run going on in a slot: ``what`` it tests in words, and the merge request its verdict is stored on."""

    slot: int
    request: str
    what: str
    run: GateRun


@dataclass
class Refinery:
    """The merge queue of one branch in one clone.

    Attributes:
        store: where requests and verdicts are.
        git: Git in the repository.
        workshop: for the clean work trees gates run in.
        branch: the branch it owns, such as ``main``.
        environ: the user's environment; gates see what is allow-listed.
        sandbox: what contains the gates.
        clock: what time it is.
        marker: marks every process it starts, so that they can be found after its death.
        obtain: brings the work on a molecule here that was done in another clone, if it can be had.
        machine: where gates run.
        halted: why nothing can land without a person; empty when something can, or nothing is queued.
        remedy: what that person can do.
    """

    store: Store
    git: Git
    workshop: Workshop
    branch: str
    environ: Mapping[str, str]
    sandbox: Sandbox
    clock: Clock
    marker: str
    obtain: Callable[[str], None]
    machine: Machine = THIS_MACHINE
    halted: str = ""
    remedy: str = ""
    _runs: list[_Run] = field(default_factory=list)
    _stacks: dict[tuple[str, int, tuple[Request, ...]], Stack] = field(default_factory=dict)
    _shown: Stack | None = None
    _begun: tuple[str, ...] = ()
    _rules: tuple[str, Gate, Merging] | None = None
    _top: str = ""
    _here: set[str] = field(default_factory=set)
    _pending: set[tuple[str | None, Request]] = field(default_factory=set)
    _aside: set[str] = field(default_factory=set)
    _sought: dict[str, float] = field(default_factory=dict)
    _harmless: set[tuple[str, tuple[str, ...]]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._signer = Signer(self.git, self.clock)
        self._regenerator = Regenerator(self.git)
        self._started = milliseconds(self.clock.now())
        self._trunk = Trunk(self.git, self.branch, self.machine, self.clock, self.marker, self._logs)

    @property
    def busy(self) -> bool:
        """Whether a gate is running, or an exchange with the remote that has main."""
        return bool(self._runs) or self._trunk.busy or self._regenerator.busy

    @property
    def judged(self) -> bool:
        """Whether a gate that was running has a verdict, or an exchange an end, which the next tick will see."""
        ended = self._trunk.ended or self._regenerator.ended
        return ended or any(running.run.poll() is not None for running in self._runs)

    @property
    def ref(self) -> str:
        """The ref of the branch it owns."""
        return f"refs/heads/{self.branch}"

    def tick(self) -> list[str]:
        """Bring everything forward that can be; returns a line for each thing that happened."""
        judged, settled = self._collect(), self._settle()
        if self.halted or settled:
            self._tell_of_standstill()
        return judged + settled

    def _settle(self) -> list[str]:
        """Decide and act on what is known."""
        self.halted = self.remedy = ""
        try:
            lines = self._trunk.tick(wanted=bool(graph.queue(self.store.snapshot())))
        except InvalidInput as error:
            self._halt(error.message, error.hint)
            return []
        self.halted, self.remedy = self._trunk.trouble
        if not self._trunk.certain:
            return lines
        head = self.git.resolve(self.ref)
        lines += self._recover(self.store.snapshot(), head)
        lines += self._withdraw(self.store.snapshot())
        snapshot = self.store.snapshot()
        requests = queue.requests(snapshot, self._begun)
        if not requests:
            self._drop(self._runs[:])
        if not requests or not self._trunk.ready:
            return lines
        try:
            if head is None:
                raise NotFound(f"the branch {self.branch} is gone")
            gate = self._rules_of(head)
            self.sandbox.need()
        except (NotFound, InvalidInput, Refused) as error:
            self._halt(error.message, error.hint or f"Mend that on {self.branch}; landing goes on by itself.")
            return lines
        here = [request for request in requests if self._has(request)]
        here = [request for request in here if request.id not in self._aside] or here
        if not here:
            self._halt(f"the head of {requests[0].id}, {requests[0].head[:12]}, is not in this repository", "Fetch it.")
            return lines
        unapproved = self._unapproved(snapshot, head, gate, here)
        return lines + (unapproved or self._advance(snapshot, head, gate, here))

    def _has(self, request: Request) -> bool:
        """Whether a request's head is in this repository, if need be after a look where it may have been worked on."""
        if request.head in self._here:
            return True
        if self.git.has(request.head):
            self._here.add(request.head)
            return True
        now = self.clock.monotonic()
        if now < self._sought.get(request.head, 0.0):
            return False
        self._sought[request.head] = now + _SEEK_SECONDS
        self.obtain(request.molecule)
        return self.git.has(request.head)

    def _rules_of(self, head: str) -> Gate:
        """The gate that main's ``town.toml`` defines; how it wants things merged is kept."""
        if self._rules is None or self._rules[0] != head:
            self._rules = None
            self._rules = head, gate_of(self.git, head), merging_of(self.git, head)
            self._regenerator.rules = self._rules[2].generated
        return self._rules[1]

    def cancel(self) -> None:
        """Kill running gates, whose verdicts are simply not known, and an exchange with the remote."""
        self._drop(self._runs[:])
        self._trunk.cancel()
        self._regenerator.cancel()

    def close(self) -> None:
        """Stop, and remove what is only of use while running: candidates' refs, and the work trees gates ran in."""
        self.cancel()
        publish(self.git, ())
        slots.clear(self.workshop)
        self.workshop.prune()

    def _halt(self, reason: str, remedy: str) -> None:
        self.halted, self.remedy = reason, remedy

    def _tell_of_standstill(self) -> None:
        """Store that nothing can land, or that something could again, where that is news: for people on any clone."""
        snapshot = self.store.snapshot()
        known, waiting = queue.standstill(snapshot), graph.queue(snapshot)
        if not waiting or (known[1].detail if known else "") == self.halted:
            return
        about = known[0] if known and not self.halted else waiting[0]
        now = milliseconds(self.clock.now())
        found = queue.stand(about, self.halted, self.remedy, REFINERY, now)
        reason = f"nothing can land: {self.halted}" if self.halted else f"the queue moves again: {about.id}"
        self.store.commit(REFINERY, [Judge(id=about.id, evidence=found)], reason)

    def _collect(self) -> list[str]:
        """Store the verdicts of runs that ended."""
        lines = []
        for running in list(self._runs):
            evidence = running.run.poll()
            if evidence is None:
                continue
            self._runs.remove(running)
            subject = f"gate {evidence.verdict} on {running.what}: tree {evidence.tree[:12]}"
            self.store.commit(REFINERY, [Judge(id=running.request, evidence=evidence)], subject)
            took = f"{evidence.detail}, {evidence.seconds:.1f} s"
            lines.append(f"gate {evidence.verdict} ({took}) on {running.what}")
        return lines

    def _recover(self, snapshot: Snapshot, head: str | None) -> list[str]:
        """Close what main already contains: landed before a kill, or by somebody else."""
        waiting = [request for request in queue.requests(snapshot) if (head, request) not in self._pending]
        if not waiting or head is None:
            return []
        asked = {request.id for request in waiting}
        bases = {bead.merge.base for bead in graph.queue(snapshot) if bead.merge and bead.id in asked}
        # What was looked for on main as it is, and was not there, is not there.
        self._pending = {(head, request) for request in queue.requests(snapshot)}
        if bases == {head}:
            return []
        # Nothing when a base shares no history with main; then all of main is looked through.
        since = self.git.run("merge-base", "--octopus", self.ref, *bases, ok=(0, 1)).out.strip()
        by_commit: dict[str, list[str]] = {}
        for request, commit in landed(self.git, self.branch, waiting, since).items():
            by_commit.setdefault(commit, []).append(request)
        return [self._landed(ids, commit, checkouts(self.git, self.branch)) for commit, ids in by_commit.items()]

    def _withdraw(self, snapshot: Snapshot) -> list[str]:
        """Close the requests of molecules that a person has closed meanwhile."""
        owners = {r.id: snapshot.get(r.merge.molecule) for r in graph.queue(snapshot) if r.merge}
        gone = [request for request, owner in owners.items() if owner is None or owner.closed]
        reason = "its molecule was closed"
        self.store.commit(REFINERY, [Close(id=i, outcome="cancelled", reason=reason) for i in gone])
        return [f"withdrew {request}: {reason}" for request in gone]

    def _landed(self, ids: list[str], commit: str, there: Sequence[Checkout]) -> str:
        """Bring checkouts along, then record that these landed as ``commit``."""
        # A main that follows a remote's has brought them along already.
        there = [] if self._trunk.remote else there
        old = self.git.line("rev-parse", f"{commit}^1") if there else ""
        behind = [c for c in there if not follow(self.git, c, old, commit)]
        self.store.commit(REFINERY, [Land(ids=tuple(ids), commit=commit)])
        stays = f"; {behind[0].path} stays as it is" if behind else ""
        return f"landed {', '.join(ids)} as {commit[:12]}{stays}"

    def _advance(self, snapshot: Snapshot, head: str, gate: Gate, requests: list[Request]) -> list[str]:
        environ = environment(self.environ, gate.environment, {})
        hidden = secrets(self.environ, gate.environment)
        where = self.workshop, self.sandbox, self.machine, environ, hidden, self._logs, self.marker, self.clock
        self._regenerator.look(self.workshop)
        stacked = self._stack(snapshot, head, requests)
        self._regenerator.start(Room(*where))
        if stacked is not self._shown:
            publish(self.git, stacked.candidates, self._shown.candidates if self._shown else None)
            self._shown = stacked
        settled = [self._send_conflict(snapshot, head, conflict, gate) for conflict in stacked.conflicts]
        settled += [self._close_contained(request) for request in stacked.contained]
        if settled:
            return settled
        main = Prefix(head, stacked.tree, (), what=self.branch)
        keys = gate.digest(), environment_digest(environ, self.sandbox.kind)
        said = queue.said(main.tree, snapshot.submitted(), *keys, self._started)
        stacks: dict[tuple[int, ...], Stack] = {}

        def line(without: tuple[int, ...], left: Sequence[Request]) -> Line:
            stacks[without] = self._stack(snapshot, head, left)
            candidates = stacks[without].candidates
            return queue.line(said, main.tree, candidates, self._testing, lambda k: less(without, left, k))

        def less(without: tuple[int, ...], left: Sequence[Request], k: int) -> Line:
            gone = stacks[without].candidates[k - 1].members[-1]
            return line((*without, k), [request for request in left if request != gone])

        whole = line((), requests)
        decided = plan(whole, gate.slots, failure_rate(queue.outcomes(snapshot.submitted())))
        tests = [prefix(main, stacks[without].candidates, k, decided.trial) for without, k in decided.tests()]
        self._stacks = {key: made for key, made in self._stacks.items() if made in stacks.values()}
        tested = [test.members for test in tests]
        tested += [candidate.members for candidate in stacked.candidates[: max(whole.runs, default=0)]]
        making = [waiting.request for waiting in stacked.waiting if waiting.messages == MAKING]
        self._begun = queue.begun([request for request in requests if request not in making], tested)
        return self._act(snapshot, decided, stacked.candidates, tests, gate, environ)

    def _stack(self, snapshot: Snapshot, head: str, requests: Sequence[Request]) -> Stack:
        """The candidates on ``head``; the same ones as long as neither main nor these requests change."""
        key = head, self._regenerator.known, tuple(requests)
        if key not in self._stacks:
            newest = max(bead.created_at for bead in graph.queue(snapshot))
            style = self._rules[2].style if self._rules else "merge"
            before = self._shown if self._top == head else None
            more = self._regenerator if self._regenerator.rules else None
            self._stacks[key] = stack(self.git, head, requests, _WHO, newest, style, before, more)
        return self._stacks[key]

    def _send_conflict(self, snapshot: Snapshot, head: str, conflict: Conflict, gate: Gate) -> str:
        where = f" in {', '.join(conflict.paths)}" if conflict.paths else ""
        reason = f"it conflicts with {self.branch}{where}"
        said = other_side(snapshot, self.git, head, conflict)
        return self._send_back(snapshot, conflict.request, reason, gate, conflict.paths, said)

    def _unapproved(self, snapshot: Snapshot, head: str, gate: Gate, requests: Sequence[Request]) -> list[str]:
        """Send back what changes protected paths without a person's approval of just that."""
        lines = []
        for request in requests:
            molecule = snapshot.get(request.molecule)
            key = request.head, gate.protected
            if key in self._harmless or molecule is None:
                continue
            # One that shares no history with main is not ours to judge here: it does not merge.
            base = self.git.run("merge-base", head, request.head, ok=(0, 1)).out.strip() or head
            approved = approvals(graph.steps(snapshot, molecule))
            paths = unapproved(self.git, base, request.head, gate.protected, approved)
            if paths:
                reason = f"it changes {named(paths)}, which is protected, and nobody has approved of that"
                asking = f"the changes to {', '.join(paths)}"
                lines.append(self._send_back(snapshot, request, reason, gate, (), "", asking))
            else:
                self._harmless.add(key)
        return lines

    def _close_contained(self, request: Request) -> str:
        """Somebody else brought the same change to main: there is nothing to land, and nothing left to do."""
        reason = f"{self.branch} has all of it already"
        done = Close(id=request.id, outcome="superseded", reason=reason)
        closed = Close(id=request.molecule, outcome="done", reason=reason, force=True)
        self.store.commit(REFINERY, [done, closed])
        return f"closed {request.molecule}: {reason}"

    def _act(
        self,
        snapshot: Snapshot,
        decided: Plan,
        candidates: Sequence[Candidate],
        tests: Sequence[Prefix],
        gate: Gate,
        environ: Mapping[str, str],
    ) -> list[str]:
        if decided.halt == HEAD_ERRS and len(candidates) > 1 and candidates[0].members[0].id not in self._aside:
            return self._set_aside(snapshot.need(candidates[0].members[0].id))
        if decided.halt:
            self._halt(decided.halt, "`town queue` shows the log; mend it and run `town up` again.")
        if decided.land:
            return self._land(candidates[decided.land - 1])
        if decided.convict:
            return [self._convict(snapshot, candidates[0], gate)]
        wanted = {test.tree for test in tests}
        self._drop([r for r in self._runs if r.run.tree not in wanted])
        for test in tests:
            if test.tree not in self._testing:
                self._start(test, gate, environ)
        return []

    def _set_aside(self, request: Bead) -> list[str]:
        """Let the others go on; it is tried again when they have landed, and then a person is asked."""
        self._aside.add(request.id)
        found = queue.put_aside(request, self.branch, REFINERY, milliseconds(self.clock.now()))
        reason = f"set {request.id} aside: the gate can judge {self.branch}, but not with it"
        self.store.commit(REFINERY, [Judge(id=request.id, evidence=found)], reason)
        return [reason]

    @property
    def _testing(self) -> set[str]:
        """The trees being tested. A run goes on when its tree is wanted under another commit: verdicts are of trees."""
        return {running.run.tree for running in self._runs}

    def _drop(self, stale: list[_Run]) -> None:
        for running in stale:
            running.run.cancel()
            self._runs.remove(running)

    def _start(self, test: Prefix, gate: Gate, environ: Mapping[str, str]) -> None:
        """Check the commit out in a free slot and start the gate there."""
        slot = min(set(range(gate.slots)) - {running.slot for running in self._runs})
        where = self.workshop, self.sandbox, self.machine
        try:
            places, logs = slots.prepare(*where, slot, gate.places, test.commit, gate.keep, self.marker), self._logs
        except (TownError, OSError) as error:
            # What others find out in their places may bring the queue forward; and this is tried again at each tick.
            if not self._runs:
                self._halt("the gate has no place to run in", f"{error}. Mend that; landing goes on by itself.")
            return
        run = GateRun(
            gate=gate,
            commit=test.commit,
            tree=test.tree,
            places=places,
            environ=environ,
            sandbox=self.sandbox,
            log=logs / f"{test.commit[:16]}-{self.clock.monotonic():.3f}",
            marker=self.marker,
            clock=self.clock,
            by=REFINERY,
            secrets=secrets(self.environ, gate.environment),
            machine=self.machine,
        )
        self._runs.append(_Run(slot, test.request, test.what, run))
        run.poll()

    @property
    def _logs(self) -> Path:
        directory = self.store.directory / "logs" / GATE_LOGS
        directory.mkdir(parents=True, exist_ok=True)
        return directory

    def _land(self, candidate: Candidate) -> list[str]:
        """Intent, then main by compare-and-swap, then the record; on a remote, the record comes with the next look."""
        if not self._trunk.may_land:
            return []
        there = checkouts(self.git, self.branch)
        for checkout in there:
            reason = obstacle(self.git, checkout, candidate.base, candidate.commit)
            if reason:
                what = f"{self.branch} is checked out in {checkout.path} and cannot follow: {reason}"
                self._halt(what, f"Commit, stash or remove that in {checkout.path}; landing goes on by itself.")
                return []
        try:
            candidate = self._signer.sign(candidate)
        except Refused as error:
            self._halt(error.message, error.hint)
            return []
        ids = [member.id for member in candidate.members]
        self.store.commit(REFINERY, [Intend(ids=tuple(ids), commit=candidate.commit)])
        self._top = candidate.commit
        if self._trunk.remote:
            self._trunk.push(candidate)
            return []
        if not land(self.git, self.branch, candidate):
            return [f"{self.branch} moved while {', '.join(ids)} was about to land; trying again on the new one"]
        return [self._landed(ids, candidate.commit, there)]

    def _convict(self, snapshot: Snapshot, candidate: Candidate, gate: Gate) -> str:
        red = queue.last_red(snapshot, candidate, gate.digest())
        reason = f"the gate is red with main: {_short(red)}"
        return self._send_back(snapshot, candidate.members[-1], reason, gate, (), red.output if red else "")

    def _send_back(
        self,
        snapshot: Snapshot,
        request: Request,
        reason: str,
        gate: Gate,
        paths: tuple[str, ...],
        log: str,
        approval: str = "",
    ) -> str:
        now = milliseconds(self.clock.now())
        step = queue.rework(snapshot, request, reason, gate, paths, log, now, approval)
        self.store.commit(REFINERY, [SendBack(id=request.id, reason=reason, step=step)])
        return f"sent {request.molecule} back: {reason}"


def _short(evidence: Evidence | None) -> str:
    return f"{evidence.subject}: {evidence.detail}" if evidence else "see the log"
