"""How the tests of the command line run it: in this process where that is enough, in one of its own where not."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from cli.main import bead

PROGRAM = [sys.executable, "-P", "-c", "from cli.main import bead; bead()"]


class Beads:
    """The ``bead`` command in one repository."""

    def __init__(self, repository: Path) -> None:
        self.repository = repository

    def run(self, *args: str, stdin: str | bytes = b"", code: int = 0) -> str:
        """Run it in this process; returns what it printed, or for another ``code`` than 0 what it complained of."""
        done = CliRunner().invoke(bead, ["-C", str(self.repository), *args], input=stdin)
        assert done.exit_code == code, f"{args} ended with {done.exit_code}, not {code}\n{done.stdout}\n{done.stderr}"
        if code:
            return done.stderr
        assert not done.stderr
        return done.stdout.removesuffix("\n")

    def json(self, *args: str, stdin: str | bytes = b"") -> Any:
        """Run it with ``--json``; returns the value it printed."""
        return json.loads(self.run(*args, "--json", stdin=stdin))

    def create(self, title: str, *args: str) -> str:
        """Create a bead; returns its id."""
        return self.run("create", title, *args)

    def show(self, bead_id: str) -> dict[str, Any]:
        """All that ``bead show`` says of one bead."""
        (found,) = self.json("show", bead_id)
        assert isinstance(found, dict)
        return found


def process(
    *args: str, cwd: Path, environ: Mapping[str, str], stdin: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    """Run ``bead ARGS`` in a process of its own."""
    return subprocess.run([*PROGRAM, *args], cwd=cwd, env=dict(environ), input=stdin, capture_output=True, check=False)
