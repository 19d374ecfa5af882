"""Landlock: a process gives up, for itself and its children, what it may touch; no program has to be installed.

What it cannot do is make anything private: there is one ``/tmp``, other processes are seen, UDP is open, and nothing
below a directory that may be written is protected. :mod:`refinery.confine` is the program that confines itself.
"""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from refinery.trial import complaint
from refinery.view import Place

_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/tty", "/dev/ptmx", "/dev/pts", "/dev/shm")
_SOURCES = ("/dev/random", "/dev/urandom", "/dev/fd", "/proc")


_CONFINE = Path(__file__).with_name("confine.py")


@functools.cache
def version() -> int:
    """The version of Landlock that this kernel has; 0 for none."""
    if not sys.platform.startswith("linux"):
        return 0
    from refinery import confine

    return confine.version()


def gaps() -> list[str]:
    """What stays open here, each in a few words."""
    found = ["other processes are seen", "UDP is open", "/dev/shm is shared"]
    if version() < 4:
        found.append("TCP is open")
    if version() < 6:
        found.append("other processes of yours can be sent signals")
    return found


@functools.cache
def refusal() -> str:
    """Why it does not work here; empty when it does. Tried once in the life of a process."""
    if version() < 1:
        return "this kernel has no Landlock, or it is switched off"
    trial = [*_program({"read": ["/"], "write": [], "network": False, "limits": {}, "private": ""}), "sh", "-c", ":"]
    return complaint(trial)


def around(places: Sequence[Place], private: Path, *, network: bool, limits: Mapping[str, int]) -> list[str]:
    """What goes before a command so that it runs confined.

    Args:
        places: what is to be seen, outermost first. What is put later into a directory of which only parts are to be
            seen is not.
        private: a directory of the command's own, for its temporary files, and as its home where it has no other.
        network: whether it may use TCP.
        limits: names in Python's ``resource`` without ``RLIMIT_``, and values.
    """
    away = ["/dev", "/proc", *(str(place.path) for place in places if place.mode in ("hide", "mask"))]
    given = ["/", *(str(place.path) for place in places if place.mode == "read")]
    write = [str(place.path) for place in places if place.mode == "write"]
    read = (path for top in given for path in _rest(top, [path for path in away if path != top]))
    rules: dict[str, object] = {
        "read": [*read, *_SOURCES],
        "write": [*write, str(private), *_DEVICES],
        "private": str(private),
        "network": network,
        "limits": dict(limits),
    }
    return _program(rules)


def _program(rules: Mapping[str, object]) -> list[str]:
    return [sys.executable, "-I", "-S", str(_CONFINE), json.dumps(rules), "--"]


def _rest(directory: str, away: Sequence[str]) -> Iterator[str]:
    """What is in a directory besides those places, in as few paths as that can be said in: rules can only add."""
    within = [path for path in away if path.startswith(f"{directory.rstrip('/')}/")]
    if directory in away:
        return
    if not within:
        yield directory
        return
    with os.scandir(directory) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if not entry.is_symlink():
                yield from _rest(entry.path, away)
