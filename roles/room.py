"""A work tree of its own for a look at a commit, thrown away afterwards, whatever ends the look.

A room is held as a worker is: by a lock that the kernel lets go of when its process dies. Who is killed in it leaves a
file with its name, and the next look or the Witness clears away what belongs to that name.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from beads import liveness
from beads.errors import LostRace
from beads.liveness import Presence
from refinery import removal
from refinery.workshop import Worktree
from roles.site import Site

PREFIX = "_rehearsal-"
"""What the names of rooms begin with, and none of a bead or a worker: so are a room's work tree and marker called."""


class Room(NamedTuple):
    """A work tree that nobody else has.

    Attributes:
        name: whoever works in it is called so.
        worktree: its files.
        logs: a directory for what commands print.
    """

    name: str
    worktree: Worktree
    logs: Path


@contextmanager
def room(site: Site, commit: str) -> Iterator[Room]:
    """A room with the files of a commit; nothing of it is left afterwards. What dead ones left is cleared away first.

    Raises:
        NotFound: there is no such commit.
    """
    for name in liveness.names(site.workers):
        if is_room(name):
            sweep(site, name)
    with _named(site) as presence:
        # It may be the name of one who has died since.
        _clear(site, presence.name)
        try:
            yield Room(presence.name, site.workshop.open_detached(presence.name, commit), _logs(site, presence.name))
        finally:
            _clear(site, presence.name)


def is_room(worker: str) -> bool:
    """Whether that is the name of a room, not of somebody who holds molecules."""
    return worker.startswith(PREFIX)


def sweep(site: Site, name: str) -> None:
    """Clear away what a dead process left in its room, and its file; a living one's room stays."""
    # As long as it is cleared the name is ours, so that nobody moves in meanwhile.
    with suppress(LostRace), Presence(site.workers, name):
        _clear(site, name)


def _named(site: Site) -> Presence:
    """A name that no living process has."""
    for number in itertools.count(1):
        with suppress(LostRace):
            return Presence(site.workers, f"{PREFIX}{number}")
    raise AssertionError("numbers do not end")


def _clear(site: Site, name: str) -> None:
    """First everything that runs there is dead, then what it was in goes; of that nothing is anybody's work."""
    site.machine.kill_strays(site.marker(name))
    for worktree in site.workshop.all():
        if worktree.path.name == name and worktree.branch is None:
            worktree.remove(discard=True)
    site.workshop.prune()
    for own in (_logs(site, name), site.sandbox.scratch(name)):
        removal.delete(own)


def _logs(site: Site, name: str) -> Path:
    return site.store.directory / "rooms" / name
