"""The work trees of one clone: found, made, taken up again after any crash, and swept.

Killed at any instruction, the next call makes good what was left: a work tree that was half made was never
handed out and is made again; one whose directory vanished is made anew; a directory that nobody knows is moved
aside and kept.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

from beads.errors import InvalidInput, NotFound, Refused
from refinery import removal, reuse
from refinery.git import ABSENT, Git
from refinery.pinned import PinnedGit, configured
from refinery.redaction import NO_SECRETS, Secrets
from refinery.registry import Record, common_directory, linked_work_trees, own_work_tree
from refinery.worktree import BRANCH_FILE, Worktree

__all__ = ["Workshop", "Worktree"]

# Git's own reason while it adds a work tree, and ours, which stands until the files are written.
_MAKING = "beadtown is making this"
_HALF_MADE = ("initializing", _MAKING)
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+@=~-]{0,199}")


class Workshop:
    """The work trees of a repository.

    Args:
        git: Git in the repository.
        root: the directory for the work trees; made when needed. It must not be inside a ``.git`` directory,
            because test runners and other tools pass over those.
        secrets: what is taken out of the files of a work tree before they are put into Git.
        keep: paths that Git ignores and that survive in a work tree from one branch to the next; see
            :mod:`refinery.reuse`. With none, each branch has a new one.

    Raises:
        InvalidInput: ``root`` is inside a ``.git`` directory.
    """

    def __init__(self, git: Git, root: Path, secrets: Secrets = NO_SECRETS, *, keep: Sequence[str] = ()) -> None:
        self.root = root.resolve()
        self.keep = keep
        self._git = git
        self._secrets = secrets
        if ".git" in self.root.parts:
            raise InvalidInput(f"{root}: work trees cannot be inside .git", "Choose another [worktree] root.")

    def open(self, name: str, branch: str, start: str) -> Worktree:
        """The work tree of a branch: the one that exists, wherever it is, else a new one at ``root/name``.

        Where something is kept, a new one has a number for its name, and may be one that another branch had before.
        An existing one is handed out with its files as they are. What is at ``root/name`` and is no work tree is
        moved to ``.aside`` in the root.

        Args:
            name: the directory's name; letters, digits and ``._+@=~-``.
            branch: without ``refs/heads/``.
            start: where the branch is created when it does not exist.

        Raises:
            InvalidInput: the name or the branch's name cannot be used.
            NotFound: the branch does not exist, and neither does ``start``.
            Refused: the branch is checked out in the repository itself, or the directory belongs to another.
        """
        path = self.root / _checked(name)
        with self._locked():
            found = self._records()
            record = _of(found, branch)
            if record is None:
                path = reuse.slot(self.root, [other.path for other in found]) if self.keep else path
                self._make_room(found, path, branch)
                self._ensure(branch, start)
                return self._add(path, branch, start)
            return self._begun(record)

    def open_detached(self, name: str, start: str = "HEAD") -> Worktree:
        """A work tree without a branch at ``root/name``, for a gate: the one that exists, else a new one.

        Args:
            name: the directory's name.
            start: the commit that a new one has; an existing one is handed out as it is.

        Raises:
            InvalidInput: the name cannot be used.
            NotFound: there is no such commit.
            Refused: the directory belongs to a branch.
        """
        path = self.root / _checked(name)
        with self._locked():
            found = self._records()
            record = next((record for record in found if record.path == path), None)
            if record and _usable(record) and record.branch is None:
                return self._begun(record)
            self._make_room(found, path, None)
            commit = self._git.resolve(f"{start}^{{commit}}")
            if commit is None:
                raise NotFound(f"there is no commit {start!r}")
            return self._add(path, None, commit)

    def find(self, branch: str) -> Worktree | None:
        """The work tree of a branch, as it is; None when it has none, or not a whole one."""
        record = _of(self._records(), branch)
        return self._worktree(record) if record else None

    def all(self) -> list[Worktree]:
        """The work trees under the root, in order of their paths; half-made ones and vanished ones left out."""
        return [self._worktree(record) for record in sorted(self._ours()) if _usable(record)]

    def prune(self, *, idle: bool = False) -> None:
        """Forget work trees under the root whose directories are gone or half made, and empty the trash.

        With ``idle``, those that wait to be used again are deleted as well.
        """
        with self._locked():
            for path in reuse.shelved(self.root) if idle or not self.keep else ():
                removal.discard(self.root, path)
            for record in self._ours():
                if not _usable(record):
                    self._clear(record)
            removal.empty_trash(self.root)

    # ── Making ───────────────────────────────────────────────────────────────────────────────────────────────

    def _make_room(self, found: Sequence[Record], path: Path, branch: str | None) -> None:
        """Clear away what would keep a new work tree from being made, without losing anything."""
        own = own_work_tree(self._git, self._common)
        if own is not None and branch is not None and own.branch == branch:
            raise Refused(f"{branch} is checked out in {own.path}", "Switch to another branch there.")
        for record in found:
            if record.path == path and _usable(record):
                raise Refused(f"{path} is the work tree of {record.branch or 'a gate'}", "Choose another name.")
            if record.path == path or (branch is not None and record.branch == branch) or self._half_made(record):
                self._clear(record)
        if os.path.lexists(path):
            removal.set_aside(self.root, path)

    def _half_made(self, record: Record) -> bool:
        """Whether it was left half made, under our root. With such a one Git may not be able to add another."""
        return record.path.parent == self.root and record.locked in _HALF_MADE

    def _clear(self, record: Record) -> None:
        """Remove a registration without a usable directory; what a half-made one has comes from the commit."""
        if record.path.is_symlink():
            removal.set_aside(self.root, record.path)
        elif record.path.is_dir():
            removal.discard(self.root, record.path)
        removal.forget(record.admin)

    def _ensure(self, branch: str, start: str) -> None:
        ref = f"refs/heads/{branch}"
        if branch.startswith("-") or self._git.run("check-ref-format", ref, ok=(0, 1)).status:
            raise InvalidInput(f"{branch!r} cannot be the name of a branch")
        if self._git.resolve(ref) is not None:
            return
        commit = self._git.resolve(f"{start}^{{commit}}")
        if commit is None:
            raise NotFound(f"there is no commit {start!r} to start {branch} from")
        self._git.run("update-ref", ref, commit, ABSENT, extra=configured())

    def _add(self, path: Path, branch: str | None, commit: str) -> Worktree:
        """Add a work tree for the branch, or for the commit without one. Until the end, its lock says: not whole."""
        place = (str(path), branch) if branch else ("--detach", str(path), commit)
        options = ("--quiet", "--no-checkout", "--lock", "--reason", _MAKING)
        self._git.run("worktree", "add", *options, *place, extra=configured())
        record = next(record for record in self._records() if record.path == path)
        worktree = self._worktree(record)
        git = PinnedGit(self._git, path, record.admin)
        if branch is None or not self.keep or not reuse.adopt(git, self.root, path, self.keep):
            worktree.fill()
        worktree.begin()
        (record.admin / "locked").unlink()
        return worktree

    # ── Finding ──────────────────────────────────────────────────────────────────────────────────────────────

    @cached_property
    def _common(self) -> Path:
        return common_directory(self._git)

    def _records(self) -> list[Record]:
        """The linked work trees, each with the branch it is for; that is not always the one a worker switched to."""
        found = linked_work_trees(self._common)
        return [record._replace(branch=_recorded(record.admin) or record.branch) for record in found]

    def _ours(self) -> list[Record]:
        return [record for record in self._records() if record.path.parent == self.root]

    def _worktree(self, record: Record) -> Worktree:
        return Worktree(self._git, record.path, record.admin, record.branch, self.root, self._secrets)

    def _begun(self, record: Record) -> Worktree:
        worktree = self._worktree(record)
        worktree.begin()
        return worktree

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One at a time: what looks half made while we hold this is nobody's present work."""
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / ".lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _of(found: Sequence[Record], branch: str) -> Record | None:
    return next((record for record in found if record.branch == branch and _usable(record)), None)


def _usable(record: Record) -> bool:
    return record.path.is_dir() and not record.path.is_symlink() and record.locked not in _HALF_MADE


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise InvalidInput(f"{name!r} cannot be the name of a work tree's directory")
    return name


def _recorded(admin: Path) -> str | None:
    try:
        return (admin / BRANCH_FILE).read_text(encoding="utf-8")
    except OSError:
        return None
