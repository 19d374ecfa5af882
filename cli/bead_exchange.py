"""``bead``: the commands that exchange beads with other programs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, BinaryIO, TypeVar

import click

from cli import render
from cli.session import Session, command

if TYPE_CHECKING:
    from beads.model import Bead
    from beads.ops import Operation
    from beads.store import Snapshot

Item = TypeVar("Item")

Said = tuple[Sequence["Bead"], Sequence[str]]
"""The beads that a file asks for, and what in it was not taken as it is."""


@dataclass(frozen=True)
class Comparison:
    """What an import does to a snapshot.

    Attributes:
        created: the ids of beads that are new.
        updated: the ids of those that change.
        unchanged: how many stay as they are.
        conflicts: the ids of beads of which something stays although the file changed it, with the fields.
        notes: what in the file was not taken as it is.
        operations: what brings the changes about.
    """

    created: tuple[str, ...]
    updated: tuple[str, ...]
    unchanged: int
    conflicts: tuple[tuple[str, tuple[str, ...]], ...]
    notes: tuple[str, ...]
    operations: tuple[Operation, ...]


@command("import")
@click.argument("file", metavar="FILE|-", type=click.Path(allow_dash=True))
@click.option(
    "--from", "origin", type=click.Choice(["bd", "speckit"]), default="bd", show_default=True, help="What wrote it."
)
@click.option("--dry-run", is_flag=True, help="Say what would change, and change nothing.")
@click.pass_obj
def import_(session: Session, file: str, origin: str, dry_run: bool) -> None:
    """Take over the issues of another program, all of them or none.

    From bd it reads its JSON lines, from Spec-Kit a tasks.md. Importing a file again changes nothing, and a newer one
    brings what was changed in it: what you edited here stays. What has no field here is kept, and `bead export --to
    bd` gives it back.

    \b
    Example:
      bead import .beads/issues.jsonl --dry-run
      bead import --from speckit specs/001-albums/tasks.md
    """
    said = (_bd if origin == "bd" else _speckit)(session, file)
    found: list[Comparison] = []

    def decide(snapshot: Snapshot) -> Sequence[Operation]:
        found.append(_compare(session, snapshot, said(snapshot)))
        _tell(session, f"writing {len(found[-1].operations)} beads")
        return found[-1].operations

    if dry_run:
        found.append(_compare(session, session.store.snapshot(), said(session.store.snapshot())))
    else:
        name = "standard input" if file == "-" else Path(file).name
        session.commit(decide, f"import from {name}")
    _report(session, found[-1], dry_run)


@command("export")
@click.option("-o", "--output", metavar="FILE", type=click.Path(dir_okay=False), help="Write there.")
@click.option("--to", "target", type=click.Choice(["bd"]), help="Only what that program knows, in its words.")
@click.pass_obj
def export(session: Session, output: str | None, target: str | None) -> None:
    """Print every bead as a line of JSON.

    The names of the fields are those of bd, and ours beside them; what is empty is left out. With --to bd the lines
    are for bd to read, and what was imported from it comes out as it was, but for what was edited since.

    \b
    Example:
      bead export > beads.jsonl
      bead export | jq -r 'select(.status == "open") | .id'
      bead export --to bd -o .beads/issues.jsonl
    """
    snapshot = session.store.snapshot()
    with _written(output) as file:
        for bead in snapshot:
            if target == "bd":
                from beads.interchange.bd import name_in, row_of

                line = render.json_text(row_of(bead, name_in(snapshot.get)))
            else:
                line = render.json_text(dict(render.without_empty(render.bead_json(bead))))
            click.echo(line, file=file)


def _written(output: str | None) -> AbstractContextManager[IO[str] | None]:
    """The file to write, which takes its place only when all of it is written; None is standard output."""
    from beads.errors import NotFound

    if output is None:
        return nullcontext()
    try:
        return click.open_file(output, "w", "utf-8", atomic=True)
    except OSError as error:
        raise NotFound(
            f"{output} cannot be written: {error.strerror}", "Make its directory, or name another file."
        ) from error


def _bd(session: Session, file: str) -> Callable[[Snapshot], Said]:
    from beads.interchange import jsonl

    source = "standard input" if file == "-" else file
    with _opened(file) as handle:
        document = jsonl.read(_watched(session, handle, f"reading {source}"), source)
    return lambda _: (document.beads, document.notes)


def _speckit(session: Session, file: str) -> Callable[[Snapshot], Said]:
    from beads.errors import InvalidInput
    from beads.interchange import speckit, tasks

    source = "standard input" if file == "-" else file
    with _opened(file) as handle:
        data = handle.read()
    try:
        outline = tasks.read(data.decode(), source)
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{source} is not UTF-8: byte {error.start} is {data[error.start]:#04x}") from error
    path = None if file == "-" else Path(file).absolute()
    origin, now = speckit.origin_of(path, source, outline.title), session.now()
    return lambda snapshot: speckit.poured(outline, origin, snapshot.prefix, session.actor, now, snapshot.get)


def _compare(session: Session, snapshot: Snapshot, said: Said) -> Comparison:
    from beads.interchange.merge import adopted, changes
    from beads.ops import Import

    beads, notes = said
    created: list[str] = []
    updated: list[str] = []
    conflicts: list[tuple[str, tuple[str, ...]]] = []
    operations: list[Operation] = []
    for bead in _watched(session, beads, "comparing"):
        there = snapshot.get(bead.id)
        after = adopted(there, bead)
        if changes(there, after.bead):
            (created if there is None else updated).append(bead.id)
            operations.append(Import(bead=bead))
        if after.conflicts:
            conflicts.append((bead.id, after.conflicts))
    same = len(beads) - len(operations)
    return Comparison(tuple(created), tuple(updated), same, tuple(conflicts), tuple(notes), tuple(operations))


def _report(session: Session, found: Comparison, dry_run: bool) -> None:
    if session.json:
        facts = {name: getattr(found, name) for name in ("created", "updated", "unchanged", "notes")}
        conflicts = [{"id": bead_id, "fields": fields} for bead_id, fields in found.conflicts]
        render.echo_json({**facts, "conflicts": conflicts, "dry_run": dry_run})
        return
    for note in found.notes:
        click.echo(render.printable(f"note: {note}"), err=True)
    for bead_id, fields in found.conflicts:
        click.echo(f"conflict: {bead_id}: {', '.join(fields)}: the file says otherwise; stays as it is here", err=True)
    would = "would be " if dry_run else ""
    counts = (len(found.created), len(found.updated), found.unchanged)
    click.echo("{} {w}created, {} {w}updated, {} unchanged".format(*counts, w=would))


@contextmanager
def _opened(file: str) -> Iterator[BinaryIO]:
    from beads.errors import NotFound

    try:
        # click's own stream, because a test gives it another one.
        with click.open_file(file, "rb") as handle:
            yield handle  # type: ignore[misc]  # It says that it is a text file, whatever the mode.
    except OSError as error:
        raise NotFound(f"{file} cannot be read: {error.strerror}") from error


def _watched(session: Session, items: Iterable[Item], label: str) -> Iterator[Item]:
    """The items, with a count for whoever sits at a terminal and waits."""
    quiet = session.json or not sys.stderr.isatty()
    with click.progressbar(items, label=label, file=sys.stderr, hidden=quiet, update_min_steps=500) as bar:
        yield from bar


def _tell(session: Session, text: str) -> None:
    if not session.json and sys.stderr.isatty():
        click.echo(text, err=True)
