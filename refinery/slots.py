"""Where gates run: warm work trees, each with what one run must not share with another.

A slot is used again and again, which saves the making of a work tree and keeps what is declared to be kept. Nothing
else of a run is there for the next one: no file, no temporary file, no process. What is kept is given up, too, after
a run that did not come to its end, because such a run may have left half of something there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from beads.errors import TownError, Unreadable
from refinery import removal
from refinery.containment import Sandbox
from refinery.gate import SLOT
from refinery.processes import Machine
from refinery.workshop import Workshop

_NAME = "gate-"
_BESIDE = ".gates"


@dataclass(frozen=True)
class Place:
    """One work tree with a commit checked out, and what goes with it.

    Attributes:
        directory: the work tree.
        environ: the variables of its own.
        unfinished: the file that is there from before a command starts in it until all have come to their ends.
    """

    directory: Path
    environ: Mapping[str, str]
    unfinished: Path

    def settle(self) -> None:
        """Say that all that ran here has come to its end, so that what is kept can be relied on."""
        self.unfinished.unlink(missing_ok=True)


@dataclass(frozen=True)
class Slots:
    """The places of one clone's gates.

    Attributes:
        workshop: what has the work trees.
        sandbox: what will contain the commands.
        machine: where they will run.
        marker: marks the processes that will be started there.
    """

    workshop: Workshop
    sandbox: Sandbox
    machine: Machine
    marker: str

    def prepare(
        self, slot: int, amount: int, commit: str, keep: Sequence[str], main: str
    ) -> tuple[tuple[Place, ...], str]:
        """The places of one slot, with a commit checked out in each; or why just this commit cannot be.

        Args:
            slot: the number of the slot, from 0.
            amount: how many places a slot has.
            commit: what to check out.
            keep: paths that stay from the run before, where that came to its end.
            main: the commit to try instead, to see whose fault it is, and that new work trees begin with.

        Raises:
            TownError: a work tree cannot be made, cleaned or filled, whatever is to be in it.
            OSError: likewise.
        """
        try:
            return tuple(self._place(slot * amount + n, _named(slot, n), commit, keep, main) for n in range(amount)), ""
        except (TownError, OSError) as error:
            self._place(slot * amount, _named(slot, 0), main, (), main)
            return (), str(error)

    def _place(self, number: int, name: str, commit: str, keep: Sequence[str], main: str) -> Place:
        beside = self.workshop.root / _BESIDE / name
        unfinished, temporary = beside / "unfinished", beside / "tmp"
        left = _text(unfinished)
        if left and left != self.marker:
            # Whoever ran here was killed, and only one at a time may run here: what it started must not go on.
            self.machine.kill_strays(left)
        worktree = self.workshop.open_detached(name, main)
        worktree.checkout(commit, keep=keep if left is None else ())
        if not removal.delete(temporary):
            raise Unreadable(f"{temporary}: cannot be emptied for the next run", "Remove it by hand.")
        temporary.mkdir(parents=True, mode=0o700)
        unfinished.write_text(self.marker, encoding="utf-8")
        # In a sandbox it is one that goes with the command; Landlock's says itself where.
        own = "/tmp" if self.sandbox.confines else str(temporary)
        return Place(worktree.path, {"TMPDIR": own, SLOT: str(number)}, unfinished)


def clear(workshop: Workshop) -> None:
    """Remove all places, with what was kept in them."""
    for worktree in workshop.all():
        # What has a branch is somebody's work, whatever it is called.
        if worktree.branch is None and worktree.path.name.startswith(_NAME):
            worktree.remove(discard=True)
    removal.delete(workshop.root / _BESIDE)


def _named(slot: int, part: int) -> str:
    return f"{_NAME}{slot}.{part}" if part else f"{_NAME}{slot}"


def _text(file: Path) -> str | None:
    """What a file says; None when it is not there."""
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
