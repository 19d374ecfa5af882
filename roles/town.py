"""The town: one foreground process that ticks the Witness, the Refinery and the scheduler, and spawns polecats.

It keeps nothing that matters in memory: killed at any moment and started again, it goes on from what Git says.
Events only wake it sooner; whatever it misses it sees at the next look.
"""

from __future__ import annotations

import contextlib
import math
import os
import select
import signal
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from beads import graph
from beads.clock import Clock
from beads.errors import TownError
from beads.model import Bead
from beads.spending import Running, books
from beads.store import Snapshot
from refinery import queue
from refinery.processes import Job
from refinery.refinery import Refinery
from roles import routing, witness
from roles.inbox import Item, Later, Way, inbox
from roles.notify import Notifier
from roles.routing import Go, Wait
from roles.site import Site, branch_of

NAMES = (
    "nux",
    "slit",
    "ace",
    "morsov",
    "toast",
    "capable",
    "dag",
    "cheedo",
    "keeper",
    "valkyrie",
    "rictus",
    "max",
)

PATIENCE_SECONDS = 300.0
"""How long ``until_idle`` waits for a provider that said when it will serve again; what takes longer is left."""

GRACE_SECONDS = 15.0
"""How long polecats get to save their work when the town stops."""

_LIFETIME_SECONDS = 365 * 86_400.0
_PAUSE_SECONDS = 0.05
_RESYNC_SECONDS = 5.0
_BUSY_RESYNC_SECONDS = 0.5
_FAILURES_MAX = 10
_BACKOFF_MAX_SECONDS = 60.0


@dataclass
class _Spawned:
    bead_id: str
    name: str
    job: Job
    route: Go


@dataclass
class Town:
    """The supervisor of one clone; the caller makes sure that there is only one.

    Attributes:
        site: where it works.
        refinery: the merge queue.
        polecats: how many may live at once.
        command: the program and first arguments that run ``town``, absolute, never found through a working directory.
        say: told one line for everything that happens.
        notifier: tells a person what needs one, where that is wanted.
        tag: what the names of its polecats have in them and those of no other living supervisor.
    """

    site: Site
    refinery: Refinery
    polecats: int
    command: Sequence[str]
    say: Callable[[str], None]
    notifier: Notifier | None = None
    tag: str = field(default_factory=lambda: str(os.getpid()))
    _spawned: list[_Spawned] = field(default_factory=list)
    _failures: dict[str, tuple[int, float]] = field(default_factory=dict)
    _in_a_row: int = 0
    _counter: int = 0
    _held: bool = False
    _soon: bool = False
    _wakes: float = math.inf
    _cramped: str = ""
    _look_at: float = 0.0

    def run(self, until_idle: bool, stopping: Callable[[], bool]) -> list[Item]:
        """Tick until asked to stop, or with ``until_idle`` until nothing can be done without a person.

        Returns what needs a person.

        Raises:
            TownError: polecats do not start, again and again.
        """
        with _Waker(self.site.store.repository.common / "refs", self.site.clock) as waker:
            try:
                while True:
                    waker.clear()
                    if stopping():
                        break
                    if not self._tick_or_stop(stopping) and until_idle:
                        break
                    pause = _BUSY_RESYNC_SECONDS if self._busy() else _RESYNC_SECONDS
                    waker.wait(min(pause, self._wakes), self._ended)
                    self.site.clock.sleep(_PAUSE_SECONDS)
            finally:
                self.stop()
        return self.needs()

    def needs(self) -> list[Item]:
        """What waits for a person now."""
        return self._needs(self.site.store.snapshot())

    def _needs(self, snapshot: Snapshot) -> list[Item]:
        found = list(inbox(snapshot, self.site.clock.now(), self.site.settings).items)
        if self._cramped and not self._busy():
            make = Way("", "make room there, or change [worktree] in town.toml")
            found.append(Item("disk", "", "", 0, None, self._cramped, (), (make,)))
        return found

    def put_off(self) -> list[Later]:
        """What goes on by itself, but only after some time."""
        return list(inbox(self.site.store.snapshot(), self.site.clock.now(), self.site.settings).later)

    def _tick_or_stop(self, stopping: Callable[[], bool]) -> bool:
        """As :meth:`tick`; what fails because Ctrl-C reached more than us is no failure."""
        try:
            return self.tick()
        except TownError:
            if stopping():
                return False
            raise

    def tick(self) -> bool:
        """One round of every role; False when there is nothing left that anybody but a person could do."""
        self._reap()
        lines = [f"witness: {line}" for line in witness.tick(self.site)]
        lines += [f"refinery: {line}" for line in self.refinery.tick()]
        for line in lines:
            self.say(line)
        snapshot = self.site.store.snapshot()
        self._schedule(snapshot)
        telling = self._notify(snapshot)
        # What one role did may be work for another, such as sweeping up after a landing.
        return bool(lines) or telling or self._busy() or self._pending(snapshot)

    def _notify(self, snapshot: Snapshot) -> bool:
        """Let a person know what is new; whether that goes on."""
        if self.notifier is None:
            return False
        self.notifier.tick(snapshot.commit, lambda: self._needs(snapshot))
        return self.notifier.busy

    def _busy(self) -> bool:
        """Whether something goes on that no event tells of: a limit, or a worker that is no child of ours."""
        return bool(self._spawned) or self.refinery.busy or self._held

    def _ended(self) -> bool:
        """Whether a polecat, a gate run or the notification command has ended."""
        told = self.notifier is not None and self.notifier.ended
        return told or self.refinery.judged or any(spawned.job.poll() is not None for spawned in self._spawned)

    def _pending(self, snapshot: Snapshot) -> bool:
        """Whether time alone will soon bring work: somebody holds a lease, the queue can move, or a spawn is due."""
        if queue.requests(snapshot) and not self.refinery.halted:
            return True
        return self._held or self._soon or self._recovering(snapshot)

    def _recovering(self, snapshot: Snapshot) -> bool:
        """Whether something could not be begun, and is put off for a moment before that is tried again."""
        now = self.site.clock.now()
        put_off = (b for b in snapshot.unclosed() if b.defer_until is not None and b.defer_until > now)
        steps = (graph.next_step(snapshot, bead) for bead in put_off if graph.is_unit(bead))
        return any(step is not None and graph.unready(step) and not graph.used_up(step) for step in steps)

    def _candidates(self, snapshot: Snapshot) -> list[Bead]:
        ready = graph.ready(snapshot, self.site.clock.now())
        # A lease that has run out is good as long as its holder lives: the machine may have slept.
        free = (bead for bead in ready if not (bead.lease and self.site.store.lives(bead.lease)))
        return [bead for bead in free if graph.workable(snapshot, bead)]

    def _schedule(self, snapshot: Snapshot) -> None:
        """Spawn polecats for the best ready molecules that somebody may work on, up to the cap."""
        names = {s.name for s in self._spawned}
        leases = [bead.lease for bead in snapshot.unclosed() if bead.lease]
        names |= {lease.worker for lease in leases if lease.site == self.site.name}
        self._held = bool(leases)
        taken = {s.bead_id for s in self._spawned}
        now, moment = self.site.clock.monotonic(), self.site.clock.now()
        ledger = books(snapshot, moment)
        soon = moment + timedelta(seconds=PATIENCE_SECONDS)
        self._soon = any(park.until <= soon for park in ledger.parked.values())
        self._wakes = min(((park.until - moment).total_seconds() for park in ledger.parked.values()), default=math.inf)
        for bead in self._candidates(snapshot):
            if self._soon and len(names) >= self.polecats:
                break
            about = [Running(s.route.agent, s.bead_id, s.route.budget, s.route.tokens) for s in self._spawned]
            found = routing.of(self.site.settings, routing.with_spawned(ledger, about), snapshot, bead, moment)
            self._soon |= (isinstance(found, Go) and not self._cramped) or (
                isinstance(found, Wait) and (found.until or moment) <= soon
            )
            due = bead.id not in taken and self._failures.get(bead.id, (0, 0.0))[1] <= now
            if isinstance(found, Go) and due and len(names) < self.polecats and self._has_room(bead):
                names.add(self._spawn(bead, found))

    def _has_room(self, bead: Bead) -> bool:
        """Whether there is room for a molecule's work tree, or it has one. To look at a full disk takes a while."""
        now = self.site.clock.monotonic()
        if now >= self._look_at:
            before, self._cramped = self._cramped, self.site.shortage()
            self._look_at = now + _RESYNC_SECONDS if self._cramped else now
            if self._cramped and not before:
                self.say(f"waiting for room on the disk: {self._cramped}")
        return not self._cramped or self.site.workshop.find(branch_of(bead)) is not None

    def _spawn(self, bead: Bead, route: Go) -> str:
        """Start a polecat for a molecule; its name."""
        self._counter += 1
        name = f"{NAMES[self._counter % len(NAMES)]}-{self.tag}-{self._counter}"
        job = self.site.machine.start(
            [*self.command, "polecat", "run", bead.id, "--as", name],
            cwd=self.site.git.directory,
            environ=self.site.environ,
            log=self.site.logs(bead.id) / f"{name}.log",
            timeout=_LIFETIME_SECONDS,
            marker=self.site.marker(name),
            clock=self.site.clock,
            secrets=self.site.secrets,
        )
        self._spawned.append(_Spawned(bead.id, name, job, route))
        self.say(f"polecat {name}: {bead.id} {bead.title}")
        return name

    def _reap(self) -> None:
        for spawned in list(self._spawned):
            exit = spawned.job.poll()
            if exit is None:
                continue
            self._spawned.remove(spawned)
            if exit.code in (0, 4, 7):
                self._failures.pop(spawned.bead_id, None)
                self._in_a_row = 0
            elif exit.kind == "signalled":
                self.say(f"polecat {spawned.name}: killed by signal {exit.signal}")
            else:
                self._count_failure(spawned, exit.log)

    def _count_failure(self, spawned: _Spawned, log: Path) -> None:
        """Back off, twice as long each time, and give up rather than spawn for ever into a broken environment."""
        count = self._failures.get(spawned.bead_id, (0, 0.0))[0] + 1
        self._failures[spawned.bead_id] = (
            count,
            self.site.clock.monotonic() + min(2.0**count, _BACKOFF_MAX_SECONDS),
        )
        self.say(f"polecat {spawned.name}: failed on {spawned.bead_id}, see {log}")
        self._in_a_row += 1
        if self._in_a_row >= _FAILURES_MAX:
            raise TownError(f"polecats failed {_FAILURES_MAX} times in a row without getting anywhere", f"See {log}.")

    def stop(self) -> None:
        """Ask every polecat to save its work and go; kill those that do not."""
        self.refinery.cancel()
        if self.notifier is not None:
            self.notifier.cancel()
        for spawned in self._spawned:
            spawned.job.stop(GRACE_SECONDS)
        for spawned in self._spawned:
            spawned.job.wait()
        self._spawned.clear()


_CHILD, _REF = bytes([signal.SIGCHLD]), b"r"


class _Waker:
    """Wakes the loop when a ref moves or a child ends.

    Through a pipe: a signal handler may interrupt anything, also the handler before it, so it must not take a lock.
    """

    def __init__(self, directory: Path, clock: Clock) -> None:
        self._directory = directory
        self._clock = clock
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(self._write, False)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._before: object = None

    def __enter__(self) -> _Waker:
        # Python writes the number of every signal that has a handler into the pipe.
        self._before = signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, self._before)  # type: ignore[arg-type]
        self._thread.join()
        os.close(self._read)
        os.close(self._write)

    def clear(self) -> None:
        """Forget wakes so far: what they announced is about to be looked at."""
        with contextlib.suppress(BlockingIOError):
            while os.read(self._read, 4096):
                pass

    def wait(self, seconds: float, ended: Callable[[], bool]) -> None:
        """Until a ref moves, a signal comes, a child that matters has ended, or that many seconds have passed.

        Looking itself starts Git, whose end must not wake us to look again; ``ended`` tells such children apart.
        """
        deadline = self._clock.monotonic() + seconds
        while (left := deadline - self._clock.monotonic()) > 0:
            select.select([self._read], [], [], left)
            with contextlib.suppress(BlockingIOError):
                if os.read(self._read, 4096).strip(_CHILD):
                    return
            if ended():
                return

    def _watch(self) -> None:
        from watchfiles import watch

        # The usual filter leaves out all that is in a directory called .git, which is all there is to see here.
        moments = watch(
            self._directory, watch_filter=None, stop_event=self._stop, debounce=100, step=50, rust_timeout=1000
        )
        for _ in moments:
            # A full pipe wakes as well as one byte more.
            with contextlib.suppress(BlockingIOError):
                os.write(self._write, _REF)
