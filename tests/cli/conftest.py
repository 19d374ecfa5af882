"""What the tests of the command line share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.commands import Beads


@pytest.fixture
def beads(repo: Path) -> Beads:
    """``bead`` in a repository with an empty store."""
    found = Beads(repo)
    found.run("init")
    return found
