"""What follows from the stored facts: who is ready, who waits for whom, and who acts next (I7). Pure.

Everything here is a function of a :class:`View` and a moment. Readiness follows the documented rules of ``bd``
with these deliberate differences: what waits for a molecule waits until it has *landed*; the unit of work is the
molecule, so its steps are never listed on their own; within a priority the oldest comes first, because
newest-first starves; ``conditional-blocks`` frees only when its target failed, as documented and not as coded
there; and a lease that ran out no longer holds anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from itertools import takewhile

from beads import lineup, speech
from beads.ids import natural as natural
from beads.lineup import PATIENCE as PATIENCE
from beads.lineup import queue as queue
from beads.model import BLOCKING, Attempt, Bead
from beads.order import after
from beads.proof import asked
from beads.state import Kind as Kind
from beads.state import State as State
from beads.view import View as View
from beads.waits import awaited as awaited
from beads.waits import blockers as blockers

REWORKS_MAX = 5
"""How often a molecule is sent back by the Refinery before a person is asked."""

DEATHS_MAX = 20
"""How many workers may die on one step before a person is asked: a bound on poison, far above bad luck."""

HANDOFFS_MAX = 10
"""How often the agents at one step may hand it off, their context being full, before a person is asked."""

UNREADY_MAX = 5
"""How often in a row it may be found that nothing can be done in a step's surroundings before a person is asked."""

FOREVER = datetime.max.replace(tzinfo=UTC)
"""The moment after everything that only waits for time."""

PARTS = frozenset({"step", "merge-request"})
"""The types of what is claimed and released only with the molecule it is a part of."""

UNLISTED = frozenset({*PARTS, *speech.SPEECH, "epic"})
"""The types of what nobody takes up as work."""


def steps(view: View, molecule: Bead) -> list[Bead]:
    """The steps of a molecule in working order; a plain bead with criteria is its own only step.

    A step comes after the steps it needs, and otherwise in the order of the ids.
    """
    found = {step.id: step for step in sorted(view.steps(molecule.id), key=lambda step: natural(step.id))}
    if not found:
        return [molecule] if molecule.criteria else []
    return after(found, {step.id: {need for need in step.needs if need in found} for step in found.values()})


def next_step(view: View, molecule: Bead) -> Bead | None:
    """The step to be worked on, or None when all work on the molecule is done.

    Of the steps that are not closed it is the first one that needs no other such step. Neither the closed ones nor
    those after it are looked at, so that working off a molecule costs the same for each step.
    """
    first: Bead | None = None
    for step in view.steps(molecule.id, unclosed=True):
        first = first or step
        needed = (view.get(need) for need in step.needs)
        if not any(n and not n.closed and (n.parent, n.issue_type) == (molecule.id, "step") for n in needed):
            return step
    # In a ring any of them is as good.
    return first or (molecule if _is_step(view, molecule) and not molecule.closed else None)


def step_left(view: View, bead: Bead) -> Bead | None:
    """The step that has to be closed before the bead can be; it is not in its own way."""
    left = next_step(view, bead)
    return left if left is not None and left.id != bead.id else None


def _is_step(view: View, bead: Bead) -> bool:
    """Whether a bead is its own only step."""
    return bool(bead.criteria) and not any(True for _ in view.steps(bead.id))


def molecule_of(view: View, bead: Bead) -> Bead:
    """The unit of claim that a bead belongs to: a step's or a merge request's parent, else itself."""
    if bead.issue_type in PARTS and bead.parent:
        return view.get(bead.parent) or bead
    return bead


def merge_requests(view: View, molecule: Bead) -> list[Bead]:
    """A molecule's merge requests, oldest first."""
    return list(view.merges(molecule.id))


def reworks(view: View, molecule: Bead) -> int:
    """How often the Refinery has sent this molecule back."""
    return sum(request.outcome == "rejected" for request in merge_requests(view, molecule))


def failed(step: Bead) -> list[Attempt]:
    """The attempts whose result did not meet the criteria."""
    return [attempt for attempt in step.attempts if attempt.end == "unmet"]


def deaths(step: Bead) -> list[Attempt]:
    """The attempts whose worker died."""
    return [attempt for attempt in step.attempts if attempt.end == "died"]


def handoffs(step: Bead) -> list[Attempt]:
    """The attempts that ended because the agent's context was full."""
    return [attempt for attempt in step.attempts if attempt.end == "handed_off"]


def parked(step: Bead) -> Attempt | None:
    """The attempt that a step is put off for, because a provider would not serve it; None when it is not."""
    last = step.attempts[-1] if step.attempts else None
    return last if last is not None and last.end == "parked" else None


def unready(step: Bead) -> list[Attempt]:
    """The last attempts, back to one that came to more, that nothing could be done in: no failures of the work."""
    last = takewhile(lambda attempt: (attempt.end, attempt.ending) == ("parked", "environment"), step.attempts[::-1])
    return list(last)


def out_of_tries(step: Bead) -> str:
    """In words, that a person has to mend something, and then give the step more attempts; empty while none has to."""
    if len(failed(step)) >= step.attempts_max:
        return f"failed {len(failed(step))} of {step.attempts_max} attempts"
    lost = unready(step)
    if len(lost) >= max(UNREADY_MAX, step.attempts_max):
        return f"could not be begun {len(lost)} times: {lost[0].reason}"
    return ""


def cost(bead: Bead) -> float:
    """What the work on a bead itself has cost so far in US dollars, as far as that is known."""
    return sum(a.cost or 0.0 for a in bead.attempts) + sum(e.cost or 0.0 for e in bead.evidence)


def left(view: View, bead: Bead) -> float | None:
    """What is left of the budget of a step, or of a molecule for all its steps; None when it has none."""
    budget = bead.terms.budget if bead.terms else None
    if budget is None:
        return None
    return budget - cost(bead) - sum(cost(step) for step in view.steps(bead.id))


def over_budget(view: View, bead: Bead) -> str:
    """In words, that the budget of a step or a molecule is spent; empty while it is not."""
    rest = left(view, bead)
    if rest is None or rest > 0 or bead.terms is None or bead.terms.budget is None:
        return ""
    return f"has cost ${bead.terms.budget - rest:.2f} of its budget of ${bead.terms.budget:.2f}"


def overdrawn(view: View, molecule: Bead, step: Bead) -> str:
    """The id of the step or the molecule whose budget is spent, so that nothing more may be begun; else empty."""
    return next((bead.id for bead in (step, molecule) if over_budget(view, bead)), "")


def used_up(step: Bead) -> str:
    """In words, why no further attempt at a step is to be begun without a person; empty when one may be."""
    if out_of_tries(step):
        return out_of_tries(step)
    if len(handoffs(step)) >= HANDOFFS_MAX:
        return f"was handed off {len(handoffs(step))} times; it is too large"
    if len(deaths(step)) >= DEATHS_MAX:
        return f"lost {len(deaths(step))} workers"
    return ""


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
    if bead.lease is not None and bead.lease.until > now:
        return State("running", f"held by {bead.lease.worker} since {bead.lease.since:%H:%M:%S}, epoch {bead.epoch}")
    if bead.status == "in_progress" and bead.lease is None:
        return State("running", f"in progress by {bead.assignee or 'somebody'}, without a lease")
    request = _open_request(view, bead)
    if request is not None:
        return State("queued", f"{request.id}: {_request_state(view, request).reason}")
    until = deferred_until(view, bead)
    if bead.status == "deferred" or (until is not None and until > now):
        return State(
            "deferred", f"deferred until {until:%Y-%m-%d %H:%M} UTC{_parked(view, bead)}" if until else "deferred"
        )
    return _molecule_state(view, bead)


def _parked(view: View, bead: Bead) -> str:
    """In words, that it is a provider that a molecule is put off for."""
    step = next_step(view, bead)
    attempt = parked(step) if step else None
    return f": {attempt.runtime}: {attempt.reason}" if attempt else ""


def deferred_until(view: View, bead: Bead) -> datetime | None:
    """Until when a bead is put off: as it says itself or, one step up, its parent does."""
    parent = view.get(bead.parent) if bead.parent else None
    dates = [one.defer_until for one in (bead, parent) if one is not None and one.defer_until is not None]
    return max(dates, default=None)


def _open_request(view: View, molecule: Bead) -> Bead | None:
    return next((request for request in merge_requests(view, molecule) if not request.closed), None)


def _request_state(view: View, request: Bead) -> State:
    if request.merge is None:
        return State("needs_person", "this merge request does not say what to merge; close it")
    waiting = queue(view)
    place = next((n for n, r in enumerate(waiting, start=1) if r.id == request.id), 0)
    aside, held, stands = lineup.aside(request), awaited(view, request), lineup.standstill(view, waiting)
    said = [
        f"place {place} in the merge queue" if place else "about to join the merge queue",
        f"is to land as {request.merge.landing[:12]}" if request.merge.landing else "",
        f"set aside: {aside.detail}" if aside else "",
        f"after {', '.join(held)}" if held else "",
        f"nothing can land: {stands[1].detail}" if stands else "",
    ]
    return State("queued", "; ".join(filter(None, said)))


def _step_state(view: View, step: Bead, now: datetime) -> State:
    molecule = molecule_of(view, step)
    if molecule.issue_type in PARTS or molecule.merge is not None:
        return State("needs_person", "this step has no molecule; close it or give it a parent")
    current = next_step(view, molecule)
    if current is not None and current.id != step.id and not molecule.closed:
        return State("waiting", f"after step {current.id}", (current.id,))
    return _state(view, molecule, now)


def _molecule_state(view: View, bead: Bead) -> State:
    if bead.issue_type in speech.SPEECH:
        return speech.standing(bead)
    waiting = blockers(view, bead)
    stuck = next((target for target in waiting if target.closed), None)
    if stuck is not None:
        return State("needs_person", _stuck(bead, stuck))
    if waiting:
        return State("blocked", f"needs {', '.join(t.id for t in waiting)}", tuple(t.id for t in waiting))
    return _work_state(view, bead)


def _stuck(bead: Bead, target: Bead) -> str:
    """Why waiting for a bead that is closed will never end."""
    how = target.outcome or "closed"
    if any(d.on == target.id and d.type == "conditional-blocks" for d in bead.dependencies):
        return f"is for when {target.id} fails, which was {how}"
    return f"needs {target.id}, which was {how} and did not land"


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
    requests = merge_requests(view, bead)
    back = sum(request.outcome == "rejected" for request in requests)
    if back > REWORKS_MAX:
        return State("needs_person", f"sent back by the Refinery {back} times")
    step = next_step(view, bead)
    gone = lineup.withdrawn(requests)
    if gone is not None and (step is None or step.id == bead.id):
        return State("needs_person", f"{gone.by} took it out of the merge queue: {gone.detail}")
    changed = next((b.id for b in (bead, step) if b and b.seal and b.seal != b.digest()), None)
    if changed:
        return State("needs_person", f"the goal or criteria of {changed} were changed after they were sealed")
    question = asked(step) if step else None
    if step is not None and question is not None:
        about = f": {question.detail}" if question.detail else ""
        return State("needs_person", f"step {step.id} asks for {question.subject}{about}")
    if step is None:
        return State("ready", "all steps closed, not yet submitted" if workable(view, bead) else "nothing in its way")
    if used_up(step):
        return State("needs_person", f"step {step.id} {used_up(step)}")
    spent = overdrawn(view, bead, step)
    if spent:
        what = "step " if spent == step.id else ""
        return State("needs_person", f"{what}{spent} {over_budget(view, view.get(spent) or step)}")
    return State("ready", f"next step {step.id}: {step.title}")


def ready(view: View, now: datetime) -> list[Bead]:
    """The beads a worker or a person may take now, best first. By looking at every bead; see :meth:`View.ready`."""
    return sorted((bead for bead in view.unclosed() if is_ready(view, bead, now)), key=rank)


def is_ready(view: View, bead: Bead, now: datetime) -> bool:
    """Whether a worker or a person may take this bead now."""
    if bead.closed or bead.issue_type in UNLISTED:
        return False
    # What is queued is left out first: to say at which place it is takes a look at everything else.
    return _open_request(view, bead) is None and _state(view, bead, now).kind == "ready"


def rank(bead: Bead) -> tuple[int, datetime, str]:
    """The order in which work is taken up: by priority, then age, then id."""
    return bead.priority, bead.created_at, natural(bead.id)


def is_unit(bead: Bead) -> bool:
    """Whether it stands somewhere by itself, and not as a part of a molecule does."""
    return bead.issue_type not in PARTS and bead.merge is None


def standing(view: View, bead: Bead) -> State:
    """Where a unit would stand if time did not matter: what an index can keep.

    Its reason is left out where it says something of beads that have nothing to do with it.
    """
    found = _state(view, bead, FOREVER)
    return State("queued", "") if found.kind == "queued" else found


def affected(view: View, changes: Iterable[tuple[Bead | None, Bead | None]]) -> set[str]:
    """Every bead whose :func:`standing` may have changed because these did.

    Args:
        view: the state after the changes.
        changes: each bead that changed, before and after; None where it was not there.
    """
    found: set[str] = set()
    below: list[str] = []
    above: set[str] = set()
    for old, new in changes:
        for bead in (old, new):
            if bead is not None:
                found.update((bead.id,) if is_unit(bead) or not bead.parent else (bead.id, bead.parent))
        bead = new or old
        if bead is None:
            continue
        if _inherited(old) != _inherited(new):
            below.append(bead.id)
        parents = {side.parent for side in (old, new) if side is not None}
        if _ending(old) != _ending(new) or len(parents) > 1:
            below += [other.id for other in view.dependents(bead.id)]
            above.update(filter(None, parents))
    for parent in above:
        below += [o.id for o in view.dependents(parent) if any(d.type == "waits-for" for d in o.dependencies)]
    seen: set[str] = set()
    while below:
        here = below.pop()
        if here not in seen:
            seen.add(here)
            below += [child.id for child in view.children(here) if is_unit(child)]
    return found | seen


def _inherited(bead: Bead | None) -> object:
    """What matters to the parts of a bead."""
    return bead and (bead.dependencies, bead.defer_until)


def _ending(bead: Bead | None) -> object:
    """What matters to those that wait for a bead."""
    return bead and (bead.closed, bead.outcome, bead.issue_type == "molecule" or bool(bead.criteria))


def workable(view: View, bead: Bead) -> bool:
    """Whether a polecat can work on it: there is at least one criterion that could prove it done."""
    return bool(bead.criteria) or any(True for _ in view.steps(bead.id))


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
