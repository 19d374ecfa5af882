"""Whether an agent goes round in circles: a pure look at what it did last. It is cheaper to stop it than to watch."""

from __future__ import annotations

from typing import NamedTuple

from roles.builtin.tools import Result
from roles.events import Ended

MISTAKES_MAX = 3
"""How many answers in a row may have nothing in them that can be done."""


class Step(NamedTuple):
    """Something that was done, and what came of it."""

    action: tuple[str, str]
    result: Result


def stuck(done: list[Step], mistakes: int = 0) -> Ended | None:
    """Whether it goes round in circles, by what it did last and how many answers in a row could not be used."""
    if mistakes >= MISTAKES_MAX:
        return Ended("stuck", f"{mistakes} answers in a row had nothing in them that could be done")
    last = done[-1] if done else None
    if len(done) >= 4 and all(step == last for step in done[-4:]):
        return Ended("stuck", f"did the same four times, with the same result: {_named(done[-1])}")
    failing = done[-3:]
    if len(failing) == 3 and all(s.action == failing[0].action and not s.result.ok for s in failing):
        return Ended("stuck", f"did the same three times, and it failed: {_named(done[-1])}")
    round_ = done[-6:]
    if len(round_) == 6 and round_[:2] * 3 == round_:
        return Ended("stuck", f"did the same two things three times by turns: {_named(round_[0])}, {_named(round_[1])}")
    return None


def _named(step: Step) -> str:
    return f"{step.action[0]} {step.action[1][:200]}"
