"""Objects and refs of the repository the store lives in: the one file that knows dulwich.

Everything is bytes and hexadecimal object ids here; what a bead is stays in ``beads/model.py``. Reading a ref
does without dulwich, because importing it takes longer than answering.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NewType

from beads.clock import Clock, SystemClock
from beads.discover import discover
from beads.errors import NotFound, TownError, Unreadable
from beads.files import STALE_LOCK_SECONDS, Lock, break_stale, lock_of, publish

if TYPE_CHECKING:
    from dulwich.config import ConfigFile
    from dulwich.file import SharedPerm
    from dulwich.object_store import DiskObjectStore
    from dulwich.objects import ObjectID, ShaFile

Oid = NewType("Oid", str)
"""The hexadecimal id of an object."""

_PACK_FROM = 64
"""From this many new objects on, a transaction is written as one pack instead of loose files."""

_TREES_MAX = 4096
"""How many trees are kept at hand; a read of one bead goes through three that most others share."""

_KEPT = b"beadtown\n"
"""What is in the files that keep our packs; those of others are left alone."""

_EXTENSIONS = {
    "noop": None,
    "objectformat": "sha1",
    "partialclone": None,
    "preciousobjects": None,
    "refstorage": "files",
    "relativeworktrees": None,
    "worktreeconfig": None,
}
"""The repository extensions that we need not care about, some only with one value. Git asks to refuse all others."""

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
        self.control, self.common = discover(start)
        self._store: DiskObjectStore | None = None
        self._trees: dict[Oid, dict[str, tuple[int, Oid]]] = {}
        self._keeps: dict[Path, int] = {}

    @property
    def _objects(self) -> DiskObjectStore:
        if self._store is None:
            self._store = _open(self.common)
            # Packs stay open for the life of the process; closed late, they would complain to the terminal.
            weakref.finalize(self, self._store.close)
        return self._store

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
            return (self.common / ref).read_bytes().strip() or b"empty"
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
        deadline = self._clock.monotonic() + 10 * STALE_LOCK_SECONDS
        try:
            while (lock := Lock.take(path)) is None:
                if self._clock.monotonic() > deadline:
                    raise Unreadable(
                        f"{ref}.lock has been held by another process for {10 * STALE_LOCK_SECONDS:.0f} s",
                        f"See which process it is; if there is none, remove {lock_of(path)}.",
                    )
                break_stale(lock_of(path), self._clock)
            with lock:
                return self.head(ref) == old and lock.replace(f"{new}\n".encode())
        except OSError as error:
            raise Unreadable(f"{ref} cannot be written: {error}") from error
        finally:
            self._let_go()

    def read(self, oid: Oid) -> bytes:
        """The content of a blob.

        Raises:
            NotFound: there is no such object.
        """
        with _reading(oid):
            return self._object(oid).as_raw_string()

    def _object(self, oid: Oid) -> ShaFile:
        # An object that is packed and pruned between the look into the packs and the one beside them is found by a
        # second one.
        for _ in range(2):
            with contextlib.suppress(KeyError):
                return self._objects[_id(oid)]
        raise NotFound(f"object {oid} is missing from {self.common}", "Run `git fsck`.")

    def commit(self, oid: Oid) -> Commit:
        """The commit of that id."""
        from dulwich.objects import Commit as DulwichCommit

        with _reading(oid):
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

    def commits(self, prefix: str) -> list[Oid]:
        """The commits whose ids start with ``prefix``: at least two hexadecimal digits."""
        from dulwich.objects import Commit as DulwichCommit

        found = sorted(_oid(sha) for sha in self._objects.iter_prefix(_id(Oid(prefix))))
        return [oid for oid in found if isinstance(self._object(oid), DulwichCommit)]

    def entries(self, tree: Oid | None) -> dict[str, tuple[int, Oid]]:
        """The entries of a tree: name → (mode, object id); nothing for None."""
        if tree is None:
            return {}
        if tree not in self._trees:
            if len(self._trees) >= _TREES_MAX:
                self._trees.clear()
            self._trees[tree] = self._read_tree(tree)
        return dict(self._trees[tree])

    def _read_tree(self, oid: Oid) -> dict[str, tuple[int, Oid]]:
        from dulwich.objects import Tree

        with _reading(oid):
            found = self._object(oid)
            if not isinstance(found, Tree):
                raise Unreadable(f"{oid} is not a tree")
            return {os.fsdecode(name): (mode, _oid(sha)) for name, mode, sha in found.iteritems()}

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
        commit.author_time = commit.commit_time = max(0, int(when.timestamp()))
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
            tree.add(os.fsencode(name), mode, _id(oid))
        new.append(tree)
        return tree

    def _add(self, objects: list[ShaFile]) -> None:
        try:
            if len(objects) >= _PACK_FROM:
                self._add_pack(list({thing.id: thing for thing in objects}.values()))
            else:
                for thing in objects:
                    self._add_loose(thing)
        except BaseException as error:
            self._let_go()
            if not isinstance(error, OSError):
                raise
            raise Unreadable(
                f"the store in {self.common} cannot be written: {error}", "Free space or mend permissions."
            ) from error

    def _add_loose(self, thing: ShaFile) -> None:
        name = thing.id.decode()
        path = self.common / "objects" / name[:2] / name[2:]
        # One that is there is made young, so that it is not pruned before the ref needs it. Another user's cannot be.
        with contextlib.suppress(FileNotFoundError, PermissionError):
            os.utime(path)
            return
        data = thing.as_legacy_object(self._objects.loose_compression_level)
        while True:
            self._make_directory(path.parent)
            # `git gc` removes directories that it finds empty.
            with contextlib.suppress(FileNotFoundError):
                durable = self._objects.fsync_object_files
                publish(path, lambda file: file.write(data), prefix="tmp_obj_", durable=durable, share=self._share)
                return

    def _add_pack(self, objects: list[ShaFile]) -> None:
        from dulwich.pack import full_unpacked_object, write_pack_data, write_pack_index_v2

        # The name is made of what is in it, as Git does.
        name = hashlib.sha1(b"".join(sorted(thing.sha().digest() for thing in objects)), usedforsecurity=False)
        base = self.common / "objects" / "pack" / f"pack-{name.hexdigest()}"
        self._make_directory(base.parent)
        self._keep(base.with_suffix(".keep"))
        if base.with_suffix(".idx").exists():
            return
        entries: dict[bytes, tuple[int, int]] = {}
        checksum = b""

        def write_pack(file: BinaryIO) -> None:
            nonlocal entries, checksum
            records = (full_unpacked_object(thing) for thing in objects)
            form = self._objects.object_format
            entries, checksum = write_pack_data(file.write, records, form, num_records=len(objects))

        def write_index(file: BinaryIO) -> None:
            write_pack_index_v2(file, sorted((sha, *entry) for sha, entry in entries.items()), checksum)

        # The index comes last: with it the pack is one.
        publish(base.with_suffix(".pack"), write_pack, prefix="tmp_pack_", durable=True, share=self._share)
        publish(base.with_suffix(".idx"), write_index, prefix="tmp_idx_", durable=True, share=self._share)

    def _keep(self, path: Path) -> None:
        """Keep ``git repack -ad`` from taking a pack for garbage as long as no ref needs it yet."""
        _drop_keeps(path.parent)
        if path not in self._keeps:
            handle = self._keeps[path] = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            with contextlib.suppress(OSError):
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.pwrite(handle, _KEPT, 0)

    def _let_go(self) -> None:
        while self._keeps:
            path, handle = self._keeps.popitem()
            path.unlink(missing_ok=True)
            os.close(handle)

    def sweep(self) -> None:
        """Remove what writers of ours left that were killed; call it while no other writes.

        Their temporary files have names that ``git gc`` knows and removes in time.
        """
        for lock in (self.common / "refs" / "beads").rglob("*.lock"):
            break_stale(lock, self._clock)
        _drop_keeps(self.common / "objects" / "pack")

    def _make_directory(self, path: Path) -> None:
        with contextlib.suppress(FileExistsError):
            path.mkdir()
            self._share(path)

    def _share(self, path: Path) -> None:
        from dulwich.file import adjust_shared_perm

        adjust_shared_perm(path, self._objects.shared_perm)


def _drop_keeps(folder: Path) -> None:
    """Remove those of our files that keep packs whose lock nobody holds any more: the process was killed."""
    for path in folder.glob("*.keep"):
        with contextlib.suppress(OSError), path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if file.read() == _KEPT:
                path.unlink()


def _open(common: Path) -> DiskObjectStore:
    """The object store of a repository, if it is of a kind that we can handle."""
    from dulwich.config import ConfigFile
    from dulwich.object_store import DiskObjectStore

    place = common / "config"
    try:
        config = ConfigFile.from_path(place, expand_includes=False) if place.exists() else ConfigFile()
        _check_format(common, config)
        store = DiskObjectStore.from_config(str(common / "objects"), config, shared_perm=_shared(config))
        # Git does not wait for loose objects unless told to; after a power cut a ref may then name an empty file.
        store.fsync_object_files = bool(config.get_boolean((b"core",), b"fsyncObjectFiles", True))
        return store
    except (OSError, ValueError) as error:
        raise Unreadable(f"{place} cannot be read: {error}") from error


def _check_format(common: Path, config: ConfigFile) -> None:
    """Refuse a repository of a kind that we do not know, before we damage it."""
    said = {name.decode().lower(): value.decode(errors="replace") for name, value in config.items((b"extensions",))}
    version = _core(config, "repositoryFormatVersion") or b"0"
    unknown = [f"{name} = {said[name]}" for name in said if _EXTENSIONS.get(name, "") not in (None, said[name])]
    if unknown or version not in (b"0", b"1"):
        what = f"the extension {unknown[0]}" if unknown else f"format {version.decode(errors='replace')}"
        raise Unreadable(f"{common} uses {what}: no place for the store", "It needs SHA-1, and refs in files.")


def _shared(config: ConfigFile) -> SharedPerm | None:
    value = _core(config, "sharedRepository")
    if value is None:
        return None
    from dulwich.repo import parse_shared_repository

    return parse_shared_repository(value)


def _core(config: ConfigFile, name: str) -> bytes | None:
    with contextlib.suppress(KeyError):
        return config.get((b"core",), name.encode())
    return None


@contextlib.contextmanager
def _reading(oid: Oid) -> Iterator[None]:
    """Say of whatever a damaged object makes its reader stumble over that the object is damaged."""
    try:
        yield
    except TownError:
        raise
    except Exception as error:
        # In a damaged pack dulwich stumbles over nearly everything.
        raise Unreadable(f"object {oid} cannot be read: {error}", "Run `git fsck`.") from error


def _is_oid(text: bytes) -> bool:
    return len(text) == 40 and not text.strip(b"0123456789abcdef")


def _id(oid: Oid) -> ObjectID:
    from dulwich.objects import ObjectID

    return ObjectID(oid.encode())


def _oid(sha: bytes) -> Oid:
    return Oid(sha.decode())
