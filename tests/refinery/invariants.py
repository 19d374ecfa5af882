"""The thirteen promises of the merge queue, each checked on what a run of it left: main, the store and the machine.

:func:`broken` takes a :class:`tests.refinery.ledger.Ledger`, which is read with plain Git, and says what it breaks.
Nothing here asks the Refinery what it thinks; its verdict log is in the store, and main speaks for itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path

from beads.lineup import BUMP
from beads.model import Bead, MergeRequest
from refinery.strays import strays
from tests.refinery.ledger import Edge, Ledger, State, Verdict, read
from tests.world import git

ENDS = {"landed", "rejected", "cancelled", "superseded"}
"""How a merge request may end: on main, sent back, or withdrawn."""

OVERTAKEN_MAX = timedelta(days=4)


def assert_kept(
    repository: Path,
    *,
    trunk: Path | None = None,
    branch: str = "main",
    environments: Sequence[tuple[int, str]] = (),
    markers: Iterable[str] = (),
    running: bool = False,
) -> Ledger:
    """Fails, naming each promise that was broken; what was read, for more questions.

    Args:
        repository: the clone whose store is looked at.
        trunk: the repository that it lands on, when that is another one.
        branch: what main is called there.
        environments: from which commit of the store on, counted from 0, what the digest of the gate's surroundings was.
        markers: of processes that should all be gone.
        running: whether a Refinery is still at work, so that a landing may not be in the store yet, and work trees and
            processes are there for a reason.
    """
    ledger = read(repository, trunk, branch)
    problems = [*broken(ledger, environments, settled=not running)]
    if not running:
        problems += left_over(repository, markers)
    assert not problems, "\n".join(problems)
    return ledger


def broken(ledger: Ledger, environments: Sequence[tuple[int, str]] = (), *, settled: bool = True) -> Iterator[str]:
    """The promises that are broken, each with its number and what breaks it."""
    yield from _green(ledger)
    yield from _swapped(ledger)
    yield from _once(ledger)
    yield from _accounted(ledger, settled=settled)
    yield from _as_submitted(ledger)
    yield from _in_order(ledger)
    yield from _fairly_rejected(ledger)
    yield from _first_come(ledger)
    yield from _not_reused(ledger, environments)
    yield from _alone(ledger)
    yield from _nothing_else(ledger)


def left_over(repository: Path, markers: Iterable[str] = ()) -> Iterator[str]:
    """What breaks the tenth promise: that nothing is left over once a Refinery has come to its end."""
    common = repository / ".git"
    for line in git(repository, "worktree", "list", "--porcelain").splitlines():
        if line.startswith("worktree ") and "/gate-" in line:
            yield f"10: {line} is left"
    for pattern in ("*.lock", "beads/merge-*", "index.beadtown*", "**/index.beadtown*", "beadtown-index*"):
        yield from (f"10: {path.relative_to(common)} is left" for path in common.rglob(pattern))
    for ref in git(repository, "for-each-ref", "--format=%(refname)", "refs/beads/candidate").splitlines():
        yield f"10: {ref} is left"
    for marker in markers:
        yield from (f"10: process {process} of {marker} still runs" for process in strays(marker))


def _green(ledger: Ledger) -> Iterator[str]:
    """1: every state that the Refinery put on main has a green verdict for its tree under the gate of its base."""
    for state in ledger.landings:
        gate = ledger.gate(state.parents[0]) if state.parents else None
        green = [v for v in _passes(ledger, state.tree) if gate and v.evidence.gate == gate.digest()]
        if gate is None or not _passes(ledger, state.tree):
            yield f"1: {state.commit} is on main without a green verdict of its tree"
        elif not green:
            yield f"9: {state.commit} is on main with a verdict of another gate than its base has"
        elif any(verdict.place > place for verdict in green[:1] for place in _intents(ledger, state)):
            yield f"1: {state.commit} was to land before its verdict was stored"


def _passes(ledger: Ledger, tree: str) -> list[Verdict]:
    return [v for v in ledger.verdicts if (v.evidence.tree, v.evidence.verdict) == (tree, "pass")]


def _intents(ledger: Ledger, state: State) -> list[int]:
    """The commits of the store that said of all of a state's requests that main is about to become it."""
    said = [
        [edge.place for edge in ledger.requests.get(request, []) if _merge(edge.after).landing == state.commit]
        for request in state.requests
    ]
    return [max(first) for first in zip(*(places[:1] for places in said), strict=True)] if all(said) and said else []


def _merge(bead: Bead | None) -> MergeRequest:
    return (bead and bead.merge) or MergeRequest(molecule="bt-none", branch="", head="", base="")


def _swapped(ledger: Ledger) -> Iterator[str]:
    """2: main moves only by compare-and-swap, from the base that was tested, after it was said that it would."""
    ours = {state.commit: state for state in ledger.landings}
    for old, new in ledger.moves:
        if not ledger.contains(new, old):
            yield f"2: main went from {old} to {new}, which does not have it"
        if new in ours and ours[new].parents[0] != old and not ledger.contains(ours[new].parents[0], old):
            yield f"2: main went from {old} to {new}, which was tested on {ours[new].parents[0]}"
    for state in ledger.landings:
        if state.requests and not _intents(ledger, state):
            yield f"2: nobody said that {state.commit} was about to land"


def _once(ledger: Ledger) -> Iterator[str]:
    """3: a merge request is on main at most once."""
    yield from (f"3: {name} is on main {n} times" for name, n in Counter(ledger.named).items() if n > 1)


def _accounted(ledger: Ledger, *, settled: bool) -> Iterator[str]:
    """4: each request is queued or has ended in one way, for good; what is queued cannot get lost."""
    on_main = {request: state.commit for state in ledger.landings for request in state.requests}
    for request, edges in ledger.requests.items():
        yield from (f"4: {request} {problem}" for edge in edges for problem in _lapses(edge))
        bead = ledger.beads.get(request)
        if bead is None:
            yield f"4: {request} has vanished"
        elif (bead.status == "closed") != (bead.outcome in ENDS):
            yield f"4: {request} is {bead.status} as {bead.outcome}"
        elif bead.outcome == "landed" and on_main.get(request) != _merge(bead).landed:
            yield f"4: {request} is said to have landed as {_merge(bead).landed!r}; main has {on_main.get(request)}"
        elif settled and request in on_main and bead.outcome != "landed":
            yield f"4: {request} is on main, but {bead.outcome or 'open'} in the store"
        elif bead.outcome is None and not _kept(ledger, _merge(bead).head):
            yield f"4: no ref keeps the head of {request}, which is queued"
    yield from (f"4: {request}, which is on main, was never submitted" for request in {*on_main} - {*ledger.requests})


def _lapses(edge: Edge) -> Iterator[str]:
    before, after = edge.before, edge.after
    if before is None:
        return
    if after is None:
        yield "was removed from the store"
    elif before.closed and before.outcome != after.outcome and not (edge.merge and after.outcome == "landed"):
        yield f"was {before.outcome} and then {after.outcome or 'open'}"


def _kept(ledger: Ledger, head: str) -> bool:
    refs = git(ledger.repository, "for-each-ref", "--format=%(refname)", f"--contains={head}")
    # What is only shown may go at any time.
    return any(not ref.startswith("refs/beads/candidate/") for ref in refs.splitlines())


def _as_submitted(ledger: Ledger) -> Iterator[str]:
    """5: what lands is the head that was submitted, whatever became of its branch."""
    heads: dict[str, str] = {}
    for request, edges in ledger.requests.items():
        said = [_merge(edge.after).head for edge in edges if edge.after]
        heads[request] = said[0] if said else ""
        yield from (f"5: the head of {request} went from {said[0]} to {other}" for other in {*said} - {said[0]})
    for state in ledger.landings:
        wanted = [heads.get(request, "") for request in state.requests]
        merged = _merged_heads(ledger, state)
        # What merges nothing, as in other styles, says whose work it is; what is in it is the thirteenth promise.
        if merged != wanted and (merged or list(state.heads) != wanted) and [*state.parents[1:]] != wanted:
            yield f"5: {state.commit} merges {merged or state.parents[1:] or state.heads}, and not {wanted}"


def _merged_heads(ledger: Ledger, state: State) -> list[str]:
    """What is merged on the way to a state, apart from that it is itself a merge."""
    if len(state.parents) != 2:
        return []
    span = (f"^{state.parents[0]}", state.parents[1])
    stack = git(ledger.trunk, "rev-list", "--first-parent", "--reverse", "--parents", *span)
    return [line.split()[2] for line in stack.splitlines() if len(line.split()) > 2]


def _order(ledger: Ledger) -> list[tuple[str, State]]:
    return [(request, state) for state in ledger.landings for request in state.requests]


def _in_order(ledger: Ledger) -> Iterator[str]:
    """6: nothing lands before what it needs."""
    order = [_merge(ledger.beads.get(request)).molecule for request, _ in _order(ledger)]
    places = {molecule: place for place, molecule in enumerate(order)}
    for molecule, place in places.items():
        for need in _needs(ledger, molecule):
            other = ledger.beads.get(need)
            if need in places and places[need] > place:
                yield f"6: {molecule} landed before {need}, which it needs"
            elif need not in places and other is not None and not other.closed:
                yield f"6: {molecule} landed without {need}, which it needs"


def _known(ledger: Ledger, request: str) -> bool:
    return request in ledger.beads and ledger.beads[request].merge is not None


def _needs(ledger: Ledger, molecule: str) -> list[str]:
    bead = ledger.beads.get(molecule)
    return [d.on for d in bead.dependencies if d.type == "blocks"] if bead else []


def _fairly_rejected(ledger: Ledger) -> Iterator[str]:
    """7: sent back is only who failed twice on a green main, does not merge, or lacks a yes; 11: never for an error."""
    for request, edges in ledger.requests.items():
        end = next((edge for edge in edges if edge.after and edge.after.outcome == "rejected"), None)
        if end is None or end.after is None:
            continue
        back = [bead for bead in ledger.beads.values() if bead.source == f"refinery:{request}"]
        if not any(bead.issue_type == "step" and bead.criteria and bead.description for bead in back):
            yield f"7: {request} was sent back without a step that says why"
        if _convicted(ledger, request, end.place) or _does_not_merge(ledger, request) or _unapproved(ledger, request):
            continue
        errors = [v for v in ledger.verdicts if v.request == request and v.evidence.verdict == "error"]
        yield f"{11 if errors else 7}: {request} was sent back for nothing: {end.after.close_reason}"


def _convicted(ledger: Ledger, request: str, before: int) -> bool:
    """Whether the gate failed twice on main with just this request, and passed that main."""
    verdicts = [v for v in ledger.verdicts if v.place < before]
    head = _merge(ledger.beads.get(request)).head
    for state in ledger.states:
        about = [(v.evidence.gate, v.evidence.environment, v.evidence.verdict, v.evidence.tree) for v in verdicts]
        for gate, environment in {key[:2] for key in about}:
            failed = sum(key == (gate, environment, "fail", ledger.merged(state.commit, head)) for key in about)
            if failed >= 2 and (gate, environment, "pass", state.tree) in about:
                return True
    return False


def _does_not_merge(ledger: Ledger, request: str) -> bool:
    head = _merge(ledger.beads.get(request)).head
    return any(not ledger.merged(state.commit, head) for state in ledger.states)


def _unapproved(ledger: Ledger, request: str) -> bool:
    """Whether it changes what is protected by a gate of main."""
    head = _merge(ledger.beads.get(request)).head
    for state in ledger.states:
        gate = ledger.gate(state.commit)
        paths = [f":(glob){path}" for path in gate.protected] if gate else []
        base = git(ledger.repository, "merge-base", state.commit, head)
        if paths and git(ledger.repository, "diff", "--name-only", base, head, "--", *paths):
            return True
    return False


def _first_come(ledger: Ledger) -> Iterator[str]:
    """8: who came first lands first among equals, and nobody is overtaken by what came much later."""
    order = [(ledger.beads[r], state) for r, state in _order(ledger) if _known(ledger, r)]
    for place, (other, state) in enumerate(order):
        for bead, _ in order[place + 1 :]:
            late = other.created_at - bead.created_at
            unfair = late > OVERTAKEN_MAX if other.priority != bead.priority else late > timedelta(0)
            if unfair and not _could_not(ledger, bead, other, state):
                yield f"8: {other.id} landed before {bead.id}, which had come earlier"


def _could_not(ledger: Ledger, bead: Bead, other: Bead, state: State) -> bool:
    """Whether a request could not have landed before another one that did, as ``state``."""
    when = min(_intents(ledger, state), default=0)
    first = ledger.requests[bead.id][0].place
    merge = _merge(bead)
    landed = {_merge(ledger.beads[r]).molecule for s in ledger.states for r in s.requests if s == state}
    before = ledger.states[: ledger.states.index(state)]
    landed |= {_merge(ledger.beads[r]).molecule for s in before for r in s.requests if r in ledger.beads}
    return (
        first > when
        or _hurried(ledger, other)
        or any(need not in landed for need in _needs(ledger, merge.molecule))
        or merge.molecule in _needs(ledger, _merge(other).molecule)
        or _merge(other).molecule in _needs(ledger, merge.molecule)
        or not ledger.merged(state.commit, merge.head)
        or not ledger.merged(state.parents[0], merge.head)
        or any(v.request == bead.id and v.evidence.verdict == "error" and v.place < when for v in ledger.verdicts)
    )


def _hurried(ledger: Ledger, request: Bead) -> bool:
    """Whether a person has put a request to the front, or another one that needs it."""
    said = [bead for bead in ledger.beads.values() if any(e.subject == BUMP for e in bead.evidence)]
    found, stack = set[str](), [_merge(bead).molecule for bead in said]
    while stack:
        molecule = stack.pop()
        if molecule not in found:
            found.add(molecule)
            stack += _needs(ledger, molecule)
    return _merge(request).molecule in found


def _not_reused(ledger: Ledger, environments: Sequence[tuple[int, str]]) -> Iterator[str]:
    """9: no verdict counts in other surroundings than those it was found in; for gates, see the first promise."""
    for state in ledger.landings:
        for when in _intents(ledger, state)[:1]:
            there = [name for place, name in environments if place <= when][-1:]
            found = {v.evidence.environment for v in _passes(ledger, state.tree) if v.place < when}
            if there and found and there[0] not in found:
                yield f"9: {state.commit} is on main with a verdict of other surroundings than it landed in"


def _alone(ledger: Ledger) -> Iterator[str]:
    """12: of all Refineries, one lands on each base."""
    said = {_merge(edge.after).landed for edge in ledger.edges if edge.after} - {""}
    commits = said | {new for _, new in ledger.moves} & {state.commit for state in ledger.landings}
    bases: dict[str, set[str]] = {}
    for commit in commits:
        bases.setdefault(git(ledger.repository, "rev-parse", f"{commit}^1"), set()).add(commit)
    yield from (f"12: {' and '.join(sorted(two))} both landed on {base}" for base, two in bases.items() if len(two) > 1)


def _nothing_else(ledger: Ledger) -> Iterator[str]:
    """13: a landing changes main by what its requests change, and by nothing else."""
    for state in ledger.landings:
        heads = [_merge(ledger.beads.get(request)).head for request in state.requests]
        if not state.parents or not all(heads) or ledger.merged(state.parents[0], *heads) != state.tree:
            yield f"13: the tree of {state.commit} is not what merging {', '.join(state.requests)} gives"
