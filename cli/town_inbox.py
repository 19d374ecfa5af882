"""``town inbox``: everything that needs a person, in one list; and how other commands say it at their end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cli.session import BEAD_ID, Session, command

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from roles.inbox import Inbox, Item, Later

_SHORT = 4
"""How many ways on are named where an item is only one of many."""


@command("inbox")
@click.argument("bead_id", type=BEAD_ID, metavar="[ID]", required=False)
@click.pass_obj
def inbox(session: Session, bead_id: str | None) -> None:
    """Show everything that needs you: approvals, failures, spent budgets, what stops the queue, the Mayor's questions.

    The most urgent first, each with the commands that bring it forward. With an ID, all that was found about that one.
    What goes on by itself at a time that is known stands at the end. Looking is no failure: the exit code is 0 also
    when there is something.

    \b
    Example:
      town inbox
      town inbox bt-7f3a9c
      town inbox --json | jq -r '.items[] | .kind + " " + .id'
    """
    from cli.config import settings_of
    from cli.render import echo_json
    from roles import inbox as role

    snapshot = session.store.snapshot()
    found = role.inbox(snapshot, session.clock.now(), settings_of(session.start))
    if bead_id is not None:
        _show_one(session, role.about(found, snapshot, session.find(snapshot, bead_id)), bead_id)
    elif session.json:
        echo_json(role.for_programs(found))
    else:
        show(found)


def _show_one(session: Session, items: Sequence[Item], bead_id: str) -> None:
    from beads.errors import NotFound
    from cli.render import echo_json
    from roles.inbox import facts

    if not items:
        raise NotFound(f"nothing about {bead_id} needs a person", f"`bead why {bead_id}` says where it stands.")
    if session.json:
        echo_json([facts(item) for item in items])
        return
    for number, item in enumerate(items):
        click.echo("" if number else None, nl=bool(number))
        _print_whole(item)


def show(found: Inbox) -> None:
    """Print all of it, a few lines for each."""
    from cli.render import moment, printable, style

    for item in found.items:
        since = f"  {style(f'since {moment(item.since)}', 'dim')}" if item.since else ""
        click.echo(f"{style(item.kind, 'red')}  {style(item.bead_id, 'bold')}  {printable(item.title)}{since}")
        click.echo(f"  {printable(item.reason)}")
        for way in item.ways[:_SHORT]:
            click.echo(f"    {printable(str(way))}")
    if not found.items:
        click.echo("nothing needs you")
    for one in found.later:
        click.echo(f"put off: {one.bead_id}  {printable(one.title)}\n  {printable(one.reason)}")
    if found.items:
        click.echo("`town inbox ID` shows what was found")


def _print_whole(item: Item) -> None:
    from cli.render import fields, moment, paragraph, printable, style

    click.echo(f"{style(item.bead_id, 'bold')}  {printable(item.title)}")
    reason = (item.reason, "red")
    fields([("kind", item.kind), ("why", reason), ("since", moment(item.since)), ("priority", str(item.priority))])
    for one in item.evidence:
        when = f"  {style(moment(one.at), 'dim')}" if one.at else ""
        click.echo(f"\n{printable(one.what)}{when}")
        for line in printable(one.text).splitlines():
            click.echo(f"  {line}".rstrip())
    paragraph("What you can do", "\n".join(_way_lines(item)))


def _way_lines(item: Item) -> Iterable[str]:
    width = max(len(way.command) for way in item.ways)
    return (f"{way.command:<{width}}  {way.does}".strip() if way.command else way.does for way in item.ways)


def in_short(item: Item) -> str:
    """An item for the end of another command's answer."""
    from cli.render import printable

    ways = "".join(f"\n  {way}" for way in item.ways[:_SHORT])
    return printable(f"needs a person: {item.bead_id or item.kind}: {item.reason}{ways}")


def finish(found: Sequence[Item], later: Sequence[Later] = ()) -> None:
    """End a command after which a person has to act, or something is put off.

    Raises:
        NeedsPerson: that is so.
    """
    from beads.errors import NeedsPerson
    from cli.render import printable

    for item in found:
        click.echo(in_short(item), err=True)
    for one in later:
        click.echo(printable(f"put off: {one.bead_id}: {one.reason}\n  town up goes on with it then"), err=True)
    if later and not found:
        raise NeedsPerson(f"{len(later)} put off", "`town status` shows until when; run `town up` again then.")
    if found:
        raise NeedsPerson(f"{len(found)} waiting for a person", "`town inbox` shows them, and what was found.")
