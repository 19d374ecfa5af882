"""Killing a process, or failing it, at one system call out of all that it makes: strace does it, this asks it to.

The process is forked from the one that asks, with everything imported already, and waits until strace has taken
hold of it. So what is counted is the work and not the start of an interpreter, and one run takes some milliseconds.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

_NAMES = """
    openat open creat mkdir mkdirat link linkat symlink symlinkat rename renameat renameat2
    write pwrite64 writev pwritev pwritev2 fallocate ftruncate truncate copy_file_range
    fsync fdatasync sync_file_range msync
    chmod fchmod fchmodat chown fchown fchownat utimensat futimesat utimes utime setxattr fsetxattr
    unlink unlinkat rmdir flock fcntl
"""
# A question mark lets strace pass over what this kind of machine does not have.
SYSCALLS = ",".join(f"?{name}" for name in _NAMES.split())
"""Every system call that changes what is on the disk, or a lock."""

LOCKING = frozenset({"flock", "fcntl"})

_CALL = re.compile(r"(\d+) +(\w+)\((.*)")
_PR_SET_PTRACER = 0x59616D61


@dataclass(frozen=True)
class Call:
    """One call that was seen.

    Attributes:
        name: of the system call.
        number: which of that name it was in its process, counted from 1; this is what strace counts.
        text: the rest of what strace says of it.
    """

    name: str
    number: int
    text: str

    @property
    def writes(self) -> bool:
        """Whether it may change what lasts; opening to read, asking, and talking to a process do not."""
        if re.match(r"\d+<(pipe|socket|/dev/null)", self.text):
            return False
        match self.name:
            case "openat" | "open":
                return "O_CREAT" in self.text or "O_TRUNC" in self.text
            case "fcntl":
                return "SETLK" in self.text
            case _:
                return True

    @property
    def kind(self) -> str:
        """The call and the sort of file it is about: what makes it another case than the one before."""
        paths = re.findall(r'[<"](/[^">]*)[">]', self.text)
        name = paths[-1] if paths else ""
        return f"{self.name} {_sort(name)}"

    def __str__(self) -> str:
        return f"{self.name} no. {self.number}: {self.text[:160]}"


@dataclass(frozen=True)
class Run:
    """What became of one run.

    Attributes:
        status: of the process, as the kernel has it.
        told: what the work told before its end, in order.
        calls: the calls that were seen, whoever made them.
        struck: what strace says of the call that was killed or failed; empty when the run never came to it.
    """

    status: int
    told: list[Any]
    calls: list[Call]
    struck: str

    @property
    def killed(self) -> bool:
        return self.status == signal.SIGKILL


class Unavailable(Exception):
    """Calls cannot be watched here; the message is the reason."""


Tell = Callable[[Any], None]


def run(work: Callable[[Tell], object], log: Path, how: str = "") -> Run:
    """Do some work in a child under strace.

    Args:
        work: is given a function to tell things with, as JSON; telling is none of the calls that are counted.
        log: where strace may write.
        how: what is done to which call, as strace writes it: ``write:signal=KILL:when=3``.

    Raises:
        Unavailable: strace is missing, or may not.
    """
    with _forked(work) as (child, line):
        try:
            tracer = _attach(child, log, how)
        except Unavailable:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise
        told, status = _ended(child, line)
        _finish(tracer)
    lines = log.read_text(errors="replace").splitlines()
    return Run(status, told, list(_calls(lines)), _struck(lines))


def fork(work: Callable[[Tell], object]) -> list[Any]:
    """Do some work in a child that nobody watches; what it told."""
    with _forked(work) as (child, line):
        told, status = _ended(child, line)
    assert status == 0, f"the child ended with {status}"
    return told


@contextlib.contextmanager
def _forked(work: Callable[[Tell], object]) -> Iterator[tuple[int, socket.socket]]:
    """A child that will do some work, and the line to it."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        child = os.fork()
        if child == 0:
            ours.close()
            _child(work, theirs)
        theirs.close()
        yield child, ours


def _ended(child: int, line: socket.socket) -> tuple[list[Any], int]:
    """Let a child begin; what it told until its end, and its status."""
    line.send(b"g")
    told = [json.loads(text) for text in _lines(line)]
    return told, os.waitpid(child, 0)[1]


def _child(work: Callable[[Tell], object], end: socket.socket) -> None:
    # Some systems let only an ancestor trace a process, unless it says that anybody may.
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PTRACER, ctypes.c_ulong(-1), 0, 0, 0)
    code = 1
    try:
        end.recv(1)
        work(lambda what: end.sendall(json.dumps(what).encode() + b"\n"))
        code = 0
    except BaseException:  # noqa: BLE001 - Whatever it is, it must not get out into a second copy of the caller.
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _attach(child: int, log: Path, how: str) -> subprocess.Popen[str]:
    program = shutil.which("strace")
    if program is None:
        raise Unavailable("strace is not installed")
    command = [program, "-f", "-y", "-s", "8", "-e", "signal=KILL", "-o", str(log), "-e", f"trace={SYSCALLS}"]
    injection = ["-e", f"inject={how}"] if how else []
    tracer = subprocess.Popen([*command, *injection, "-p", str(child)], stderr=subprocess.PIPE, text=True)
    said = _pipe(tracer.stderr).readline()
    if "attached" not in said:
        said += _pipe(tracer.stderr).read()
        tracer.wait()
        _pipe(tracer.stderr).close()
        raise Unavailable(f"strace may not trace: {' '.join(said.split())}")
    return tracer


def _finish(tracer: subprocess.Popen[str]) -> None:
    _pipe(tracer.stderr).read()
    tracer.wait()
    _pipe(tracer.stderr).close()


def _pipe(stream: IO[str] | None) -> IO[str]:
    assert stream is not None
    return stream


def _lines(end: socket.socket) -> Iterator[bytes]:
    with end.makefile("rb") as file:
        # One that was killed may have been so in the middle of telling.
        yield from (line for line in file if line.endswith(b"\n"))


def _calls(lines: list[str]) -> Iterator[Call]:
    seen: Counter[tuple[str, str]] = Counter()
    for line in lines:
        found = _CALL.match(line)
        if found is not None:
            process, name, text = found.groups()
            seen[process, name] += 1
            yield Call(name, seen[process, name], text)


def _struck(lines: list[str]) -> str:
    """The call that was, cut short by the signal or with an answer that is not the kernel's."""
    for before, line in itertools.pairwise(lines):
        if "killed by SIGKILL" in line and before.rstrip().endswith("= ?"):
            return before
    return next((line for line in lines if "(INJECTED)" in line), "")


def _sort(path: str) -> str:
    """What sort of file that is, without what differs from one of its sort to the next."""
    inside = path.partition("/.git/")[2] or Path(path).name
    inside = re.sub(r"objects/[0-9a-f]{2}(?=/|$)", "objects/xx", inside)
    return re.sub(r"[0-9a-f]{38,40}|(?<=_)\w+$|\d+", "N", inside)
