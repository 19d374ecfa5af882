"""The store's own packs kept few, by Git's own packer, without a daemon; what is loose of the store, too, when asked.

A packer makes the new pack aside, and whoever comes next puts it in its place: that may be the process that began
it, or any later one. Only what is found in the new pack is removed then: packs that the store has written, and loose
copies of what its ref reaches. Objects of others are never touched. Readers lose nothing: they look again at which
packs there are when they miss an object, and so does Git.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from beads.errors import Unreadable
from beads.files import turn
from beads.git import Oid, Repository
from beads.packs import Listing

_FACTOR = 2
"""A pack is left alone that has so many times the objects of all smaller ones together."""

_TOLD_MAX = 20_000
"""How many objects Git is told at most; a writer would take longer to list more of them than it may."""

_DIGITS = str.maketrans("0123456789abcdef", "ABCDEFGHIJKLMNOP")

_OPEN_MAX = 100
"""Of how many packs the lists are open at once; each is an open file."""

_PATIENCE_SECONDS = 600.0
"""How long after a packer failed the next one is begun."""

_running: list[subprocess.Popen[bytes]] = []
"""Packers that were begun and not waited for; they are children of the process, whichever store they are for."""


class Packed(NamedTuple):
    """What packing did.

    Attributes:
        objects: how many loose objects are in a pack now.
        packs: how many packs of ours were rolled up into one.
    """

    objects: int
    packs: int


def begin(repository: Repository) -> None:
    """Have the store's small packs put into one, without waiting for it; end what was begun before.

    Does nothing while another packer is at work.

    Raises:
        Unreadable: Git is not there.
    """
    with _alone(repository) as lock:
        if lock is None or _failed_lately(repository):
            return
        _finish(repository)
        settled = repository.objects.own.settled()
        small = _too_small(settled)
        if len(small) > 1:
            _running[:] = [packer for packer in _running if packer.poll() is None]
            if len(small) == len(settled) or sum(settled[name] for name in small) > _TOLD_MAX:
                # Git walks through all of the history then, which takes longer than to be told a few objects.
                packer = _start(repository, lock, small, [f"{name}.pack" for name in small], "--stdin-packs", "--quiet")
            else:
                folder = _packs(repository)
                oids = (sha.hex() for name in small for sha in Listing(f"{folder}/{name}.idx"))
                packer = _start(repository, lock, small, oids, "--quiet")
            _running.append(packer)


def _failed_lately(repository: Repository) -> bool:
    """Whether Git has complained of late; whoever writes next need not hear it again from the same packs."""
    with contextlib.suppress(FileNotFoundError):
        name, said = ((_aside(repository) / one).stat() for one in ("name", "said"))
        lately = abs(repository.clock.now().timestamp() - said.st_mtime) < _PATIENCE_SECONDS
        return said.st_size > 0 and name.st_size == 0 and lately
    return False


def pack(repository: Repository, head: Oid, *, show: bool = False) -> Packed:
    """Put everything that the store has into one pack: what is loose up to ``head``, and all packs of ours.

    Does nothing while another packer is at work.

    Args:
        repository: where the store is.
        head: its newest commit.
        show: let Git show on the terminal how far it is.

    Raises:
        Unreadable: Git is not there, or cannot.
    """
    with _alone(repository) as lock:
        if lock is None:
            return Packed(0, 0)
        before = _finish(repository)
        # Git finds better deltas than it has by now, and compresses what was written in haste. Chains may be long,
        # because the newest version of a tree is at their beginning, and few read the others.
        options = ("--no-reuse-object", "--depth=250", "--progress" if show else "--quiet")
        reached = _reached(repository, head, show=show)
        _wait(repository, _start(repository, lock, repository.objects.own.settled(), reached, *options))
        packs = before + _finish(repository)
        return Packed(_drop_loose(repository), packs)


@contextmanager
def _alone(repository: Repository) -> Iterator[int | None]:
    folder = repository.common / "beads"
    try:
        folder.mkdir(exist_ok=True)
        with turn(folder / "packer", repository.clock, 0.0, repository.objects.share) as lock:
            yield lock
    except (OSError, ValueError) as error:
        raise Unreadable(f"objects cannot be packed: {error}", "They stay as they are, which does no harm.") from error


def _aside(repository: Repository) -> Path:
    """Where a packer works: ``old`` has the packs that it replaces, ``name`` what it has put them into."""
    return repository.common / "beads" / "packing"


def _packs(repository: Repository) -> str:
    return f"{repository.common}/objects/pack"


def _start(
    repository: Repository, lock: int, old: Iterable[str], lines: Iterable[str], *options: str
) -> subprocess.Popen[bytes]:
    """Start Git's packer, which has ``lock`` for as long as it works, whatever becomes of us."""
    aside, show = _aside(repository), "--progress" in options
    aside.mkdir(exist_ok=True)
    (aside / "old").write_text("".join(f"{name}\n" for name in old))
    with (aside / "list").open("w") as file:
        file.writelines(f"{line}\n" for line in lines)
    command = ["git", f"--git-dir={repository.common}", "-c", "pack.threads=1", "pack-objects"]
    command += ["--delta-base-offset", "--non-empty", *options, str(aside / "pack")]
    with (
        (aside / "list").open("rb") as told,
        (aside / "name").open("wb") as name,
        (aside / "said").open("wb") as said,
        _git(),
    ):
        return subprocess.Popen(
            command,
            stdin=told,
            stdout=name,
            stderr=None if show else said,
            pass_fds=(lock,),
            # What nobody waits for is not to be interrupted with us.
            start_new_session=not show,
        )


@contextmanager
def _git() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Unreadable(f"git cannot be run: {error}", "Packs stay as they are, which does no harm.") from error


def _reached(repository: Repository, head: Oid, *, show: bool) -> Iterator[str]:
    """Each object up to ``head``, and of what it is a version.

    Git looks for deltas among objects whose paths end alike. That of one directory ends like those of hundreds of
    others, and among them a version of it is too far away to be found.
    """
    aside = _aside(repository)
    command = ["git", f"--git-dir={repository.common}", "rev-list", "--objects", head]
    (aside / "name").write_bytes(b"")
    with (aside / "said").open("wb") as said, _git():
        command += ["--progress=Walking through the history"] if show else []
        walker = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=None if show else said)
    with walker:
        for line in walker.stdout or ():
            oid, _, path = os.fsdecode(line.rstrip(b"\n")).partition(" ")
            yield f"{oid} {_alike(path)}"
    _wait(repository, walker)


def _alike(path: str) -> str:
    """What Git is told in place of a path, so that it looks among the versions of it first.

    It makes a number of the end of a path, in which each letter counts four times as much as the one before. So
    written, with two letters between each two of them, no four digits make the number of four others, or of two.
    """
    found = re.fullmatch(r"beads/([0-9a-f]{2})(?:/([0-9a-f]{2}))?", path)
    return "AA".join("".join(found.groups("QQ")).translate(_DIGITS)) if found else path


def _wait(repository: Repository, packer: subprocess.Popen[bytes]) -> None:
    if packer.wait():
        said = (_aside(repository) / "said").read_text(errors="replace").strip()
        raise Unreadable(f"git cannot pack: {said[:500]}", "Objects stay as they are: see `git fsck`.")


def _finish(repository: Repository) -> int:
    """Bring a pack that was made aside to where packs are, and remove the packs it replaces; returns how many.

    What was not ended is dropped.

    Whenever this is interrupted, doing it again ends it.
    """
    aside, packs, own = _aside(repository), _packs(repository), repository.objects.own
    repository.objects.sweep()
    gone = 0
    with contextlib.suppress(FileNotFoundError):
        if re.fullmatch(r"[0-9a-f]{40}\n", checksum := (aside / "name").read_text()):
            name = f"pack-{checksum.strip()}"
            own.add(name)
            # The index comes last: with it the pack is one.
            for suffix in (".pack", ".rev", ".idx"):
                with contextlib.suppress(FileNotFoundError):
                    (aside / f"{name}{suffix}").replace(f"{packs}/{name}{suffix}")
            old = [line for line in (aside / "old").read_text().split() if re.fullmatch(r"pack-[0-9a-f]{40}", line)]
            gone = _replaced(repository, name, old)
            # Somebody may have made it anew meanwhile, of the packs that there were.
            own.unlist(())
    shutil.rmtree(aside, ignore_errors=True)
    return gone


def _replaced(repository: Repository, name: str, old: Sequence[str]) -> int:
    """Remove the old packs whose objects are all in the pack of that name; returns how many."""
    packs, gone = _packs(repository), 0
    held, others = Listing(f"{packs}/{name}.idx"), [other for other in old if other != name]
    for start in range(0, len(others), _OPEN_MAX):
        some, there = others[start : start + _OPEN_MAX], dict[str, Listing]()
        for other in some:
            # One that is not there was being removed by somebody who was killed.
            with contextlib.suppress(FileNotFoundError):
                there[other] = Listing(f"{packs}/{other}.idx")
        found = dict(zip(there, held.holds([*there.values()]), strict=True))
        replaced = [other for other in some if found.get(other, True)]
        repository.objects.own.unlist(replaced)
        for other in replaced:
            repository.objects.own.remove(other)
        gone += len(replaced)
    return gone


def _drop_loose(repository: Repository) -> int:
    """Remove the loose copies of what is in packs of ours; returns how many."""
    packs = _packs(repository)
    held = [Listing(f"{packs}/{name}.idx") for name in repository.objects.own.settled()]
    count = 0
    for sha, path in repository.objects.loose():
        if any(sha in listing for listing in held):
            path.unlink(missing_ok=True)
            count += 1
    return count


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
