"""Files that are there as a whole or not at all, and lock files that do not outlive their owner for long.

Git's own conventions: temporary files have names that ``git gc`` sweeps up, and whoever manages to create
``NAME.lock`` may replace ``NAME`` by renaming it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from beads.clock import Clock

STALE_LOCK_SECONDS = 1.0
"""A lock file that nobody touched for this long belongs to a dead process."""

_SWEPT_MAX = 20
"""How often a file is written that somebody takes away each time before it has its name."""

OURS = b"beadtown\n"
"""How files of ours begin that lie where others have theirs."""

_LEDGER = OURS + b"%20d\n"

Sync = Callable[[int], None]
"""Brings the open file of that number to the disk, as ``os.fsync`` does."""

_SERIAL = itertools.count()


def publish(
    path: str, write: Callable[[BinaryIO], object], *, prefix: str, sync: Sync | None, share: Callable[[str], object]
) -> None:
    """Make a read-only file at ``path`` that holds what ``write`` writes; readers see all of it or none.

    Args:
        path: where; its directory must be there.
        write: writes the content; again when somebody sweeps up the temporary file meanwhile.
        prefix: of the temporary file's name, which lies beside it.
        sync: brings it to the disk before it has its name; None when being on its way there is enough.
        share: gives the file the permissions that the repository wants beyond those of the process.

    Raises:
        OSError: it could not be written; nothing is left behind.
    """
    for left in reversed(range(_SWEPT_MAX)):
        temporary, handle = new(os.path.dirname(path), prefix)
        try:
            with os.fdopen(handle, "wb") as file:
                write(file)
                file.flush()
                if sync is not None:
                    sync(file.fileno())
            share(temporary)
            os.replace(temporary, path)
            return
        except BaseException as error:
            # `git gc --prune=now` sweeps up what others are writing, too.
            swept = isinstance(error, FileNotFoundError) and not os.path.exists(temporary)
            Path(temporary).unlink(missing_ok=True)
            if not (swept and left):
                raise


@contextlib.contextmanager
def turn(path: Path, clock: Clock, seconds: float, share: Callable[[str], object]) -> Iterator[int | None]:
    """Take turns with the other processes that name this file; the kernel lets go of it when its holder dies.

    Args:
        path: the file; it is made where it is not there, with its directory, and stays.
        clock: what the waiting goes by.
        seconds: how long another one is waited for; 0 for not at all.
        share: gives the file the permissions that the repository wants beyond those of the process.

    Yields:
        The open file while it is our turn; it is that of a child, too, that inherits it. None when another one had it
        for too long, and on a file system without such locks.

    Raises:
        OSError: the file cannot be opened.
    """
    try:
        handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        path.parent.mkdir(exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        for made in (path.parent, path):
            share(str(made))
    try:
        deadline = clock.monotonic() + seconds
        while (ours := locked(handle)) is None and clock.monotonic() < deadline:
            clock.sleep(0.002)
        yield handle if ours else None
    finally:
        os.close(handle)


def locked(handle: int) -> bool | None:
    """Take the lock of an open file, without waiting.

    Returns:
        Whether it is ours now; None when somebody else has it, False when the file system has none.
    """
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return None
    except OSError:
        return False
    return True


def new(directory: str, prefix: str) -> tuple[str, int]:
    """A new file, open for writing, of a name that begins so and that nobody has; `git gc` sweeps up ``tmp_`` ones."""
    while True:
        path = f"{directory}/{prefix}{os.getpid()}_{next(_SERIAL)}"
        with contextlib.suppress(FileExistsError):
            return path, os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444)


class Lock:
    """The lock file of ``path``, taken: the right to replace it.

    Leave the ``with`` block and the lock is gone, whether ``path`` was replaced or not.
    """

    def __init__(self, path: str, handle: int, ledger: int | None) -> None:
        self._path = path
        self._lock = f"{path}.lock"
        self._handle = handle
        self._ledger = ledger
        self._note(os.fstat(handle).st_ino)

    def _note(self, file: int) -> None:
        # On a full disk the next writer has to wait for the lock of a dead one.
        with contextlib.suppress(OSError):
            if self._ledger is not None:
                os.pwrite(self._ledger, _LEDGER % file, 0)

    @classmethod
    def take(cls, path: Path, ledger: int | None = None) -> Lock | None:
        """Take the lock; None when somebody has it. Directories on the way are made.

        Args:
            path: what is to be replaced.
            ledger: an open file that nobody else has now, in which to note the lock for :func:`recover`.

        Raises:
            OSError: it cannot be taken by anybody.
        """
        name = str(path)
        while True:
            try:
                handle = os.open(f"{name}.lock", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
                return cls(name, handle, ledger)
            except FileExistsError:
                return None
            except FileNotFoundError:
                # Git, too, removes directories that it finds empty, such as that of a ref it has just packed.
                path.parent.mkdir(parents=True, exist_ok=True)

    def replace(self, data: bytes, sync: Sync | None = os.fsync) -> bool:
        """Replace the file; False when the lock was taken from us meanwhile, and nothing happened.

        Args:
            data: its new content.
            sync: brings it to the disk, and its name, too; None when being on its way there is enough.
        """
        with os.fdopen(os.dup(self._handle), "wb") as file:
            file.write(data)
            file.flush()
            if sync is not None:
                sync(file.fileno())
        with contextlib.suppress(OSError):
            # Git also takes an empty directory for no ref at all.
            os.rmdir(self._path)
        if not self._ours():
            return False
        os.replace(self._lock, self._path)
        if sync is not None:
            _sync_directory(os.path.dirname(self._path), sync)
        return True

    def _ours(self) -> bool:
        return is_at(self._handle, self._lock)

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if self._ours():
                os.unlink(self._lock)
            self._note(0)
        finally:
            os.close(self._handle)


def _sync_directory(path: str, sync: Sync) -> None:
    """Bring the names in a directory to the disk; a file system that keeps a journal brings all earlier ones along."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        sync(handle)
    except OSError as error:
        # Some file systems know no such thing.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)


def lock_of(path: Path) -> Path:
    """Where Git has the lock file of ``path``."""
    return path.with_name(f"{path.name}.lock")


def recover(path: Path, ledger: int) -> None:
    """Remove the lock file of ``path`` at once if it was left by a process that had the ledger before us, and died.

    Args:
        path: what the lock file is for.
        ledger: an open file that nobody else has now.
    """
    noted = os.pread(ledger, 100, 0).removeprefix(OURS).strip()
    # Another program's lock file is not noted there, and has to be waited for.
    if noted.isdigit() and int(noted):
        with contextlib.suppress(FileNotFoundError):
            if lock_of(path).stat().st_ino == int(noted):
                lock_of(path).unlink()
        os.pwrite(ledger, _LEDGER % 0, 0)


def break_stale(lock: Path, clock: Clock) -> None:
    """Wait a moment for a lock file to change or go; one that does neither is a dead process's, and is removed."""
    try:
        handle = os.open(lock, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        before = os.fstat(handle)
        deadline = clock.monotonic() + STALE_LOCK_SECONDS
        while clock.monotonic() < deadline:
            clock.sleep(0.005)
            if not is_at(handle, lock) or os.fstat(handle).st_mtime_ns != before.st_mtime_ns:
                return
        # Others may have waited for the same file. One at a time, so that none removes the lock of the next owner.
        if locked(handle) is not None and is_at(handle, lock):
            lock.unlink()
    finally:
        os.close(handle)


def is_at(handle: int, path: str | Path) -> bool:
    """Whether the open file is the one at ``path``."""
    try:
        there = os.stat(path)
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(handle), there)
