"""Commands with limits: each is started in a group of its own and leaves nothing running behind.

A worker's command may hang, flood its output, leave children in the background, or move them into sessions of
their own. What is started here carries two variables in its environment: ``BEADTOWN_MARKER`` says who it was
started for, ``BEADTOWN_JOB`` which single command it belongs to. Children inherit both, so that they are
found wherever they went, even by another process after the one that started them was killed.

A town may run inside a job of another town (its own tests do). Each variable then holds one line per level,
outermost first, and a process belongs to every level it names.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal

from beads.clock import Clock
from beads.errors import InvalidInput, Unreadable
from refinery import keeper
from refinery.redaction import NO_SECRETS, Secrets
from refinery.strays import MARKER, first_after, kill, kill_strays, strays

__all__ = [
    "JOB",
    "LOG_MAX",
    "MARKER",
    "THIS_MACHINE",
    "Exit",
    "Job",
    "Kind",
    "Machine",
    "kill_strays",
    "shell",
    "start",
    "strays",
]

JOB = "BEADTOWN_JOB"
"""The environment variable that says which single :class:`Job` a process belongs to."""

LOG_MAX = 64 * 2**20
"""Bytes of output after which a command is killed, unless told otherwise."""

OUTPUT_MIN = 256
"""The smallest ``output_max``, in bytes: room for the note that says how much was left out."""

TIMEOUT_GRACE = 2.0
"""Seconds between the TERM and the KILL that end a command at its time limit."""


Kind = Literal["exited", "signalled", "timeout", "unrunnable", "cancelled"]


@dataclass(frozen=True)
class Exit:
    """How a command ended.

    Attributes:
        kind: ``exited`` with a status; ``signalled`` by somebody else, or by us because its output passed the
            limit (``signal`` is then ``SIGXFSZ``, the signal for just that); ``timeout``; ``unrunnable`` when it
            could not be started or ended with 126 or 127, which is how a shell says so, or when somebody else in
            this process took its exit status (``code`` is then None); ``cancelled`` by us.
        code: the exit status when it exited or was unrunnable, else None.
        signal: the number of the signal that ended the command itself, None when it ended by an exit.
        seconds: from the start until the end was seen.
        output: head and tail of standard output and error, and between them how many bytes are missing. At most
            ``output_max`` bytes in UTF-8; what is not UTF-8 is replaced.
        size: bytes written in all.
        digest: ``sha256:`` and the hexadecimal digest of what is in ``log``.
        log: the file with the whole output, or with the first ``log_max`` bytes of it when there was more. As in
            ``output``, there are no secrets in it.
    """

    kind: Kind
    code: int | None
    signal: int | None
    seconds: float
    output: str
    size: int
    digest: str
    log: Path


def shell(line: str) -> list[str]:
    """The argument vector for a line that a person typed; nothing else may go through a shell."""
    return ["sh", "-c", line]


class Machine:
    """Where commands run: this machine. A simulation has one of its own."""

    def start(
        self,
        argv: Sequence[str],
        *,
        cwd: Path,
        environ: Mapping[str, str],
        log: Path,
        timeout: float,
        marker: str,
        clock: Clock,
        stdin: str = "",
        within: Sequence[str] = (),
        output_max: int = 16384,
        log_max: int = LOG_MAX,
        secrets: Secrets = NO_SECRETS,
    ) -> Job:
        """Start a command in a session of its own and return at once.

        Args:
            argv: the program and its arguments; see :func:`shell` for a line.
            cwd: where it runs.
            environ: its whole environment; the marker and the job are added.
            log: where standard output and error go, together. Replaced when it exists, its directory made when not;
                readable by the user alone.
            timeout: seconds until it is ended. Each :meth:`Job.poll` looks, nothing else does.
            marker: for whom it runs; one line of text. See :func:`strays`.
            clock: what measures the time.
            stdin: what it reads on its standard input.
            within: what goes before the command, such as :meth:`refinery.containment.Sandbox.around` gives.
            output_max: bytes of :attr:`Exit.output`, at least :data:`OUTPUT_MIN`.
            log_max: bytes of output after which it is killed. Looked at by each poll, so poll every second or so: a
                command can write a gigabyte in that time. The log is cut to this size at the end.
            secrets: what must not be in the log. The command then writes into a file that has no name and goes with it;
                each poll brings what is new into the log, redacted.

        Raises:
            InvalidInput: a limit or the marker makes no sense.
            Unreadable: the log cannot be written, or this process ignores SIGCHLD.
        """
        _check(timeout, marker, output_max, log_max)
        began = clock.monotonic()
        name = f"{os.getpid()}-{next(_SERIAL)}-{int(clock.now().timestamp() * 1e6)}"
        tagged = {**environ, MARKER: _nested(environ, MARKER, marker), JOB: _nested(environ, JOB, name)}
        journal = _Log(log, output_max, log_max, secrets)
        # A keeper reports to a descriptor of its own, which the command does not get to see.
        kept = journal.beside("") if keeper.STATUS in within else None
        process = _spawn(keeper.command(within, argv, kept), cwd, tagged, journal, stdin, kept)
        return Job(process, name, journal, clock, began, timeout, kept)

    def kill_strays(self, marker: str) -> int:
        """Kill what runs for this marker, wherever it went; how many. See :func:`refinery.strays.kill_strays`."""
        return kill_strays(marker)


class Job:
    """A command that was started by :meth:`Machine.start`; for use by one thread.

    As a context manager, it is cancelled without grace when the block is left and it still runs.

    Attributes:
        pid: the process id, which is also that of its group and session; 0 when it could not be started.
    """

    def __init__(
        self,
        process: subprocess.Popen[bytes] | int,
        name: str,
        log: _Log,
        clock: Clock,
        began: float,
        timeout: float,
        kept: int | None = None,
    ) -> None:
        self.pid = 0 if isinstance(process, int) else process.pid
        self._process = process
        self._name = name
        self._log = log
        self._clock = clock
        self._began = began
        self._deadline = began + timeout
        self._kept = kept
        self._stop: Kind | None = None
        self._kill_at = math.inf
        self._lost = False
        self._exit: Exit | None = None

    def __enter__(self) -> Job:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.cancel(0.0)

    def poll(self) -> Exit | None:
        """How it ended, or None while it runs. Never waits for it.

        Ends it when a limit has passed: TERM to the group at the time limit and KILL :data:`TIMEOUT_GRACE`
        later, KILL at once for too much output. Once it has ended, whatever it left running is killed before
        this returns.
        """
        if self._exit is None:
            self._log.copy()
            if self._ended() and not self._lingers():
                self._exit = self._finish()
            else:
                self._enforce()
        return self._exit

    def wait(self) -> Exit:
        """Wait until it ends; how it ended."""
        while (done := self.poll()) is None:
            # The pause grows with the time already spent, so that looking costs at most a twentieth of it
            # and no wake-up is wasted on a command that takes minutes.
            spent = self._clock.monotonic() - self._began
            self._clock.sleep(min(0.02, max(0.0005, spent / 20)))
        return done

    def stop(self, grace: float) -> None:
        """Ask the group to end (TERM) and return at once; polls from ``grace`` seconds on kill it.

        Does nothing when it has ended. A second call can only shorten the grace.
        """
        if self.poll() is None:
            self._ask("cancelled", grace)

    def cancel(self, grace: float) -> Exit:
        """End it: TERM to the group, up to ``grace`` seconds, then KILL to the group and everything of this job.

        Returns how it ended, which is not ``cancelled`` when it had ended before.
        """
        self.stop(grace)
        return self.wait()

    def _ended(self) -> bool:
        """Whether the command itself has ended; where the system can tell, without reaping it.

        As long as it is not reaped, its process id and with it that of the group cannot be given to another.
        """
        if isinstance(self._process, int) or self._process.returncode is not None:
            return True
        if sys.platform == "darwin":  # pragma: no cover
            # os.waitid came to macOS with Python 3.13. There a process id comes round after some 99,000 others.
            return self._process.poll() is not None
        try:
            return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        except ChildProcessError:
            # Somebody in this process waited for any child. Python would report a 0, and a failure look green.
            self._lost = True
            return True

    def _lingers(self) -> bool:
        """Whether others in the group still have time to end: a shell dies of TERM before the agent it runs."""
        if self._stop is None or self._clock.monotonic() >= self._kill_at or isinstance(self._process, int):
            return False
        self._process.wait()
        return _signal(self.pid, 0)

    def _enforce(self) -> None:
        now = self._clock.monotonic()
        if self._stop is None and self._log.size() > self._log.size_max:
            self._ask("signalled", 0.0)
        elif self._stop is None and now >= self._deadline:
            self._ask("timeout", TIMEOUT_GRACE)
        elif now >= self._kill_at:
            _signal(self.pid, signal.SIGKILL)

    def _ask(self, why: Kind, grace: float) -> None:
        self._stop = self._stop or why
        self._kill_at = min(self._kill_at, self._clock.monotonic() + grace)
        if grace > 0:
            if self._kept is None:
                _signal(self.pid, signal.SIGTERM)
            else:
                keeper.terminate(self.pid)
            # A stopped process gets its TERM only when it goes on.
            _signal(self.pid, signal.SIGCONT)
        else:
            _signal(self.pid, signal.SIGKILL)

    def _finish(self) -> Exit:
        if isinstance(self._process, int):
            status = self._process
        else:
            _signal(self.pid, signal.SIGKILL)
            status = self._process.wait()
            if self._lost:
                status = _UNKNOWN
            elif self._kept is not None:
                status = keeper.status_of(status, self._kept)
            spent = self._clock.monotonic() - self._began
            kill(JOB, self._name, self._clock, first_after(self.pid, spent))
        if self._kept is not None:
            os.close(self._kept)
        kind, code, number = _verdict(status, self._stop, self._log.size() > self._log.size_max)
        size, output, digest = self._log.close()
        seconds = self._clock.monotonic() - self._began
        return Exit(kind, code, number, seconds, output, size, digest, self._log.path)


THIS_MACHINE = Machine()
start = THIS_MACHINE.start


# ── Starting ─────────────────────────────────────────────────────────────────────────────────────────────────

_SERIAL = itertools.count(1)
_CHUNK = 1 << 20
_UNKNOWN = 256
"""What no command can exit with: how it ended is not known."""


def _check(timeout: float, marker: str, output_max: int, log_max: int) -> None:
    if not 0 < timeout < math.inf:
        raise InvalidInput(f"timeout: {timeout} is not a positive number of seconds")
    if not marker or "\n" in marker or "\0" in marker:
        raise InvalidInput(f"marker: {marker!r} is not one line of text")
    if output_max < OUTPUT_MIN:
        raise InvalidInput(f"output_max: {output_max} is less than {OUTPUT_MIN} bytes")
    if log_max < 1:
        raise InvalidInput(f"log_max: {log_max} is not a positive number of bytes")
    if signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:
        # The system would then throw exit statuses away, and Python report each as 0: a failure that looks green.
        raise Unreadable("SIGCHLD is ignored in this process, so that nobody can tell how a command ended")


def _nested(environ: Mapping[str, str], variable: str, value: str) -> str:
    outer = environ.get(variable)
    return f"{outer}\n{value}" if outer else value


def _spawn(
    argv: Sequence[str], cwd: Path, environ: Mapping[str, str], log: _Log, stdin: str, kept: int | None
) -> subprocess.Popen[bytes] | int:
    """The process, or the status with which a shell would say that it cannot be started."""
    source = log.beside(stdin) if stdin else None
    try:
        return subprocess.Popen(
            list(argv),
            cwd=cwd,
            env=environ,
            stdin=subprocess.DEVNULL if source is None else source,
            stdout=log.descriptor,
            stderr=log.descriptor,
            start_new_session=True,
            pass_fds=() if kept is None else (kept,),
        )
    except (OSError, ValueError, IndexError) as error:
        log.note(f"cannot be started in {cwd}: {error}\n")
        return 127 if isinstance(error, FileNotFoundError) else 126
    finally:
        if source is not None:
            os.close(source)


def _verdict(status: int, stop: Kind | None, flooded: bool) -> tuple[Kind, int | None, int | None]:
    number = -status if status < 0 else None
    if stop is None or stop == "signalled":
        # A flood is a flood even when the command ended before a poll saw it: verdicts must not depend on luck.
        if flooded:
            return "signalled", None, int(signal.SIGXFSZ)
        if status in (126, 127, _UNKNOWN):
            return "unrunnable", None if status == _UNKNOWN else status, None
        return ("exited", status, None) if number is None else ("signalled", None, number)
    return stop, None, number


# ── Output ───────────────────────────────────────────────────────────────────────────────────────────────────


class _Log:
    """The file a command writes into. No pipe: a child that keeps one open could hang us.

    Attributes:
        path: the log, as everybody may see it.
        size_max: the most bytes it may have.
        descriptor: where the command writes; where there are secrets, not the log, but a file without a name.
    """

    def __init__(self, path: Path, output_max: int, size_max: int, secrets: Secrets) -> None:
        self.path = path
        self.size_max = size_max
        self._output_max = output_max
        self._stream = secrets.stream() if secrets else None
        self._copied = 0
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # A new file, so that a stray of an earlier command cannot write into this one's output.
            path.unlink(missing_ok=True)
            self._kept = _new(path)
            self.descriptor = self._nameless("raw") if secrets else self._kept
        except OSError as error:
            raise Unreadable(f"{path}: cannot write the log: {error.strerror}") from error

    def beside(self, text: str) -> int:
        """A descriptor to read ``text`` from: a file without a name, which no reader can hang on."""
        descriptor = self._nameless("stdin")
        with os.fdopen(os.dup(descriptor), "wb") as file:
            file.write(text.encode("utf-8", "surrogateescape"))
        os.lseek(descriptor, 0, os.SEEK_SET)
        return descriptor

    def note(self, text: str) -> None:
        os.write(self.descriptor, text.encode("utf-8", "replace"))

    def size(self) -> int:
        return os.fstat(self.descriptor).st_size

    def copy(self) -> None:
        """Bring what is new into the log, redacted."""
        while self._stream and (chunk := os.pread(self.descriptor, self._room(), self._copied)):
            self._copied += len(chunk)
            self._write(self._stream.feed(chunk))

    def close(self) -> tuple[int, str, str]:
        """Cut the file to its limit and close it; its size before that, its head and tail, its digest."""
        size = self.size()
        if self._stream:
            self.copy()
            self._write(self._stream.close())
            os.close(self.descriptor)
        kept = os.fstat(self._kept).st_size
        output = self._excerpt(kept)
        if kept > self.size_max:
            os.ftruncate(self._kept, self.size_max)
        os.lseek(self._kept, 0, os.SEEK_SET)
        with os.fdopen(self._kept, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return size, output, f"sha256:{digest}"

    def _write(self, data: bytes) -> None:
        # What a full disk has no room for is missing, as where the command writes into the log itself.
        with suppress(OSError):
            while data:
                data = data[os.write(self._kept, data) :]

    def _room(self) -> int:
        """How many bytes to copy at once: not more than the log may have, however many the command wrote."""
        return min(_CHUNK, self.size_max - self._copied)

    def _nameless(self, kind: str) -> int:
        path = self.path.with_name(f"{self.path.name}.{kind}")
        path.unlink(missing_ok=True)
        descriptor = _new(path)
        path.unlink()
        return descriptor

    def _excerpt(self, size: int) -> str:
        whole = os.pread(self._kept, self._output_max + 1, 0)
        if len(whole) <= self._output_max:
            text = whole.decode("utf-8", "replace")
            if len(text.encode()) <= self._output_max:
                return text
        # The note is counted with the largest number it can hold.
        room = (self._output_max - len(_note(size).encode())) // 2
        head, first = _head(whole[:room], room)
        tail, last = _tail(os.pread(self._kept, room, max(first, size - room)), room)
        return head + _note(size - first - last) + tail


def _new(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)


def _note(missing: int) -> str:
    return f"\n… {missing} bytes left out …\n"


def _head(data: bytes, room: int) -> tuple[str, int]:
    """As much of the beginning as fits into ``room`` bytes of UTF-8, and how many bytes of ``data`` that is."""
    # A character that the end of the data cuts in two is left out rather than replaced.
    data = re.sub(rb"[\xc0-\xff][\x80-\xbf]{0,2}\Z", b"", data)
    while (over := len((text := data.decode("utf-8", "replace")).encode()) - room) > 0:
        # A byte that is not UTF-8 becomes three.
        data = data[: len(data) - -(-over // 3)]
    return text, len(data)


def _tail(data: bytes, room: int) -> tuple[str, int]:
    """As :func:`_head`, of the end."""
    data = re.sub(rb"\A[\x80-\xbf]{1,3}", b"", data)
    while (over := len((text := data.decode("utf-8", "replace")).encode()) - room) > 0:
        data = data[-(-over // 3) :]
    return text, len(data)


def _signal(group: int, number: int) -> bool:
    """Send a signal to a group; whether there was anybody to send it to."""
    assert group > 1, "0 would be our own group, and 1 everybody"
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        # PermissionError is what macOS says of a group of which only zombies are left.
        return False
    return True
