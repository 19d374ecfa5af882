"""One clone of the repository, with what the roles need to work in it, and the names they agree on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from beads import liveness
from beads.clock import Clock
from beads.errors import NotFound, Unreadable
from beads.model import Bead, check_id
from beads.ops import Report
from beads.remote import Remote
from beads.store import Store
from refinery import removal
from refinery.containment import Sandbox
from refinery.git import Git, Identity
from refinery.processes import THIS_MACHINE, Exit, Machine
from refinery.redaction import NO_SECRETS, Secrets, redact_below
from refinery.sandbox import environment
from refinery.space import shortage
from refinery.workshop import Workshop, Worktree
from roles.drive import Running
from roles.settings import Settings

TOWN = Identity("beadtown", "town@beadtown.invalid")
"""The committer of everything the town commits; the author is the worker."""

BRANCHES = "polecat/"
SALVAGE = "refs/beads/salvage/"
REQUESTS = "refs/beads/request/"
SCRATCH = ".scratch"


@dataclass(frozen=True)
class Site:
    """What a role works with; made once by the command line, or by a test.

    Attributes:
        store: the issue store.
        git: Git in the repository.
        workshop: its work trees.
        settings: what ``town.toml`` says.
        environ: the user's environment, from which processes get what is allow-listed.
        sandbox: what contains the processes that work here.
        clock: what time it is.
        name: tells this clone from every other one; leases carry it.
        remote: what the store is shared through with other clones, if it is.
        secrets: what must be in nothing that is written down.
        machine: where what works here is run.
    """

    store: Store
    git: Git
    workshop: Workshop
    settings: Settings
    environ: Mapping[str, str]
    sandbox: Sandbox
    clock: Clock
    name: str
    remote: Remote | None = None
    secrets: Secrets = NO_SECRETS
    machine: Machine = THIS_MACHINE

    @property
    def workers(self) -> Path:
        """Where living workers of this clone have their files."""
        return self.store.directory / liveness.WORKERS

    def alive(self, worker: str) -> bool:
        """Whether that worker of this clone is a living process."""
        return liveness.alive(self.workers, worker)

    def marker(self, worker: str) -> str:
        """What marks the processes of a worker: two towns of one user may have workers of the same name."""
        return f"{self.name}/{worker}"

    def home(self, bead_id: str, agent: str) -> Path:
        """The home of an agent's program while it works on a bead, and on no other; see :class:`roles.task.Order`.

        It may have keys and whatever an agent was told, for the eyes of this user alone, and goes with the molecule.
        """
        directory = self.homes / check_id(bead_id) / agent
        for made in (self.homes, directory.parent, directory):
            made.mkdir(mode=0o700, parents=True, exist_ok=True)
        return directory

    @property
    def homes(self) -> Path:
        """Where the homes of agents' programs are, in a directory for each bead."""
        return self.store.directory / "homes"

    def scratch(self, bead_id: str, label: str) -> Path:
        """A directory for what an agent's program is to write down about one attempt at a step of a bead."""
        directory = self.logs(bead_id) / f"{label}{SCRATCH}"
        directory.mkdir(mode=0o700, exist_ok=True)
        return directory

    def clear_scratch(self, bead_id: str) -> None:
        """Take secrets out of what agents' programs, which are dead by now, wrote down about a bead.

        What cannot be read is deleted.
        """
        for directory in self.logs(bead_id).glob(f"*{SCRATCH}"):
            try:
                redact_below(directory, self.secrets)
            except OSError:
                removal.delete(directory)

    def logs(self, bead_id: str) -> Path:
        """The directory for the logs of the work on a bead."""
        directory = self.store.directory / "logs" / check_id(bead_id)
        directory.mkdir(parents=True, exist_ok=True)
        return directory

    @property
    def main(self) -> str:
        """The name of the main branch's ref."""
        return f"refs/heads/{self.settings.town.branch}"

    def main_head(self) -> str:
        """The commit main is at.

        Raises:
            NotFound: there is no such branch.
        """
        head = self.git.resolve(self.main)
        if head is None:
            branch = self.settings.town.branch
            raise NotFound(f"there is no branch {branch!r}", "Create it, or set [town] branch to yours.")
        return head

    def shortage(self) -> str:
        """Why there is no room on the disk for one more work tree, in words; empty when there is."""
        table = self.settings.worktree
        return shortage(self.workshop, self.git, self.main_head(), table.disk_max, table.disk_free)

    def surroundings(self, allow: Iterable[str], **extra: str) -> dict[str, str]:
        """The environment of a process we start: the usual variables, those allowed by name, and ``extra``."""
        return environment(self.environ, allow, extra)

    def offer(self, bead: Bead, commit: str) -> None:
        """Put a molecule's work where other clones find it. When the remote cannot be reached, they do it again."""
        if self.remote is not None:
            with suppress(Unreadable):
                self.remote.offer(commit, f"{bead.id}/{bead.epoch}")

    def obtain(self, bead_id: str) -> None:
        """Bring the work on a molecule here that was done in another clone."""
        if self.remote is not None:
            with suppress(Unreadable):
                self.remote.obtain(bead_id)

    def salvage(self, worktree: Worktree, bead: Bead, epoch: int, why: str) -> str | None:
        """Save what is on disk and not committed to the bead's salvage ref; its commit, or None when all is (I1)."""
        message = f"Salvage of {bead.id}: {self.secrets.text(why)}\n\nBead: {bead.id}\nEpoch: {epoch}\n"
        return worktree.snapshot(f"{SALVAGE}{bead.id}/{epoch}", message, TOWN, self.clock.now())

    def salvaged(self, bead: Bead, head: str) -> str | None:
        """The newest salvage of uncommitted work on top of ``head``, or None."""
        form = "--format=%(objectname) %(parent)"
        lines = self.git.line("for-each-ref", form, "--sort=-committerdate", f"{SALVAGE}{bead.id}/").splitlines()
        commits = (line.split(" ") for line in lines)
        return next((oid for oid, first, *_ in commits if first == head), None)


def branch_of(bead: Bead) -> str:
    """The branch of a molecule's work."""
    return BRANCHES + bead.id


class Stopped(Exception):
    """This process was asked to stop; what it holds is to be given back.

    Attributes:
        report: what the run of an agent that was ended by this had come to, if there was one.
    """

    report: Report | None = None


def wait(job: Running, site: Site, stopping: Callable[[], bool], meanwhile: Callable[[], None]) -> Exit:
    """Wait for a job, looking now and then whether to stop and doing ``meanwhile``.

    Raises:
        Stopped: ``stopping`` said so. The job is dead by then, as it is whatever else is raised.
    """
    pause = 0.002
    try:
        while (exit := job.poll()) is None:
            if stopping():
                job.cancel(grace=2.0)
                raise Stopped
            meanwhile()
            site.clock.sleep(pause)
            pause = min(pause * 1.5, 0.05)
    except BaseException:
        # Who has lost the molecule, perhaps to somebody who is in the work tree already, must not go on in there.
        job.cancel(grace=0.0)
        raise
    return exit
