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
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from beads.errors import InvalidInput, NotFound, Refused
from refinery import removal
from refinery.git import ABSENT, Git
from refinery.pinned import configured
from refinery.worktree import BRANCH_FILE, Worktree

__all__ = ["Workshop", "Worktree"]

# Git's own reason while it adds a work tree, and ours, which stands until the files are written.
_MAKING = "beadtown is making this"
_HALF_MADE = ("initializing", _MAKING)
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+@=~-]{0,199}")


class _Entry(NamedTuple):
    """A registered work tree: where, its own Git directory, its branch, and why it is locked if it is."""

    path: Path
    admin: Path
    branch: str | None
    locked: str | None

    @property
    def usable(self) -> bool:
        return self.path.is_dir() and not self.path.is_symlink() and self.locked not in _HALF_MADE


class Workshop:
    """The work trees of a repository.

    Args:
        git: Git in the repository.
        root: the directory for the work trees; made when needed. It must not be inside a ``.git`` directory,
            because test runners and other tools pass over those.

    Raises:
        InvalidInput: ``root`` is inside a ``.git`` directory.
    """

    def __init__(self, git: Git, root: Path) -> None:
        self.root = root.resolve()
        self._git = git
        if ".git" in self.root.parts:
            raise InvalidInput(f"{root}: work trees cannot be inside .git", "Choose another [worktree] root.")

    def open(self, name: str, branch: str, start: str) -> Worktree:
        """The work tree of a branch: the one that exists, wherever it is, else a new one at ``root/name``.

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
            entries = self._entries()
            entry = _usable(entries, branch)
            if entry is None:
                self._make_room(entries, path, branch)
                self._ensure(branch, start)
                return self._add(path, branch, start)
            return self._begun(entry)

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
            entries = self._entries()
            entry = next((entry for entry in entries[1:] if entry.path == path), None)
            if entry and entry.usable and entry.branch is None:
                return self._begun(entry)
            self._make_room(entries, path, None)
            commit = self._git.resolve(f"{start}^{{commit}}")
            if commit is None:
                raise NotFound(f"there is no commit {start!r}")
            return self._add(path, None, commit)

    def find(self, branch: str) -> Worktree | None:
        """The work tree of a branch, as it is; None when it has none, or not a whole one."""
        entry = _usable(self._entries(), branch)
        return self._worktree(entry) if entry else None

    def all(self) -> list[Worktree]:
        """The work trees under the root, in order of their paths; half-made ones and vanished ones left out."""
        return [self._worktree(entry) for entry in sorted(self._ours(), key=lambda entry: entry.path) if entry.usable]

    def prune(self) -> None:
        """Forget work trees under the root whose directories are gone or half made, and empty the trash."""
        with self._locked():
            for entry in self._ours():
                if not entry.usable:
                    self._clear(entry)
            removal.empty_trash(self.root)

    # ── Making ───────────────────────────────────────────────────────────────────────────────────────────────

    def _make_room(self, entries: Sequence[_Entry], path: Path, branch: str | None) -> None:
        """Clear away what would keep a new work tree from being made, without losing anything."""
        main, *linked = entries
        if branch is not None and main.branch == branch:
            raise Refused(f"{branch} is checked out in {main.path}", "Switch to another branch there.")
        for entry in linked:
            if entry.path == path and entry.usable:
                raise Refused(f"{path} is the work tree of {entry.branch or 'a gate'}", "Choose another name.")
            if entry.path == path or (branch is not None and entry.branch == branch):
                self._clear(entry)
        if os.path.lexists(path):
            removal.set_aside(self.root, path)

    def _clear(self, entry: _Entry) -> None:
        """Remove a registration without a usable directory; what a half-made one has comes from the commit."""
        if entry.path.is_symlink():
            removal.set_aside(self.root, entry.path)
        elif entry.path.is_dir():
            removal.discard(self.root, entry.path)
        removal.forget(entry.admin)

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
        entry = _Entry(path, self._admins()[path], branch, None)
        worktree = self._worktree(entry)
        worktree.fill()
        worktree.begin()
        (entry.admin / "locked").unlink()
        return worktree

    # ── Finding ──────────────────────────────────────────────────────────────────────────────────────────────

    @cached_property
    def _common(self) -> Path:
        return Path(self._git.line("rev-parse", "--path-format=absolute", "--git-common-dir"))

    def _entries(self) -> list[_Entry]:
        """All work trees that Git knows of, the repository's own first."""
        admins = self._admins()
        listed = self._git.run("worktree", "list", "--porcelain", "-z").out.split("\0\0")[:-1]
        entries = []
        for number, block in enumerate(listed):
            said = dict(line.partition(" ")[::2] for line in block.split("\0"))
            path = Path(said["worktree"])
            admin = admins.get(path) if number else self._common
            if admin is not None:
                branch = _recorded(admin) or said.get("branch", "").removeprefix("refs/heads/") or None
                entries.append(_Entry(path, admin, branch, said.get("locked")))
        return entries

    def _admins(self) -> dict[Path, Path]:
        """The Git directory of each linked work tree, by its path; ``git worktree list`` does not tell."""
        found = {}
        for file in self._common.glob("worktrees/*/gitdir"):
            # The file has the path of the work tree's own .git, absolute or from where the file is.
            with suppress(OSError):
                place = os.fsdecode(file.read_bytes()).rstrip("\n")
                found[Path(os.path.normpath(file.parent / place)).parent] = file.parent
        return found

    def _ours(self) -> list[_Entry]:
        return [entry for entry in self._entries()[1:] if entry.path.parent == self.root]

    def _worktree(self, entry: _Entry) -> Worktree:
        return Worktree(self._git, entry.path, entry.admin, entry.branch, self.root)

    def _begun(self, entry: _Entry) -> Worktree:
        worktree = self._worktree(entry)
        worktree.begin()
        return worktree

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One at a time: what looks half made while we hold this is nobody's present work."""
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / ".lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _usable(entries: Sequence[_Entry], branch: str) -> _Entry | None:
    return next((entry for entry in entries[1:] if entry.branch == branch and entry.usable), None)


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise InvalidInput(f"{name!r} cannot be the name of a work tree's directory")
    return name


def _recorded(admin: Path) -> str | None:
    """The branch that the work tree is for, which is not always the one a worker has switched to."""
    try:
        return (admin / BRANCH_FILE).read_text(encoding="utf-8")
    except OSError:
        return None
