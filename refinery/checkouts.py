"""Checkouts of a branch that moves under them: bring them along, and lose nobody's work.

Landing moves the branch's ref. A work tree that has the branch checked out does not notice: its files and index
stay where they were, as if somebody had staged the removal of what landed. :func:`follow` brings it along, with
Git's own two-tree merge, and under three conditions that Git does not give:

* Ignored files are somebody's work too; Git would overwrite them.
* A file that already is what it would become is not in the way.
* A kill at any point leaves something that the next call completes: the index is changed in a copy, and the lock
  that a dead process of ours leaves is told from anybody else's.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from beads.errors import Unreadable
from refinery.git import Git, Output


@dataclass(frozen=True)
class Checkout:
    """A work tree that has the branch checked out.

    Attributes:
        path: its directory.
        clean: nothing is staged, no tracked file is edited, and no merge or the like is under way. Untracked files
            do not count; whether they are in the way depends on where to, see :func:`obstacle`.
    """

    path: Path
    clean: bool


def checkouts(git: Git, branch: str) -> list[Checkout]:
    """The work trees, main and linked ones, that have ``branch`` checked out. A detached HEAD has no branch."""
    found = []
    for record in git.run("worktree", "list", "--porcelain", "-z").out.split("\0\0"):
        place, *facts = record.split("\0")
        path = Path(place.removeprefix("worktree "))
        gone = not path.is_dir() or any(fact.startswith("prunable") for fact in facts)
        if f"branch refs/heads/{branch}" in facts and not gone:
            found.append(Checkout(path, _clean(git.at(path))))
    return found


def obstacle(git: Git, checkout: Checkout, old: str, new: str) -> str:
    """Why ``checkout`` could not follow its branch from ``old`` to ``new``; empty when it could.

    Ask before landing too: a checkout that stays behind shows what landed as if somebody had staged its removal,
    and a careless ``git commit --all`` there would undo it.
    """
    at = git.at(checkout.path)
    if _in_operation(at):
        return f"{checkout.path} is in the middle of a merge, a cherry-pick, a revert or a rebase"
    with _locked_index(at) as index:
        return index.obstacle(old, new) if index else f"the index of {checkout.path} is locked by another git"


def follow(git: Git, checkout: Checkout, old: str, new: str) -> bool:
    """Bring ``checkout`` along after its branch moved from ``old`` to ``new``; False when it has to stay as it is.

    Edits elsewhere stay, staged or not, as with ``git checkout``; where they are in the way nothing is touched.
    Ignored files count as somebody's too, which is stricter than Git. May be repeated: a checkout that followed
    stays as it is, one that was left behind or half-way by a kill is brought to the end.
    """
    at = git.at(checkout.path)
    if at.resolve("HEAD") != new or _in_operation(at):
        return False
    with _locked_index(at) as index:
        return index is not None and not index.obstacle(old, new) and index.move(old, new)


def _clean(at: Git) -> bool:
    try:
        status = at.run("--no-optional-locks", "status", "--porcelain", "--untracked-files=no")
        return not status.out and not _in_operation(at)
    except Unreadable:
        return False


def _in_operation(at: Git) -> bool:
    """Whether somebody is half-way through something that a moving index would spoil."""
    directory = Path(at.line("rev-parse", "--absolute-git-dir"))
    return any((directory / name).exists() for name in _OPERATIONS)


_OPERATIONS = ("MERGE_HEAD", "CHERRY_PICK_HEAD", "REVERT_HEAD", "rebase-merge", "rebase-apply")


@contextmanager
def _locked_index(at: Git) -> Iterator[_Index | None]:
    """A checkout's index, locked against every other Git for as long as the block lasts; None when it is taken."""
    path = Path(at.line("rev-parse", "--path-format=absolute", "--git-path", "index"))
    lock = path.with_name(f"{path.name}.lock")
    held = _lock(lock)
    if held is None:
        yield None
        return
    try:
        # What a kill left of an earlier attempt.
        for leftover in path.parent.glob(f"{path.name}.beadtown*"):
            leftover.unlink(missing_ok=True)
        yield _Index(at, path)
    finally:
        path.with_name(f"{path.name}.beadtown").unlink(missing_ok=True)
        lock.unlink(missing_ok=True)
        os.close(held)


_MARK = b"beadtown moves this checkout along with its branch\n"


def _lock(path: Path) -> int | None:
    """Take ``path`` as Git takes its lock files; a descriptor to keep open meanwhile, or None when it is taken.

    Git cannot tell the lock of a living process from one left by a dead one. Ours can be told: it says that it is
    ours, and is flocked for as long as we live.
    """
    try:
        fresh, name = tempfile.mkstemp(prefix=f"{path.stem}.beadtown-", dir=path.parent)
    except OSError:
        return None
    try:
        os.write(fresh, _MARK)
        fcntl.flock(fresh, fcntl.LOCK_EX)
        # A link appears at once with all of that, and only where nothing is.
        os.link(name, path)
    except OSError:
        os.close(fresh)
        return _take_over(path)
    finally:
        Path(name).unlink(missing_ok=True)
    return fresh


def _take_over(path: Path) -> int | None:
    """The lock file at ``path`` if it is one of ours and its owner is dead."""
    try:
        found = os.open(path, os.O_RDWR)
    except OSError:
        return None
    try:
        fcntl.flock(found, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.pread(found, len(_MARK) + 1, 0) == _MARK and os.path.samestat(os.fstat(found), path.stat()):
            return found
    except OSError:
        pass
    os.close(found)
    return None


class _Change(NamedTuple):
    """A path that two commits have differently: ``A`` added, ``D`` deleted, otherwise changed."""

    status: str
    mode: str
    blob: str
    path: str


class _Index:
    """A checkout's index, changed in a copy beside it that replaces it at once when all is done."""

    def __init__(self, at: Git, path: Path) -> None:
        self._at = at
        self._path = path
        self._copy = path.with_name(f"{path.name}.beadtown")
        if path.exists():
            shutil.copy(path, self._copy)

    def obstacle(self, old: str, new: str) -> str:
        """What is in the way of a move from ``old`` to ``new``; empty when nothing is."""
        changes = _changes(self._at, old, new)
        try:
            self._git("update-index", "-q", "--refresh", ok=(0, 1))
            found = self._blocked(old, new, changes)
            if found and self._adopt(old, changes):
                found = self._blocked(old, new, changes)
        except Unreadable as error:
            # Somebody's damaged index stops this checkout, not the town.
            return error.message
        return found

    def move(self, old: str, new: str) -> bool:
        """Move files and index; the files first, so that an index that says ``new`` is true."""
        answer = self._git("read-tree", "-m", "-u", old, new, ok=(0, 128))
        if answer.status == 0:
            self._copy.replace(self._path)
        return answer.status == 0

    def _git(self, *args: str, stdin: str = "", ok: Sequence[int] = (0,), name: str = "") -> Output:
        # A hook would be told of an index that is not the checkout's yet.
        args = ("-c", f"core.hooksPath={os.devnull}", *args)
        return self._at.run(*args, stdin=stdin, ok=ok, extra={"GIT_INDEX_FILE": f"{self._copy}{name}"})

    def _blocked(self, old: str, new: str, changes: list[_Change]) -> str:
        trial = self._git("read-tree", "-m", "-u", "-n", old, new, ok=(0, 128))
        if trial.status:
            return trial.err.strip().removeprefix("error: ")
        untracked = self._untracked([change.path for change in changes if change.status == "A"])
        return f"Untracked {', '.join(untracked[:5])} would be overwritten." if untracked else ""

    def _untracked(self, added: list[str]) -> list[str]:
        """Untracked files that would make room for ``added``: Git spares only those that are not ignored."""
        suspects = sorted({place for path in added for place in self._occupied(path)})
        found: list[str] = []
        for start in range(0, len(suspects), _ARGUMENTS_MAX):
            some = suspects[start : start + _ARGUMENTS_MAX]
            listed = self._git("--literal-pathspecs", "ls-files", "-z", "--others", "--", *some)
            found += listed.out.split("\0")[:-1]
        return found

    def _occupied(self, path: str) -> Iterator[str]:
        """``path`` if something is there, and whatever is no directory but would have to be one."""
        root = self._at.directory
        if os.path.lexists(root / path):
            yield path
        for parent in list(Path(path).parents)[:-1]:
            if os.path.lexists(root / parent) and ((root / parent).is_symlink() or not (root / parent).is_dir()):
                yield str(parent)

    def _adopt(self, old: str, changes: list[_Change]) -> bool:
        """Take files that already are what the move would make them for moved; whether there were any.

        A kill in the middle of a move leaves such files. The index says nothing of them yet, and Git would not
        write over them.
        """
        entries = {c.path: f"{c.mode} {c.blob}\t{c.path}\0" for c in changes if c.status != "D"}
        self._git("update-index", "-z", "--index-info", stdin="".join(entries.values()), name="-new")
        self._git("update-index", "-q", "--refresh", ok=(0, 1), name="-new")
        others = self._git("diff-files", "-z", "--name-only", name="-new").out.split("\0")
        staged = self._git("diff-index", "--cached", "-z", "--name-only", old).out.split("\0")
        ready = [entry for path, entry in entries.items() if path not in {*others, *staged}]
        self._git("update-index", "--replace", "-z", "--index-info", stdin="".join(ready))
        self._git("update-index", "-q", "--refresh", ok=(0, 1))
        return bool(ready)


_ARGUMENTS_MAX = 500
"""How many paths one command line gets."""


def _changes(git: Git, old: str, new: str) -> list[_Change]:
    """What is different in ``new``."""
    raw = git.run("diff-tree", "-r", "-z", "--raw", "--no-renames", old, new).out.split("\0")
    pairs = zip(raw[::2], raw[1::2], strict=False)
    return [_Change(facts[4], facts[1], facts[3], path) for line, path in pairs if (facts := line.split(" "))]
