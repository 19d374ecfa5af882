"""``bead``: the commands that look at one bead."""

from __future__ import annotations

from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING, Any

import click

from cli import render
from cli.bead import Look, answer
from cli.session import BEAD_ID, Session, command

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from beads.chain import Found, Link, Spent
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


# How many lines of what a failing command printed are shown.
_TAIL = 10


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
    chain = [(depth, bead, _routed(look, bead, state)) for depth, bead, state in _chain(look, look.find(bead_id))]
    failing = _failing(look, chain[0][1])
    if session.json:
        described = [{"id": b.id, "title": b.title, "depth": d, "state": s, "next": _next(b, s)} for d, b, s in chain]
        render.echo_json({**described[0], **({"failing": failing} if failing else {}), "chain": described[1:]})
        return
    for depth, bead, state in chain:
        kind = render.style(state.kind.replace("_", " "), render.COLOURS[state.kind])
        # The reason often starts with the very word that names the state.
        reason = f": {state.reason}" if not state.reason.startswith(state.kind) else state.reason[len(state.kind) :]
        indent = "  " * depth
        click.echo(f"{indent}{bead.id} {render.printable(bead.title)}")
        click.echo(f"{indent}  {kind}{render.printable(reason)}; next: {_next(bead, state)}")
        if not depth and failing:
            _print_failing(failing)


def _routed(look: Look, bead: Bead, state: State) -> State:
    """Where what is ready stands by what ``town.toml`` says of its agents, where there is one."""
    from beads import graph

    molecule = graph.molecule_of(look.snapshot, bead)
    if state.kind != "ready" or not graph.workable(look.snapshot, molecule):
        return state
    # Only of work for agents, since nothing of theirs is needed for anything else.
    from beads.spending import books
    from cli.config import settings_of
    from roles import routing

    settings = settings_of(look.session.start)
    if settings is None:
        return state
    known = books(look.snapshot, look.now)
    return routing.stands(routing.of(settings, known, look.snapshot, molecule, look.now), state)


def _failing(look: Look, bead: Bead) -> dict[str, Any]:
    """What did not hold the last time somebody looked at the step that is next, and how; nothing when all held."""
    from beads import graph
    from beads.chain import found, log_of
    from beads.model import facts

    molecule = graph.molecule_of(look.snapshot, bead)
    step = bead if bead.id != molecule.id else graph.next_step(look.snapshot, molecule)
    bad = [one for one in found(facts(step)) if one.verdict in ("fail", "error", "asked", "answered")] if step else []
    if step is None or step.closed or not bad:
        return {}
    last = max(bad, key=lambda one: (one.at is not None, one.at))
    log = log_of(look.session.store.directory / "logs", molecule.id, last.digest) if last.digest else None
    reason = step.attempts[-1].reason if step.attempts else ""
    # Mostly that is just what did not hold; what ended the attempt before it could is worth saying.
    more = {"reason": reason} if reason.endswith(f"; {last.subject}: {last.detail}") else {}
    return {"step": step.id, **_found_answer(last), **more, **({"log": log} if log and log.exists() else {})}


def _print_failing(failing: dict[str, Any]) -> None:
    said = f"{failing['verdict']}  {failing['subject']}: {failing.get('detail', '')}"
    when = f"{render.moment(failing['at'])} by {failing['by']}, tree {failing['tree'][:12]}"
    click.echo(f"  {failing['step']}, {when}\n    {render.printable(said)}")
    if "reason" in failing:
        click.echo(f"    the attempt: {render.printable(failing['reason'])}")
    for line in failing.get("output", "").splitlines()[-_TAIL:]:
        click.echo(f"      {render.printable(line)}".rstrip())
    if "log" in failing:
        click.echo(f"    all of it: {failing['log']}")


def _next(bead: Bead, state: State) -> str:
    """Who acts next on a bead."""
    from beads.speech import CONVERSATION, MESSAGE

    speaks = {MESSAGE: "the Mayor", CONVERSATION: "whoever speaks next"} if state.kind == "waiting" else {}
    return speaks.get(bead.issue_type, _NEXT[state.kind])


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
    others = look.snapshot.dependents(bead.id)
    pairs = [(other.id, d.type) for other in others for d in other.dependencies if d.on == bead.id]
    # Of its parts there may be thousands, and nothing more is asked of them than who they are.
    pairs = list(dict.fromkeys([*((part, "parent-child") for part in look.snapshot.part_ids(bead.id)), *pairs]))
    edges = [{"issue_id": other, "depends_on_id": bead.id, "type": how} for other, how in pairs]
    row = look.snapshot.row(bead.id, look.now)
    assert row is not None, "it was just found"
    return answer(look, row) | {"dependents": edges} | _chain_answer(look, bead)


def _chain_answer(look: Look, bead: Bead) -> dict[str, Any]:
    """The steps of a molecule, and what all of it took; nothing for what has no steps."""
    chain = list(_links(look, bead))
    steps = [
        {"id": link.id, "title": link.title, "status": link.status, "state": kind}
        | ({"outcome": link.outcome} if link.outcome else {})
        | ({**link.spent._asdict(), "criteria": list(map(_found_answer, link.found))} if link.found else {})
        for link, kind in chain
    ]
    return {"steps": steps, "spent": _spent(bead, chain)._asdict()} if steps else {}


def _found_answer(found: Found) -> dict[str, Any]:
    return {"verdict": found.verdict, **dict(render.without_empty(found._asdict()))}


def _links(look: Look, bead: Bead) -> Iterator[tuple[Link, str]]:
    """The steps of a molecule, each with the kind of where it stands."""
    from beads import graph
    from beads.chain import links

    chain = list(links(look.snapshot.parts(bead.id)))
    current = graph.next_step(look.snapshot, bead) if chain else None
    kind = look.state(bead).kind if chain else ""
    for link in chain:
        at = current is not None and current.id == link.id
        yield link, "closed" if link.status == "closed" else kind if at else "waiting"


def _spent(bead: Bead, chain: Iterable[tuple[Link, str]]) -> Spent:
    """What the work on a bead took, on its steps and on itself."""
    from functools import reduce

    from beads.chain import Spent, spent
    from beads.model import facts

    return reduce(Spent.plus, (link.spent for link, _ in chain), spent(facts(bead)))


def _print_bead(look: Look, bead: Bead) -> None:
    state, chain = look.state(bead), list(_links(look, bead))
    click.echo(f"{render.style(bead.id, 'bold')}  {render.printable(bead.title)}")
    _print_facts(bead, state, _spent(bead, chain))
    render.paragraph("Description", bead.description)
    render.paragraph("Command", bead.run)
    render.paragraph("To mend", bead.rework)
    render.paragraph("Criteria", "\n".join(str(criterion) for criterion in bead.criteria))
    related = [f"{d.type} {d.on}{_standing(look, d.on)}" for d in bead.dependencies]
    render.paragraph("Depends on", "\n".join(related))
    _print_chain(chain)
    steps = {link.id for link, _ in chain}
    parts = (look.snapshot.need(part) for part in look.snapshot.part_ids(bead.id) if part not in steps)
    render.paragraph("Parts", "\n".join(f"{p.id}{_standing(look, p.id)}  {p.title}" for p in parts))
    waiting = [f"{other.id}  {other.title}" for other in look.snapshot.dependents(bead.id)]
    render.paragraph("Needed by", "\n".join(waiting))
    render.paragraph(
        "Attempts", "\n".join(f"{a.number}  {a.worker}  {a.end or 'running'}  {a.reason}" for a in bead.attempts)
    )
    render.paragraph("Evidence", "\n".join(f"{e.verdict}  {e.subject}  {e.detail}" for e in bead.evidence))
    for said in bead.comments:
        render.paragraph(f"{said.author}, {render.moment(said.created_at)}", said.text)


def _print_facts(bead: Bead, state: State, spent: Spent) -> None:
    closed = (
        f"{render.moment(bead.closed_at)}: {bead.close_reason}" if bead.close_reason else render.moment(bead.closed_at)
    )
    lease = bead.lease
    merge = bead.merge
    render.fields(
        [
            ("state", (f"{state.kind.replace('_', ' ')}: {state.reason}", render.COLOURS[state.kind])),
            ("next", _next(bead, state)),
            ("type", f"{bead.issue_type}, priority {bead.priority}"),
            ("labels", ", ".join(bead.labels)),
            ("assignee", bead.assignee),
            ("agent", bead.agent),
            ("terms", str(bead.terms or "")),
            ("held by", f"{lease.worker}, epoch {lease.epoch}, until {render.moment(lease.until)}" if lease else ""),
            ("branch", f"{merge.branch} at {merge.head[:12]}" if merge else ""),
            ("sealed", "yes" if bead.seal else ""),
            ("deferred", render.moment(bead.defer_until)),
            ("created", f"{render.moment(bead.created_at)} by {bead.created_by or 'unknown'}"),
            ("updated", render.moment(bead.updated_at)),
            ("closed", closed),
            ("took", _took(spent)),
        ]
    )


def _took(spent: Spent) -> str:
    """What work took, in words; empty when there was none."""
    if not spent.attempts:
        return ""
    tries = "1 attempt" if spent.attempts == 1 else f"{spent.attempts} attempts"
    unpriced = f" and what {spent.unpriced} of them cost" if spent.unpriced else ""
    return f"{tries}, {spent.seconds:.1f} s, ${spent.cost:.4f}{unpriced}"


def _print_chain(chain: Iterable[tuple[Link, str]]) -> None:
    """The steps, a line each, and below each one that was begun its criteria with what was found of them last."""
    lines = []
    for link, kind in chain:
        stands = (link.outcome or kind).replace("_", " ")
        took = f"  ({_took(link.spent)})" if link.spent.attempts else ""
        lines.append(f"{link.id}  {stands}  {link.title}{took}")
        lines += [f"    {_found_line(found)}" for found in link.found]
    render.paragraph("Steps", "\n".join(lines))


def _found_line(found: Found) -> str:
    how = f": {found.detail}" if found.detail else ""
    who = f"  [{found.by}, tree {found.tree[:12]}]" if found.by else ""
    return f"{found.verdict}  {found.subject}{how}{who}"


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
