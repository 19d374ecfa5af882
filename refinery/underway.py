"""What the Refinery of this clone is doing right now, for whoever looks from another process.

It is no state, and nothing depends on it: a file that counts only while the process that wrote it lives, which the
kernel knows. What the store says is right without it, on this clone and on any other.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from pydantic import ValidationError

from beads import liveness
from beads.errors import InvalidInput
from beads.model import Fact, Moment
from refinery.merge import Conflict

FILE = "underway.json"
"""The file, in the directory of what this clone keeps and is not state."""

_WORKERS = "workers"


class Run(Fact):
    """A run of the gate that goes on.

    Attributes:
        what: what is tested, in words.
        members: the ids of the merge requests that are merged there, in their order; none for a control.
        since: when it was begun.
    """

    what: str
    members: tuple[str, ...] = ()
    since: Moment


class Underway(Fact):
    """What goes on.

    Attributes:
        by: the worker that says so.
        runs: the runs of the gate.
        waiting: why requests are not merged with those before them, by their ids.
    """

    by: str = ""
    runs: tuple[Run, ...] = ()
    waiting: Mapping[str, str] = {}


NOTHING = Underway()


def tell(directory: Path, found: Underway) -> None:
    """Write it down, or remove what was written where nothing goes on. Whoever cannot write keeps it to himself."""
    path = directory / FILE
    with contextlib.suppress(OSError):
        if not found.runs and not found.waiting:
            path.unlink(missing_ok=True)
            return
        fresh = path.with_name(f".{FILE}.{os.getpid()}")
        fresh.write_text(found.model_dump_json(), "utf-8")
        fresh.replace(path)


def going_on(directory: Path) -> Underway:
    """What goes on in this clone, if somebody who says so lives."""
    try:
        found = Underway.model_validate(json.loads((directory / FILE).read_text("utf-8")))
    except (OSError, ValueError, ValidationError):
        return NOTHING
    with contextlib.suppress(InvalidInput):
        if liveness.alive(directory / _WORKERS, found.by):
            return found
    return NOTHING


class Telling:
    """Tells of what goes on, where that is news.

    Args:
        directory: that of what this clone keeps and is not state.
        by: the worker that says so.
    """

    def __init__(self, directory: Path, by: str) -> None:
        self._directory = directory
        self._by = by
        self._told = NOTHING

    def tell(self, runs: Iterable[Run], waiting: Iterable[Conflict]) -> None:
        """These runs go on, and these requests are not merged with those before them, though they are with main."""
        found = Underway(by=self._by, runs=tuple(runs), waiting={one.request.id: _why(one) for one in waiting})
        if found != self._told:
            tell(self._directory, found)
            self._told = found


def _why(conflict: Conflict) -> str:
    """Why a request is not merged with those before it."""
    if conflict.paths:
        return f"it conflicts in {', '.join(conflict.paths)} with one before it"
    return conflict.messages or "one before it brings the same"
