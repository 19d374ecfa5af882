"""Run the ``git`` command: the one place that does.

Objects, refs and history of the *store* go through dulwich (``beads/git.py``). Merging content and keeping
work trees are Git's own business: dulwich's merge disagrees with Git on about one real pair in ten.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import subprocess
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import IO, NamedTuple

from beads.errors import Unreadable

ABSENT = "0" * 40
"""The old value in a compare-and-swap that says: the ref must not exist."""


_OID = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")

_SILENT_SECONDS = 60.0
"""How long an answer is waited for that takes milliseconds."""


class Identity(NamedTuple):
    """A name and an e-mail address, as Git writes them into a commit."""

    name: str
    email: str


class Output(NamedTuple):
    """What a ``git`` command left: its exit status and both streams, decoded with surrogateescape."""

    status: int
    out: str
    err: str


class Talk:
    """A ``git`` process that answers in fields which end with NUL; see :meth:`Git.talk`."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._read = b""

    def say(self, text: str) -> None:
        """Tell it something.

        Raises:
            EOFError: it has ended.
        """
        assert self._process.stdin is not None, "a pipe was asked for"
        try:
            self._process.stdin.write(text.encode("utf-8", "surrogateescape"))
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise EOFError from error

    def field(self) -> str:
        """The next field of its answers, without the NUL; waits for it.

        Raises:
            EOFError: it has ended.
            TimeoutError: it has been silent for a minute.
        """
        assert self._process.stdout is not None, "a pipe was asked for"
        while b"\0" not in self._read:
            if not select.select([self._process.stdout], [], [], _SILENT_SECONDS)[0]:
                raise TimeoutError
            more = os.read(self._process.stdout.fileno(), 1 << 16)
            if not more:
                raise EOFError
            self._read += more
        field, _, self._read = self._read.partition(b"\0")
        return _text(field)

    def close(self) -> int:
        """End it; its exit status."""
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None, "a pipe was asked for"
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_SILENT_SECONDS)
        _end(self._process)
        return self._process.returncode


def _started(
    args: Sequence[str], directory: Path, environ: Mapping[str, str], errors: IO[bytes] | int
) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            ["git", *args],
            cwd=directory,
            env=environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            # Ctrl-C is for us to act on; a Git that it also reached would end half way.
            process_group=0,
        )
    except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
        raise Unreadable(f"git cannot be run in {directory}: {error}", "Install Git 2.38 or newer.") from error


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill what still runs, with what it has started, such as a program that signs and waits for somebody."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


class Git:
    """``git`` in one directory, never asking, never paging, never running a hook of ours.

    Args:
        directory: where commands run: a work tree or a Git directory.
        environ: the environment to start from; ``GIT_*`` variables that would redirect Git are dropped.
    """

    def __init__(self, directory: Path, environ: Mapping[str, str]) -> None:
        self.directory = directory
        self._files: dict[tuple[str, str], str] = {}
        self.environ = {
            # Without our marks: a Git that outlives its worker ends in milliseconds by itself, and killed as a stray
            # it would leave lock files behind.
            **{k: v for k, v in environ.items() if not k.startswith(("GIT_", "BEADTOWN_")) or k in _KEPT},
            "LC_ALL": "C",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_EDITOR": "true",
            "GIT_PAGER": "cat",
        }

    def at(self, directory: Path, extra: Mapping[str, str] | None = None) -> Git:
        """The same Git, run in another directory, and with these environment variables too."""
        there = Git(directory, self.environ)
        there.environ |= extra or {}
        return there

    def run(
        self,
        *args: str,
        stdin: str = "",
        ok: Sequence[int] = (0,),
        extra: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> Output:
        """Run ``git ARGS`` and wait for it.

        Args:
            args: the arguments after ``git``; data is always an argument of its own, never part of a shell line.
            stdin: text for its standard input.
            ok: exit statuses that are answers rather than failures.
            extra: environment variables for this call.
            timeout: seconds after which it is killed; None for as long as it takes.

        Raises:
            Unreadable: Git is missing, ended with a status not in ``ok``, or took too long.
        """
        environ = {**self.environ, **(extra or {})}
        with _started(args, self.directory, environ, subprocess.PIPE) as process:
            try:
                out, err = process.communicate(stdin.encode("utf-8", "surrogateescape"), timeout)
            except subprocess.TimeoutExpired as error:
                raise Unreadable(f"git {args[0]} took longer than {timeout:g} s in {self.directory}") from error
            finally:
                _end(process)
        done = Output(process.returncode, _text(out), _text(err))
        if done.status not in ok:
            said = done.err.strip() or done.out.strip() or "it said nothing"
            raise Unreadable(f"git {' '.join(args[:3])} failed in {self.directory} (exit {done.status}): {said}")
        return done

    def talk(self, *args: str, errors: IO[bytes]) -> Talk:
        """Start ``git ARGS``, which answers what it is told, one after the other.

        Args:
            args: the arguments after ``git``.
            errors: a file for what it says beside its answers.

        Raises:
            Unreadable: Git is missing.
        """
        return Talk(_started(args, self.directory, self.environ, errors))

    def line(self, *args: str, stdin: str = "", extra: Mapping[str, str] | None = None) -> str:
        """The output of ``git ARGS`` without its last newline."""
        return self.run(*args, stdin=stdin, extra=extra).out.rstrip("\n")

    def resolve(self, revision: str) -> str | None:
        """The object id that ``revision`` names, or None when nothing does."""
        if revision.startswith("refs/heads/") and (found := self._loose(revision)):
            return found
        answer = self.run("rev-parse", "--verify", "--quiet", "--end-of-options", revision, ok=(0, 1, 128))
        return answer.out.strip() if answer.status == 0 else None

    @cached_property
    def common(self) -> Path:
        """The Git directory that all work trees of the repository share.

        Raises:
            Unreadable: this is no repository.
        """
        return Path(self.line("rev-parse", "--path-format=absolute", "--git-common-dir"))

    @cached_property
    def own(self) -> Path | None:
        """The repository's own work tree; None when it is bare."""
        at = self.at(self.common)
        if at.line("rev-parse", "--is-bare-repository") == "true":
            return None
        # A submodule's Git directory is not in its work tree, and says where that is.
        place = at.run("config", "--get", "core.worktree", ok=(0, 1)).out.rstrip("\n") or ".."
        return Path(os.path.normpath(self.common / place))

    def _loose(self, ref: str) -> str:
        """What the file of a branch says, which takes no process; empty when that is not simply where the branch is."""
        with contextlib.suppress(OSError, UnicodeDecodeError, Unreadable):
            said = (self.common / ref).read_text("ascii").strip()
            return said if _OID.fullmatch(said) and ".." not in ref else ""
        return ""

    def file(self, commit: str, path: str) -> str | None:
        """What a file has in a commit; None where there is none. Of a full id it is kept: that never changes."""
        if (commit, path) not in self._files:
            found = self.run("show", f"{commit}:{path}", ok=(0, 128))
            if found.status or not _OID.fullmatch(commit):
                return None if found.status else found.out
            # Of the newest commit only: everybody who reads the settings of main asks for it.
            self._files = {key: text for key, text in self._files.items() if key[0] == commit}
            self._files[commit, path] = found.out
        return self._files[commit, path]

    def has(self, commit: str) -> bool:
        """Whether this repository has a commit."""
        return self.resolve(f"{commit}^{{commit}}") is not None

    def swap(self, ref: str, new: str, old: str, reason: str) -> bool:
        """Move ``ref`` from ``old`` to ``new`` if it still is at ``old`` (:data:`ABSENT`: does not exist).

        Returns False when it was elsewhere; then nothing changed. ``reason`` goes into the reflog.
        """
        answer = self.run("update-ref", "-m", reason, ref, new, old, ok=(0, 1, 128))
        return answer.status == 0

    def delete(self, ref: str, old: str) -> bool:
        """Delete ``ref`` if it is at ``old``; False when it was elsewhere or is gone."""
        return self.run("update-ref", "-d", ref, old, ok=(0, 1, 128)).status == 0

    def is_ancestor(self, ancestor: str, descendant: str) -> bool:
        """Whether the history of ``descendant`` contains ``ancestor``; a commit contains itself."""
        return self.run("merge-base", "--is-ancestor", ancestor, descendant, ok=(0, 1)).status == 0


_KEPT = frozenset(
    {"GIT_SSL_CAINFO", "GIT_SSH_COMMAND", "GIT_CONFIG_GLOBAL", "GIT_CONFIG_NOSYSTEM", "GIT_TERMINAL_PROMPT"}
)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")
