"""What one attempt at a step is about, and what starts it: the values that polecat and runtimes exchange."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True)
class Task:
    """What one attempt is about.

    Attributes:
        goal: the molecule's title and sealed goal.
        step: the step's title and description.
        run: the step's shell line, for runtimes that run it.
        criteria: what must hold afterwards, in words.
        earlier: what the steps before this one did, a line each.
        feedback: what did not hold after the last attempt; empty the first time.
        attempt: counted from 1 over all workers.
    """

    goal: str
    step: str
    run: str
    criteria: tuple[str, ...]
    earlier: tuple[str, ...]
    feedback: str
    attempt: int


class Launch(NamedTuple):
    """A process to start: its arguments and the text on its standard input."""

    argv: list[str]
    stdin: str
