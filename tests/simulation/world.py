"""The scheduler: whose turn it is, what time it is, and what goes wrong; all of it follows from a seed.

Only one actor runs at a time, until its next stop. There the scheduler may kill it, make what it is about to do fail,
or let another one go first. The same seed gives the same run, event by event; a fault depends on the actor and on its
number among that actor's stops, so that leaving one out leaves the others where they are.
"""

from __future__ import annotations

import gc
import math
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Literal, NamedTuple

from refinery.processes import Kind
from tests.simulation.actors import End, Mayor, Role, Stage, Supervisor, Time, Worker, act
from tests.simulation.git import QuickGit, objects_of
from tests.simulation.scripts import Act, Failed, Nature, Part, Scripts, chance, plan_of

Fault = Literal["kill", "fail", "stall", "clock", "push", "evict"]

STOPS_MAX = 20_000
"""After so many stops a run does not settle any more."""

TROUBLED_SECONDS = 40.0
"""How long things go wrong; then they have to settle."""

NOTICE_SECONDS = 0.1
"""How long it takes until a moved ref is noticed by who watches the directory."""


class Mishap(NamedTuple):
    """A fault at a stop of an actor, by its number."""

    actor: str
    stop: int
    fault: Fault


@dataclass(frozen=True)
class Scenario:
    """What a run is made of; all else follows.

    Attributes:
        seed: decides about chance.
        parts: the molecules.
        faults: the probability of each kind at a stop.
        trouble: the probability that an agent does not do what it should.
        turns: whether writers of the store take turns.
        without: faults that are left out, to see whether it goes wrong without them.
    """

    seed: int
    parts: tuple[Part, ...]
    faults: dict[Fault, float]
    trouble: float
    turns: bool
    without: frozenset[Mishap] = frozenset()


_NATURES: tuple[Nature, ...] = ("good", "bad", "clash", "shared", "hopeless")


def scenario(seed: int) -> Scenario:
    """What happens in the run of a seed."""
    dice = chance(seed, "scenario")
    natures = dice.choices(_NATURES, (8, 1, 1, 2, 0.4), k=dice.randint(1, 4))
    parts: list[Part] = []
    for number, nature in enumerate(natures):
        needs = tuple(part.name for part in parts if dice.random() < 0.2 and part.nature != "hopeless")
        parts.append(Part(f"p{number}", nature, needs))
    calm = dice.random() < 0.1
    faults: dict[Fault, float] = {
        "kill": dice.choice((0.0, 0.003, 0.01, 0.03)),
        "fail": dice.choice((0.0, 0.0, 0.005, 0.02)),
        "stall": dice.choice((0.0, 0.002, 0.01)),
        "clock": dice.choice((0.0, 0.0, 0.002)),
        "push": dice.choice((0.0, 0.0, 0.05)),
        "evict": dice.choice((0.0, 0.0, 0.02)),
    }
    trouble = dice.choice((0.0, 0.2, 0.4))
    return Scenario(seed, tuple(parts), {} if calm else faults, trouble, dice.random() < 0.7)


# ── What runs ────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class Actor:
    """A process, stopped at something or running.

    Attributes:
        until: when it is its turn again, in seconds since the run began.
        events: whether an event makes it its turn, too.
        stops: how often it has stopped.
        struck: at which stop something went wrong last; once is enough.
    """

    name: str
    pid: int
    pipe: Connection
    role: Role
    at: str = "begin"
    until: float = 0.0
    events: bool = False
    alone: bool = False
    stops: int = 0
    struck: int = 0
    stopping: bool = False
    unkillable: bool = False
    status: int | None = None
    idle: bool = False


def _can(fault: Fault, actor: Actor) -> bool:
    """Whether such a thing can happen where an actor is."""
    match fault:
        case "fail":
            return actor.at not in ("sleep", "wait", "begin")
        case "stall":
            return not actor.alone
        case "push":
            return isinstance(actor.role, Supervisor)
        case "evict":
            # Only where what it does next is a write to the store: nothing else asks whose a molecule is.
            return isinstance(actor.role, Worker) and actor.at == "store"
        case _:
            return True


@dataclass
class Command:
    """A command that was started: by whom, what it has still to do, and how it ended."""

    number: int
    marker: str
    cwd: Path
    began: float
    deadline: float
    acts: list[Act]
    actor: Actor | None = None
    done: End | None = None

    def next_at(self) -> float:
        """When it does something next, or is at its time limit."""
        if self.done or self.actor:
            return math.inf
        due = self.began + self.acts[0].after if self.acts else math.inf
        return min(due, self.deadline)


@dataclass
class World:
    """One run.

    Attributes:
        trace: everything that happened, a line each.
        broke: what must not happen and did, found on the way.
        mishaps: the faults that came about.
        pushed: the commits that a person put on main.
        wrote: the commits of the store that somebody was told of.
    """

    scenario: Scenario
    stage: Stage
    trace: list[str] = field(default_factory=list)
    broke: list[str] = field(default_factory=list)
    mishaps: list[Mishap] = field(default_factory=list)
    actors: list[Actor] = field(default_factory=list)
    commands: dict[int, Command] = field(default_factory=dict)
    pushed: list[str] = field(default_factory=list)
    wrote: list[str] = field(default_factory=list)
    tell: Callable[[str], object] = str
    stops: int = 0

    def __post_init__(self) -> None:
        self.scripts = Scripts(self.scenario.seed, self.scenario.parts, self.scenario.trouble)
        self._dice = chance(self.scenario.seed, "turns")
        self._supervisors = 0
        self._restart_at: float | None = 0.0
        self._git = QuickGit(self.stage.repository, os.environ)

    @property
    def _time(self) -> Time:
        return self.stage.time

    def _note(self, what: str) -> None:
        self.trace.append(f"{self._time.now:.3f} {what}")
        self.tell(self.trace[-1])

    # ── Running ──────────────────────────────────────────────────────────────────────────────────────────────

    def run(self) -> None:
        """Go on until all is settled, or does not settle."""
        try:
            self._alone(Mayor(plan_of(self.scenario.parts)), "mayor")
            while not self._settled():
                if self.stops > STOPS_MAX:
                    self.broke.append(f"it does not settle: after {self.stops} stops, {self._about()}")
                    return
                self._turn()
            for actor in self.actors:
                actor.stopping = True
            while self.actors and self.stops <= STOPS_MAX:
                self._turn()
        finally:
            for actor in list(self.actors):
                self._kill(actor)

    @property
    def _troubled(self) -> bool:
        return self._time.now < TROUBLED_SECONDS and any(self.scenario.faults.values())

    def _settled(self) -> bool:
        return not self._troubled and bool(self.actors) and all(actor.idle for actor in self.actors)

    def _about(self) -> str:
        return ", ".join(f"{actor.name} at {actor.at}" for actor in self.actors) or "nobody is there"

    def _turn(self) -> None:
        """One actor's, or one command's, or time's."""
        if not any(isinstance(actor.role, Supervisor) for actor in self.actors):
            self._supervise()
        able = [actor for actor in self.actors if actor.until <= self._time.now]
        alone = [actor for actor in self.actors if actor.alone]
        due = sorted(command.next_at() for command in self.commands.values())[:1]
        if due and due[0] <= self._time.now:
            self._do(min(self.commands.values(), key=lambda command: (command.next_at(), command.number)))
        elif alone:
            self._time.now = max(self._time.now, alone[0].until)
            self._resume(alone[0])
        elif able:
            self._resume(self._dice.choice(able))
        else:
            again = self._time.now if self._restart_at is None else self._restart_at
            self._time.now = min([*due, *(actor.until for actor in self.actors)], default=again)
            if not self.actors:
                self._time.now = min(again, *due) if due else again

    def _supervise(self) -> None:
        """Whoever runs `town up` runs it again, a second later."""
        if any(actor.stopping for actor in self.actors):
            return
        if self._restart_at is None:
            self._restart_at = self._time.now + 1.0
        if self._restart_at <= self._time.now:
            self._restart_at = None
            self._supervisors += 1
            self.stops += 20
            self._spawn(Supervisor(f"t{self._supervisors}"), f"town {self._supervisors}")

    # ── Actors ───────────────────────────────────────────────────────────────────────────────────────────────

    def _spawn(self, role: Role, name: str) -> Actor:
        ours, theirs = Pipe()
        pid = os.fork()
        if pid == 0:
            gc.disable()
            ours.close()
            for other in self.actors:
                other.pipe.close()
            act(role, self.stage, theirs)
        theirs.close()
        actor = Actor(name, pid, ours, role)
        self.actors.append(actor)
        self._listen(actor)
        return actor

    def _alone(self, role: Role, name: str) -> None:
        """Let somebody do all it does, with nobody else there."""
        actor = self._spawn(role, name)
        while actor.status is None:
            self._time.now = max(self._time.now, actor.until)
            self._resume(actor, calm=True)
        if actor.status:
            self.broke.append(f"{name} ended with {actor.status}")

    def _resume(self, actor: Actor, *, calm: bool = False) -> None:
        fault = None if calm else self._fault(actor)
        self._note(f"{actor.name} {actor.at}{f': {fault}' if fault else ''}")
        match fault:
            case "kill":
                self._kill(actor)
                return
            case "stall":
                # Long enough for everybody to take it for dead that goes by a clock.
                actor.until, actor.events = self._time.now + self._dice.choice((1.0, 10.0, 700.0)), False
                return
            case "evict":
                # Somebody deletes its file, so that it is taken for dead, and it lives on where no kill reaches it.
                actor.unkillable = True
                (self.stage.repository / ".git/beads/workers" / actor.name).unlink(missing_ok=True)
                actor.until = self._time.now + 10.0
                return
            case "clock":
                self._time.offset += self._dice.choice((-3600.0, -5.0, 5.0, 3600.0))
            case "push":
                self._push()
            case _:
                pass
        actor.pipe.send("fail" if fault == "fail" else "go")
        self._listen(actor)

    def _fault(self, actor: Actor) -> Fault | None:
        """What goes wrong at this stop. It depends on the actor and on how often it has stopped, on nothing else."""
        if not self._troubled or actor.struck == actor.stops:
            return None
        dice = chance(self.scenario.seed, "fault", actor.name, actor.stops).random()
        for fault, rate in self.scenario.faults.items():
            if not _can(fault, actor):
                continue
            dice -= rate * (0.2 if actor.at in ("sleep", "wait") else 1.0)
            if dice < 0:
                mishap = Mishap(actor.name, actor.stops, fault)
                if mishap in self.scenario.without:
                    return None
                self.mishaps.append(mishap)
                actor.struck = actor.stops
                return fault
        return None

    def _listen(self, actor: Actor) -> None:
        """Answer an actor until it stops or ends."""
        while True:
            try:
                message = actor.pipe.recv()
            except EOFError:
                self._over(actor, None)
                return
            match message:
                case ("stop", what, until, events, alone):
                    self.stops += 1
                    actor.stops += 1
                    actor.at, actor.until, actor.events, actor.alone = what, until, events, alone
                    return
                case ("call", name, about):
                    actor.pipe.send(self._answer(actor, name, about))
                case ("said", what):
                    self._note(f"{actor.name} says {what}")
                case ("broke", what):
                    self.broke.append(f"{actor.name} broke:\n{what}")
                case ("ended", status):
                    self._over(actor, status)
                    return
                case _:
                    raise AssertionError(message)

    def _over(self, actor: Actor, status: int | None) -> None:
        """Somebody has ended, or was killed."""
        actor.pipe.close()
        os.waitpid(actor.pid, 0)
        actor.status = -signal.SIGKILL if status is None else status
        self.actors.remove(actor)
        self._note(f"{actor.name} is over: {actor.status}")
        for command in self.commands.values():
            if command.actor is actor:
                killed = status is None
                kind: Kind = "signalled" if killed else "exited"
                number = int(signal.SIGKILL) if killed else None
                command.done = End(kind, status, number, self._time.now - command.began)
        self._wake()

    def _kill(self, actor: Actor) -> None:
        os.kill(actor.pid, signal.SIGKILL)
        self._over(actor, None)

    def _wake(self) -> None:
        """A ref has moved, or somebody has ended. Whoever watches that hears of it a moment later."""
        for actor in self.actors:
            if actor.events:
                actor.until = min(actor.until, self._time.now + NOTICE_SECONDS)

    def _answer(self, actor: Actor, name: str, about: tuple[object, ...]) -> object:
        match name, about:
            case "moves", ():
                self._wake()
                return None
            case "wrote", (str() as commit,):
                self.wrote.append(commit)
                self._wake()
                return None
            case "stopping", ():
                return actor.stopping
            case "idle", (bool() as idle,):
                # What came before the trouble was over says nothing.
                actor.idle = idle and not self._troubled
                return None
            case "start", (tuple() as argv, str() as cwd, float() as timeout, str() as marker):
                return self._start(argv, Path(cwd), timeout, marker)
            case "poll", (int() as number,):
                return self.commands[number].done
            case "end", (int() as number, float() as grace):
                self._end(self.commands[number], grace)
                return None
            case "kill strays", (str() as marker,):
                found = [c for c in self.commands.values() if c.marker == marker and not c.done]
                for command in found:
                    if command.actor is None:
                        command.done = End("signalled", None, int(signal.SIGKILL), self._time.now - command.began)
                    elif command.actor is not actor and not command.actor.unkillable:
                        self._kill(command.actor)
                return len(found)
            case _:
                raise AssertionError((name, about))

    # ── Commands ─────────────────────────────────────────────────────────────────────────────────────────────

    def _start(self, argv: tuple[str, ...], cwd: Path, timeout: float, marker: str) -> int:
        number = len(self.commands) + 1
        command = Command(number, marker, cwd, self._time.now, self._time.now + timeout, [])
        self.commands[number] = command
        if argv[:3] == ("town", "polecat", "run"):
            name = argv[5]
            command.actor = self._spawn(Worker(argv[3], name), name)
        else:
            command.acts = self.scripts.acts(argv[-1])
        self._note(f"command {number} begins: {' '.join(argv)}")
        return number

    def _do(self, command: Command) -> None:
        """The next thing that a command does."""
        now = self._time.now
        if command.deadline <= now:
            command.done = End("timeout", None, int(signal.SIGTERM), now - command.began)
        else:
            act = command.acts.pop(0)
            status, says = act.status, act.says
            try:
                if act.what is not None and command.cwd.is_dir():
                    act.what(command.cwd)
            except Failed as error:
                status, says = 1, str(error)
            if (not command.acts and status >= 0) or status > 0:
                command.done = End("exited", status, None, now - command.began, says)
        self._note(f"command {command.number} {command.done or 'goes on'}")
        if command.done:
            self._wake()

    def _end(self, command: Command, grace: float) -> None:
        if command.done:
            return
        if command.actor is None:
            command.done = End("cancelled", None, int(signal.SIGTERM), self._time.now - command.began)
            return
        command.actor.stopping = True
        if grace == 0.0:
            self._kill(command.actor)

    # ── Other people ─────────────────────────────────────────────────────────────────────────────────────────

    def _push(self) -> None:
        """A person commits something to main."""
        git, number = self._git, len(self.pushed) + 1
        main = git.line("rev-parse", "--verify", "refs/heads/main")
        objects = objects_of(self.stage.repository / ".git")
        note = "100644", objects.write("blob", f"note {number}\n".encode())
        tree = objects.tree({**objects.files(objects.commit(main).tree), f"notes/{number}": note})
        said = (
            ("NAME", "Ann"),
            ("EMAIL", "ann@example.org"),
            ("DATE", f"@{1_772_323_200 + int(self._time.now)} +0000"),
        )
        who = {f"GIT_{role}_{what}": value for role in ("AUTHOR", "COMMITTER") for what, value in said}
        commit = git.line("commit-tree", tree, "-p", main, "-F", "-", stdin=f"Note {number}\n", extra=who)
        git.run("update-ref", "refs/heads/main", commit, main)
        self.pushed.append(commit)
        self._wake()
