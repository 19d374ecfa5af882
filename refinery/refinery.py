"""The Refinery: one idempotent tick that brings the merge queue forward. Never blocks; gates run beside it.

Each tick reads the store and main, decides with ``train.py``, and acts: intent before effect, compare-and-swap for
the effect. Killed anywhere, the next tick finds out from main itself what has landed (I5).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from beads import graph, lineup
from beads.clock import Clock
from beads.errors import InvalidInput, LostRace, NotFound, Refused, TownError
from beads.model import Evidence, milliseconds
from beads.ops import Close, Intend, Judge, Land, SendBack
from beads.proof import approvals
from beads.store import Snapshot, Store
from refinery import aside, queue
from refinery.building import Builder, settled
from refinery.changes import named, unapproved
from refinery.checkouts import Checkout, checkouts, follow, obstacle
from refinery.containment import Sandbox
from refinery.desk import Desk
from refinery.gate import Gate, environment_digest
from refinery.gaterun import GateRun
from refinery.git import Git, Identity
from refinery.landed import Lookout
from refinery.landing import Trunk
from refinery.merge import Candidate, Conflict, Request, Stack, land, publish
from refinery.overlap import other_side
from refinery.prefixes import Prefix, prefix
from refinery.processes import THIS_MACHINE, Machine
from refinery.proposals import Proposals
from refinery.regenerate import Room
from refinery.sandbox import environment, secrets
from refinery.slots import Slots, clear
from refinery.train import HEAD_ERRS, Line, Plan, failure_rate, plan
from refinery.underway import Run, Telling
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
    told: Run


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
    _begun: tuple[str, ...] = ()
    _here: set[str] = field(default_factory=set)
    _sought: dict[str, float] = field(default_factory=dict)
    _compared: tuple[str, tuple[Request, ...]] = ("", ())
    _harmless: set[tuple[str, tuple[str, ...]]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._lookout = Lookout(self.git, self.branch)
        self._builder = Builder(self.git, _WHO, self.clock)
        self._started = milliseconds(self.clock.now())
        self._telling = Telling(self.store.directory, self.marker.rpartition("/")[2])
        how = self.machine, self.clock, self.marker, self._logs, self.environ
        self._trunk = Trunk(self.git, self.branch, *how)
        self._desk = Desk(self.git, *how)
        self._proposals = Proposals(self.store, self.git, self.ref, self.clock, REFINERY, self._desk)

    @property
    def busy(self) -> bool:
        """Whether a gate is running, or an exchange with the remote that has main or with the forge."""
        return bool(self._runs) or any(other.busy for other in (self._trunk, self._desk, self._builder.made))

    @property
    def judged(self) -> bool:
        """Whether a gate that was running has a verdict, or an exchange an end, which the next tick will see."""
        ended = any(other.ended for other in (self._trunk, self._desk, self._builder.made))
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
        waiting = self._builder.shown.waiting if self._builder.shown else ()
        self._telling.tell((running.told for running in self._runs), waiting)
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
        # As long as it is not known what has landed, nothing is withdrawn.
        if not self._trunk.ready:
            return lines
        head = self.git.resolve(self.ref)
        lines += self._recover(self.store.snapshot(), head)
        lines += self._withdraw(self.store.snapshot())
        snapshot = self.store.snapshot()
        requests = queue.requests(snapshot, self._begun)
        if self._trunk.table.mode == "request":
            return lines + self._propose(requests)
        return lines + self._bring(snapshot, requests)

    def _propose(self, requests: list[Request]) -> list[str]:
        """Bring those forward that the forge has not got yet, and have it see to the others."""
        lines = self._proposals.take(requests)
        snapshot = self.store.snapshot()
        requests = [request for request in requests if not snapshot.need(request.id).closed]
        opened = self._proposals.opened(snapshot, requests)
        lines += self._part(snapshot, opened)
        lines += self._bring(snapshot, [request for request in requests if request not in opened])
        lines += self._proposals.tick(self._trunk.table, self._trunk.base, queue.requests(self.store.snapshot()))
        lines += self._proposals.take(queue.requests(self.store.snapshot()))
        standing = self._proposals.standing(snapshot, requests)
        if self._desk.trouble.reason:
            self._halt(*self._desk.trouble)
        elif standing is not None and not lines and not self.busy and not self.halted:
            self._halt(*standing)
        return lines

    def _part(self, snapshot: Snapshot, opened: list[Request]) -> list[str]:
        """Send back what was opened on the forge and no longer merges with main."""
        head = self.git.resolve(self.ref) or ""
        key = head, tuple(opened)
        if key == self._compared or not opened or not head:
            return []
        try:
            gate = self._builder.gate(head)
        except (NotFound, InvalidInput):
            # Whoever wants to land is told of that.
            return []
        self._compared = key
        conflicts = self._stack(snapshot, head, opened).conflicts
        return [self._send_conflict(snapshot, head, conflict, gate) for conflict in conflicts]

    def _bring(self, snapshot: Snapshot, requests: list[Request]) -> list[str]:
        """Decide and act on the requests that are to land."""
        lines: list[str] = []
        head = self.git.resolve(self.ref)
        if not requests:
            self._drop(self._runs[:])
            return lines
        try:
            if head is None:
                raise NotFound(f"the branch {self.branch} is gone")
            gate = self._builder.gate(head)
            self.sandbox.need()
        except (NotFound, InvalidInput, Refused) as error:
            self._halt(error.message, error.hint)
            return lines
        here = [request for request in requests if self._has(request)]
        later = aside.those(self.store, REFINERY, snapshot, self._started)
        here = [request for request in here if request.id not in later] or here
        if not here:
            self._halt(f"the head of {requests[0].id}, {requests[0].head[:12]}, is not in this repository", "Fetch it.")
            return lines
        unapproved = self._unapproved(snapshot, head, gate, here)
        return lines + (unapproved or self._advance(snapshot, head, gate, here))

    def _has(self, request: Request) -> bool:
        """Whether a request's head is in this repository, if need be after a look where it may have been worked on."""
        if request.head in self._here or self.git.has(request.head):
            self._here.add(request.head)
            return True
        now = self.clock.monotonic()
        if now < self._sought.get(request.head, 0.0):
            return False
        self._sought[request.head] = now + _SEEK_SECONDS
        self.obtain(request.molecule)
        return self.git.has(request.head)

    def cancel(self) -> None:
        """Kill running gates, whose verdicts are simply not known, and an exchange with the remote."""
        self._drop(self._runs[:])
        self._trunk.cancel()
        self._desk.cancel()
        self._builder.made.cancel()

    def close(self) -> None:
        """Stop, and remove what is only of use while running: candidates' refs, and the work trees gates ran in."""
        self.cancel()
        self._telling.tell((), ())
        publish(self.git, ())
        clear(self.workshop)
        self.workshop.prune()

    def _halt(self, reason: str, remedy: str) -> None:
        self.halted, self.remedy = reason, remedy or f"Mend that on {self.branch}; landing goes on by itself."

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
        if head is None:
            return []
        bases = {bead.id: bead.merge.base for bead in graph.queue(snapshot) if bead.merge}
        found = self._lookout.found(head, queue.requests(snapshot), bases)
        return [self._landed(ids, commit, checkouts(self.git, self.branch)) for commit, ids in found.items()]

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
        self._builder.made.look(self.workshop)
        stacked = self._stack(snapshot, head, requests)
        self._builder.made.start(Room(*where, self.ref))
        self._builder.show(stacked)
        ended = [self._send_conflict(snapshot, head, conflict, gate) for conflict in stacked.conflicts]
        ended += [self._close_contained(request) for request in stacked.contained]
        if ended:
            return ended
        main = Prefix(head, stacked.tree, (), what=self.branch)
        keys = gate.digest(), environment_digest(environ, self.sandbox.kind)
        recent = queue.recent(snapshot)
        said = queue.said(main.tree, recent, *keys, self._started)
        stacks: dict[tuple[int, ...], Stack] = {}

        def line(without: tuple[int, ...], left: Sequence[Request]) -> Line:
            stacks[without] = self._stack(snapshot, head, left)
            candidates = stacks[without].candidates
            return queue.line(said, main.tree, candidates, self._testing, lambda k: less(without, left, k))

        def less(without: tuple[int, ...], left: Sequence[Request], k: int) -> Line:
            gone = stacks[without].candidates[k - 1].members[-1]
            return line((*without, k), [request for request in left if request != gone])

        whole = line((), requests)
        decided = plan(whole, gate.slots, failure_rate(queue.outcomes(recent)))
        tests = [prefix(main, stacks[without].candidates, k, decided.trial) for without, k in decided.tests()]
        self._builder.keep(stacks.values())
        tested = [test.members for test in tests]
        tested += [candidate.members for candidate in stacked.candidates[: max(whole.runs, default=0)]]
        self._begun = queue.begun(settled(stacked, requests), tested)
        return self._act(snapshot, decided, stacked.candidates, tests, gate, environ)

    def _stack(self, snapshot: Snapshot, head: str, requests: Sequence[Request]) -> Stack:
        """The candidates on ``head``; the same ones as long as neither main nor these requests change."""
        newest = max(bead.created_at for bead in graph.queue(snapshot))
        return self._builder.stack(head, requests, newest)

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
        if decided.halt == HEAD_ERRS and len(candidates) > 1:
            head = snapshot.need(candidates[0].members[0].id)
            if lineup.aside(head) is None:
                return [aside.put(self.store, REFINERY, head, self.branch)]
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
        rooms = Slots(self.workshop, self.sandbox, self.machine, self.marker)
        try:
            places, refused = rooms.prepare(slot, gate.places, test.commit, gate.keep, self.ref)
            (logs := self._logs).mkdir(parents=True, exist_ok=True)
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
            refused=refused,
        )
        members = tuple(member.id for member in test.members)
        told = Run(what=test.what, members=members, since=milliseconds(self.clock.now()))
        self._runs.append(_Run(slot, test.request, test.what, run, told))
        run.poll()

    @property
    def _logs(self) -> Path:
        return self.store.directory / "logs" / GATE_LOGS

    def _land(self, candidate: Candidate) -> list[str]:
        """Intent, then main by compare-and-swap, then the record; on a remote, the record comes with the next look."""
        if not self._trunk.may_land:
            return []
        if self._trunk.table.mode == "request":
            self._proposals.asking = candidate.members
            return []
        there = checkouts(self.git, self.branch)
        for checkout in there:
            reason = obstacle(self.git, checkout, candidate.base, candidate.commit)
            if reason:
                what = f"{self.branch} is checked out in {checkout.path} and cannot follow: {reason}"
                self._halt(what, f"Commit, stash or remove that in {checkout.path}; landing goes on by itself.")
                return []
        try:
            candidate = self._builder.sign(candidate)
        except Refused as error:
            self._halt(error.message, error.hint)
            return []
        ids = [member.id for member in candidate.members]
        try:
            self.store.commit(REFINERY, [Intend(ids=tuple(ids), commit=candidate.commit)])
        except LostRace as error:
            # A person has closed one meanwhile, or another Refinery of this clone has landed it.
            return [f"not landing {', '.join(ids)}: {error.message}"]
        self._builder.top = candidate.commit
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
