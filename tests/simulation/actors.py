"""The processes of a simulated town: each a real one, that goes on only when the scheduler says so.

An actor is a child of the scheduler. It runs the real code of a role, with a clock, a Git, a store and a machine that
stop before everything that others may notice, and tell the scheduler through a pipe. Killed, it is killed as any
process is: locks, open files and all.
"""

from __future__ import annotations

import mmap
import os
import struct
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple, Protocol

from beads import liveness
from beads.errors import NeedsPerson, TownError, Unreadable
from beads.git import Repository
from beads.liveness import Presence
from beads.ops import Operation
from beads.store import Decision, Snapshot, Store, Written
from refinery.containment import Sandbox
from refinery.processes import Exit, Job, Kind, Machine
from refinery.refinery import Refinery
from refinery.view import Host
from refinery.workshop import Workshop
from roles.polecat import Polecat
from roles.proposal import accept, propose
from roles.settings import read_settings
from roles.site import Site
from roles.town import Town
from tests.simulation.git import QuickGit

BEGIN = datetime(2026, 3, 1, tzinfo=UTC)
"""When every run begins."""

LINE = "sim "
"""What every command of a simulated town begins with; ``scripts.py`` knows what comes after it."""


PAUSE_SECONDS = 0.05
"""The shortest that anybody sleeps: what looks more often than this finds nothing sooner, and takes longer to run."""


class End(NamedTuple):
    """How a command ended, as :class:`refinery.processes.Exit` says it."""

    kind: Kind
    code: int | None
    number: int | None
    seconds: float
    output: str = ""


class Time:
    """What time it is, in memory that all processes of a run share: seconds that only grow, and what is added to them.

    The second is what a wall clock shows that somebody sets.
    """

    def __init__(self) -> None:
        self._shared = mmap.mmap(-1, 16)

    @property
    def now(self) -> float:
        """Seconds since the run began."""
        return float(struct.unpack_from("d", self._shared, 0)[0])

    @now.setter
    def now(self, seconds: float) -> None:
        struct.pack_into("d", self._shared, 0, seconds)

    @property
    def offset(self) -> float:
        """Seconds by which the wall clock is wrong."""
        return float(struct.unpack_from("d", self._shared, 8)[0])

    @offset.setter
    def offset(self, seconds: float) -> None:
        struct.pack_into("d", self._shared, 8, seconds)


class Link:
    """An actor's end of the pipe to the scheduler."""

    def __init__(self, pipe: Connection, time: Time) -> None:
        self.time = time
        self._pipe = pipe
        self._alone = 0

    def stop(self, what: str, until: float = 0.0, *, events: bool = False) -> None:
        """Stop before something that others may notice; go on when it is our turn again.

        Args:
            what: it, in a word or two.
            until: seconds since the run began, before which it is not.
            events: whether a moved ref or the end of a child makes it our turn as well.

        Raises:
            Unreadable: the scheduler wants it to fail.
        """
        self._pipe.send(("stop", what, until, events, bool(self._alone)))
        verdict = self._pipe.recv()
        if verdict == "fail":
            raise Unreadable(f"simulated: {what} fails, as on a disk with an error")

    def call(self, name: str, *about: object) -> object:
        """Ask the scheduler something, which is nobody else's turn."""
        self._pipe.send(("call", name, about))
        return self._pipe.recv()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Until the end, nobody else has a turn, because they would wait for us and not say so."""
        self._alone += 1
        try:
            yield
        finally:
            self._alone -= 1


class SimClock:
    """The time that the scheduler makes; waiting is a stop."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def now(self) -> datetime:
        """The wall clock."""
        return BEGIN + timedelta(seconds=self.monotonic() + self._link.time.offset)

    def monotonic(self) -> float:
        """Seconds since the run began."""
        return self._link.time.now

    def sleep(self, seconds: float) -> None:
        """Let others have their turn for so long, or for as long as makes a difference."""
        self._link.stop("sleep", self.monotonic() + max(seconds, PAUSE_SECONDS))


class SimStore(Store):
    """The store, with a stop between deciding and publishing, and one before its caller is told of it."""

    link: Link
    turns: bool

    def commit(self, actor: str, operations: Sequence[Operation] | Decision, reason: str = "") -> Written:
        """As :meth:`Store.commit`."""

        def decide(snapshot: Snapshot) -> Sequence[Operation]:
            decided = operations(snapshot) if callable(operations) else operations
            if decided:
                self.link.stop("store")
            return decided

        written = super().commit(actor, decide, reason)
        if written.changed:
            self.link.call("wrote", str(written.snapshot.commit))
            self.link.stop("stored")
        return written

    @contextmanager
    def turn(self) -> Iterator[None]:
        """As :meth:`Store.turn`, or without: then only compare-and-swap keeps writers apart."""
        if not self.turns:
            yield
            return
        with super().turn():
            yield


class SimWorkshop(Workshop):
    """Work trees. Who has their lock is alone meanwhile."""

    link: Link

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with self.link.alone(), super()._locked():
            yield


class SimJob(Job):
    """A command that the scheduler runs."""

    def __init__(self, link: Link, name: int, log: Path) -> None:
        self.pid = 0
        self._link = link
        self._id = name
        self._path = log
        self._done: Exit | None = None

    def poll(self) -> Exit | None:
        """As :meth:`Job.poll`."""
        if self._done is None:
            found = self._link.call("poll", self._id)
            if isinstance(found, End):
                self._done = _exit(found, self._path)
        return self._done

    def wait(self) -> Exit:
        """As :meth:`Job.wait`."""
        while (done := self.poll()) is None:
            self._link.stop("wait", self._link.time.now + 0.05, events=True)
        return done

    def stop(self, grace: float) -> None:
        """As :meth:`Job.stop`."""
        self._link.call("end", self._id, grace)

    def cancel(self, grace: float) -> Exit:
        """As :meth:`Job.cancel`."""
        self.stop(grace)
        return self.wait()


def _exit(found: End, log: Path) -> Exit:
    kind, code, number, seconds, output = found
    log.write_text(output)
    return Exit(kind, code, number, seconds, output, len(output), "sha256:simulated", log)


class SimMachine(Machine):
    """Where commands run that the scheduler knows."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def start(self, argv: Sequence[str], *, cwd: Path, log: Path, timeout: float, marker: str, **rest: object) -> Job:
        """As :meth:`Machine.start`."""
        del rest
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text("")
        name = self._link.call("start", tuple(argv), str(cwd), timeout, marker)
        assert isinstance(name, int)
        return SimJob(self._link, name, log)

    def kill_strays(self, marker: str) -> int:
        """As :meth:`Machine.kill_strays`."""
        killed = self._link.call("kill strays", marker)
        assert isinstance(killed, int)
        return killed


@dataclass(frozen=True)
class Stage:
    """Where a run takes place.

    Attributes:
        place: a directory with the ``project`` and its work ``trees``.
        time: what time it is there.
        turns: whether the store's writers take turns.
        git: what roles ask of Git is asked of this.
    """

    place: Path
    time: Time
    turns: bool = True
    git: type[QuickGit] = QuickGit

    @property
    def repository(self) -> Path:
        """The clone."""
        return self.place / "project"

    def site(self, link: Link) -> Site:
        """The clone as a role sees it."""
        clock = SimClock(link)

        def before(what: str) -> None:
            link.stop(f"git {what}")
            if what == "update-ref":
                link.call("moves")

        git = self.git(self.repository, os.environ, before)
        store = SimStore(Repository(self.repository, clock), clock)
        store.link, store.turns, store.site = link, self.turns, "clone"
        store.lives = partial(liveness.lives, store.directory / liveness.WORKERS, "clone")
        workshop = SimWorkshop(git, self.place / "trees")
        workshop.link = link
        common = self.repository / ".git"
        return Site(
            store=store,
            git=git,
            workshop=workshop,
            settings=read_settings((self.repository / "town.toml").read_bytes(), "town.toml"),
            environ={},
            sandbox=Sandbox("none", Host(self.place), common, common / "beads"),
            clock=clock,
            name="clone",
            machine=SimMachine(link),
        )


class Role(Protocol):
    """What a process does; its exit status."""

    def __call__(self, stage: Stage, link: Link) -> int: ...


@dataclass(frozen=True)
class Mayor:
    """Pours a plan."""

    plan: str

    def __call__(self, stage: Stage, link: Link) -> int:
        """Pour it."""
        site = stage.site(link)
        accept(propose(self.plan.encode(), "plan.toml", site.store, "mayor", site.settings), site.store, "mayor")
        return 0


@dataclass(frozen=True)
class Supervisor:
    """``town up``."""

    tag: str

    def __call__(self, stage: Stage, link: Link) -> int:
        """Tick for ever."""
        site = stage.site(link)
        name = f"refinery-{self.tag}"
        with Presence(site.store.directory, "town"), Presence(site.workers, name):
            refinery = Refinery(
                store=site.store,
                git=site.git,
                workshop=site.workshop,
                branch="main",
                environ=site.environ,
                sandbox=site.sandbox,
                clock=site.clock,
                marker=site.marker(name),
                obtain=site.obtain,
                machine=site.machine,
            )
            town = Town(site, refinery, site.settings.town.polecats, ["town"], _nobody, tag=self.tag)
            while not link.call("stopping"):
                busy = town.tick()
                link.call("idle", not busy)
                link.stop("wait", link.time.now + (0.5 if busy else 5.0), events=True)
            town.stop()
            refinery.close()
        return 0


def _nobody(line: str) -> None:
    del line


@dataclass(frozen=True)
class Worker:
    """``town polecat run``."""

    bead: str
    name: str

    def __call__(self, stage: Stage, link: Link) -> int:
        """Work on one molecule."""
        result = Polecat(stage.site(link), self.name, lambda: bool(link.call("stopping"))).run(self.bead)
        return {"fenced": 4, "asked": 7, "unmet": 7}.get(result.end, 0)


def act(role: Role, stage: Stage, pipe: Connection) -> None:
    """Be an actor, in a process of its own that ends here."""
    link = Link(pipe, stage.time)
    status = 1
    try:
        status = role(stage, link)
    except TownError as error:
        status = 7 if isinstance(error, NeedsPerson) else error.exit_code
        pipe.send(("said", f"{type(error).__name__}: {error.message}"))
    except (EOFError, BrokenPipeError):
        # The scheduler is gone.
        os._exit(status)
    except BaseException:  # noqa: BLE001
        # Not what a role may do: whatever happens, it has an error for it.
        pipe.send(("broke", traceback.format_exc()))
    pipe.send(("ended", status))
    # Nothing that the scheduler's process had is to be flushed or closed here.
    os._exit(status)
