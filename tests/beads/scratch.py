"""A repository for one example of a property, where a fixture would be one for all of them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.world import git


@contextmanager
def scratch() -> Iterator[Path]:
    """An empty repository that is gone afterwards."""
    with tempfile.TemporaryDirectory() as place:
        git(Path(place), "init", "--quiet")
        yield Path(place)
