"""Whether evidence shows that the criteria of a bead hold (I3). Pure.

What a person was asked, and has answered, is evidence like any other. It counts only when it is stored on the bead,
because nobody but the operation that stores a person's answer can make it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta

from beads.model import Bead, Evidence


def united(there: tuple[Evidence, ...], more: Iterable[Evidence]) -> tuple[Evidence, ...]:
    """The evidence that is there, and after it what is new."""
    known = {evidence.id for evidence in there}
    return there + tuple(evidence for evidence in more if evidence.id not in known)


def following(bead: Bead, evidence: Sequence[Evidence]) -> tuple[Evidence, ...]:
    """New evidence, later than all that is there: what was found last decides, also when a clock is behind."""
    known = {e.id for e in bead.evidence}
    newest = max((e.at for e in bead.evidence), default=None)
    first = min((e.at for e in evidence if e.id not in known), default=None)
    if newest is None or first is None or first > newest:
        return tuple(evidence)
    late = newest - first + timedelta(milliseconds=1)
    return tuple(e if e.id in known else e.model_copy(update={"at": e.at + late}) for e in evidence)


def question(bead: Bead) -> Evidence | None:
    """What a person was asked about a bead last, if nothing but answers came since."""
    found = max((e for e in bead.evidence if e.verdict == "asked"), key=lambda e: e.at, default=None)
    later = [e for e in bead.evidence if found and e.at > found.at]
    return found if found and all((e.subject, e.tree) == (found.subject, found.tree) for e in later) else None


def answer(bead: Bead, subject: str, tree: str) -> Evidence | None:
    """What a person has said last when asked that about a tree; None when nobody has said anything."""
    said = (e for e in bead.evidence if (e.subject, e.tree) == (subject, tree) and e.verdict != "asked")
    return max(said, key=lambda e: e.at, default=None)


def asked(bead: Bead) -> Evidence | None:
    """What a person has to answer about a bead now; None when it is not a person's turn to speak."""
    found = question(bead)
    return found if found and answer(bead, found.subject, found.tree) is None else None


def words(bead: Bead) -> tuple[str, ...]:
    """What a person has said about a bead's work when asked by a criterion, other than a yes, oldest first.

    It is for whoever goes on with the work, however many attempts that takes.
    """
    subjects = {str(criterion) for criterion in bead.criteria if criterion.approval}
    said = (e for e in bead.evidence if e.subject in subjects and e.verdict in ("fail", "answered"))
    return tuple(e.detail for e in sorted(said, key=lambda e: e.at))


def approvals(beads: Iterable[Bead]) -> list[str]:
    """The trees that a person has approved of, when asked by a criterion of one of these beads."""
    asking = ((bead, str(criterion)) for bead in beads for criterion in bead.criteria if criterion.approval)
    said = ((bead, subject, e.tree) for bead, subject in asking for e in bead.evidence if e.subject == subject)
    good = (tree for bead, subject, tree in said if (a := answer(bead, subject, tree)) and a.verdict == "pass")
    return list(dict.fromkeys(good))


def answered_for(bead: Bead, evidence: Iterable[Evidence]) -> str:
    """The approval that this evidence would give in a person's place; empty when it gives none."""
    subjects = {str(criterion) for criterion in bead.criteria if criterion.approval}
    known = {e.id for e in bead.evidence}
    forged = (e for e in evidence if e.subject in subjects and e.verdict != "asked" and e.id not in known)
    return next((e.subject for e in forged), "")


def unproven(bead: Bead, evidence: Sequence[Evidence]) -> str:
    """What the evidence leaves open, in words: empty when each criterion passed on one and the same named tree.

    Of two verdicts on the same criterion the later one counts.
    """
    if not bead.criteria:
        return ""
    trees = {found.tree for found in evidence}
    if len(trees) > 1:
        return "the evidence is of different trees"
    verdicts = {found.subject: found.verdict for found in evidence if found.tree}
    for tree in trees - {""}:
        said = {str(c): answer(bead, str(c), tree) for c in bead.criteria if c.approval}
        verdicts |= {subject: found.verdict if found else "asked" for subject, found in said.items()}
    return next((str(c) for c in bead.criteria if verdicts.get(str(c)) != "pass"), "")


def never_proven(bead: Bead) -> str:
    """What the stored evidence of a bead leaves open on every tree it is about; empty when one tree has it all."""
    trees: dict[str, list[Evidence]] = {}
    for evidence in bead.evidence:
        trees.setdefault(evidence.tree, []).append(evidence)
    left = [unproven(bead, found) for found in trees.values()] or [unproven(bead, ())]
    return left[-1] if all(left) else ""
