"""Mend a damaged store from its own history: what could be read last is put back, by a commit like any other.

Only damage is mended. Dependencies on what is not there, and beads that wait for each other, are for a person to
decide; files that are no bead's are in nobody's way.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from itertools import islice
from typing import NamedTuple

from beads.clock import milliseconds
from beads.doctor import Kind, examine
from beads.errors import LostRace, TownError
from beads.git import Commit, Oid, Repository
from beads.history import commits
from beads.model import Bead, path_of, read_bead, write_bead
from beads.store import Store, author_of, message_of, one_line

_TRIES_MAX = 20
_TOLD_MAX = 100

_LOST = 1000
"""How many epochs may be lost with what cannot be read: so many are left out, so that none is given twice."""

_WORK = ("title", "description", "run", "criteria", "seal")


class Mended(NamedTuple):
    """One thing that was mended.

    Attributes:
        where: the bead, or the file where it was no bead.
        what: what became of it, in words.
    """

    where: str
    what: str


class _Mending(NamedTuple):
    """What is to be in a file, None for nothing, and how that is told."""

    data: bytes | None
    told: Mended


class _Old(NamedTuple):
    """A bead as it was, and the commit that it is from."""

    bead: Bead
    commit: Commit

    def __str__(self) -> str:
        subject = self.commit.message.splitlines()[0] if self.commit.message else ""
        return f"{self.commit.oid[:12]} ({subject})"


def repair(store: Store, actor: str) -> tuple[Mended, ...]:
    """Put back what is damaged in the newest state; returns what that was, nothing when all is well.

    Lock files of dead writers go, too, and the index, which is made anew.

    Raises:
        LostRace: other writers were first, every time.
        Unreadable: the store cannot be written, or the newest state has lost more than files.
    """
    store.sweep()
    store.forget()
    repository = store.repository
    # That takes a look at every bead, for which nobody has to wait.
    damaged = _damaged(repository, store.head())
    with store.turn():
        for _ in range(_TRIES_MAX):
            head = repository.commit(store.head())
            now = milliseconds(store.clock.now())
            found = _mendings(repository, head, damaged, now)
            if not found:
                return ()
            commit = repository.write(
                head.tree,
                {path: mending.data for path, mending in found.items()},
                parents=(head.oid,),
                author=author_of(actor),
                when=now,
                message=_message(actor, found),
            )
            if repository.swap(store.ref, head.oid, commit):
                return tuple(mending.told for mending in found.values())
    raise LostRace(f"{store.ref} moved {_TRIES_MAX} times while it was mended", "Try again.")


def _message(actor: str, found: Mapping[str, _Mending]) -> str:
    # A path may be anything that somebody has put into a tree.
    ids = sorted(one_line(path.rsplit("/", 1)[-1].removesuffix(".toml")) for path in found)
    more = f" (and {len(ids) - 1} more)" if len(ids) > 1 else ""
    lines = [one_line(f"{mended.where} {mended.what}") for _, mended in islice(found.values(), _TOLD_MAX)]
    return message_of("\n".join([f"repair {ids[0]}{more}", "", *lines]), actor, ["repair"], ids)


def _damaged(repository: Repository, head: Oid) -> dict[str, Kind]:
    """The files that are damaged, and how."""
    found: dict[str, Kind] = {}
    for finding in examine(repository, head).findings:
        if finding.kind == "seal":
            found[path_of(finding.where)] = finding.kind
        elif finding.kind in ("unreadable", "misplaced") and finding.where.endswith(".toml"):
            found[finding.where] = finding.kind
    return found


def _mendings(repository: Repository, head: Commit, damaged: Mapping[str, Kind], now: datetime) -> dict[str, _Mending]:
    """What is to be in each of these files that is still damaged."""
    here = {path: repository.find(head.tree, path) for path in damaged}
    kinds = {
        path: kind
        for path, kind in damaged.items()
        if (oid := here[path]) is not None and _whole(repository, path, oid, sealed=False) is None
    }
    old, whole = _last_good(repository, head.oid, kinds) if kinds else ({}, True)
    found: dict[str, _Mending] = {}
    for path, kind in kinds.items():
        if path in old:
            bead = _sealed_again(repository, head, old[path]) if kind == "seal" else _back(old[path].bead, now)
            what = "has its goal and criteria" if kind == "seal" else "is"
            found[path] = _Mending(write_bead(bead), Mended(bead.id, f"{what} as in {old[path]}"))
        elif whole and kind != "seal":
            # Where a part of the history is missing somebody else may have what was there.
            found[path] = _Mending(None, Mended(path, f"is gone: it never held its bead; {head.oid[:12]} has it"))
            found |= _moved(repository, head, path)
    return found


def _last_good(repository: Repository, head: Oid, kinds: Mapping[str, Kind]) -> tuple[dict[str, _Old], bool]:
    """The newest version of each file that is a bead as it should be; whether all of the history was looked at."""
    found: dict[str, _Old] = {}
    seen: dict[str, Oid] = {}
    try:
        for commit in commits(repository, head):
            for path in kinds.keys() - found.keys():
                oid = repository.find(commit.tree, path)
                if oid is None or seen.get(path) == oid:
                    continue
                seen[path] = oid
                bead = _whole(repository, path, oid, sealed=kinds[path] == "seal")
                if bead is not None:
                    found[path] = _Old(bead, commit)
            if len(found) == len(kinds):
                break
    except TownError:
        return found, False
    return found, True


def _whole(repository: Repository, path: str, oid: Oid, *, sealed: bool) -> Bead | None:
    """The bead that a file holds, if it belongs there and nobody has changed it behind its seal, or taken that away."""
    try:
        bead = read_bead(repository.read(oid), path)
    except TownError:
        return None
    intact = bead.seal == bead.digest() or not (bead.seal or sealed)
    return bead if path_of(bead.id) == path and intact else None


def _back(bead: Bead, now: datetime) -> Bead:
    """An old version to go on from. Of what came after it, only that its lease may be another's is known (I2)."""
    lease = bead.lease
    if lease is not None and lease.until > now:
        # Whoever claims it next ends what its holder has begun.
        lease = lease.model_copy(update={"until": now})
    return bead.evolve(epoch=bead.epoch + _LOST, lease=lease, updated_at=max(now, bead.updated_at))


def _sealed_again(repository: Repository, head: Commit, old: _Old) -> Bead:
    """The bead as it is, but for what was changed behind its seal."""
    path = path_of(old.bead.id)
    here = read_bead(repository.read(repository.find(head.tree, path) or Oid("")), path)
    return here.evolve(**{name: getattr(old.bead, name) for name in _WORK})


def _moved(repository: Repository, head: Commit, path: str) -> Iterator[tuple[str, _Mending]]:
    """The bead that was found in another one's place, put into its own where there is none."""
    oid = repository.find(head.tree, path)
    try:
        bead = read_bead(repository.read(oid or Oid("")), path)
    except TownError:
        return
    own = path_of(bead.id)
    if own != path and repository.find(head.tree, own) is None:
        yield own, _Mending(write_bead(bead), Mended(bead.id, f"is where it belongs, and no longer in {path}"))
