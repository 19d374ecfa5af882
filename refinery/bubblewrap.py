"""Bubblewrap: a view of the file system, process ids and a network of one's own, made of the kernel's namespaces."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

from refinery.keeper import STATUS
from refinery.trial import complaint
from refinery.view import Mode, Place

_NAMESPACES = ("--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try")
_ROOT = ("--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc")
_OPTIONS: Mapping[Mode, tuple[str, ...]] = {
    "hide": ("--tmpfs",),
    "mask": ("--ro-bind", "/dev/null"),
    "read": ("--ro-bind",),
    "write": ("--bind",),
}


def around(
    program: str, places: Sequence[Place], directory: Path, *, network: bool, limits: Mapping[str, int]
) -> list[str]:
    """What goes before a command so that it runs in a sandbox.

    Nobody needs ``--new-session``: the command is started in a session of its own, without a terminal, and a new one
    inside would not hear when its group is asked to end.

    Args:
        program: where ``bwrap`` is.
        places: what is to be seen, outermost first.
        directory: where the command starts.
        network: whether it has the machine's network; otherwise one in which there is nobody else.
        limits: options of the shell's ``ulimit``, and their values.
    """
    own = () if network else ("--unshare-net",)
    seen = [part for place in places for part in _seen(place)]
    head = [program, *_NAMESPACES, *own, "--die-with-parent", "--json-status-fd", STATUS, *_ROOT, *seen]
    return [*head, "--chdir", str(directory), "--", *_limited(limits)]


def _seen(place: Place) -> tuple[str, ...]:
    options, path = _OPTIONS[place.mode], str(place.path)
    return (*options, path) if len(options) > 1 or place.mode == "hide" else (*options, path, path)


def _limited(limits: Mapping[str, int]) -> list[str]:
    """A shell that sets limits and becomes the command; nothing of the command's is part of its line.

    Where a limit is stricter already, it stays. Shells do not agree on the letter for processes.
    """
    lines = [f"ulimit -{letter} {value}" for letter, value in limits.items()]
    told = [f"{line} || ulimit -p{line[9:]}" if line.startswith("ulimit -u") else line for line in lines]
    return ["sh", "-c", " ".join(f"{{ {line}; }} 2>/dev/null;" for line in ["ulimit -c 0", *told]) + ' exec "$@"', "sh"]


@functools.cache
def refusal(program: str) -> str:
    """Why ``bwrap`` does not work here, in its own words; empty when it does. Tried once in the life of a process."""
    trial = [program, *_NAMESPACES, "--unshare-net", "--die-with-parent", *_ROOT, "--tmpfs", "/tmp", "sh", "-c", ":"]
    return complaint(trial)
