"""Try whether a program works here, by running it."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

SECONDS = 10.0
"""How long a trial may take before it counts as failed."""


def complaint(argv: Sequence[str]) -> str:
    """Why a command does not work, in its own words; empty when it exits with 0."""
    try:
        done = subprocess.run(argv, capture_output=True, stdin=subprocess.DEVNULL, timeout=SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    said = done.stderr.decode(errors="replace").strip().splitlines()
    return "" if done.returncode == 0 else (said[-1] if said else f"{argv[0]} ended with {done.returncode}")
