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
from refinery.registry import common_directory, linked_work_trees, own_work_tree


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
    common = common_directory(git)
    found = [own_work_tree(git, common), *linked_work_trees(common)]
    paths = [record.path for record in found if record and record.branch == branch]
    return [Checkout(path, _clean(git.at(path))) for path in paths if (path / ".git").exists()]


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
        return index is not None and not index.obstacle(old, new) and index.move(new)


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
        _sweep(path)
        yield _Index(at, path)
    finally:
        _sweep(path)
        lock.unlink(missing_ok=True)
        os.close(held)


def _sweep(index: Path) -> None:
    """Remove our scratch files beside the index, those that a kill left too."""
    for scratch in index.parent.glob(f"{index.name}.beadtown*"):
        scratch.unlink(missing_ok=True)


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

    @property
    def entry(self) -> str:
        """The change as ``git update-index`` reads it; mode 0 deletes."""
        return f"{self.mode} {self.blob}\t{self.path}\0"


class _Index:
    """A checkout's index, changed in a copy beside it that replaces it at once when all is done."""

    def __init__(self, at: Git, path: Path) -> None:
        self._at = at
        self._path = path
        self._copy = path.with_name(f"{path.name}.beadtown")
        if path.exists():
            # With its time: Git distrusts what it knows of files that were written no earlier than the index.
            shutil.copy2(path, self._copy)
        self._start = ""

    def obstacle(self, old: str, new: str) -> str:
        """What is in the way of a move from ``old`` to ``new``; empty when nothing is."""
        try:
            self._git("update-index", "-q", "--refresh", ok=(0, 1))
            changes = _changes(self._at, old, new)
            at_old, at_new = self._like(old, changes), self._like(new, changes)
            self._start = old
            if at_new and not at_old and self._at.resolve("HEAD") == new:
                # It is there; whatever else is staged was staged since.
                self._start = new
                return ""
            staged = sorted({change.path for change in changes} - at_old - at_new)
            if staged:
                # Git sees most of these, but not one in a directory that becomes a file.
                return f"{', '.join(staged[:5])} would be overwritten."
            found = self._blocked(new, changes)
            if found:
                self._start = self._further(old, changes, at_old, at_new)
                found = self._blocked(new, changes)
        except Unreadable as error:
            # Somebody's damaged index stops this checkout, not the town.
            return error.message
        return found

    def move(self, new: str) -> bool:
        """Move files and index; the files first, so that an index that says ``new`` is true."""
        answer = self._git("read-tree", "-m", "-u", self._start, new, ok=(0, 128))
        if answer.status == 0:
            self._copy.replace(self._path)
        return answer.status == 0

    def _git(self, *args: str, stdin: str = "", ok: Sequence[int] = (0,), name: str = "") -> Output:
        # A hook would be told of an index that is not the checkout's yet.
        args = ("-c", f"core.hooksPath={os.devnull}", *args)
        return self._at.run(*args, stdin=stdin, ok=ok, extra={"GIT_INDEX_FILE": f"{self._copy}{name}"})

    def _like(self, commit: str, changes: list[_Change]) -> set[str]:
        """The changed paths that the index has as ``commit`` does."""
        return {change.path for change in changes} - {*self._differ(commit)}

    def _differ(self, commit: str, *only: str) -> list[str]:
        return self._git("diff-index", "--cached", "-z", "--name-only", "--no-renames", *only, commit).out.split("\0")

    def _blocked(self, new: str, changes: list[_Change]) -> str:
        trial = self._git("read-tree", "-m", "-u", "-n", self._start, new, ok=(0, 128))
        if trial.status:
            return trial.err.strip().removeprefix("error: ")
        added = {change.path for change in changes if change.status == "A"}
        lost = self._untracked(added) or self._staged_across(added)
        return f"{', '.join(lost[:5])} would be overwritten." if lost else ""

    def _staged_across(self, added: set[str]) -> list[str]:
        """Files staged where ``added`` has a directory, or the other way round: Git would drop them."""
        staged = set(self._differ(self._start, "--diff-filter=A"))
        return sorted((staged & _above(added)) | (added & _above(staged)))

    def _untracked(self, added: set[str]) -> list[str]:
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
        for parent in _above({path}):
            if os.path.lexists(root / parent) and ((root / parent).is_symlink() or not (root / parent).is_dir()):
                yield parent

    def _further(self, old: str, changes: list[_Change], at_old: set[str], at_new: set[str]) -> str:
        """A tree between old and new that has all paths as new where that is how they are already.

        A kill in the middle of a move leaves such files. The index says nothing of them yet, and Git would not
        write over them.
        """
        there = at_new | (at_old & self._on_disk(changes))
        entries = "".join(change.entry for change in changes if change.path in there)
        self._git("read-tree", old, name="-start")
        for index in ("", "-start"):
            self._git("update-index", "--replace", "-z", "--index-info", stdin=entries, name=index)
        self._git("update-index", "-q", "--refresh", ok=(0, 1))
        return self._git("write-tree", name="-start").out.strip()

    def _on_disk(self, changes: list[_Change]) -> set[str]:
        """The changed paths that are on disk what the move would make of them."""
        root = self._at.directory
        gone = {change.path for change in changes if change.status == "D" and not os.path.lexists(root / change.path)}
        wanted = [change for change in changes if change.status != "D"]
        self._git("update-index", "-z", "--index-info", stdin="".join(c.entry for c in wanted), name="-new")
        self._git("update-index", "-q", "--refresh", ok=(0, 1), name="-new")
        differ = self._git("diff-files", "-z", "--name-only", name="-new").out.split("\0")
        return gone | ({change.path for change in wanted} - {*differ})


_ARGUMENTS_MAX = 500
"""How many paths one command line gets."""


def _above(paths: set[str]) -> set[str]:
    """The directories that these paths are in, up to the root and without it."""
    return {path[:at] for path in paths for at, letter in enumerate(path) if letter == "/"}


def _changes(git: Git, old: str, new: str) -> list[_Change]:
    """What is different in ``new``."""
    raw = git.run("diff-tree", "-r", "-z", "--raw", "--no-renames", old, new).out.split("\0")
    pairs = zip(raw[::2], raw[1::2], strict=False)
    return [_Change(facts[4], facts[1], facts[3], path) for line, path in pairs if (facts := line.split(" "))]
