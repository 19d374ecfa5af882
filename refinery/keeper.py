"""What a sandbox that stands around a command, as a process of its own, means for those who start and stop it.

Bubblewrap stays while the command runs in a process namespace that ends with it. Told to end, it would end all that
is in there at once; ended by itself, it says what a shell would of how the command ended; and when it cannot even
begin, it exits with a status that might as well be the command's. What becomes of each is decided here.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
from collections.abc import Sequence

from refinery.strays import members

STATUS = "{status}"
"""The argument of a keeper that stands for the number of the descriptor it reports to, in JSON."""

UNRUNNABLE = 126
"""The status, as shells have it, of a command that could not be begun."""

_EXITED = re.compile(rb'"exit-code"\s*:\s*(\d+)')
_SIGNALS_MAX = 31


def command(within: Sequence[str], argv: Sequence[str], descriptor: int | None) -> list[str]:
    """The whole argument vector: what goes around, with the descriptor it reports to, and the command."""
    return [*(str(descriptor) if part == STATUS else part for part in within), *argv]


def status_of(status: int, descriptor: int) -> int:
    """How the command ended, as ``subprocess`` would say it, of a keeper that ended with ``status``.

    Shells, and keepers, add the number of the signal that ended a command to 128; a command that exits with such a
    status itself is taken to have been ended so, which is what its shell would have said as well.
    """
    if status < 0:
        return status
    found = _EXITED.search(os.pread(descriptor, 1 << 16, 0))
    if found is None:
        return UNRUNNABLE
    code = int(found[1])
    return 128 - code if 128 < code <= 128 + _SIGNALS_MAX else code


def terminate(group: int) -> None:
    """Ask everybody in a group to end but the keeper, who leads it and ends when the command does.

    The first process in a namespace, which is the keeper's too, does not hear it.
    """
    inside = [pid for pid in members(group) if pid != group]
    # Where nobody is in there yet, there is only the keeper to ask.
    for pid in inside or [group]:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGTERM)
