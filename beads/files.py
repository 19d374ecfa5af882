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
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from beads.clock import Clock

STALE_LOCK_SECONDS = 1.0
"""A lock file that nobody touched for this long belongs to a dead process."""

Sync = Callable[[int], None]
"""Brings the open file of that number to the disk, as ``os.fsync`` does."""

_SERIAL = itertools.count()


def publish(
    path: str, write: Callable[[BinaryIO], object], *, prefix: str, sync: Sync | None, share: Callable[[str], object]
) -> None:
    """Make a read-only file at ``path`` that holds what ``write`` writes; readers see all of it or none.

    Args:
        path: where; its directory must be there.
        write: writes the content.
        prefix: of the temporary file's name, which lies beside it.
        sync: brings it to the disk before it has its name; None when being on its way there is enough.
        share: gives the file the permissions that the repository wants beyond those of the process.

    Raises:
        OSError: it could not be written; nothing is left behind.
    """
    temporary, handle = _new(os.path.dirname(path), prefix)  # noqa: PTH120 - Making paths would take longer than writing.
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            if sync is not None:
                sync(file.fileno())
        share(temporary)
        os.replace(temporary, path)  # noqa: PTH105 - See above.
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _new(directory: str, prefix: str) -> tuple[str, int]:
    """A new file of a name that nobody has."""
    while True:
        path = f"{directory}/{prefix}{os.getpid()}_{next(_SERIAL)}"
        with contextlib.suppress(FileExistsError):
            return path, os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444)


class Lock:
    """The lock file of ``path``, taken: the right to replace it.

    Leave the ``with`` block and the lock is gone, whether ``path`` was replaced or not.
    """

    def __init__(self, path: Path, handle: int) -> None:
        self._path = path
        self._handle = handle

    @classmethod
    def take(cls, path: Path) -> Lock | None:
        """Take the lock; None when somebody has it. Directories on the way are made.

        Raises:
            OSError: it cannot be taken by anybody.
        """
        while True:
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                return cls(path, os.open(lock_of(path), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666))
            except FileExistsError:
                return None
            except FileNotFoundError:
                # Git removes directories that it finds empty, such as that of a ref it has just packed.
                continue

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
            self._path.rmdir()
        if not self._ours():
            return False
        lock_of(self._path).replace(self._path)
        if sync is not None:
            _sync_directory(self._path.parent, sync)
        return True

    def _ours(self) -> bool:
        return _is(self._handle, lock_of(self._path))

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if self._ours():
                lock_of(self._path).unlink()
        finally:
            os.close(self._handle)


def _sync_directory(path: Path, sync: Sync) -> None:
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
            if not _is(handle, lock) or os.fstat(handle).st_mtime_ns != before.st_mtime_ns:
                return
        # Others may have waited for the same file. One at a time, so that none removes the lock of the next owner.
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _is(handle, lock):
            lock.unlink()
    except BlockingIOError:
        return
    finally:
        os.close(handle)


def _is(handle: int, path: Path) -> bool:
    """Whether the open file is the one at ``path``."""
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(handle), there)
