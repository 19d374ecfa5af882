"""``town revert``: take back what has landed, through the gate."""

from __future__ import annotations

import click

from cli.session import Session, command, only_a_person


@command("revert")
@click.argument("what", metavar="ID|COMMIT")
@click.option("--reason", metavar="TEXT", default="", help="Why; it is in the commit and in the history.")
@click.pass_obj
def revert(session: Session, what: str, reason: str) -> None:
    """Take back what a molecule, a merge request or a commit has brought to main.

    That is a molecule and a merge request of its own, which lands when the gate passes. Of several that landed
    together only the one is taken back; with a commit all of it is. Where main has changed in the same places since,
    somebody has to resolve that first: the molecule then has a step for an agent, or for you with `town attach`.
    Asking for the same again changes nothing. What has landed since and needs it is named, and stays.

    \b
    Example:
      town revert bt-7f3a9c --reason "the site is slow since then"
      town revert HEAD~2
    """
    from cli.config import open_site
    from cli.render import echo_json, printable
    from roles.revert import revert as take_back

    only_a_person("take back what has landed")
    found = take_back(open_site(session.start), what, session.actor, reason, session.now())
    if session.json:
        echo_json(
            {
                "id": found.molecule.id,
                "title": found.molecule.title,
                "request": found.request and found.request.id,
                "conflicts": list(found.paths),
                "dependents": [bead.id for bead in found.dependents],
                "made": found.made,
            }
        )
        return
    if not found.made:
        click.echo(f"{found.molecule.id} takes it back already; `bead why {found.molecule.id}` says where it stands")
    elif found.request is not None:
        click.echo(f"{found.request.id} is in the queue: {printable(found.molecule.title)}; `town up` lands it")
    else:
        click.echo(f"{found.molecule.id}: conflicts in {', '.join(found.paths)} are to be resolved first")
    for bead in found.dependents:
        click.echo(f"note: {bead.id} needs it, and has landed: {printable(bead.title)}", err=True)
