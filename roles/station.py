"""Where a polecat works: a molecule's work tree, and how programs are started in it, each with what it may touch.

Nothing here writes to the store: what was done and what was found goes back to the polecat, who holds the lease.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from beads.model import Bead
from refinery.containment import Reach
from refinery.processes import Exit, Job
from refinery.redaction import HANDED
from refinery.view import installation
from refinery.workshop import Worktree
from roles.drive import Running
from roles.events import Event
from roles.housing import link, put
from roles.readiness import make_ready
from roles.runtimes import network_for, runtime_of
from roles.settings import Agent
from roles.site import Site
from roles.task import Launch, Order

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
        make_ready(self.site, self.worktree, lambda what, label, timeout: self.run(what, reach, label, timeout, ()))

    def base(self, head: str) -> str:
        """The commit at which a branch with that head left main."""
        return self.site.git.line("merge-base", self.site.main, head)

    def salvage(self, why: str) -> str | None:
        """Save what is on disk and not committed; its commit, or None when all is."""
        return self.site.salvage(self.worktree, self.molecule, self.molecule.epoch, why)

    def house(self, order: Order) -> Launch:
        """What to start for an order, once what it takes is in the agent's home."""
        runtime = runtime_of(order.agent)
        launched = runtime.launch(order)
        if user := self.site.environ.get("HOME"):
            link(order.home, Path(user), runtime.credentials)
        put(launched.files, order.home, order.scratch)
        return launched

    def run(
        self,
        launched: Launch,
        reach: Reach,
        label: str,
        timeout: float,
        allow: Sequence[str],
        extra: Mapping[str, str] | None = None,
    ) -> Exit:
        """As :meth:`start`, and wait for its end; see :attr:`wait`."""
        return self.wait(self.start(launched, reach, label, timeout, allow, extra))

    def start(
        self,
        launched: Launch,
        reach: Reach,
        label: str,
        timeout: float,
        allow: Sequence[str],
        extra: Mapping[str, str] | None = None,
    ) -> Job:
        """Start something in the work tree.

        Args:
            launched: what.
            reach: what it may touch.
            label: what its log is called.
            timeout: seconds until it is ended.
            allow: names of variables that it may see besides the usual ones.
            extra: variables to set.
        """
        about = {"BEADTOWN_BEAD": self.molecule.id, ATTEMPT: "0", HANDED: " ".join(allow), **(extra or {})}
        return self.site.machine.start(
            launched.argv,
            cwd=self.worktree.path,
            environ=self.site.surroundings(allow, **about, **launched.environ),
            log=self.log(label),
            timeout=timeout,
            marker=self.site.marker(self.worker),
            clock=self.site.clock,
            stdin=launched.stdin,
            within=self.site.sandbox.around(reach, self.worktree.path),
            secrets=self.site.secrets,
        )

    def reach(self, order: Order, *, edits: bool = True) -> Reach:
        """What an agent may touch: the work tree, what is its own, and what it signs in with.

        With ``edits`` false it may only look at the work tree.
        """
        agent, own, home = order.agent, (order.home, order.scratch), self.site.sandbox.host.home
        credentials = tuple(home / name for name in runtime_of(agent).credentials)
        there, named = (self.worktree.path,), _paths(agent, home)
        if edits:
            return Reach((*there, *own), named, credentials, network_for(agent))
        return Reach(own, (*there, *named), credentials, network_for(agent))

    def log(self, label: str, kind: str = "log") -> Path:
        """The file for what a program prints, or of another ``kind`` beside it."""
        return self.site.logs(self.molecule.id) / f"{label}.{kind}"


def _paths(agent: Agent, home: Path) -> tuple[Path, ...]:
    """The files that an agent's settings name, such as a script: whoever names them means them to be read."""
    named = tuple(Path(part) for part in (*agent.command, *agent.arguments) if part.startswith("/"))
    return (*(installation(path, home) for path in named[:1]), *named)
