"""Taking back what has landed: a molecule and a merge request of its own, that go through the gate as all others do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from itertools import count

from beads import graph
from beads.errors import NotFound, Refused
from beads.model import Bead, Criterion, Dependency, Evidence, MergeRequest, derived_id
from beads.ops import Create
from beads.store import Snapshot
from refinery.gate import gate_of
from refinery.git import ABSENT, Git, Identity
from refinery.queue import no_markers
from refinery.revert import Change, Inverse, change_of_commit, change_of_member, inverse
from roles.site import BRANCHES, REQUESTS, TOWN, Site

SOURCE = "revert:"
"""How the source of a molecule begins that takes something back; the commit after the change follows."""


@dataclass(frozen=True)
class Target:
    """What is to be taken back.

    Attributes:
        change: what it changed.
        title: what it is called.
        molecules: the molecules whose work it is, as far as it was anybody's.
    """

    change: Change
    title: str
    molecules: tuple[Bead, ...]


@dataclass(frozen=True)
class Reverted:
    """What came of it.

    Attributes:
        molecule: the molecule that takes it back.
        request: its merge request; None where there are conflicts to be resolved first.
        paths: where it conflicts.
        dependents: what has landed meanwhile and needs what is taken back.
        made: whether it was made now; it may have been there.
    """

    molecule: Bead
    request: Bead | None
    paths: tuple[str, ...]
    dependents: tuple[Bead, ...]
    made: bool


def revert(site: Site, what: str, actor: str, reason: str, now: datetime) -> Reverted:
    """Ask for main without a change that has landed. Asking again changes nothing.

    Args:
        site: where.
        what: a molecule, a merge request, or a commit of main.
        actor: the person who asks. That is the approval of what it changes, protected paths included.
        reason: why.
        now: when.

    Raises:
        NotFound: there is no such thing.
        Refused: it has not landed, or nothing of it is left.
    """
    snapshot, main = site.store.snapshot(), site.main_head()
    target = find(site.git, snapshot, what, site.settings.town.branch)
    there, bead_id = _there(snapshot, target.change)
    if there is not None:
        return _known(snapshot, there, target)
    title = f'Revert "{target.title}"'[:300]
    message = _message(title, target, bead_id, reason)
    found = inverse(site.git, main, target.change, message, TOWN, _person(actor))
    if found.empty:
        raise Refused(f"main has nothing of {what} any more: there is nothing to take back")
    beads = _beads(site.git, target, found, bead_id, title, message, actor, now)
    _pin(site, bead_id, found)
    site.store.commit(actor, [Create(bead=bead) for bead in beads], f"revert {what} as {bead_id}: {reason or title}")
    site.offer(beads[0], found.head)
    request = beads[-1] if beads[-1].merge else None
    return Reverted(beads[0], request, found.paths, _dependents(snapshot, target), made=True)


def find(git: Git, snapshot: Snapshot, what: str, branch: str) -> Target:
    """What a molecule, a merge request or a commit brought to main.

    Raises:
        NotFound: there is no such thing.
        Refused: it has not landed.
    """
    bead = snapshot.get(what)
    if bead is None:
        return _of_commit(git, snapshot, what, branch)
    requests = [bead] if bead.merge else graph.merge_requests(snapshot, graph.molecule_of(snapshot, bead))
    landed = next((r for r in requests if r.merge and r.merge.landed and r.outcome == "landed"), None)
    if landed is None or landed.merge is None:
        raise Refused(f"{what} has not landed", f"`bead why {what}` says where it stands; `town queue drop` withdraws.")
    _need_on(git, landed.merge.landed, branch)
    together = _requests_of(git, snapshot, landed.merge.landed)
    heads = [request.merge.head for request in together if request.merge]
    change = change_of_member(git, landed.merge.landed, heads or [landed.merge.head], landed.merge.head)
    molecule = snapshot.get(landed.merge.molecule)
    return Target(change, landed.title, (molecule,) if molecule else ())


def _of_commit(git: Git, snapshot: Snapshot, what: str, branch: str) -> Target:
    commit = git.resolve(f"{what}^{{commit}}")
    if commit is None:
        raise NotFound(f"there is no bead and no commit {what!r}", "`git log --first-parent` shows what has landed.")
    _need_on(git, commit, branch)
    molecules = (snapshot.get(r.merge.molecule) for r in _requests_of(git, snapshot, commit) if r.merge)
    subject = git.line("show", "-s", "--no-show-signature", "--format=%s", commit)
    title = "".join(c if c.isprintable() else " " for c in subject).strip() or commit[:12]
    return Target(change_of_commit(git, commit), title, tuple(bead for bead in molecules if bead))


def _need_on(git: Git, commit: str, branch: str) -> None:
    if not git.has(commit) or not git.is_ancestor(commit, f"refs/heads/{branch}"):
        raise Refused(f"{commit[:12]} is not on {branch}", f"`git log --first-parent {branch}` shows what is.")


def _requests_of(git: Git, snapshot: Snapshot, commit: str) -> list[Bead]:
    """The requests that a commit of main says it brought, in their order, as far as the store says the same."""
    form = "--format=%(trailers:key=Merge-Request,valueonly,unfold)"
    names = git.line("-c", "trailer.separators=:", "show", "-s", "--no-show-signature", form, commit).split()
    found = (snapshot.get(name) for name in names)
    return [bead for bead in found if bead and bead.merge and bead.merge.landed == commit]


def _ids(snapshot: Snapshot, change: Change) -> Iterator[str]:
    return (derived_id(snapshot.prefix, "revert", change.new, str(number)) for number in count())


def _there(snapshot: Snapshot, change: Change) -> tuple[Bead | None, str]:
    """The molecule that takes a change back, if there is one that was not given up; and the id of it, or of a new one.

    Raises:
        Refused: it was taken back, and that was taken back since.
    """
    bead, bead_id = None, ""
    for bead_id in _ids(snapshot, change):
        bead = snapshot.get(bead_id)
        if bead is None or not bead.closed or bead.outcome in ("landed", "done"):
            break
    landed = next((r.merge for r in snapshot.merges(bead_id) if r.merge and r.merge.landed), None) if bead else None
    undone = (d for d in snapshot.dependents(bead_id) if d.source.startswith(SOURCE) and d.outcome == "landed")
    other = next(undone, None) if landed else None
    if other is not None:
        raise Refused(f"{bead_id} took it back, and was taken back by {other.id}", f"`town revert {other.id}`?")
    return bead, bead_id


def _known(snapshot: Snapshot, molecule: Bead, target: Target) -> Reverted:
    requests = graph.merge_requests(snapshot, molecule)
    request = requests[-1] if requests else None
    return Reverted(molecule, request, (), _dependents(snapshot, target), made=False)


def _dependents(snapshot: Snapshot, target: Target) -> tuple[Bead, ...]:
    """What has landed and needs these molecules, directly or not."""
    found: dict[str, Bead] = {}
    stack = list(target.molecules)
    while stack:
        here = stack.pop()
        for bead in snapshot.dependents(here.id):
            if here.id in bead.needs and bead.outcome == "landed" and bead.id not in found:
                found[bead.id] = bead
                stack.append(bead)
    return tuple(sorted(found.values(), key=lambda bead: graph.natural(bead.id)))


def _message(title: str, target: Target, bead_id: str, reason: str) -> str:
    named = "".join(f"Reverts-Bead: {bead.id}\n" for bead in target.molecules)
    why = f"{reason}\n\n" if reason else ""
    return (
        f"{title}\n\n{why}This takes back what {target.change.landed} brought.\n\n"
        f"Reverts: {target.change.landed}\n{named}Bead: {bead_id}\n"
    )


def _person(actor: str) -> Identity:
    name, _, address = actor.partition("<")
    return Identity(name.strip() or "a person", address.rstrip("> ") or "person@beadtown.invalid")


def _beads(
    git: Git, target: Target, found: Inverse, bead_id: str, title: str, message: str, actor: str, now: datetime
) -> list[Bead]:
    """The molecule, its step, and where nothing is left to be done its merge request."""
    whole = Bead(
        id=bead_id,
        title=title,
        issue_type="molecule",
        description=message.partition("\n\n")[2].strip(),
        priority=min((bead.priority for bead in target.molecules), default=2),
        source=f"{SOURCE}{target.change.new}",
        created_at=now,
        created_by=actor,
        updated_at=now,
    )
    part = whole.evolve(description="", source="", dependencies=(Dependency(on=bead_id, type="parent-child"),))
    step = part.evolve(id=f"{bead_id}.1", issue_type="step")
    about = tuple(Dependency(on=bead.id, type="discovered-from") for bead in target.molecules)
    molecule = whole.evolve(dependencies=about).sealed()
    if found.paths:
        return [molecule, _to_resolve(git, step, found)]
    merge = MergeRequest(molecule=bead_id, branch=f"{BRANCHES}{bead_id}", head=found.head, base=found.base)
    request = part.evolve(id=f"{bead_id}.m1", issue_type="merge-request", merge=merge)
    return [molecule, _approved(step, target, found, actor, now), request]


def _approved(step: Bead, target: Target, found: Inverse, actor: str, now: datetime) -> Bead:
    """The step, done: a person has asked for exactly this tree, which is what its criterion asks for."""
    criterion = Criterion(approval=f"is {target.change.landed[:12]} to be taken back?")
    key = f"{step.id}\0{found.tree}\0{actor}"
    said = Evidence(
        id=sha256(key.encode("utf-8", "surrogateescape")).hexdigest()[:12],
        subject=str(criterion),
        verdict="pass",
        detail="asked for with `town revert`",
        tree=found.tree,
        commit=found.head,
        by=actor,
        at=now,
    )
    over = {"status": "closed", "outcome": "done", "closed_at": now, "close_reason": f"{actor} asked for it"}
    return step.evolve(criteria=(criterion,), evidence=(said,), **over).sealed()


def _to_resolve(git: Git, step: Bead, found: Inverse) -> Bead:
    """The step, to be done: the conflicts are in the files of its branch."""
    gate = gate_of(git, found.base)
    tested = tuple(Criterion(run=command, timeout=gate.timeout) for command in gate.commands)
    text = (
        "Main has changed since, in the same places. The branch has main with the change taken back, and conflict "
        "markers where Git could not decide: resolve them so that the change is gone and what came later stays.\n\n"
        f"Conflicts: {', '.join(found.paths)}\n\n{found.messages}"
    )
    return step.evolve(description=text.rstrip(), criteria=(Criterion(run=no_markers(found.paths)), *tested)).sealed()


def _pin(site: Site, bead_id: str, found: Inverse) -> None:
    """Keep the commit, and give its molecule a branch to be worked on if need be."""
    site.git.swap(f"{REQUESTS}{bead_id}/{found.head[:16]}", found.head, ABSENT, "submitted")
    branch = f"refs/heads/{BRANCHES}{bead_id}"
    # What is there is of another try that was killed, on an older main: the store knows nothing of it.
    site.git.swap(branch, found.head, site.git.resolve(branch) or ABSENT, "revert")
