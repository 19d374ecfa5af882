"""The objects of a Git repository: read them, write them loose or as a pack. The one file that knows dulwich.

Loose objects are read and written here, and packs written (``beads/packs.py``), because importing dulwich takes longer
than all that a short command does; reading packs, alternates and the configuration are its business.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import weakref
import zlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, NewType, cast

from beads import packs
from beads.errors import NotFound, TownError, Unreadable
from beads.files import OURS, Sync, is_at, locked, new, publish

if TYPE_CHECKING:
    from dulwich.config import ConfigFile
    from dulwich.file import SharedPerm
    from dulwich.object_store import DiskObjectStore
    from dulwich.objects import RawObjectID
    from dulwich.pack import Pack

Oid = NewType("Oid", str)
"""The hexadecimal id of an object."""

PACK_FROM = 4
"""From this many new objects on they are written as one pack: what brings them to the disk is paid by the file."""

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

_KINDS = {1: b"commit", 2: b"tree", 3: b"blob", 4: b"tag"}


class Raw(NamedTuple):
    """An object: its kind as Git calls it, its content, and the id that follows from both."""

    kind: bytes
    data: bytes
    oid: Oid


def raw(kind: bytes, data: bytes) -> Raw:
    """The object of that kind with that content."""
    digest = hashlib.sha1(b"%b %d\0%b" % (kind, len(data), data), usedforsecurity=False)
    return Raw(kind, data, Oid(digest.hexdigest()))


class Objects:
    """The objects of one repository.

    Args:
        common: its common Git directory.
        flush: whether loose objects are brought to the disk one by one, as far as the configuration wants that.

    Attributes:
        own: the packs that we wrote.
        held: the path of a file whose lock we have, and nobody else gets; None when there is none.
    """

    def __init__(self, common: Path, *, flush: bool = True) -> None:
        self._common = common
        self._flush = flush
        self._folder = common / "objects"
        self._root = str(self._folder)
        self._packs: dict[str, Pack] = {}
        self._keeps: dict[str, int | None] = {}
        self._young: list[Raw] = []
        self.held: str | None = None
        self.own = packs.Owned(common / "beads" / "owned", self._folder / "pack", self.share)
        # Packs stay open for the life of the process; closed late, they would complain to the terminal.
        weakref.finalize(self, _close, self._packs)

    def read(self, oid: Oid) -> Raw:
        """The object of that id.

        Raises:
            NotFound: there is none.
            Unreadable: it is damaged.
        """
        with _reading(oid):
            # An object that is packed and pruned between the look beside the packs and the one into them is found by
            # the second one; one that a repack moves between two packs, too.
            found = self._loose(oid) or self._packed(oid) or self._loose(oid) or self._elsewhere(oid)
        if found is None:
            raise NotFound(f"object {oid} is missing from {self._common}", "Run `git fsck`.")
        return found

    def _loose(self, oid: Oid) -> Raw | None:
        try:
            with open(self._place(oid), "rb") as file:
                content = zlib.decompress(file.read())
        except FileNotFoundError:
            return None
        header, _, data = content.partition(b"\0")
        found = raw(header.split(b" ", 1)[0], data)
        if found.oid != oid:
            raise ValueError(f"it is really {found.oid}")
        return found

    def _packed(self, oid: Oid) -> Raw | None:
        sha = bytes.fromhex(oid)
        for look in (self._known, self._listed):
            for name in look():
                found = self._in_pack(name, sha)
                if found is not None:
                    # Objects that are read together lie together.
                    self._packs[name] = self._packs.pop(name)
                    return Raw(_KINDS[found[0]], found[1], oid)
        return None

    def _known(self) -> list[str]:
        return list(reversed(self._packs))

    def _listed(self) -> list[str]:
        """The packs that there are and that were not looked into yet; those that are gone are forgotten."""
        try:
            there = {entry.name[:-4] for entry in os.scandir(self._folder / "pack") if entry.name.endswith(".idx")}
        except FileNotFoundError:
            there = set()
        for name in self._packs.keys() - there:
            self._packs.pop(name).close()
        return sorted(there - self._packs.keys())

    def unmap(self) -> None:
        """Give back the memory that packs are mapped to; those that are needed again are opened again."""
        _close(self._packs)
        self._packs.clear()

    def _in_pack(self, name: str, sha: bytes) -> tuple[int, bytes] | None:
        pack = self._packs.get(name)
        try:
            return (self._open(name) if pack is None else pack).get_raw(cast("RawObjectID", sha))
        except KeyError:
            return None
        except self._gone:
            # It was replaced by another one before it was opened.
            self._packs.pop(name).close()
            return None

    def _open(self, name: str) -> Pack:
        from dulwich.object_format import SHA1
        from dulwich.pack import Pack

        pack = self._packs[name] = Pack(str(self._folder / "pack" / name), object_format=SHA1)
        return pack

    @cached_property
    def _gone(self) -> tuple[type[Exception], ...]:
        from dulwich.pack import PackFileDisappeared

        return FileNotFoundError, PackFileDisappeared

    def _elsewhere(self, oid: Oid) -> Raw | None:
        """Look where only few repositories have objects: in those of others that they borrow from."""
        from dulwich.objects import ObjectID

        with contextlib.suppress(KeyError):
            number, data = self._store.get_raw(ObjectID(oid.encode()))
            return Raw(_KINDS[number], data, oid)
        return None

    def starting(self, prefix: str) -> list[Raw]:
        """The objects whose ids start with ``prefix``: at least two hexadecimal digits."""
        from dulwich.objects import ObjectID

        with _reading(Oid(prefix)):
            found = {Oid(sha.decode()) for sha in self._store.iter_prefix(ObjectID(prefix.encode()))}
        return [self.read(oid) for oid in sorted(found)]

    @cached_property
    def _store(self) -> DiskObjectStore:
        from dulwich.object_store import DiskObjectStore

        store = DiskObjectStore(str(self._folder))
        weakref.finalize(self, store.close)
        return store

    @cached_property
    def settings(self) -> Settings:
        """What the repository's configuration says of writing objects; checked to be of a kind that we can handle."""
        said = _settings(self._common)
        return said if self._flush else said._replace(sync_loose=None)

    def add(self, objects: Sequence[Raw]) -> None:
        """Write objects; when this returns they are on the disk, as far as the configuration wants that.

        A pack is kept from being collected as garbage until :meth:`let_go`.

        Raises:
            Unreadable: they cannot be written.
        """
        try:
            if len(objects) >= PACK_FROM:
                self._add_pack({thing.oid: thing for thing in objects})
            else:
                self._young = list(objects)
                for thing in objects:
                    self._add_loose(thing)
        except BaseException as error:
            self.let_go()
            if not isinstance(error, OSError):
                raise
            raise Unreadable(
                f"the store in {self._common} cannot be written: {error}", "Free space or mend permissions."
            ) from error

    def loose(self) -> Iterator[tuple[bytes, Path]]:
        """The id, as bytes, and the file of each loose object; most repositories have others' too."""
        for path in self._folder.glob("[0-9a-f][0-9a-f]/*"):
            if re.fullmatch("[0-9a-f]{38}", path.name):
                yield bytes.fromhex(path.parent.name + path.name), path

    def _place(self, oid: Oid) -> str:
        return f"{self._root}/{oid[:2]}/{oid[2:]}"

    def _add_loose(self, thing: Raw) -> None:
        path = self._place(thing.oid)
        # One that is there is made young, so that it is not pruned before the ref needs it. Another user's cannot be.
        with contextlib.suppress(FileNotFoundError, PermissionError):
            os.utime(path)
            return
        said = self.settings
        data = packs.deflate(b"%b %d\0%b" % (thing.kind, len(thing.data), thing.data), said.loose_level)
        while True:
            self._make_directory(f"{self._root}/{thing.oid[:2]}")
            # `git gc` removes directories that it finds empty.
            with contextlib.suppress(FileNotFoundError):
                publish(path, lambda file: file.write(data), prefix="tmp_obj_", sync=said.sync_loose, share=self.share)
                return

    def _add_pack(self, objects: dict[Oid, Raw]) -> None:
        records = [(thing.kind, thing.data, bytes.fromhex(oid)) for oid, thing in objects.items()]
        name = packs.name_of(sha for _, _, sha in records)
        base = f"{self._root}/pack/{name}"
        self._make_directory(f"{self._root}/pack")
        self._keep(f"{base}.keep")
        if os.path.exists(f"{base}.idx"):
            return
        said = self.settings
        entries: list[packs.Entry] = []
        checksum = b""

        def write_pack(file: BinaryIO) -> None:
            nonlocal entries, checksum
            entries, checksum = packs.write(file, records, said.pack_level)

        def write_index(file: BinaryIO) -> None:
            file.write(packs.index(entries, checksum))

        # The index comes last: with it the pack is one.
        publish(f"{base}.pack", write_pack, prefix="tmp_pack_", sync=said.sync_pack, share=self.share)
        publish(f"{base}.idx", write_index, prefix="tmp_idx_", sync=said.sync_pack, share=self.share)

    def _keep(self, path: str) -> None:
        """Keep ``git repack -ad`` from taking a pack for garbage as long as no ref needs it yet."""
        if path in self._keeps:
            return
        if self.held is not None:
            # A link takes a tenth of the time that a file takes. Not all file systems have such.
            with contextlib.suppress(OSError):
                os.link(self.held, path)
                self._keeps[path] = None
                return
        # It gets its name with its content, or nobody would know whose it is when we are killed.
        temporary, handle = new(f"{self._root}/pack", "tmp_keep_")
        try:
            locked(handle)
            os.write(handle, OURS)
            self.share(temporary)
            os.rename(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            os.close(handle)
            raise
        self._keeps[path] = handle

    def assure(self) -> None:
        """Write again what somebody pruned before the ref named it: ``git gc --prune=now`` looks at no one's age."""
        young, self._young = self._young, []
        for thing in young:
            if not Path(self._place(thing.oid)).exists() and self._packed(thing.oid) is None:
                self._add_loose(thing)

    def let_go(self) -> None:
        """Leave the packs that were written to the garbage collection, now that a ref needs them or never will."""
        while self._keeps:
            path, handle = self._keeps.popitem()
            # One that stays is removed by the next writer, because nobody holds its lock any more.
            with contextlib.suppress(OSError):
                self._release(path)
            if handle is not None:
                os.close(handle)

    def _release(self, path: str) -> None:
        self.own.add(os.path.basename(path).removesuffix(".keep"), path)
        os.unlink(path)

    def sweep(self) -> None:
        """Let go of the packs of writers of ours that were killed. Temporary files `git gc` removes in time."""
        self.own.unlist(())
        for path in (self._folder / "pack").glob("*.keep"):
            with contextlib.suppress(OSError), path.open("rb") as file:
                # The kernel has let go of the lock of a dead one; or it is the one that we have now.
                left = locked(file.fileno()) and file.read().startswith(OURS)
                if left or (self.held is not None and is_at(file.fileno(), self.held)):
                    self._release(str(path))

    def _make_directory(self, path: str) -> None:
        with contextlib.suppress(FileExistsError):
            os.mkdir(path)
            self.share(path)

    def share(self, path: str) -> None:
        """Give a file or directory the permissions that the repository wants beyond those of the process."""
        if self.settings.shared is not None:
            from dulwich.file import adjust_shared_perm

            adjust_shared_perm(path, self.settings.shared)


def _close(packs: dict[str, Pack]) -> None:
    for pack in packs.values():
        pack.close()


class Settings(NamedTuple):
    """What a repository's configuration says of writing.

    Attributes:
        loose_level: how hard loose objects are compressed, for zlib.
        pack_level: how hard packs are.
        sync_loose: what brings loose objects to the disk; None when nothing need.
        sync_pack: likewise packs.
        sync_ref: likewise refs, and with them the names of everything written before.
        shared: the permissions that files get beyond those of the process.
    """

    loose_level: int
    pack_level: int
    sync_loose: Sync | None
    sync_pack: Sync | None
    sync_ref: Sync | None
    shared: SharedPerm | None


# The words of the configuration that mean something here, and lines that are as plain as nearly all are. Where there is
# none of the ones and nothing but the others, nobody need wait until what reads them properly is imported.
_TELLING = rb"(?i)compress|fsync|shared|extensions|repositoryformatversion\s*=\s*[^0\s]"
_PLAIN = rb"(\s*(\[[^\]\n]+\]|[A-Za-z][\w-]* = [^\\\n\"]*)?\n)*"


def _settings(common: Path) -> Settings:
    place = common / "config"
    try:
        said = place.read_bytes() if place.exists() else b""
        if re.fullmatch(_PLAIN, said) and not re.search(_TELLING, said):
            return Settings(packs.FASTEST, packs.FASTEST, os.fsync, os.fsync, os.fsync, None)
        from dulwich.config import ConfigFile

        config = ConfigFile.from_path(place, expand_includes=False)
        _check_format(common, config)
        level = _number(config, "core", "compression", packs.FASTEST)
        return Settings(
            _number(config, "core", "looseCompression", level),
            _number(config, "pack", "compression", level),
            *_durability(config),
            _shared(config),
        )
    except (OSError, ValueError) as error:
        raise Unreadable(f"{place} cannot be read: {error}") from error


_OBJECTS = frozenset({"loose-object", "pack", "pack-metadata", "commit-graph"})
_COMPONENTS = {
    "none": frozenset[str](),
    "objects": _OBJECTS,
    "committed": _OBJECTS,
    "added": _OBJECTS | {"index"},
    "derived-metadata": frozenset({"pack-metadata", "commit-graph"}),
    "all": _OBJECTS | {"index", "reference"},
}


def _durability(config: ConfigFile) -> tuple[Sync | None, Sync | None, Sync | None]:
    """What is brought to the disk, and how: ``core.fsync`` and ``core.fsyncMethod`` as Git documents them.

    Where they say nothing everything is, because a store that a power cut can empty is none; that costs what
    ``docs/store.md`` says.
    """
    wanted = {"loose-object", "pack", "reference"}
    said = _text(config, "core", "fsync")
    if said is None and not config.get_boolean((b"core",), b"fsyncObjectFiles", True):
        wanted.discard("loose-object")
    for word in (said or "").replace(" ", "").split(","):
        name = word.removeprefix("-")
        if word == "none":
            wanted.clear()
        elif word.startswith("-"):
            wanted -= _COMPONENTS.get(name, frozenset({name}))
        elif word:
            wanted |= _COMPONENTS.get(name, frozenset({name}))
    # Python cannot ask for less than a flush; without the file's times it is the nearest to `writeout-only`.
    light = (_text(config, "core", "fsyncMethod") or "").lower() == "writeout-only" and hasattr(os, "fdatasync")
    sync: Sync = os.fdatasync if light else os.fsync
    loose, pack, ref = (sync if name in wanted else None for name in ("loose-object", "pack", "reference"))
    return loose, pack, ref


def _check_format(common: Path, config: ConfigFile) -> None:
    """Refuse a repository of a kind that we do not know, before we damage it."""
    said = {name.decode().lower(): value.decode(errors="replace") for name, value in config.items((b"extensions",))}
    version = _text(config, "core", "repositoryFormatVersion") or "0"
    unknown = [f"{name} = {said[name]}" for name in said if _EXTENSIONS.get(name, "") not in (None, said[name])]
    if unknown or version not in ("0", "1"):
        what = f"the extension {unknown[0]}" if unknown else f"format {version}"
        raise Unreadable(f"{common} uses {what}: no place for the store", "It needs SHA-1, and refs in files.")


def _shared(config: ConfigFile) -> SharedPerm | None:
    value = _text(config, "core", "sharedRepository")
    if value is None:
        return None
    from dulwich.repo import parse_shared_repository

    return parse_shared_repository(value.encode())


def _number(config: ConfigFile, section: str, name: str, otherwise: int) -> int:
    value = _text(config, section, name)
    return otherwise if value is None else int(value)


def _text(config: ConfigFile, section: str, name: str) -> str | None:
    with contextlib.suppress(KeyError):
        return config.get((section.encode(),), name.encode()).decode()
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
