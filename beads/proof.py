"""Whether evidence shows that the criteria of a bead hold (I3). Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from beads.model import Bead, Evidence


def united(there: tuple[Evidence, ...], more: Iterable[Evidence]) -> tuple[Evidence, ...]:
    """The evidence that is there, and after it what is new."""
    known = {evidence.id for evidence in there}
    return there + tuple(evidence for evidence in more if evidence.id not in known)


def unproven(bead: Bead, evidence: Sequence[Evidence]) -> str:
    """What the evidence leaves open, in words: empty when each criterion passed on one and the same named tree.

    Of two verdicts on the same criterion the later one counts.
    """
    if not bead.criteria:
        return ""
    if len({found.tree for found in evidence}) > 1:
        return "the evidence is of different trees"
    verdicts = {found.subject: found.verdict for found in evidence if found.tree}
    return next((str(c) for c in bead.criteria if verdicts.get(str(c)) != "pass"), "")


def never_proven(bead: Bead) -> str:
    """What the stored evidence of a bead leaves open on every tree it is about; empty when one tree has it all."""
    trees: dict[str, list[Evidence]] = {}
    for evidence in bead.evidence:
        trees.setdefault(evidence.tree, []).append(evidence)
    left = [unproven(bead, found) for found in trees.values()] or [unproven(bead, ())]
    return left[-1] if all(left) else ""
