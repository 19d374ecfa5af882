"""Files that a program makes, such as lock files, and that conflict in every second merge: made again, not merged.

``[[merge.generated]]`` of main's ``town.toml`` names such files and the command that makes them. Where a request
conflicts in nothing else, main's side of them is taken, the command is run on the result, in a work tree and a sandbox
as the gate's commands are, and what it leaves becomes part of the candidate before that is tested. Meanwhile the
request waits, and those behind it go past. Where the command fails, or changes other files too, nothing has been won:
it is a conflict like any other.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from beads.clock import Clock
from beads.errors import TownError
from refinery.changes import changed, inside, named, outside
from refinery.containment import Sandbox
from refinery.content import Merged
from refinery.gate import Gate
from refinery.gaterun import GateRun
from refinery.git import Git
from refinery.processes import Machine
from refinery.redaction import Secrets
from refinery.slots import Place, Slots
from refinery.styles import Generated
from refinery.workshop import Workshop

_SLOT = 64
"""The place where commands are run, one at a time; gates have smaller numbers."""


@dataclass(frozen=True)
class Room:
    """What a command is run in: see :class:`refinery.gaterun.GateRun`, which says the same of a gate's.

    Attributes:
        main: the branch that the Refinery owns, as a ref.
    """

    workshop: Workshop
    sandbox: Sandbox
    machine: Machine
    environ: Mapping[str, str]
    secrets: Secrets
    logs: Path
    marker: str
    clock: Clock
    main: str


class _Need(NamedTuple):
    """What is to be run: these rules, on this tree, which has main's side of the paths that conflict."""

    tree: str
    rules: tuple[Generated, ...]


@dataclass
class Regenerator:
    """Knows what commands have made of what conflicts, and runs them for what it does not know yet.

    Attributes:
        git: Git in the repository.
        rules: what main says of generated files.
        known: how often it has found something out: a stack that was made before may be made otherwise now.
    """

    git: Git
    rules: tuple[Generated, ...] = ()
    known: int = 0
    _made: dict[_Need, Merged] = field(default_factory=dict)
    _wanted: dict[_Need, None] = field(default_factory=dict)
    _running: tuple[_Need, GateRun, Place] | None = None

    def __call__(self, ours: str, merged: Merged) -> Merged | None:
        """A merge that conflicts, once more: clean where a command has made the files, else as it is.

        None when that is not known yet; it is asked for, and :meth:`start` finds it out.
        """
        if not self.rules or not merged.paths:
            return merged
        need = self._need(ours, merged)
        if need is None:
            return merged
        if need not in self._made:
            self._wanted[need] = None
            return None
        found = self._made[need]
        return found if found.clean else merged._replace(messages=f"{merged.messages}{found.messages}")

    @property
    def busy(self) -> bool:
        """Whether a command is running."""
        return self._running is not None

    @property
    def ended(self) -> bool:
        """Whether one has come to its end, which :meth:`look` will see."""
        return self._running is not None and self._running[1].poll() is not None

    def look(self, workshop: Workshop) -> None:
        """See what a command has made that has come to its end."""
        if self._running is not None and self._running[1].poll() is not None:
            need, run, place = self._running
            self._running = None
            self._learn(need, self._outcome(need, run, place, workshop))

    def start(self, room: Room) -> None:
        """Run the command that is asked for first, unless one is running."""
        if self._running is None and self._wanted:
            self._start(next(iter(self._wanted)), room)

    def cancel(self) -> None:
        """Kill what runs; its outcome is simply not known."""
        if self._running is not None:
            self._running[1].cancel()
            self._running = None

    def _learn(self, need: _Need, outcome: Merged) -> None:
        self._made[need] = outcome
        # Whoever still wants another one asks again, and maybe nobody does.
        self._wanted.clear()
        self.known += 1

    def _start(self, need: _Need, room: Room) -> None:
        gate = Gate(
            commands=tuple(rule.run for rule in need.rules),
            timeout=max(rule.timeout for rule in need.rules),
            network=any(rule.network for rule in need.rules),
        )
        commit = ""
        try:
            commit = self.git.line("commit-tree", need.tree, stdin="", extra=_NOBODY)
            rooms = Slots(room.workshop, room.sandbox, room.machine, room.marker)
            places, refused = rooms.prepare(_SLOT, 1, commit, (), room.main)
        except (TownError, OSError) as error:
            places, refused = (), str(error)
        if not places:
            self._learn(need, _failed(f"could not be started: {refused}"))
            return
        run = GateRun(
            gate=gate,
            commit=commit,
            tree=need.tree,
            places=places,
            environ=room.environ,
            sandbox=room.sandbox,
            log=room.logs / f"generate-{need.tree[:16]}",
            marker=room.marker,
            clock=room.clock,
            by="refinery",
            secrets=room.secrets,
            machine=room.machine,
        )
        self._running = need, run, places[0]
        run.poll()

    def _outcome(self, need: _Need, run: GateRun, place: Place, workshop: Workshop) -> Merged:
        said = run.poll()
        assert said is not None, "it was polled, and had ended"
        if said.verdict != "pass":
            return _failed(f"failed: {said.subject.partition(': ')[2]}: {said.detail}\n{said.output[-1000:]}")
        try:
            tree = workshop.open_detached(place.directory.name).tree()
            paths = [path for rule in need.rules for path in rule.paths]
            others = changed(self.git, need.tree, tree, outside(paths))
        except TownError as error:
            return _failed(f"left what cannot be read: {error}")
        if others:
            return _failed(f"changed {named(others)} too, which [[merge.generated]] does not name")
        return Merged(True, tree)

    def _need(self, ours: str, merged: Merged) -> _Need | None:
        """What to run for a conflict; None where it is one in other files too."""
        with tempfile.TemporaryDirectory(prefix="beadtown-") as name:
            index = {"GIT_INDEX_FILE": f"{name}/paths"}
            entries = "".join(f"100644 {merged.tree}\t{path}\0" for path in merged.paths)
            self.git.run("update-index", "-z", "--index-info", stdin=entries, extra=index)

            def listed(pathspecs: Sequence[str]) -> bool:
                found = self.git.run("ls-files", "--cached", "--full-name", "-z", "--", *pathspecs, extra=index)
                return bool(found.out)

            if listed(_top(outside([path for rule in self.rules for path in rule.paths]))):
                return None
            rules = tuple(rule for rule in self.rules if listed(_top(inside(rule.paths))))
            index = {"GIT_INDEX_FILE": f"{name}/tree"}
            self.git.run("read-tree", merged.tree, extra=index)
            gone = "".join(f"0 {'0' * len(merged.tree)}\t{path}\0" for path in merged.paths)
            there = self.git.run("--literal-pathspecs", "ls-tree", "-r", "-z", "--full-tree", ours, "--", *merged.paths)
            kept = there.out.replace(" blob ", " ").replace(" commit ", " ")
            self.git.run("update-index", "-z", "--index-info", stdin=gone + kept, extra=index)
            return _Need(self.git.line("write-tree", extra=index), rules)


def _top(pathspecs: Sequence[str]) -> list[str]:
    """The same for Git in any directory; what does not begin with magic is all there is."""
    return [spec.replace(":(", ":(top,", 1) if spec.startswith(":(") else ":(top)" for spec in pathspecs]


def _failed(why: str) -> Merged:
    return Merged(False, "", (), f"It is a generated file, but its command {why}\n")


_NOBODY = {
    f"GIT_{role}_{what}": value
    for role in ("AUTHOR", "COMMITTER")
    for what, value in (("NAME", "beadtown"), ("EMAIL", "town@beadtown.invalid"), ("DATE", "@0 +0000"))
}
