"""Packs: many objects in two files, written as Git's ``pack-format`` says, and which of a repository's are ours.

A transaction is one pack, because what brings it to the disk is paid by the file. Deltas are left to Git's own packer
(``beads/packing.py``), and so is reading to dulwich (``beads/objects.py``).
"""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import os
import re
import struct
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import accumulate, count
from pathlib import Path
from typing import BinaryIO, NamedTuple

_NUMBERS = {b"commit": 1, b"tree": 2, b"blob": 3, b"tag": 4}
_INDEX = b"\377tOc\0\0\0\2"
_FAR = 1 << 31
_HEADS = len(_INDEX) + 4 * 256
_TAIL = 2 * 20
_ROW = 20 + 4 + 4

FASTEST = 1
"""The level at which zlib compresses fastest."""

_LARGE = 1_000
"""From this many objects on a pack has its trees as they are, where compressing was to be fast.

Nearly all trees are new then. Two thirds of them are ids, which nothing compresses, and to try that takes longer than
anything else that is done with them; the packer will make deltas of them soon.
"""

_BLOCK = struct.Struct("<HH")
_BLOCK_MAX = 0xFFFF

_SEARCHED = 20
"""To look for an id takes as long as to go through so many."""


class Entry(NamedTuple):
    """Where an object is in a pack: its id as bytes, where its record begins, and the record's CRC-32."""

    sha: bytes
    at: int
    crc: int


def name_of(shas: Iterable[bytes]) -> str:
    """What a pack of these objects is called, without an ending."""
    return f"pack-{hashlib.sha1(b''.join(sorted(shas)), usedforsecurity=False).hexdigest()}"


def write(file: BinaryIO, objects: Sequence[tuple[bytes, bytes, bytes]], level: int) -> tuple[list[Entry], bytes]:
    """Write a pack.

    Args:
        file: where to.
        objects: kind, content and id of each; none of them twice.
        level: how hard they are compressed, for zlib.

    Returns:
        Where each object is, and the pack's checksum; :func:`index` wants both.
    """
    digest, entries = hashlib.sha1(usedforsecurity=False), list[Entry]()
    record = b"PACK\0\0\0\2" + len(objects).to_bytes(4, "big")
    digest.update(record)
    at = file.write(record)
    as_it_is = b"tree" if level == FASTEST and len(objects) >= _LARGE else b""
    for kind, data, sha in objects:
        body = _stored(data) if kind == as_it_is and len(data) <= _BLOCK_MAX else deflate(data, level)
        record = _head(_NUMBERS[kind], len(data)) + body
        entries.append(Entry(sha, at, zlib.crc32(record)))
        digest.update(record)
        at += file.write(record)
    file.write(digest.digest())
    return entries, digest.digest()


def deflate(data: bytes, level: int) -> bytes:
    """Compress as zlib does, with no more memory than there is data for.

    Of what zlib takes by default the kernel would have to clear a quarter of a megabyte for each small object, which
    takes ten times as long as compressing it.
    """
    window = min(15, max(9, len(data).bit_length()))
    packer = zlib.compressobj(level, zlib.DEFLATED, window, min(8, window - 6))
    return packer.compress(data) + packer.flush()


def _stored(data: bytes) -> bytes:
    """What zlib makes of a block of data at level 0, which it takes twenty times as long for."""
    size = len(data)
    return b"\x78\1\1" + _BLOCK.pack(size, size ^ _BLOCK_MAX) + data + zlib.adler32(data).to_bytes(4, "big")


@lru_cache(4096)
def _head(kind: int, size: int) -> bytes:
    """The kind and size of a record: four bits of the size, then seven in each byte that follows."""
    head = bytearray([kind << 4 | size & 15])
    size >>= 4
    while size:
        head[-1] |= 128
        head.append(size & 127)
        size >>= 7
    return bytes(head)


def index(entries: Iterable[Entry], checksum: bytes) -> bytes:
    """The content of the index, version 2, of a pack with that checksum."""
    ordered = sorted(entries)
    heads = [0] * 256
    for entry in ordered:
        heads[entry.sha[0]] += 1
    # What lies behind the first two gigabytes has its place in a table of its own.
    far = [entry.at for entry in ordered if entry.at >= _FAR]
    numbers = count(_FAR)
    places = (entry.at if entry.at < _FAR else next(numbers) for entry in ordered)
    content = b"".join(
        [
            _INDEX,
            struct.pack(">256I", *accumulate(heads)),
            *(entry.sha for entry in ordered),
            struct.pack(f">{len(ordered)}I", *(entry.crc for entry in ordered)),
            struct.pack(f">{len(ordered)}I", *places),
            struct.pack(f">{len(far)}Q", *far),
            checksum,
        ]
    )
    return content + hashlib.sha1(content, usedforsecurity=False).digest()


class Listing:
    """The ids of the objects in a pack, in their order, as its index has them; it is not read as a whole.

    Args:
        path: the index.

    Raises:
        OSError: it is not there, or cannot be read.
        ValueError: it is no index that we know.
    """

    def __init__(self, path: str) -> None:
        with open(path, "rb") as file:
            head = file.read(_HEADS)
            size = os.fstat(file.fileno()).st_size
            # How many ids begin with each byte or one before it, with a zero at the end for none.
            self._until = (*struct.unpack(">256I", head[len(_INDEX) :]), 0) if len(head) == _HEADS else (0,)
            if not head.startswith(_INDEX) or size < _HEADS + _ROW * len(self) + _TAIL:
                raise ValueError(f"{path} is not the index of a pack, version 2")
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def __len__(self) -> int:
        return self._until[-2] if len(self._until) > 1 else 0

    def __iter__(self) -> Iterator[bytes]:
        return (self._map[at : at + 20] for at in range(_HEADS, _HEADS + 20 * len(self), 20))

    def __contains__(self, sha: bytes) -> bool:
        low, high = self._until[sha[0] - 1], self._until[sha[0]]
        while low < high:
            middle = (low + high) // 2
            found = self._map[_HEADS + 20 * middle : _HEADS + 20 * middle + 20]
            if found == sha:
                return True
            low, high = (middle + 1, high) if found < sha else (low, middle)
        return False

    def holds(self, others: Sequence[Listing]) -> list[bool]:
        """Of each of the others, whether every object of it is in this one, too."""
        if _SEARCHED * sum(map(len, others)) < len(self):
            return [all(sha in self for sha in other) for other in others]
        held = [True] * len(others)
        # Through this one once, however many others there are, and with a part of it in memory.
        for byte in range(256):
            here = set(self._beginning(byte))
            held = [held[n] and here.issuperset(other._beginning(byte)) for n, other in enumerate(others)]
        return held

    def _beginning(self, byte: int) -> tuple[bytes, ...]:
        """The ids that begin with this byte."""
        start, end = self._until[byte - 1], self._until[byte]
        return struct.unpack_from("20s" * (end - start), self._map, _HEADS + 20 * start)


_SEVERAL = "multi-pack-index"


def _listed(path: str) -> list[str]:
    """The indices that an index over several packs is made of; none where it is not there, or none that we know."""
    with contextlib.suppress(FileNotFoundError, struct.error), open(path, "rb") as file:
        head = file.read(12)
        chunks = head[6] if head.startswith(b"MIDX") and len(head) == 12 else 0
        # Each has a name and a place, and ends where the next one begins.
        table = file.read(12 * (chunks + 1))
        for name, start, _, end in (struct.unpack_from(">4sQ4sQ", table, 12 * at) for at in range(chunks)):
            if name == b"PNAM":
                file.seek(start)
                return [os.fsdecode(name) for name in file.read(end - start).split(b"\0") if name]
    return []


def _names(directory: str) -> list[str]:
    """What is in a directory; nothing where there is none."""
    with contextlib.suppress(OSError):
        return sorted(os.listdir(directory))
    return []


class Owned:
    """The packs that the store wrote, and may replace: a file in a directory has the name of each.

    Args:
        marks: that directory; it need not be there.
        packs: where the repository has its packs.
        share: gives a file or directory the permissions that the repository wants beyond those of the process.
    """

    def __init__(self, marks: Path, packs: Path, share: Callable[[str], object]) -> None:
        # Texts, because making paths would take longer than what is done with them.
        self._marks = str(marks)
        self._packs = str(packs)
        self._share = share

    def add(self, name: str, like: str | None = None) -> None:
        """Remember that the pack of that name is ours.

        Args:
            name: of the pack, without an ending.
            like: a file that the mark may be a link to, which takes less time than another file.
        """
        mark = f"{self._marks}/{name}"
        if like is not None:
            try:
                os.link(like, mark)
                return
            except FileExistsError:
                return
            except OSError:
                # The first one has no directory yet; and not every file system has links, nor goes one to another disk.
                pass
        Path(self._marks).mkdir(parents=True, exist_ok=True)
        Path(mark).touch()
        for made in (self._marks, mark):
            self._share(made)

    def __len__(self) -> int:
        """How many there are, about: some may be gone."""
        return len(_names(self._marks))

    def settled(self) -> dict[str, int]:
        """The packs that nobody is about to publish, and about how many objects are in each."""
        found = {}
        for name in _names(self._marks):
            path = f"{self._packs}/{name}"
            if not re.fullmatch("pack-[0-9a-f]{40}", name) or os.path.exists(f"{path}.keep"):
                continue
            with contextlib.suppress(FileNotFoundError):
                found[name] = (os.stat(f"{path}.idx").st_size - _HEADS - _TAIL) // _ROW
                continue
            # `git gc` took it in, or it was never ended.
            self.remove(name)
        return found

    def unlist(self, names: Collection[str]) -> None:
        """Remove Git's index over several packs if one of these is among them, or one that is gone.

        It is a cache like ours. As Git does when it removes a pack, because it would miss that in what it lists.
        """
        listed = _listed(f"{self._packs}/{_SEVERAL}")
        if any(name[:-4] in names or not os.path.exists(f"{self._packs}/{name}") for name in listed):
            for name in _names(self._packs):
                # What belongs to it is called after its checksum.
                if name.startswith(_SEVERAL) and not name.endswith((".lock", ".d")):
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(f"{self._packs}/{name}")

    def remove(self, name: str) -> None:
        """Remove a pack of ours whose objects are in another one."""
        # Without its index first, a pack is none; the other way round readers would stumble.
        files = [f"{self._packs}/{name}{suffix}" for suffix in (".idx", ".rev", ".pack")]
        for path in (*files, f"{self._marks}/{name}"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
