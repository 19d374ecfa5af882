"""What follows from the stored facts: who is ready, who waits for whom, and who acts next (I7). Pure.

Everything here is a function of a :class:`View` and a moment. Readiness follows the documented rules of ``bd``
with three deliberate differences: what waits for a molecule waits until it has *landed*; the unit of work is the
molecule, so its steps are never listed on their own; and within a priority the oldest comes first, because
newest-first starves.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol

from beads.model import BLOCKING, Attempt, Bead

REWORKS_MAX = 5
"""How often a molecule is sent back by the Refinery before a person is asked."""

DEATHS_MAX = 20
"""How many workers may die on one step before a person is asked: a bound on poison, far above bad luck."""

_DONE = frozenset({"landed", "done", "superseded"})
_NUMBERS = re.compile(r"\d+|\D+")
_UNLISTED = frozenset({"step", "merge-request", "message", "epic"})


class View(Protocol):
    """The beads at one moment, as the pure functions need them."""

    def get(self, bead_id: str) -> Bead | None:
        """The bead of that id, or None."""
        ...

    def children(self, bead_id: str) -> Sequence[Bead]:
        """The beads whose parent it is, in the order of their ids."""
        ...

    def dependents(self, bead_id: str) -> Sequence[Bead]:
        """The beads that depend on it in any other way, in the order of their ids."""
        ...

    def unclosed(self) -> Iterable[Bead]:
        """Every bead that is not closed."""
        ...


Kind = Literal["closed", "deferred", "running", "queued", "blocked", "waiting", "needs_person", "ready"]


@dataclass(frozen=True)
class State:
    """Where a bead stands and who acts next, with the reason in plain words.

    Attributes:
        kind: ``ready`` a worker may take it; ``running`` its worker acts; ``queued`` the Refinery acts;
            ``blocked`` it waits for other beads; ``waiting`` for the rest of its molecule; ``deferred`` for a
            date; ``needs_person`` for a person; ``closed`` for nobody.
        reason: one line for a person.
        waits_for: the beads it waits for, where it does.
    """

    kind: Kind
    reason: str
    waits_for: tuple[str, ...] = ()


def natural(bead_id: str) -> tuple[tuple[tuple[int, int, str], ...], ...]:
    """A sort key under which ``bt-a.10`` comes after ``bt-a.9``, and ``bt-a.m10`` after ``bt-a.m9``."""
    # The text decides between 1 and 01, so that no two beads are ever in an order of their own.
    return tuple(
        tuple((0, int(p), p) if p.isdecimal() else (1, 0, p) for p in _NUMBERS.findall(part))
        for part in bead_id.split(".")
    )


def steps(view: View, molecule: Bead) -> list[Bead]:
    """The steps of a molecule in working order; a plain bead with criteria is its own only step.

    A step comes after the steps it needs, and otherwise in the order of the ids.
    """
    found = [child for child in view.children(molecule.id) if child.issue_type == "step"]
    if not found:
        return [molecule] if molecule.criteria else []
    placed: dict[str, Bead] = {}
    inside = {step.id for step in found}
    waiting = found
    while waiting:
        left = []
        for step in waiting:
            # In a chain each step finds the one before it placed in this same pass.
            if any(need in inside and need not in placed for need in step.needs):
                left.append(step)
            else:
                placed[step.id] = step
        if len(left) == len(waiting):
            # A ring, which only a damaged store has: any order is as good.
            placed.update((step.id, step) for step in left)
            break
        waiting = left
    return list(placed.values())


def next_step(view: View, molecule: Bead) -> Bead | None:
    """The first step that is not closed, or None when all work on the molecule is done."""
    return next((step for step in steps(view, molecule) if not step.closed), None)


def molecule_of(view: View, bead: Bead) -> Bead:
    """The unit of claim that a bead belongs to: a step's or a merge request's parent, else itself."""
    if bead.issue_type in ("step", "merge-request") and bead.parent:
        return view.get(bead.parent) or bead
    return bead


def merge_requests(view: View, molecule: Bead) -> list[Bead]:
    """A molecule's merge requests, oldest first."""
    return [child for child in view.children(molecule.id) if child.merge is not None]


def reworks(view: View, molecule: Bead) -> int:
    """How often the Refinery has sent this molecule back."""
    return sum(request.outcome == "rejected" for request in merge_requests(view, molecule))


def queue(view: View) -> list[Bead]:
    """The open merge requests in the order they are to land: priority, then age, then id."""
    requests = [bead for bead in view.unclosed() if bead.merge is not None]
    return sorted(requests, key=lambda r: (r.priority, r.created_at, natural(r.id)))


def failed(step: Bead) -> list[Attempt]:
    """The attempts whose result did not meet the criteria."""
    return [attempt for attempt in step.attempts if attempt.end == "unmet"]


def deaths(step: Bead) -> list[Attempt]:
    """The attempts whose worker died."""
    return [attempt for attempt in step.attempts if attempt.end == "died"]


def blockers(view: View, bead: Bead) -> list[Bead]:
    """The beads that ``bead`` still waits for; a missing target does not block."""
    found = [view.get(d.on) for d in bead.dependencies if d.type in BLOCKING and d.type != "parent-child"]
    return [target for target in found if target is not None and not _frees(target)]


def _frees(target: Bead) -> bool:
    """Whether what waits for ``target`` may go on. A molecule frees when it landed, other beads when closed."""
    if not target.closed:
        return False
    if target.deleted:
        return True
    return target.outcome in _DONE or not (target.issue_type == "molecule" or target.criteria)


def state(view: View, bead: Bead, now: datetime) -> State:
    """Where ``bead`` stands at ``now``: total, exactly one answer for every bead (I7)."""
    found = _state(view, bead, now)
    # Only here, not for each bead that ready() looks at: it follows everything the bead waits for.
    if found.kind == "blocked" and _waits_for_itself(view, molecule_of(view, bead)):
        return State("needs_person", f"{found.reason}, and in the end itself; remove a dependency", found.waits_for)
    return found


def _state(view: View, bead: Bead, now: datetime) -> State:
    if bead.closed:
        return State("closed", f"closed: {bead.outcome or 'done'}")
    if bead.issue_type == "merge-request" or bead.merge is not None:
        return _request_state(view, bead)
    if bead.issue_type == "step":
        return _step_state(view, bead, now)
    if bead.lease is not None:
        return State("running", f"held by {bead.lease.worker} since {bead.lease.since:%H:%M:%S}, epoch {bead.epoch}")
    request = _open_request(view, bead)
    if request is not None:
        return State("queued", f"{request.id}: {_request_state(view, request).reason}")
    if bead.status == "deferred" or (bead.defer_until and bead.defer_until > now):
        until = f" until {bead.defer_until:%Y-%m-%d %H:%M} UTC" if bead.defer_until else ""
        return State("deferred", f"deferred{until}")
    return _molecule_state(view, bead)


def _open_request(view: View, molecule: Bead) -> Bead | None:
    return next((request for request in merge_requests(view, molecule) if not request.closed), None)


def _request_state(view: View, request: Bead) -> State:
    if request.merge is None:
        return State("needs_person", "this merge request does not say what to merge; close it")
    place = next((n for n, r in enumerate(queue(view), start=1) if r.id == request.id), 0)
    return State("queued", f"place {place} in the merge queue" if place else "about to join the merge queue")


def _step_state(view: View, step: Bead, now: datetime) -> State:
    molecule = molecule_of(view, step)
    if molecule.issue_type in ("step", "merge-request") or molecule.merge is not None:
        return State("needs_person", "this step has no molecule; close it or give it a parent")
    current = next_step(view, molecule)
    if current is not None and current.id != step.id and not molecule.closed:
        return State("waiting", f"after step {current.id}", (current.id,))
    return _state(view, molecule, now)


def _molecule_state(view: View, bead: Bead) -> State:
    waiting = blockers(view, bead)
    stuck = [target for target in waiting if target.closed]
    if stuck:
        return State("needs_person", f"needs {stuck[0].id}, which was {stuck[0].outcome or 'closed'} and did not land")
    if waiting:
        return State("blocked", f"needs {', '.join(t.id for t in waiting)}", tuple(t.id for t in waiting))
    return _work_state(view, bead)


def _waits_for_itself(view: View, bead: Bead) -> bool:
    """Whether nothing but a person can end the waiting; merging two histories of the store can make such a ring."""
    seen: set[str] = set()
    stack = [bead]
    while stack:
        for target in blockers(view, stack.pop()):
            if target.id not in seen:
                seen.add(target.id)
                stack.append(target)
    return bead.id in seen


def _work_state(view: View, bead: Bead) -> State:
    if reworks(view, bead) > REWORKS_MAX:
        return State("needs_person", f"sent back by the Refinery {reworks(view, bead)} times")
    step = next_step(view, bead)
    changed = next((b.id for b in (bead, step) if b and b.seal and b.seal != b.digest()), None)
    if changed:
        return State("needs_person", f"the goal or criteria of {changed} were changed after they were sealed")
    if step is None:
        return State("ready", "all steps closed, not yet submitted" if steps(view, bead) else "nothing in its way")
    if len(failed(step)) >= step.attempts_max:
        return State("needs_person", f"step {step.id} failed {len(failed(step))} of {step.attempts_max} attempts")
    if len(deaths(step)) >= DEATHS_MAX:
        return State("needs_person", f"{len(deaths(step))} workers died on step {step.id}")
    return State("ready", f"next step {step.id}: {step.title}")


def ready(view: View, now: datetime) -> list[Bead]:
    """The beads a worker or a person may take now, best first: priority, then age, then id."""
    # What is queued is left out first: to say at which place it is takes a look at everything else.
    listed = (b for b in view.unclosed() if b.issue_type not in _UNLISTED and _open_request(view, b) is None)
    free = [b for b in listed if _state(view, b, now).kind == "ready"]
    return sorted(free, key=lambda b: (b.priority, b.created_at, natural(b.id)))


def workable(view: View, bead: Bead) -> bool:
    """Whether a polecat can work on it: there is at least one criterion that could prove it done."""
    return bool(steps(view, bead))


def waits_on(view: View, start: str) -> Iterator[str]:
    """Every bead that ``start`` waits for, directly or not."""
    seen: set[str] = set()
    stack = [start]
    while stack:
        bead = view.get(stack.pop())
        for dependency in bead.dependencies if bead else ():
            if dependency.type in BLOCKING and dependency.on not in seen:
                seen.add(dependency.on)
                stack.append(dependency.on)
                yield dependency.on


def closes_cycle(view: View, bead_id: str, on: str) -> bool:
    """Whether ``bead_id`` waiting for ``on`` would make it wait for itself."""
    return bead_id == on or bead_id in waits_on(view, on)
