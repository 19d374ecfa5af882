"""Refs, commits and trees of the repository the store lives in.

Everything is bytes and hexadecimal object ids here; what a bead is stays in ``beads/model.py``, and how objects are
kept in ``beads/objects.py``.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from beads.clock import Clock, SystemClock
from beads.discover import discover
from beads.errors import LostRace, Unreadable
from beads.files import STALE_LOCK_SECONDS, Lock, break_stale, lock_of
from beads.objects import Objects, Raw, raw
from beads.objects import Oid as Oid
from beads.recent import Recent
from beads.trees import DIRECTORY, FILE, Entry, Tree

_TREES_MAX = 512
"""How many trees are kept at hand at least; a read of one bead goes through three that most others share."""

_IDENTITY = r"(.*?) ?<[^<>]*> (-?\d+) [+-]\d{4}$"


class Commit(NamedTuple):
    """One transaction as Git has it; ``raw`` is all of it."""

    oid: Oid
    raw: bytes
    tree: Oid
    parents: tuple[Oid, ...]
    author: str
    when: datetime
    message: str


class Change(NamedTuple):
    """A file that differs between two trees; an absent side is None."""

    path: str
    old: Oid | None
    new: Oid | None


class Replaced(NamedTuple):
    """What is now in the tree of a directory, None where there is none any more; without a path, in the commit."""

    path: str | None
    content: bytes | None


class _Folder(NamedTuple):
    """A directory in which something is to change: which files, by name and by path, and what is below it."""

    path: str
    files: dict[str, str]
    below: dict[str, _Folder]


class _Job(NamedTuple):
    """What is to be in the files, what the writer takes them for, and what is made on the way."""

    files: Mapping[str, bytes | None]
    was: Mapping[str, Oid | None] | None
    new: list[Raw]
    trees: list[Replaced]


class Stale(LostRace):
    """A file is not what the writer took it for."""


def _nothing(path: str | None) -> None:
    """What somebody says who has nothing."""
    del path


def blob_id(data: bytes) -> Oid:
    """The id of the blob with that content."""
    return raw(b"blob", data).oid


_NO_TREE = Tree(b"")
_EMPTY = raw(b"tree", b"").oid


def _nested(paths: Iterable[str]) -> _Folder:
    """The directories that these files are in, from the root down."""
    root = _Folder("", {}, {})
    folders = {"": root}

    def folder(path: str) -> _Folder:
        found = folders.get(path)
        if found is None:
            above, _, name = path.rpartition("/")
            found = folders[path] = folder(above).below[name] = _Folder(path, {}, {})
        return found

    for path in paths:
        above, _, name = path.rpartition("/")
        folder(above).files[name] = path
    return root


class Repository:
    """The Git repository around a directory, as an object store with refs.

    Args:
        start: a directory inside it: the work tree, a linked worktree, a submodule, or the Git directory.
        clock: for waiting on other processes' locks, with a bound.

    Attributes:
        ledger: an open file that nobody else has now, in which locks of refs are noted (:func:`beads.files.recover`).
        tell: is told in words how far something is that takes long, and with no words that it is over.

    Raises:
        Unreadable: there is none, or it cannot be read.
    """

    def __init__(self, start: Path, clock: Clock | None = None) -> None:
        self.clock = clock or SystemClock()
        self.control, self.common = discover(start)
        self.objects = Objects(self.common)
        self.ledger: int | None = None
        self.tell: Callable[[str], object] = str
        self._trees: Recent[Oid, Tree] = Recent(_TREES_MAX)
        self._near: Callable[[str | None], bytes | None] = _nothing

    def head(self, ref: str) -> Oid | None:
        """The commit that ``ref`` is at, or None when it does not exist."""
        try:
            # A ref that was packed between the two looks, where nothing was packed before, needs a third one.
            found = self._loose(ref) or self._packed(ref) or self._loose(ref)
        except OSError as error:
            raise Unreadable(f"{ref} cannot be read: {error}") from error
        if found is None:
            return None
        if not _is_oid(found):
            what = "a symbolic ref" if found.startswith(b"ref:") else f"damaged: {found[:50]!r}"
            raise Unreadable(f"{ref} in {self.common} is {what}", "It must name a commit.")
        return Oid(found.decode())

    def _loose(self, ref: str) -> bytes | None:
        try:
            handle = os.open(f"{self.common}/{ref}", os.O_RDONLY | os.O_CLOEXEC)
            try:
                return os.read(handle, 4096).strip() or b"empty"
            finally:
                os.close(handle)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None

    def _packed(self, ref: str) -> bytes | None:
        try:
            lines = (self.common / "packed-refs").read_bytes().splitlines()
        except FileNotFoundError:
            return None
        ending = f" {ref}".encode()
        return next((line.split(b" ", 1)[0] for line in lines if line.endswith(ending)), None)

    def swap(self, ref: str, old: Oid | None, new: Oid) -> bool:
        """Move ``ref`` to ``new`` if it is at ``old`` (None: if it does not exist). The one compare-and-swap.

        Returns False when somebody else moved it first; then nothing changed.
        """
        path = self.common / ref
        deadline = self.clock.monotonic() + 10 * STALE_LOCK_SECONDS
        try:
            while (lock := Lock.take(path, self.ledger)) is None:
                if self.clock.monotonic() > deadline:
                    raise Unreadable(
                        f"{ref}.lock has been held by another process for {10 * STALE_LOCK_SECONDS:.0f} s",
                        f"See which process it is; if there is none, remove {lock_of(path)}.",
                    )
                break_stale(lock_of(path), self.clock)
            with lock:
                for shared in (path.parent, lock_of(path)):
                    self.objects.share(str(shared))
                moved = self.head(ref) == old and lock.replace(f"{new}\n".encode(), self.objects.settings.sync_ref)
            if moved:
                self.objects.assure()
            return moved
        except OSError as error:
            raise Unreadable(f"{ref} cannot be written: {error}") from error
        finally:
            self.objects.let_go()

    def read(self, oid: Oid) -> bytes:
        """The content of a blob.

        Raises:
            NotFound: there is no such object.
        """
        return self.objects.read(oid).data

    def commit(self, oid: Oid) -> Commit:
        """The commit of that id.

        Raises:
            Unreadable: it is none, or damaged.
        """
        found = self._found(b"commit", oid, None)
        if found.kind != b"commit":
            raise Unreadable(f"{oid} is not a commit")
        try:
            return _commit(found)
        except (ValueError, KeyError, OverflowError) as error:
            raise Unreadable(f"object {oid} cannot be read: {error}", "Run `git fsck`.") from error

    def commits(self, prefix: str) -> list[Oid]:
        """The commits whose ids start with ``prefix``: at least two hexadecimal digits."""
        return [found.oid for found in self.objects.starting(prefix) if found.kind == b"commit"]

    def _found(self, kind: bytes, oid: Oid, path: str | None) -> Raw:
        near = self._near(path)
        found = raw(kind, near) if near is not None else None
        return self.objects.read(oid) if found is None or found.oid != oid else found

    def _tree(self, oid: Oid | None, path: str, *, keep: bool = True) -> Tree:
        if oid is None:
            return _NO_TREE
        tree = self._trees.get(oid)
        if tree is None:
            found = self._found(b"tree", oid, path)
            if found.kind != b"tree":
                raise Unreadable(f"{oid} is not a tree")
            try:
                tree = Tree(found.data)
            except ValueError as error:
                raise Unreadable(f"object {oid} cannot be read: {error}", "Run `git fsck`.") from error
            if keep:
                self._trees.put(oid, tree)
        return tree

    def find(self, tree: Oid, path: str) -> Oid | None:
        """The object at ``path`` below ``tree``, or None."""
        *folders, name = path.split("/")
        here, above = tree, ""
        for folder in folders:
            entry = self._tree(here, above).get(os.fsencode(folder))
            if entry is None or not entry.is_tree:
                return None
            here, above = Oid(entry.sha.hex()), f"{above}/{folder}".lstrip("/")
        entry = self._tree(here, above).get(os.fsencode(name))
        return None if entry is None else Oid(entry.sha.hex())

    @contextlib.contextmanager
    def helped(self, near: Callable[[str | None], bytes | None]) -> Iterator[None]:
        """Ask somebody for trees by their paths who may have them at hand; what is wrong with them does no harm.

        For None it is the newest commit that is asked for.
        """
        self._near = near
        try:
            yield
        finally:
            self._near = _nothing

    def changes(
        self, old: Oid | None, new: Oid | None, prefix: str = "", *, trees: list[Replaced] | None = None
    ) -> Iterator[Change]:
        """Every file that differs between two trees; equal subtrees are never opened.

        Args:
            old: the one tree; None for an empty one.
            new: the other one.
            prefix: what to put before the paths.
            trees: gets the trees that differ, as they are in ``new``.
        """
        if trees is not None:
            trees.append(Replaced(prefix.rstrip("/"), self._tree(new, prefix.rstrip("/")).raw if new else None))
        before, after = (dict(self._tree(side, prefix.rstrip("/")).items()) for side in (old, new))
        for name in sorted(before.keys() | after.keys()):
            was, now = before.get(name), after.get(name)
            if was == now:
                continue
            path = f"{prefix}{os.fsdecode(name)}"
            below = [Oid(side.sha.hex()) if side and side.is_tree else None for side in (was, now)]
            if any(below):
                yield from self.changes(below[0], below[1], f"{path}/", trees=trees)
            files = [Oid(side.sha.hex()) if side and not side.is_tree else None for side in (was, now)]
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
        files: Mapping[str, bytes | None],
        *,
        parents: Sequence[Oid],
        author: str,
        when: datetime,
        message: str,
        was: Mapping[str, Oid | None] | None = None,
        trees: list[Replaced] | None = None,
    ) -> Oid:
        """Write a commit whose tree is ``base`` with ``files`` put in; publish it with :meth:`swap`.

        Args:
            base: the tree to start from.
            files: path → content; None for a file that is to go.
            parents: the parents of the commit.
            author: ``Name <address>``, also the committer.
            when: the time of the commit, kept to the second.
            message: the whole message.
            was: path → what the writer takes the file for in ``base``: its id, or None for no file.
            trees: gets the trees that are new, and the commit.

        Raises:
            Stale: a file is not that.
            Unreadable: it cannot be written.
        """
        job = _Job(files, was, [], [] if trees is None else trees)
        tree = self._graft(base, _nested(files), job)
        stamp = f"{author} {max(0, int(when.timestamp()))} +0000"
        lines = [f"tree {tree}", *(f"parent {parent}" for parent in parents)]
        lines += [f"author {stamp}", f"committer {stamp}", "", message]
        commit = raw(b"commit", "\n".join(lines).encode())
        self.objects.add([*job.new, commit])
        job.trees.append(Replaced(None, commit.data))
        return commit.oid

    def _graft(self, base: Oid | None, folder: _Folder, job: _Job) -> Oid:
        """The tree ``base`` with what is to change in it; every object made on the way is put into the job."""
        # Another one is about to take its place.
        tree = self._tree(base, folder.path, keep=False)
        entries: dict[bytes, Entry | None] = {}
        for name, path in folder.files.items():
            key, data = os.fsencode(name), job.files[path]
            if job.was is not None:
                there = tree.get(key)
                if (there and there.sha.hex()) != job.was[path]:
                    raise Stale(f"{path} is not what it was taken for")
            entries[key] = None
            if data is not None:
                job.new.append(raw(b"blob", data))
                entries[key] = Entry(FILE, bytes.fromhex(job.new[-1].oid))
        for name, inner in folder.below.items():
            key = os.fsencode(name)
            there = tree.get(key)
            inside = self._graft(Oid(there.sha.hex()) if there and there.is_tree else None, inner, job)
            entries[key] = Entry(DIRECTORY, bytes.fromhex(inside))
            if inside == _EMPTY:
                # Git has no empty directories.
                entries[key] = None
                job.new.pop()
                job.trees[-1] = Replaced(inner.path, None)
        grafted = tree.put(entries)
        made = raw(b"tree", grafted.raw)
        job.new.append(made)
        job.trees.append(Replaced(folder.path, made.data))
        if folder.below:
            # Of the many that only have files in them hardly one is needed again soon.
            self._trees.put(made.oid, grafted)
        return made.oid

    def sweep(self) -> None:
        """Remove what writers of ours left that were killed; call it while no other writes."""
        for lock in (self.common / "refs" / "beads").rglob("*.lock"):
            break_stale(lock, self.clock)
        self.objects.sweep()


def _commit(found: Raw) -> Commit:
    """Read a commit; what of its head has no meaning here, such as signatures, is passed over."""
    head, _, message = found.data.partition(b"\n\n")
    said: dict[bytes, list[bytes]] = {}
    for line in head.split(b"\n"):
        name, _, value = line.partition(b" ")
        said.setdefault(name, []).append(value)
    encoding = said.get(b"encoding", [b"utf-8"])[0].decode(errors="replace")
    author = said[b"author"][0].decode(errors="replace")
    identity = re.fullmatch(_IDENTITY, author, re.DOTALL)
    if identity is None:
        raise ValueError(f"its author is {author[:100]!r}")
    with contextlib.suppress(LookupError):
        return Commit(
            oid=found.oid,
            raw=found.data,
            tree=Oid(said[b"tree"][0].decode()),
            parents=tuple(Oid(parent.decode()) for parent in said.get(b"parent", ())),
            author=author[: author.rindex(">") + 1],
            when=datetime.fromtimestamp(int(identity.group(2)), UTC),
            message=message.decode(encoding, errors="replace"),
        )
    raise ValueError(f"its text is in {encoding!r}, which is unknown")


def _is_oid(text: bytes) -> bool:
    return len(text) == 40 and not text.strip(b"0123456789abcdef")
