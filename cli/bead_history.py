"""``bead``: the commands that look at the history, and the one that takes a part of it back."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

import click

from cli import render
from cli.bead import limit_option
from cli.bead_write import Moment
from cli.session import BEAD_ID, Session, command

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import datetime

    from beads.git import Oid
    from beads.history import Difference, Entry
    from beads.model import Bead
    from beads.ops import Restore

_BEADS_MAX = 100
"""Of how many beads an undo says what changed, to a person; JSON has all of them."""

_OLDER_MAX = 1000
"""After so many in a row that are older than asked for no more are read; fewer may be of a clock that was wrong."""


@command("log")
@click.argument("bead_id", metavar="[ID]", required=False, type=BEAD_ID)
@limit_option
@click.option("--since", metavar="MOMENT", type=Moment(), help="Only what was done at or after MOMENT.")
@click.option("--actor", "actor", metavar="NAME", help="Only what was done by somebody with NAME in the name.")
@click.option("--at", metavar="REV", help="Begin with REV, as `bead show --at` takes it.")
@click.pass_obj
def log(
    session: Session, bead_id: str | None, limit: int | None, since: datetime | None, actor: str | None, at: str | None
) -> None:
    """Print who did what and when, newest first.

    With ID, only what was done to that bead, and which fields it changed; of one that was deleted, too. It is read
    from the commits of refs/beads/main, where `git log` shows the same, and no further than it is printed.

    \b
    Example:
      bead log --limit 20
      bead log bt-7f3a9c
      bead log --since 2026-01-31 --actor nux
    """
    from beads import history

    store = session.store
    repository = store.repository
    # Not through a snapshot: the history can be read when the newest state cannot.
    head = repository.head(store.ref) or store.snapshot().commit
    if at is not None:
        head = history.resolve(repository, head, at).oid
    of_one = bead_id and history.history_of(repository, head, bead_id)
    found = history.marked(of_one or history.transactions(repository, head))
    entries = islice(_chosen(found, since, actor), limit)
    if session.json:
        render.echo_json(list(entries))
        return
    for entry in entries:
        _print_entry(entry)


@command("undo")
@click.option("--transaction", metavar="REV", help="Undo that one, whoever did it; REV as for `bead show --at`.")
@click.option("--dry-run", is_flag=True, help="Only say what would change.")
@click.pass_obj
def undo(session: Session, transaction: str | None, dry_run: bool) -> None:
    """Take back what you did last, as a new commit.

    The last transaction of the actor is undone that is not undone yet; doing it again undoes the one before.
    Undoing an undo does it again. What others changed meanwhile stays. Where they changed the very same field, and
    where others rely on what was done (evidence, leases, the merge queue), nothing is undone and the exit code is 5.

    \b
    Example:
      bead undo --dry-run
      bead undo
      bead undo --transaction 3c1d2e4f
    """
    from beads import history
    from beads.store import Snapshot

    repository, head = session.store.repository, session.store.snapshot()
    if transaction is None:
        target = history.last_own(repository, head.commit, head, session.actor).commit
    else:
        target = history.resolve(repository, head.commit, transaction).oid

    def decide(snapshot: Snapshot) -> list[Restore]:
        operation = history.undoing(repository, snapshot.commit, snapshot, target)
        return [] if operation is None else [operation]

    commit: Oid | None = None
    if dry_run:
        changes = _preview(session, decide(head))
    else:
        written = session.commit(decide)
        # Others may have written since.
        later = history.transactions(repository, written.snapshot.commit)
        commit = next(entry.commit for entry in later if entry.undoes == target) if written.changed else None
        changes = [] if commit is None else [(c.before, c.after) for c in history.changed(repository, commit)]
    _print_undo(session, target, commit, dry_run, changes)


def _preview(session: Session, operations: Iterable[Restore]) -> list[tuple[Bead | None, Bead]]:
    """The beads that operations would change, before and after."""
    from beads.apply import Context, Draft, apply

    snapshot = session.store.snapshot()
    draft = Draft(snapshot)
    for operation in operations:
        apply(operation, draft, Context(session.actor, session.now()))
    return [(snapshot.get(bead.id), bead) for bead in draft.changed.values()]


def _print_undo(
    session: Session, target: Oid, commit: Oid | None, dry_run: bool, changes: Sequence[tuple[Bead | None, Bead]]
) -> None:
    from beads import history

    repository = session.store.repository
    entry = next(history.transactions(repository, target))
    found = [{"id": after.id, "differences": history.differences(before, after)} for before, after in changes]
    if session.json:
        render.echo_json({"transaction": entry, "commit": commit, "dry_run": dry_run, "beads": found})
        return
    said = "nothing is left to undo of" if not found else "would undo" if dry_run else "undid"
    click.echo(f"{said} {_headline(entry)}")
    for one in found[:_BEADS_MAX]:
        click.echo(f"  {one['id']}")
        _print_differences(one["differences"])
    if len(found) > _BEADS_MAX:
        click.echo(f"  … and {len(found) - _BEADS_MAX} more")


def _chosen(entries: Iterable[Entry], since: datetime | None, actor: str | None) -> Iterator[Entry]:
    wanted = (actor or "").casefold()
    older = 0
    for entry in entries:
        older = older + 1 if since is not None and entry.when < since else 0
        if older > _OLDER_MAX:
            return
        if not older and wanted in entry.actor.casefold():
            yield entry


def _print_entry(entry: Entry) -> None:
    mark = render.style(f"  (undone by {entry.undone_by[:12]})", "dim") if entry.undone_by else ""
    click.echo(f"{_headline(entry)}{mark}")
    _print_differences(entry.differences)


def _headline(entry: Entry) -> str:
    return (
        f"{entry.when:%Y-%m-%d %H:%M:%S}  {render.style(entry.commit[:12], 'yellow')}  "
        f"{render.printable(entry.actor)}  {render.printable(entry.what)}"
    )


def _print_differences(differences: Any) -> None:
    for difference in differences:
        click.echo(f"    {render.printable(_difference(difference))}")


def _difference(difference: Difference) -> str:
    """What changed in one line; texts of several lines are left to ``git log -p``."""
    went, came = difference.removed, difference.added
    if any("\n" in word or len(word) > 200 for word in (*went, *came)):
        return f"{difference.field} changed"
    if len(went) == 1 and len(came) == 1:
        return f"{difference.field}: {went[0]} → {came[0]}"
    return f"{difference.field}: {' '.join([*(f'-{word}' for word in went), *(f'+{word}' for word in came)])}"
