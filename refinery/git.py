"""Run the ``git`` command: the one place that does.

Objects, refs and history of the *store* go through dulwich (``beads/git.py``). Merging content and keeping
work trees are Git's own business: dulwich's merge disagrees with Git on about one real pair in ten.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from beads.errors import Unreadable

ABSENT = "0" * 40
"""The old value in a compare-and-swap that says: the ref must not exist."""


class Identity(NamedTuple):
    """A name and an e-mail address, as Git writes them into a commit."""

    name: str
    email: str


class Output(NamedTuple):
    """What a ``git`` command left: its exit status and both streams, decoded with surrogateescape."""

    status: int
    out: str
    err: str


class Git:
    """``git`` in one directory, never asking, never paging, never running a hook of ours.

    Args:
        directory: where commands run: a work tree or a Git directory.
        environ: the environment to start from; ``GIT_*`` variables that would redirect Git are dropped.
    """

    def __init__(self, directory: Path, environ: Mapping[str, str]) -> None:
        self.directory = directory
        self.environ = {
            # Without our marks: a Git that outlives its worker ends in milliseconds by itself, and killed as a stray
            # it would leave lock files behind.
            **{k: v for k, v in environ.items() if not k.startswith(("GIT_", "BEADTOWN_")) or k in _KEPT},
            "LC_ALL": "C",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_EDITOR": "true",
            "GIT_PAGER": "cat",
        }

    def at(self, directory: Path) -> Git:
        """The same Git, run in another directory."""
        return Git(directory, self.environ)

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
        try:
            done = subprocess.run(
                ["git", *args],
                cwd=self.directory,
                env={**self.environ, **(extra or {})},
                input=stdin.encode("utf-8", "surrogateescape"),
                capture_output=True,
                check=False,
                # Ctrl-C is for us to act on; a Git that it also reached would end half way.
                process_group=0,
                timeout=timeout,
            )
        except subprocess.TimeoutExpired as error:
            raise Unreadable(f"git {args[0]} took longer than {timeout:g} s in {self.directory}") from error
        except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
            raise Unreadable(f"git cannot be run in {self.directory}: {error}", "Install Git 2.38 or newer.") from error
        out = Output(done.returncode, _text(done.stdout), _text(done.stderr))
        if out.status not in ok:
            said = out.err.strip() or out.out.strip() or "it said nothing"
            raise Unreadable(f"git {' '.join(args[:3])} failed in {self.directory} (exit {out.status}): {said}")
        return out

    def line(self, *args: str, stdin: str = "", extra: Mapping[str, str] | None = None) -> str:
        """The output of ``git ARGS`` without its last newline."""
        return self.run(*args, stdin=stdin, extra=extra).out.rstrip("\n")

    def resolve(self, revision: str) -> str | None:
        """The object id that ``revision`` names, or None when nothing does."""
        answer = self.run("rev-parse", "--verify", "--quiet", "--end-of-options", revision, ok=(0, 1, 128))
        return answer.out.strip() if answer.status == 0 else None

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
