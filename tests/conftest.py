"""Every test in a world of its own: home, Git configuration, environment and working directory."""

from __future__ import annotations

import gc
import itertools
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.beads.clocks import Virtual
from tests.world import environment, make_repository

# Real Git and two cores: how long an example takes says nothing about the code.
_PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("default", _PATIENT)
settings.register_profile("ci", _PATIENT, max_examples=50, derandomize=True, database=None, print_blob=True)
settings.register_profile("deep", _PATIENT, max_examples=5000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "default"))

_count = itertools.count()


def pytest_collection_finish() -> None:
    """Keep the collector from looking at four thousand tests again whenever one of them calls it."""
    gc.collect()
    gc.freeze()


def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """The same for what the tests of a file leave in memory: modules, caches and reports."""
    if nextitem is not None and nextitem.path != item.path:
        gc.collect()
        gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def homes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The directory that holds the homes of all tests of this process; fixtures of the session live in one too."""
    homes = tmp_path_factory.mktemp("homes")
    with _living_in(homes / "session"):
        yield homes


@pytest.fixture(autouse=True)
def environ(homes: Path) -> Iterator[dict[str, str]]:
    """The whole environment, of this process while the test runs, and to give to the processes it starts.

    The working directory is the home: a command that writes where it stands does not write into this checkout.
    """
    home = homes / str(next(_count))
    with _living_in(home) as environ:
        yield environ
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
def home(environ: dict[str, str]) -> Path:
    """The test's home directory, where it also starts to run."""
    return Path(environ["HOME"])


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    """A real Git repository with one commit on ``main``."""
    return make_repository(tmp_path / "repo")


@pytest.fixture
def clock() -> Virtual:
    """A clock that is told what time it is."""
    return Virtual()


@contextmanager
def _living_in(home: Path) -> Iterator[dict[str, str]]:
    home.mkdir()
    before, before_directory = dict(os.environ), Path.cwd()
    hermetic = environment(home)
    _become(hermetic, home)
    try:
        yield hermetic
    finally:
        _become(before, before_directory)


def _become(environ: dict[str, str], directory: Path) -> None:
    # pytest notes in PYTEST_CURRENT_TEST where it is, and removes it itself.
    kept = {k: v for k, v in os.environ.items() if k == "PYTEST_CURRENT_TEST"}
    os.environ.clear()
    os.environ.update({**environ, **kept})
    time.tzset()
    os.chdir(directory)
