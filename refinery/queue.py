"""What the store says about the merge queue: requests, verdicts already known, what goes back to a molecule. Pure."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from beads import graph
from beads.model import Bead, Criterion, Dependency, Evidence
from beads.proof import following
from refinery.gate import Gate, Verdict
from refinery.merge import Candidate, Request

REWORK = "rework"
"""The label of a step that the Refinery added because the molecule did not land."""

STANDS = "the queue"
"""The subject of the evidence that nothing can land without a person, or that something can again."""

_OUTPUT_TAIL = 4000


def requests(view: graph.View) -> list[Request]:
    """The open merge requests as the Refinery works with them, in the order they are to land."""
    return [
        Request(id=bead.id, title=bead.title, head=bead.merge.head, molecule=bead.merge.molecule)
        for bead in graph.queue(view)
        if bead.merge is not None
    ]


@dataclass(frozen=True)
class Known:
    """The verdicts that count for a stack of candidates, oldest first, as :func:`refinery.train.plan` takes them.

    Attributes:
        runs: by the length of the prefix; 0 is main itself.
        controls: the verdicts of main that were run as the control of a prefix's trial.
    """

    runs: Mapping[int, Sequence[Verdict]]
    controls: Mapping[int, Sequence[Verdict]]


def known(
    main: str, candidates: Sequence[Candidate], beads: Iterable[Bead], gate: str, environment: str, since: datetime
) -> Known:
    """What is known of main's tree and of each candidate's; I4 rests on this key.

    A verdict counts only for the same tree, gate and environment. That a gate could not be run, or that main failed
    it, counts only from ``since`` on: starting the Refinery again is how a person says that it was mended.
    """
    found = [(e, b.id) for b in beads if b.merge for e in b.evidence if (e.gate, e.environment) == (gate, environment)]
    found = [
        (e, b) for e, b in found if e.at >= since or e.verdict == "pass" or (e.verdict == "fail" and e.tree != main)
    ]
    found.sort(key=lambda pair: pair[0].at)
    trees = [main, *(candidate.tree for candidate in candidates)]
    judged = [(e.tree, bead, e.verdict) for e, bead in found if e.verdict != "asked" and e.verdict != "answered"]
    runs = {k: [verdict for at, _, verdict in judged if at == tree] for k, tree in enumerate(trees)}
    tips = {k: candidate.members[-1].id for k, candidate in enumerate(candidates, start=1)}
    controls = {k: [v for at, bead, v in judged if at == main and bead == tip] for k, tip in tips.items()}
    return Known({k: v for k, v in runs.items() if v}, {k: v for k, v in controls.items() if v})


def standstill(view: graph.View) -> tuple[Bead, Evidence] | None:
    """Why nothing can land without a person, as far as a Refinery has said so, and the request that it was said of.

    It stands until that request is closed, or until the Refinery says that something can land again.
    """
    said = [(bead, e) for bead in graph.queue(view) for e in bead.evidence if e.subject == STANDS]
    last = max(said, key=lambda pair: pair[1].at, default=None)
    return last if last is not None and last[1].verdict == "error" else None


def stand(bead: Bead, reason: str, remedy: str, by: str, now: datetime) -> Evidence:
    """The evidence that the queue stands still, and why, or without a reason that it moves again."""
    key = f"{bead.id}\0{reason}\0{now.isoformat()}"
    found = Evidence(
        id=hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()[:12],
        subject=STANDS,
        verdict="error" if reason else "pass",
        detail=reason or "moves again",
        output=remedy,
        by=by,
        at=now,
    )
    return following(bead, (found,))[0]


def outcomes(beads: Iterable[Bead]) -> list[bool]:
    """How past merge requests ended, oldest first: whether they were sent back."""
    ended = [b for b in beads if b.merge and b.outcome in ("landed", "rejected")]
    ended.sort(key=lambda b: b.closed_at or b.created_at)
    return [b.outcome == "rejected" for b in ended]


def last_red(view: graph.View, candidate: Candidate, gate: str) -> Evidence | None:
    """The newest evidence that the gate failed on a candidate's tree."""
    beads = [view.get(member.id) for member in candidate.members]
    red = [e for b in beads if b for e in b.evidence if (e.tree, e.gate, e.verdict) == (candidate.tree, gate, "fail")]
    return max(red, key=lambda e: e.at, default=None)


def rework(
    view: graph.View,
    request: Request,
    reason: str,
    gate: Gate,
    conflicts: Sequence[str],
    log: str,
    now: datetime,
    approval: str = "",
) -> Bead:
    """The step that a molecule gets when it does not go onto main as it is.

    Its criteria are the gate itself and everything the molecule promised, on the branch with main merged in, and
    where one is needed an approval. A ``command`` molecule does its work again on today's main, unless it says what
    to do instead.
    """
    molecule = view.get(request.molecule)
    assert molecule is not None, f"merge request {request.id} has no molecule"
    steps = graph.steps(view, molecule)
    number = 1 + sum(child.issue_type == "step" for child in view.children(molecule.id))
    promised = [c for step in steps for c in step.criteria]
    gates = [Criterion(run=command, timeout=gate.timeout) for command in gate.commands]
    merged = [Criterion(run=_no_markers(conflicts))] if conflicts else []
    asking = [Criterion(approval=approval)] if approval else []
    again = "\n".join(dict.fromkeys(step.run for step in steps if step.run and REWORK not in step.labels))
    return Bead(
        id=f"{molecule.id}.{number}",
        title=f"Rework after {request.id}: {reason}"[:200],
        issue_type="step",
        priority=molecule.priority,
        description=f"{reason}\n\nMain has moved on; it is merged into this branch.\n\n{log[-_OUTPUT_TAIL:]}".rstrip(),
        run=molecule.rework or again,
        agent=molecule.agent,
        labels=(REWORK,),
        source=f"refinery:{request.id}",
        created_at=now,
        created_by="refinery",
        updated_at=now,
        dependencies=(Dependency(on=molecule.id, type="parent-child"),),
        criteria=tuple(dict.fromkeys([*merged, *promised, *gates, *asking])),
    ).sealed()


def _no_markers(paths: Sequence[str]) -> str:
    """A shell line that holds when no conflict marker is left in these files."""
    quoted = " ".join(shlex.quote(path) for path in paths)
    return f"! git grep --no-index -nE '^(<<<<<<<|>>>>>>>) ' -- {quoted}"
