"""The store's own packs kept few, by Git's own packer, without a daemon; what is loose of the store, too, when asked.

Only what was found in the new pack afterwards is removed: packs that the store has written, and loose copies of what
its ref reaches. Objects of others are never touched. Readers lose nothing: they look again at which packs there are
when they miss an object, and so does Git.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from beads.errors import Unreadable
from beads.files import turn
from beads.git import Oid, Repository
from beads.packs import shas

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


def pack(repository: Repository, head: Oid | None) -> Packed:
    """Put the store's small packs into one.

    Does nothing while another process does the same.

    Args:
        repository: where the store is.
        head: the newest commit of the store, to put everything that it reaches into one pack, large packs of ours and
            loose objects included; None for what is small only.

    Raises:
        Unreadable: Git is not there, or cannot.
    """
    folder, own = repository.common / "beads", repository.objects.own
    try:
        folder.mkdir(exist_ok=True)
        with turn(folder / "packer", repository.clock, 0.0, repository.objects.share) as alone:
            if not alone:
                return Packed(0, 0)
            _finish(repository)
            objects = 0 if head is None else _pack_loose(repository, folder / "packed", head)
            settled = own.settled()
            return Packed(objects, _roll_up(repository, _too_small(settled) if head is None else list(settled)))
    except (OSError, ValueError) as error:
        raise Unreadable(f"objects cannot be packed: {error}", "They stay as they are, which does no harm.") from error


def _finish(repository: Repository) -> None:
    """End what a packer that was killed had begun."""
    folder = repository.common / "beads"
    repository.objects.sweep()
    for left in folder.glob("packed.*"):
        left.unlink()
    with contextlib.suppress(FileNotFoundError):
        _introduce(repository, (folder / "packing" / "name").read_text().strip(), loose=True)
    shutil.rmtree(folder / "packing", ignore_errors=True)


def _introduce(repository: Repository, name: str, *, loose: bool) -> int:
    """Bring a pack that was made aside to where packs are, and remove the ``loose`` copies of what is in it; how many.

    Whenever this is interrupted, doing it again ends it.
    """
    aside, packs = repository.common / "beads" / "packing", repository.common / "objects" / "pack"
    (aside / "name").write_text(name)
    repository.objects.own.add(name)
    # The index comes last: with it the pack is one.
    for suffix in (".pack", ".rev", ".idx"):
        with contextlib.suppress(FileNotFoundError):
            (aside / f"{name}{suffix}").replace(packs / f"{name}{suffix}")
    count = 0
    for sha in shas(packs / f"{name}.idx") if loose else ():
        with contextlib.suppress(FileNotFoundError):
            repository.objects.path(Oid(sha.hex())).unlink()
            count += 1
    (aside / "name").unlink()
    return count


def _pack_loose(repository: Repository, mark: Path, head: Oid) -> int:
    """Pack what is loose of the history up to ``head``; ``mark`` says up to where everything is packed already."""
    revisions = [head]
    with contextlib.suppress(OSError, Unreadable):
        # Only a commit that is there can be left out; one that is gone would make Git refuse everything.
        packed = Oid(mark.read_text().strip())
        revisions.append(Oid(f"^{repository.commit(packed).oid}"))
    name = _git(repository, revisions, "--revs", "--unpacked", "--non-empty")
    count = _introduce(repository, name, loose=True) if name else 0
    fresh = mark.with_name(f"packed.{os.getpid()}")
    fresh.write_text(f"{head}\n")
    fresh.replace(mark)
    return count


def _roll_up(repository: Repository, small: Sequence[str]) -> int:
    """Put packs of ours into one."""
    if len(small) < 2:
        return 0
    name = _git(repository, [f"{old}.pack" for old in small], "--stdin-packs", "--non-empty")
    if not name:
        return 0
    _introduce(repository, name, loose=False)
    packs = repository.common / "objects" / "pack"
    held = set(shas(packs / f"{name}.idx"))
    gone = [old for old in small if old != name and held.issuperset(shas(packs / f"{old}.idx"))]
    for old in gone:
        repository.objects.own.remove(old)
    return len(gone)


def _too_small(packs: Mapping[str, int]) -> list[str]:
    """The packs to roll up: the smaller ones, up to the last that is not much larger than all before it together.

    With that there are never more than the logarithm of the number of all objects.

    >>> _too_small({"a": 1, "b": 1, "c": 3, "d": 100})
    ['a', 'b', 'c']
    """
    ordered = sorted(packs, key=packs.__getitem__)
    total, until = 0, 0
    for number, name in enumerate(ordered):
        if number and packs[name] < _FACTOR * total:
            until = number + 1
        total += packs[name]
    return ordered[:until]


def _git(repository: Repository, lines: Sequence[str], *options: str) -> str:
    """Run Git's packer; the name of the pack that it made aside, or nothing when there was nothing to pack."""
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
    checksum = done.stdout.strip()
    return checksum and f"pack-{checksum}"
