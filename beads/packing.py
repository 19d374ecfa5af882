"""The store's own loose objects and small packs kept few, by Git's own packer, without a daemon.

Only what the store's ref reaches is packed, and only what was found in the new pack afterwards is removed: loose
copies, and packs that transactions of ours have written. Objects of others are never touched. Readers lose nothing:
they look again at which packs there are when they miss an object, and so does Git.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from beads.errors import Unreadable
from beads.git import Oid, Repository

_FACTOR = 2
"""A pack is left alone that has so many times the objects of all smaller ones together."""


class Packed(NamedTuple):
    """What packing did.

    Attributes:
        objects: how many loose objects are in a pack now.
        packs: how many packs of ours were rolled up into one.
    """

    objects: int
    packs: int


def pack(repository: Repository, head: Oid, *, everything: bool = False) -> Packed:
    """Put the loose objects of the store into a pack, and its small packs into one.

    Does nothing while another process does the same.

    Args:
        repository: where the store is.
        head: the newest commit of the store.
        everything: roll up all packs of ours, also the large ones.

    Raises:
        Unreadable: Git is not there, or cannot.
    """
    folder = repository.common / "beads"
    try:
        folder.mkdir(exist_ok=True)
        with _alone(folder / "packer") as alone:
            if not alone:
                return Packed(0, 0)
            _finish(repository)
            objects = _pack_loose(repository, folder / "packed", head)
            owned = repository.objects.owned()
            small = [name for name, _ in owned] if everything else _too_small(owned)
            return Packed(objects, _roll_up(repository, small))
    except OSError as error:
        raise Unreadable(f"objects cannot be packed: {error}", "They stay as they are, which does no harm.") from error


def _finish(repository: Repository) -> None:
    """End what a packer that was killed had begun."""
    folder = repository.common / "beads"
    for left in (*folder.glob("packed.*"), *folder.glob("packs.*")):
        left.unlink()
    with contextlib.suppress(FileNotFoundError):
        _introduce(repository, (folder / "packing" / "name").read_text().strip())
    shutil.rmtree(folder / "packing", ignore_errors=True)


def _introduce(repository: Repository, name: str) -> int:
    """Bring a pack that was made aside to where packs are, and remove the loose copies of what is in it.

    Whenever this is interrupted, doing it again ends it.
    """
    aside, packs = repository.common / "beads" / "packing", repository.common / "objects" / "pack"
    (aside / "name").write_text(name)
    repository.objects.own(name)
    # The index comes last: with it the pack is one.
    for suffix in (".pack", ".rev", ".idx"):
        with contextlib.suppress(FileNotFoundError):
            (aside / f"pack-{name}{suffix}").replace(packs / f"pack-{name}{suffix}")
    count = 0
    for oid in repository.objects.names(name):
        with contextlib.suppress(FileNotFoundError):
            repository.objects.path(oid).unlink()
            count += 1
    (aside / "name").unlink()
    return count


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[bool]:
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield True
    except BlockingIOError:
        yield False
    finally:
        os.close(handle)


def _pack_loose(repository: Repository, mark: Path, head: Oid) -> int:
    """Pack what is loose of the history up to ``head``; ``mark`` says up to where everything is packed already."""
    revisions = [head]
    with contextlib.suppress(OSError, Unreadable):
        # Only a commit that is there can be left out; one that is gone would make Git refuse everything.
        packed = Oid(mark.read_text().strip())
        revisions.append(Oid(f"^{repository.commit(packed).oid}"))
    name = _git(repository, revisions, "--revs", "--unpacked", "--non-empty")
    count = _introduce(repository, name) if name else 0
    fresh = mark.with_name(f"packed.{os.getpid()}")
    fresh.write_text(f"{head}\n")
    fresh.replace(mark)
    return count


def _roll_up(repository: Repository, small: Sequence[str]) -> int:
    """Put packs of ours into one."""
    if len(small) < _FACTOR:
        return 0
    name = _git(repository, [f"{old}.pack" for old in small], "--stdin-packs", "--non-empty")
    if not name:
        return 0
    _introduce(repository, name)
    held = set(repository.objects.names(name))
    others = (old for old in small if old != f"pack-{name}")
    gone = [old for old in others if held.issuperset(repository.objects.names(old.removeprefix("pack-")))]
    repository.objects.disown(gone)
    return len(gone)


def _too_small(packs: Sequence[tuple[str, int]]) -> list[str]:
    """The packs to roll up: the smaller ones, up to the last that is not much larger than all before it together.

    With that there are never more than the logarithm of the number of all objects.

    >>> _too_small([("a", 1), ("b", 1), ("c", 3), ("d", 100)])
    ['a', 'b', 'c']
    """
    ordered = sorted(packs, key=lambda pack: pack[1])
    total, until = 0, 0
    for number, (_, size) in enumerate(ordered):
        if number and size < _FACTOR * total:
            until = number + 1
        total += size
    return [name for name, _ in ordered[:until]]


def _git(repository: Repository, lines: Sequence[str], *options: str) -> str:
    """Run Git's packer; the name of the pack, or nothing when there was nothing to pack."""
    base = repository.common / "beads" / "packing" / "pack"
    base.parent.mkdir(exist_ok=True)
    command = ["git", f"--git-dir={repository.common}", "-c", "pack.threads=1", "pack-objects", "--quiet"]
    command += ["--delta-base-offset", *options, str(base)]
    try:
        done = subprocess.run(
            command, input="".join(f"{line}\n" for line in lines), capture_output=True, text=True, check=False
        )
    except OSError as error:
        raise Unreadable(f"git cannot be run: {error}", "Objects stay as they are, which does no harm.") from error
    if done.returncode:
        raise Unreadable(f"git cannot pack: {done.stderr.strip()[:500]}", "Objects stay as they are: see `git fsck`.")
    return done.stdout.strip()
