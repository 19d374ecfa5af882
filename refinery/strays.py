"""Find processes by what their environment says, wherever they went, and kill them.

A child inherits its parent's environment, so that a variable marks all descendants of a command: also those
that moved into a session of their own, and those whose parents are long dead.

What this cannot find: a process that left its group *and* cleared or overwrote its environment; on macOS also
one that left its group to run a program that the system protects, because that hides its environment. Keeping
these in is the sandbox's business.
"""

from __future__ import annotations

import os
import re
import sys
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from beads.clock import Clock, SystemClock

if TYPE_CHECKING:
    import psutil

_LINUX = sys.platform.startswith("linux")

MARKER = "BEADTOWN_MARKER"
"""The environment variable that says for whom a process runs."""


def strays(marker: str) -> list[int]:
    """The ids of this user's living processes that carry exactly this marker, in no particular order.

    The calling process and its ancestors are never among them.
    """
    return [process.pid for process in _carriers(MARKER, marker).found]


def members(group: int) -> list[int]:
    """The ids of the living processes of a process group; on Linux only."""
    found = []
    for pid in _ids_now():
        fields = (_read(f"/proc/{pid}/stat") or b"").rpartition(b")")[2].split()
        if len(fields) > 2 and int(fields[2]) == group and fields[0] not in (b"Z", b"X", b"x"):
            found.append(pid)
    return found


def kill_strays(marker: str, clock: Clock | None = None) -> int:
    """Kill every process that carries this marker, and those they start meanwhile, until none is left.

    Gives up after about two seconds on a process that even SIGKILL does not end. ``clock`` waits between two
    looks; without it, the system's. Returns how many were killed.
    """
    return kill(MARKER, marker, clock or SystemClock())


def kill(variable: str, value: str, clock: Clock, first: int = 0) -> int:
    """Kill every process with ``value`` as a line of ``variable``, until a look finds none; how many.

    One look is not enough: a process may fork while we look. ``first`` is the smallest process id that is
    considered, see :func:`first_after`. Gives up as :func:`kill_strays` does.
    """
    killed: set[psutil.Process] = set()
    for attempt in range(50):
        scan = _carriers(variable, value, first)
        for process in scan.found:
            _end(process)
        killed.update(scan.found)
        if not scan.found and not scan.again:
            break
        clock.sleep(min(0.05, 0.001 * 2**attempt))
    return len(killed)


def _end(process: psutil.Process) -> None:
    import psutil

    # psutil compares the start time, so that a process id given to another is not killed.
    with suppress(psutil.Error):
        process.kill()


class _Carriers(NamedTuple):
    """What one look at the process table gave.

    Attributes:
        found: the processes that carry the value.
        again: some process could not be judged, because it was between two programs or just ended; look again.
    """

    found: list[psutil.Process]
    again: bool


def _carriers(variable: str, value: str, first: int = 0) -> _Carriers:
    """The living processes of this user with ``value`` as a line of ``variable``; ids below ``first`` are skipped."""
    suspects, again = _suspects(os.fsencode(variable), os.fsencode(value), first)
    if not suspects:
        return _Carriers([], again)
    # psutil takes 50 ms to import: only when there is something to find.
    import psutil

    spared = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    found = []
    for pid in (pid for pid in suspects if pid not in spared):
        with suppress(psutil.Error, OSError):
            process = psutil.Process(pid)
            if process.uids().real != os.getuid():
                continue
            # Read again: between the first look and psutil's note of the start time, the id may have changed hands.
            if value in process.environ().get(variable, "").split("\n"):
                found.append(process)
                continue
        # It has gone since it was chosen, perhaps leaving a child. Elsewhere than on Linux nothing was chosen.
        again = again or _LINUX
    return _Carriers(found, again)


def _suspects(variable: bytes, value: bytes, first: int) -> tuple[list[int], bool]:
    """Ids that psutil should look at, and whether to look again.

    On Linux those are few: reading ``/proc`` costs a fiftieth of asking psutil.
    """
    if not _LINUX:  # pragma: no cover
        import psutil

        return [pid for pid in psutil.pids() if pid >= first], False
    carries = re.compile(rb"(?:\A|\0)%b=(?:[^\0]*\n)?%b(?:[\n\0]|\Z)" % (re.escape(variable), re.escape(value)))
    newest, pids = _newest_id(), _ids_now()
    result, again = [], False
    for _ in range(100):
        for pid in pids:
            data = _read(f"/proc/{pid}/environ") if pid >= first else None
            if data == b"":
                again = again or _has_environment(pid)
            elif data and carries.search(data):
                result.append(pid)
        # What was started meanwhile may be the child of one that was gone before we came to it.
        before, newest = newest, _newest_id()
        if newest == before:
            return result, again
        # When the ids have come round, what is new may be anywhere.
        first = first if newest > before else 0
        pids = list(range(before + 1, newest + 1)) if newest > before else _ids_now()
    return result, True


def _has_environment(pid: int) -> bool:
    """Whether a process that showed no environment has one after all, or will have.

    While a process is given another program, it shows none for some microseconds.
    """
    fields = (_read(f"/proc/{pid}/stat") or b"").rpartition(b")")[2].split()
    if len(fields) < 49:
        return False
    state, flags, begin, end = fields[0], int(fields[6]), int(fields[47]), int(fields[48])
    # Kernel threads and the dead have none, and are marked so.
    return (end == 0 or begin != end) and not flags & 0x00200000 and state not in (b"Z", b"X", b"x")


def first_after(pid: int, seconds: float) -> int:
    """The smallest id that a process started by ``pid`` can have, given how long it ran; 0 when unknown.

    ``seconds`` is how long. Ids are handed out in ascending order and start again at the bottom. When fewer ids
    than there are can have been used, and the last one is not below ``pid``, everything that was started since is
    above. For a short command, that spares a look at every process of the system.
    """
    if seconds * _IDS_PER_SECOND_MAX >= _ids():
        return 0
    return pid + 1 if _newest_id() >= pid else 0


def _ids_now() -> list[int]:
    # Path.iterdir would make an object of each of a thousand names.
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208


def _newest_id() -> int:
    """The id that was handed out last to a process or thread; 0 when unknown."""
    fields = (_read("/proc/loadavg") or b"").split()
    return int(fields[4]) if len(fields) == 5 else 0


_IDS_PER_SECOND_MAX = 100_000
"""More processes and threads than any machine starts in a second."""


@cache
def _ids() -> int:
    return int(_read("/proc/sys/kernel/pid_max") or b"0")


def _read(path: str) -> bytes | None:
    """The content of a file in ``/proc``; None when it may not be read or is gone."""
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123
            return file.read()
    except OSError:
        return None
