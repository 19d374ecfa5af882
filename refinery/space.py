"""How much room work trees take on the disk, and whether there is room for one more."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from beads.errors import InvalidInput
from refinery.git import Git
from refinery.workshop import Workshop

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", re.IGNORECASE)


def size_of(text: str) -> int:
    """The bytes that a text such as ``20G`` or ``512 MiB`` means; each unit is 1024 of the one below it.

    Raises:
        InvalidInput: it means none.
    """
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise InvalidInput(f"{text!r} is not a size", "Write it as 20G or 512M.")
    return int(float(found[1]) * _UNITS[found[2].upper()])


def in_words(size: float) -> str:
    """A size for people, such as ``1.5G``."""
    unit = next(name for name, bytes_ in reversed(_UNITS.items()) if size >= bytes_ or not name)
    return f"{size / _UNITS[unit]:.3g}{unit or ' bytes'}"


def shortage(workshop: Workshop, git: Git, commit: str, most: int | None, least: int) -> str:
    """Why there is no room for one more work tree, in words; empty when there is.

    What is in the trash, and work trees that wait to be used again, are deleted before it is said that there is none.

    Args:
        workshop: the work trees that there are.
        git: Git in the repository.
        commit: what the new one would have.
        most: bytes that all of them may take, the new one included; None for any number.
        least: bytes that have to be free on that disk.
    """
    found = _shortage(workshop.root, git, commit, most, least)
    if found:
        workshop.prune(idle=True)
        found = _shortage(workshop.root, git, commit, most, least)
    return found


def _shortage(root: Path, git: Git, commit: str, most: int | None, least: int) -> str:
    free = shutil.disk_usage(_existing(root)).free
    if free < least:
        return f"{in_words(free)} are free where {root} is, less than disk_free = {in_words(least)}"
    if most is None:
        return ""
    used = {place: _used(place) for place in _below(root)}
    trees = [size for place, size in used.items() if not place.name.startswith(".")]
    # What a set-up adds is in those that have been set up.
    wanted = max(_written(git, commit), sum(trees) // len(trees) if trees else 0)
    total = sum(used.values())
    if total + wanted <= most:
        return ""
    return (
        f"{root} has {in_words(total)} and one more would take about {in_words(wanted)}, "
        f"more than disk_max = {in_words(most)}"
    )


def _existing(path: Path) -> Path:
    return next(place for place in (path, *path.parents) if place.exists())


def _below(path: Path) -> Iterator[Path]:
    with suppress(OSError):
        yield from path.iterdir()


def _used(place: Path) -> int:
    """The bytes that a file or directory takes on the disk. What vanishes meanwhile takes none."""
    total = _blocks(place)
    if place.is_dir() and not place.is_symlink():
        for at, directories, files in os.walk(place):
            total += sum(_blocks(Path(at, name)) for name in [*directories, *files])
    return total


def _blocks(path: Path) -> int:
    with suppress(OSError):
        return path.lstat().st_blocks * 512
    return 0


def _written(git: Git, commit: str) -> int:
    """The bytes that the files of a commit take when they are written out."""
    listed = git.run("ls-tree", "-r", "-l", "-z", commit).out.split("\0")
    sizes = (line.partition("\t")[0].split()[3] for line in listed if line)
    return sum(-(-int(size) // 4096) * 4096 for size in sizes if size.isdigit())
