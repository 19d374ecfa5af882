"""What the store says about the merge queue: requests, verdicts already known, what goes back to a molecule. Pure."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime

from beads import graph, lineup
from beads.index import Reader
from beads.lineup import STANDS as STANDS
from beads.lineup import standstill as standstill
from beads.model import Bead, Criterion, Dependency, Evidence
from refinery.failures import trimmed
from refinery.gate import Gate, Verdict
from refinery.merge import Candidate, Request
from refinery.train import Line
from refinery.verdicts import counting

REWORK = "rework"
"""The label of a step that the Refinery added because the molecule did not land."""

RECENT = 2000
"""Of how many of the requests that ended last the verdicts are looked at, so that a tick costs the same for ever."""

_OUTPUT_MAX = 4000
_MERGED = "Main has moved on; it is merged into this branch."
_EVER = datetime.min.replace(tzinfo=UTC)


def requests(view: graph.View, begun: Sequence[str] = ()) -> list[Request]:
    """The open merge requests as the Refinery works with them, in the order they are to land.

    Those that need what is neither landed nor queued are left out.

    Args:
        view: the beads.
        begun: the ids of those that are being tested, in their order. Only what has priority 0, or was put to the
            front, comes between them: a test that is given up is a test for nothing.
    """
    beads, bumped = graph.queue(view), lineup.bumped(view)
    owners = {bead.merge.molecule: bead.id for bead in beads if bead.merge is not None}
    found: dict[str, Request] = {}
    urgent: list[str] = []
    for bead in beads:
        awaited = graph.awaited(view, bead)
        if bead.merge is None or not all(owners.get(need) in found for need in awaited):
            continue
        needs = tuple(owners[need] for need in awaited)
        merge = bead.merge
        found[bead.id] = Request(id=bead.id, title=bead.title, head=merge.head, molecule=merge.molecule, needs=needs)
        hurried = bead.priority == 0 or bead.id in bumped
        if hurried and bead.id not in begun and set(needs) <= set(urgent):
            urgent.append(bead.id)
    places = {request: place for place, request in enumerate(found)}
    tested = [request for request in begun if request in found]
    order: dict[str, None] = {}
    for at, request in enumerate(tested):
        first = min(places[behind] for behind in tested[at:])
        order |= dict.fromkeys(other for other in urgent if places[other] < first)
        order[request] = None
    return [found[request] for request in dict.fromkeys([*order, *found])]


def begun(order: Sequence[Request], tests: Iterable[Sequence[Request]]) -> tuple[str, ...]:
    """The ids of the requests that tests are about, and of those before them, in this order."""
    tested = {request.id for members in tests for request in members}
    last = max((place for place, request in enumerate(order, start=1) if request.id in tested), default=0)
    return tuple(request.id for request in order[:last])


Said = Sequence[tuple[str, Verdict]]
"""Trees and what the gate said of them, oldest first."""


def said(main: str, beads: Iterable[Bead], gate: str, environment: str, since: datetime) -> Said:
    """The verdicts that count; I4 rests on this key.

    A verdict counts only for the same tree, gate and environment. That a gate could not be run, or that main failed
    it, counts only from ``since`` on: starting the Refinery again is how a person says that it was mended. So does
    having a request tried again (`town queue retry`), after which failures of that head do not count either. A failure
    at other tests than before does not confirm that; see :func:`refinery.verdicts.counting`.

    Args:
        main: the tree that main has.
        beads: the merge requests, on which verdicts are stored.
        gate: names the gate.
        environment: names the surroundings.
        since: see above.
    """
    known = list(beads)
    again: dict[str, datetime] = {}
    for bead in known:
        retried = lineup.last(bead, lineup.AGAIN)
        if bead.merge and retried:
            again[bead.merge.head] = max(retried.at, again.get(bead.merge.head, retried.at))
    since = max([since, *again.values()])
    found = [
        e
        for bead in known
        for e in bead.evidence
        if (e.gate, e.environment) == (gate, environment)
        and (e.verdict == "pass" or e.at >= (since if e.verdict != "fail" or e.tree == main else _anew(bead, again)))
    ]
    found.sort(key=lambda e: e.at)
    about = {main, *(e.tree for b in known if not b.closed for e in b.evidence)}
    return [(e.tree, e.verdict) for e in counting(found, about) if e.verdict != "asked" and e.verdict != "answered"]


def _anew(request: Bead, again: Mapping[str, datetime]) -> datetime:
    """From when on failures of a request count."""
    return again.get(request.merge.head if request.merge else "", _EVER)


def line(
    said: Said, main: str, candidates: Sequence[Candidate], testing: Collection[str], without: Callable[[int], Line]
) -> Line:
    """The queue as the strategy takes it.

    Args:
        said: the verdicts that count.
        main: the tree that main has.
        candidates: its prefixes.
        testing: the trees that are being tested.
        without: the line without one of its requests.
    """
    trees = [main, *(candidate.tree for candidate in candidates)]
    places: dict[str, list[int]] = {}
    for place, (tree, _) in enumerate(said):
        places.setdefault(tree, []).append(place)
    runs = {k: [said[place][1] for place in places[tree]] for k, tree in enumerate(trees) if tree in places}
    troubled = {k: next((p for p in places[trees[k]] if said[p][1] != "pass"), len(said)) for k in runs if k}
    controls = {
        k: [verdict for tree, verdict in said[first + 1 :] if verdict == "pass" or tree == main]
        for k, first in troubled.items()
    }
    return Line(
        n=len(candidates),
        runs=runs,
        controls={k: found for k, found in controls.items() if found},
        running=[k for k, tree in enumerate(trees) if tree in testing],
        without=without,
    )


def stand(bead: Bead, reason: str, remedy: str, by: str, now: datetime) -> Evidence:
    """The evidence that the queue stands still, and why, or without a reason that it moves again."""
    return lineup.mark(bead, STANDS, "error" if reason else "pass", reason or "moves again", by, now, remedy)


def recent(snapshot: Reader) -> list[Bead]:
    """The merge requests whose verdicts matter: those that wait, and the last :data:`RECENT` that ended.

    What was said long ago is of trees that nobody builds any more. Where somebody does, it is tested once more.
    """
    return [*snapshot.requests(), *snapshot.ended(limit=RECENT)]


def outcomes(beads: Iterable[Bead]) -> list[bool]:
    """How past merge requests fared with the gate, oldest first: whether they were convicted."""
    ended = [b for b in beads if b.merge and (b.outcome == "landed" or (b.outcome == "rejected" and _convicted(b)))]
    ended.sort(key=lambda b: b.closed_at or b.created_at)
    return [b.outcome == "rejected" for b in ended]


def _convicted(request: Bead) -> bool:
    """Whether the gate failed on it twice, and not only on candidates of which it was the last."""
    failed = Counter(e.tree for e in request.evidence if e.verdict == "fail")
    return max(failed.values(), default=0) >= 2


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
    merged = [Criterion(run=no_markers(conflicts))] if conflicts else []
    asking = [Criterion(approval=approval)] if approval else []
    again = "\n".join(dict.fromkeys(step.run for step in steps if step.run and REWORK not in step.labels))
    return Bead(
        id=f"{molecule.id}.{number}",
        title=f"Rework after {request.id}: {reason}"[:200],
        issue_type="step",
        priority=molecule.priority,
        description="\n\n".join([reason, _MERGED, trimmed(log, _OUTPUT_MAX)]).rstrip(),
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


def no_markers(paths: Sequence[str]) -> str:
    """A shell line that holds when no conflict marker is left in these files."""
    quoted = " ".join(shlex.quote(path) for path in paths)
    return f"! git grep --no-index -nE '^(<<<<<<<|>>>>>>>) ' -- {quoted}"
