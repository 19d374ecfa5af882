"""``bead``: the commands that look."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

import click

from cli import render
from cli.session import BEAD_ID, Session, command

if TYPE_CHECKING:
    from datetime import datetime

    from beads.graph import State
    from beads.model import Bead
    from beads.store import Snapshot

Function = TypeVar("Function", bound=Callable[..., object])

STATUSES = ("open", "in_progress", "deferred", "closed")
KINDS = tuple(render.COLOURS)


@dataclass(frozen=True)
class Look:
    """One look at the store: the state, and the moment as of which everything is said about it."""

    session: Session
    snapshot: Snapshot
    now: datetime

    @classmethod
    def of(cls, session: Session) -> Look:
        """The newest state, now."""
        return cls(session, session.store.snapshot(), session.now())

    def find(self, bead_id: str) -> Bead:
        """The bead of that id."""
        return self.session.find(self.snapshot, bead_id)

    def state(self, bead: Bead) -> State:
        """Where a bead stands."""
        from beads import graph

        return graph.state(self.snapshot, bead, self.now)


limit_option = click.option("--limit", metavar="N", type=click.IntRange(min=1), help="Print at most N.")


def filters(function: Function) -> Function:
    """The options that choose beads by what is stored of them."""
    for option in reversed(
        [
            click.option("--status", type=click.Choice(STATUSES), help="With this status."),
            click.option("--state", type=click.Choice(KINDS), help="Standing so, as `bead why` says."),
            click.option("-t", "--type", "issue_type", metavar="T", help="Of this type."),
            click.option(
                "-l", "--label", "labels", metavar="L", multiple=True, help="With this label, and each other given."
            ),
            click.option("--assignee", metavar="A", help="Assigned to A."),
            click.option("--parent", metavar="ID", type=BEAD_ID, help="A part of ID."),
            click.option("--all", "closed", is_flag=True, help="Closed ones, too."),
            limit_option,
        ]
    ):
        function = option(function)
    return function


@command("ready")
@limit_option
@click.pass_obj
def ready(session: Session, limit: int | None) -> None:
    """Print what can be worked on now, best first.

    Ready is what is open, waits for nothing, and is held by nobody: by priority, and within one by age.

    \b
    Example:
      bead ready
      bead ready --limit 5 --json
    """
    from beads import graph

    look = Look.of(session)
    _print_beads(look, graph.ready(look.snapshot, look.now)[:limit])


@command("list")
@filters
@click.pass_obj
def list_(session: Session, /, **choice: Any) -> None:
    """Print the beads that are not closed, or those you ask for.

    \b
    Example:
      bead list --type bug --label urgent
      bead list --state needs_person
      bead list --all --json
    """
    look = Look.of(session)
    _print_beads(look, _chosen(look, **choice))


@command("search")
@click.argument("text")
@filters
@click.pass_obj
def search(session: Session, /, text: str, **choice: Any) -> None:
    """Print beads with TEXT in id, title or description.

    Capitals make no difference; closed beads are searched with --all.

    \b
    Example:
      bead search slugify
      bead search "time out" --all
    """
    look = Look.of(session)
    _print_beads(look, _chosen(look, text.casefold(), **choice))


@command("blocked")
@limit_option
@click.pass_obj
def blocked(session: Session, limit: int | None) -> None:
    """Print what waits for other beads, and for which.

    \b
    Example:
      bead blocked
      bead blocked --json | jq '.[0].blocked_by'
    """
    look = Look.of(session)
    beads = _chosen(look, state="blocked", limit=limit)
    if session.json:
        found = [answer(look, bead) for bead in beads]
        more = [{"blocked_by": one["state"]["waits_for"]} for one in found]
        render.echo_json(
            [{**o, **m, "blocked_by_count": len(m["blocked_by"])} for o, m in zip(found, more, strict=True)]
        )
        return
    rows = [(bead.id, f"P{bead.priority}", look.state(bead).reason, bead.title) for bead in beads]
    render.echo_table(rows, ("id", "pri", "waits", "title"), "nothing is blocked")


@command("stats")
@click.pass_obj
def stats(session: Session) -> None:
    """Count beads by status, state and type.

    \b
    Example:
      bead stats
    """
    from collections import Counter

    look = Look.of(session)
    beads = [bead for bead in look.snapshot if not bead.deleted]
    states = Counter(look.state(bead).kind for bead in beads)
    statuses: Counter[str] = Counter(bead.status for bead in beads)
    types = Counter(bead.issue_type for bead in beads)
    outcomes = Counter(bead.outcome for bead in beads if bead.outcome)
    if session.json:
        totals = {"total_issues": len(beads), **{f"{status}_issues": statuses[status] for status in STATUSES}}
        totals |= {"ready_issues": states["ready"], "blocked_issues": states["blocked"]}
        render.echo_json({**totals, "by_state": states, "by_type": types, "by_outcome": outcomes})
        return
    rows = [("beads", "", str(len(beads)))]
    for title, counts in (("status", statuses), ("state", states), ("type", types), ("outcome", outcomes)):
        rows += [(title, str(name), str(count)) for name, count in sorted(counts.items())]
    render.echo_table(rows, ("what", "which", "count"))


def answer(look: Look, bead: Bead) -> dict[str, Any]:
    """A bead as JSON answers have it, where it stands, and the counts that ``bd`` gives."""
    counts = {
        "dependency_count": len(bead.dependencies),
        "dependent_count": len(look.snapshot.dependents(bead.id)) + len(look.snapshot.children(bead.id)),
        "comment_count": len(bead.comments),
    }
    return render.bead_json(bead, look.state(bead)) | counts


def _chosen(
    look: Look,
    text: str = "",
    *,
    status: str | None = None,
    state: str | None = None,
    issue_type: str | None = None,
    labels: Sequence[str] = (),
    assignee: str | None = None,
    parent: str | None = None,
    closed: bool = False,
    limit: int | None = None,
) -> list[Bead]:
    """The beads that all the filters let through, in the order of their ids."""
    if parent is not None:
        look.find(parent)

    def fits(bead: Bead) -> bool:
        return (
            not bead.deleted
            and (closed or not bead.closed or "closed" in (status, state))
            and status in (None, bead.status)
            and issue_type in (None, bead.issue_type)
            and set(labels) <= set(bead.labels)
            and assignee in (None, bead.assignee)
            and parent in (None, bead.parent)
            and (not text or text in f"{bead.id}\n{bead.title}\n{bead.description}".casefold())
            and state in (None, look.state(bead).kind if state else None)
        )

    return list(islice(filter(fits, look.snapshot), limit))


def _print_beads(look: Look, beads: Iterable[Bead]) -> None:
    if look.session.json:
        render.echo_json([answer(look, bead) for bead in beads])
        return
    kinds = [(bead, look.state(bead).kind) for bead in beads]
    rows = [(b.id, f"P{b.priority}", (kind, render.COLOURS[kind]), b.issue_type, b.title) for b, kind in kinds]
    render.echo_table(rows, ("id", "pri", "state", "type", "title"), "nothing found")
