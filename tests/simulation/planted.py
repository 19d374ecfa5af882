"""Bugs that are planted on purpose, to see that the simulation finds each of them, and how soon.

Each takes away one thing that a promise rests on. They are put in place before actors are forked, and so in all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from unittest.mock import patch

from beads import apply, graph
from beads.git import Oid, Repository
from beads.store import Snapshot
from refinery import queue, refinery, train
from refinery.merge import Candidate
from refinery.train import Line, Plan
from refinery.worktree import Worktree
from roles import effort, polecat, witness
from roles.site import Site
from tests.simulation.actors import SimMachine
from tests.simulation.git import QuickGit

Planting = Callable[[], Sequence[object]]


def _no_fencing() -> Sequence[object]:
    """A worker writes although somebody else holds its molecule by now (I2)."""

    def guard(draft: object, context: object, bead_id: str, worker: str, epoch: int) -> object:
        del context, worker, epoch
        bead = draft.need(bead_id)  # type: ignore[attr-defined]
        return bead, graph.molecule_of(draft, bead)  # type: ignore[arg-type]

    return [patch.object(apply, "guard", guard)]


def _no_compare_and_swap() -> Sequence[object]:
    """The store's ref is moved wherever it is (I1, I2)."""
    swap = Repository.swap

    def careless(self: Repository, ref: str, old: Oid | None, new: Oid) -> bool:
        del old
        return swap(self, ref, self.head(ref), new)

    return [patch.object(Repository, "swap", careless)]


def _no_salvage() -> Sequence[object]:
    """Nothing of what is not committed is saved before a work tree goes (I1)."""
    return [
        patch.object(Site, "salvage", lambda *_: None),
        patch.object(Worktree, "_is_saved", lambda *_: True),
    ]


def _lands_unswapped() -> Sequence[object]:
    """Main is moved wherever it is (I1, I4)."""

    def land(git: QuickGit, branch: str, candidate: Candidate) -> bool:
        git.run("update-ref", f"refs/heads/{branch}", candidate.commit)
        return True

    return [patch.object(refinery, "land", land)]


def _knows_no_landing() -> Sequence[object]:
    """What main already has is not recognised after a crash (I5)."""
    return [patch.object(refinery, "landed", lambda *_, **__: {})]


def _any_green_counts() -> Sequence[object]:
    """A green verdict is taken for one about every tree (I4)."""
    line = queue.line

    def careless(said: queue.Said, main: str, candidates: Sequence[Candidate], *rest: object) -> Line:
        green = [(c.tree, verdict) for c in candidates for _, verdict in said if verdict == "pass"]
        return line([*said, *green], main, candidates, *rest)  # type: ignore[arg-type]

    return [patch.object(queue, "line", careless)]


def _last_is_guilty() -> Sequence[object]:
    """Whoever is at the front when something is red is sent back at once."""
    plan = train.plan

    def hasty(line: Line, slots: int, rate: float) -> Plan:
        red = any(run and run[-1] == "fail" for k, run in line.runs.items() if k)
        return Plan(convict=True) if red else plan(line, slots, rate)

    return [patch.object(refinery, "plan", hasty)]


def _takes_from_the_living() -> Sequence[object]:
    """The Witness takes everybody for dead (I2)."""
    return [patch.object(Site, "alive", lambda *_: False)]


def _leaves_the_dying() -> Sequence[object]:
    """What a dead worker started goes on, behind the back of who comes next (I1)."""
    return [patch.object(SimMachine, "kill_strays", lambda *_: 0)]


def _believes_agents() -> Sequence[object]:
    """A step closes whatever its criteria say (I3)."""
    return [patch.object(effort, "holds", lambda *_: True)]


def _sweeps_nothing() -> Sequence[object]:
    """What a closed molecule leaves is left."""
    return [patch.object(witness, "_over", lambda *_: False)]


def _waits_for_nobody() -> Sequence[object]:
    """Molecules begin before what they need has landed (I5)."""
    return [
        patch.object(graph, "blockers", lambda *_: []),
        patch.object(Snapshot, "ready", lambda self, now: graph.ready(self, now)),
    ]


def _submits_what_was() -> Sequence[object]:
    """A polecat submits the commit before its last."""
    head = Worktree.head

    def _submit(self: polecat.Polecat, worktree: Worktree) -> object:
        with patch.object(Worktree, "head", lambda w: w._git.resolve(f"{head(w)}^1") or head(w)):
            return submit(self, worktree)

    submit = polecat.Polecat._submit
    return [patch.object(polecat.Polecat, "_submit", _submit)]


def _forgets_the_dead() -> Sequence[object]:
    """Nobody takes a molecule back from who died."""
    return [patch.object(Site, "alive", lambda *_: True)]


BUGS: dict[str, Planting] = {
    "no fencing": _no_fencing,
    "no compare-and-swap": _no_compare_and_swap,
    "no salvage": _no_salvage,
    "lands unswapped": _lands_unswapped,
    "knows no landing": _knows_no_landing,
    "any green counts": _any_green_counts,
    "last is guilty": _last_is_guilty,
    "takes from the living": _takes_from_the_living,
    "leaves the dying": _leaves_the_dying,
    "believes agents": _believes_agents,
    "sweeps nothing": _sweeps_nothing,
    "waits for nobody": _waits_for_nobody,
    "submits what was": _submits_what_was,
    "forgets the dead": _forgets_the_dead,
}
"""The bugs by name; each gives what puts it in place."""


@contextmanager
def planted(name: str) -> Iterator[None]:
    """Have a bug in place."""
    with ExitStack() as stack:
        for change in BUGS[name]():
            stack.enter_context(change)  # type: ignore[arg-type]
        yield
