"""What one attempt at a step is about, and what starts it: the values that polecat and runtimes exchange."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from beads.model import Usage

if TYPE_CHECKING:
    from roles.events import Reader
    from roles.settings import Agent


@dataclass(frozen=True)
class Earlier:
    """What a step before this one came to.

    Attributes:
        title: the step's.
        changed: the paths that it changed, each with how many lines were added and removed.
        words: the last words of the agent that did it; another program's, and to be treated so.
    """

    title: str
    changed: tuple[str, ...] = ()
    words: str = ""


@dataclass(frozen=True)
class Task:
    """What one attempt is about.

    Attributes:
        goal: the molecule's title and sealed goal.
        step: the step's title and description.
        run: the step's shell line, for runtimes that run it.
        criteria: what must hold afterwards, in words.
        earlier: what the steps before this one did.
        feedback: what did not hold after the last attempt; empty the first time.
        attempt: counted from 1 over all workers.
        handoff: what the agent before this one left to say; empty when there was none.
        left: the paths that an attempt before this one changed, and that are not committed.
        resumed: whether the agent goes on with a conversation in which it was told all that before.
        said: what a person has answered about this step, oldest first.
    """

    goal: str
    step: str
    run: str
    criteria: tuple[str, ...]
    earlier: tuple[Earlier, ...]
    feedback: str
    attempt: int
    handoff: str = ""
    left: tuple[str, ...] = ()
    resumed: bool = False
    said: tuple[str, ...] = ()


@dataclass(frozen=True)
class Order:
    """One run of an agent's program that is asked for.

    Attributes:
        agent: who, on the terms of the step.
        prompt: what it is told.
        directory: the work tree, where it is started.
        home: a directory that is its home for this molecule: its sessions and settings are there, and survive an
            attempt. Nothing of the user's own is in it but links to the files that :attr:`Runtime.credentials` names.
        scratch: a directory of this attempt's own, for files that the program is to write, such as its usage.
        session: the name of a conversation: the one to go on with when ``resume``, else the one to begin, by programs
            that let it be chosen. A UUID.
        resume: whether to go on with a conversation.
        budget: US dollars that this run may cost; None for no limit.
        confined: whether a sandbox of ours is around it, so that it may be let to do as it likes inside.
        before: what the conversation had used before, which programs that count from its beginning count again.
        now: when it starts.
        run: the step's shell line, for the runtime that runs it.
        feedback: what did not hold the last time, which that line finds on its standard input.
        clock: what time it is, for what is said while it runs; without one, it is always when it started.
    """

    agent: Agent
    prompt: str
    directory: Path
    home: Path
    scratch: Path
    session: str
    now: datetime
    resume: bool = False
    budget: float | None = None
    confined: bool = True
    before: Usage = field(default_factory=Usage)
    run: str = ""
    feedback: str = ""
    clock: Callable[[], datetime] | None = None

    @property
    def present(self) -> datetime:
        """What time it is."""
        return self.clock() if self.clock else self.now


@dataclass(frozen=True)
class Launch:
    """A process to start.

    Attributes:
        argv: the program and its arguments.
        stdin: the text on its standard input.
        environ: variables to set besides the allow-listed ones.
        files: what to write before it starts, such as settings of its own: paths below :attr:`Order.home` or
            :attr:`Order.scratch`, and texts.
    """

    argv: list[str]
    stdin: str = ""
    environ: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[Path, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Runtime:
    """One kind of program that can do a step, and how it is started, read and kept within bounds.

    Attributes:
        name: as ``[agents.NAME] runtime`` has it.
        launch: what to start for an order.
        reader: who reads what it prints.
        program: what it is called on the PATH; empty when the agent's ``command`` says it.
        environment: names of variables that it may see unless ``town.toml`` says otherwise, such as its keys.
        credentials: files below the user's home that it signs in with; they are linked into :attr:`Order.home`.
        network: whether it needs the network.
        resumes: whether a conversation can be gone on with.
        chooses: whether the name of a new conversation can be chosen.
        at_terminal: arguments with which a person goes on with a conversation at a terminal, ``{session}`` for its
            name, after the program's own documentation; none where it cannot.
        tried: the version that has been run for real; empty when that was not possible.
        priced: whether it says itself what it costs.
        website: where to get it.
        litter: patterns of what it leaves at the top of the work tree that is no work, such as a cache.
    """

    name: str
    launch: Callable[[Order], Launch]
    reader: Callable[[Order], Reader]
    program: str = ""
    environment: tuple[str, ...] = ()
    credentials: tuple[str, ...] = ()
    network: bool = True
    resumes: bool = False
    chooses: bool = False
    at_terminal: tuple[str, ...] = ()
    tried: str = ""
    priced: bool = False
    website: str = ""
    litter: tuple[str, ...] = ()
