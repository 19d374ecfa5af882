"""The Witness: sees who died, what was left over, and puts it right. Plain code; no model is ever asked.

:func:`diagnose` decides, purely; :func:`execute` acts, and each action may be done again at any time.
"""

from __future__ import annotations

import math
import random
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial

from beads import graph, heartbeat, liveness, sync
from beads.errors import LostRace, NotFound, Unreadable
from beads.heartbeat import Renewed
from beads.model import Bead
from beads.ops import Release, Spend
from beads.store import Snapshot
from refinery import removal
from refinery.content import SCRATCH
from refinery.git import ABSENT
from refinery.refinery import GATE_LOGS
from roles import room
from roles.logs import attempt_label, told, trim
from roles.prices import price
from roles.site import BRANCHES, REQUESTS, Site, branch_of

WITNESS = "witness"


@dataclass(frozen=True)
class Reclaim:
    """Take a molecule back from a worker that is dead or whose lease ran out; ``reason`` goes into the history."""

    bead: Bead
    worker: str
    epoch: int
    reason: str


@dataclass(frozen=True)
class Sweep:
    """Remove what a closed molecule left: its work tree, its branch, its pinned heads."""

    bead_id: str


@dataclass(frozen=True)
class Forget:
    """Kill what a dead worker that holds nothing left running, and remove its file."""

    worker: str


Action = Reclaim | Sweep | Forget


@dataclass(frozen=True)
class Signs:
    """What is seen of this clone: which clone it is, who lives, and what lies about.

    Attributes:
        site: the clone's name.
        alive: whether a worker of this clone lives.
        workers: the workers that have a file, dead or alive.
        branches: the ids of the beads that have a polecat branch, a work tree, a pinned head or agents' homes.
        renewed: how much longer workers of other clones have asked for.
        silence: for how many seconds a worker of this clone has not said that it goes on.
        stall: seconds of silence after which a living worker is taken for one that hangs.
    """

    site: str
    alive: Callable[[str], bool]
    workers: tuple[str, ...]
    branches: tuple[str, ...]
    renewed: Renewed = field(default_factory=dict)
    silence: Callable[[str], float] = lambda _: 0.0
    stall: float = math.inf


def diagnose(snapshot: Snapshot, signs: Signs, now: datetime) -> list[Action]:
    """What has to be put right, in the order in which to do it. Pure, apart from asking ``signs.alive``."""
    actions: list[Action] = []
    held: set[str] = set()
    for bead in snapshot.unclosed():
        lease = bead.lease
        if lease is None:
            continue
        here = lease.site == signs.site
        held.update({lease.worker} if here else ())
        if here and not signs.alive(lease.worker):
            actions.append(Reclaim(bead, lease.worker, lease.epoch, f"{lease.worker} died"))
        elif here and (silent := signs.silence(lease.worker)) >= signs.stall:
            actions.append(Reclaim(bead, lease.worker, lease.epoch, f"{lease.worker} did not move for {silent:.0f} s"))
        elif not here and heartbeat.until(bead.id, lease, signs.renewed) < now:
            actions.append(Reclaim(bead, lease.worker, lease.epoch, f"the lease of {lease.worker} ran out"))
    actions += [Forget(w) for w in signs.workers if w not in held and not signs.alive(w)]
    return actions + [Sweep(bead_id) for bead_id in signs.branches if _over(snapshot, bead_id)]


def _over(snapshot: Snapshot, bead_id: str) -> bool:
    """Whether nothing more will happen to a bead that exists; what we do not know is not ours to sweep."""
    bead = snapshot.get(bead_id)
    return bead is not None and bead.closed


def look(site: Site) -> Signs:
    """See what is to be seen of this clone."""
    places = [f"refs/heads/{BRANCHES}", REQUESTS, *([site.remote.work] if site.remote else [])]
    refs = site.git.line("for-each-ref", "--format=%(refname)", *places).splitlines()
    ids = {ref.removeprefix(place).split("/")[0] for ref in refs for place in places if ref.startswith(place)}
    with suppress(FileNotFoundError):
        ids |= {home.name for home in site.homes.iterdir()}
    workers = tuple(liveness.names(site.workers))
    silence = partial(liveness.silence, site.workers, moment=site.clock.monotonic())
    stall = site.settings.town.stall
    return Signs(site.name, site.alive, workers, tuple(sorted(ids)), site.store.renewed(), silence, stall)


def tick(site: Site) -> list[str]:
    """Look, decide and act once; returns a line for each thing that was put right."""
    actions = diagnose(site.store.snapshot(), look(site), site.clock.now())
    lines = [line for line in (execute(site, action) for action in actions) if line]
    if any(isinstance(action, Sweep) for action in actions):
        snapshot = site.store.snapshot()
        trim(site.store.directory / "logs", lambda name: name == GATE_LOGS or _over(snapshot, name))
    return lines


def execute(site: Site, action: Action) -> str:
    """Do one action; a line that says what was done, or nothing when it needed no doing any more."""
    match action:
        case Reclaim():
            return _reclaim(site, action)
        case Sweep():
            return _sweep(site, action.bead_id)
        case Forget():
            _lay_to_rest(site, action.worker)
            return f"cleared away after {action.worker}"


def _reclaim(site: Site, action: Reclaim) -> str:
    """First everything of the dead worker's is dead, then its edits are safe, then the molecule is free (I1, I2)."""
    if not _ran_out(site, action):
        return ""
    site.machine.kill_strays(site.marker(action.worker))
    if action.bead.lease and site.store.lives(action.bead.lease):
        # It hangs, and was started by hand: whoever did that can see it.
        return ""
    bead = site.store.snapshot().need(action.bead.id)
    if bead.lease is None or (bead.lease.worker, bead.epoch) != (action.worker, action.epoch):
        return ""
    site.clear_scratch(bead.id)
    worktree = site.workshop.find(branch_of(bead))
    saved = site.salvage(worktree, bead, action.epoch, action.reason) if worktree else None
    reason = f"{action.reason}; uncommitted work is in {saved[:12]}" if saved else action.reason
    release = Release(id=bead.id, worker=action.worker, epoch=action.epoch, end="died", reason=reason)
    try:
        site.store.commit(WITNESS, [*_spent(site, bead, action), release])
    except LostRace:
        return ""
    _lay_to_rest(site, action.worker)
    return f"took {bead.id} back: {reason}"


def _spent(site: Site, bead: Bead, action: Reclaim) -> Iterator[Spend]:
    """What the attempts of a dead worker came to, as far as their agents had told: that money is gone, too."""
    for step in graph.steps(site.store.snapshot(), bead):
        for attempt in step.attempts:
            if attempt.end is None and attempt.worker == action.worker:
                agent = site.settings.agents.get(attempt.runtime)
                events = site.logs(bead.id) / f"{attempt_label(step, attempt)}.events"
                report = told(events, partial(price, overrides=agent.prices if agent else None), attempt.model)
                if report is not None:
                    yield Spend(id=step.id, worker=action.worker, epoch=action.epoch, report=report)


def _ran_out(site: Site, action: Reclaim) -> bool:
    """Whether a worker of another clone is still not heard of when its remote has been asked."""
    lease = action.bead.lease
    if site.remote is None or lease is None or lease.clone == site.name:
        return True
    try:
        sync.sync(site.store, site.remote, WITNESS, random.Random(site.name))
    except (LostRace, Unreadable):
        # The sign that it lives may be there, where we cannot see it.
        return False
    return heartbeat.until(action.bead.id, lease, site.store.renewed()) < site.clock.now()


def _lay_to_rest(site: Site, worker: str) -> None:
    """Clear away what a dead worker left: processes, lock files, its own file, and a room where it had one."""
    if room.is_room(worker):
        room.sweep(site, worker)
        return
    site.machine.kill_strays(site.marker(worker))
    site.store.sweep()
    for scratch in site.store.directory.glob(f"{SCRATCH}{worker.rpartition('-')[2]}-*"):
        shutil.rmtree(scratch, ignore_errors=True)
    liveness.forget(site.workers, worker)


def _sweep(site: Site, bead_id: str) -> str:
    """Remove a closed molecule's work tree, refs and homes; uncommitted edits are saved first, even here, and told."""
    bead = site.store.snapshot().need(bead_id)
    branch = branch_of(bead)
    worktree = site.workshop.find(branch)
    saved = site.salvage(worktree, bead, bead.epoch, "the molecule is closed") if worktree else None
    if worktree:
        worktree.remove(saved)
    site.workshop.prune()
    for ref in _refs(site, bead):
        head = site.git.resolve(ref)
        if head is not None:
            _drop(site, bead, ref, head)
    for own in (site.homes / bead_id, site.sandbox.scratch(bead_id)):
        removal.delete(own)
    if site.remote is not None:
        with suppress(Unreadable):
            site.remote.discard(bead_id)
    return f"swept {bead_id}; uncommitted work is in {saved[:12]}" if saved else ""


def _refs(site: Site, bead: Bead) -> Iterable[str]:
    pinned = site.git.line("for-each-ref", "--format=%(refname)", f"{REQUESTS}{bead.id}/").splitlines()
    return [f"refs/heads/{branch_of(bead)}", *pinned]


def _drop(site: Site, bead: Bead, ref: str, head: str) -> None:
    """Delete a ref; commits that are not on main are kept under a salvage ref (I1)."""
    if not site.git.is_ancestor(head, site.main):
        site.git.swap(f"refs/beads/salvage/{bead.id}/head-{head[:16]}", head, ABSENT, "swept")
    if not site.git.delete(ref, head):
        raise NotFound(f"{ref} moved while it was being swept")
