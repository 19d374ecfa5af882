"""``bead``: the commands that look."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

from cli import render
from cli.session import BEAD_ID, Session, command

if TYPE_CHECKING:
    from datetime import datetime

    from beads.index import Row
    from beads.model import Bead
    from beads.state import State
    from beads.store import Snapshot

Function = TypeVar("Function", bound=Callable[..., object])

STATUSES = ("open", "in_progress", "deferred", "closed")
KINDS = tuple(render.COLOURS)


class Look(NamedTuple):
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

    def stands(self, row: Row) -> State:
        """Where the bead of a row stands; only what its row does not say is found out by looking at others."""
        from beads.state import State

        match row.kind:
            case "ready" | "closed" | "needs_person" | "blocked" as kind:
                return State(kind, row.reason or "", tuple((row.waits or "").split()))
            case _:
                return self.state(self.snapshot.need(row.id))

    def kind(self, row: Row) -> str:
        """The kind of where the bead of a row stands."""
        return row.kind or self.stands(row).kind


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
            click.option("--after", metavar="ID", type=BEAD_ID, help="Only those after ID in the order."),
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
    look = Look.of(session)
    _print_rows(look, look.snapshot.ready_rows(look.now, limit))


@command("list")
@filters
@click.pass_obj
def list_(session: Session, /, **choice: Any) -> None:
    """Print the beads that are not closed, or those you ask for.

    They come in the order of their ids. To see them page by page, give the last id of a page to --after.

    \b
    Example:
      bead list --type bug --label urgent
      bead list --state needs_person
      bead list --all --limit 100 --after bt-7f3a9c --json
    """
    look = Look.of(session)
    _print_rows(look, _chosen(look, **choice))


@command("search")
@click.argument("text")
@filters
@click.pass_obj
def search(session: Session, /, text: str, **choice: Any) -> None:
    """Print beads with the words of TEXT in them, best first.

    Title, id, description, command, labels and comments are searched. A word also finds longer ones that begin with
    it; capitals and accents make no difference; closed beads are searched with --all.

    \b
    Example:
      bead search slug
      bead search "time out" --all
    """
    look = Look.of(session)
    _print_rows(look, _chosen(look, text, **choice))


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
    found = _chosen(look, state="blocked", limit=limit)
    if session.json:
        answers = [answer(look, row) for row in found]
        more = [{"blocked_by": one["state"]["waits_for"]} for one in answers]
        render.echo_json(
            [{**o, **m, "blocked_by_count": len(m["blocked_by"])} for o, m in zip(answers, more, strict=True)]
        )
        return
    rows = [(row.id, f"P{said['priority']}", row.reason or "", said["title"]) for row, _, said in _read(look, found)]
    render.echo_table(rows, ("id", "pri", "waits", "title"), "nothing is blocked")


@command("stats")
@click.pass_obj
def stats(session: Session) -> None:
    """Count beads by status, state and type.

    \b
    Example:
      bead stats
    """
    look = Look.of(session)
    counts = look.snapshot.counts(look.now)
    statuses, states = counts["status"], counts["state"]
    total = sum(statuses.values())
    if session.json:
        totals = {"total_issues": total, **{f"{status}_issues": statuses.get(status, 0) for status in STATUSES}}
        totals |= {f"{state}_issues": states.get(state, 0) for state in ("ready", "blocked")}
        by = {f"by_{name}": counts[name] for name in ("state", "type", "outcome")}
        render.echo_json({**totals, **by})
        return
    rows = [("beads", "", str(total))]
    for title in ("status", "state", "type", "outcome"):
        rows += [(title, name, str(count)) for name, count in sorted(counts[title].items())]
    render.echo_table(rows, ("what", "which", "count"))


def answer(look: Look, row: Row) -> dict[str, Any]:
    """A bead as JSON answers have it, where it stands, and the counts that ``bd`` gives."""
    from beads.toml import loads

    state = look.stands(row)
    found = render.bead_json(loads(row.data, row.id), state)
    counts = {
        "dependency_count": len(found["dependencies"]),
        "dependent_count": look.snapshot.dependent_count(row.id),
        "comment_count": len(found["comments"]),
    }
    total, closed = look.snapshot.progress(row.id)
    return found | counts | ({"parts_total": total, "parts_closed": closed} if total else {})


def _chosen(look: Look, text: str = "", **choice: Any) -> Iterator[Row]:
    """The rows that all the filters let through, best match first, or in the order of the ids."""
    from beads.index import Choice

    for name in ("parent", "after"):
        if choice.get(name) is not None:
            look.find(choice[name])
    wanted = Choice(text=text, **choice)
    rows = look.snapshot.rows(wanted, look.now)
    if wanted.state is None:
        return rows
    return islice((row for row in rows if look.kind(row) == wanted.state), wanted.limit)


def _read(look: Look, rows: Iterable[Row]) -> Iterator[tuple[Row, str, dict[str, Any]]]:
    """The rows, the kinds of where their beads stand, and what the files say."""
    from beads.toml import loads

    return ((row, look.kind(row), loads(row.data, row.id)) for row in rows)


def _print_rows(look: Look, rows: Iterable[Row]) -> None:
    if look.session.json:
        render.echo_json([answer(look, row) for row in rows])
        return
    cells = [
        (row.id, f"P{said['priority']}", (kind, render.COLOURS[kind]), said["issue_type"], said["title"])
        for row, kind, said in _read(look, rows)
    ]
    render.echo_table(cells, ("id", "pri", "state", "type", "title"), "nothing found")
