"""Bring the stores of two clones together through a remote: fetch, merge, push, and again when somebody was faster.

Every clone ends at the commit that the remote is at. Nothing is remembered between the steps but refs, so that a
process killed at any of them has either done it or not, and the next one goes on.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from beads import heartbeat
from beads.errors import Fenced, InvalidInput, LostRace, NotFound, Refused, TownError, Unreadable
from beads.git import Change, Oid, Repository
from beads.merge import merge
from beads.model import Bead, Lease, milliseconds, path_of, read_bead, same_holder, write_bead
from beads.ops import Claim, Release
from beads.remote import Remote
from beads.store import Store, Written, author_of, message_of, one_line, settings_of

TRIES_MAX = 30
"""How often one sync starts again because somebody else was faster."""

BEAD_BYTES_MAX = 16 * 2**20
"""The largest bead that is taken from a remote."""

_PAUSE_SECONDS_MAX = 2.0
_FORMAT_FILE = "format.toml"


@dataclass(frozen=True)
class Synced:
    """What a sync did.

    Attributes:
        commit: where the store is now, here and on the remote.
        received: how many beads changed here.
        sent: how many beads changed on the remote.
    """

    commit: Oid
    received: int
    sent: int


def sync(store: Store, remote: Remote, actor: str, chance: random.Random, *, adopt: bool = False) -> Synced:
    """Bring this clone's store and the remote's together; a clone without a store gets the remote's.

    Args:
        store: this clone's; it need not be there yet.
        remote: where to.
        actor: who acts, for the history.
        chance: how long to wait before trying again.
        adopt: whether a store that was begun on its own becomes a part of the remote's.

    Raises:
        Unreadable: the remote cannot be reached, does not take the store, or has one that cannot be read; nothing
            that is here was lost or changed for the worse.
        Refused: the two stores have no common history, and ``adopt`` was not said.
        NotFound: there is no store, neither here nor there.
        LostRace: others were faster every time.
    """
    before = store.repository.head(store.ref)
    for tries in range(TRIES_MAX):
        theirs = remote.fetch()
        ours = integrate(store, remote, theirs, actor, adopt=adopt)
        if ours == theirs or remote.push(ours, theirs):
            return Synced(ours, *(_count(store.repository, was, ours) for was in (before, theirs)))
        _pause(store, chance, tries)
    raise LostRace(f"{remote.name} moved {TRIES_MAX} times while syncing", "Try again.")


def claim(store: Store, remote: Remote, actor: str, operation: Claim, chance: random.Random) -> Written:
    """Claim what counts only because the remote has accepted it.

    Raises:
        LostRace: somebody else's claim of that bead was accepted first; the message says whose.
        Unreadable: the remote could not be asked; what was claimed here was given back.
        TownError: as for the claim itself.
    """
    sync(store, remote, actor, chance)
    for tries in range(TRIES_MAX):
        written = store.commit(actor, [operation])
        bead = written.beads[0]
        if bead is None:
            return written
        rival = _publish(store, remote, actor, bead, chance)
        if rival is None:
            return written
        if operation.id is not None:
            raise LostRace(f"{bead.id} is held by {_named(rival)}: the remote had that claim first")
        _pause(store, chance, tries)
    raise LostRace(f"others were faster {TRIES_MAX} times", "Try again.")


def renew(store: Store, remote: Remote, molecule: Bead) -> None:
    """Tell other clones that a worker of this one goes on, without a trace in the history.

    Raises:
        Unreadable: the remote cannot be reached; the lease then ends as it says.
    """
    lease = _lease(molecule)
    held = [heartbeat.Held(molecule.id, lease.epoch, lease.until)]
    sign = heartbeat.write(store.repository, lease.worker, lease.site, held, milliseconds(store.clock.now()))
    remote.beat(sign, heartbeat.ref_name(lease.worker, lease.site))


def _publish(store: Store, remote: Remote, actor: str, bead: Bead, chance: random.Random) -> Bead | None:
    """Push a claim; None when it was accepted, or the bead as another one's claim has made it."""
    try:
        sync(store, remote, actor, chance)
    except (Unreadable, LostRace) as error:
        _give_back(store, actor, bead)
        raise type(error)(f"{bead.id} was not claimed: {error.message}", error.hint) from error
    now = store.snapshot().get(bead.id)
    return None if now and same_holder(now.lease, bead.lease) else now or bead


def _give_back(store: Store, actor: str, bead: Bead) -> None:
    reason = "the remote did not accept the claim"
    try:
        store.commit(actor, [Release(id=bead.id, worker=_lease(bead).worker, epoch=bead.epoch, reason=reason)])
    except Fenced:
        # What was merged meanwhile has given it to somebody else already.
        return


def _named(bead: Bead) -> str:
    if bead.lease is None:
        return f"nobody any more ({bead.status})"
    return f"{bead.lease.worker} of {bead.lease.site or 'another clone'}, epoch {bead.lease.epoch}"


def _lease(bead: Bead) -> Lease:
    assert bead.lease is not None, "claimed"
    return bead.lease


def _pause(store: Store, chance: random.Random, tries: int) -> None:
    store.clock.sleep(chance.uniform(0.0, min(0.02 * 2**tries, _PAUSE_SECONDS_MAX)))


def _count(repository: Repository, old: Oid | None, new: Oid) -> int:
    before = repository.commit(old).tree if old else None
    return sum(change.path.startswith("beads/") for change in repository.changes(before, repository.commit(new).tree))


def integrate(store: Store, remote: Remote, theirs: Oid | None, actor: str, *, adopt: bool = False) -> Oid:
    """Make the remote's commit a part of this clone's store, without asking the remote; where the store is then.

    Raises:
        TownError: as :func:`sync`; the store's ref has not moved.
    """
    while True:
        with store.turn():
            ours = store.repository.head(store.ref)
            new = _next(store, remote, ours, theirs, actor, adopt)
            if new == ours or store.repository.swap(store.ref, ours, new):
                return new


def _next(store: Store, remote: Remote, ours: Oid | None, theirs: Oid | None, actor: str, adopt: bool) -> Oid:
    if theirs is None or ours == theirs:
        if ours is None:
            raise NotFound(f"there is no store, neither here nor on {remote.name}", "`bead init` begins one.")
        return ours
    incoming = _Incoming(store.repository, remote, theirs)
    if ours is None:
        incoming.check(None)
        return theirs
    bases = remote.bases(ours, theirs)
    if theirs in bases:
        return ours
    if ours in bases:
        incoming.check(ours)
        return theirs
    if not bases and not adopt:
        raise _unrelated(store, ours, incoming)
    return _merged(store, remote, ours, incoming, bases, actor)


def _unrelated(store: Store, ours: Oid, incoming: _Incoming) -> TownError:
    """Why two stores have no common history."""
    repository = store.repository
    here, there = (str(_settings(repository, commit).get("store")) for commit in (ours, incoming.commit))
    if here == there and (repository.common / "shallow").exists():
        return Unreadable(
            f"the history of the store ends before it meets that of {incoming.name}: this is a shallow clone",
            f"`git fetch --unshallow {incoming.name}` brings the rest.",
        )
    return Refused(
        f"the store here ({here}) and the one on {incoming.name} ({there}) were begun independently",
        "`bead sync --adopt` makes them one: all beads of both, under the name and the prefix of the remote's.",
    )


def _settings(repository: Repository, commit: Oid) -> Mapping[str, object]:
    """What ``format.toml`` says at a commit.

    Raises:
        Unreadable: it is not there, or says a format that we do not know.
    """
    oid = repository.find(repository.commit(commit).tree, _FORMAT_FILE)
    if oid is None:
        raise Unreadable(f"{commit[:12]} is no store: it has no {_FORMAT_FILE}", "Is it the right ref?")
    return settings_of(repository.read(oid))


class _Incoming:
    """What a remote has: others wrote it, so that each file is checked before anything of it is taken."""

    def __init__(self, repository: Repository, remote: Remote, commit: Oid) -> None:
        self.name = remote.name
        self.commit = commit
        self._repository = repository
        self._remote = remote
        with self._blaming():
            _settings(repository, commit)
            self.tree = repository.commit(commit).tree

    def changes(self, ours: Oid | None) -> list[Change]:
        """The files that are otherwise there than here, or only there.

        Raises:
            Unreadable: one is missing, too large, or in no place for a bead.
        """
        with self._blaming():
            tree = self._repository.commit(ours).tree if ours else None
            found = [change for change in self._repository.changes(tree, self.tree) if change.new]
            sizes = self._remote.sizes(change.new for change in found if change.new)
            for change in found:
                self._look(change, sizes)
            return found

    def _look(self, change: Change, sizes: Mapping[Oid, int]) -> None:
        assert change.new is not None, "filtered"
        if change.new not in sizes:
            raise Unreadable(f"{change.path} is missing, or is no file")
        if sizes[change.new] > BEAD_BYTES_MAX:
            raise Unreadable(f"{change.path} has {sizes[change.new]} bytes, and the most is {BEAD_BYTES_MAX}")

    def check(self, ours: Oid | None) -> None:
        """See that everything that is not here can be read."""
        for change in self.changes(ours):
            if change.path != _FORMAT_FILE:
                self.bead(change)

    def bead(self, change: Change) -> Bead:
        """The bead in a file.

        Raises:
            Unreadable: it is none, or belongs elsewhere.
        """
        assert change.new is not None, "filtered"
        with self._blaming():
            bead = read_bead(self._repository.read(change.new), change.path)
            if path_of(bead.id) != change.path:
                raise Unreadable(f"{change.path} holds bead {bead.id}, which belongs elsewhere")
            return bead

    def _blaming(self) -> _Blaming:
        return _Blaming(self.name)


class _Blaming:
    """Says of whatever goes wrong that the remote's store is what is wrong, and that ours is as it was."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, at: object) -> None:
        blamed = isinstance(error, Unreadable | InvalidInput | NotFound | RecursionError)
        if blamed and not str(error).startswith(("the store on", "git ")):
            hint = "Nothing was changed here. `bead doctor` in a clone that has it says what is damaged."
            hint = error.hint if isinstance(error, Unreadable) and "Update" in error.hint else hint
            raise Unreadable(f"the store on {self._name} cannot be taken: {error}", hint) from error


class _Past:
    """The state at the point where two histories parted: that of their common ancestor, or of several merged."""

    def __init__(self, repository: Repository, remote: Remote, commits: Sequence[Oid]) -> None:
        self._repository = repository
        self._trees = [repository.commit(commit).tree for commit in commits]
        # After a criss-cross there are several, and what is common to these has to be found in the same way.
        self._below = [
            _Past(repository, remote, remote.bases(commits[n], *commits[:n])) for n in range(1, len(commits))
        ]

    def blob(self, path: str) -> Oid | None:
        """The file at ``path``, or None when there is none, or none that everybody agrees on."""
        found = {self._repository.find(tree, path) for tree in self._trees}
        return found.pop() if len(found) == 1 else None

    def bead(self, path: str) -> Bead | None:
        """The bead in the file at ``path``."""
        beads = self._each(path)
        found = next(beads, None)
        for below, bead in zip(self._below, beads, strict=True):
            found = merge(below.bead(path), found, bead)
        return found

    def _each(self, path: str) -> Iterator[Bead | None]:
        for tree in self._trees:
            oid = self._repository.find(tree, path)
            yield read_bead(self._repository.read(oid), path) if oid else None


class _Taken(NamedTuple):
    """What a merge takes from the remote: files as they become here, and the beads that both had changed."""

    files: dict[str, bytes]
    mixed: list[str]


def _merged(store: Store, remote: Remote, ours: Oid, incoming: _Incoming, bases: Sequence[Oid], actor: str) -> Oid:
    """Write the commit that joins the two histories; only files that differ are opened."""
    repository = store.repository
    taken = _take(repository, _Past(repository, remote, bases), incoming, ours)
    beads = len(taken.files) - (_FORMAT_FILE in taken.files)
    subject = (
        f"sync with {one_line(incoming.name)}: {beads} beads from there, {len(taken.mixed)} of them changed here, too"
    )
    return repository.write(
        repository.commit(ours).tree,
        taken.files,
        parents=(ours, incoming.commit),
        author=author_of(actor),
        when=milliseconds(store.clock.now()),
        message=message_of(subject, actor, ["sync"], taken.mixed),
    )


def _take(repository: Repository, past: _Past, incoming: _Incoming, ours: Oid) -> _Taken:
    files: dict[str, bytes] = {}
    mixed: list[str] = []
    for change in incoming.changes(ours):
        assert change.new is not None, "filtered"
        was = past.blob(change.path)
        if change.old is not None and change.new == was:
            continue
        if change.path == _FORMAT_FILE:
            files[change.path] = repository.read(change.new)
            continue
        theirs = incoming.bead(change)
        if change.old is None or change.old == was:
            files[change.path] = repository.read(change.new)
            continue
        here = read_bead(repository.read(change.old), change.path)
        both = merge(past.bead(change.path), here, theirs, theirs.lease)
        assert both is not None, "both are there"
        files[change.path] = write_bead(both)
        mixed.append(both.id)
    return _Taken(files, sorted(mixed))
