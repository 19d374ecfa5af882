"""A polecat: claims one molecule, works it through in a work tree of its own, submits it, and is gone.

Killed at any instruction, its successor goes on from what Git says: the branch has what was proven, the work
tree or a salvage ref has what was not, and every step begins with a look whether its criteria hold already (I6).
"""

from __future__ import annotations

import contextlib
import random
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

from beads import graph, sync
from beads.errors import Fenced, LostRace, Refused, Unreadable
from beads.liveness import Presence
from beads.model import AttemptEnd, Bead, Evidence, milliseconds
from beads.ops import (
    LEASE_SECONDS,
    Begin,
    Claim,
    Close,
    Finish,
    Release,
    Renew,
    Reopen,
    Report,
    Spend,
    Submit,
)
from beads.spending import books
from refinery.git import ABSENT, Identity
from refinery.processes import Exit
from refinery.queue import REWORK
from refinery.workshop import Worktree
from roles import routing
from roles.drive import Running
from roles.effort import PARKED_SECONDS, PARKED_SECONDS_MAX, Effort, Halt, why
from roles.events import Event
from roles.hold import Hold
from roles.readiness import Unready
from roles.routing import Go
from roles.site import REQUESTS, TOWN, Site, Stopped, branch_of, wait
from roles.station import Station, nobody

_OID = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
End = Literal["submitted", "done", "unmet", "asked", "parked", "stopped", "died", "fenced", "idle"]

UNREADY_SECONDS = 5.0
"""How long it is put off when its work tree cannot be made ready; twice as long each time."""


@dataclass(frozen=True)
class Result:
    """How a polecat's life went: the molecule it had, and in one word and one line what became of it."""

    bead: str
    end: End
    reason: str


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
    _presence: Presence = field(init=False)
    _hold: Hold = field(init=False)
    _station: Station = field(init=False)
    _renew_at: float = 0.0

    def run(self, bead_id: str | None = None) -> Result:
        """Claim that molecule, or the best ready one, and work until it is submitted or cannot go on.

        Raises:
            LostRace: somebody else holds it.
            Refused: it cannot be claimed now.
        """
        with Presence(self.site.workers, self.name) as self._presence:
            self._presence.beat(self.site.clock.monotonic())
            taken = self._claim(bead_id) if bead_id else self._take()
            if taken is None or isinstance(taken, Result):
                return taken or Result("", "idle", "nothing is ready")
            self._hold = Hold(self.site.store, self._actor, taken, self.name)
            try:
                result = self._live()
            except Fenced as error:
                # A successor may be in the work tree already: nothing there is ours to touch any more.
                return Result(taken.id, "fenced", error.message)
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

    def _wanted(self, bead_id: str | None) -> Claim:
        return Claim(id=bead_id, worker=self.name, site=self.site.name, workable=bead_id is None)

    def _claim(self, bead_id: str | None) -> Bead | None:
        """Claim; where the store is shared, it counts only because the remote has accepted it."""
        claim = self._wanted(bead_id)
        if self.site.remote is None:
            return self.site.store.commit(self._actor, [claim]).beads[-1]
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

    def _live(self) -> Result:
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
        self._hold.check()
        if worktree:
            # Before the molecule is anybody else's: two must never be at work in one directory.
            saved = self.site.salvage(worktree, molecule, molecule.epoch, reason)
            worktree.remove(saved, shelve=end != "died" and bool(self.site.workshop.keep))
        ended: AttemptEnd = "died" if end == "died" else "stopped"
        self._hold.write(Release, molecule, end=ended, reason=reason, until=until)
        return Result(molecule.id, end, reason)

    @property
    def _molecule(self) -> Bead:
        """What is worked on, as it was when it was claimed."""
        return self._hold.molecule

    def _enter(self) -> Worktree:
        """The molecule's work tree: as a predecessor left it, or new from main with what was salvaged."""
        site, branch = self.site, branch_of(self._molecule)
        there = site.workshop.find(branch)
        cramped = site.shortage() if there is None else ""
        if cramped:
            raise Unready("[worktree] disk", cramped)
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
        if step is None:
            # Nothing is left but to submit it, for which there is no room.
            until = milliseconds(self.site.clock.now() + timedelta(seconds=PARKED_SECONDS))
            return self._leave(worktree, "parked", str(error), until)
        settings, now = self.site.settings, self.site.clock.now()
        names = routing.chain(settings, step.agent or self._molecule.agent, step)
        pause = min(UNREADY_SECONDS * 2 ** len(graph.unready(step)), PARKED_SECONDS_MAX)
        until = milliseconds(now + timedelta(seconds=pause))
        found = error.evidence(worktree.tree() if worktree else "", self.name, now)
        name = names[routing.whose_turn(settings, names, step)]
        self._hold.write(Begin, step, runtime=name, cost=0.0)
        self._hold.write(Spend, step, report=Report(ending="environment", until=until))
        step = self._hold.write(Finish, step, end="parked", reason=str(error), evidence=(found,))
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
                self._hold.write(Reopen, step)
            elif not self.site.git.is_ancestor(commit, worktree.head()):
                self._bring(commit, "what was proven", step, worktree)

    def _step(self, step: Bead, worktree: Worktree) -> Halt | None:
        """Bring a step to where its criteria hold and close it; otherwise why that is not to be had now."""
        if REWORK in step.labels:
            self._bring_main(step, worktree)
        found = Effort(self._station, self._hold).bring(step)
        if isinstance(found, Halt):
            return found
        step = self.site.store.snapshot().need(step.id)
        if found[-1].verdict == "asked":
            self._ask(step, worktree, found)
            return Halt("asked", f"step {step.id} waits for a person's answer")
        self._settle(step, worktree, found)
        return None

    def _ask(self, step: Bead, worktree: Worktree, evidence: tuple[Evidence, ...]) -> None:
        """Commit what a person is asked about, so that it can be looked at, and ask."""
        head = self._save(step, worktree)
        named = tuple(found if found.commit else found.model_copy(update={"commit": head}) for found in evidence)
        self._hold.write(Finish, step, end="asked", reason=why(named), evidence=named)

    def _wait(self, job: Running) -> Exit:
        return wait(job, self.site, self.stopping, self._renew)

    def _renew(self) -> None:
        now = self.site.clock.monotonic()
        self._presence.beat(now)
        self._renew_at = self._renew_at or now + LEASE_SECONDS / 4
        if now >= self._renew_at:
            renewed = self._hold.write(Renew, self._molecule)
            self._renew_at = now + LEASE_SECONDS / 4
            if self.site.remote is not None:
                # Without a sign of life the lease still holds until its end.
                with contextlib.suppress(Unreadable):
                    sync.renew(self.site.store, self.site.remote, renewed)

    def _settle(self, step: Bead, worktree: Worktree, evidence: tuple[Evidence, ...]) -> None:
        """Commit what was proven and close the step with the proof; a plain bead closes when it lands."""
        head = self._save(step, worktree)
        proof = tuple(found.model_copy(update={"commit": head}) for found in evidence)
        if step.id == self._molecule.id:
            self._hold.write(Finish, step, end="satisfied", evidence=proof)
            return
        self._hold.write(Close, step, evidence=proof)

    def _save(self, step: Bead, worktree: Worktree) -> str:
        """Commit what is on disk as the work on a step; the branch's head afterwards."""
        self._hold.check()
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
        self._hold.check()
        molecule, git, head = self._molecule, self.site.git, worktree.head()
        base = self._station.base(head)
        git.swap(f"{REQUESTS}{molecule.id}/{head[:16]}", head, ABSENT, "submitted")
        self.site.offer(molecule, head)
        # All of it is committed, and once the request is in, the Witness may sweep.
        worktree.remove(shelve=bool(self.site.workshop.keep))
        self._hold.write(Submit, molecule, branch=branch_of(molecule), head=head, base=base)
        return Result(molecule.id, "submitted" if head != base else "done", f"head {head[:12]}")
