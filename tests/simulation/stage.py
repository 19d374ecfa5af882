"""Where a run takes place: a copy of a small repository with a town, on a file system in memory where there is one."""

from __future__ import annotations

import gc
import importlib
import os
import pkgutil
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from unittest.mock import patch

from pydantic import BaseModel

import beads
import refinery
import roles
from beads import Store
from tests.simulation.actors import BEGIN, Stage, Time
from tests.simulation.git import QuickGit
from tests.world import environment, make_repository

SETTINGS = """\
[town]
polecats = 3

[sandbox]
kind = "none"

[gate]
commands = ["sim gate"]
timeout = 20

[agents.command]
runtime = "command"
timeout = 30
"""


class _Still:
    """A clock for the making of the repository."""

    def now(self) -> datetime:
        return BEGIN

    def monotonic(self) -> float:
        return 0.0

    def sleep(self, seconds: float) -> None:
        raise AssertionError(f"nobody is there to wait {seconds} s for")


def memory() -> Path:
    """A directory whose files are in memory, where there is one."""
    shared = Path("/dev/shm")
    return shared if shared.is_dir() and os.access(shared, os.W_OK) else Path(tempfile.gettempdir())


@contextmanager
def template() -> Iterator[Path]:
    """The repository that runs begin with."""
    with ExitStack() as stack:
        there = stack.enter_context(tempfile.TemporaryDirectory(prefix="beadtown-sim-", dir=memory()))
        stack.enter_context(patch.dict(os.environ, environment(Path(there))))
        repository = make_repository(Path(there) / "project", {"parts/first": "ok\n", "town.toml": SETTINGS})
        # Nobody has main checked out: what a checkout does when it lands is not what is looked for here.
        (repository / ".git/HEAD").write_text("ref: refs/heads/desk\n")
        Store.init(repository, "bt", clock=_Still())
        for index in (repository / ".git/beads").glob("index*.db*"):
            index.unlink()
        warm()
        yield Path(there)


@contextmanager
def staged(repository: Path, time: Time, *, turns: bool, git: type[QuickGit] = QuickGit) -> Iterator[Stage]:
    """A stage of one's own."""
    with tempfile.TemporaryDirectory(prefix="run-", dir=repository) as there:
        shutil.copytree(repository / "project", Path(there) / "project", symlinks=True)
        yield Stage(Path(there), time, turns, git)


def warm() -> None:
    """Import all that actors will need, and have it ready, so that each need not do so after it is forked."""
    for package in (beads, refinery, roles):
        for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            if module.name not in ("roles.model_brain", "roles.llm", "roles.builtin"):
                importlib.import_module(module.name)
    todo: list[type[BaseModel]] = [BaseModel]
    while todo:
        kind = todo.pop()
        todo += kind.__subclasses__()
        if kind.__module__.split(".")[0] in ("beads", "refinery", "roles"):
            kind.model_rebuild()
    gc.collect()
    gc.freeze()
