"""``bead dep``: what waits for what."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from cli import render
from cli.bead import Look
from cli.bead_write import echo_written
from cli.session import BEAD_ID, Session, asked, group

if TYPE_CHECKING:
    from beads.model import Bead
    from beads.store import Snapshot


@dataclass(frozen=True)
class Node:
    """A place in a tree of dependencies.

    Attributes:
        id: the bead's id.
        bead: the bead; None when it is not there.
        depth: how far below the root.
        above: the id of the bead it hangs from, and how; empty for the root.
        kind: the type of that dependency.
        again: whether it was shown before, and what is below it is not repeated.
    """

    id: str
    bead: Bead | None
    depth: int
    above: str
    kind: str
    again: bool


@group("dep")
def dep() -> None:
    """Say what waits for what, and how else beads are related.

    \b
    Example:
      bead dep add bt-2 bt-1
      bead dep tree bt-2
    """


@dep.command("add")
@click.argument("bead_id", metavar="ID", type=BEAD_ID)
@click.argument("needed", metavar="NEEDED", type=BEAD_ID)
@click.option(
    "-t", "--type", "kind", metavar="T", default="blocks", show_default=True, help="blocks, parent-child, related, …"
)
@click.pass_obj
def dep_add(session: Session, bead_id: str, needed: str, kind: str) -> None:
    """Make a bead wait for another one.

    With --type they are related otherwise, and nothing waits unless the type says so.

    \b
    Example:
      bead dep add bt-2 bt-1
      bead dep add bt-2 bt-1 --type discovered-from
    """
    _depend(session, bead_id, needed, kind, remove=False)


@dep.command("remove")
@click.argument("bead_id", metavar="ID", type=BEAD_ID)
@click.argument("needed", metavar="NEEDED", type=BEAD_ID)
@click.option(
    "-t", "--type", "kind", metavar="T", default="blocks", show_default=True, help="The type it was added with."
)
@click.pass_obj
def dep_remove(session: Session, bead_id: str, needed: str, kind: str) -> None:
    """Take a dependency away.

    \b
    Example:
      bead dep remove bt-2 bt-1
    """
    _depend(session, bead_id, needed, kind, remove=True)


@dep.command("tree")
@click.argument("bead_id", metavar="ID", type=BEAD_ID)
@click.option("--reverse", is_flag=True, help="What depends on it, instead of what it depends on.")
@click.pass_obj
def dep_tree(session: Session, bead_id: str, reverse: bool) -> None:
    """Print what a bead depends on, all the way down.

    \b
    Example:
      bead dep tree bt-2
      bead dep tree bt-1 --reverse
    """
    look = Look.of(session)
    nodes = list(_walk(look.snapshot, look.find(bead_id).id, reverse))
    if session.json:
        render.echo_json([_answer(node) for node in nodes])
        return
    for node in nodes:
        standing = "not there" if not node.bead else "deleted" if node.bead.deleted else look.state(node.bead).kind
        colour = render.COLOURS.get(standing, "red")
        kind = f"{node.kind} " if node.kind not in ("", "blocks") else ""
        title = "(see above)" if node.again else render.printable(node.bead.title) if node.bead else ""
        said = f"{'  ' * node.depth}{kind}{node.id}  {render.style(standing.replace('_', ' '), colour)}  {title}"
        click.echo(said.rstrip())


def _depend(session: Session, bead_id: str, needed: str, kind: str, *, remove: bool) -> None:
    from beads.model import Dependency
    from beads.ops import Depend

    edge = asked(Dependency, "the dependency", on=needed, type=kind)
    written = session.commit([Depend(id=bead_id, on=edge.on, type=edge.type, remove=remove)])
    verb = "needs" if kind == "blocks" else f"is related as {kind} to"
    echo_written(session, written, f"{{}} {'no longer ' if remove else ''}{verb} {needed}")


def _walk(snapshot: Snapshot, root: str, reverse: bool) -> Iterator[Node]:
    """The tree below a bead, a node before what is below it. Without recursion, because chains may be long."""
    shown: set[str] = set()
    stack = [(root, 0, "", "")]
    while stack:
        bead_id, depth, above, kind = stack.pop()
        again = bead_id in shown
        yield Node(bead_id, snapshot.get(bead_id), depth, above, kind, again)
        shown.add(bead_id)
        below = [] if again else _edges(snapshot, bead_id, reverse)
        stack += [(other, depth + 1, bead_id, of) for other, of in reversed(below)]


def _edges(snapshot: Snapshot, bead_id: str, reverse: bool) -> list[tuple[str, str]]:
    """The beads one step further, each with the type of the dependency that leads there."""
    if not reverse:
        bead = snapshot.get(bead_id)
        return [(d.on, d.type) for d in bead.dependencies] if bead else []
    others = {other.id: other for other in (*snapshot.children(bead_id), *snapshot.dependents(bead_id))}
    return [(other.id, d.type) for other in others.values() for d in other.dependencies if d.on == bead_id]


def _answer(node: Node) -> dict[str, Any]:
    place = {"depth": node.depth, "parent_id": node.above, "dependency_type": node.kind, "truncated": node.again}
    facts: dict[str, Any] = render.bead_json(node.bead) if node.bead else {"id": node.id, "missing": True}
    return facts | place
