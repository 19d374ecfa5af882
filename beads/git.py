"""Objects and refs of the repository the store lives in: the one file that knows dulwich.

Everything is bytes and hexadecimal object ids here; what a bead is stays in ``beads/model.py``. Reading a ref
does without dulwich, because importing it takes longer than answering.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NewType

from beads.clock import Clock, SystemClock
from beads.errors import NotFound, Unreadable

if TYPE_CHECKING:
    from dulwich.objects import ObjectID, ShaFile
    from dulwich.repo import Repo

Oid = NewType("Oid", str)
"""The hexadecimal id of an object."""

STALE_LOCK_SECONDS = 1.0
"""A ref lock that nobody touched for this long, while we hold the writers' lock, belongs to a dead process."""

_PACK_FROM = 64
"""From this many new objects on, a transaction is written as one pack instead of loose files."""

_TREE = 0o40000
_FILE = 0o100644


@dataclass(frozen=True)
class Commit:
    """One transaction as Git has it."""

    oid: Oid
    tree: Oid
    parents: tuple[Oid, ...]
    author: str
    when: datetime
    message: str


@dataclass(frozen=True)
class Change:
    """A file that differs between two trees; an absent side is None."""

    path: str
    old: Oid | None
    new: Oid | None


class Repository:
    """The Git repository around a directory, as an object store with refs.

    Args:
        start: a directory inside it: the work tree, a linked worktree, a submodule, or the Git directory.
        clock: for waiting on other processes' locks, with a bound.

    Raises:
        Unreadable: there is none, or it cannot be read.
    """

    def __init__(self, start: Path, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self.control, self.common = _discover(start)
        self._repo: Repo | None = None

    @property
    def _dulwich(self) -> Repo:
        if self._repo is None:
            from dulwich.errors import NotGitRepository
            from dulwich.repo import Repo

            try:
                self._repo = Repo(str(self.common), bare=True)
            except (NotGitRepository, OSError, ValueError) as error:
                raise Unreadable(f"{self.common} is not a Git repository that can be read: {error}") from error
            # Packs stay open for the life of the process; closed late, they would complain to the terminal.
            weakref.finalize(self, self._repo.close)
        return self._repo

    def head(self, ref: str) -> Oid | None:
        """The commit that ``ref`` is at, or None when it does not exist."""
        try:
            return Oid((self.common / ref).read_text().strip())
        except (FileNotFoundError, NotADirectoryError):
            return self._packed(ref)
        except OSError as error:
            raise Unreadable(f"{ref} cannot be read: {error}") from error

    def _packed(self, ref: str) -> Oid | None:
        try:
            lines = (self.common / "packed-refs").read_text().splitlines()
        except FileNotFoundError:
            # A ref that was packed between the two looks would be missed without the second one.
            loose = self.common / ref
            return Oid(loose.read_text().strip()) if loose.is_file() else None
        return next((Oid(line.split(" ", 1)[0]) for line in lines if line.endswith(f" {ref}")), None)

    def swap(self, ref: str, old: Oid | None, new: Oid) -> bool:
        """Move ``ref`` to ``new`` if it is at ``old`` (None: if it does not exist). The one compare-and-swap.

        Returns False when somebody else moved it first; then nothing changed.
        """
        from dulwich.file import FileLocked
        from dulwich.protocol import ZERO_SHA
        from dulwich.refs import Ref

        # None would mean "whatever it is" to dulwich; absence is the zero id.
        expected = _id(old) if old else ZERO_SHA
        deadline = self._clock.monotonic() + 10 * STALE_LOCK_SECONDS
        while True:
            try:
                return self._dulwich.refs.set_if_equals(Ref(ref.encode()), expected, _id(new))
            except FileLocked:
                _break_stale(self.common / f"{ref}.lock", self._clock)
                if self._clock.monotonic() > deadline:
                    raise Unreadable(
                        f"{ref}.lock has been held by another process for {10 * STALE_LOCK_SECONDS:.0f} s",
                        f"See which process it is; if there is none, remove {self.common / ref}.lock.",
                    ) from None
            except OSError as error:
                raise Unreadable(f"{ref} cannot be written: {error}") from error

    def read(self, oid: Oid) -> bytes:
        """The content of a blob.

        Raises:
            NotFound: there is no such object.
        """
        return self._object(oid).as_raw_string()

    def _object(self, oid: Oid) -> ShaFile:
        try:
            return self._dulwich.object_store[_id(oid)]
        except KeyError as error:
            raise NotFound(f"object {oid} is missing from {self.common}", "Run `git fsck`.") from error
        except (OSError, AssertionError, ValueError) as error:
            raise Unreadable(f"object {oid} cannot be read: {error}", "Run `git fsck`.") from error

    def commit(self, oid: Oid) -> Commit:
        """The commit of that id."""
        from dulwich.objects import Commit as DulwichCommit

        found = self._object(oid)
        if not isinstance(found, DulwichCommit):
            raise Unreadable(f"{oid} is not a commit")
        return Commit(
            oid=oid,
            tree=_oid(found.tree),
            parents=tuple(_oid(p) for p in found.parents),
            author=found.author.decode(errors="replace"),
            when=datetime.fromtimestamp(found.author_time, UTC),
            message=found.message.decode(errors="replace"),
        )

    def entries(self, tree: Oid | None) -> dict[str, tuple[int, Oid]]:
        """The entries of a tree: name → (mode, object id); nothing for None."""
        from dulwich.objects import Tree

        if tree is None:
            return {}
        found = self._object(tree)
        if not isinstance(found, Tree):
            raise Unreadable(f"{tree} is not a tree")
        return {name.decode(): (mode, _oid(sha)) for name, mode, sha in found.iteritems()}

    def find(self, tree: Oid, path: str) -> Oid | None:
        """The object at ``path`` below ``tree``, or None."""
        here: Oid | None = tree
        for name in path.split("/"):
            entry = self.entries(here).get(name)
            if entry is None:
                return None
            here = entry[1]
        return here

    def changes(self, old: Oid | None, new: Oid | None, prefix: str = "") -> Iterator[Change]:
        """Every file that differs between two trees; equal subtrees are never opened."""
        before, after = self.entries(old), self.entries(new)
        for name in sorted(before.keys() | after.keys()):
            was, now = before.get(name), after.get(name)
            if was == now:
                continue
            path = f"{prefix}{name}"
            trees = [side[1] if side and side[0] == _TREE else None for side in (was, now)]
            if any(trees):
                yield from self.changes(trees[0], trees[1], f"{path}/")
            files = [side[1] if side and side[0] != _TREE else None for side in (was, now)]
            if any(files):
                yield Change(path, files[0], files[1])

    def history(self, start: Oid) -> Iterator[Commit]:
        """The commits from ``start`` back along first parents."""
        here: Oid | None = start
        while here is not None:
            commit = self.commit(here)
            yield commit
            here = commit.parents[0] if commit.parents else None

    def write(
        self,
        base: Oid | None,
        files: Mapping[str, bytes],
        *,
        parents: Sequence[Oid],
        author: str,
        when: datetime,
        message: str,
    ) -> Oid:
        """Write a commit whose tree is ``base`` with ``files`` put in; publish it with :meth:`swap`.

        Args:
            base: the tree to start from.
            files: path → content.
            parents: the parents of the commit.
            author: ``Name <address>``, also the committer.
            when: the time of the commit, kept to the second.
            message: the whole message.
        """
        from dulwich.objects import Commit as DulwichCommit

        new: list[ShaFile] = []
        tree = self._graft(base, {tuple(path.split("/")): data for path, data in files.items()}, new)
        commit = DulwichCommit()
        commit.tree = tree.id
        commit.parents = [_id(p) for p in parents]
        commit.author = commit.committer = author.encode()
        commit.author_time = commit.commit_time = int(when.timestamp())
        commit.author_timezone = commit.commit_timezone = 0
        commit.encoding = b"UTF-8"
        commit.message = message.encode()
        new.append(commit)
        self._add(new)
        return _oid(commit.id)

    def _graft(self, base: Oid | None, files: Mapping[tuple[str, ...], bytes], new: list[ShaFile]) -> ShaFile:
        """The tree ``base`` with ``files`` put in; every object made on the way is appended to ``new``."""
        from dulwich.objects import Blob, Tree

        entries = self.entries(base)
        below: dict[str, dict[tuple[str, ...], bytes]] = {}
        for (name, *rest), data in files.items():
            if rest:
                below.setdefault(name, {})[tuple(rest)] = data
            else:
                blob = Blob.from_string(data)
                new.append(blob)
                entries[name] = (_FILE, _oid(blob.id))
        for name, inner in below.items():
            there = entries.get(name)
            subtree = self._graft(there[1] if there and there[0] == _TREE else None, inner, new)
            entries[name] = (_TREE, _oid(subtree.id))
        tree = Tree()
        for name, (mode, oid) in entries.items():
            tree.add(name.encode(), mode, _id(oid))
        new.append(tree)
        return tree

    def _add(self, objects: list[ShaFile]) -> None:
        from dulwich.file import FileLocked

        store = self._dulwich.object_store
        try:
            if len(objects) >= _PACK_FROM:
                store.add_objects([(o, None) for o in objects])
                return
            for thing in objects:
                try:
                    store.add_object(thing)
                except FileLocked as error:
                    # A writer killed between creating and renaming an object leaves this lock behind.
                    _break_stale(Path(os.fsdecode(error.lockfilename)), self._clock)
                    store.add_object(thing)
        except OSError as error:
            raise Unreadable(
                f"the store in {self.common} cannot be written: {error}", "Free space or mend permissions."
            ) from error

    def sweep(self) -> None:
        """Remove the lock files that writers of ours left when they were killed; call it while no other writes."""
        places = (self.common / "objects").glob("??/*.lock"), (self.common / "refs" / "beads").rglob("*.lock")
        for lock in (lock for place in places for lock in place):
            _break_stale(lock, self._clock)


def _discover(start: Path) -> tuple[Path, Path]:
    """The Git directory around ``start`` and the common one, which differ in a linked worktree."""
    here = start.absolute()
    for directory in (here, *here.parents):
        control = _control(directory / ".git") or _control(directory)
        if control is not None:
            shared = control / "commondir"
            common = (control / shared.read_text().strip()).resolve() if shared.is_file() else control
            return control, common
    raise Unreadable(f"{start} is not inside a Git repository", "Run `git init` first, or go where your repository is.")


def _control(path: Path) -> Path | None:
    """The Git directory that ``path`` is, or that the ``.git`` file at ``path`` points to."""
    try:
        if path.is_file():
            line = path.read_text().strip()
            return (
                _control((path.parent / line.removeprefix("gitdir:").strip()).resolve())
                if line[:7] == "gitdir:"
                else None
            )
    except (OSError, UnicodeDecodeError) as error:
        raise Unreadable(f"{path} cannot be read: {error}") from error
    is_git = (path / "HEAD").exists() and ((path / "objects").is_dir() or (path / "commondir").is_file())
    return path.resolve() if is_git else None


def _break_stale(lock: Path, clock: Clock) -> None:
    """Wait a moment for a lock file to change or go; one that does neither is a dead process's, and is removed."""
    try:
        before = lock.stat()
        deadline = clock.monotonic() + STALE_LOCK_SECONDS
        while clock.monotonic() < deadline:
            clock.sleep(0.005)
            now = lock.stat()
            if (now.st_ino, now.st_mtime_ns) != (before.st_ino, before.st_mtime_ns):
                return
        lock.unlink()
    except FileNotFoundError:
        return


def _id(oid: Oid) -> ObjectID:
    from dulwich.objects import ObjectID

    return ObjectID(oid.encode())


def _oid(sha: bytes) -> Oid:
    return Oid(sha.decode())
