"""A process that lets others pour one plan at the same time: ``python -m tests.beads.pourer``.

For each line of JSON, ``{"repository", "ref", "plan", "lines"}``, it starts one process for each of the lines: zero
lets that one come to its end, and any other number kills it before the so-manieth line that touches the disk. When all
are over it pours once more itself, and prints how many were killed and whether that changed anything.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

from beads.store import Store
from roles.proposal import accept, propose
from tests.beads.clocks import Virtual
from tests.beads.victim import kill_before


def pour(place: Path, ref: str, plan: Path) -> bool:
    """Pour the plan; whether that changed anything."""
    store = Store.open(place, Virtual(), ref)
    return accept(propose(plan.read_bytes(), "plan.toml", store, "mayor"), store, "mayor").changed


def _child(place: Path, ref: str, plan: Path, line: int) -> int:
    pid = os.fork()
    if pid == 0:
        if line:
            kill_before(line)
        pour(place, ref, plan)
        os._exit(0)
    return pid


def main() -> None:
    """Do what each line of standard input says."""
    for text in sys.stdin:
        asked = json.loads(text)
        place, ref, plan = Path(asked["repository"]), asked["ref"], Path(asked["plan"])
        ends = [os.waitpid(pid, 0)[1] for pid in [_child(place, ref, plan, line) for line in asked["lines"]]]
        strange = [end for end in ends if end not in (0, signal.SIGKILL)]
        said = {"killed": ends.count(signal.SIGKILL), "strange": strange, "changed": pour(place, ref, plan)}
        print(json.dumps(said), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
