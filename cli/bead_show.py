"""``bead``: the commands that look at one bead."""

from __future__ import annotations

from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING, Any

import click

from cli import render
from cli.bead import Look, answer
from cli.session import BEAD_ID, Session, command

if TYPE_CHECKING:
    from beads.graph import State
    from beads.model import Bead

# Who acts next on a bead in that state (I7).
_NEXT = {
    "ready": "any worker",
    "running": "its worker",
    "queued": "the Refinery",
    "blocked": "whoever acts on what it waits for",
    "waiting": "its worker, when the steps before it are closed",
    "deferred": "nobody before its date",
    "needs_person": "a person",
    "closed": "nobody",
}


@command("show")
@click.argument("ids", metavar="ID...", nargs=-1, required=True, type=BEAD_ID)
@click.option("--at", metavar="REV", help="As it was then.")
@click.pass_obj
def show(session: Session, ids: tuple[str, ...], at: str | None) -> None:
    """Print all there is to know about beads.

    REV is the id of a commit that `bead log` shows, or its first four digits or more; ~2 for two transactions
    before the newest, ID~2 for two before that one; or a date or moment in ISO 8601, in UTC without a zone.

    \b
    Example:
      bead show bt-7f3a9c
      bead show bt-7f3a9c --json | jq '.[0].evidence'
      bead show bt-7f3a9c --at 2026-01-31T12:00
      bead show bt-7f3a9c --at 3c1d2e4f~1
    """
    look = Look.of(session) if at is None else _look_back(session, at)
    beads = [look.find(bead_id) for bead_id in ids]
    if session.json:
        when = {} if at is None else {"as_of": {"commit": look.snapshot.commit, "when": look.now}}
        render.echo_json([_full_answer(look, bead) | when for bead in beads])
        return
    if at is not None:
        click.echo(f"as of {look.now:%Y-%m-%d %H:%M:%S} UTC, {look.snapshot.commit[:12]}")
    for number, bead in enumerate(beads):
        click.echo("" if number else None, nl=bool(number))
        _print_bead(look, bead)


@command("why")
@click.argument("bead_id", metavar="ID", type=BEAD_ID)
@click.pass_obj
def why(session: Session, bead_id: str) -> None:
    """Say where a bead stands and who acts next.

    What it waits for follows, and what that waits for, all the way down.

    \b
    Example:
      bead why bt-7f3a9c
    """
    look = Look.of(session)
    chain = _chain(look, look.find(bead_id))
    if session.json:
        described = [{"id": b.id, "title": b.title, "depth": d, "state": s, "next": _NEXT[s.kind]} for d, b, s in chain]
        render.echo_json({**described[0], "chain": described[1:]})
        return
    for depth, bead, state in chain:
        kind = render.style(state.kind.replace("_", " "), render.COLOURS[state.kind])
        # The reason often starts with the very word that names the state.
        reason = f": {state.reason}" if not state.reason.startswith(state.kind) else state.reason[len(state.kind) :]
        indent = "  " * depth
        click.echo(f"{indent}{bead.id} {render.printable(bead.title)}")
        click.echo(f"{indent}  {kind}{render.printable(reason)}; next: {_NEXT[state.kind]}")


@command("path")
@click.argument("bead_id", metavar="ID", type=BEAD_ID)
@click.pass_obj
def path(session: Session, bead_id: str) -> None:
    """Print the path of a bead's file, to give to Git.

    \b
    Example:
      git log -p refs/beads/main -- $(bead path bt-7f3a9c)
      git show refs/beads/main:$(bead path bt-7f3a9c)
    """
    from beads.model import path_of

    snapshot = session.store.snapshot()
    # One that was deleted has a path, too, and what it was can be found there.
    place = path_of((snapshot.get(bead_id) or session.find(snapshot, bead_id)).id)
    if session.json:
        render.echo_json({"id": bead_id, "path": place, "ref": session.store.ref, "commit": snapshot.commit})
    else:
        click.echo(place)


def _look_back(session: Session, revision: str) -> Look:
    """The state after an earlier transaction, at the moment when that was made."""
    from beads.history import resolve

    store = session.store
    commit = resolve(store.repository, store.repository.head(store.ref) or store.snapshot().commit, revision)
    return Look(session, store.snapshot_at(commit.oid), commit.when)


def _full_answer(look: Look, bead: Bead) -> dict[str, Any]:
    dependents = [*look.snapshot.children(bead.id), *look.snapshot.dependents(bead.id)]
    edges = [
        {"issue_id": other.id, "depends_on_id": bead.id, "type": dependency.type}
        for other in {other.id: other for other in dependents}.values()
        for dependency in other.dependencies
        if dependency.on == bead.id
    ]
    row = look.snapshot.row(bead.id, look.now)
    assert row is not None, "it was just found"
    return answer(look, row) | {"dependents": edges}


def _print_bead(look: Look, bead: Bead) -> None:
    state = look.state(bead)
    click.echo(f"{render.style(bead.id, 'bold')}  {render.printable(bead.title)}")
    _print_facts(bead, state)
    render.paragraph("Description", bead.description)
    render.paragraph("Command", bead.run)
    render.paragraph("To mend", bead.rework)
    render.paragraph("Criteria", "\n".join(str(criterion) for criterion in bead.criteria))
    related = [f"{d.type} {d.on}{_standing(look, d.on)}" for d in bead.dependencies]
    render.paragraph("Depends on", "\n".join(related))
    below = [f"{child.id}{_standing(look, child.id)}  {child.title}" for child in look.snapshot.children(bead.id)]
    render.paragraph("Parts", "\n".join(below))
    waiting = [f"{other.id}  {other.title}" for other in look.snapshot.dependents(bead.id)]
    render.paragraph("Needed by", "\n".join(waiting))
    render.paragraph(
        "Attempts", "\n".join(f"{a.number}  {a.worker}  {a.end or 'running'}  {a.reason}" for a in bead.attempts)
    )
    render.paragraph("Evidence", "\n".join(f"{e.verdict}  {e.subject}  {e.detail}" for e in bead.evidence))
    for said in bead.comments:
        render.paragraph(f"{said.author}, {render.moment(said.created_at)}", said.text)


def _print_facts(bead: Bead, state: State) -> None:
    closed = (
        f"{render.moment(bead.closed_at)}: {bead.close_reason}" if bead.close_reason else render.moment(bead.closed_at)
    )
    lease = bead.lease
    merge = bead.merge
    render.fields(
        [
            ("state", (f"{state.kind.replace('_', ' ')}: {state.reason}", render.COLOURS[state.kind])),
            ("next", _NEXT[state.kind]),
            ("type", f"{bead.issue_type}, priority {bead.priority}"),
            ("labels", ", ".join(bead.labels)),
            ("assignee", bead.assignee),
            ("agent", bead.agent),
            ("held by", f"{lease.worker}, epoch {lease.epoch}, until {render.moment(lease.until)}" if lease else ""),
            ("branch", f"{merge.branch} at {merge.head[:12]}" if merge else ""),
            ("sealed", "yes" if bead.seal else ""),
            ("deferred", render.moment(bead.defer_until)),
            ("created", f"{render.moment(bead.created_at)} by {bead.created_by or 'unknown'}"),
            ("updated", render.moment(bead.updated_at)),
            ("closed", closed),
        ]
    )


def _standing(look: Look, bead_id: str) -> str:
    bead = look.snapshot.get(bead_id)
    if bead is None or bead.deleted:
        return " (deleted)" if bead else " (not there)"
    return f" ({look.state(bead).kind.replace('_', ' ')})"


def _chain(look: Look, bead: Bead) -> list[tuple[int, Bead, State]]:
    """The bead and what it waits for, each once, with its depth; a bead is followed by what it waits for."""
    found: list[tuple[int, Bead, State]] = []
    seen: set[str] = set()
    stack = [(0, bead)]
    while stack:
        depth, here = stack.pop()
        if here.id in seen:
            continue
        seen.add(here.id)
        row = look.snapshot.row(here.id, look.now)
        state = look.stands(row) if row else look.state(here)
        found.append((depth, here, state))
        below = [target for i in reversed(state.waits_for) if (target := look.snapshot.get(i)) is not None]
        stack += [(depth + 1, target) for target in below]
    # Whether a bead waits for itself takes a look at everything below it, from each of them only if one does.
    return [(depth, one, look.state(one)) for depth, one, _ in found] if _has_ring(look, bead) else found


def _has_ring(look: Look, bead: Bead) -> bool:
    """Whether something that a bead waits for, in the end, waits for itself."""
    from beads.graph import blockers

    below: dict[str, list[str]] = {}
    stack = [bead]
    while stack:
        here = stack.pop()
        if here.id not in below:
            waits_for = blockers(look.snapshot, here)
            below[here.id] = [target.id for target in waits_for]
            stack += waits_for
    try:
        TopologicalSorter(below).prepare()
    except CycleError:
        return True
    return False
