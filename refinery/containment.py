"""What a process may touch, and the sandbox that holds it to that: bubblewrap, else Landlock, or none by choice.

A sandbox is something that goes before a command (:meth:`Sandbox.around`); starting, following and ending the
process is the same with one and without (:mod:`refinery.processes`).
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple

from beads.errors import Refused
from refinery import bubblewrap, landlock, removal
from refinery.view import Host, places

Kind = Literal["bubblewrap", "landlock", "none"]
Choice = Literal["auto", "bubblewrap", "landlock", "none"]

PREFERRED: tuple[Kind, ...] = ("bubblewrap", "landlock")
"""What ``auto`` tries, best first."""


@dataclass(frozen=True)
class Bounds:
    """What one process may use; 0 for as much as there is.

    Attributes:
        memory: MiB of data. Address space is not counted: some programs reserve more of it than any machine has.
        processes: how many, with their threads, there may be in the sandbox; under Landlock, of the user in all. The
            kernel does not count those of root.
        cpu: seconds of processor time.
        file: MiB of the largest file that is written.
    """

    memory: int = 8192
    processes: int = 4096
    cpu: int = 0
    file: int = 16384


@dataclass(frozen=True)
class Reach:
    """What one process may touch besides the system's own files, which everybody may read.

    Attributes:
        write: directories and files that it may change.
        read: those that it may only look at.
        credentials: files to sign in with, which it may change, although what is around them is not seen.
        network: whether it has the machine's network.
    """

    write: tuple[Path, ...] = ()
    read: tuple[Path, ...] = ()
    credentials: tuple[Path, ...] = ()
    network: bool = False


class Trial(NamedTuple):
    """Whether a kind of sandbox works here; ``reason`` says why not, and is empty when it does."""

    kind: Kind
    reason: str


@dataclass(frozen=True)
class Sandbox:
    """How the processes of one clone are contained. With kind ``none``, not at all.

    Attributes:
        choice: what ``town.toml`` says.
        host: the machine.
        common: the repository's Git directory; what is in it can be read, but for :attr:`private`.
        private: our own files in there, with the logs and homes of everybody's work.
        main: the user's own work tree, which may hold what is not for others.
        read: further paths that may be read.
        write: further paths that may be changed.
        bounds: what each process may use.
    """

    choice: Choice
    host: Host
    common: Path
    private: Path
    main: Path | None = None
    read: tuple[Path, ...] = ()
    write: tuple[Path, ...] = ()
    bounds: Bounds = field(default_factory=Bounds)

    @cached_property
    def kind(self) -> Kind:
        """What is in force.

        Raises:
            Refused: what was chosen does not work here, or nothing does.
        """
        if self.choice == "none":
            return "none"
        tried = self.trials() if self.choice == "auto" else [_try(self.choice, self.host)]
        works = next((trial.kind for trial in tried if not trial.reason), None)
        if works is None:
            reasons = "; ".join(f"{trial.kind}: {trial.reason}" for trial in tried)
            raise Refused(f"nothing can contain what agents and tests do here ({reasons})", INSTALL)
        return works

    def need(self) -> None:
        """See to it that something is in force, before anything is begun that could not be gone on with.

        Raises:
            Refused: see :attr:`kind`.
        """
        _ = self.kind

    @property
    def confines(self) -> bool:
        """Whether there is a sandbox at all."""
        return self.kind != "none"

    def trials(self) -> list[Trial]:
        """What works here, and what does not, best first."""
        return trials(self.host)

    def around(self, reach: Reach, directory: Path) -> list[str]:
        """What goes before a command that starts in ``directory`` and may touch no more than that; see `start`.

        Raises:
            Refused: see :attr:`kind`.
        """
        kind = self.kind
        if kind == "none":
            return []
        boxed = kind == "bubblewrap"
        hidden = [path for path in (self.main, self.private if boxed else None) if path]
        read = (self.common, *self.read, *reach.read, *(_resolvers() if reach.network else ()))
        pinned = _pinned(reach.write) if boxed else ()
        seen = places(self.host, hidden, read, (*self.write, *reach.write), reach.credentials, pinned)
        if boxed:
            program, limits = _bwrap(self.host) or "bwrap", _for_shells(self.bounds)
            return bubblewrap.around(program, seen, directory, network=reach.network, limits=limits)
        private = self.scratch(directory.name)
        removal.delete(private)
        private.mkdir(parents=True)
        return landlock.around(seen, private, network=reach.network, limits=_for_resource(self.bounds))

    def scratch(self, name: str) -> Path:
        """Where Landlock lets what runs in a directory of that name keep its temporary files."""
        return self.private / "private" / name


def trials(host: Host) -> list[Trial]:
    """What works on a machine, and what does not, best first."""
    return [_try(kind, host) for kind in PREFERRED]


def _try(kind: Kind, host: Host) -> Trial:
    if kind == "landlock":
        return Trial(kind, landlock.refusal())
    program = _bwrap(host)
    return Trial(kind, bubblewrap.refusal(program) if program else "bwrap is not on the PATH")


def _bwrap(host: Host) -> str | None:
    return shutil.which("bwrap", path=":".join(map(str, host.search)))


INSTALL = 'Install bubblewrap, or set kind = "none" in [sandbox] of town.toml to do without; `town doctor` says more.'


def _pinned(write: Sequence[Path]) -> list[Path]:
    """The files that say which repository a work tree belongs to: Git believes them, so nobody may replace them."""
    return [path / ".git" for path in write if (path / ".git").is_file() and not (path / ".git").is_symlink()]


def _resolvers() -> tuple[Path, ...]:
    """What looking up a host's name takes, wherever it is."""
    return Path("/etc/resolv.conf"), Path("/run/systemd/resolve")


def _for_shells(bounds: Bounds) -> dict[str, int]:
    # In the units of POSIX's ulimit: KiB, seconds, and blocks of 512 bytes.
    named = {"d": bounds.memory * 1024, "u": bounds.processes, "t": bounds.cpu, "f": bounds.file * 2048}
    return {letter: value for letter, value in named.items() if value}


def _for_resource(bounds: Bounds) -> dict[str, int]:
    memory, file = bounds.memory << 20, bounds.file << 20
    named = {"DATA": memory, "NPROC": bounds.processes, "CPU": bounds.cpu, "FSIZE": file}
    return {name: value for name, value in named.items() if value}
