"""Whether a worker of this clone lives: asked of the kernel, not of a clock.

A worker holds an ``flock`` on a file of its own for as long as it runs. However it dies, the kernel lets go at
once, so there is no heartbeat to write and none to miss. Across machines a lease's expiry has to do instead.
"""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from beads.errors import LostRace, Unreadable
from beads.model import Lease, check_id

WORKERS = "workers"
"""The directory, beside the index of the store, that has the files of a clone's workers."""

BEAT_SECONDS = 1.0
"""How long a worker says nothing again after it has said that it goes on."""


class Presence:
    """This process being a worker; ends with the process or with :meth:`close`.

    Args:
        directory: where the workers of this clone have their files.
        name: the worker's name; one living process per name.
        note: text for whoever looks into the file, such as the process id.

    Raises:
        LostRace: a living process has that name.
        Unreadable: the directory cannot be written.
    """

    def __init__(self, directory: Path, name: str, note: str = "") -> None:
        self.name = name
        self.path = directory / check_id(name)
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._handle = _own(self.path)
        except OSError as error:
            raise Unreadable(f"{self.path} cannot be written: {error}") from error
        self._note = f"{note or os.getpid()}\n".encode()
        self._beaten = -math.inf
        os.ftruncate(self._handle, 0)
        os.pwrite(self._handle, self._note, 0)

    def beat(self, moment: float) -> None:
        """Say that this process goes on; see :func:`silence`. One that is stopped, or hangs, lives and says nothing.

        Args:
            moment: what the machine's monotonic clock says, which is the same for all its processes.
        """
        if moment - self._beaten >= BEAT_SECONDS:
            self._beaten = moment
            os.pwrite(self._handle, b"%d\n" % moment, len(self._note))

    def close(self) -> None:
        """Be gone. The file goes first, while the lock still keeps its name from being taken."""
        self.path.unlink(missing_ok=True)
        os.close(self._handle)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def alive(directory: Path, name: str) -> bool:
    """Whether a process holds that worker's name."""
    try:
        handle = os.open(directory / check_id(name), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def lives(directory: Path, site: str, lease: Lease) -> bool:
    """Whether the holder of a lease is a living process of the clone ``site``, whose workers are in ``directory``."""
    return lease.site == site and alive(directory, lease.worker)


def note(directory: Path, name: str) -> str:
    """What the worker wrote into its file; empty when there is none."""
    return _lines(directory, name)[0]


def silence(directory: Path, name: str, moment: float) -> float:
    """For how many seconds a worker has not said that it goes on; 0 when it never has.

    Args:
        directory: where the workers of this clone have their files.
        name: the worker's name.
        moment: what the machine's monotonic clock says. It stands still while the machine sleeps.
    """
    said = _lines(directory, name)[1]
    return max(0.0, moment - int(said)) if said.isdigit() else 0.0


def _lines(directory: Path, name: str) -> tuple[str, str]:
    try:
        first, _, rest = (directory / check_id(name)).read_text().partition("\n")
    except FileNotFoundError:
        return "", ""
    return first.strip(), rest.partition("\n")[0]


def names(directory: Path) -> list[str]:
    """Every worker that has a file, dead or alive."""
    return sorted(p.name for p in directory.iterdir() if p.name[0] != ".") if directory.is_dir() else []


def forget(directory: Path, name: str) -> None:
    """Remove the file of a dead worker; a living one's stays."""
    with contextlib.suppress(LostRace, FileNotFoundError):
        Presence(directory, name).close()


def _own(path: Path) -> int:
    """Lock the file at ``path``. A new one appears with its lock held: unlocked always means dead."""
    _tidy(path.parent)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    while True:
        handle = _fresh(fresh)
        try:
            os.link(fresh, path)
            return handle
        except FileExistsError:
            os.close(handle)
        finally:
            fresh.unlink()
        with contextlib.suppress(FileNotFoundError):
            handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            if _take(handle, path):
                return handle
            os.close(handle)


def _fresh(path: Path) -> int:
    """A new file with its lock held."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        # Whoever tidies up may look at it before we have it, for a moment, and then has removed it.
        fcntl.flock(handle, fcntl.LOCK_EX)
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_ino == os.fstat(handle).st_ino:
                return handle
        os.close(handle)


def _tidy(directory: Path) -> None:
    """Remove the files of those who were killed before theirs had its name, or just after."""
    for path in directory.glob(".*"):
        with contextlib.suppress(FileNotFoundError, BlockingIOError):
            handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
                path.unlink()
            finally:
                os.close(handle)


def _take(handle: int, path: Path) -> bool:
    """Lock what a dead process left, if it still has its name.

    Raises:
        LostRace: its process lives.
    """
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        process = os.pread(handle, 100, 0).decode(errors="replace").strip()
        os.close(handle)
        raise LostRace(f"{path.name} is running already (process {process})") from None
    return path.stat().st_ino == os.fstat(handle).st_ino
