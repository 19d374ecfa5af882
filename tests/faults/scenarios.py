"""What is killed and failed at every call: the table. To have another operation tried, add a row to it."""

from __future__ import annotations

import contextlib
import gc
import io
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from beads.clock import Clock
from beads.git import Repository
from beads.store import REF
from cli.main import bead
from cli.session import Session
from tests import world
from tests.beads.clocks import Virtual

LONG = os.environ.get("FAULTS") == "all"
"""Whether there is time for everything."""


class Outcome(NamedTuple):
    """How a command ended, and what it said."""

    code: int
    out: str
    err: str


class _At(Session):
    """A session on a clock that is given."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.named = "nux"
        self._clock = clock

    @cached_property
    def clock(self) -> Clock:
        return self._clock


def command(place: Path, *args: str, clock: Clock | None = None) -> Outcome:
    """Run ``bead ARGS`` there, as its program would, up to the code that it ends with."""
    out, err = io.StringIO(), io.StringIO()
    code: Any = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), contextlib.chdir(place):
        try:
            bead.main(list(args), obj=_At(clock or Virtual()))
        except SystemExit as error:
            code = error.code
    # A process that ends closes what it has open, which here waits for the collector.
    gc.collect()
    return Outcome(int(code or 0), out.getvalue(), err.getvalue())


def done(place: Path, *args: str) -> Outcome:
    """The same, for what must succeed."""
    outcome = command(place, *args)
    assert outcome.code == 0, outcome
    return outcome


@dataclass(frozen=True)
class Scenario:
    """Something to be killed at.

    Attributes:
        prepare: makes what is there before, in an empty directory; the repository is its ``repo``.
        steps: the commands, one after another; each may take back up where the one before was killed.
        lacks: why it is not tried; empty when it is.
        again: by which command somebody goes on where a step was struck that does not do the same again.
    """

    prepare: Callable[[Path], None]
    steps: tuple[tuple[str, ...], ...]
    lacks: str = ""
    again: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = ()


def _bare(base: Path) -> None:
    world.make_repository(base / "repo")


def _few(base: Path) -> None:
    """A store of three beads, one waiting for another."""
    _bare(base)
    place = base / "repo"
    done(place, "init")
    for number in range(3):
        done(place, "create", f"Work {number}", "--id", f"bt-{number}")
    done(place, "dep", "add", "bt-2", "bt-1")
    done(place, "ready")


def _batch(base: Path) -> None:
    _few(base)
    (base / "repo" / "batch").write_text("".join(map(_line, range(200 if LONG else 80))))


def _line(number: int) -> str:
    return json.dumps({"op": "create", "bead": {"id": f"bt-b{number}", "title": f"Work {number}"}}) + "\n"


def _unindexed(base: Path) -> None:
    """A store that was used, without what is kept beside it to read it fast."""
    _few(base)
    (base / "repo" / "batch").write_text("".join(map(_line, range(30))))
    done(base / "repo", "batch", "batch")
    forget(base / "repo")


def _behind(base: Path) -> None:
    """A store that another clone's writers went on with: what is kept beside it is older."""
    _few(base)
    place = base / "repo"
    kept = place / ".git" / "beads"
    shutil.copytree(kept, base / "kept")
    for number in range(3):
        done(place, "create", f"More {number}", "--id", f"bt-m{number}", "--needs", "bt-0")
    done(place, "close", "bt-1")
    shutil.rmtree(kept)
    (base / "kept").rename(kept)


def _loose(base: Path) -> None:
    """A store with many loose objects."""
    _few(base)
    for number in range(30):
        done(base / "repo", "comment", "bt-0", f"Comment {number}")


def _shared(base: Path) -> None:
    """Two clones that both went on."""
    world.git(base, "init", "--bare", "--quiet", "hub.git")
    _few(base)
    place = base / "repo"
    world.git(place, "remote", "add", "origin", "../hub.git")
    # Git takes a pipe that does not take what it prints for no error, and a pipe can only be full here, where the first
    # write of each process fails at once. So nobody asks it which remotes there are.
    (place / "town.toml").write_text('[store]\nremote = "origin"\n')
    world.git(place, "push", "--quiet", "origin", "main", "refs/beads/main")
    world.git(base, "clone", "--quiet", "hub.git", "other")
    world.git(base / "other", "fetch", "--quiet", "origin", "refs/beads/main:refs/beads/main")
    done(base / "other", "comment", "bt-0", "from there")
    world.git(base / "other", "push", "--quiet", "origin", "refs/beads/main")
    done(place, "comment", "bt-1", "from here")


_BEST = ("claim", "--next", "--as", "nux")
_LATER = "" if LONG else "`make faults` tries it"

SCENARIOS = {
    "init": Scenario(_bare, (("init",),), _LATER),
    "create": Scenario(_few, (("create", "Another", "--id", "bt-x", "--needs", "bt-0"),)),
    "claim": Scenario(_few, (("claim", "bt-0", "--as", "nux"),), _LATER),
    "day": Scenario(
        _few,
        (
            ("create", "Another", "--id", "bt-x"),
            _BEST,
            ("comment", "bt-0", "Found it."),
            ("label", "add", "bt-0", "found"),
            ("close", "bt-0", "--as", "nux", "--epoch", "1", "--reason", "done"),
        ),
        _LATER,
        ((_BEST, ("claim", "bt-0", "--as", "nux")),),
    ),
    "batch": Scenario(_batch, (("batch", "batch"),), _LATER),
    "first use of the index": Scenario(_unindexed, (("ready", "--json"),), _LATER),
    "advance of the index": Scenario(_behind, (("ready", "--json"), ("blocked", "--json"))),
    "gc": Scenario(_loose, (("gc",),), _LATER),
    "sync": Scenario(_shared, (("sync",),), _LATER),
}


def index(place: Path) -> list[Path]:
    """The files that are kept beside the store to read it fast."""
    return sorted((place / ".git" / "beads").glob("index.db*"))


def forget(place: Path) -> None:
    """Take them away; it loses nothing."""
    for path in index(place):
        path.unlink()


def state(place: Path) -> str:
    """What there is, in short: the tree of all beads; ``none`` without a store."""
    repository = Repository(place)
    head = repository.head(REF)
    return "none" if head is None else repository.find(repository.commit(head).tree, "beads") or "empty"
