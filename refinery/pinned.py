"""Git held to one work tree: where it is, how it is configured, and the objects we make and compare there."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path

from beads.errors import InvalidInput, NotFound
from refinery.git import Git, Identity, Output

QUIET = {
    "core.hooksPath": os.devnull,
    "core.fsmonitor": "false",
    "core.untrackedCache": "false",
    "core.splitIndex": "false",
    # A mixture of line ends is no reason to lose the file.
    "core.safecrlf": "false",
    # Milliseconds. A ref that is still locked after this was locked by a process that died.
    "core.filesRefLockTimeout": "3000",
    "advice.addEmbeddedRepo": "false",
    "submodule.recurse": "false",
    "gc.auto": "0",
    "maintenance.auto": "false",
    "i18n.commitEncoding": "UTF-8",
}
"""Configuration under which Git does what it is told and nothing else; hooks above all."""

_OID = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")

INDEX = "beadtown-index"
"""The file in a work tree's Git directory that is our index, beside the worker's."""

NOBODY = Identity("beadtown", "town@beadtown.invalid")
"""Who makes commits that nobody will see."""


def configured(settings: Mapping[str, str] = QUIET) -> dict[str, str]:
    """Environment variables that give Git these settings, above those of any file."""
    environ = {"GIT_CONFIG_COUNT": str(len(settings))}
    for number, (key, value) in enumerate(settings.items()):
        environ[f"GIT_CONFIG_KEY_{number}"] = key
        environ[f"GIT_CONFIG_VALUE_{number}"] = value
    return environ


class PinnedGit(Git):
    """Git in one work tree, whatever was done to the ``.git`` file in it, and under :data:`QUIET` settings.

    Without that file, Git would look for a repository further up, and take ours for the whole of another one.

    Args:
        git: the Git of the repository.
        path: the work tree.
        admin: its own Git directory, such as ``.git/worktrees/NAME``.
    """

    def __init__(self, git: Git, path: Path, admin: Path) -> None:
        super().__init__(path, git.environ)
        self._there = git.at(path)
        self.admin = admin
        self._trees: dict[str, str] = {}
        # Some commands fail on a broken index that they do not need: let none meet the worker's.
        index = str(admin / INDEX)
        self._pins = {"GIT_DIR": str(admin), "GIT_WORK_TREE": str(path), "GIT_INDEX_FILE": index, **configured()}

    def run(
        self,
        *args: str,
        stdin: str = "",
        ok: Sequence[int] = (0,),
        extra: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> Output:
        """As :meth:`Git.run`."""
        return self._there.run(*args, stdin=stdin, ok=ok, extra={**self._pins, **(extra or {})}, timeout=timeout)

    def commit_of(self, revision: str) -> str:
        """The commit that a revision names.

        Raises:
            NotFound: it names none.
        """
        return self._need(revision, "commit")

    def tree_of(self, revision: str) -> str:
        """The tree of the commit, or the tree itself, that a revision names.

        Raises:
            NotFound: it names none.
        """
        if revision not in self._trees or not _OID.fullmatch(revision):
            self._trees[revision] = self._need(revision, "tree")
        return self._trees[revision]

    def shape(self, commit: str) -> tuple[str, ...]:
        """A commit's tree and parents."""
        return tuple(self.line("rev-parse", f"{commit}^{{tree}}", f"{commit}^@").split())

    def merge(self, ours: str, theirs: str) -> tuple[str, tuple[str, ...]]:
        """The tree that merging two commits gives, and the paths in it where Git could not decide."""
        args = ("merge-tree", "--write-tree", "-z", "--name-only", "--no-messages", ours, theirs)
        tree, *paths = self.run(*args, ok=(0, 1)).out.split("\0")[:-1]
        return tree, tuple(dict.fromkeys(paths))

    def apply(self, tree: str, old: str, new: str) -> tuple[str, tuple[str, ...]]:
        """As :meth:`merge`, of a tree with what changed between two others."""
        # merge-tree finds out by itself what a merge builds on: give it a history that says so.
        common = self.bare(old)
        return self.merge(self.bare(tree, common), self.bare(new, common))

    def bare(self, tree: str, *parents: str) -> str:
        """A commit that only tells Git what builds on what; the same for the same arguments."""
        return self.make_commit(tree, parents, "", NOBODY, NOBODY, None)

    def make_commit(
        self,
        tree: str,
        parents: Iterable[str],
        message: str,
        author: Identity,
        committer: Identity,
        when: datetime | None,
    ) -> str:
        """Make a commit, which no ref has yet; its id.

        Args:
            tree: what it holds.
            parents: what it builds on, in this order.
            message: what it says, as it is.
            author: who did it.
            committer: who wrote it down.
            when: the time of both, to the second; None for the beginning of time.

        Raises:
            InvalidInput: the time has no zone.
        """
        if when is not None and when.tzinfo is None:
            raise InvalidInput(f"when: {when} has no time zone")
        date = f"@{int(when.timestamp()) if when else 0} +0000"
        extra = {
            "GIT_AUTHOR_NAME": author.name,
            "GIT_AUTHOR_EMAIL": author.email,
            "GIT_AUTHOR_DATE": date,
            "GIT_COMMITTER_NAME": committer.name,
            "GIT_COMMITTER_EMAIL": committer.email,
            "GIT_COMMITTER_DATE": date,
        }
        args = [word for parent in parents for word in ("-p", parent)]
        return self.line("commit-tree", tree, *args, "-F", "-", stdin=message, extra=extra)

    def _need(self, revision: str, kind: str) -> str:
        oid = self.resolve(f"{revision}^{{{kind}}}")
        if oid is None:
            raise NotFound(f"there is no {kind} {revision!r}")
        return oid
