"""What an agent is told and what it goes on with: gathered from the store, from Git, and from attempts before."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from uuid import NAMESPACE_OID, uuid5

from beads.model import Attempt, Bead
from refinery.changes import saved_for
from refinery.git import Git
from roles.task import Earlier, Runtime

_LEAVES_WORDS = ("handed_off", "unmet", "stopped", "died")
"""How an attempt ended whose last words are worth handing on; a provider's refusal is no such word."""

_NOT_GONE_ON_WITH = ("context_exhausted", "stuck", "environment")
"""How a program ended whose conversation is better not gone on with: full, going in circles, or not to be had."""


def earlier(git: Git, base: str, head: str, closed: Sequence[Bead]) -> tuple[Earlier, ...]:
    """What the closed steps of a molecule came to.

    Args:
        git: Git in the work tree.
        base: the commit at which the branch left main.
        head: where the branch is.
        closed: the steps.
    """
    changes = saved_for(git, base, head) if closed else {}
    return tuple(Earlier(step.title, tuple(changes.get(step.id, ())), _words(step)) for step in closed)


def _words(step: Bead) -> str:
    return next((attempt.note for attempt in reversed(step.attempts) if attempt.note), "")


def handoff(step: Bead, attempt: Attempt) -> str:
    """What the last attempt before this one left to say, if it said anything that helps to go on."""
    before = [a for a in step.attempts if a.number < attempt.number and a.end != "parked"]
    last = before[-1] if before else None
    return last.note if last is not None and last.end in _LEAVES_WORDS else ""


def gone_on_with(
    step: Bead, attempt: Attempt, runtime: Runtime, *, wanted: bool, here: Callable[[Attempt], bool]
) -> Attempt | None:
    """The attempt whose conversation this one goes on with; None where it begins a fresh one.

    It is the last one at the same step, by the same agent and in this clone, which alone has the conversation. One
    that is full, or could not be gone on with the last time, is left.

    Args:
        step: with all its attempts.
        attempt: the one that is about to be made.
        runtime: the kind of program.
        wanted: whether the agent is to go on with conversations at all.
        here: whether that attempt was made in this clone.
    """
    last = next((a for a in reversed(step.attempts) if a.number < attempt.number), None)
    if last is None or not wanted or not runtime.resumes:
        return None
    if last.runtime != attempt.runtime or last.end == "handed_off" or last.ending in _NOT_GONE_ON_WITH:
        return None
    return last if session_of(step, last, runtime) and here(last) else None


def session_of(step: Bead, attempt: Attempt, runtime: Runtime) -> str:
    """The name of an attempt's conversation: what the program said, or else what we had it choose."""
    return attempt.session or (chosen(step, attempt) if runtime.chooses else "")


def chosen(step: Bead, attempt: Attempt) -> str:
    """The name that we give to the conversation of an attempt, so that it is known even if nobody lives to store it."""
    return str(uuid5(NAMESPACE_OID, f"{step.id}/{attempt.epoch}/{attempt.number}"))
