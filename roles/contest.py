"""The best of several attempts: which of them are good, and which one is taken.

Each begins with the same files and is told nothing of the others. All of it follows from what is stored on the step:
killed anywhere, the next polecat goes on with the attempts that are missing, or with choosing.
"""

from __future__ import annotations

from beads.model import Bead
from beads.proof import answer
from refinery.changes import lines_of
from refinery.git import Git
from roles.acceptance import PROTECTED
from roles.site import SALVAGE


def ref_of(molecule: Bead, step: Bead, number: int) -> str:
    """The ref that keeps what an attempt left, whether it is taken or not."""
    return f"{SALVAGE}{molecule.id}/{step.id}-attempt-{number}"


def good(step: Bead) -> list[str]:
    """The trees that nothing is to be said against but what a person may say, who is asked about one only.

    None once a person has said anything but yes: then it is gone on with as with any other work that was rejected.
    """
    judged = [str(criterion) for criterion in step.criteria if not criterion.approval]
    asked = {str(criterion) for criterion in step.criteria if criterion.approval}
    if any(found.subject in asked and found.verdict in ("fail", "answered") for found in step.evidence):
        return []
    trees = dict.fromkeys(found.tree for found in step.evidence if found.tree)
    return [tree for tree in trees if _holds(step, judged, tree)]


def _holds(step: Bead, judged: list[str], tree: str) -> bool:
    found = [answer(step, subject, tree) for subject in judged]
    return all(one and one.verdict == "pass" for one in found) and answer(step, PROTECTED, tree) is None


def best(step: Bead, git: Git, head: str) -> str | None:
    """The good tree that changes the fewest lines, of equal ones the first; None when there is none.

    Args:
        step: the step.
        git: Git where the trees are; one that is in another clone is not chosen.
        head: what the attempts began with.
    """
    there = [tree for tree in good(step) if git.resolve(f"{tree}^{{tree}}")]
    return min(there, key=lambda tree: sum(lines_of(git, head, tree)), default=None)
